"""Trials on CPUs and GPUs, on one machine or many: with `search/cluster.py` the door to Ray.

Ray Tune runs the trials and decides nothing. It asks the record for configurations (`_Asker`) and
hands it every evaluation (`_Reporter`), which answers whether to go on. Weights come home with the
evaluations, so no storage has to be shared, and Tune's own folder is temporary.
"""

import json
import os
import re
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.cluster import signal_handlers_kept  # says, before Ray is there, how quiet it is to be

# isort: split
import ray
import torch
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from pipelines.baselines import BaselineScore, baselines
from pipelines.refit import refit
from pipelines.splits import SearchData, TestData
from pipelines.training import TrainingDiverged
from pipelines.training_config import TrainingBudget
from pipelines.weights import weights_to_bytes
from search.config import Metric, Resources
from search.facts import hardware_name
from search.kept_weights import KeptWeights
from search.leftovers import scratch_folder
from search.record import Ending
from search.recorder import Files, Listener, Recorder
from search.slots import Slots
from search.space import TrialConfig
from search.study import SpaceExhaustedError, Study
from search.trial import SecondTry, TrialOutOfMemory, TrialStep, run_trial

PATIENCE_SECONDS = 0.5  # between two looks at what trials do not report


@dataclass(frozen=True)
class TrialJob:
    """What every trial of a search shares; it crosses to each node once."""

    folds: tuple[SearchData, ...]
    """The rolling origins, one of which a trial is trained on; a search has one."""
    metric: Metric
    slots: Slots
    save_every_seconds: float


def run_trials(
    study: Study,
    job: TrialJob,
    resources: Resources,
    budget: TrainingBudget,
    kept: KeptWeights,
    listeners: Sequence[Listener],
    time_budget_seconds: float | None = None,
    score_baselines: bool = True,
) -> Ending:
    """Run trials until the study is full, the time is over or a signal arrives.

    A failed trial is a recorded result; only a broken search raises. Trials that run at the end
    wait again.

    Args:
        study: the record, open for writing.
        job: what every trial shares.
        resources: how long a trial may hang, and how often it is tried again.
        budget: the training budget, for the baselines.
        kept: where weights are kept.
        listeners: who is told what happens.
        time_budget_seconds: when to stop; None: never.
        score_baselines: whether the baselines are computed beside the trials.
    """
    limits = resources.max_step_seconds, resources.max_retries
    recorder = Recorder(study, kept, listeners, *limits)
    shared = ray.put(job)
    awaited = _AwaitedBaselines(recorder)
    if score_baselines:
        awaited.begin(_score.remote(shared, budget, study.settings.seed))
    deadline = _Deadline(time_budget_seconds)
    asker = _Asker(study, kept)
    trainable = tune.with_resources(
        tune.with_parameters(TrialActor, job=shared),
        {"cpu": job.slots.cpus_per_trial, "gpu": job.slots.gpus_per_trial},
    )
    try:
        is_over = False
        while not is_over:
            watch = _Watch(recorder, awaited)
            with scratch_folder() as scratch, signal_handlers_kept():
                num_slots = job.slots.count
                tuner = _tuner(trainable, asker, recorder, watch, deadline, num_slots, scratch)
                is_over = _fit(tuner, watch)
    finally:
        study.requeue_running()
    ending = _ending(study, asker, deadline)
    recorder.clear_files()
    awaited.end(is_patient=ending in (Ending.DONE, Ending.EXHAUSTED))
    return ending


def _fit(tuner: tune.Tuner, watch: "_Watch") -> bool:
    """Run trials until Tune has ended; return False where it broke off and has to begin anew."""
    try:
        tuner.fit()
    except RuntimeError as error:
        # Tune outlives dead actors, but not those that Ray ends for lack of memory (2.60).
        if not isinstance(error.__cause__, ray.exceptions.OutOfMemoryError):
            raise
        watch.lose_running(str(error.__cause__))
        return False
    return True


def _tuner(
    trainable: Any,
    asker: "_Asker",
    recorder: Recorder,
    watch: "_Watch",
    deadline: "_Deadline",
    num_concurrent: int,
    scratch: str,
) -> tune.Tuner:
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=asker,
            scheduler=_Reporter(recorder),
            num_samples=-1,
            max_concurrent_trials=num_concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=scratch,
            verbose=0,
            stop=deadline,
            callbacks=[watch],
            progress_reporter=_Silence(),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_at_end=False, checkpoint_frequency=0
            ),
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )


