"""What holds of any table: it reads back as written, is cut in time, and its windows are slices."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data_config import DataConfig
from pipelines.data_error import DataError
from pipelines.scaling import Scaling
from pipelines.series import load
from pipelines.splits import SearchData, SplitConfig, split
from pipelines.windows import build_windows

FEW = settings(max_examples=25, deadline=None, derandomize=True)
FREQUENCIES = ("7s", "15min", "h", "D", "B", "W-SUN", "MS", "ME", "QS-JAN", "YS-JAN")
ARRAYS = ("values", "truth", "is_observed", "known")

names = st.text("abcé ;,|\"'#=()\n-1", max_size=12).map(lambda text: f"c{text}".strip())
numbers = st.floats(-1e9, 1e9).map(lambda value: 0.0 if abs(value) < 1e-9 else value)


@st.composite
def tables(draw: st.DrawFn, min_rows: int = 40) -> pd.DataFrame:
    """Rows in order on a grid, the columns varying, the first of them the timestamps."""
    num_rows = draw(st.integers(min_rows, 80))
    frequency = draw(st.sampled_from(FREQUENCIES))
    start = draw(st.datetimes(pd.Timestamp("1980"), pd.Timestamp("2040"))).replace(microsecond=0)
    midnight = start.replace(hour=0, minute=0, second=0)
    timestamps = pd.date_range(
        start if frequency in ("7s", "15min", "h") else midnight, periods=num_rows, freq=frequency
    )
    columns = {}
    for name in draw(st.lists(names, min_size=1, max_size=3, unique_by=collapsed)):
        first = draw(st.lists(numbers, min_size=8, max_size=8))
        noise = np.random.default_rng(draw(st.integers(0, 99))).normal(size=num_rows)
        columns[name] = np.array([*first, *(1000 * noise[8:])])
    return pd.DataFrame({"timestamp": timestamps, **columns})


def collapsed(name: str) -> str:
    return " ".join(name.split())


def written(table: pd.DataFrame, folder: Path, form: str) -> str:
    path = folder / "table"
    as_day_first = {"sep": ";", "decimal": ",", "date_format": "%d.%m.%Y %H:%M:%S"}
    options: dict[str, dict[str, Any]] = {
        "csv": {},
        "gzip": {"compression": "gzip"},
        "semicolons": {"sep": ";"},
        "tabs": {"sep": "\t"},
        "comma for the decimals": as_day_first,
        "UTF-16": {"encoding": "utf-16"},
    }
    if form == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, **options[form])
    return str(path)


@FEW
@given(
    table=tables(),
    form=st.sampled_from(
        ("csv", "gzip", "semicolons", "tabs", "comma for the decimals", "UTF-16", "parquet")
    ),
)
def test_a_table_reads_back_as_it_was_written(table: pd.DataFrame, form: str) -> None:
    targets = tuple(collapsed(name) for name in table.columns[1:])
    with tempfile.TemporaryDirectory() as folder:
        path = written(table, Path(folder), form)
        config = DataConfig(path=path, targets=targets, horizon=1)
        read = load(config)
    assert read.columns == read.targets == targets
    series = read.series[0]
    assert series.timestamps is not None
    assert series.timestamps.equals(pd.DatetimeIndex(table["timestamp"]).as_unit("us"))
    np.testing.assert_array_equal(series.values, table.iloc[:, 1:])
    from_frame = load(config, table)
    assert (read.fingerprint, read.frequency) == (from_frame.fingerprint, from_frame.frequency)


@FEW
@given(table=tables(), seed=st.integers(0, 99))
def test_the_order_of_the_rows_does_not_matter(table: pd.DataFrame, seed: int) -> None:
    config = DataConfig(targets=(collapsed(table.columns[1]),), horizon=1)
    shuffled = table.sample(frac=1, random_state=seed)
    assert load(config, shuffled).fingerprint == load(config, table).fingerprint


@settings(FEW, max_examples=100)
@given(content=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_are_a_table_or_one_line(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table"
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            load(DataConfig(path=str(path)))
    assert str(caught.value).isprintable()


@st.composite
def splits(draw: st.DrawFn, num_rows: int, horizon: int) -> SplitConfig:
    """Parts that are longer than the horizon, by rows or by shares."""
    least = horizon + 2
    train = draw(st.integers(least + 8, num_rows - 2 * least))
    validation = draw(st.integers(least, num_rows - train - least))
    test = draw(st.integers(least, num_rows - train - validation))
    if draw(st.booleans()):
        return SplitConfig(train=train, validation=validation, test=test)
    return SplitConfig(
        train=train / num_rows, validation=validation / num_rows, test=test / num_rows
    )


@st.composite
def cut_tables(draw: st.DrawFn) -> tuple[npt.NDArray[np.float64], SplitConfig, DataConfig]:
    """Two columns with gaps and outliers, and where to cut them."""
    num_rows, horizon = draw(st.integers(60, 120)), draw(st.integers(1, 6))
    generator = np.random.default_rng(draw(st.integers(0, 999)))
    values = generator.normal(size=(num_rows, 2)).cumsum(axis=0)
    bad = draw(st.lists(st.integers(1, num_rows - 1), max_size=8, unique=True))
    values[bad[::2]] = np.nan
    values[bad[1::2], 0] = 1e4
    config = DataConfig(
        targets=("load",),
        horizon=horizon,
        season=draw(st.integers(1, 12)),
        frequency=draw(st.sampled_from(("h", "none"))),
        missing="interpolate",
        outliers=draw(st.sampled_from(("hampel", "none"))),
    )
    return values, draw(splits(num_rows, horizon)), config


def cut(values: npt.NDArray[np.float64], config: SplitConfig, data: DataConfig) -> Any:
    frame = pd.DataFrame(values, columns=["load", "heat"])
    frame.insert(0, "timestamp", pd.date_range("2014", periods=len(values), freq="h"))
    return split(load(data, frame), config)


@FEW
@given(drawn=cut_tables())
def test_parts_follow_each_other_and_hold_every_row_up_to_the_last(
    drawn: tuple[npt.NDArray[np.float64], SplitConfig, DataConfig],
) -> None:
    values, config, _ = drawn
    search, sealed = cut(*drawn)
    opened = sealed.open()
    num_rows = np.array(config.parts) * (len(values) if isinstance(config.train, float) else 1)
    expected = np.diff(np.round(np.cumsum([0, *num_rows])).astype(int)).tolist()
    train, validation = search.num_train_rows, search.num_rows - search.num_train_rows
    assert [train, validation, sealed.num_rows] == expected
    assert opened.first_test_row == search.num_rows
    np.testing.assert_array_equal(opened.truth[:, 0], values[: opened.num_rows, 0])
    np.testing.assert_array_equal(search.truth, opened.truth[: search.num_rows])


@FEW
@given(drawn=cut_tables(), seed=st.integers(0, 99))
def test_nothing_after_the_cut_reaches_the_search(
    drawn: tuple[npt.NDArray[np.float64], SplitConfig, DataConfig], seed: int
) -> None:
    values, config, data = drawn
    search, _ = cut(values, config, data)
    other = values.copy()
    test_rows = other[search.num_rows :]
    test_rows[:] = 1e6 * np.random.default_rng(seed).normal(size=test_rows.shape)
    test_rows[seed % len(test_rows)] = np.nan
    altered, _ = cut(other, config, data)
    for name in ARRAYS:
        assert getattr(search, name).tobytes() == getattr(altered, name).tobytes(), name
    assert search.num_train_rows == altered.num_train_rows


@FEW
@given(drawn=cut_tables(), lookback=st.integers(1, 12), use_calendar=st.booleans())
def test_each_window_is_the_slice_that_a_slow_loop_takes(
    drawn: tuple[npt.NDArray[np.float64], SplitConfig, DataConfig],
    lookback: int,
    use_calendar: bool,
) -> None:
    search, _ = cut(*drawn)
    train, validation = slow_origins(search, lookback)
    scaling = Scaling.fit(search)
    if not train or not validation:
        with pytest.raises(ValueError, match="must fit into the"):
            build_windows(search, scaling, lookback, use_calendar, "cpu")
        return
    windows = build_windows(search, scaling, lookback, use_calendar, "cpu")
    assert windows.train_origins.tolist() == train
    assert windows.validation_origins.tolist() == validation
    encoded, horizon = scaling.encode(search.values), search.horizon
    origins = torch.tensor([*train, *validation])
    window, known = windows.inputs(origins)
    future, truth = windows.future(origins), windows.true_future(origins)
    for place, t in enumerate(origins.tolist()):
        np.testing.assert_array_equal(window[place], encoded[t - lookback : t])
        np.testing.assert_array_equal(future[place], encoded[t : t + horizon, :1])
        np.testing.assert_array_equal(truth[place], search.truth[t : t + horizon])
        if known is not None:
            np.testing.assert_array_equal(known[place], search.known[t - lookback : t + horizon])
    assert (known is None) == (not use_calendar or search.known.shape[1] == 0)


def slow_origins(search: SearchData, lookback: int) -> tuple[list[int], list[int]]:
    train, validation = [], []
    for origin in range(lookback, search.num_rows - search.horizon + 1):
        if not search.is_observed[origin - 1]:
            continue
        if origin + search.horizon <= search.num_train_rows:
            train.append(origin)
        elif origin >= search.num_train_rows:
            validation.append(origin)
    return train, validation
