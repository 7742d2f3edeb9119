import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.series import DataConfig, DataError, SeriesTable, load, main


def hourly(num_rows: int = 300, seed: int = 0) -> pd.DataFrame:
    """A daily wave with noise in the columns timestamp and load."""
    timestamps = pd.date_range("2014-01-01", periods=num_rows, freq="h")
    noise = np.random.default_rng(seed).normal(scale=0.1, size=num_rows)
    load = 10 + np.sin(2 * np.pi * np.arange(num_rows) / 24) + noise
    return pd.DataFrame({"timestamp": timestamps.astype("str"), "load": load})


def note(table: SeriesTable, pattern: str) -> str:
    """The one note that the pattern is found in."""
    found = [line for line in table.notes if re.search(pattern, line)]
    assert len(found) == 1, table.notes
    return found[0]


def test_without_a_file_the_embedded_table_is_read() -> None:
    table = load(DataConfig())
    assert (table.name, table.targets, table.columns) == (
        "electricity_hourly_2014",
        ("load",),
        ("load",),
    )
    assert (table.frequency, table.season, table.horizon) == ("h", 24, 24)
    assert table.series[0].values.shape == (8760, 1)
    assert table.outliers == "hampel"


def test_the_glitch_of_the_embedded_table_is_noticed() -> None:
    line = note(load(DataConfig()), "suspicious rows: 2 of 8,760")
    assert "the first 2014-03-30 01:00:00, where load is 5.85" in line
    assert "replaced before training, never in what a forecast is scored on" in line


def test_an_outlier_of_another_table_is_noticed_with_the_flag_that_repairs_it() -> None:
    frame = hourly()
    frame.loc[200, "load"] = 500.0
    table = load(DataConfig(), frame)
    assert table.outliers == "none"
    assert table.series[0].values[200, 0] == 500.0
    line = note(table, "suspicious rows: 1 of 300, the first 2014-01-09 08:00:00")
    assert "--set data.outliers=hampel" in line


def test_a_file_is_named_after_itself_and_described_first(tmp_path: Path) -> None:
    hourly().to_csv(tmp_path / "heat.csv", index=False)
    table = load(DataConfig(path=str(tmp_path / "heat.csv")))
    assert table.name == "heat"
    assert table.notes[0] == (
        "300 rows, 2014-01-01 00:00:00 to 2014-01-13 11:00:00, frequency h, season 24"
    )


def test_gzip_parquet_and_urls_give_the_same_table(tmp_path: Path) -> None:
    frame = hourly().assign(timestamp=lambda table: pd.to_datetime(table["timestamp"]))
    frame.to_csv(tmp_path / "load.csv", index=False)
    frame.to_csv(tmp_path / "load.csv.gz", index=False)
    frame.to_parquet(tmp_path / "load.parquet")
    places = [str(tmp_path / name) for name in ("load.csv", "load.csv.gz", "load.parquet")]
    tables = [load(DataConfig(path=path)) for path in (*places, f"file://{places[0]}")]
    assert {table.name for table in tables} == {"load"}
    assert len({table.fingerprint for table in (*tables, load(DataConfig(), frame))}) == 1


@pytest.mark.parametrize(
    "change",
    [{"horizon": 5}, {"season": 12}, {"outliers": "hampel"}, {"target_transform": "log"}],
    ids=str,
)
def test_another_reading_has_another_fingerprint(change: dict[str, object]) -> None:
    config = DataConfig()
    other = config.model_copy(update=change)
    assert load(config, hourly()).fingerprint != load(other, hourly()).fingerprint


def test_another_value_has_another_fingerprint() -> None:
    frame = hourly()
    before = load(DataConfig(), frame).fingerprint
    changed = frame.assign(load=[*frame["load"][:-1], 10.0])
    assert load(DataConfig(), changed).fingerprint != before


