"""A table cut in time: what trials may see, and the test part, sealed until it is opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from models.config import WindowShape
from pipelines.covariates import calendar_features, calendar_names
from pipelines.data_config import SplitConfig, TargetTransform
from pipelines.data_error import DataError
from pipelines.repairs import OUTLIER_THRESHOLD, Repaired, repair
from pipelines.series import Series, SeriesTable

__all__ = ["SealedTest", "SearchData", "SplitConfig", "TestData", "rolling_splits", "split"]


@dataclass(frozen=True, eq=False)
class _PreparedRows:
    """The rows of one series from the first to the end of a part, repaired."""

    name: str
    series_id: str
    columns: tuple[str, ...]
    """F names, the targets first."""
    targets: tuple[str, ...]
    frequency: str | None
    season: int
    horizon: int
    target_transform: TargetTransform
    fingerprint: str
    """SHA-256 of the table, its split and its repairs."""
    values: npt.NDArray[np.float64]
    """[N, F] in original units, repaired: what a forecast may read, up to its origin."""
    truth: npt.NDArray[np.float64]
    """[N, T] in original units as measured, never repaired, NaN where missing: what a forecast is
    scored on."""
    is_observed: npt.NDArray[np.bool_]
    """[N]: whether the row was measured, so that a forecast may start after it."""
    known: npt.NDArray[np.float32]
    """[N, K]: covariates known ahead, between -1 and 1."""
    known_names: tuple[str, ...]
    num_train_rows: int
    """The first rows, on which alone anything is fitted."""
    notes: tuple[str, ...]

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.values)

    @property
    def num_features(self) -> int:
        """F."""
        return len(self.columns)

    @property
    def num_targets(self) -> int:
        """T."""
        return len(self.targets)

    def window_shape(self, lookback: int, use_calendar: bool) -> WindowShape:
        """Return the sizes of windows into these rows."""
        return WindowShape(
            lookback=lookback,
            horizon=self.horizon,
            num_features=self.num_features,
            num_targets=self.num_targets,
            num_known=self.known.shape[1] if use_calendar else 0,
            season=self.season,
        )


@dataclass(frozen=True, eq=False)
class SearchData(_PreparedRows):
    """The training and the validation part: all that a trial sees."""


@dataclass(frozen=True, eq=False)
class TestData(_PreparedRows):
    """All three parts, the test part opened."""

    __test__ = False  # pytest takes classes named Test… for tests

    first_test_row: int
    timestamps: pd.DatetimeIndex | None = None
    """N, ascending; None where row order is time."""


@dataclass(frozen=True, eq=False)
class SealedTest:
    """The test part, which shows its size and nothing else until it is opened."""

    num_rows: int
    """Rows of the test part alone."""
    fingerprint: str
    """That of the search data it belongs to."""
    test_fingerprint: str
    """SHA-256 of what is forecast here, whatever else the table holds and wherever it is cut."""
    _data: TestData = field(repr=False)

    def open(self) -> TestData:
        """Return the rows of all parts; for the final test, not for a choice between models."""
        return self._data


def split(table: SeriesTable, config: SplitConfig) -> tuple[SearchData, SealedTest]:
    """Cut a table in time and repair it, each part from itself and earlier rows alone.

    Raises:
        DataError: A part is not longer than the horizon, dates do not fit the table, or a column
            has no value in the training part.
    """
    if len(table.series) != 1:
        raise DataError(
            f"a split takes one series: got {len(table.series)}; choose one with --set data.series"
        )
    series = table.series[0]
    ends = _part_ends(series, config)
    _check_parts(ends, table.horizon)
    _check_train_values(series.values[: ends[0]], table.columns)
    return _cut(table, ends, _fingerprint(table, ends), _calendar_of(table, ends[0]))


def rolling_splits(
    table: SeriesTable, config: SplitConfig, count: int = 3, longest_lookback: int = 0
) -> tuple[SearchData, ...]:
    """Return the search data of up to `count` rolling origins, the oldest first.

    The last one is that of `split`. Each earlier one ends a validation part earlier, or a quarter
    of the training part where that is less, so that the shortest of three training parts is half
    the longest. Each is repaired as if the table ended with it; all have the same columns. One that
    cannot be trained on or scored is left out.

    Args:
        table: Holds one series.
        config: Where it is cut.
        count: The most that are returned, at least 1.
        longest_lookback: Rows that some model reads; its windows must fit into each training part.

    Raises:
        DataError: As `split`.
    """
    latest, _ = split(table, config)
    train_end, end = latest.num_train_rows, latest.num_rows
    step = min(end - train_end, train_end // 4)
    ends = [(train_end - back * step, end - back * step) for back in range(count - 1, 0, -1)]
    earlier = [
        _cut(table, (*part, part[1]), _fingerprint(table, (*part, part[1])), latest.known_names)[0]
        for part in ends
        if step > 0 and _is_usable(table, *part, longest_lookback)
    ]
    return (*earlier, latest)


def _is_usable(table: SeriesTable, train_end: int, end: int, longest_lookback: int) -> bool:
    """Return whether windows fit into both parts, and both hold what they are made of."""
    horizon = table.horizon
    # MASE needs more than a season to train on.
    if train_end < max(longest_lookback + 2 * horizon, table.season + 1):
        return False
    is_measured = ~np.isnan(table.series[0].values[:end])
    is_start = np.asarray(is_measured.all(axis=1))  # a forecast starts after a measured row
    has_windows = (
        is_start[max(longest_lookback, 1) - 1 : train_end - horizon].any()
        and is_start[train_end - 1 : end - horizon].any()
    )
    is_scored = is_measured[train_end:, : len(table.targets)].any(axis=0).all()
    return bool(has_windows and is_scored and is_measured[:train_end].any(axis=0).all())


def _part_ends(series: Series, config: SplitConfig) -> tuple[int, int, int]:
    """Return the row after each part."""
    num_rows = len(series.values)
    if isinstance(config.train, str):
        train, validation, test = (_row_after(str(part), series) for part in config.parts)
        return train, validation, test
    train, validation, test = np.cumsum([float(part) for part in config.parts])
    if isinstance(config.train, float):
        return round(num_rows * train), round(num_rows * validation), round(num_rows * test)
    if test > num_rows:
        raise DataError(
            f"train, validation and test must fit into the table: got {config.parts}, together "
            f"{test:.0f}, and {num_rows} rows; lower one of them"
        )
    return int(train), int(validation), int(test)


def _row_after(date: str, series: Series) -> int:
    if series.timestamps is None:
        raise DataError(
            f"a split by dates needs timestamps: got {date} and row order as time; give shares "
            "(0.7) or row counts"
        )
    try:
        # The whole of what is named: 2014-08-31 ends with its last hour, 2014-08 with that day's.
        last = pd.Period(date).end_time
    except ValueError as error:
        raise DataError(
            f"a part must end with a date such as 2014-08-31 or 2014-08-31 05:00: got {date!r}; "
            "correct it"
        ) from error
    return int(series.timestamps.searchsorted(last, side="right"))


def _check_parts(ends: tuple[int, int, int], horizon: int) -> None:
    start = 0
    for part, end in zip(("train", "validation", "test"), ends, strict=True):
        num_rows = max(end - start, 0)
        if horizon >= num_rows:
            raise DataError(
                f"horizon must be shorter than the {part} part: got horizon={horizon} and "
                f"{num_rows} rows; lower --horizon or give more data"
            )
        start = end


def _check_train_values(train: npt.NDArray[np.float64], columns: tuple[str, ...]) -> None:
    is_empty = np.isnan(train).all(axis=0)
    if is_empty.any():
        raise DataError(
            f"every column must have values in the train part: {columns[is_empty.argmax()]} has "
            f"none in its {len(train)} rows; leave the column out of the table, or give more rows "
            "to train"
        )


def _fingerprint(table: SeriesTable, ends: tuple[int, int, int]) -> str:
    how = f"{table.fingerprint} {ends} {OUTLIER_THRESHOLD}"
    return hashlib.sha256(how.encode()).hexdigest()


def _test_fingerprint(table: SeriesTable, first: int, end: int) -> str:
    """Return what tells one test part from others, the same under any split of earlier rows."""
    series = table.series[0]
    start = None
    if series.timestamps is not None and first < end:
        start = series.timestamps[first].isoformat()
    truth = series.values[first:end, : len(table.targets)]
    truth = np.where(np.isnan(truth), np.nan, truth + 0.0)  # one NaN, one zero
    digest = hashlib.sha256(json.dumps([table.targets, start, truth.shape]).encode())
    digest.update(truth.tobytes())
    return digest.hexdigest()


def _calendar_of(table: SeriesTable, train_end: int) -> tuple[str, ...]:
    timestamps = table.series[0].timestamps
    training = None if timestamps is None else timestamps[:train_end]
    return calendar_names(training, table.frequency)


def _cut(
    table: SeriesTable,
    ends: tuple[int, int, int],
    fingerprint: str,
    known_names: tuple[str, ...],
) -> tuple[SearchData, SealedTest]:
    series = table.series[0]
    train_end, search_end, test_end = ends
    repaired = repair(
        series.values[:test_end], ends, table.season, replace_outliers=table.outliers == "hampel"
    )
    timestamps = None if series.timestamps is None else series.timestamps[:test_end]
    known = calendar_features(timestamps, known_names)
    opened = TestData(
        name=table.name,
        series_id=series.id,
        columns=table.columns,
        targets=table.targets,
        frequency=table.frequency,
        season=table.season,
        horizon=table.horizon,
        target_transform=table.target_transform,
        fingerprint=fingerprint,
        values=repaired.values,
        truth=series.values[:test_end, : len(table.targets)].copy(),
        is_observed=repaired.is_observed,
        known=known.reshape(test_end, len(known_names)),
        known_names=known_names,
        num_train_rows=train_end,
        notes=(*table.notes, *_notes(series, table.columns, ends, repaired)),
        first_test_row=search_end,
        timestamps=timestamps,
    )
    notes = (*table.notes, *_notes(series, table.columns, ends[:2], repaired))
    test_fingerprint = _test_fingerprint(table, search_end, test_end)
    sealed = SealedTest(test_end - search_end, fingerprint, test_fingerprint, opened)
    return _search_part(opened, notes), sealed


def _search_part(opened: TestData, notes: tuple[str, ...]) -> SearchData:
    shared: dict[str, Any] = {item.name: getattr(opened, item.name) for item in fields(SearchData)}
    for name in ("values", "truth", "is_observed", "known"):
        # A copy: a view would carry the test rows along as its base.
        shared[name] = shared[name][: opened.first_test_row].copy()
    return SearchData(**{**shared, "notes": notes})


def _notes(
    series: Series, columns: tuple[str, ...], ends: Sequence[int], repaired: Repaired
) -> list[str]:
    """Return what the parts are and what was repaired in them, one line each."""
    starts = (0, *ends)
    sizes = ", ".join(
        f"{part} {end - start:,} rows"
        for part, start, end in zip(("train", "validation", "test"), starts, ends, strict=False)
    )
    notes = [f"split: {sizes}"]
    repairs = (
        ("missing values interpolated", repaired.is_missing),
        ("outliers replaced by what the rows before suggest", repaired.is_outlier),
    )
    for what, mask in repairs:
        place = _first_place(mask[: ends[-1]], series, columns)
        if place is not None:
            notes.append(f"{what}: {int(mask[: ends[-1]].sum())}, the first {place}")
    return notes


def _first_place(
    mask: npt.NDArray[np.bool_], series: Series, columns: tuple[str, ...]
) -> str | None:
    if not mask.any():
        return None
    row, column = (int(index) for index in np.argwhere(mask)[0])
    when = f"in row {row + 1}" if series.timestamps is None else f"at {series.timestamps[row]}"
    return f"{columns[column]} {when}"
