"""What is known ahead of a forecast: features of the calendar, and the timestamps to come."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.tseries.frequencies import to_offset

Cycles = dict[str, npt.NDArray[np.float64]]


def calendar_features(
    timestamps: pd.DatetimeIndex | None, frequency: str | None
) -> tuple[tuple[str, ...], npt.NDArray[np.float32]]:
    """Return where each timestamp stands in the cycles of the calendar, as sine and cosine.

    Steps below a day have the hour of the day, the hour of the week and the day of the year; days
    and business days the day of the week and of the year; weeks, months and quarters the day of
    the year; years, and rows without a frequency, nothing.

    Args:
        timestamps: N of them; None only without a frequency.
        frequency: A pandas offset alias, or None where row order is time.

    Returns:
        K names, such as `hour_of_day_sin`, and values [N, K] between -1 and 1.
    """
    if frequency is None or timestamps is None:
        num_rows = 0 if timestamps is None else len(timestamps)
        return (), np.zeros((num_rows, 0), dtype=np.float32)
    names: list[str] = []
    values: list[npt.NDArray[np.float64]] = []
    for name, phase in _phases(timestamps, frequency).items():
        names += [f"{name}_sin", f"{name}_cos"]
        values += [np.sin(2 * np.pi * phase), np.cos(2 * np.pi * phase)]
    columns = np.stack(values, axis=1) if values else np.zeros((len(timestamps), 0))
    return tuple(names), columns.astype(np.float32)


def future_timestamps(last: pd.Timestamp, frequency: str, horizon: int) -> pd.DatetimeIndex:
    """Return the H timestamps that follow the last one; of business days, holidays included."""
    return pd.date_range(last, periods=horizon + 1, freq=frequency)[1:]


def _phases(timestamps: pd.DatetimeIndex, frequency: str) -> Cycles:
    """Return each cycle's phases in [0, 1), one for each timestamp."""
    offset = to_offset(frequency)
    day = ((timestamps - timestamps.normalize()) / pd.Timedelta(days=1)).to_numpy()
    week = (timestamps.day_of_week.to_numpy() + day) / 7
    days_in_year = np.where(timestamps.is_leap_year, 366, 365)
    year = {"day_of_year": (timestamps.day_of_year.to_numpy() - 1 + day) / days_in_year}
    if isinstance(offset, pd.offsets.Tick):
        return {"hour_of_day": day, "hour_of_week": week, **year}
    is_daily = isinstance(offset, pd.offsets.Day | pd.offsets.BusinessDay)
    if is_daily and offset.n % 7 != 0:
        return {"day_of_week": week, **year}
    return {} if offset.rule_code.startswith(("Y", "BY")) else year
