"""A table of time series, recognised and checked: `python -m pipelines.series FILE` prints it.

Rows in messages count from 1; the line of names is not counted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml
from pydantic import ValidationError

from pipelines.data_config import DataConfig, Missing, TargetTransform, command_line
from pipelines.data_config import Outliers as OutlierRepair
from pipelines.data_error import DataError, listed, quoted
from pipelines.frequency import (
    infer_frequency,
    is_business_days,
    missing_timestamps,
    resolve_frequency,
    season_length,
)
from pipelines.layout import Layout, nearest, recognise
from pipelines.measurements import measure
from pipelines.number_marks import read_numbers
from pipelines.printable import printable
from pipelines.reading import flatten, read_table, table_name
from pipelines.repairs import find_outliers
from pipelines.timestamps import parse_timestamps

__all__ = ["DataConfig", "DataError", "Series", "SeriesTable", "load"]

_FEWEST_ROWS = 6  # with a horizon of one
EMBEDDED_TABLE = Path(__file__).parent / "data" / "electricity_hourly_2014.csv"


@dataclass(frozen=True, eq=False)
class Series:
    """One series as measured, on the grid of its frequency."""

    id: str
    timestamps: pd.DatetimeIndex | None
    """N, ascending; None where row order is time."""
    values: npt.NDArray[np.float64]
    """[N, F] in original units, the targets first; NaN where missing."""


@dataclass(frozen=True, eq=False)
class SeriesTable:
    """What was understood of a table; nothing in it is repaired yet."""

    name: str
    series: tuple[Series, ...]
    columns: tuple[str, ...]
    """F names, the targets first."""
    targets: tuple[str, ...]
    frequency: str | None
    """A pandas offset alias; None where row order is time."""
    season: int
    """Rows after which the series repeats, 1 for none."""
    horizon: int
    """H, rows to forecast."""
    target_transform: TargetTransform
    missing: Missing
    outliers: OutlierRepair
    notes: tuple[str, ...]
    """What was understood, sorted and noticed, one line each, for the screen."""
    timestamp: str | None = None
    """The column of timestamps; None where row order is time."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the values and of how they are read, the name and the notes left out."""
        how = [self.columns, self.targets, self.frequency, self.season, self.horizon]
        repairs = [self.target_transform, self.missing, self.outliers]
        digest = hashlib.sha256(json.dumps([how, repairs]).encode())
        for series in self.series:
            digest.update(json.dumps([series.id, series.values.shape]).encode())
            if series.timestamps is not None:
                digest.update(series.timestamps.asi8.tobytes())
            digest.update(np.ascontiguousarray(series.values).tobytes())
        return digest.hexdigest()


def load(config: DataConfig, frame: pd.DataFrame | None = None) -> SeriesTable:
    """Read a table, recognise its columns and its frequency, and check it.

    Args:
        config: Which table, and what of it is not to be recognised but is given.
        frame: The table itself, where it is not read from `config.path`.

    Raises:
        DataError: The table cannot be used as it is; the message says how it can.
    """
    table, read_notes = _read(config, frame)
    layout = recognise(table, config)
    notes = [*layout.notes, *read_notes]
    series_id, rows = _choose_series(table, layout, config)
    timestamps, rows = _in_order(rows, layout, notes)
    numbers, more_notes = measure(rows, timestamps, layout, config)
    frequency = _frequency(timestamps, config, notes)
    if timestamps is not None and frequency is not None:
        numbers = _on_grid(numbers.set_axis(timestamps), frequency, config, notes)
        timestamps = pd.DatetimeIndex(numbers.index)
    notes += more_notes
    season = config.season or season_length(frequency)
    horizon = config.horizon or _default_horizon(season, len(numbers), notes)
    _check_num_rows(numbers[list(layout.targets)], horizon)
    series = Series(series_id, timestamps, numbers.to_numpy(np.float64, copy=True))
    is_embedded = frame is None and config.path is None
    outliers = config.outliers or ("hampel" if is_embedded else "none")
    notes += _suspicion(series, list(numbers.columns), season, outliers)
    return SeriesTable(
        name=_name(config, frame),
        series=(series,),
        columns=tuple(numbers.columns),
        targets=layout.targets,
        frequency=frequency,
        season=season,
        horizon=horizon,
        target_transform=config.target_transform,
        missing=config.missing,
        outliers=outliers,
        notes=(_extent(series, frequency, season), *notes),
        timestamp=layout.timestamp,
    )


