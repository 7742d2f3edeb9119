"""Training as an iterator of evaluations; whoever consumes it decides when to stop.

Between two evaluations its state can be taken, from which another process goes on alike.

The number of threads, and on CUDA `CUBLAS_WORKSPACE_CONFIG` (without which cuBLAS does not promise
equal results), are the calling process's to set. The legend of shapes is in `models/__init__.py`.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import huber_loss, l1_loss, mse_loss
from torch.nn.utils import clip_grad_norm_

from models.config import LSTMConfig
from models.forecaster import Forecaster
from pipelines.device import peak_memory_bytes, wait_for
from pipelines.evaluation import evaluate
from pipelines.hardware import resolve_precision
from pipelines.optimizer import AdamW
from pipelines.scaling import Scaling
from pipelines.scores import Errors, Evaluation, TrainingDiverged
from pipelines.skip import start_skip
from pipelines.step_graph import StepGraph
from pipelines.training_config import EVALUATION_BATCH_SIZE, TrainConfig, TrainingBudget
from pipelines.windows import Windows, build_windows, evenly_spaced

if TYPE_CHECKING:
    from pipelines.splits import SearchData

__all__ = [
    "TrainConfig",
    "Training",
    "TrainingBudget",
    "TrainingState",
    "build_forecaster",
    "evaluate",
    "forecaster_for",
    "learning_rate_at",
]


@dataclasses.dataclass(frozen=True)
class TrainingState:
    """A training between two evaluations. Its randomness derives from seed and step alone."""

    step: int
    """Optimiser steps done."""
    weights: Mapping[str, Tensor]
    """By the forecaster's names."""
    moments: Mapping[str, Tensor]
    """AdamW's averages `exp_avg` and `exp_avg_sq`, by `AVERAGE.NAME` of a weight."""


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
    cut = training.lookback, training.calendar, "cpu"
    return forecaster_for(build_windows(data, Scaling.fit(data), *cut), model, seed).to(device)


def forecaster_for(windows: Windows, model: LSTMConfig, seed: int) -> Forecaster:
    """Return a forecaster of some windows with initial weights, on the CPU.

    Args:
        windows: On the CPU; its training origins start the linear skip.
        model: What is built.
        seed: Of the weights.

    Raises:
        ValueError: The model cannot read such windows (`LSTMConfig.check`).
    """
    # On the CPU, so that every device starts from the same weights.
    with _own_randomness(torch.device("cpu"), _derive_seed(seed, "weights")):
        forecaster = Forecaster(model, windows.shape)
    start_skip(forecaster, windows)
    return forecaster


