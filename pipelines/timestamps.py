"""Timestamps as people write them: which column holds them, and what they say."""

from __future__ import annotations

import re
import warnings
from typing import Literal, cast

import numpy as np
import pandas as pd
from pandas.api import types
from pandas.tseries.api import guess_datetime_format

from pipelines.data_error import DataError, quoted

_EpochUnit = Literal["s", "ms", "us", "ns"]
_PLAIN = r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?"
_WITH_OFFSET = (
    r"^(?P<clock>.*?(?::\d\d(?:[.,]\d+)?(?:\s?[AaPp][Mm])?|T\d{2,6}(?:\.\d+)?))"
    r"\s?(?P<offset>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)$"
)
# A date in numbers whose order has to be found: 13/2/2014, 02-13-14, after a weekday or a time.
_NUMERIC_DATE = (
    r"^(?P<before>\D*?|\d{1,2}:\d\d\S*\s+)"
    r"(?P<first>\d{1,2})(?P<mark>[./-])(?P<second>\d{1,2})[./-](?P<third>\d{4}|\d{2})"
    r"(?P<after>(?:\D.*)?)$"
)
_ORDERS = {"day": "dmy", "month": "mdy", "year": "ymd"}
# dateutil takes "12:00" and "Nov" for dates of today; a timestamp of ours has a year.
_HAS_YEAR = r"\d{4}|\d[./-]\d{1,2}[./-]\d{2}|\d[ -]?[A-Za-z]{3,9}[ -]\d{2}(?:$|[^\d:])"
_PIVOT_YEAR = 69  # of two digits: 69 is 1969, 68 is 2068, as in POSIX
_TIME_WORDS = {"date", "datetime", "ds", "epoch", "time", "timestamp", "unix", "unixtime", "year"}
# Numbers that are times: dates without marks; seconds, milli-, micro- and nanoseconds since 1970
# (from 1990 on; smaller ones are rather counters or measurements); Excel's days (1954 to 2119).
_NUMBER_FORMATS = (
    (1800, 2200, "%Y"),
    (190_001, 210_012, "%Y%m"),
    (18_000_101, 22_001_231, "%Y%m%d"),
    (1_900_010_100, 2_100_123_123, "%Y%m%d%H"),
    (190_001_010_000, 210_012_312_359, "%Y%m%d%H%M"),
    (19_000_101_000_000, 21_001_231_235_959, "%Y%m%d%H%M%S"),
    (631_152_000, 7_258_118_400, "s"),
    (631_152_000_000, 7_258_118_400_000, "ms"),
    (631_152_000_000_000, 7_258_118_400_000_000, "us"),
    (631_152_000_000_000_000, 7_258_118_400_000_000_000, "ns"),
    (20_000, 80_000, "excel"),
)


def is_timestamp_column(column: pd.Series) -> bool:
    """Return whether a column's values read as timestamps.

    Of text the first fifty values decide, and a few bad ones do not matter: they are better
    reported by row. Numbers are timestamps only under a name such as `date`.
    """
    if types.is_datetime64_any_dtype(column):
        return True
    head = column.dropna().head(50)
    if _as_numbers(head) is not None:
        words = set(re.split(r"[^a-z]+", str(column.name).lower()))
        numbers = _as_numbers(column) if words & _TIME_WORDS else None
        return numbers is not None and bool(_parse_numbers(numbers)[0].notna().any())
    text = _as_text(head)
    clock = text.str.extract(_WITH_OFFSET)["clock"].fillna(text)
    return len(head) > 0 and bool(_parse_clock(clock)[0].notna().mean() > 0.8)


def parse_timestamps(column: pd.Series) -> tuple[pd.Series, str | None]:
    """Read a column as timestamps without a time zone.

    Timestamps with a zone keep the clock they are written in where that clock is even (one offset,
    or the same time every day); otherwise they are taken to UTC, which has no change of the clock.

    Returns:
        The timestamps under the rows of the column, and a note on what was understood, if any.

    Raises:
        DataError: A value is empty or does not parse, or some have a time zone and others none.
    """
    parsed, note = _parse(column)
    bad = parsed.isna()
    if bad.any():
        _check_offsets(column)
        first = int(bad.argmax())
        raise DataError(
            f"timestamps must parse: column {column.name} holds {quoted(column.iloc[first])} in "
            f"row {column.index[first] + 1} (such rows: {int(bad.sum())}); correct them, name "
            "another column with --timestamp, or take the row order as time with --freq none"
        )
    return parsed, note