def test_targets_come_first_and_other_numbers_are_inputs() -> None:
    frame = hourly().assign(wind=hourly(seed=1)["load"], heat=hourly(seed=2)["load"])
    table = load(DataConfig(targets=("heat",)), frame)
    assert (table.targets, table.columns) == (("heat",), ("heat", "load", "wind"))
    np.testing.assert_array_equal(table.series[0].values[:, 0], frame["heat"])


def test_300_monthly_rows_just_work() -> None:
    months = pd.date_range("1990-01-01", periods=300, freq="MS")
    frame = pd.DataFrame({"month": months.astype("str"), "sales": hourly()["load"]})
    table = load(DataConfig(), frame)
    assert (table.frequency, table.season, table.horizon) == ("MS", 12, 12)
    note(table, "horizon 12: one season; change it with --horizon")


def test_daily_closes_with_holidays_are_business_days() -> None:
    days = pd.bdate_range("2014-01-01", "2014-12-31").delete([0, 12, 34, 76, 256])
    prices = {name: hourly(len(days), seed)["load"] for seed, name in enumerate("abcde")}
    columns = dict(zip(prices, ("Open", "High", "Low", "Close", "Adj Close"), strict=True))
    frame = pd.DataFrame({"Date": days.astype("str"), **prices}).rename(columns=columns)
    table = load(DataConfig(), frame)
    assert (table.frequency, table.season, table.targets) == ("B", 5, ("Adj Close",))
    assert len(table.series[0].values) == len(days)
    note(table, "business days: 4 weekdays without a row are taken for holidays")


def test_a_season_too_long_for_a_short_table_makes_a_narrower_horizon() -> None:
    weeks = pd.date_range("2014-01-05", periods=100, freq="W")
    frame = pd.DataFrame({"week": weeks, "sales": hourly(100)["load"]})
    table = load(DataConfig(), frame)
    assert (table.season, table.horizon) == (52, 5)
    note(table, "horizon 5: one season is 52, narrowed since the table has 100 rows")


def test_without_a_season_the_horizon_is_one() -> None:
    years = pd.date_range("1900-01-01", periods=100, freq="YS")
    table = load(DataConfig(), pd.DataFrame({"year": years, "sales": hourly(100)["load"]}))
    assert (table.season, table.horizon) == (1, 1)
    note(table, "horizon 1: no season is known")


def test_a_given_season_and_horizon_are_taken() -> None:
    table = load(DataConfig(season=12, horizon=7), hourly())
    assert (table.season, table.horizon) == (12, 7)


def test_with_row_order_as_time_nothing_is_known_of_the_calendar() -> None:
    frame = hourly().drop(index=[3, 4]).assign(timestamp=["x", "x"] * 149)
    table = load(DataConfig(frequency="none"), frame)
    assert (table.frequency, table.season, len(table.series[0].values)) == (None, 1, 298)
    assert table.series[0].timestamps is None
    note(table, "row order is time")


def test_disorder_is_sorted_and_said() -> None:
    frame = hourly()
    order = [*range(10), 12, 11, 10, *range(13, 300)]
    table = load(DataConfig(), frame.iloc[order].reset_index(drop=True))
    np.testing.assert_array_equal(table.series[0].values[:, 0], frame["load"])
    note(table, "rows sorted by time: row 12 came before its time")


def test_missing_rows_and_values_are_kept_missing_where_they_are_to_be_interpolated() -> None:
    frame = hourly().drop(index=[50, 51])
    frame.loc[70, "load"] = np.nan
    frame.loc[80, "load"] = np.inf
    table = load(DataConfig(missing="interpolate"), frame)
    assert np.flatnonzero(np.isnan(table.series[0].values)).tolist() == [50, 51, 70, 80]
    note(table, "missing rows, to be interpolated: 2, the first 2014-01-03 02:00:00")
    note(table, "missing values, to be interpolated: 2 in column load, the first in row ")


def test_one_series_of_several_is_chosen() -> None:
    frame = pd.concat(
        [hourly(seed=seed).assign(item_id=name) for seed, name in enumerate("ab")]
    ).rename(columns={"load": "target"})
    table = load(DataConfig(series="b"), frame)
    assert table.series[0].id == "b"
    np.testing.assert_array_equal(table.series[0].values[:, 0], hourly(seed=1)["load"])


