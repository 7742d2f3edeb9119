import math

import numpy as np
import pandas as pd
import pytest

from pipelines.covariates import calendar_features, calendar_names, future_timestamps

DAY, YEAR = ("hour_of_day_sin", "hour_of_day_cos"), ("day_of_year_sin", "day_of_year_cos")
HARMONICS = ("sin", "cos", "sin2", "cos2", "sin3", "cos3")
HOURS_OF_WEEK = tuple(f"hour_of_week_{wave}" for wave in HARMONICS)
DAYS_OF_WEEK = tuple(f"day_of_week_{wave}" for wave in HARMONICS)
NAMES = {
    "15min": (*DAY, *HOURS_OF_WEEK, *YEAR),
    "h": (*DAY, *HOURS_OF_WEEK, *YEAR),
    "D": (*DAYS_OF_WEEK, *YEAR),
    "B": (*DAYS_OF_WEEK, *YEAR),
    "7D": YEAR,
    "W-SUN": YEAR,
    "MS": YEAR,
    "QE-DEC": YEAR,
    "YS-JAN": (),
}


@pytest.mark.parametrize(("frequency", "expected"), NAMES.items())
def test_each_frequency_has_the_cycles_longer_than_its_step(
    frequency: str, expected: tuple[str, ...]
) -> None:
    timestamps = pd.date_range("2014-01-01", "2016-12-31", freq=frequency)
    names = calendar_names(timestamps, frequency)
    assert names == expected
    values = calendar_features(timestamps, names)
    assert values.shape == (len(timestamps), len(names))
    assert values.dtype == np.float32
    assert np.abs(values).max(initial=0) <= 1


@pytest.mark.parametrize(("end", "is_known"), [("2015-12-30", False), ("2015-12-31", True)])
def test_the_day_of_the_year_is_read_from_two_years_of_training_rows_on(
    end: str, is_known: bool
) -> None:
    training = pd.date_range("2014-01-01", end, freq="D")
    assert ("day_of_year_sin" in calendar_names(training, "D")) is is_known
    assert "day_of_week_sin" in calendar_names(training, "D")


def test_the_features_of_an_hour_are_its_place_in_day_week_and_year() -> None:
    # A Wednesday in a leap year, day 60 of 366.
    timestamps = pd.DatetimeIndex(["2012-02-29 06:30"])
    week = (2 + 6.5 / 24) / 7
    places = (6.5 / 24, week, 2 * week, 3 * week, (59 + 6.5 / 24) / 366)
    slowly = [wave(2 * math.pi * place) for place in places for wave in (math.sin, math.cos)]
    assert calendar_features(timestamps, NAMES["h"])[0] == pytest.approx(slowly, abs=1e-6)


def test_without_a_frequency_nothing_is_known_ahead() -> None:
    assert calendar_names(None, None) == ()
    assert calendar_features(None, ()).shape[1] == 0


@pytest.mark.parametrize(
    ("last", "frequency", "following"),
    [
        ("2014-12-31 23:00", "h", ["2015-01-01 00:00", "2015-01-01 01:00"]),
        ("2014-01-03", "B", ["2014-01-06", "2014-01-07"]),
        ("2014-01-31", "ME", ["2014-02-28", "2014-03-31"]),
        ("2014-01-05", "W-SUN", ["2014-01-12", "2014-01-19"]),
    ],
)
def test_future_timestamps_follow_the_last_one(
    last: str, frequency: str, following: list[str]
) -> None:
    future = future_timestamps(pd.Timestamp(last), frequency, 2)
    assert list(future) == [pd.Timestamp(timestamp) for timestamp in following]


def test_future_timestamps_continue_the_calendar_of_the_table() -> None:
    timestamps = pd.date_range("2014-01-01", periods=72, freq="h")
    names = calendar_names(timestamps, "h")
    future = future_timestamps(timestamps[47], "h", 24)
    ahead = calendar_features(future, names)
    np.testing.assert_array_equal(ahead, calendar_features(timestamps, names)[48:])
