"""Trials on CPUs and GPUs, on one machine or many: the only file that knows Ray.

Ray Tune runs the trials and decides nothing. It asks the record for configurations (`_Asker`) and
hands it every evaluation (`_Reporter`), which answers whether to go on. Weights come home through
one mailbox beside the driver, so no storage has to be shared, and Tune's own folder is temporary.
"""

import faulthandler
import json
import logging
import os
import re
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

# Ray reads these when it is imported: it phones nobody, and its own screen and files stay off.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray prints it whatever its log level is; the trial's own line says the same.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^A worker died or was killed while executing",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.schedulers import FIFOScheduler  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

from pipelines.baselines import BaselineScore, baselines  # noqa: E402
from pipelines.splits import SearchData  # noqa: E402
from pipelines.training import Evaluation, TrainingDiverged  # noqa: E402
from pipelines.training_config import TrainingBudget  # noqa: E402
from search.config import ConfigError, Metric, Resources  # noqa: E402
from search.kept_weights import KeptWeights  # noqa: E402
from search.record import TrialRecord, baseline_to_plain  # noqa: E402
from search.space import TrialConfig  # noqa: E402
from search.study import SpaceExhaustedError, Study  # noqa: E402
from search.trial import run_trial  # noqa: E402

PATIENCE_SECONDS = 0.5  # between two looks into the mailbox
KNOCK_SECONDS = 10.0  # for a cluster to answer


class Ending(StrEnum):
    """Why a search ended."""

    DONE = "done"
    TIME_OVER = "time over"
    EXHAUSTED = "space exhausted"
    INTERRUPTED = "interrupted"


class Listener(Protocol):
    """Who is told what happens, in the driver's main thread: the screen, the view."""

    def on_start(self, trial: TrialRecord) -> None:
        """Learn that a trial runs."""

    def on_evaluation(self, trial: TrialRecord) -> None:
        """Learn that a trial has one evaluation more."""

    def on_end(self, trial: TrialRecord) -> None:
        """Learn how a trial ended."""

    def on_baseline(self, baseline: BaselineScore) -> None:
        """Learn one of the forecasts to beat."""


@dataclass(frozen=True)
class Slots:
    """How many trials run at a time, and on what."""

    count: int
    cpus_per_trial: float
    gpus_per_trial: float
    device: str

    @property
    def threads_per_trial(self) -> int:
        """Threads of a trial, one for each whole core assigned to it."""
        return max(1, int(self.cpus_per_trial))


@dataclass(frozen=True)
class TrialJob:
    """What every trial of a search shares; it crosses to each node once."""

    data: SearchData
    metric: Metric
    slots: Slots
    max_step_seconds: float


def connect(resources: Resources, is_verbose: bool) -> None:
    """Connect to the cluster at `resources.address`, or start Ray on this machine.

    An initialised Ray is used as it is. It is left running, for the next search of this process,
    and ends with the process. Signal handlers that Ray replaces are put back.

    Raises:
        ConfigError: where no cluster answers at the address.
    """
    # Tune calls failed trials errors of its own, and the record tells of them already.
    logging.getLogger("ray.tune").setLevel(logging.INFO if is_verbose else logging.CRITICAL)
    if ray.is_initialized():
        return
    level = logging.INFO if is_verbose else logging.ERROR
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(level)
    address = resources.address or os.environ.get("RAY_ADDRESS")
    if address:
        _check_that_it_answers(address)
    # Without "local" Ray would join whatever cluster was last started on this machine.
    place = {"address": address} if address else {"address": "local", "include_dashboard": False}
    with _signal_handlers_kept():
        ray.init(
            **place,
            log_to_driver=is_verbose,
            logging_level=level,
            runtime_env={"env_vars": _WORKER_ENVIRONMENT},
        )


def _check_that_it_answers(address: str) -> None:
    # Ray itself would knock for minutes, and print a warning each time.
    host, _, port = address.rpartition(":")
    if "//" in address or not port.isdigit():
        return  # `auto` and the like
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
    except OSError as error:
        raise ConfigError(
            f"no Ray cluster answers at {address} ({error}): correct --address or RAY_ADDRESS, or "
            "start one there"
        ) from None


