"""Where a model errs on the test part: in which windows, hours and weekdays, and with what pattern.

The legend of shapes is in `models/__init__.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pandas.tseries.frequencies import to_offset
from torch import Tensor

from pipelines.contenders import Contender
from pipelines.example_windows import choose_examples, draw_examples
from pipelines.scaling import Scaling
from pipelines.training_config import EVALUATION_BATCH_SIZE
from pipelines.verdict import Inspection
from pipelines.windows import Windows, build_test_windows

if TYPE_CHECKING:
    from pipelines.splits import TestData

Floats = npt.NDArray[np.float64]

MAX_LAGS = 200
WHITE_NOISE_BOUND = 1.96
"""Standard errors that 95 % of the correlations of white noise stay below."""

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True, eq=False)
class _Residuals:
    """What a model lost on the test windows, as sums, so that no forecast has to be kept."""

    by_window: Floats
    """[B], mean absolute error of each window, standardised; NaN where nothing was measured."""
    is_whole: npt.NDArray[np.bool_]
    """[B], whether every step of every target was measured."""
    by_row: Floats
    """[N, T], sums of the absolute errors in forecasts of a row, standardised."""
    count_by_row: Floats
    """[N, T], the forecasts of a row that were measured."""
    one_step: Floats
    """[N], original units: the first target's error where a row was the first step forecast; NaN
    elsewhere."""


def inspect(
    model: Contender, best_baseline: Contender, test: TestData, scaling: Scaling
) -> Inspection:
    """Return where a model errs on the test part, with the best baseline beside it; on the CPU.

    Args:
        model: What is judged.
        best_baseline: Shown beside it in the examples.
        test: The opened table.
        scaling: Fitted on its training rows alone, with which contenders read their windows.

    Raises:
        ValueError: No window fits into the test part.
    """
    cut = model.lookback, model.use_calendar
    windows, origins = build_test_windows(test, scaling, *cut, "cpu")
    residuals = _residuals(model, windows, origins, scaling)
    examples = choose_examples(
        residuals.by_window, residuals.is_whole, origins.numpy(), test.horizon
    )
    cycle = test.season if test.season > 1 else test.horizon
    correlations, bound = autocorrelation(
        residuals.one_step[test.first_test_row :], min(2 * cycle, MAX_LAGS)
    )
    return Inspection(
        examples=draw_examples(examples, (model, best_baseline), test, scaling),
        by_hour=_by_hour(residuals, test),
        by_weekday=_by_weekday(residuals, test),
        residual_autocorrelation=correlations,
        autocorrelation_bound=bound,
    )


def autocorrelation(errors: Floats, num_lags: int) -> tuple[tuple[float, ...], float | None]:
    """Return the correlations of errors with those 1… rows before, and white noise's 95 % bound.

    What is missing counts as the mean, which draws the correlations towards 0 a little. Lags of
    half the errors or more are left out. Source for rows with gaps: Parzen (1963), "On spectral
    analysis with missing observations and amplitude modulation".

    Args:
        errors: [N], NaN where missing.
        num_lags: The most that are returned.

    Returns:
        Nothing and None where the errors are too few, or all equal.
    """
    is_known = np.isfinite(errors)
    num_known = int(is_known.sum())
    num_lags = min(num_lags, (num_known - 1) // 2)
    if num_lags < 1 or np.ptp(errors[is_known]) == 0:
        return (), None
    centred = np.where(is_known, errors - errors[is_known].mean(), 0.0)
    power = centred @ centred
    lags = range(1, num_lags + 1)
    correlations = tuple(float(centred[lag:] @ centred[:-lag] / power) for lag in lags)
    return correlations, WHITE_NOISE_BOUND / math.sqrt(num_known)


def _residuals(model: Contender, windows: Windows, origins: Tensor, scaling: Scaling) -> _Residuals:
    target_scale = torch.tensor(scaling.target_scale, dtype=torch.float64)
    steps = torch.arange(windows.shape.horizon)
    by_row, count_by_row = torch.zeros_like(windows.truth), torch.zeros_like(windows.truth)
    one_step = torch.full_like(windows.truth[:, 0], torch.nan)
    by_window, is_whole = [], []
    with torch.inference_mode():
        for batch in torch.split(origins, EVALUATION_BATCH_SIZE):
            error = model.forecast(windows, batch) - windows.true_future(batch)
            is_measured = ~error.isnan()
            absolute = torch.where(is_measured, error.abs() / target_scale, 0.0)
            rows = (batch.unsqueeze(1) + steps).flatten()
            by_row.index_add_(0, rows, absolute.flatten(0, 1))
            count_by_row.index_add_(0, rows, is_measured.double().flatten(0, 1))
            one_step[batch] = error[:, 0, 0]
            # A mean over the targets, like every error that is reported.
            by_window.append((absolute.sum(dim=1) / is_measured.sum(dim=1)).nanmean(dim=1))
            is_whole.append(is_measured.all(dim=2).all(dim=1))
    return _Residuals(
        torch.cat(by_window).numpy(),
        torch.cat(is_whole).numpy(),
        by_row.numpy(),
        count_by_row.numpy(),
        one_step.numpy(),
    )


def _by_hour(residuals: _Residuals, test: TestData) -> dict[str, float]:
    """Return the errors by hour, empty where rows are no part of a day."""
    if test.timestamps is None or not _is_shorter(test.frequency, pd.Timedelta(days=1)):
        return {}
    names = [f"{hour:02d}" for hour in range(24)]
    return _by_group(residuals, test.timestamps.hour.to_numpy(), names)


def _by_weekday(residuals: _Residuals, test: TestData) -> dict[str, float]:
    """Return the errors by weekday, empty where rows are a week or longer."""
    if test.timestamps is None or not _is_shorter(test.frequency, pd.Timedelta(days=7)):
        return {}
    return _by_group(residuals, test.timestamps.day_of_week.to_numpy(), WEEKDAYS)


def _is_shorter(frequency: str | None, than: pd.Timedelta) -> bool:
    """Return whether the time between two rows is."""
    if frequency is None:
        return False
    # From a Monday on, as weeks hold business days; the first step may end within a week or month.
    row = pd.Timestamp("2024-01-01") + to_offset(frequency)
    return bool((row + to_offset(frequency)) - row < than)


def _by_group(
    residuals: _Residuals, group: npt.NDArray[np.int32], names: Sequence[str]
) -> dict[str, float]:
    """Return the mean absolute error of each group of rows that holds a measured forecast."""
    errors = {}
    for number, name in enumerate(names):
        is_in = group == number
        count = residuals.count_by_row[is_in].sum(axis=0)
        is_scored = count > 0
        if is_scored.any():
            total = residuals.by_row[is_in].sum(axis=0)
            errors[name] = float((total[is_scored] / count[is_scored]).mean())
    return errors
