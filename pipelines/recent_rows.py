"""The newest rows of a table, as a forecast reads them, and what must hold of them.

Nothing is repaired here: what a repair would do, only whoever has the whole table can say. Rows in
messages count from 1.
"""

from __future__ import annotations

from decimal import Decimal
from numbers import Real
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types
from pandas.tseries.frequencies import to_offset

from pipelines.printable import printable

_MAX_LISTED = 10


class RecentRows(NamedTuple):
    """The rows before a forecast, the newest last."""

    values: npt.NDArray[np.float64]
    """[N, F], original units."""
    timestamps: pd.DatetimeIndex | None
    """[N]; None where row order is time."""


def recent_rows(
    frame: pd.DataFrame,
    columns: tuple[str, ...],
    timestamp: str | None,
    frequency: str | None,
    num_rows: int,
) -> RecentRows:
    """Return the last rows of a table once they are known to be whole and in order.

    Args:
        frame: The table, ascending in time; other columns do not matter.
        columns: F names of the series, in the order wanted.
        timestamp: The column of timestamps; None where row order is time.
        frequency: Of the timestamps, a pandas offset alias; None where row order is time.
        num_rows: N, rows wanted.

    Raises:
        ValueError: It is no such table: a column or rows are missing, timestamps do not follow
            each other at the frequency, or a value is no finite number.
    """
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(
            "a forecast reads a pandas DataFrame with the columns "
            f"{_listed([*filter(None, [timestamp]), *columns])}: got {type(frame).__name__}; "
            "make it a DataFrame"
        )
    _check_columns(frame, [*filter(None, [timestamp]), *columns])
    if len(frame) < num_rows:
        raise ValueError(
            f"a forecast reads {num_rows} rows: got {len(frame)}; give at least the {num_rows} "
            "newest rows"
        )
    timestamps = None
    if timestamp is not None and frequency is not None:
        timestamps = _read_timestamps(frame[timestamp])[-num_rows:]
        _check_steps(timestamps, frequency)
    first = len(frame) - num_rows
    read = [_read_numbers(frame[name].iloc[first:], name, first) for name in columns]
    return RecentRows(np.stack(read, axis=1), timestamps)


def _check_columns(frame: pd.DataFrame, names: list[str]) -> None:
    found = [str(name) for name in frame.columns]
    for name in names:
        if found.count(name) != 1:
            problem = "missing" if name not in found else "there more than once"
            raise ValueError(
                f"a forecast reads the columns that the model was trained on: {printable(name)} is "
                f"{problem}; the columns are {_listed(found) or 'none'}; give each of "
                f"{_listed(names)} once"
            )


def _read_timestamps(column: pd.Series) -> pd.DatetimeIndex:
    """Return all timestamps, ascending."""
    rule = f"column {printable(str(column.name))} must hold timestamps without a time zone"
    remedy = "convert it with pandas.to_datetime, to the clock of the table trained on"
    if types.is_numeric_dtype(column):
        raise ValueError(f"{rule}: got {_shown(column.iloc[0])} in row 1; {remedy}")
    try:
        # Of text, ISO 8601 alone is read: 01/02/2026 may be two days.
        form = None if types.is_datetime64_any_dtype(column) else "ISO8601"
        parsed = pd.DatetimeIndex(pd.to_datetime(column, format=form, errors="coerce"))
    except ValueError:  # mixed zones
        raise ValueError(f"{rule}: got {_shown(column.iloc[0])} in row 1; {remedy}") from None
    if parsed.tz is not None:
        raise ValueError(f"{rule}: got {_shown(column.iloc[0])} in row 1; {remedy}")
    if parsed.isna().any():
        row = int(parsed.isna().argmax())
        raise ValueError(f"{rule}: got {_shown(column.iloc[row])} in row {row + 1}; {remedy}")
    _check_order(parsed)
    return parsed.as_unit("us")


def _check_order(timestamps: pd.DatetimeIndex) -> None:
    steps = np.diff(timestamps.to_numpy())
    is_wrong = steps <= np.timedelta64(0)
    if is_wrong.any():
        row = int(is_wrong.argmax()) + 1
        raise ValueError(
            f"timestamps must ascend, each once: {timestamps[row]} in row {row + 1} comes after "
            f"{timestamps[row - 1]}; sort the rows by time and remove the doubles"
        )


def _check_steps(timestamps: pd.DatetimeIndex, frequency: str) -> None:
    """Raise ValueError where the rows do not follow each other at the frequency."""
    offset = to_offset(frequency)
    if isinstance(offset, pd.offsets.BusinessDay):
        # A weekday without a row is a holiday, as in training.
        is_on = np.array([offset.is_on_offset(timestamp) for timestamp in timestamps])
        if not is_on.all():
            _refuse_steps(frequency, f"{timestamps[int(is_on.argmin())]} is no weekday")
        return
    expected = pd.date_range(timestamps[0], periods=len(timestamps), freq=offset)
    differs = np.asarray(timestamps != expected)
    if not differs.any():
        return
    row = int(differs.argmax())
    if row == 0:
        _refuse_steps(frequency, f"{timestamps[0]} is not on it")
    _refuse_steps(
        frequency, f"after {timestamps[row - 1]} comes {timestamps[row]}, not {expected[row]}"
    )


def _refuse_steps(frequency: str, what: str) -> None:
    raise ValueError(
        f"rows must follow each other at frequency {frequency}, without gaps: {what}; give rows "
        "of that frequency and fill the gaps"
    )


def _read_numbers(column: pd.Series, name: str, first: int) -> npt.NDArray[np.float64]:
    """Return a column as numbers; `first` is the place of its first row in the table."""
    dtype = column.dtype
    is_other = types.is_complex_dtype(dtype) or types.is_bool_dtype(dtype)
    if types.is_numeric_dtype(dtype) and not is_other:
        numbers = column.to_numpy(np.float64, na_value=np.nan)
    else:
        numbers = np.array([_as_number(value) for value in column], dtype=np.float64)
    is_finite = np.isfinite(numbers)
    if not is_finite.all():
        row = int(is_finite.argmin())
        raise ValueError(
            f"the {len(column)} rows that a forecast reads must hold finite numbers: column "
            f"{printable(name)} has {_shown(column.iloc[row])} in row {first + row + 1}; measure "
            "it, or fill it from its neighbours in time"
        )
    return numbers


def _as_number(value: object) -> float:
    is_number = isinstance(value, Real | Decimal) and not isinstance(value, bool)
    return float(value) if is_number else np.nan  # type: ignore[arg-type]


def _shown(value: object) -> str:
    text = printable(str(value))
    return repr(text if len(text) <= 60 else f"{text[:60]}…") if isinstance(value, str) else text


def _listed(names: list[str]) -> str:
    shown = [printable(name)[:60] for name in names[:_MAX_LISTED]]
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return f"{', '.join(shown)}{more}"
