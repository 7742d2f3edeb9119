"""The grid that a table's timestamps lie on: its step, its season, and the rows that it lacks."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

from pipelines.data_error import DataError

_DAY = pd.Timedelta(days=1)
# Steps of one unit in the cycle that repeats: a day of minutes or hours, a week of days, a year.
_CYCLE_STEPS = {
    "s": 3600,
    "min": 1440,
    "h": 24,
    "D": 7,
    "B": 5,
    "W": 52,
    **dict.fromkeys(("MS", "ME", "BMS", "BME"), 12),
    **dict.fromkeys(("QS", "QE", "BQS", "BQE"), 4),
}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
# Steps that no fixed number of hours makes, tried where the usual distance has that many days.
_CALENDAR_STEPS = (
    (28, 31, ("MS", "ME", "BMS", "BME")),
    (89, 92, tuple(f"{q}-{m}" for q in ("QS", "QE", "BQS", "BQE") for m in ("JAN", "FEB", "DEC"))),
    (365, 366, tuple(f"{y}-{m}" for y in ("YS", "YE") for m in _MONTHS)),
)


def resolve_frequency(alias: str) -> str:
    """Return the alias in pandas' own spelling: 60min is h, W is W-SUN.

    Raises:
        DataError: pandas does not know the alias.
    """
    try:
        offset = to_offset(alias)
    except ValueError as error:
        hint = re.search(r"(Did you mean|Please use) '?(\w+)", str(error))
        remedy = f"write --freq {hint[2]}" if hint else "correct --freq"
        raise DataError(
            "the frequency must be none or a pandas offset alias, such as h, 15min, D, B, W, MS: "
            f"got {alias!r}; {remedy}"
        ) from error
    if offset.n < 1:
        raise DataError(f"the frequency must run forwards: got {alias!r}; give a positive --freq")
    if isinstance(offset, pd.offsets.Tick):
        return _fixed_alias(pd.Timedelta(offset))
    return str(offset.freqstr)


def infer_frequency(timestamps: pd.DatetimeIndex) -> str:
    """Return the step of sorted timestamps without duplicates; gaps and holidays do not matter.

    Raises:
        DataError: There is no step that most of the rows keep.
    """
    steps, counts = np.unique(np.diff(timestamps), return_counts=True)
    usual = pd.Timedelta(steps[counts.argmax()])
    alias = _calendar_alias(timestamps, usual)
    if alias is not None:
        return alias
    if 2 * counts.max() < counts.sum() or usual >= 28 * _DAY:
        raise DataError(
            "timestamps must be evenly spaced: the most common step, "
            f"{usual}, is that of {counts.max()} of {counts.sum()} rows; give the step with "
            "--freq, or take the row order as time with --freq none"
        )
    return _fixed_alias(usual)


def missing_timestamps(timestamps: pd.DatetimeIndex, frequency: str) -> pd.DatetimeIndex:
    """Return the timestamps of the grid that sorted ones lack; of business days none is lacking.

    Raises:
        DataError: A timestamp is not on the grid, or most of the grid is lacking.
    """
    _check_span(timestamps, frequency)
    grid = pd.date_range(timestamps[0], timestamps[-1], freq=frequency)
    off_grid = timestamps.difference(grid)
    if len(off_grid):
        raise DataError(
            f"timestamps must keep the frequency {frequency}: {off_grid[0]} and "
            f"{len(off_grid) - 1} others do not; correct them, give another --freq, or take the "
            "row order as time with --freq none"
        )
    return grid[:0] if is_business_days(frequency) else grid.difference(timestamps)


def season_length(frequency: str | None) -> int:
    """Return the rows of the cycle that repeats: h 24, 15min 96, D 7, B 5, MS 12; 1 for none."""
    if frequency is None:
        return 1
    offset = to_offset(frequency)
    unit, num_units = offset.rule_code.partition("-")[0], offset.n
    if unit == "D" and num_units % 7 == 0:
        unit, num_units = "W", num_units // 7
    num_steps, rest = divmod(_CYCLE_STEPS.get(unit, 1), num_units)
    return num_steps if num_steps > 0 and rest == 0 else 1


def is_business_days(frequency: str) -> bool:
    """Return whether the grid is Monday to Friday, on which a day without a row is a holiday."""
    return isinstance(to_offset(frequency), pd.offsets.BusinessDay)


def _calendar_alias(timestamps: pd.DatetimeIndex, usual: pd.Timedelta) -> str | None:
    if usual == 7 * _DAY and timestamps.day_of_week.nunique() == 1:
        return f"W-{timestamps[0].strftime('%a').upper()}"
    if usual == _DAY and timestamps.day_of_week.max() < 5 and np.ptp(timestamps) >= 7 * _DAY:
        return "B"
    for low, high, aliases in _CALENDAR_STEPS:
        if low <= usual.days <= high:
            return next((alias for alias in aliases if _is_on(timestamps, alias)), None)
    return None


def _is_on(timestamps: pd.DatetimeIndex, alias: str) -> bool:
    offset = to_offset(alias)
    return all(offset.is_on_offset(timestamp) for timestamp in timestamps)


def _fixed_alias(step: pd.Timedelta) -> str:
    for unit in ("D", "h", "min", "s"):
        number, rest = divmod(step, pd.Timedelta(1, unit))
        if not rest and number > 0:
            return unit if number == 1 else f"{number}{unit}"
    return str(to_offset(step).freqstr)


def _check_span(timestamps: pd.DatetimeIndex, frequency: str) -> None:
    # Checked before the grid is made: one stray year in a table of seconds is a billion rows.
    step = timestamps[0] + to_offset(frequency) - timestamps[0]
    num_steps = (timestamps[-1] - timestamps[0]) // step
    if num_steps > 4 * len(timestamps) + 100:
        raise DataError(
            f"at least one row in four must be there: from {timestamps[0]} to {timestamps[-1]} "
            f"frequency {frequency} makes {num_steps:,} rows and the table has "
            f"{len(timestamps):,}; correct the timestamps, give another --freq, or take the row "
            "order as time with --freq none"
        )