def test_a_glob_holds_one_series_a_file(tmp_path: Path) -> None:
    for seed, name in enumerate(("north", "south")):
        hourly(seed=seed).to_csv(tmp_path / f"{name}.csv", index=False)
    path = str(tmp_path / "*.csv")
    with pytest.raises(DataError, match=r"holds 2, north, south; .*--set data\.series=north$"):
        load(DataConfig(path=path))
    table = load(DataConfig(path=path, series="south"))
    np.testing.assert_allclose(table.series[0].values[:, 0], hourly(seed=1)["load"])


def test_a_choice_of_series_is_an_error_with_the_first_ten_ids_and_a_command() -> None:
    ids = [f"s{number}" for number in range(12)]
    frame = pd.DataFrame({"unique_id": ids, "ds": ["2014-01-01"] * 12, "y": range(12)})
    with pytest.raises(
        DataError,
        match=r"column unique_id holds 12, s0, .*, s9 and 2 more; choose: python -m search\.run "
        r"--data t\.csv --set data\.series=s0$",
    ):
        load(DataConfig(path="t.csv"), frame)


def test_a_series_that_is_missing_is_an_error_with_the_nearest_id_first() -> None:
    frame = hourly().assign(unique_id=["north", "south"] * 150)
    with pytest.raises(DataError, match=r"there is no 'soth' in .* the ids are south, north"):
        load(DataConfig(series="soth"), frame)


def test_a_series_cannot_be_chosen_without_ids() -> None:
    with pytest.raises(DataError, match="got series=a and no column unique_id"):
        load(DataConfig(series="a"), hourly())


def test_duplicates_are_refused_with_timestamp_and_row() -> None:
    frame = hourly()
    frame.loc[7, "timestamp"] = "2014-01-01 06:00:00"
    with pytest.raises(DataError, match="unique: 2014-01-01 06:00:00 comes again in row 8 "):
        load(DataConfig(), frame)


def test_gaps_are_refused_with_their_number_the_first_and_the_remedy() -> None:
    with pytest.raises(
        DataError,
        match=r"2 are missing, the first 2014-01-03 02:00:00, after row 50 .*"
        r"--set data\.missing=interpolate",
    ):
        load(DataConfig(), hourly().drop(index=[50, 51]))


def test_another_frequency_than_that_of_the_rows_is_refused() -> None:
    with pytest.raises(DataError, match="must keep the frequency D: 2014-01-01 01:00:00"):
        load(DataConfig(frequency="D"), hourly())


@pytest.mark.parametrize("num_rows", [2, 60])
def test_too_few_rows_are_refused(num_rows: int) -> None:
    with pytest.raises(DataError, match=rf"must have .* got {num_rows}.* more"):
        load(DataConfig(horizon=20), hourly(num_rows))


def test_the_printed_understanding_has_every_note(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("electricity_hourly_2014 (load)\n")
    assert all(line in printed for line in load(DataConfig()).notes)


def test_a_table_that_cannot_be_used_ends_with_2_and_its_remedy_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "load.csv")
    hourly().drop(index=[50, 51]).to_csv(path, index=False)
    assert main([path]) == 2
    assert "--set data.missing=interpolate" in capsys.readouterr().err
    assert main([path, "--set", "data.missing=interpolate"]) == 0


def test_a_wrong_setting_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--horizon", "0"]) == 2
    assert "horizon" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("assignment", "word"),
    [
        ("data.missing=drop", "data.missing"),
        ("data.nothing=1", "data.nothing"),
        ("data.season=[", "not valid YAML"),
        ("data.horizon=2014-01-01", "data.horizon"),
        ("data.series=\x1b[2J", "not valid YAML"),
    ],
)
def test_a_wrong_setting_is_one_line(
    assignment: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--set", assignment]) == 2
    error = capsys.readouterr().err
    assert word in error
    assert error.rstrip("\n").isprintable()
