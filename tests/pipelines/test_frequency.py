import pandas as pd
import pytest

from pipelines.frequency import (
    infer_frequency,
    missing_timestamps,
    resolve_frequency,
    season_length,
)
from pipelines.reading import DataError

SEASONS = {
    "30s": 120,
    "min": 1440,
    "15min": 96,
    "h": 24,
    "2h": 12,
    "7h": 1,
    "D": 7,
    "2D": 1,
    "B": 5,
    "W-SUN": 52,
    "W-WED": 52,
    "MS": 12,
    "ME": 12,
    "BME": 12,
    "QS-JAN": 4,
    "QE-DEC": 4,
    "YS-JAN": 1,
    "YE-MAR": 1,
}


@pytest.mark.parametrize("frequency", SEASONS)
def test_a_frequency_is_seen_through_gaps(frequency: str) -> None:
    timestamps = pd.date_range("2010-01-01", periods=120, freq=frequency).delete([5, 6, 50])
    assert infer_frequency(timestamps) == frequency


@pytest.mark.parametrize(("frequency", "season"), SEASONS.items())
def test_a_season_is_the_cycle_that_the_frequency_goes_through(frequency: str, season: int) -> None:
    assert season_length(frequency) == season


def test_without_a_frequency_there_is_no_season() -> None:
    assert season_length(None) == 1


def test_seven_days_are_a_week() -> None:
    assert season_length("7D") == 52


def test_weekdays_with_holidays_are_business_days_without_gaps() -> None:
    timestamps = pd.bdate_range("2014-01-01", periods=60).delete([0, 13, 30])
    assert infer_frequency(timestamps) == "B"
    assert len(missing_timestamps(timestamps, "B")) == 0


def test_a_few_days_within_one_week_are_days() -> None:
    assert infer_frequency(pd.bdate_range("2014-01-06", periods=5)) == "D"


def test_missing_rows_are_found() -> None:
    timestamps = pd.date_range("2014-01-01", periods=10, freq="h")
    assert missing_timestamps(timestamps.delete([3, 4]), "h").equals(timestamps[3:5])


@pytest.mark.parametrize(
    ("alias", "name"), [("60min", "h"), ("24h", "D"), ("W", "W-SUN"), ("QE", "QE-DEC"), ("h", "h")]
)
def test_a_frequency_has_one_spelling(alias: str, name: str) -> None:
    assert resolve_frequency(alias) == name


@pytest.mark.parametrize(
    ("alias", "remedy"), [("H", "--freq h"), ("M", "--freq ME"), ("hourly", "correct --freq")]
)
def test_an_unknown_frequency_is_refused_with_the_spelling_of_today(
    alias: str, remedy: str
) -> None:
    with pytest.raises(DataError, match=f"pandas offset alias.* got '{alias}'; .*{remedy}"):
        resolve_frequency(alias)


@pytest.mark.parametrize("alias", ["-1h", "0D"])
def test_a_frequency_that_does_not_run_forwards_is_refused(alias: str) -> None:
    with pytest.raises(DataError, match=f"must run forwards: got '{alias}'"):
        resolve_frequency(alias)


def test_uneven_timestamps_are_refused() -> None:
    timestamps = pd.Timestamp("2014-01-01") + pd.to_timedelta([0, 1, 3, 7, 12, 20], unit="h")
    with pytest.raises(DataError, match=r"timestamps must be evenly spaced.* --freq none"):
        infer_frequency(pd.DatetimeIndex(timestamps))


def test_months_that_no_alias_names_are_refused() -> None:
    timestamps = pd.date_range("2014-01-15", periods=30, freq=pd.DateOffset(months=1))
    with pytest.raises(DataError, match="timestamps must be evenly spaced"):
        infer_frequency(timestamps)


def test_a_timestamp_beside_the_grid_is_named() -> None:
    timestamps = pd.date_range("2014-01-01", periods=10, freq="h")
    beside = timestamps.insert(4, timestamps[3] + pd.Timedelta(minutes=7))
    with pytest.raises(DataError, match="must keep the frequency h: 2014-01-01 03:07:00 and 0 oth"):
        missing_timestamps(beside, "h")


def test_weekends_are_no_business_days() -> None:
    with pytest.raises(DataError, match="must keep the frequency B: 2014-01-04"):
        missing_timestamps(pd.date_range("2014-01-01", periods=10), "B")


def test_a_stray_timestamp_makes_no_endless_grid() -> None:
    stray = pd.date_range("2014", periods=10, freq="s").insert(0, pd.Timestamp("1970"))
    with pytest.raises(DataError, match="at least one row in four must be there"):
        missing_timestamps(stray, "s")
