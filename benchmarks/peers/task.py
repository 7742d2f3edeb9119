"""The task that every peer is given: one series, its windows, and the space of plain LSTMs.

Imports numpy and torch alone, so that it runs in the environment of each peer.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

MAX_STEPS = 600
EVALUATE_EVERY_STEPS = 50
NUM_SLOTS = 2
PEERS = ("ray_recipe", "optuna_alone", "neuralforecast_auto", "darts_optuna")
"""Modules beside this one."""

HIDDEN_SIZES = (16, 128)
"""Drawn on a logarithmic scale."""
NUM_LAYERS = (1, 2)
LEARNING_RATES = (3e-4, 2e-2)
"""Drawn on a logarithmic scale."""
BATCH_SIZES = (32, 64)


@dataclass(frozen=True)
class Task:
    """A series to be forecast."""

    values: np.ndarray
    """[N] standardised by the rows to train on: those rows, then those to validate on."""
    num_train_rows: int
    horizon: int
    lookback: int

    @classmethod
    def read(cls, path: Path) -> "Task":
        """Read what `save` wrote."""
        with np.load(path) as content:
            return cls(content["values"], *map(int, content["sizes"]))

    def save(self, path: Path) -> None:
        """Write it for the processes of a peer."""
        sizes = [self.num_train_rows, self.horizon, self.lookback]
        np.savez(path, values=self.values, sizes=np.array(sizes))

    def train_windows(self) -> TensorDataset:
        """Every window whose rows are all to train on."""
        return self._windows(0, self.num_train_rows)

    def validation_windows(self) -> TensorDataset:
        """Every window whose forecast is in the rows to validate on."""
        return self._windows(self.num_train_rows - self.lookback, len(self.values))

    def _windows(self, first: int, end: int) -> TensorDataset:
        rows = torch.tensor(self.values[first:end], dtype=torch.float32)
        windows = rows.unfold(0, self.lookback + self.horizon, 1)
        return TensorDataset(windows[:, : self.lookback, None], windows[:, self.lookback :])


@dataclass
class TrialRun:
    """One trial as a peer ran it."""

    hidden_size: int
    num_layers: int
    learning_rate: float
    batch_size: int
    steps: int = 0
    """Optimiser steps taken."""
    evaluations: list[tuple[float, float]] = field(default_factory=list)
    """When each ended (seconds since 1970), and its validation error, standardised."""
    started_at: float = field(default_factory=time.time)
    """Shortly before its first step (seconds since 1970)."""

    def evaluated(self, steps: int, mae: float) -> None:
        """Note a validation error."""
        self.steps = steps
        self.evaluations.append((time.time(), mae))

    @property
    def best_mae(self) -> float:
        """The best of its validation errors."""
        return min(mae for _, mae in self.evaluations)


class PlainLSTM(nn.Module):
    """`nn.LSTM` over the window, and a linear map from its last state to the horizon."""

    def __init__(self, hidden_size: int, num_layers: int, horizon: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, hidden_size, num_layers, batch_first=True)
        self.readout = nn.Linear(hidden_size, horizon)

    def forward(self, window: Tensor) -> Tensor:
        """Map [B, L, 1] to [B, H]."""
        states, _ = self.lstm(window)
        forecast: Tensor = self.readout(states[:, -1])
        return forecast


class PlainTraining:
    """The loop of torch's tutorials: a DataLoader, Adam, the mean squared error."""

    def __init__(self, task: Task, run: TrialRun) -> None:
        self.run = run
        self.model = PlainLSTM(run.hidden_size, run.num_layers, task.horizon)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=run.learning_rate)
        self.batches = DataLoader(task.train_windows(), run.batch_size, shuffle=True)
        self.validation = DataLoader(task.validation_windows(), batch_size=256)
        self._iterator = iter(self.batches)

    def train(self, num_steps: int) -> None:
        """Take steps, beginning the data anew where it is over."""
        self.model.train()
        for _ in range(num_steps):
            window, future = self._next_batch()
            self.optimizer.zero_grad()
            loss = nn.functional.mse_loss(self.model(window), future)
            torch.autograd.backward(loss)
            self.optimizer.step()

    def validate(self) -> float:
        """Return the mean absolute error on every validation window."""
        self.model.eval()
        total, count = 0.0, 0
        with torch.no_grad():
            for window, future in self.validation:
                total += (self.model(window) - future).abs().sum().item()
                count += future.numel()
        return total / count

    def _next_batch(self) -> Sequence[Tensor]:
        try:
            return next(self._iterator)
        except StopIteration:
            self._iterator = iter(self.batches)
            return next(self._iterator)


@dataclass(frozen=True)
class Arguments:
    """What every peer is called with."""

    task: Task
    folder: Path
    """For whatever it leaves behind, its trials as `write_run` writes them among it."""
    num_trials: int
    seed: int


def read_arguments() -> Arguments:
    """Read the command line of a peer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    return Arguments(Task.read(given.task), given.folder.resolve(), given.trials, given.seed)


def write_run(folder: Path, name: str, run: TrialRun) -> None:
    """Leave one trial, from whichever process ran it; whole, whenever that is killed."""
    unfinished = folder / f"{name}.unfinished"
    unfinished.write_text(json.dumps(asdict(run)))
    unfinished.rename(folder / f"trial-{name}.json")


def read_runs(folder: Path) -> list[TrialRun]:
    """The trials that a peer left, in the order in which they started."""
    runs = [TrialRun(**json.loads(file.read_text())) for file in folder.glob("trial-*.json")]
    for run in runs:
        run.evaluations = [(at, mae) for at, mae in run.evaluations]
    return sorted(runs, key=lambda run: run.started_at)