def _ending(study: Study, asker: "_Asker", deadline: "_Deadline") -> Ending:
    if study.is_full:
        return Ending.DONE
    if asker.is_exhausted:
        return Ending.EXHAUSTED
    return Ending.TIME_OVER if deadline.is_over else Ending.INTERRUPTED


class TrialActor(tune.Trainable):  # type: ignore[misc]
    """A worker process: trains one trial after another, one evaluation a `step`."""

    def setup(self, config: dict[str, Any], job: TrialJob) -> None:
        """Begin the first trial."""
        self._job = job
        self._hardware = hardware_name(job.slots.device)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Leave the last trial and begin another in the same process."""
        self.cleanup()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train up to the next evaluation; the end is a result of its own, without one."""
        try:
            step = next(self._steps, None)
        except TrainingDiverged as diverged:
            return {"done": True, "pruned": f"diverged by step {diverged.step}"}
        except TrialOutOfMemory as too_large:
            return {"done": True, "pruned": str(too_large)}
        if step is None:
            return {"done": True}
        return {"retry": step.reason} if isinstance(step, SecondTry) else self._result(step)

    def cleanup(self) -> None:
        """Leave the trial wherever it is."""
        self._steps.close()

    def _begin(self, config: dict[str, Any]) -> None:
        self._steps = run_trial(
            TrialConfig.model_validate_json(config["config"]),
            self._job.folds[config["fold"]],
            config["seed"],
            self._job.metric,
            self._job.slots.device,
            self._job.slots.threads_per_trial,
            _fetch(*config["saved_at"]) if config["saved_at"] else None,
            self._job.save_every_seconds,
        )

    def _result(self, step: TrialStep) -> dict[str, Any]:
        return {
            "files": Files(step.weights, step.saved),
            "evaluation": json.dumps(step.evaluation.to_dict()),
            "is_final": step.is_final,
            "ran_on": json.dumps(
                {
                    "host": socket.gethostname(),
                    "pid": os.getpid(),
                    "device": self._job.slots.device,
                    "hardware": self._hardware,
                }
            ),
        }


def _fetch(node_id: str, path: str) -> bytes:
    """Read a file of another machine. Passed by Ray's own ways it would stay in its memory."""
    there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)
    content: bytes = ray.get(_read.options(scheduling_strategy=there).remote(path))
    return content


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
def _read(path: str) -> bytes:
    return Path(path).read_bytes()


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
def _score(job: TrialJob, budget: TrainingBudget, seed: int) -> list[BaselineScore]:
    scores: list[BaselineScore] = []
    with suppress(TrainingDiverged):  # of the linear twin, the last of them
        scores.extend(baselines(job.folds[-1], budget, seed))
    return scores


def refit_seeds(
    data: TestData,
    config: TrialConfig,
    seeds: Sequence[int],
    num_steps: int,
    resources: Resources,
    slots: Slots,
) -> list[bytes]:
    """Train a configuration on all rows, once a seed, and return the weights as safetensors.

    Raises:
        RuntimeError: where a training has broken.
    """
    needs = _refit.options(num_cpus=slots.cpus_per_trial, num_gpus=slots.gpus_per_trial)
    shared = ray.put(data)
    arguments = num_steps, slots.device, slots.threads_per_trial
    jobs = [needs.remote(shared, config.model_dump_json(), seed, *arguments) for seed in seeds]
    try:
        weights: list[bytes] = ray.get(jobs, timeout=resources.max_step_seconds * len(seeds))
    except (ray.exceptions.RayError, TrainingDiverged) as error:
        for job in jobs:
            ray.cancel(job, force=True)
        raise RuntimeError(f"the refit has broken: {error}") from error
    return weights


@ray.remote(max_retries=2)  # type: ignore[untyped-decorator]
def _refit(
    data: TestData, config: str, seed: int, num_steps: int, device: str, num_threads: int
) -> bytes:
    torch.set_num_threads(num_threads)
    chosen = TrialConfig.model_validate_json(config)
    return weights_to_bytes(refit(chosen.model, chosen.training, data, seed, num_steps, device))


class _AwaitedBaselines:
    """The forecasts to beat, being computed beside the trials."""

    def __init__(self, recorder: Recorder):
        self._recorder = recorder
        self._future: Any = None

    def begin(self, future: Any) -> None:
        self._future = future

    def look(self) -> None:
        if self._future is not None and ray.wait([self._future], timeout=0)[0]:
            self._receive()

    def end(self, is_patient: bool) -> None:
        if self._future is not None and is_patient:
            self._receive()
        elif self._future is not None:
            ray.cancel(self._future, force=True)

    def _receive(self) -> None:
        future, self._future = self._future, None
        try:
            self._recorder.score(ray.get(future))
        except ray.exceptions.RayError as error:  # the trials go on without them
            self._recorder.miss_baselines(str(error))


