import pandas as pd
import pytest

from pipelines.data_config import DataConfig
from pipelines.layout import recognise
from pipelines.reading import DataError

DAYS = pd.date_range("2014-01-01", periods=4).strftime("%Y-%m-%d").tolist()
PRICES = ("Open", "High", "Low", "Close")


def table(*numeric: str, **others: list[object]) -> pd.DataFrame:
    return pd.DataFrame({**others, **{name: [1.0, 2.0, 4.0, 3.0] for name in numeric}})


def test_nixtla_columns_are_recognised() -> None:
    layout = recognise(table("y", "price", unique_id=["a"] * 4, ds=DAYS), DataConfig())
    assert (layout.series_id, layout.timestamp, layout.targets) == ("unique_id", "ds", ("y",))
    assert layout.features == ("price",)
    assert layout.notes[0] == "Nixtla layout recognised"


def test_autogluon_columns_are_recognised() -> None:
    frame = table("target", item_id=["a"] * 4, timestamp=DAYS)
    layout = recognise(frame, DataConfig())
    assert (layout.series_id, layout.timestamp) == ("item_id", "timestamp")
    assert layout.targets == ("target",)


@pytest.mark.parametrize("columns", [(*PRICES, "Adj Close", "Volume"), (*PRICES, "Volume")])
def test_yfinance_columns_are_recognised(columns: tuple[str, ...]) -> None:
    layout = recognise(table(*columns, Date=DAYS), DataConfig())
    assert layout.timestamp == "Date"
    assert layout.targets == (("Adj Close" if "Adj Close" in columns else "Close"),)
    assert {*layout.features, *layout.targets} == set(columns)


def test_the_one_column_of_dates_and_the_one_of_numbers_are_found() -> None:
    layout = recognise(table("load", place=["x"] * 4, day=DAYS), DataConfig())
    assert (layout.timestamp, layout.targets, layout.features) == ("day", ("load",), ())
    assert layout.notes == ("target: load", "columns without numbers are left out: place")


def test_named_targets_come_in_their_order_and_other_numbers_are_inputs() -> None:
    layout = recognise(table("a", "b", "c", day=DAYS), DataConfig(targets=("c", "a")))
    assert (layout.targets, layout.features) == (("c", "a"), ("b",))


def test_a_named_target_goes_before_a_known_layout() -> None:
    layout = recognise(table("y", "price", ds=DAYS), DataConfig(targets=("price",)))
    assert (layout.targets, layout.features) == (("price",), ("y",))


def test_row_numbers_written_along_are_no_input() -> None:
    frame = table("load", day=DAYS)
    frame.insert(0, "Unnamed: 0", range(4))
    assert recognise(frame, DataConfig()).features == ()


@pytest.mark.parametrize("day", [DAYS, [2014, 2015, 2016, 2017]], ids=["text", "years"])
def test_with_row_order_as_time_timestamps_are_no_input(day: list[object]) -> None:
    layout = recognise(table("load", date=day), DataConfig(frequency="none"))
    assert (layout.timestamp, layout.targets, layout.features) == (None, ("load",), ())


def test_a_choice_of_targets_is_an_error_with_a_command_to_copy() -> None:
    config = DataConfig(path="my table.csv", horizon=3)
    with pytest.raises(
        DataError,
        match=r"numeric columns are HUFL, OT; choose one or several: python -m search\.run --data "
        r"'my table\.csv' --target OT --horizon 3$",
    ):
        recognise(table("HUFL", "OT", date=DAYS), config)


def test_a_choice_of_timestamps_is_an_error_with_a_command_to_copy() -> None:
    with pytest.raises(DataError, match=r"from, to all are; choose: .* --timestamp from$"):
        recognise(table("load", **{"from": DAYS, "to": DAYS}), DataConfig())


def test_a_table_without_timestamps_is_an_error_with_both_remedies() -> None:
    with pytest.raises(DataError, match=r"none of load reads as such; .*--timestamp.*--freq none"):
        recognise(table("load"), DataConfig())


def test_a_table_without_numbers_is_an_error() -> None:
    with pytest.raises(DataError, match="the table must have a numeric column to forecast"):
        recognise(table(day=DAYS, place=["x"] * 4), DataConfig())


@pytest.mark.parametrize("config", [DataConfig(targets=("lod",)), DataConfig(timestamp="lod")])
def test_a_column_that_is_missing_is_an_error_with_the_nearest_name_first(
    config: DataConfig,
) -> None:
    with pytest.raises(DataError, match="there is no 'lod'; the columns are load, day, heat"):
        recognise(table("heat", "load", day=DAYS), config)


def test_a_target_named_twice_is_an_error() -> None:
    with pytest.raises(DataError, match="targets must differ: got load, load"):
        recognise(table("load", day=DAYS), DataConfig(targets=("load", "load")))


def test_a_table_without_rows_is_an_error() -> None:
    with pytest.raises(DataError, match="the table must have rows"):
        recognise(pd.DataFrame({"day": [], "load": []}), DataConfig())
