"""What a table must be like for a forecast to read it."""

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.recent_rows import RecentRows, recent_rows


def hourly(num_rows: int = 6, **columns: Any) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "time": pd.date_range("2026-01-01", periods=num_rows, freq="h"),
            "load": np.arange(num_rows, dtype=float),
            "heat": np.arange(num_rows) * 2,
        }
    )
    return frame.assign(**columns)


def read(frame: Any, num_rows: int = 4, frequency: str | None = "h", **changes: Any) -> RecentRows:
    arguments = {"columns": ("load", "heat"), "timestamp": "time"} | changes
    return recent_rows(frame, frequency=frequency, num_rows=num_rows, **arguments)


def test_the_last_rows_are_read_with_the_columns_in_the_order_wanted() -> None:
    rows = read(hourly(other="text"), columns=("heat", "load"))
    assert rows.values.tolist() == [[4, 2], [6, 3], [8, 4], [10, 5]]
    assert rows.timestamps is not None
    assert rows.timestamps[-1] == pd.Timestamp("2026-01-01 05:00")


@pytest.mark.parametrize(
    "column",
    [
        [1, 2, 3, 4, 5, 6],
        pd.array([1, 2, 3, 4, 5, 6], dtype="Int64"),
        [1, 2, 3.0, np.int8(4), np.float32(5), Decimal(6)],
        pd.array([1, 2, 3, 4, 5, 6], dtype="float64[pyarrow]"),
    ],
    ids=["int", "nullable", "objects", "arrow"],
)
def test_every_kind_of_number_is_read(column: Any) -> None:
    assert read(hourly(load=column)).values[:, 0].tolist() == [3, 4, 5, 6]


def test_timestamps_may_be_iso_text() -> None:
    as_text = hourly()["time"].astype("str")
    with_letter = as_text.str.replace(" ", "T")
    for text in (as_text, with_letter):
        timestamps = read(hourly(time=text)).timestamps
        assert timestamps is not None
        assert list(timestamps) == list(hourly()["time"][-4:])


def test_rows_before_those_that_are_read_may_have_gaps_and_missing_values() -> None:
    frame = hourly(9, load=[np.nan, "text", *range(7)]).drop(index=2)
    assert read(frame).values[:, 0].tolist() == [3, 4, 5, 6]


def test_without_timestamps_the_order_of_the_rows_is_time() -> None:
    rows = read(hourly()[["load", "heat"]], frequency=None, timestamp=None)
    assert rows.timestamps is None
    assert rows.values[:, 0].tolist() == [2, 3, 4, 5]


def test_a_business_day_without_a_row_is_a_holiday() -> None:
    days = pd.bdate_range("2026-01-01", periods=7).delete(3)
    timestamps = read(hourly(time=days), frequency="B").timestamps
    assert timestamps is not None
    assert len(timestamps) == 4


@pytest.mark.parametrize("frequency", ["MS", "ME", "W-SUN", "QS-JAN", "15min", "2D"])
def test_every_frequency_has_its_own_grid(frequency: str) -> None:
    times = pd.date_range("2026-01-04", periods=6, freq=frequency)
    assert read(hourly(time=times), frequency=frequency).timestamps is not None
    with pytest.raises(ValueError, match=f"at frequency {frequency}, without gaps: after"):
        read(hourly(5, time=times.delete(3)), frequency=frequency)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ([[1, 2]], r"reads a pandas DataFrame with the columns time, load, heat: got list"),
        (hourly().drop(columns="heat"), r"heat is missing; the columns are time, load; give each"),
        (hourly().drop(columns="time"), r"time is missing"),
        (hourly().set_index("time"), r"time is missing"),
        (pd.concat([hourly(), hourly()["load"]], axis=1), r"load is there more than once"),
        (hourly(3), r"a forecast reads 4 rows: got 3; give at least the 4 newest"),
        (hourly()[:0], r"a forecast reads 4 rows: got 0"),
        (hourly()[::-1], r"must ascend, each once: 2026-01-01 04:00:00 in row 2 comes after"),
        (hourly().iloc[[0, 1, 2, 2, 3, 4]], r"2026-01-01 02:00:00 in row 4 comes after 2026-01-01"),
        (hourly(8).drop(index=5), r"after 2026-01-01 04:00:00 comes 2026-01-01 06:00:00, not 2026"),
        (hourly(time=range(6)), r"time must hold timestamps without a time zone: got 0 in row 1"),
        (hourly(time=["x"] * 6), r"time must hold timestamps .* got 'x' in row 1; convert"),
        (hourly(time=[*hourly()["time"][:5], None]), r"got NaT in row 6"),
        (hourly(time=hourly()["time"].dt.tz_localize("UTC")), r"without a time zone: got 2026"),
        (hourly(time=hourly()["time"].astype("str") + "+01:00"), r"without a time zone: got '2026"),
        (hourly(load=[0, 1, 2, np.nan, 4, 5]), r"4 rows .* column load has nan in row 4"),
        (hourly(load=[0, 1, 2, np.inf, 4, 5]), r"column load has inf in row 4; measure it"),
        (hourly(load=[0, 1, 2, "3", 4, 5]), r"column load has '3' in row 4"),
        (hourly(load=[0, 1, 2, None, 4, 5]), r"column load has nan in row 4"),
        (hourly(load=[True] * 6), r"column load has True in row 3"),
        (hourly(load=["a\x1b[31m"] * 6), r"column load has 'a\S+31m' in row 3"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_with_the_place_and_a_remedy(
    frame: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        read(frame)
    assert "\x1b" not in str(refusal.value)


def test_another_frequency_is_told_from_a_gap_by_what_comes_and_what_should() -> None:
    daily = hourly(time=pd.date_range("2026-01-01", periods=6, freq="D"))
    with pytest.raises(
        ValueError, match=r"after 2026-01-03 .* comes 2026-01-04 .*, not 2026-01-03 0"
    ):
        read(daily)


def test_a_weekend_among_business_days_is_refused() -> None:
    with pytest.raises(ValueError, match="2026-01-03 00:00:00 is no weekday"):
        read(hourly(time=pd.date_range("2026-01-01", periods=6, freq="D")), 5, frequency="B")


def test_a_day_that_no_such_week_begins_with_is_refused() -> None:
    with pytest.raises(ValueError, match="2026-01-19 00:00:00 is not on it"):
        read(hourly(time=pd.date_range("2026-01-05", periods=6, freq="7D")), frequency="W-SUN")
