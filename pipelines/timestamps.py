"""Timestamps as people write them: which column holds them, and what they say."""

from __future__ import annotations

import re
import warnings

import pandas as pd
from pandas.api import types
from pandas.tseries.api import guess_datetime_format

from pipelines.reading import DataError

_UTC_OFFSET = re.compile(r"(?<=[:.,\d]\d\d)\s?(?:Z|[+-]\d{2}:?\d{2})$")
_DAY_AND_MONTH = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2\d{4}")
_INTEGER_NAMES = {"date", "datetime", "ds", "time", "timestamp", "year"}
# Integers that are times: a year, yyyymmdd, and seconds or milliseconds since 1970 (from 1990 on;
# smaller ones are rather counters or measurements).
_INTEGER_FORMATS = (
    (1800, 2200, "%Y"),
    (18_000_101, 22_001_231, "%Y%m%d"),
    (631_152_000, 7_258_118_400, "s"),
    (631_152_000_000, 7_258_118_400_000, "ms"),
)


def is_timestamp_column(column: pd.Series) -> bool:
    """Return whether a column's values read as timestamps.

    Of text the first fifty values decide, and a few bad ones do not matter: they are better
    reported by row. Numbers are timestamps only under a name such as `date`.
    """
    if types.is_datetime64_any_dtype(column):
        return True
    if types.is_numeric_dtype(column):
        is_named = str(column.name).strip().lower() in _INTEGER_NAMES
        return is_named and _parse_integers(column) is not None
    head = _as_text(column.dropna().head(50))
    # dateutil takes "12:00" and "Nov" for dates; a timestamp of ours has a year.
    has_year = head.str.contains(r"\d{4}|\d[./-]\d{1,2}[./-]\d{2}", regex=True)
    return len(head) > 0 and has_year.mean() > 0.8 and _parse_text(head)[0].notna().mean() > 0.8


def parse_timestamps(column: pd.Series) -> tuple[pd.Series, str | None]:
    """Read a column as timestamps without a time zone.

    Timestamps with a zone keep the clock they are written in where that clock is even (one offset,
    or the same time every day); otherwise they are taken to UTC, which has no change of the clock.

    Returns:
        The timestamps under the rows of the column, and a note on what was understood, if any.

    Raises:
        DataError: A value is empty or does not parse.
    """
    parsed, note = _parse(column)
    bad = parsed.isna()
    if bad.any():
        first = int(bad.argmax())
        raise DataError(
            f"timestamps must parse: column {column.name} holds {str(column.iloc[first])!r} in row "
            f"{column.index[first] + 1} (such rows: {int(bad.sum())}); correct them, name another "
            "column with --timestamp, or take the row order as time with --freq none"
        )
    return parsed, note


def _parse(column: pd.Series) -> tuple[pd.Series, str | None]:
    if types.is_datetime64_any_dtype(column):
        if getattr(column.dt, "tz", None) is None:
            return column, None
        return _without_zone(column.dt.tz_localize(None), column.dt.tz_convert("UTC"))
    if types.is_numeric_dtype(column):
        parsed = _parse_integers(column)
        return (pd.Series(pd.NaT, index=column.index) if parsed is None else parsed), None
    return _parse_text(_as_text(column))


def _as_text(column: pd.Series) -> pd.Series:
    return column.astype("str").str.strip()


def _parse_integers(column: pd.Series) -> pd.Series | None:
    for low, high, form in _INTEGER_FORMATS:
        if column.notna().all() and column.between(low, high).all():
            whole = column.astype("int64")
            if form.startswith("%"):
                return pd.to_datetime(whole.astype("str"), errors="coerce", format=form)
            return pd.Series(whole.to_numpy().astype(f"datetime64[{form}]"), column.index)
    return None


def _parse_text(text: pd.Series) -> tuple[pd.Series, str | None]:
    if text.str.contains(_UTC_OFFSET).any():
        wall = text.str.replace(_UTC_OFFSET, "", regex=True)
        return _without_zone(_best_parse(wall, False), _best_parse(text, False, utc=True))
    numbers = text.str.extract(_DAY_AND_MONTH)
    if numbers[0].isna().all():
        return _best_parse(text, False), None
    # 13.02.2014 is written day first everywhere; 02/13/2014 where the second number says so.
    is_day_first = bool((numbers[1] == ".").any() or (numbers[0].astype(float) > 12).any())
    order = "day" if is_day_first else "month"
    return _best_parse(text, is_day_first), f"dates such as {text.iloc[0]} are read {order} first"


def _best_parse(text: pd.Series, is_day_first: bool, utc: bool = False) -> pd.Series:
    """Return the first reading without a failure, else the one with the fewest."""
    readings: list[pd.Series] = []
    with warnings.catch_warnings():
        # pandas warns where the order of day and month was not said; it is decided above.
        warnings.simplefilter("ignore")
        guess = guess_datetime_format(text.iloc[0], dayfirst=is_day_first) if len(text) else None
        for form in filter(None, ("ISO8601", guess, "mixed")):
            reading = pd.to_datetime(
                text, errors="coerce", format=form, dayfirst=is_day_first, utc=utc
            )
            if reading.notna().all():
                return reading
            readings.append(reading)
    return min(readings, key=lambda reading: int(reading.isna().sum()))


def _without_zone(wall: pd.Series, utc: pd.Series) -> tuple[pd.Series, str]:
    in_utc = utc.dt.tz_localize(None)
    has_one_offset = (wall - in_utc).nunique() <= 1
    has_one_time_of_day = (wall - wall.dt.normalize()).nunique() <= 1
    if has_one_offset or has_one_time_of_day:
        return wall, "timestamps keep the clock they are written in; their time zone is dropped"
    return in_utc, "timestamps are taken to UTC, since their clock changes"
