"""One trial without Ray, Optuna or MLflow: configuration, data and seed in, evaluations out."""

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import safetensors.torch
import torch

from models.forecaster import Forecaster
from pipelines.scaling import Scaling
from pipelines.scores import Evaluation
from pipelines.splits import SearchData
from pipelines.training import Training, forecaster_for
from pipelines.weights import weights_to_bytes
from pipelines.windows import build_windows
from search.config import Metric
from search.record import metric_value
from search.saved_trial import SavedTrial
from search.space import TrialConfig


@dataclass(frozen=True)
class TrialStep:
    """What a trial hands out each time that it has evaluated itself."""

    evaluation: Evaluation
    is_final: bool
    """Whether this is the last evaluation, of the best weights on more validation windows."""
    weights: bytes | None
    """safetensors of the weights just evaluated, where they are the best so far."""
    saved: bytes | None = None
    """What the trial goes on from in another process; now and then (`search.saved_trial`)."""


@dataclass(frozen=True)
class SecondTry:
    """Says that a trial goes on in another way."""

    reason: str


class TrialOutOfMemory(RuntimeError):  # noqa: N818 - a trial's outcome rather than a fault
    """The configuration needs more memory than there is, even with half the batch at a time."""


def run_trial(
    config: TrialConfig,
    data: SearchData,
    seed: int,
    metric: Metric,
    device: str = "cpu",
    num_threads: int = 1,
    saved: bytes | None = None,
    save_every_seconds: float = math.inf,
    has_graph: bool = False,
) -> Generator[TrialStep | SecondTry]:
    """Train one configuration, one evaluation after another; whoever consumes it may stop.

    Nothing that an earlier trial left in this process has an influence. Where the evaluations saw
    few of the validation windows, a last step evaluates the best weights on more of them. A
    trial that runs out of memory is tried once more with its batches in two parts.

    Args:
        config: what is trained.
        data: the table, without its test part.
        seed: of weights, batches and dropout.
        metric: which evaluation is the best.
        device: where it is trained.
        num_threads: of a CPU.
        saved: what an earlier run of this trial left; None: from the beginning.
        save_every_seconds: least time between two states saved.
        has_graph: whether steps on CUDA are captured once and replayed.

    Raises:
        TrainingDiverged: when loss or errors are not finite.
        TrialOutOfMemory: when memory does not suffice for half a batch either.
        ValueError: when `saved` is none of this trial's.
    """
    torch.set_num_threads(num_threads)
    for num_parts in (1, 2):
        trial = _Trial(config, data, seed, metric, device, num_parts, has_graph)
        try:
            for step in trial.run(saved, save_every_seconds):
                saved = step.saved or saved
                yield step
            return
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Only now, outside the except block, nothing holds the tensors any more.
        del trial
        if device == "cuda":
            torch.cuda.empty_cache()
        if num_parts == 1:
            yield SecondTry(f"out of memory at batch size {config.training.batch_size}, now halved")
    raise TrialOutOfMemory(
        f"out of memory, with batches of {config.training.batch_size} in halves too"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation on a device or the host has failed."""
    # While a CUDA graph is captured it shows as the end of the capture, which fails after it.
    if error.__context__ is not None and is_out_of_memory(error.__context__):
        return True
    said = str(error)
    # The CPU's allocator, cuBLAS and cuDNN raise a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        words in said
        for words in ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC")
    )


def begin_training(
    config: TrialConfig,
    data: SearchData,
    seed: int,
    device: str,
    num_parts: int = 1,
    has_graph: bool = False,
) -> Training:
    """Prepare to train a configuration, at step 0; arguments as for `run_trial` and `Training`."""
    scaling, training = Scaling.fit(data), config.training
    windows = build_windows(data, scaling, training.lookback, training.calendar, "cpu")
    # The first weights come from the CPU, so that they are the same on every device.
    forecaster = forecaster_for(windows, config.model, seed).to(device)
    if device != "cpu":
        windows = build_windows(data, scaling, training.lookback, training.calendar, device)
    return Training(forecaster, windows, scaling, training, seed, num_parts, has_graph)


class _Trial:
    """A training, and the best weights that it has seen."""

    def __init__(
        self,
        config: TrialConfig,
        data: SearchData,
        seed: int,
        metric: Metric,
        device: str,
        num_parts: int,
        has_graph: bool,
    ):
        self._arguments = (config, data, seed, device, num_parts, has_graph)
        self._metric = metric
        self._best: tuple[Evaluation, bytes] | None = None

    def run(self, saved: bytes | None, save_every_seconds: float) -> Iterator[TrialStep]:
        training = self._begin(saved)
        saved_at = time.monotonic()
        for evaluation in training:
            weights = self._weights_if_best(evaluation, training.forecaster)
            is_due = time.monotonic() - saved_at >= save_every_seconds
            state = self._save(training) if is_due else None
            saved_at = time.monotonic() if is_due else saved_at
            yield TrialStep(evaluation, is_final=False, weights=weights, saved=state)
        assert self._best is not None, "a budget has at least one evaluation"
        evaluation, weights = self._best
        if evaluation.num_windows < training.num_final_windows:
            training.forecaster.load_state_dict(safetensors.torch.load(weights))
            final = training.evaluate_finally(evaluation)
            yield TrialStep(final, is_final=True, weights=None)

    def _begin(self, saved: bytes | None) -> Training:
        training = begin_training(*self._arguments)
        if saved is not None:
            last = SavedTrial.from_bytes(saved)
            training.restore(last.state)
            self._best = last.best, last.best_weights
        return training

    def _weights_if_best(self, evaluation: Evaluation, forecaster: Forecaster) -> bytes | None:
        value = metric_value(evaluation, self._metric)
        if self._best is not None and value >= metric_value(self._best[0], self._metric):
            return None
        self._best = evaluation, weights_to_bytes(forecaster)
        return self._best[1]

    def _save(self, training: Training) -> bytes:
        assert self._best is not None, "a trial is saved after an evaluation"
        return SavedTrial(training.state(), *self._best).to_bytes()