def _read(config: DataConfig, frame: pd.DataFrame | None) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the table with its numbers read, and a note on how they were."""
    if frame is not None:
        return read_numbers(flatten(frame), config.decimal)
    # Not `or`: "$TABLE" of a variable that is not set must not search another table.
    path = str(EMBEDDED_TABLE) if config.path is None else config.path
    table = read_table(path, config.max_file_bytes, keeps_text=config.decimal is not None)
    return read_numbers(table, config.decimal)


def _name(config: DataConfig, frame: pd.DataFrame | None) -> str:
    if config.path is not None:
        return table_name(config.path).replace("*", "") or "tables"
    return EMBEDDED_TABLE.stem if frame is None else "table"


def _choose_series(
    table: pd.DataFrame, layout: Layout, config: DataConfig
) -> tuple[str, pd.DataFrame]:
    """Return the id and the rows of the one series to search."""
    if layout.series_id is None:
        if config.series is not None:
            raise DataError(
                f"a series can be chosen only where a column has ids: got series={config.series} "
                "and no column unique_id or item_id; leave data.series out, or rename the column"
            )
        return layout.targets[0], table
    ids = table[layout.series_id].astype("str")
    known = list(ids.unique())
    chosen = known[0] if len(known) == 1 and config.series is None else config.series
    if chosen is None:
        raise DataError(
            f"one series must be chosen: column {layout.series_id} holds {len(known)}, "
            f"{listed(known)}; choose: {command_line(config, series=known[0])}"
        )
    if chosen not in known:
        raise DataError(
            f"the chosen series must be in the table: there is no {quoted(chosen)} in column "
            f"{layout.series_id}; the ids are {nearest(chosen, known)}"
        )
    return chosen, table[ids == chosen]


def _in_order(
    rows: pd.DataFrame, layout: Layout, notes: list[str]
) -> tuple[pd.DatetimeIndex | None, pd.DataFrame]:
    """Return the timestamps, ascending, and the rows in their order."""
    if len(rows) < _FEWEST_ROWS:
        raise DataError(
            f"the table must have at least {_FEWEST_ROWS} rows, for a train, a validation and a "
            f"test part: got {len(rows)}; give more rows"
        )
    if layout.timestamp is None:
        return None, rows
    timestamps, note = parse_timestamps(rows[layout.timestamp])
    notes += [note] if note else []
    # One unit, so that a CSV and a Parquet file with the same rows have one fingerprint.
    timestamps = timestamps.dt.as_unit("us")
    _check_unique(timestamps)
    if not timestamps.is_monotonic_increasing:
        row = int((timestamps.diff() < pd.Timedelta(0)).argmax())
        notes.append(f"rows sorted by time: row {rows.index[row] + 1} came before its time")
        timestamps = timestamps.sort_values()
    return pd.DatetimeIndex(timestamps), rows.loc[timestamps.index]


def _check_unique(timestamps: pd.Series) -> None:
    repeated = timestamps.duplicated()
    if not repeated.any():
        return
    row = int(repeated.argmax())
    is_midnight = bool((timestamps == timestamps.dt.normalize()).all())
    remedy = (
        "put date and time of day into one column where they are two"
        if is_midnight
        else "write the UTC offset where the clock was set back (2014-10-26 02:00+01:00)"
    )
    raise DataError(
        f"timestamps must be unique: {timestamps.iloc[row]} comes again in row "
        f"{timestamps.index[row] + 1} (such rows: {int(repeated.sum())}); remove or sum up the "
        "rows, or, where they belong to several series, name the column of ids unique_id, or "
        f"{remedy}"
    )


def _frequency(
    timestamps: pd.DatetimeIndex | None, config: DataConfig, notes: list[str]
) -> str | None:
    if timestamps is None:
        notes.append("row order is time: no calendar, and gaps are not looked for")
        return None
    if config.frequency is not None:
        return resolve_frequency(config.frequency)
    return infer_frequency(timestamps)


def _on_grid(
    numbers: pd.DataFrame, frequency: str, config: DataConfig, notes: list[str]
) -> pd.DataFrame:
    """Return the rows with those that the grid lacks inserted as missing."""
    timestamps = pd.DatetimeIndex(numbers.index)
    gaps = missing_timestamps(timestamps, frequency)
    if is_business_days(frequency):
        num_weekdays = len(pd.bdate_range(timestamps[0], timestamps[-1]))
        notes.append(
            f"business days: {num_weekdays - len(timestamps)} weekdays without a row are taken "
            "for holidays"
        )
    if not len(gaps):
        return numbers
    if config.missing == "error":
        raise DataError(
            f"rows must follow each other without gaps: at frequency {frequency} {len(gaps)} are "
            f"missing, the first {gaps[0]}, after row {timestamps.searchsorted(gaps[0])} in order "
            "of time; --set data.missing=interpolate fills them, --freq none takes the row order "
            "as time"
        )
    notes.append(f"missing rows, to be interpolated: {len(gaps)}, the first {gaps[0]}")
    return numbers.reindex(timestamps.union(gaps))


def _default_horizon(season: int, num_rows: int, notes: list[str]) -> int:
    # A tenth of the rows validates by default; with two horizons in it a mean has a meaning.
    most = max(1, num_rows // 20)
    horizon = min(season, most)
    reason = "one season" if season > 1 else "no season is known"
    if horizon < season:
        reason = f"one season is {season}, narrowed since the table has {num_rows} rows"
    notes.append(f"horizon {horizon}: {reason}; change it with --horizon")
    return horizon


def _check_num_rows(targets: pd.DataFrame, horizon: int) -> None:
    num_measured = int(targets.notna().all(axis=1).sum())
    if num_measured < 3 * (horizon + 1):
        raise DataError(
            "the table must have three times as many measured rows as the horizon and three more, "
            f"for a train, a validation and a test part: got {num_measured} rows and "
            f"horizon={horizon}; lower --horizon or give more data"
        )


def _suspicion(
    series: Series, columns: list[str], season: int, outliers: OutlierRepair
) -> list[str]:
    """Return a note on the rows that look like outliers, if there are any."""
    found = find_outliers(series.values, season, num_train_rows=len(series.values))
    suspicious = np.asarray(found.is_outlier.any(axis=1))
    if not suspicious.any():
        return []
    row = int(suspicious.argmax())
    column = int(found.is_outlier[row].argmax())
    place = f"row {row + 1}" if series.timestamps is None else str(series.timestamps[row])
    what_happens = (
        "such rows are replaced before training, never in what a forecast is scored on"
        if outliers == "hampel"
        else "left as they are; --set data.outliers=hampel replaces them before training"
    )
    return [
        f"suspicious rows: {int(suspicious.sum())} of {len(suspicious):,}, the first {place}, "
        f"where {columns[column]} is {series.values[row, column]:g} and the rows before suggest "
        f"{found.expected[row, column]:.6g}; {what_happens}"
    ]


def _extent(series: Series, frequency: str | None, season: int) -> str:
    if series.timestamps is None:
        return f"{len(series.values):,} rows, season {season}"
    first, last = series.timestamps[0], series.timestamps[-1]
    return f"{len(series.values):,} rows, {first} to {last}, frequency {frequency}, season {season}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is understood of a table; return 2 where it cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.series",
        description="Print what is understood of a table; nothing is trained.",
    )
    parser.add_argument("file", nargs="?", help="a file, a glob or a URL; default: embedded table")
    parser.add_argument("--target", action="append", default=[], help="repeatable")
    parser.add_argument("--timestamp")
    parser.add_argument("--freq")
    parser.add_argument("--horizon", type=int)
    parser.add_argument("--set", action="append", default=[], metavar="data.KEY=VALUE")
    flags = parser.parse_args(arguments)
    try:
        table = load(_config(flags))
    except (DataError, ValidationError) as error:
        print(_in_one_line(error), file=sys.stderr)
        return 2
    lines = (f"{table.name} ({table.series[0].id})", *table.notes)
    print(*map(printable, lines), sep="\n  ")
    return 0


def _config(flags: argparse.Namespace) -> DataConfig:
    settings = {
        "path": flags.file,
        "targets": flags.target,
        "timestamp": flags.timestamp,
        "frequency": flags.freq,
        "horizon": flags.horizon,
    }
    for assignment in flags.set:
        key, _, value = assignment.removeprefix("data.").partition("=")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise DataError(f"--set {assignment}: the value is not valid YAML; quote it") from None
    return DataConfig.model_validate_json(json.dumps(settings, default=str))


def _in_one_line(error: DataError | ValidationError) -> str:
    if isinstance(error, DataError):
        return str(error)
    lines = (
        f"data.{'.'.join(map(str, problem['loc']))}: {problem['msg']}: got "
        f"{quoted(problem['input'])}"
        for problem in error.errors()
    )
    return printable("; ".join(lines))


if __name__ == "__main__":
    sys.exit(main())
