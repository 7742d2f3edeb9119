"""Repairs of a table: missing values interpolated, outliers replaced (a causal Hampel filter).

Neither lets a later value reach an earlier forecast. The filter reads only earlier rows.
Interpolation does read the next measured row, so no forecast may start after a row that was not
measured (`is_observed`), and a gap across the end of a part is filled from that part alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

OUTLIER_THRESHOLD = 9.0
"""Deviations, in scales, beyond which a value is an outlier.

On the embedded table 9 finds the two changes of the clock (11 and 10 scales) and nothing else: the
next rows, at 8, are true.
"""
_NUM_NEIGHBOURS = 3
_MIN_REFERENCES = 3
_SCALE_OF_MAD = 1.4826  # makes the median absolute deviation of a normal variable its deviation


@dataclass(frozen=True, eq=False)
class Outliers:
    """What the filter finds in a table, in original units."""

    is_outlier: Mask
    """[N, F]."""
    expected: Values
    """[N, F]: what earlier rows suggest; NaN where there are too few of them."""
    scale: Values
    """[F]: the usual deviation from it on the training rows."""


@dataclass(frozen=True, eq=False)
class Repaired:
    """A table without missing values, in original units."""

    values: Values
    """[N, F]."""
    is_observed: Mask
    """[N]: whether every column of the row was measured, so that a forecast may start after it."""
    is_missing: Mask
    """[N, F]: the values that are interpolated."""
    is_outlier: Mask
    """[N, F]: the values that are replaced."""


def repair(
    values: Values, part_ends: Sequence[int], season: int, replace_outliers: bool
) -> Repaired:
    """Replace outliers where asked, then interpolate what is missing.

    Args:
        values: [N, F] in original units, NaN where missing; each column is measured at least once
            in the first part.
        part_ends: The row after each part, the training part first and N last.
        season: Rows after which the series repeats, 1 for none.
        replace_outliers: Whether the filter is applied.

    Returns:
        The repaired table. Its rows up to any of the ends depend on no later row.
    """
    is_missing = np.isnan(values)
    is_outlier = np.zeros_like(is_missing)
    if replace_outliers:
        found = find_outliers(values, season, part_ends[0])
        is_outlier = found.is_outlier
        values = np.where(is_outlier, found.expected, values)
    repaired = np.empty_like(values)
    start = 0
    for end in part_ends:
        repaired[start:end] = interpolate(values[:end])[start:end]
        start = end
    is_observed = np.asarray(~is_missing.any(axis=1))
    return Repaired(repaired, is_observed, is_missing, is_outlier)


def interpolate(values: Values) -> Values:
    """Fill NaN in [N, F] on the line between the neighbours, at an edge with the nearest value."""
    filled = values.copy()
    rows = np.arange(len(values))
    for column in filled.T:
        is_missing = np.isnan(column)
        if is_missing.any():
            column[is_missing] = np.interp(rows[is_missing], rows[~is_missing], column[~is_missing])
    return filled


def find_outliers(values: Values, season: int, num_train_rows: int) -> Outliers:
    """Find the values far from what earlier rows suggest (a causal Hampel filter).

    The reference of a row is the median of the three rows before and of the same step in the three
    seasons before, as measured; the scale is 1.4826 times the median absolute deviation from it on
    the training rows. A column that mostly equals its reference has scale 0 and no outliers.

    Args:
        values: [N, F] in original units, NaN where missing.
        season: Rows after which the series repeats, 1 for none.
        num_train_rows: The rows, from the first, that the scale is fitted on.
    """
    expected = np.stack([_expect(column, season) for column in values.T], axis=1)
    deviation = np.abs(values - expected)
    scale = np.array([_fit_scale(column) for column in deviation[:num_train_rows].T])
    # NaN compares as false: what is missing or cannot be judged is no outlier.
    is_outlier = (deviation > OUTLIER_THRESHOLD * scale) & (scale > 0)
    return Outliers(is_outlier, expected, scale)


def _expect(column: Values, season: int) -> Values:
    neighbours = range(1, _NUM_NEIGHBOURS + 1)
    lags = sorted({*neighbours, *(season * lag for lag in neighbours)})
    references = np.full((len(lags), len(column)), np.nan)
    for reference, lag in zip(references, lags, strict=True):
        reference[lag:] = column[:-lag]
    references.sort(axis=0)  # NaN last
    num_references = np.isfinite(references).sum(axis=0)
    middle = np.stack([(num_references - 1) // 2, num_references // 2]).clip(min=0)
    median: Values = np.take_along_axis(references, middle, axis=0).mean(axis=0)
    return np.where(num_references >= _MIN_REFERENCES, median, np.nan)


def _fit_scale(deviation: Values) -> float:
    known = deviation[np.isfinite(deviation)]
    return float(_SCALE_OF_MAD * np.median(known)) if len(known) else 0.0
