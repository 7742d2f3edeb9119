"""Forecasts on the test windows, all on the same ones, with no more kept of them than sums.

The legend of shapes is in `models/__init__.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipelines.contenders import Contender
from pipelines.metrics import ErrorSums
from pipelines.scaling import Scaling
from pipelines.scores import Errors
from pipelines.training_config import EVALUATION_BATCH_SIZE
from pipelines.verdict import ErrorRow, TestScore
from pipelines.windows import Windows, build_test_windows

if TYPE_CHECKING:
    from pipelines.splits import TestData


@dataclass(frozen=True, eq=False)
class WindowLosses:
    """What one forecast lost in each window and target, standardised; sums over the steps."""

    absolute: Tensor
    """[N, T], float64."""
    squared: Tensor
    """[N, T], float64."""
    count: Tensor
    """[N, T], steps that were measured."""
    mase_unit: Tensor
    """[T], the seasonal naive forecast's error on the training rows, standardised; NaN where it
    is undefined."""


@dataclass(frozen=True, eq=False)
class Measured:
    """One contender on the test windows."""

    contender: Contender
    score: TestScore
    losses: WindowLosses


@dataclass(frozen=True, eq=False)
class _Units:
    """What errors are divided by, each [T] in original units."""

    target_scale: Tensor
    mase_scale: Tensor

    def row(self, sums: ErrorSums) -> ErrorRow:
        return error_row(sums.errors(self.target_scale, self.mase_scale))

    def of_target(self, target: int) -> _Units:
        one = slice(target, target + 1)
        return _Units(self.target_scale[one], self.mase_scale[one])


def measure(
    contenders: Sequence[Contender], test: TestData, scaling: Scaling
) -> tuple[Measured, ...]:
    """Return how each contender forecasts the test part, from the same windows; on the CPU.

    Args:
        contenders: At least one.
        test: The opened table.
        scaling: Fitted on its training rows alone, with which contenders read their windows.

    Raises:
        ValueError: No window fits into the test part.
    """
    return tuple(_measure_one(contender, test, scaling) for contender in contenders)


def error_row(errors: Errors) -> ErrorRow:
    """Return errors as plain numbers, null where one is undefined."""
    return ErrorRow(
        **{name: value if math.isfinite(value) else None for name, value in vars(errors).items()}
    )


def _measure_one(contender: Contender, test: TestData, scaling: Scaling) -> Measured:
    cut = contender.lookback, contender.use_calendar
    windows, origins = build_test_windows(test, scaling, *cut, "cpu")
    units = _Units(
        torch.tensor(scaling.target_scale, dtype=torch.float64),
        windows.mase_scale,
    )
    by_window: list[tuple[Tensor, Tensor, Tensor]] = []
    by_step = [torch.zeros(test.horizon, test.num_targets, dtype=torch.float64) for _ in range(3)]
    with torch.inference_mode():
        for batch in torch.split(origins, EVALUATION_BATCH_SIZE):
            errors = _errors(contender, windows, batch)
            by_window.append((errors[0].sum(1), errors[1].sum(1), errors[2].sum(1)))
            for total, error in zip(by_step, errors, strict=True):
                total += error.sum(0)
    absolute, squared, count = (torch.cat(parts) for parts in zip(*by_window, strict=True))
    losses = WindowLosses(
        absolute / units.target_scale,
        squared / units.target_scale**2,
        count,
        units.mase_scale / units.target_scale,
    )
    return Measured(contender, _score(contender, by_step, units), losses)


def _errors(
    contender: Contender, windows: Windows, origins: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return absolute and squared errors, and whether the truth was measured, each [B, H, T]."""
    truth = windows.true_future(origins)
    is_measured = ~truth.isnan()
    error = torch.where(is_measured, contender.forecast(windows, origins) - truth, 0.0)
    return error.abs(), error.square(), is_measured.double()


def _score(contender: Contender, by_step: Sequence[Tensor], units: _Units) -> TestScore:
    """Return the errors from sums of them, each [H, T]."""
    absolute, squared, count = by_step
    num_steps, num_targets = absolute.shape
    overall = ErrorSums(absolute.sum(0), squared.sum(0), count.sum(0))
    return TestScore(
        name=contender.name,
        note=contender.note,
        errors=units.row(overall),
        by_step=tuple(
            units.row(ErrorSums(absolute[step], squared[step], count[step]))
            for step in range(num_steps)
        ),
        by_target=tuple(
            units.of_target(target).row(
                ErrorSums(
                    overall.absolute[target : target + 1],
                    overall.squared[target : target + 1],
                    overall.count[target : target + 1],
                )
            )
            for target in range(num_targets)
        ),
    )
