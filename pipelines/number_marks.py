"""Numbers as people write them: 1,226.31 and 1.226,31, and which of the two a table holds.

The mark before the decimals is decided once for a table, from all its numbers: 1.125 alone may be
a little more than one, or a thousand and more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Number

import numpy as np
import pandas as pd
from pandas.api import types

from pipelines.data_config import DecimalMark
from pipelines.data_error import DataError, quoted

_MARKS: dict[DecimalMark, str] = {"point": ".", "comma": ","}
_OTHER: dict[DecimalMark, DecimalMark] = {"point": "comma", "comma": "point"}
# Blanks and apostrophes stand between thousands alone: 1 226,31 and 1'226.31.
_GAPS = " '\u2019\u00a0\u2009\u202f"
_GROUPED_BY_GAPS = rf"[-+]?\d{{1,3}}(?:[{_GAPS}]\d{{3}})+(?:[.,]\d*)?"
_MINUS_SIGN = "\u2212"
_CELLS = (str, bytes, Number, Decimal)
_EXPONENT = r"(?:[eE][-+]?\d+)?"


@dataclass
class _Evidence:
    """What speaks for a decimal mark in the columns seen so far, and where."""

    sure: dict[DecimalMark, str] = field(default_factory=dict)
    """Numbers that can be read by this decimal mark alone: 3,5 by the comma, 1.234.567 too."""
    unsure: dict[DecimalMark, str] = field(default_factory=dict)
    """Numbers with three digits after this mark, 1.125, where nothing else speaks."""


def read_numbers(
    table: pd.DataFrame, decimal: DecimalMark | None
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read the columns of text that hold numbers with marks; of others pandas knows what they are.

    Args:
        table: As it was read.
        decimal: The mark before the decimals; None: recognised from all numbers together.

    Returns:
        The table, its cells that are no numbers left as they are, and a note on what was read.

    Raises:
        DataError: The numbers speak for both marks, or for neither.
    """
    texts = {name: _plain(table[name]) for name in table.columns if _may_hold_marks(table[name])}
    if decimal is None:
        evidence = _Evidence()
        if any(_has_decimals(table[name]) for name in table.columns):
            evidence.sure["point"] = "numbers with a decimal point"
        for name, text in texts.items():
            _weigh(text, f"column {name}", evidence)
        decimal = _decide(evidence)
    changed: dict[str, pd.Series] = {}
    notes: list[str] = []
    for name, text in texts.items():
        pointed, is_number = _point(text, decimal)
        is_changed = is_number & (pointed != table[name].astype("str").str.strip())
        if not is_changed.any():
            continue
        changed[name] = _as_numbers_where(is_number, pointed, text)
        first = int(is_changed.to_numpy(bool).argmax())
        notes.append(
            f"numbers are read with a decimal {decimal}: {quoted(table[name].iloc[first])} in "
            f"column {name} is {changed[name].iloc[first]}"
        )
    return table.assign(**changed), tuple(notes[:1])


def plain_numbers(column: pd.Series) -> pd.Series:
    """Return a column as float64, NaN where a cell is missing or no number."""
    if types.is_numeric_dtype(column) and not types.is_complex_dtype(column):
        return column.astype("float64")
    if not (types.is_string_dtype(column) or types.is_object_dtype(column)):
        # Of categories their text; times and durations are no numbers, though pandas counts them.
        is_category = isinstance(column.dtype, pd.CategoricalDtype)
        return plain_numbers(column.astype("object" if is_category else "str"))
    if not isinstance(column.dtype, pd.StringDtype):
        # Of lists and mappings, as Parquet has them, pandas raises.
        column = column.where(column.map(lambda cell: isinstance(cell, _CELLS)).astype(bool))
    return pd.to_numeric(column, errors="coerce").astype("float64")


def _may_hold_marks(column: pd.Series) -> bool:
    if not (types.is_string_dtype(column) or types.is_object_dtype(column)):
        return False
    head = column.dropna().head(1000)
    is_text = head.map(lambda cell: isinstance(cell, str)).astype(bool)
    # A date has more marks than a number, or a word.
    is_like_number = _matches(_plain(head[is_text]), rf"[-+]?[\d.,]*\d[\d.,]*{_EXPONENT}")
    return len(head) > 0 and bool(is_like_number.sum() > 0.5 * len(head))


def _has_decimals(column: pd.Series) -> bool:
    if not types.is_float_dtype(column):
        return False
    numbers = column.to_numpy(np.float64, na_value=np.nan)
    finite = numbers[np.isfinite(numbers)]
    return bool((finite % 1 != 0).any())


