"""The numbers of a table: text and infinite values refused, constant columns left out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipelines.data_config import DataConfig
from pipelines.data_error import DataError, listed, quoted
from pipelines.layout import Layout
from pipelines.number_marks import plain_numbers

# Beyond these a square leaves the range of float64, and with it the deviation.
_LARGEST = 1e100
_SMALLEST = 1e-100


def measure(
    rows: pd.DataFrame,
    timestamps: pd.DatetimeIndex | None,
    layout: Layout,
    config: DataConfig,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the targets and the other inputs as float64, NaN where missing, with notes.

    Args:
        rows: The rows of one series in the order of time, indexed by their number in the file.
        timestamps: Those of the rows; None where row order is time.
        layout: Which columns are targets, which are further inputs.
        config: Whether missing values are an error, and how the targets are transformed.

    Raises:
        DataError: A value is no number, or too large; it is missing or infinite and `missing` is
            `error`; a target is constant, or not positive where its logarithm is to be taken.
    """
    names = [*layout.targets, *layout.features]
    numbers = pd.DataFrame({name: _numbers(rows[name], timestamps) for name in names})
    notes = _check_missing(numbers, timestamps, config)
    for name in names:
        _check_size(numbers[name], timestamps)
    constant = [name for name in names if numbers[name].nunique() < 2]
    for name in layout.targets:
        if name in constant:
            raise DataError(
                f"a target must vary: column {name} is {numbers[name].iloc[0]:g} in every row; "
                "choose another --target"
            )
        if config.target_transform in ("log", "log_return"):
            _check_positive(numbers[name], timestamps, config.target_transform)
    if constant:
        notes.append(f"constant columns are left out: {listed(constant)}")
    return numbers.drop(columns=constant), tuple(notes)


def _numbers(column: pd.Series, timestamps: pd.DatetimeIndex | None) -> pd.Series:
    numbers = plain_numbers(column)
    is_text = numbers.isna() & column.notna()
    if is_text.any():
        first = int(is_text.argmax())
        raise DataError(
            f"values must be numbers: column {column.name} holds {quoted(column.iloc[first])} in "
            f"{_place(column, timestamps, first)} (such rows: {int(is_text.sum())}); correct "
            "them, or leave them empty with --set data.missing=interpolate"
        )
    return numbers


def _check_missing(
    numbers: pd.DataFrame, timestamps: pd.DatetimeIndex | None, config: DataConfig
) -> list[str]:
    """Turn infinite values into missing ones, in place, where missing ones are allowed."""
    notes = []
    for name in numbers.columns:
        is_bad = ~np.isfinite(numbers[name])
        if not is_bad.any():
            continue
        first = int(is_bad.argmax())
        where = (
            f"{int(is_bad.sum())} in column {name}, the first in "
            f"{_place(numbers[name], timestamps, first)}, {numbers[name].iloc[first]}"
        )
        if config.missing == "error":
            raise DataError(
                f"values must be neither missing nor infinite: there are {where}; correct the "
                "rows, or --set data.missing=interpolate fills them"
            )
        notes.append(f"missing values, to be interpolated: {where}")
        numbers[name] = numbers[name].where(~is_bad)
    return notes


def _check_size(numbers: pd.Series, timestamps: pd.DatetimeIndex | None) -> None:
    size = numbers.abs()
    if size.max() > _LARGEST or 0 < size.max() < _SMALLEST:
        first = int(size.argmax())
        raise DataError(
            f"the largest value of a column must lie between {_SMALLEST:g} and {_LARGEST:g}: "
            f"column {numbers.name} holds {numbers.iloc[first]:g} in "
            f"{_place(numbers, timestamps, first)}; correct it, or write the column in another unit"
        )


def _check_positive(target: pd.Series, timestamps: pd.DatetimeIndex | None, transform: str) -> None:
    is_bad = target <= 0
    if is_bad.any():
        first = int(is_bad.argmax())
        raise DataError(
            f"target_transform={transform} needs positive values: column {target.name} is "
            f"{target.iloc[first]:g} in {_place(target, timestamps, first)}; use "
            "target_transform=none or diff"
        )


def _place(column: pd.Series, timestamps: pd.DatetimeIndex | None, position: int) -> str:
    row = f"row {column.index[position] + 1}"
    return row if timestamps is None else f"{row} ({timestamps[position]})"
