"""Some test windows to look at: of the best, the typical and the worst forecasts.

The legend of shapes is in `models/__init__.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch

from pipelines.contenders import Contender
from pipelines.scaling import Scaling
from pipelines.verdict import ForecastExample
from pipelines.windows import build_test_windows

if TYPE_CHECKING:
    from pipelines.splits import TestData

Floats = npt.NDArray[np.float64]
Kind = Literal["best", "typical", "worst"]

KINDS: tuple[Kind, ...] = ("best", "typical", "worst")
EXAMPLES_A_KIND = 2
MAX_HISTORY = 1000
"""Rows shown before a forecast: a picture has no more points across."""


@dataclass(frozen=True)
class Example:
    """A window that was chosen."""

    kind: Kind
    place: int
    """Which of the test windows it is."""
    error: float
    """Mean absolute error, standardised."""


def choose_examples(
    errors: Floats,
    is_whole: npt.NDArray[np.bool_],
    origins: npt.NDArray[np.int64],
    horizon: int,
) -> list[Example]:
    """Return up to two windows of each kind, the best first; no two forecast the same row.

    Typical are those nearest to the median error. Windows with gaps in the truth are left out as
    long as there is one without.

    Args:
        errors: [B], mean absolute error of each window; NaN where nothing was measured.
        is_whole: [B], whether all of its truth was measured.
        origins: [B], ascending.
        horizon: H.
    """
    is_scored = np.isfinite(errors)
    is_shown = is_scored & is_whole if (is_scored & is_whole).any() else is_scored
    distances = {
        "best": errors,
        "typical": np.abs(errors - np.median(errors[is_shown])) if is_shown.any() else errors,
        "worst": -errors,
    }
    is_free = is_shown.copy()
    chosen = []
    # In turn: where windows are few, each kind has one before any has two.
    for kind in KINDS * EXAMPLES_A_KIND:
        if is_free.any():
            place = int(np.where(is_free, distances[kind], np.inf).argmin())
            is_free &= np.abs(origins - origins[place]) >= horizon
            chosen.append(Example(kind, place, float(errors[place])))
    return sorted(chosen, key=lambda example: KINDS.index(example.kind))


def draw_examples(
    examples: Sequence[Example],
    contenders: tuple[Contender, Contender],
    test: TestData,
    scaling: Scaling,
) -> tuple[ForecastExample, ...]:
    """Return windows with what a model and a baseline forecast of the first target there.

    Args:
        examples: Windows of the test part.
        contenders: The model and the baseline.
        test: The opened table.
        scaling: With which contenders read their windows.
    """
    if not examples:
        return ()
    places = [example.place for example in examples]
    forecasts = []
    for contender in contenders:
        cut = contender.lookback, contender.use_calendar
        windows, origins = build_test_windows(test, scaling, *cut, "cpu")
        with torch.inference_mode():
            forecasts.append(contender.forecast(windows, origins[places])[..., 0].tolist())
    rows: list[int] = origins[places].tolist()
    drawn = zip(examples, rows, *forecasts, strict=True)
    return tuple(_draw(test, *each) for each in drawn)


def _draw(
    test: TestData, example: Example, row: int, forecast: list[float], baseline: list[float]
) -> ForecastExample:
    cycle = test.season if test.season > 1 else test.horizon
    first = max(0, row - min(2 * cycle, MAX_HISTORY))
    return ForecastExample(
        kind=example.kind,
        origin=f"row {row + 1}" if test.timestamps is None else str(test.timestamps[row]),
        error=example.error,
        history=_or_none(test.truth[first:row, 0]),
        truth=_or_none(test.truth[row : row + test.horizon, 0]),
        forecast=tuple(forecast),
        best_baseline=tuple(baseline),
    )


def _or_none(values: Floats) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(value) else value for value in values.tolist())
