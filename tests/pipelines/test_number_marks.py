import pandas as pd
import pytest

from pipelines.data_config import DecimalMark
from pipelines.data_error import DataError
from pipelines.number_marks import plain_numbers, read_numbers


def read(*cells: object, decimal: DecimalMark | None = None) -> list[object]:
    table, _ = read_numbers(pd.DataFrame({"load": cells}), decimal)
    return table["load"].tolist()


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (("3,5", "1.226,31", "-7"), [3.5, 1226.31, -7]),
        (("1,226.31", "12,345,678", "+7"), [1226.31, 12345678, 7]),
        (("1.234.567", "12"), [1234567, 12]),
        (("1.125", "981"), [1125, 981]),
        (("0,981", "1,125"), [0.981, 1.125]),
        (("1226", "1,125"), [1226, 1.125]),
        (("1'226.31", "7"), [1226.31, 7]),
        (("1 226,31", "12\u00a0345"), [1226.31, 12345]),
        (("\u22123,5", ",5", "5,"), [-3.5, 0.5, 5]),
        (("1,2e3", "1,2E-3"), [1200, 0.0012]),
    ],
    ids=str,
)
def test_marks_are_told_apart(cells: tuple[str, ...], numbers: list[float]) -> None:
    assert read(*cells) == numbers


@pytest.mark.parametrize(("decimal", "number"), [("comma", 1.125), ("point", 1125)])
def test_what_may_be_either_is_what_is_said(decimal: DecimalMark, number: float) -> None:
    assert read("1,125", "2,250", decimal=decimal) == [number, 2 * number]


@pytest.mark.parametrize("cells", [("1,125", "2,250"), ("1.125", "2.250")], ids=str)
def test_what_may_be_either_is_refused(cells: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"'1[.,]125' in column load, row 1 may be either"):
        read(*cells)


def test_one_column_speaks_for_the_whole_table() -> None:
    frame = pd.DataFrame({"load": ["1,125", "2,250"], "price": [0.5, 1.25]})
    assert read_numbers(frame, None)[0]["load"].tolist() == [1125, 2250]


def test_both_marks_for_decimals_are_refused_with_a_place_for_each() -> None:
    with pytest.raises(
        DataError, match=r"'3,5' in column load, row 2 has a comma, '2.5' in column load, row 1 a"
    ):
        read("2.5", "3,5")


def test_a_number_with_the_other_mark_than_the_one_said_is_refused() -> None:
    with pytest.raises(DataError, match=r"a comma: got '2\.5' in column load, row 2"):
        read("3,5", "2.5", decimal="comma")


def test_cells_that_are_no_numbers_stay_for_the_message_about_them() -> None:
    assert read("3,5", "4,5", "5,5", "6,5 kW") == [3.5, 4.5, 5.5, "6,5 kW"]


@pytest.mark.parametrize(
    "cells",
    [
        ("2.5", "3"),
        ("01.02.2014", "02.02.2014"),
        ("2014-01-01 00:00:00,5", "2014-01-01 00:00:01,5"),
        ("north, east", "south"),
        ("007", "008"),
        (["1,5"], ["2,5"]),
        (None, None),
    ],
    ids=str,
)
def test_other_columns_are_left_as_they_are(cells: tuple[object, ...]) -> None:
    frame = pd.DataFrame({"load": cells})
    table, notes = read_numbers(frame, None)
    pd.testing.assert_frame_equal(table, frame)
    assert notes == ()


def test_what_was_read_is_noted_by_its_first_example() -> None:
    frame = pd.DataFrame({"a": ["x", "y"], "load": ["3", "1.226,31"]})
    assert read_numbers(frame, None)[1] == (
        "numbers are read with a decimal comma: '1.226,31' in column load is 1226.31",
    )


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(pd.to_timedelta([1, 2], unit="h")),
        pd.Series(pd.date_range("2014", periods=2)),
        pd.Series([[1.0], {"a": 2.0}]),
        pd.Series([1 + 2j, 3 + 4j]),
    ],
    ids=["durations", "times", "nested", "complex"],
)
def test_what_is_no_number_is_nan(column: pd.Series) -> None:
    assert plain_numbers(column).isna().all()


def test_categories_are_read_by_their_text() -> None:
    assert plain_numbers(pd.Series(["1.5", "2"], dtype="category")).tolist() == [1.5, 2.0]