def _plain(column: pd.Series) -> pd.Series:
    """Return the cells as text, without blanks and apostrophes between thousands."""
    text = column.astype("str").str.strip().str.replace(_MINUS_SIGN, "-", regex=False)
    is_grouped = _matches(text, _GROUPED_BY_GAPS)
    if is_grouped.any():
        text = text.where(~is_grouped, text.str.replace(rf"[{_GAPS}]", "", regex=True))
    return text


def _weigh(text: pd.Series, place: str, evidence: _Evidence) -> None:
    """Add what the numbers of one column say."""
    if not text.str.contains("[.,]", regex=True).fillna(False).any():
        return
    for decimal, mark in _MARKS.items():
        other = _MARKS[_OTHER[decimal]]
        is_three = _matches(text, rf"[-+]?[1-9]\d{{0,2}}\{mark}\d{{3}}")
        has_decimals = _matches(text, rf"[-+]?\d*\{mark}\d*{_EXPONENT}") & ~is_three
        is_grouped = _matches(
            text, rf"[-+]?\d{{1,3}}(?:(?:\{other}\d{{3}}){{2,}}|(?:\{other}\d{{3}})+\{mark}\d*)"
        )
        is_sure = has_decimals | is_grouped
        if is_sure.any():
            evidence.sure.setdefault(decimal, _example(text, is_sure, place))
        elif is_three.any():
            reading = _reading_of_three(text, decimal)
            kind = evidence.sure if reading is not None else evidence.unsure
            kind.setdefault(reading or decimal, _example(text, is_three, place))


def _reading_of_three(text: pd.Series, decimal: DecimalMark) -> DecimalMark | None:
    """Return the decimal mark, where all marked numbers are like 1.125, by those without a mark.

    Thousands leave 981 beside 1.125; whoever leaves 1226 without a mark puts none between
    thousands.
    """
    if _matches(text, r"[-+]?[1-9]\d{3,}").any():
        return decimal
    return _OTHER[decimal] if _matches(text, r"[-+]?[1-9]\d{0,2}").any() else None


def _example(text: pd.Series, is_meant: pd.Series, place: str) -> str:
    position = int(is_meant.to_numpy(bool).argmax())
    return f"{quoted(text.iloc[position])} in {place}, row {text.index[position] + 1}"


def _decide(evidence: _Evidence) -> DecimalMark:
    sure, unsure = evidence.sure, evidence.unsure
    if len(sure) == 2:
        raise DataError(
            f"numbers must have one decimal mark: {sure['comma']} has a comma, {sure['point']} a "
            "point; write all alike, or say which it is: --set data.decimal=comma or =point"
        )
    if not sure and unsure:
        example = next(iter(unsure.values()))
        raise DataError(
            f"a decimal mark must be told from one between thousands: {example} may be either; "
            "say which it is: --set data.decimal=comma or --set data.decimal=point"
        )
    return next(iter(sure), "point")


def _point(text: pd.Series, decimal: DecimalMark) -> tuple[pd.Series, pd.Series]:
    """Return a column with its marks as pandas reads them, and which cells are numbers."""
    mark, other = _MARKS[decimal], _MARKS[_OTHER[decimal]]
    whole = rf"(?:\d{{1,3}}(?:\{other}\d{{3}})+|\d+)"
    is_number = _matches(text, rf"[-+]?(?:{whole}(?:\{mark}\d*)?|\{mark}\d+){_EXPONENT}")
    is_wrong = _matches(text, rf"[-+]?\d*\{other}\d*{_EXPONENT}") & ~is_number
    if is_wrong.any():
        example = _example(text, is_wrong, f"column {text.name}")
        raise DataError(
            f"numbers must have the decimal mark of the table, a {decimal}: got {example}; correct "
            "it, or give the other mark with --set data.decimal"
        )
    pointed = text.str.replace(other, "", regex=False).str.replace(mark, ".", regex=False)
    return pointed, is_number


def _as_numbers_where(is_number: pd.Series, pointed: pd.Series, text: pd.Series) -> pd.Series:
    """Return the numbers of a column, and its other cells as they are."""
    numbers = pd.to_numeric(pointed.where(is_number), errors="coerce")
    is_read = is_number | text.isna()
    return numbers if is_read.all() else numbers.astype("object").where(is_read, text)


def _matches(text: pd.Series, pattern: str) -> pd.Series:
    return text.str.fullmatch(f"(?:{pattern})").fillna(False).astype(bool)