def _parse(column: pd.Series) -> tuple[pd.Series, str | None]:
    if types.is_datetime64_any_dtype(column):
        if getattr(column.dt, "tz", None) is None:
            return column, None
        return _without_zone(column.dt.tz_localize(None), column.dt.tz_convert("UTC"))
    numbers = _as_numbers(column)
    return _parse_text(_as_text(column)) if numbers is None else _parse_numbers(numbers)


def _as_text(column: pd.Series) -> pd.Series:
    return column.astype("str").str.strip()


def _as_numbers(column: pd.Series) -> pd.Series | None:
    """Return a column of numbers, or of their text, as numbers; None where it holds none."""
    if types.is_bool_dtype(column) or types.is_timedelta64_dtype(column):
        return None
    if types.is_numeric_dtype(column):
        return column
    # The others are bad values among numbers, to be reported by row. The first values are asked
    # first, since pandas is slow where it fails.
    for part in (column.dropna().head(50), column):
        numbers = pd.to_numeric(_as_text(part), errors="coerce")
        if not len(part) or numbers.notna().mean() <= 0.8:
            return None
    return numbers


def _parse_numbers(numbers: pd.Series) -> tuple[pd.Series, str | None]:
    known = numbers.dropna()
    for low, high, form in _NUMBER_FORMATS:
        if len(known) and known.between(low, high).all():
            parsed = _parse_numbers_by(known, form, str(numbers.name))
            if parsed.notna().all() or form == "%Y%m%d":
                note = f"numbers such as {known.iloc[0]:.12g} are read as the days of Excel"
                return parsed.reindex(numbers.index), note if form == "excel" else None
    return pd.Series(pd.NaT, index=numbers.index, dtype="datetime64[us]"), None


def _parse_numbers_by(numbers: pd.Series, form: str, name: str) -> pd.Series:
    none = pd.Series(pd.NaT, index=numbers.index, dtype="datetime64[us]")
    if form.startswith("%"):
        is_whole = bool((numbers % 1 == 0).all())
        text = numbers.astype("int64").astype("str")
        return pd.to_datetime(text, errors="coerce", format=form) if is_whole else none
    if form == "excel":
        # Under another name such numbers are rather seconds of an experiment.
        is_date = "date" in name.lower()
        seconds = (numbers.astype("float64") * 86_400).round()  # files keep six decimals of a day
        start = pd.Timestamp("1899-12-30")
        return start + pd.to_timedelta(seconds, unit="s") if is_date else none
    return pd.to_datetime(numbers, unit=cast("_EpochUnit", form), errors="coerce")


def _parse_text(text: pd.Series) -> tuple[pd.Series, str | None]:
    if text.str.fullmatch(_PLAIN).all():
        return _best_parse(text), None
    parts = text.str.extract(_WITH_OFFSET)
    if parts["offset"].isna().all():
        return _parse_clock(text)
    # A time without an offset among those with one could be anywhere: it does not parse.
    wall, note = _parse_clock(parts["clock"])
    without_zone, zone_note = _without_zone(wall, wall - _offsets(parts["offset"]))
    return without_zone, "; ".join(filter(None, (note, zone_note)))


def _check_offsets(column: pd.Series) -> None:
    if types.is_datetime64_any_dtype(column) or _as_numbers(column) is not None:
        return
    text = _as_text(column)
    has_offset = text.str.fullmatch(_WITH_OFFSET).fillna(False).astype(bool)
    is_other = ~has_offset & _parse_clock(text)[0].notna()
    if has_offset.any() and is_other.any():
        first = int(is_other.argmax())
        raise DataError(
            f"timestamps must have a time zone all or none: column {column.name} holds "
            f"{quoted(column.iloc[first])} in row {column.index[first] + 1} and "
            f"{quoted(column[has_offset].iloc[0])} elsewhere; write all with their offset"
        )


