"""Two forecasts from the same windows: which errs less, and how sure that is.

Neighbouring windows share most of their steps, so their losses are alike: whole blocks of them are
drawn anew, and the variance of a mean counts their covariances. The legend of shapes is in
`models/__init__.py`.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pandas as pd
import torch
from scipy.special import stdtr
from torch import Tensor

from pipelines.final_test import WindowLosses
from pipelines.verdict import Comparison

Metric = Literal["mae", "mse", "rmse", "mase"]

NUM_RESAMPLES = 2000
LEAST_BLOCKS = 8
"""Fewer tell nothing of how a mean varies."""

ONE_SIDED = 0.025
"""What an interval leaves out on either side."""

TOO_SHORT = "too short for an interval"
UNDEFINED = "no interval: where some blocks are drawn, the opponent's error is 0"


def compare(
    opponent: str,
    model: WindowLosses,
    other: WindowLosses,
    metric: Metric,
    horizon: int,
    block_length: int,
) -> Comparison:
    """Return a model against an opponent, on the same windows in their order.

    Args:
        opponent: Its name.
        model: What the model lost, N windows.
        other: What the opponent lost.
        metric: By which they are compared.
        horizon: H, steps that a window forecasts.
        block_length: Windows of a block (`block_length_of`).
    """
    num_windows = len(model.count)
    num_blocks = num_windows // block_length
    skill = _skill(_totals(model), _totals(other), model.mase_unit, metric).item()
    notes = []
    lower = upper = None
    if num_blocks < LEAST_BLOCKS:
        notes.append(TOO_SHORT)
    else:
        skills = resampled_skills(model, other, metric, block_length)
        if np.isfinite(skills).all():
            # Moving blocks seldom draw the first and last windows: without this a bad last week
            # would count in the skill and hardly in its bounds. Source: Lahiri (2003), "Resampling
            # Methods for Dependent Data", on centring at the resamples' mean.
            centred = skills - skills.mean() + skill
            lower, upper = (float(q) for q in np.quantile(centred, [ONE_SIDED, 1 - ONE_SIDED]))
        else:
            notes.append(UNDEFINED)
    statistic, p_value, note = diebold_mariano(_differences(model, other, metric), horizon)
    notes += [note] if note else []
    return Comparison(
        opponent=opponent,
        skill=_finite(skill),
        lower=lower,
        upper=upper,
        num_blocks=num_blocks,
        block_length=block_length,
        diebold_mariano=statistic,
        p_value=p_value,
        note="; ".join(notes),
    )


def block_length_of(horizon: int, frequency: str | None) -> int:
    """Return the windows of a block: the longer of the horizon and a week of rows."""
    if frequency is None:
        return horizon
    # Counted, not divided: a business week has five days.
    week = pd.date_range("2024-01-01", "2024-01-08", freq=frequency, inclusive="left")
    return max(horizon, len(week))


def resampled_skills(
    model: WindowLosses, other: WindowLosses, metric: Metric, block_length: int
) -> np.ndarray:
    """Return the skill in each resample of the moving-block bootstrap, [NUM_RESAMPLES].

    Blocks are drawn from all starts alike, for both forecasts the same, and cut at N windows.
    Source: Künsch (1989), "The jackknife and the bootstrap for general stationary observations".
    """
    num_windows = len(model.count)
    num_drawn = math.ceil(num_windows / block_length)
    size = (NUM_RESAMPLES, num_drawn)
    drawn = np.random.default_rng(0).integers(num_windows - block_length + 1, size=size)
    starts = torch.from_numpy(drawn.T)
    num_last = num_windows - (num_drawn - 1) * block_length
    sums = [_resampled_sums(losses, starts, block_length, num_last) for losses in (model, other)]
    return _skill(sums[0], sums[1], model.mase_unit, metric).numpy()


def diebold_mariano(
    differences: np.ndarray, horizon: int
) -> tuple[float | None, float | None, str]:
    """Return statistic, two-sided p-value and a note of a test that two forecasts err alike.

    Covariances up to lag H-1 count, since so many windows overlap; where they make the variance
    negative, Bartlett's weights are used, which cannot.
    Sources: Diebold & Mariano (1995), "Comparing predictive accuracy"; Harvey, Leybourne & Newbold
    (1997), "Testing the equality of prediction mean squared errors".

    Args:
        differences: [N], the model's loss less the opponent's, window after window.
        horizon: H.

    Returns:
        None for both numbers where the windows are too few, or all differences are equal.
    """
    num = len(differences)
    factor = (num + 1 - 2 * horizon + horizon * (horizon - 1) / num) / num if num else 0.0
    if num <= horizon or num < 2 or factor <= 0:
        return None, None, "too few windows for a Diebold–Mariano test"
    centred = differences - differences.mean()
    covariances = np.array(
        [centred[lag:] @ centred[: num - lag] / num for lag in range(min(horizon, num))]
    )
    note = ""
    variance = covariances[0] + 2 * covariances[1:].sum()
    if variance <= 0:
        weights = 1 - np.arange(1, len(covariances)) / len(covariances)
        variance = covariances[0] + 2 * weights @ covariances[1:]
        note = "Bartlett kernel: the variance was not positive"
    # Rounding leaves a little of the variance of equal numbers.
    if variance <= 1e-24 * max(1e-300, float(np.square(differences).mean())):
        return None, None, "all differences are equal"
    statistic = float(differences.mean() / math.sqrt(variance / num) * math.sqrt(factor))
    return statistic, float(2 * stdtr(num - 1, -abs(statistic))), note


def _differences(model: WindowLosses, other: WindowLosses, metric: Metric) -> np.ndarray:
    """Return the difference of the losses in each window that was measured, [N'], standardised."""
    is_scored = (model.count > 0).any(dim=1)
    each = [
        (losses.squared if metric in ("mse", "rmse") else losses.absolute) / losses.count
        for losses in (model, other)
    ]
    return (each[0] - each[1]).nanmean(dim=1)[is_scored].numpy()


Sums = tuple[Tensor, Tensor, Tensor]
"""Absolute errors, squared errors and counts, each [..., T]."""


def _totals(losses: WindowLosses) -> Sums:
    return losses.absolute.sum(0), losses.squared.sum(0), losses.count.sum(0)


def _resampled_sums(losses: WindowLosses, starts: Tensor, block_length: int, num_last: int) -> Sums:
    """Return the sums over each resample, [R, T]; its last block has `num_last` windows."""

    def resample(values: Tensor) -> Tensor:
        before = torch.cat([values.new_zeros(1, values.shape[1]), values.cumsum(0)])
        total = values.new_zeros(starts.shape[1], values.shape[1])
        for place, start in enumerate(starts):
            is_last = place == len(starts) - 1
            total += before[start + (num_last if is_last else block_length)] - before[start]
        return total

    return resample(losses.absolute), resample(losses.squared), resample(losses.count)


def _skill(model: Sums, other: Sums, mase_unit: Tensor, metric: Metric) -> Tensor:
    """Return 1 - error / error of the opponent, [...]; not finite where the latter is 0."""
    return 1 - _error(model, mase_unit, metric) / _error(other, mase_unit, metric)


def _error(sums: Sums, mase_unit: Tensor, metric: Metric) -> Tensor:
    """Return the metric as `ErrorSums.errors` computes it: a mean over the targets measured."""
    absolute, squared, count = sums
    match metric:
        case "mae":
            by_target = absolute / count
        case "mse":
            by_target = squared / count
        case "rmse":
            by_target = (squared / count).sqrt()
        case "mase":
            by_target = absolute / count / mase_unit
    return by_target.nanmean(dim=-1)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
