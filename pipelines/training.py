"""Training as an iterator of evaluations; whoever consumes it decides when to stop.

The number of threads, and on CUDA `CUBLAS_WORKSPACE_CONFIG` (without which cuBLAS does not promise
equal results), are the calling process's to set. The legend of shapes is in `models/__init__.py`.
"""

from __future__ import annotations

import dataclasses
import math
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import huber_loss, l1_loss, mse_loss
from torch.nn.utils import clip_grad_norm_

from models.config import LSTMConfig, WindowShape
from models.forecaster import Forecaster
from pipelines import windows as window_index
from pipelines.evaluation import evaluate
from pipelines.metrics import Errors
from pipelines.scaling import Scaling
from pipelines.skip import start_skip
from pipelines.training_config import TrainConfig, TrainingBudget
from pipelines.windows import Windows, build_windows, evenly_spaced

if TYPE_CHECKING:
    from pipelines.splits import SearchData

__all__ = [
    "Evaluation",
    "Precision",
    "TrainConfig",
    "TrainingBudget",
    "TrainingDiverged",
    "build_forecaster",
    "evaluate",
    "evaluate_fully",
    "learning_rate_at",
    "resolve_precision",
    "train",
    "window_shape",
]

Precision = Literal["float32", "bf16"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A forecaster's validation errors after some steps, and what the steps cost."""

    step: int
    """Optimiser steps done."""
    train_loss: float
    """Mean loss of the steps since the last evaluation, standardised."""
    errors: Errors
    """On validation windows."""
    learning_rate: float
    """Of the last step."""
    steps_per_second: float
    """Of the steps since the last evaluation, evaluating left out."""
    peak_memory_bytes: int
    """The device's since training began; on a CPU the process's since it began."""
    num_windows: int
    """Validation windows that the errors are measured on."""
    is_full: bool
    """Whether these were all there are."""
    train_seconds: float
    """Spent on steps since the last evaluation."""
    evaluate_seconds: float
    """Spent on this evaluation."""

    def to_dict(self) -> dict[str, float | int | bool]:
        """Return a flat dictionary for JSON, which has no NaN: an undefined MASE is left out."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del own["errors"]
        return own | self.errors.to_dict()

    @classmethod
    def from_dict(cls, flat: Mapping[str, Any]) -> Self:
        """Return the evaluation that `to_dict` made this of.

        Raises:
            TypeError: A name is missing or unknown.
        """
        names = {field.name for field in dataclasses.fields(Errors)}
        errors = Errors.from_dict({name: flat[name] for name in names & flat.keys()})
        return cls(errors=errors, **{name: flat[name] for name in flat.keys() - names})


class TrainingDiverged(RuntimeError):  # noqa: N818 - a trial's outcome rather than a fault
    """A loss or an error is not finite: the weights are lost.

    Attributes:
        step: Optimiser steps done when it was noticed.
    """

    def __init__(self, step: int) -> None:
        super().__init__(
            f"the loss must stay finite: got NaN or infinity within {step} steps; "
            "lower the learning rate"
        )
        self.step = step

    def __reduce__(self) -> tuple[type[TrainingDiverged], tuple[int]]:
        return type(self), (self.step,)  # pickle would call the class with the message


def resolve_precision(
    precision: Literal["auto", "float32", "bf16"], device: torch.device | str
) -> Precision:
    """Return the precision on a device: `auto` is bf16 where the hardware computes in it.

    A study calls this once and records the answer, so that mixed machines do not mix numerics.

    Raises:
        ValueError: bf16 is asked of a device that does not compute in it.
    """
    has_bf16 = _has_bf16(torch.device(device))
    if precision == "auto":
        return "bf16" if has_bf16 else "float32"
    if precision == "bf16" and not has_bf16:
        # Emulated, an LSTM step takes six times as long on a CPU, and oneDNN refuses it.
        raise ValueError(
            f"precision bf16 needs a device that computes in it: got {device} without; "
            "choose float32 or auto"
        )
    return precision


def window_shape(training: TrainConfig, data: SearchData) -> WindowShape:
    """Return the sizes of the windows that a configuration cuts from a table."""
    return window_index.window_shape(data, training.lookback, training.calendar)


def build_forecaster(
    model: LSTMConfig,
    training: TrainConfig,
    data: SearchData,
    device: torch.device | str,
    seed: int,
) -> Forecaster:
    """Return a forecaster with initial weights, equal for equal seeds and training rows.

    The LSTM's weights are drawn; the linear skip starts from a fit (`pipelines.skip`).

    Raises:
        ValueError: The model cannot read such windows (`LSTMConfig.check`), or none fit.
    """
    # On the CPU, so that every device starts from the same weights.
    with _own_randomness(torch.device("cpu"), _derive_seed(seed, "weights")):
        forecaster = Forecaster(model, window_shape(training, data))
    scaling = Scaling.fit(data)
    start_skip(
        forecaster, build_windows(data, scaling, training.lookback, training.calendar, "cpu")
    )
    return forecaster.to(device)


def train(
    forecaster: Forecaster, windows: Windows, scaling: Scaling, config: TrainConfig, seed: int
) -> Iterator[Evaluation]:
    """Train on the device of the windows, one evaluation after another until `max_steps`.

    At each yield the forecaster holds the weights just evaluated. Randomness derives from the seed
    and the step, whatever else the process draws; nothing runs between two evaluations.

    Raises:
        TrainingDiverged: The loss or an error is not finite.
        ValueError: bf16 is asked of a device that does not compute in it.
    """
    run = _Run(forecaster, windows, config, seed)
    origins = evenly_spaced(windows.validation_origins, config.max_validation_windows)
    for first in range(0, config.max_steps, config.evaluate_every_steps):
        end = min(first + config.evaluate_every_steps, config.max_steps)
        started = time.perf_counter()
        train_loss = run.take_steps(first, end)
        trained = time.perf_counter()
        errors = _validate(forecaster, windows, scaling, origins, end)
        yield Evaluation(
            step=end,
            train_loss=train_loss,
            errors=errors,
            learning_rate=learning_rate_at(end - 1, config),
            steps_per_second=(end - first) / (trained - started),
            peak_memory_bytes=_peak_memory_bytes(run.device),
            num_windows=len(origins),
            is_full=len(origins) == len(windows.validation_origins),
            train_seconds=trained - started,
            evaluate_seconds=time.perf_counter() - trained,
        )


class _Run:
    """One training under way: the optimiser, and where its batches come from."""

    def __init__(
        self, forecaster: Forecaster, windows: Windows, config: TrainConfig, seed: int
    ) -> None:
        self.forecaster, self.windows, self.config, self.seed = forecaster, windows, config, seed
        self.device = windows.values.device
        self.precision = resolve_precision(config.precision, self.device)
        self.optimizer = torch.optim.AdamW(
            forecaster.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def take_steps(self, first: int, end: int) -> float:
        """Take the steps first…end-1 and return their mean loss, standardised.

        Raises:
            TrainingDiverged: The loss is not finite.
        """
        self.forecaster.train()
        batches = self._draw_batches(first, end)
        total = torch.zeros((), device=self.device)
        with _own_randomness(self.device, _derive_seed(self.seed, "dropout", first)):
            for step, origins in enumerate(batches, start=first):
                total += self.train_step(origins, learning_rate_at(step, self.config))
        # The one synchronisation with the device: asking after each step would stall it.
        loss = total.item() / (end - first)
        if not math.isfinite(loss):
            raise TrainingDiverged(end)
        return loss

    def train_step(self, origins: Tensor, learning_rate: float) -> Tensor:
        """Take one step on the windows at some origins [B]; return the loss, on the device."""
        window, known = self.windows.inputs(origins)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            forecast = self.forecaster(window, known)
        loss = _loss(forecast, self.windows.future(origins), self.config)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        clip_grad_norm_(self.forecaster.parameters(), self.config.gradient_clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        return loss.detach()

    def _draw_batches(self, first: int, end: int) -> Tensor:
        """Return random training origins, [steps, B], drawn with replacement."""
        # Drawn on the CPU and moved at once: equal on every device, and no transfer in a step.
        generator = torch.Generator().manual_seed(_derive_seed(self.seed, "batches", first))
        train_origins = self.windows.train_origins
        size = (end - first, self.config.batch_size)
        places = torch.randint(len(train_origins), size, generator=generator)
        return train_origins[places.to(self.device)]


def _loss(forecast: Tensor, future: Tensor, config: TrainConfig) -> Tensor:
    """Return the mean loss of standardised forecasts, [B, H, T] twice -> []."""
    match config.loss:
        case "huber":
            return huber_loss(forecast, future, delta=config.huber_delta)
        case "mae":
            return l1_loss(forecast, future)
        case "mse":
            return mse_loss(forecast, future)


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Return the learning rate of a step, the first of which is 0: warm-up, then the schedule."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - config.warmup_steps) / (config.max_steps - config.warmup_steps)
    return config.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def evaluate_fully(
    forecaster: Forecaster, windows: Windows, scaling: Scaling, best: Evaluation
) -> Evaluation:
    """Return an evaluation on all validation windows, of the weights that `best` was made of.

    The caller restores them first; how they were trained is taken over from `best`.

    Raises:
        TrainingDiverged: An error is not finite.
    """
    started = time.perf_counter()
    origins = windows.validation_origins
    errors = _validate(forecaster, windows, scaling, origins, best.step)
    return dataclasses.replace(
        best,
        errors=errors,
        num_windows=len(origins),
        is_full=True,
        evaluate_seconds=time.perf_counter() - started,
    )


def _validate(
    forecaster: Forecaster, windows: Windows, scaling: Scaling, origins: Tensor, step: int
) -> Errors:
    """Return finite errors, or raise TrainingDiverged."""
    errors = evaluate(forecaster, windows, scaling, origins)
    if not math.isfinite(errors.mse):  # the first of them to overflow
        raise TrainingDiverged(step)
    return errors


@contextmanager
def _own_randomness(device: torch.device, seed: int) -> Iterator[None]:
    """Seed torch's global generators, which initial weights and dropout draw from, for a while."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _derive_seed(
    seed: int, purpose: Literal["weights", "dropout", "batches"], step: int = 0
) -> int:
    """Return a seed for one purpose, independent of the seeds for others and for other steps."""
    entropy = (seed, *purpose.encode(), step)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def _peak_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
