"""Trials on CPUs and GPUs, on one machine or many: with `search/cluster.py` the door to Ray.

Ray Tune runs the trials and decides nothing. It asks the record for configurations (`_Asker`) and
hands it every evaluation (`_Reporter`), which answers whether to go on. Weights come home with the
evaluations, so no storage has to be shared, and Tune's own folder is temporary.
"""

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.cluster import signal_handlers_kept  # says, before Ray is there, how quiet it is to be

# isort: split
import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from pipelines.training_config import TrainingBudget
from search.config import Resources
from search.crowd import Crowd
from search.kept_weights import KeptWeights
from search.leftovers import scratch_folder
from search.record import Ending, Proposal
from search.recorder import Listener, Recorder
from search.side_workers import AwaitedBaselines
from search.study import GPU_SHARE, SpaceExhaustedError, Study
from search.trial_actor import TrialActor, TrialJob
from search.tune_patches import quick_start, workers_start_side_by_side

PATIENCE_SECONDS = 0.5  # between two looks at what trials do not report


def run_trials(
    study: Study,
    job: TrialJob,
    resources: Resources,
    budget: TrainingBudget,
    kept: KeptWeights,
    listeners: Sequence[Listener],
    time_budget_seconds: float | None = None,
    has_baselines: bool = True,
) -> Ending:
    """Run trials until the study is full, the time is over, a signal arrives or all of them fail.

    A failed trial is a recorded result. Trials that run at the end wait again; those that run when
    it raises, from the middle of a write perhaps, do once the study is opened the next time.

    Args:
        study: the record, open for writing.
        job: what every trial shares.
        resources: how long a trial may hang, how often it is tried again, and how many may fail.
        budget: the training budget, for the baselines.
        kept: where weights are kept.
        listeners: who is told what happens.
        time_budget_seconds: when to stop; None: never.
        has_baselines: whether the baselines are computed beside the trials.
    """
    # What is planned is tried to its end: its large models, say, come one after another.
    is_planned = study.settings.sampler == "grid"
    recorder = Recorder(
        study,
        kept,
        listeners,
        resources.max_step_seconds,
        resources.max_retries,
        sys.maxsize if is_planned else resources.max_failures_in_a_row,
    )
    crowd = Crowd(job.slots, resources)
    shared = ray.put(job)
    given = shared, budget, study.settings.seed
    awaited = AwaitedBaselines(
        recorder, (lambda worker: worker.score_baselines.remote(*given)) if has_baselines else None
    )
    stopper = _Stopper(time_budget_seconds, crowd, recorder)
    asker = _Asker(study, kept, crowd)
    is_over = False
    while not is_over:
        watch = _Watch(recorder, awaited)
        asker.begin_anew()
        slots = crowd.slots
        trainable = tune.with_resources(
            tune.with_parameters(TrialActor, job=shared),
            {"cpu": slots.cpus_per_trial, "gpu": slots.gpus_per_trial},
        )
        reporter = _Reporter(recorder, crowd)
        with (
            scratch_folder() as scratch,
            signal_handlers_kept(),
            workers_start_side_by_side(slots.count, lambda: asker.has_more),
        ):
            tuner = _tuner(trainable, asker, reporter, watch, stopper, slots.count, scratch)
            is_over = _fit(tuner, watch)
        if crowd.is_too_dense:
            recorder.requeue_running()
            study.note(GPU_SHARE, crowd.thin_out())
            is_over = False
    study.requeue_running()
    ending = _ending(study, asker, stopper, recorder)
    recorder.clear_files()
    awaited.end(is_patient=ending in (Ending.DONE, Ending.EXHAUSTED))
    return ending


def _fit(tuner: tune.Tuner, watch: "_Watch") -> bool:
    """Run trials until Tune has ended; return False where it broke off and has to begin anew."""
    try:
        with quick_start():
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
    reporter: "_Reporter",
    watch: "_Watch",
    stopper: "_Stopper",
    num_concurrent: int,
    scratch: str,
) -> tune.Tuner:
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=asker,
            scheduler=reporter,
            num_samples=-1,
            max_concurrent_trials=num_concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=scratch,
            verbose=0,
            stop=stopper,
            callbacks=[watch],
            progress_reporter=_Silence(),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_at_end=False, checkpoint_frequency=0
            ),
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )


def _ending(study: Study, asker: "_Asker", stopper: "_Stopper", recorder: Recorder) -> Ending:
    if study.is_full:
        return Ending.DONE
    if recorder.is_hopeless:
        return Ending.BROKEN
    if asker.is_exhausted:
        return Ending.EXHAUSTED
    return Ending.TIME_OVER if stopper.is_over else Ending.INTERRUPTED


class _StaysHere:
    """Tune pickles its parts for a restore that never happens: nothing of these goes along."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Asker(_StaysHere, Searcher):  # type: ignore[misc]
    """Asks the record for the next configuration.

    The last ones, as many as slots, are drawn together and the longest begins first: started last,
    it would run alone while all other slots are idle.
    """

    def __init__(self, study: Study, kept: KeptWeights, crowd: Crowd):
        super().__init__()
        self._study = study
        self._kept = kept
        self._crowd = crowd
        self._node_id = ray.get_runtime_context().get_node_id()
        self._drawn: list[Proposal] = []
        self.is_exhausted = False

    @property
    def has_more(self) -> bool:
        """Whether there are trials for workers that are free."""
        return bool(self._drawn) or (not self.is_exhausted and self._study.num_left > 0)

    def begin_anew(self) -> None:
        """Forget what was drawn and not begun, since it waits in the record again."""
        self._drawn.clear()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if not self._drawn and not self.is_exhausted:
            self._draw()
        if self._drawn:
            return self._to_tune(self._drawn.pop(0))
        return str(Searcher.FINISHED) if self.is_exhausted or self._study.is_full else None

    def _draw(self) -> None:
        num_left = self._study.num_left
        try:
            for _ in range(num_left if num_left <= self._crowd.slots.count else 1):
                proposal = self._study.ask()
                if proposal is not None:
                    self._drawn.append(proposal)
        except SpaceExhaustedError:
            self.is_exhausted = True
        self._drawn.sort(key=lambda each: -self._study.training_teraflops(each.config))

    def _to_tune(self, proposal: Proposal) -> dict[str, Any]:
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

    def __init__(self, recorder: Recorder, crowd: Crowd):
        super().__init__()
        self._recorder = recorder
        self._crowd = crowd

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number = trial.config["number"]
        if "retry" in result:
            self._recorder.retry(number, result["retry"])
            self._crowd.note_out_of_memory()
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

    def __init__(self, recorder: Recorder, awaited: AwaitedBaselines):
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
        self._awaited.begin()

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


class _Stopper(_StaysHere, tune.Stopper):  # type: ignore[misc]
    """Ends Tune's run when the time is over, a GPU holds too many trials, or all trials fail."""

    def __init__(self, seconds: float | None, crowd: Crowd, recorder: Recorder):
        self._crowd = crowd
        self._recorder = recorder
        self._ends_at = None if seconds is None else time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        return self._ends_at is not None and time.monotonic() >= self._ends_at

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.is_over or self._crowd.is_too_dense or self._recorder.is_hopeless
