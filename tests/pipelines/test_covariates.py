import math

import numpy as np
import pandas as pd
import pytest

from pipelines.covariates import calendar_features, future_timestamps

NAMES = {
    "15min": ("hour_of_day", "hour_of_week", "day_of_year"),
    "h": ("hour_of_day", "hour_of_week", "day_of_year"),
    "D": ("day_of_week", "day_of_year"),
    "B": ("day_of_week", "day_of_year"),
    "7D": ("day_of_year",),
    "W-SUN": ("day_of_year",),
    "MS": ("day_of_year",),
    "QE-DEC": ("day_of_year",),
    "YS-JAN": (),
}


@pytest.mark.parametrize(("frequency", "cycles"), NAMES.items())
def test_each_frequency_has_the_cycles_longer_than_its_step(
    frequency: str, cycles: tuple[str, ...]
) -> None:
    timestamps = pd.date_range("2014-01-01", periods=50, freq=frequency)
    names, values = calendar_features(timestamps, frequency)
    assert names == tuple(f"{cycle}_{wave}" for cycle in cycles for wave in ("sin", "cos"))
    assert values.shape == (50, len(names))
    assert values.dtype == np.float32
    assert np.abs(values).max(initial=0) <= 1


def test_the_features_of_an_hour_are_its_place_in_day_week_and_year() -> None:
    # A Wednesday in a leap year, day 60 of 366.
    timestamps = pd.DatetimeIndex(["2012-02-29 06:30"])
    places = (6.5 / 24, (2 + 6.5 / 24) / 7, (59 + 6.5 / 24) / 366)
    slowly = [wave(2 * math.pi * place) for place in places for wave in (math.sin, math.cos)]
    assert calendar_features(timestamps, "h")[1][0] == pytest.approx(slowly, abs=1e-6)


def test_without_a_frequency_nothing_is_known_ahead() -> None:
    names, values = calendar_features(None, None)
    assert names == ()
    assert values.shape[1] == 0


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
    future = future_timestamps(timestamps[47], "h", 24)
    ahead = calendar_features(future, "h")[1]
    np.testing.assert_array_equal(ahead, calendar_features(timestamps, "h")[1][48:])