class _StaysHere:
    """Tune pickles its parts for a restore that never happens: nothing of these goes along."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Asker(_StaysHere, Searcher):  # type: ignore[misc]
    """Asks the record for the next configuration."""

    def __init__(self, study: Study, kept: KeptWeights):
        super().__init__()
        self._study = study
        self._kept = kept
        self._node_id = ray.get_runtime_context().get_node_id()
        self.is_exhausted = False

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        try:
            proposal = self._study.ask()
        except SpaceExhaustedError:
            self.is_exhausted = True
        if self.is_exhausted or self._study.is_full:
            return str(Searcher.FINISHED)
        if proposal is None:
            return None
        state = self._kept.state_path(proposal.number)
        return {
            "number": proposal.number,
            "config": proposal.config.model_dump_json(),
            "seed": proposal.seed,
            "fold": proposal.fold,
            "saved_at": (self._node_id, str(state)) if state.exists() else None,
        }

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing: `_Reporter` has told the record."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the record is saved as it grows."""


class _Reporter(_StaysHere, FIFOScheduler):  # type: ignore[misc]
    """Hands every result to the record, the only place where trials are judged."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self._recorder = recorder

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number = trial.config["number"]
        if "retry" in result:
            self._recorder.retry(number, result["retry"])
            return str(self.CONTINUE)
        is_stopped = self._recorder.evaluate(number, result)
        return str(self.STOP if is_stopped else self.CONTINUE)

    def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._recorder.finish(trial.config["number"], result.get("pruned"))

    def on_trial_error(self, controller: Any, trial: Any) -> None:
        # Not trial.get_error(), which reads a copy that is not there yet.
        text = Path(trial.error_file).read_text(encoding="utf-8")
        _, _, traceback = text.partition("\n")  # the first line counts Tune's failures
        uncoloured = re.sub(r"\x1b\[\d+m", "", traceback)
        self._recorder.fail(trial.config["number"], uncoloured)


class _Watch(_StaysHere, tune.Callback):  # type: ignore[misc]
    """The recorder's turn in Tune's loop."""

    def __init__(self, recorder: Recorder, awaited: _AwaitedBaselines):
        self._recorder = recorder
        self._awaited = awaited
        self._looked_at = 0.0
        self._workers: dict[int, Any] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._workers[trial.config["number"]] = trial.temporary_state.ray_actor
        self._recorder.start(trial.config["number"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._workers.pop(trial.config["number"], None)
        # Tune keeps a trial to the end of the search, with averages of every metric.
        trial.run_metadata.metric_analysis.clear()
        trial.run_metadata.metric_n_steps.clear()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._workers.pop(trial.config["number"], None)

    def lose_running(self, why: str) -> None:
        """Let the trials wait that ran; `why` names the workers that Ray ended."""
        ended = [n for n, worker in self._workers.items() if worker._actor_id.hex() in why]
        # Where none is named all are to blame: each try must count, or it would never end.
        for number in ended or self._workers:
            self._recorder.fail(number, f"ray.exceptions.OutOfMemoryError: {why}")
        self._recorder.requeue_running()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        result.pop("files", None)  # written by now; Tune would keep them in memory

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self._looked_at >= PATIENCE_SECONDS:
            self._looked_at = time.monotonic()
            self._awaited.look()
            self._end_overdue()

    def _end_overdue(self) -> None:
        # A step that hangs would keep its slot for ever. Not left to the worker's process, which
        # may be stopped or wait for its device; Tune makes another.
        for number in self._recorder.overdue():
            ray.kill(self._workers[number])


class _Silence(tune.ProgressReporter):  # type: ignore[misc]
    """Tune's own report, which in a notebook would wipe ours away."""

    def should_report(self, trials: list[Any], done: bool = False) -> bool:
        return False

    def report(self, trials: list[Any], done: bool, *sys_info: dict[str, Any]) -> None:
        raise AssertionError("nothing is to be reported")


class _Deadline(tune.Stopper):  # type: ignore[misc]
    """Ends the search when its time is over; the running trials wait for a resume."""

    def __init__(self, seconds: float | None):
        self._ends_at = None if seconds is None else time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        return self._ends_at is not None and time.monotonic() >= self._ends_at

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.is_over
