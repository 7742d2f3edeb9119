import datetime

import pandas as pd
import pytest

from pipelines.reading import DataError
from pipelines.timestamps import is_timestamp_column, parse_timestamps


def parse(*values: object) -> list[str]:
    column = pd.Series(values, name="date")
    assert is_timestamp_column(column)
    return [str(timestamp) for timestamp in parse_timestamps(column)[0]]


@pytest.mark.parametrize(
    "values",
    [
        ("2014-02-01 00:00", "2014-02-13"),
        ("2014-02-01T00:00:00Z", "2014-02-13T00:00:00Z"),
        ("2014-02-01 00:00:00+01:00", "2014-02-13 00:00:00+01:00"),
        ("01.02.2014", "13.02.2014"),
        ("1/2/2014", "13/2/2014"),
        ("2/1/2014 12:00 AM", "2/13/2014 12:00 AM"),
        ("Feb 1, 2014", "Feb 13, 2014"),
        ("20140201", "20140213"),
        (20140201, 20140213),
        (1391212800, 1392249600),
        (1391212800000, 1392249600000),
        (datetime.date(2014, 2, 1), datetime.date(2014, 2, 13)),
        (pd.Timestamp("2014-02-01"), pd.Timestamp("2014-02-13")),
        (pd.Timestamp("2014-02-01", tz="Asia/Tokyo"), pd.Timestamp("2014-02-13", tz="Asia/Tokyo")),
    ],
    ids=str,
)
def test_timestamps_are_read_in_many_forms(values: tuple[object, ...]) -> None:
    assert parse(*values) == ["2014-02-01 00:00:00", "2014-02-13 00:00:00"]


def test_years_are_timestamps() -> None:
    assert parse(2014, 2015) == ["2014-01-01 00:00:00", "2015-01-01 00:00:00"]


def test_dots_say_that_the_day_comes_first_even_where_every_day_could_be_a_month() -> None:
    assert parse("01.02.2014", "01.03.2014") == ["2014-02-01 00:00:00", "2014-03-01 00:00:00"]


def test_the_order_of_day_and_month_is_noted() -> None:
    column = pd.Series(["01/02/2014", "01/03/2014"])
    assert parse_timestamps(column)[1] == "dates such as 01/02/2014 are read month first"


def test_daily_closes_keep_their_date_across_a_change_of_the_clock() -> None:
    closes = parse("2014-01-02 00:00:00-05:00", "2014-07-02 00:00:00-04:00")
    assert closes == ["2014-01-02 00:00:00", "2014-07-02 00:00:00"]


def test_hours_across_a_change_of_the_clock_are_taken_to_utc() -> None:
    hours = parse("2014-03-30T01:00:00+01:00", "2014-03-30T03:00:00+02:00")
    assert hours == ["2014-03-30 00:00:00", "2014-03-30 01:00:00"]


@pytest.mark.parametrize(
    "values",
    [("12:00", "13:00"), ("Mon", "Tue"), ("A-1234", "A-1235"), ("1.5", "2.5"), (2014.5, 7.0), ()],
    ids=str,
)
def test_other_values_are_no_timestamps(values: tuple[object, ...]) -> None:
    assert not is_timestamp_column(pd.Series(values, name="date"))


@pytest.mark.parametrize(
    "values",
    [("1226", "1301", "?", "1250", "1260", "1270"), ("1226.5", "1301.5", "1250.5"), ("9:30 PM",)],
    ids=str,
)
def test_numbers_and_times_in_text_are_no_timestamps(values: tuple[str, ...]) -> None:
    assert not is_timestamp_column(pd.Series(values, name="load"))


@pytest.mark.parametrize("text", ["12:00", "Mon", "Mon 12:00", "31.12", "now", "today"])
def test_what_has_no_year_is_never_read_as_a_day_of_this_year(text: str) -> None:
    with pytest.raises(DataError, match="timestamps must parse"):
        parse_timestamps(pd.Series([text] * 3, name="day"))


def test_the_order_that_runs_evenly_is_taken_where_every_day_could_be_a_month() -> None:
    months = pd.date_range("2014-01-01", periods=24, freq="MS")
    for form, order in (("%d/%m/%Y", "day"), ("%m/%d/%Y", "month"), ("%d-%m-%y", "day")):
        parsed, note = parse_timestamps(pd.Series(months.strftime(form)))
        assert parsed.tolist() == months.tolist()
        assert str(note).endswith(f"are read {order} first")


def test_dates_that_are_named_beside_numeric_ones_keep_their_own_order() -> None:
    assert parse("13/02/2014", "2014-03-02", "1 Apr 2014") == [
        "2014-02-13 00:00:00",
        "2014-03-02 00:00:00",
        "2014-04-01 00:00:00",
    ]


def test_two_digits_of_a_year_are_of_1969_to_2068() -> None:
    assert parse("31.12.68", "31.12.69") == ["2068-12-31 00:00:00", "1969-12-31 00:00:00"]


def test_days_of_excel_need_the_name_of_a_date() -> None:
    days = [41640, 41641, 41642]
    assert is_timestamp_column(pd.Series(days, name="Date"))
    assert not is_timestamp_column(pd.Series(days, name="time"))


def test_hours_since_1970_are_not_taken_for_dates_without_marks() -> None:
    hours = pd.date_range("2031-01-01", periods=48, freq="h")
    column = pd.Series(hours.as_unit("s").asi8, name="time")
    assert parse_timestamps(column)[0].tolist() == hours.tolist()


def test_numbers_are_timestamps_only_under_such_a_name() -> None:
    assert not is_timestamp_column(pd.Series([2014, 2015], name="load"))


def test_a_value_that_does_not_parse_is_named_with_its_row() -> None:
    days = pd.date_range("2014-01-01", periods=60).strftime("%Y-%m-%d").tolist()
    days[41] = "2014-02-31"
    column = pd.Series(days, name="day")
    assert is_timestamp_column(column)
    with pytest.raises(DataError, match=r"column day holds '2014-02-31' in row 42 \(such rows: 1"):
        parse_timestamps(column)


def test_an_empty_timestamp_is_named_with_its_row() -> None:
    column = pd.Series(["2014-01-01", None, "2014-01-03"], name="day")
    with pytest.raises(DataError, match=r"column day holds 'nan' in row 2 "):
        parse_timestamps(column)
