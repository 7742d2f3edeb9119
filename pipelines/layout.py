"""Which column is what: timestamps, series id, targets and further inputs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd
from pandas.api import types

from pipelines.data_config import DataConfig, command_line
from pipelines.data_error import DataError, listed, quoted
from pipelines.number_marks import plain_numbers
from pipelines.reading import FILE_COLUMN
from pipelines.timestamps import is_timestamp_column


@dataclass(frozen=True)
class Layout:
    """The roles of a table's columns."""

    timestamp: str | None
    """None where the order of the rows is time."""
    series_id: str | None
    """The column that tells several series apart."""
    targets: tuple[str, ...]
    features: tuple[str, ...]
    """Numeric columns beside the targets."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _KnownLayout:
    """Columns that a well-known tool names; the id may be absent."""

    name: str
    timestamp: str
    target: str
    series_id: str | None = None
    others: frozenset[str] = frozenset()


_PRICES = frozenset({"Open", "High", "Low", "Close"})
_KNOWN_LAYOUTS = (
    _KnownLayout("Nixtla", "ds", "y", "unique_id"),
    _KnownLayout("AutoGluon", "timestamp", "target", "item_id"),
    *(
        _KnownLayout("yfinance", timestamp, target, others=_PRICES)
        # yfinance writes Adj Close only where it did not adjust Close itself.
        for target in ("Adj Close", "Close")
        for timestamp in ("Date", "Datetime")
    ),
)


def recognise(table: pd.DataFrame, config: DataConfig) -> Layout:
    """Find the role of every column; what the configuration names goes first.

    Raises:
        DataError: A named column is missing, or the table leaves a choice.
    """
    if table.empty:
        raise DataError("the table must have rows: it has none; check the file")
    for name in (config.timestamp, *config.targets):
        _check_column(name, table)
    if len(set(config.targets)) < len(config.targets):
        raise DataError(
            f"targets must differ: got {', '.join(config.targets)}; give each --target once"
        )
    known = _known_layout(table)
    series_id = _series_id(table, known)
    timestamp = _timestamp(table, config, known, series_id)
    taken = {timestamp, series_id, *_row_counters(table)}
    if timestamp is None:
        taken |= {name for name in table.columns if is_timestamp_column(table[name])}
    free = [str(name) for name in table.columns if name not in taken]
    numeric = [name for name in free if _is_numeric(table[name]) and name not in config.targets]
    targets = config.targets or _only_target(numeric, table[free], known, config)
    features = tuple(name for name in numeric if name not in targets)
    notes = _notes(known, targets, features, dropped=set(free) - set(targets) - set(features))
    return Layout(timestamp, series_id, targets, features, tuple(notes))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known names, those like the given one first, as a list to read."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=3)
    return listed([*close, *(other for other in names if other not in close)])


def _check_column(name: str | None, table: pd.DataFrame) -> None:
    if name is not None and name not in table.columns:
        raise DataError(
            f"a named column must be in the table: there is no {quoted(name)}; the columns are "
            f"{nearest(name, table.columns)}"
        )


def _known_layout(table: pd.DataFrame) -> _KnownLayout | None:
    columns = set(table.columns)
    for known in _KNOWN_LAYOUTS:
        if {known.timestamp, known.target} | known.others <= columns:
            return known
    return None


def _series_id(table: pd.DataFrame, known: _KnownLayout | None) -> str | None:
    names = [FILE_COLUMN, *(layout.series_id for layout in _KNOWN_LAYOUTS)]
    if known is not None:
        names.insert(1, known.series_id)
    return next((name for name in names if name in table.columns), None)


def _timestamp(
    table: pd.DataFrame, config: DataConfig, known: _KnownLayout | None, series_id: str | None
) -> str | None:
    if config.frequency == "none":
        return None
    if config.timestamp is not None:
        return config.timestamp
    if known is not None:
        return known.timestamp
    found = [
        str(name)
        for name in table.columns
        if name not in (series_id, *config.targets) and is_timestamp_column(table[name])
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"the table must have one column of timestamps: {listed(found)} all are; choose: "
            f"{command_line(config, timestamp=found[0])}"
        )
    raise DataError(
        "the table must have a column of timestamps: none of "
        f"{listed(table.columns)} reads as such; name it with --timestamp, or "
        f"take the row order as time: {command_line(config, frequency='none')}"
    )


def _only_target(
    numeric: list[str], others: pd.DataFrame, known: _KnownLayout | None, config: DataConfig
) -> tuple[str, ...]:
    if known is not None:
        return (known.target,)
    if len(numeric) == 1:
        return (numeric[0],)
    if not numeric:
        raise DataError(
            f"the table must have a numeric column to forecast: it has none{_first_value(others)}; "
            "write plain numbers, or name the target with --target"
        )
    # Tables of several columns mostly end with the one that matters (OT in ETTh1).
    raise DataError(
        f"one target must be chosen: the numeric columns are {listed(numeric)}; choose one or "
        f"several: {command_line(config, targets=(numeric[-1],))}"
    )


def _first_value(others: pd.DataFrame) -> str:
    """Return what stands where numbers were expected: the first cell that is no timestamp."""
    for name, column in others.items():
        known = column.dropna()
        if len(known):
            return f": column {name} holds {quoted(known.iloc[0])} in row {known.index[0] + 1}"
    return ", and no other column holds anything" if others.shape[1] else ""


def _is_numeric(column: pd.Series) -> bool:
    """Return whether a column is meant as numbers: a few that do not parse are an error later."""
    if types.is_numeric_dtype(column) and not types.is_complex_dtype(column):
        return bool(column.notna().any())
    known = column.dropna()
    return len(known) > 0 and bool(plain_numbers(known).notna().mean() > 0.8)


def _row_counters(table: pd.DataFrame) -> list[str]:
    """Return the nameless columns that a table written with its row numbers has."""
    return [
        name
        for name in map(str, table.columns)
        if name.startswith("Unnamed:") and _is_numeric(table[name])
    ]


def _notes(
    known: _KnownLayout | None,
    targets: tuple[str, ...],
    features: tuple[str, ...],
    dropped: set[str],
) -> list[str]:
    notes = [f"{known.name} layout recognised"] if known is not None else []
    what = "target" if len(targets) == 1 else "targets"
    inputs = f"; further inputs: {listed(features)}" if features else ""
    notes.append(f"{what}: {', '.join(targets)}{inputs}")
    if dropped:
        notes.append(f"columns without numbers are left out: {listed(sorted(dropped))}")
    return notes