def _offsets(written: pd.Series) -> pd.Series:
    """Return the time zones as distances from UTC."""
    digits = written.str.replace(":", "").replace({"Z": "+00", "UTC": "+00", "GMT": "+00"})
    minutes = 60 * pd.to_numeric(digits.str[1:3]) + pd.to_numeric(digits.str[3:5]).fillna(0)
    return pd.to_timedelta(minutes.where(digits.str[0] != "-", -minutes), unit="min")


def _parse_clock(text: pd.Series) -> tuple[pd.Series, str | None]:
    """Read timestamps without a zone; the order of day, month and year is found where unsaid."""
    text = text.where(text.str.contains(_HAS_YEAR, regex=True).fillna(False).astype(bool))
    parts = text.str.extract(_NUMERIC_DATE)
    is_numeric = parts["first"].notna()
    if not is_numeric.any():
        return _best_parse(text), None
    readings = {
        order: _best_parse(text.where(~is_numeric, _in_iso(parts, order)))
        for order in _possible_orders(parts[is_numeric])
    }
    # What fails least, runs forwards and is the most even: 01/02/2014 beside 01/03/2014.
    best = min(readings, key=lambda order: _disorder(readings[order]))
    example = text[is_numeric].iloc[0]
    return readings[best], f"dates such as {example} are read {best} first"


def _possible_orders(parts: pd.DataFrame) -> list[str]:
    """Return the orders that the most dates allow, the likelier ones first."""
    likely = ["day"] if (parts["mark"] == ".").any() else ["month", "day"]
    has_short_year = bool((parts["third"].str.len() == 2).any())
    likely += ["year"] if has_short_year else []
    num_bad = {order: int(_in_iso(parts, order).isna().sum()) for order in likely}
    return [order for order in likely if num_bad[order] == min(num_bad.values())]


def _in_iso(parts: pd.DataFrame, order: str) -> pd.Series:
    """Return numeric dates as year-month-day with what stood before and after; NaN for none."""
    columns = dict(zip(_ORDERS[order], ("first", "second", "third"), strict=True))
    number = {letter: pd.to_numeric(parts[column]) for letter, column in columns.items()}
    is_short = parts[columns["y"]].str.len() == 2
    century = np.where(number["y"] < _PIVOT_YEAR, 2000, 1900)
    fields = {"year": number["y"] + np.where(is_short, century, 0), "month": number["m"]}
    days = pd.to_datetime(pd.DataFrame({**fields, "day": number["d"]}), errors="coerce")
    return days.dt.strftime("%Y-%m-%d") + parts["after"] + " " + parts["before"].str.strip()


def _disorder(reading: pd.Series) -> tuple[int, bool, float]:
    known = reading.dropna()
    is_in_order = known.is_monotonic_increasing or known.is_monotonic_decreasing
    steps = np.diff(np.unique(known.to_numpy("datetime64[us]"))).astype(np.float64)
    unevenness = float(steps.max() / np.median(steps)) if len(steps) else 1.0
    return int(reading.isna().sum()), not is_in_order, unevenness


def _best_parse(text: pd.Series) -> pd.Series:
    """Return the first reading without a failure, else the one with the fewest."""
    text = text.str.strip()
    known = text.dropna()
    readings: list[pd.Series] = []
    with warnings.catch_warnings():
        # pandas warns where the order of day and month was not said; it is decided above.
        warnings.simplefilter("ignore")
        guess = guess_datetime_format(known.iloc[0]) if len(known) else None
        for form in filter(None, ("ISO8601", guess, "mixed")):
            # To UTC and back: pandas refuses to read two zones otherwise.
            reading = pd.to_datetime(text, errors="coerce", format=form, utc=True)
            readings.append(reading.dt.tz_localize(None))
            if readings[-1].notna().all():
                break
    return min(readings, key=lambda reading: int(reading.isna().sum()))


def _without_zone(wall: pd.Series, utc: pd.Series) -> tuple[pd.Series, str]:
    in_utc = utc.dt.tz_localize(None)
    has_one_offset = (wall - in_utc).nunique() <= 1
    has_one_time_of_day = (wall - wall.dt.normalize()).nunique() <= 1
    if has_one_offset or has_one_time_of_day:
        return wall, "timestamps keep the clock they are written in; their time zone is dropped"
    return in_utc, "timestamps are taken to UTC, since their clock changes"