_WORKER_ENVIRONMENT = {
    # glibc otherwise returns and maps again the memory of every large batch: half of a step.
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
    # Without it cuBLAS does not promise equal results for equal seeds.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        # Ray replaces none outside the main thread, where none could be put back either.
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                if handler is not None:  # None: set by other than Python, and not ours to know
                    signal.signal(number, handler)


def plan_slots(resources: Resources, device: str) -> Slots:
    """Count the trials that fit on the connected machines.

    Raises:
        ConfigError: where a trial asks for more than any machine has.
    """
    gpus = resources.gpus_per_trial
    if gpus is None:
        gpus = 1.0 if device == "cuda" else 0.0
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    count = sum(_fitting(node, resources.cpus_per_trial, gpus) for node in nodes)
    if count == 0:
        cpus_there = max((node.get("CPU", 0) for node in nodes), default=0)
        gpus_there = max((node.get("GPU", 0) for node in nodes), default=0)
        raise ConfigError(
            f"a trial needs {resources.cpus_per_trial:g} CPUs and {gpus:g} GPUs on one machine: "
            f"the largest has {cpus_there:g} and {gpus_there:g}; "
            "lower --cpus-per-trial or --gpus-per-trial"
        )
    count = min(count, resources.max_concurrent or count)
    return Slots(count, resources.cpus_per_trial, gpus, device)


def _fitting(node: dict[str, float], cpus: float, gpus: float) -> int:
    # Not `//`, by which a tenth of a CPU fits nineteen times into two.
    by_cpu = int(node.get("CPU", 0) / cpus + 1e-9)
    return min(by_cpu, int(node.get("GPU", 0) / gpus + 1e-9)) if gpus else by_cpu


def run_trials(
    study: Study,
    job: TrialJob,
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
        budget: the training budget, for the baselines.
        kept: where weights are kept.
        listeners: who is told what happens.
        time_budget_seconds: when to stop; None: never.
        score_baselines: whether the baselines are computed beside the trials.
    """
    mailbox = _Mailbox.options(  # type: ignore[attr-defined]
        scheduling_strategy=_on_this_node()
    ).remote()
    driver = _Driver(study, kept, mailbox, listeners, job.max_step_seconds)
    shared = ray.put(job)
    if score_baselines:
        driver.await_baselines(_score.remote(shared, budget, study.settings.seed))
    deadline = _Deadline(time_budget_seconds)
    asker = _Asker(study)
    trainable = tune.with_resources(
        tune.with_parameters(TrialActor, job=shared, mailbox=mailbox),
        {"cpu": job.slots.cpus_per_trial, "gpu": job.slots.gpus_per_trial},
    )
    try:
        with tempfile.TemporaryDirectory(prefix="lstm-search-") as scratch, _signal_handlers_kept():
            _tuner(trainable, asker, driver, deadline, job.slots.count, scratch).fit()
    finally:
        study.requeue_running()
    ending = _ending(study, asker, deadline)
    driver.finish(waits_for_baselines=ending in (Ending.DONE, Ending.EXHAUSTED))
    return ending


def _tuner(
    trainable: Any,
    asker: "_Asker",
    driver: "_Driver",
    deadline: "_Deadline",
    num_concurrent: int,
    scratch: str,
) -> tune.Tuner:
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=asker,
            scheduler=_Reporter(driver),
            num_samples=-1,
            max_concurrent_trials=num_concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=scratch,
            verbose=0,
            stop=deadline,
            callbacks=[_Watch(driver)],
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

    def setup(self, config: dict[str, Any], job: TrialJob, mailbox: Any) -> None:
        """Begin the first trial."""
        self._job = job
        self._mailbox = mailbox
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Leave the last trial and begin another in the same process."""
        self.cleanup()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train up to the next evaluation; the end is a result of its own, without one."""
        # A step that hangs would keep its slot for ever: its process ends and Tune makes another.
        faulthandler.dump_traceback_later(self._job.max_step_seconds, exit=True)
        try:
            return self._next_result()
        finally:
            faulthandler.cancel_dump_traceback_later()

    def cleanup(self) -> None:
        """Leave the trial wherever it is."""
        self._steps.close()

    def _begin(self, config: dict[str, Any]) -> None:
        self._number: int = config["number"]
        self._steps = run_trial(
            TrialConfig.model_validate_json(config["config"]),
            self._job.data,
            config["seed"],
            self._job.metric,
            self._job.slots.device,
            self._job.slots.threads_per_trial,
        )

    def _next_result(self) -> dict[str, Any]:
        try:
            step = next(self._steps, None)
        except TrainingDiverged as diverged:
            return {"done": True, "diverged": f"diverged by step {diverged.step}"}
        if step is None:
            return {"done": True}
        if step.weights is not None:
            # Delivered before the evaluation is reported: no recorded best without its weights.
            ray.get(self._mailbox.put.remote(self._number, step.weights))
        return {
            "evaluation": json.dumps(step.evaluation.to_dict()),
            "is_final": step.is_final,
            "ran_on": json.dumps({"host": socket.gethostname(), "pid": os.getpid()}),
        }


@ray.remote(num_cpus=0)
class _Mailbox:
    """Weights on their way from the workers to the driver; it runs beside the driver."""

    def __init__(self) -> None:
        self._letters: dict[int, bytes] = {}

    def put(self, number: int, weights: bytes) -> None:
        self._letters[number] = weights

    def take(self) -> dict[int, bytes]:
        letters, self._letters = self._letters, {}
        return letters


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
def _score(job: TrialJob, budget: TrainingBudget, seed: int) -> list[BaselineScore]:
    scores: list[BaselineScore] = []
    with suppress(TrainingDiverged):  # of the linear twin, the last of them
        scores.extend(baselines(job.data, budget, seed))
    return scores


def _on_this_node() -> Any:
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )


class _Driver:
    """Writes what the trials report into the record, their weights to disk, and tells of it."""

    def __init__(
        self,
        study: Study,
        kept: KeptWeights,
        mailbox: Any,
        listeners: Sequence[Listener],
        max_step_seconds: float,
    ):
        self._study = study
        self._kept = kept
        self._mailbox = mailbox
        self._listeners = listeners
        self._max_step_seconds = max_step_seconds
        self._heard_at: dict[int, float] = {}
        self._baselines: Any = None
        self._looked_at = 0.0

    def await_baselines(self, scores: Any) -> None:
        self._baselines = scores

    def start(self, number: int) -> None:
        self._heard_at[number] = time.monotonic()
        self._study.started(number)
        self._tell("on_start", self._study.trial(number))

    def evaluate(self, number: int, result: dict[str, Any]) -> bool:
        """Record an evaluation; return whether the trial is stopped with it."""
        self._heard_at[number] = time.monotonic()
        evaluation = Evaluation.from_dict(json.loads(result["evaluation"]))
        self._study.ran_on(number, json.loads(result["ran_on"]))
        if result["is_final"]:
            self._study.report_final(number, evaluation)
            return False
        is_stopped = self._study.report(number, evaluation)
        self._tell("on_evaluation", self._study.trial(number))
        if is_stopped:
            self._end(self._study.prune(number, f"stopped early at step {evaluation.step}"))
        return is_stopped

    def finish_trial(self, number: int, result: dict[str, Any]) -> None:
        if not self._study.is_running(number):
            return  # stopped by `evaluate`
        if reason := result.get("diverged"):
            self._end(self._study.prune(number, reason))
        else:
            self._end(self._study.complete(number))

    def fail(self, number: int, traceback: str) -> None:
        if self._study.is_running(number):
            reason = _raised(traceback) or self._why_it_died(number)
            self._end(self._study.fail(number, reason, traceback))

    def _why_it_died(self, number: int) -> str:
        now = time.monotonic()
        if now - self._heard_at.get(number, now) >= self._max_step_seconds:
            limit = f"resources.max_step_seconds={self._max_step_seconds:g}"
            return f"hung: its worker process was ended after {limit} without an evaluation"
        return "its worker process died: killed, out of memory, or its machine was lost"

    def look_around(self) -> None:
        """Fetch what has arrived since the last look; cheap enough for every turn of the loop."""
        if time.monotonic() - self._looked_at < PATIENCE_SECONDS:
            return
        self._looked_at = time.monotonic()
        self.collect_weights()
        if self._baselines is not None and ray.wait([self._baselines], timeout=0)[0]:
            self._receive_baselines()

    def collect_weights(self) -> None:
        for number, weights in ray.get(self._mailbox.take.remote()).items():
            self._kept.write(number, weights)

    def finish(self, waits_for_baselines: bool) -> None:
        self._keep_best_weights()
        if self._baselines is not None and waits_for_baselines:
            self._receive_baselines()
        elif self._baselines is not None:
            ray.cancel(self._baselines, force=True)
        ray.kill(self._mailbox)

    def _receive_baselines(self) -> None:
        waiting, self._baselines = self._baselines, None
        try:
            scores = ray.get(waiting)
        except ray.exceptions.RayError as error:  # the trials go on without them
            self._study.note("baselines_error", str(error))
            return
        self._study.note("baselines", [baseline_to_plain(score) for score in scores])
        for score in scores:
            self._tell("on_baseline", score)

    def _end(self, trial: TrialRecord) -> None:
        self._keep_best_weights()
        self._tell("on_end", trial)

    def _keep_best_weights(self) -> None:
        self.collect_weights()  # what an ended trial sent must not arrive after the clearing
        best = self._study.best_numbers(self._study.settings.num_kept_weights)
        self._kept.keep_only(self._study.running_numbers.union(best))

    def _tell(self, event: str, news: TrialRecord | BaselineScore) -> None:
        for listener in self._listeners:
            getattr(listener, event)(news)


class _StaysHere:
    """Tune pickles its parts for a restore that never happens: nothing of these goes along."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Asker(_StaysHere, Searcher):  # type: ignore[misc]
    """Asks the record for the next configuration."""

    def __init__(self, study: Study):
        super().__init__()
        self._study = study
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
        return {
            "number": proposal.number,
            "config": proposal.config.model_dump_json(),
            "seed": proposal.seed,
        }

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing: `_Reporter` has told the record."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the record is saved as it grows."""


class _Reporter(_StaysHere, FIFOScheduler):  # type: ignore[misc]
    """Hands every result to the record, the only place where trials are judged."""

    def __init__(self, driver: _Driver):
        super().__init__()
        self._driver = driver

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        is_stopped = self._driver.evaluate(trial.config["number"], result)
        return str(self.STOP if is_stopped else self.CONTINUE)

    def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._driver.finish_trial(trial.config["number"], result)

    def on_trial_error(self, controller: Any, trial: Any) -> None:
        # Not trial.get_error(), which reads a copy that is not there yet.
        text = Path(trial.error_file).read_text(encoding="utf-8")
        _, _, traceback = text.partition("\n")  # the first line counts Tune's failures
        uncoloured = re.sub(r"\x1b\[\d+m", "", traceback)
        self._driver.fail(trial.config["number"], uncoloured)


class _Watch(_StaysHere, tune.Callback):  # type: ignore[misc]
    """The driver's turn in Tune's loop."""

    def __init__(self, driver: _Driver):
        self._driver = driver

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._driver.start(trial.config["number"])

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._driver.look_around()


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


def _raised(traceback: str) -> str | None:
    """The exception that a traceback ends with, its first line; None where no code raised it."""
    _, has_frames, last_frame = traceback.rpartition('  File "')
    outside = (line for line in last_frame.splitlines()[1:] if line and not line[0].isspace())
    return next(outside, None) if has_frames else None
