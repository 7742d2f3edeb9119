"""What is known ahead of a forecast: features of the calendar, and the timestamps to come."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.tseries.frequencies import to_offset

_NUM_HARMONICS = {"hour_of_week": 3, "day_of_week": 3}
"""Sine and cosine pairs of a cycle, where it has more than one."""


def calendar_names(training: pd.DatetimeIndex | None, frequency: str | None) -> tuple[str, ...]:
    """Return the K calendar features of a table, such as `hour_of_day_sin` or `hour_of_week_cos3`.

    Steps below a day have the hour of the day and the hour of the week; days and business days the
    day of the week. A week has three harmonics, so that its single days stand out. All but years
    have the day of the year, where the training rows span two years, and so every date twice: of
    fewer a model learns a trend, and extends it over the dates that follow (measured with less
    than a year: docs/log.md). Rows without a frequency have nothing.

    Args:
        training: The timestamps of the training rows; None only without a frequency.
        frequency: A pandas offset alias, or None where row order is time.
    """
    if frequency is None or training is None or len(training) == 0:
        return ()
    cycles = _cycles(frequency)
    if training[0] + pd.DateOffset(years=2) > training[-1] + to_offset(frequency):
        cycles = tuple(cycle for cycle in cycles if cycle != "day_of_year")
    return tuple(
        f"{cycle}_{wave}{order if order > 1 else ''}"
        for cycle in cycles
        for order in range(1, _NUM_HARMONICS.get(cycle, 1) + 1)
        for wave in ("sin", "cos")
    )


def calendar_features(
    timestamps: pd.DatetimeIndex | None, names: Sequence[str]
) -> npt.NDArray[np.float32]:
    """Return where each timestamp stands in the cycles of the calendar, as sine and cosine.

    Args:
        timestamps: N of them; None only without names.
        names: K of them, as `calendar_names` gives them.

    Returns:
        Values [N, K] between -1 and 1.
    """
    if not names:
        return np.zeros((0 if timestamps is None else len(timestamps), 0), dtype=np.float32)
    assert timestamps is not None, "only timestamps have calendar features"
    phases = _phases(timestamps)
    waves = {"sin": np.sin, "cos": np.cos}
    columns = []
    for name in names:
        cycle, _, wave = name.rpartition("_")
        order = int(wave[3:] or 1)
        columns.append(waves[wave[:3]](2 * np.pi * order * phases[cycle]))
    return np.stack(columns, axis=1).astype(np.float32)


def future_timestamps(last: pd.Timestamp, frequency: str, horizon: int) -> pd.DatetimeIndex:
    """Return the H timestamps that follow the last one; of business days, holidays included."""
    return pd.date_range(last, periods=horizon + 1, freq=frequency)[1:]


def _cycles(frequency: str) -> tuple[str, ...]:
    """Return the cycles of the calendar that are longer than a step."""
    offset = to_offset(frequency)
    if isinstance(offset, pd.offsets.Tick):
        return "hour_of_day", "hour_of_week", "day_of_year"
    is_daily = isinstance(offset, pd.offsets.Day | pd.offsets.BusinessDay)
    if is_daily and offset.n % 7 != 0:
        return "day_of_week", "day_of_year"
    return () if offset.rule_code.startswith(("Y", "BY")) else ("day_of_year",)


def _phases(timestamps: pd.DatetimeIndex) -> dict[str, npt.NDArray[np.float64]]:
    """Return the phase of each cycle in [0, 1), one for each timestamp."""
    day = ((timestamps - timestamps.normalize()) / pd.Timedelta(days=1)).to_numpy()
    week = (timestamps.day_of_week.to_numpy() + day) / 7
    days_in_year = np.where(timestamps.is_leap_year, 366, 365)
    year = (timestamps.day_of_year.to_numpy() - 1 + day) / days_in_year
    return {"hour_of_day": day, "hour_of_week": week, "day_of_week": week, "day_of_year": year}
