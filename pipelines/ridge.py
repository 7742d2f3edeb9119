"""Ridge regression from windows to horizons, in closed form.

As a baseline each target has its own map, from its window less the window's last value to all H
steps less that value, so that a level the training rows never saw shifts the forecast and no more.
The legend of shapes is in `models/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.windows import Windows, evenly_spaced

MAX_FIT_WINDOWS = 10_000
"""Evenly spaced training windows that a fit reads, so that its time and memory stay bounded."""


@dataclass(frozen=True, eq=False)
class Ridge:
    """Linear maps from windows to horizons, one a target, on standardised values."""

    penalty: float
    """What is added to the squared error for each unit of squared weight."""
    weights: Tensor
    """[T, L, H], float64."""
    bias: Tensor
    """[T, H], float64."""

    def forecast(self, windows: Windows, origins: Tensor) -> Tensor:
        """Return the forecasts from some origins, [B, H, T] standardised."""
        window, _ = windows.inputs(origins)
        targets = window[..., : len(self.weights)].double()
        last = targets[:, -1:]
        change = torch.einsum("blt,tlh->bht", targets - last, self.weights)
        return last + change + self.bias.T


def fit_ridge(windows: Windows, penalties: Sequence[float]) -> tuple[Ridge, ...]:
    """Return the ridge regression of the training windows for each penalty, all above 0."""
    origins = evenly_spaced(windows.train_origins, MAX_FIT_WINDOWS)
    fits = [
        solve_ridge(*_changes(windows, origins, target), penalties)
        for target in range(windows.shape.num_targets)
    ]
    weights = torch.stack([weights for weights, _ in fits], dim=1)
    bias = torch.stack([bias for _, bias in fits], dim=1)
    return tuple(Ridge(*each) for each in zip(penalties, weights, bias, strict=True))


def solve_ridge(
    inputs: Tensor,
    outputs: Tensor,
    penalties: Sequence[float],
    importance: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the ridge regression of some rows for each penalty.

    The normal equations (X'X + penalty I) W = X'Y of centred X and Y, so that the bias is free of
    the penalty, are solved for all penalties by one eigendecomposition of X'X.
    Source: Hastie, Tibshirani & Friedman (2009), "The Elements of Statistical Learning", 3.4.1.

    Args:
        inputs: [n, L], float64.
        outputs: [n, H], float64.
        penalties: Each above 0, which also makes a solution of fewer rows than weights.
        importance: [n], what each row's squared error counts; 1 without.

    Returns:
        Weights [penalties, L, H] and bias [penalties, H].
    """
    if importance is None:
        importance = inputs.new_ones(len(inputs))
    share, root = importance / importance.sum(), importance.sqrt().unsqueeze(1)
    input_mean, output_mean = share @ inputs, share @ outputs
    inputs, outputs = root * (inputs - input_mean), root * (outputs - output_mean)
    strengths, directions = torch.linalg.eigh(inputs.T @ inputs)
    projected = directions.T @ (inputs.T @ outputs)
    penalty = torch.tensor(penalties, dtype=torch.float64, device=inputs.device)
    # Rounding makes the zero strengths of dependent columns slightly negative.
    shrunk = projected / (strengths.clamp(min=0) + penalty.unsqueeze(1)).unsqueeze(2)
    weights = directions @ shrunk
    return weights, output_mean - input_mean @ weights


def _changes(windows: Windows, origins: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """Return one target's windows [n, L] and horizons [n, H], each less the window's last value."""
    lookback = windows.shape.lookback
    rows = windows.spans(origins, target).double()
    rows = rows - rows[:, lookback - 1 : lookback]
    return rows[:, :lookback], rows[:, lookback:]