class Training:
    """Trains on the device of the windows: an iterator of evaluations, until `max_steps`.

    At each evaluation the forecaster holds the weights just evaluated. Randomness derives from the
    seed and the step, whatever else the process draws; nothing runs between two evaluations.
    """

    def __init__(
        self,
        forecaster: Forecaster,
        windows: Windows,
        scaling: Scaling,
        config: TrainConfig,
        seed: int,
        num_parts: int = 1,
        has_graph: bool = False,
    ) -> None:
        """Begin at step 0.

        Args:
            forecaster: On the device of the windows, for windows of their shape.
            windows: What is trained and validated on.
            scaling: The one that the windows were built with.
            config: How it is trained.
            seed: Of batches and dropout.
            num_parts: Parts in which a batch passes through the model, its gradients added up:
                the steps are the same but for rounding, and need less memory.
            has_graph: Whether steps on CUDA are captured once and replayed (`step_graph`).

        Raises:
            ValueError: bf16 is asked of a device that does not compute in it.
        """
        self.forecaster, self.windows, self.scaling = forecaster, windows, scaling
        self.config, self.seed, self.num_parts = config, seed, num_parts
        self.step = 0
        self.device = windows.values.device
        self.precision = resolve_precision(config.precision, self.device)
        has_graph = has_graph and self.device.type == "cuda"
        self.optimizer = AdamW(
            forecaster.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
            capturable=has_graph,
        )
        self._step_graph = StepGraph(self.device) if has_graph else None
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Evaluation:
        """Train up to the next evaluation.

        Raises:
            TrainingDiverged: The loss or an error is not finite.
        """
        first, config = self.step, self.config
        if first >= config.max_steps:
            raise StopIteration
        end = min(first + config.evaluate_every_steps, config.max_steps)
        started = time.perf_counter()
        train_loss = self.take_steps(first, end)
        self.step = end
        trained = time.perf_counter()
        every_origin = self.windows.validation_origins
        origins = evenly_spaced(every_origin, config.max_validation_windows)
        errors = self.validate(origins)
        return Evaluation(
            step=end,
            train_loss=train_loss,
            errors=errors,
            learning_rate=learning_rate_at(end - 1, config),
            steps_per_second=(end - first) / (trained - started),
            peak_memory_bytes=peak_memory_bytes(self.device),
            num_windows=len(origins),
            is_full=len(origins) == len(every_origin),
            train_seconds=trained - started,
            evaluate_seconds=time.perf_counter() - trained,
        )

    @property
    def num_final_windows(self) -> int:
        """Validation windows of the last evaluation."""
        return min(len(self.windows.validation_origins), self.config.max_final_windows)

    def evaluate_finally(self, best: Evaluation) -> Evaluation:
        """Return the last evaluation, on more windows, of the weights that `best` was made of.

        The caller restores them first; how they were trained is taken over from `best`.

        Raises:
            TrainingDiverged: An error is not finite.
        """
        started = time.perf_counter()
        every_origin = self.windows.validation_origins
        origins = evenly_spaced(every_origin, self.config.max_final_windows)
        return dataclasses.replace(
            best,
            errors=self.validate(origins),
            num_windows=len(origins),
            is_full=len(origins) == len(every_origin),
            evaluate_seconds=time.perf_counter() - started,
        )

    def state(self) -> TrainingState:
        """Return what another training of this configuration and seed goes on from.

        It refers to the weights in training: write it away before the next evaluation.
        """
        names = [name for name, _ in self.forecaster.named_parameters()]
        moments = {
            f"{average}.{names[place]}": tensors[average]
            for place, tensors in self.optimizer.state_dict()["state"].items()
            for average in ("exp_avg", "exp_avg_sq")
        }
        return TrainingState(self.step, self.forecaster.state_dict(), moments)

    def restore(self, state: TrainingState) -> None:
        """Go on from there; on a CPU the evaluations are those of one training, bit by bit.

        Raises:
            RuntimeError: The state is of another model.
            KeyError: Likewise.
        """
        self.forecaster.load_state_dict(dict(state.weights))
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {
            place: {
                "step": torch.tensor(float(state.step)),
                "exp_avg": state.moments[f"exp_avg.{name}"],
                "exp_avg_sq": state.moments[f"exp_avg_sq.{name}"],
            }
            for place, (name, _) in enumerate(self.forecaster.named_parameters())
        }
        self.optimizer.load_state_dict(optimizer)
        self.step = state.step

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
                total += self._take_step(origins, learning_rate_at(step, self.config))
        # The one synchronisation with the device: asking after each step would stall it.
        wait_for(self.device)
        loss = total.item() / (end - first)
        if not math.isfinite(loss):
            raise TrainingDiverged(end)
        return loss

    def _take_step(self, origins: Tensor, learning_rate: float) -> Tensor:
        if self._step_graph is None:
            return self.train_step(origins, learning_rate)
        return self._step_graph(self.train_step, origins, learning_rate)

    def train_step(self, origins: Tensor, learning_rate: float | Tensor) -> Tensor:
        """Take one step on the windows at some origins [B]; return the loss, on the device."""
        self.optimizer.zero_grad()
        loss = torch.zeros((), device=self.device)
        for part in torch.chunk(origins, self.num_parts):
            loss += self._add_gradients(part, share=len(part) / len(origins))
        clip_grad_norm_(self.forecaster.parameters(), self.config.gradient_clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        return loss

    def _add_gradients(self, origins: Tensor, share: float) -> Tensor:
        """Add the gradients of a part of a batch; return its share of the loss."""
        window, known = self.windows.inputs(origins)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            forecast = self.forecaster(window, known)
        loss = _loss(forecast, self.windows.future(origins), self.config) * share
        torch.autograd.backward(loss)
        return loss.detach()

    def validate(self, origins: Tensor) -> Errors:
        """Return the errors from some origins.

        Raises:
            TrainingDiverged: An error is not finite.
        """
        batch_size = EVALUATION_BATCH_SIZE // self.num_parts
        errors = evaluate(self.forecaster, self.windows, self.scaling, origins, batch_size)
        if not math.isfinite(errors.mse):  # the first of them to overflow
            raise TrainingDiverged(self.step)
        return errors

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
