import dataclasses

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from pipelines.series import DataConfig, DataError, SeriesTable, load
from pipelines.splits import SealedTest, SearchData, SplitConfig, rolling_splits, split

ARRAYS = ("values", "truth", "is_observed", "known")


def frame(num_rows: int = 1000, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    wave = np.sin(2 * np.pi * np.arange(num_rows) / 24)
    return pd.DataFrame(
        {
            "timestamp": pd.date_range("2014-01-01", periods=num_rows, freq="h"),
            "load": 10 + wave + generator.normal(scale=0.1, size=num_rows),
            "heat": 20 - wave + generator.normal(scale=0.1, size=num_rows),
        }
    )


def table(rows: pd.DataFrame | None = None, **settings: object) -> SeriesTable:
    config = DataConfig.model_validate({"targets": ("load",), "horizon": 24, **settings})
    return load(config, frame() if rows is None else rows)


def sizes(config: SplitConfig) -> tuple[int, int, int]:
    search, sealed = split(table(), config)
    return search.num_train_rows, search.num_rows - search.num_train_rows, sealed.num_rows


def test_by_default_70_10_and_20_in_a_hundred_rows_follow_each_other() -> None:
    assert sizes(SplitConfig()) == (700, 100, 200)


def test_row_counts_may_leave_rows_unused() -> None:
    assert sizes(SplitConfig(train=500, validation=100, test=150)) == (500, 100, 150)


def test_a_date_is_the_last_of_its_part_and_stands_for_the_whole_day() -> None:
    dates = SplitConfig(train="2014-01-20", validation="2014-01-25 11:00", test="2014-02")
    assert sizes(dates) == (480, 108, 412)


def test_a_recorded_split_rebuilds_the_same_object() -> None:
    for config in (SplitConfig(), SplitConfig(train=8640, validation=2880, test=2880)):
        assert SplitConfig.model_validate_json(config.model_dump_json()) == config


def test_search_data_describes_the_table_up_to_the_test_part() -> None:
    search, _ = split(table(), SplitConfig())
    assert (search.columns, search.targets) == (("load", "heat"), ("load",))
    assert (search.num_rows, search.num_features, search.num_targets) == (800, 2, 1)
    np.testing.assert_array_equal(search.values, frame()[["load", "heat"]][:800])
    np.testing.assert_array_equal(search.truth, frame()[["load"]][:800])
    assert search.known.shape == (800, len(search.known_names)) == (800, 8)
    assert search.notes[-1] == "split: train 700 rows, validation 100 rows"


def test_the_opened_test_part_continues_the_search_data() -> None:
    rows = frame()
    rows.loc[[300, 750, 900], "load"] = [0.0, np.nan, 0.0]
    search, sealed = split(table(rows, missing="interpolate", outliers="hampel"), SplitConfig())
    opened = sealed.open()
    assert (opened.first_test_row, opened.num_rows) == (800, 1000)
    assert opened.num_train_rows == search.num_train_rows
    assert opened.fingerprint == sealed.fingerprint == search.fingerprint
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(opened, name)[:800], getattr(search, name))


def test_search_data_and_test_data_are_different_types() -> None:
    _, sealed = split(table(), SplitConfig())
    assert not isinstance(sealed.open(), SearchData)


def test_nothing_of_search_data_holds_the_memory_of_a_test_row() -> None:
    search, _ = split(table(), SplitConfig())
    for name in ARRAYS:
        array = getattr(search, name)
        assert len(array) == 800
        assert array.base is None


def test_a_sealed_test_shows_its_size_and_fingerprints_alone() -> None:
    _, sealed = split(table(), SplitConfig())
    assert repr(sealed) == (
        f"SealedTest(num_rows=200, fingerprint='{sealed.fingerprint}', "
        f"test_fingerprint='{sealed.test_fingerprint}')"
    )
    public = [name for name in dir(sealed) if not name.startswith("_")]
    assert public == ["fingerprint", "num_rows", "open", "test_fingerprint"]
    assert isinstance(sealed, SealedTest)


def test_the_opened_test_part_has_timestamps_which_search_data_lacks() -> None:
    search, sealed = split(table(), SplitConfig(train=500, validation=100, test=150))
    timestamps = sealed.open().timestamps
    assert timestamps is not None
    assert timestamps.tolist() == frame()["timestamp"][:750].tolist()
    assert not hasattr(search, "timestamps")
    assert split(table(frequency="none"), SplitConfig())[1].open().timestamps is None


def seal(rows: pd.DataFrame, config: SplitConfig | None = None, **settings: object) -> str:
    """The fingerprint of the test part alone."""
    return split(table(rows, **settings), config or SplitConfig())[1].test_fingerprint


def test_a_test_part_is_known_again_whatever_else_the_table_holds() -> None:
    rows = frame()
    expected = seal(rows)
    assert seal(rows.drop(columns="heat")) == expected
    assert seal(rows.assign(heat=-rows["heat"])) == expected
    assert seal(rows.assign(load=rows["load"].where(rows.index >= 800, 7.0))) == expected
    assert seal(rows, SplitConfig(train=400, validation=400, test=200)) == expected
    assert seal(rows, target_transform="log", season=12, outliers="hampel") == expected
    assert seal(rows.iloc[300:], SplitConfig(train=300, validation=200, test=200)) == expected


def test_another_test_part_has_another_fingerprint() -> None:
    rows = frame()
    changed = rows.copy()
    changed.loc[999, "load"] += 1e-9
    later = rows.assign(timestamp=rows["timestamp"] + pd.Timedelta(days=1))
    shorter = SplitConfig(train=700, validation=100, test=199)
    fingerprints = [
        seal(rows),
        seal(changed),
        seal(later),
        seal(rows, shorter),
        seal(rows.rename(columns={"load": "power"}), targets=("power",)),
        seal(rows, targets=("heat",)),
        seal(rows, targets=("load", "heat")),
        seal(rows, frequency="none"),
    ]
    assert len(set(fingerprints)) == len(fingerprints)


def test_rolling_splits_step_back_by_the_validation_part_and_end_with_the_configured_split() -> (
    None
):
    folds = rolling_splits(table(), SplitConfig())
    assert [(fold.num_train_rows, fold.num_rows) for fold in folds] == [
        (500, 600),
        (600, 700),
        (700, 800),
    ]
    search, _ = split(table(), SplitConfig())
    assert folds[-1].fingerprint == search.fingerprint
    for name in ARRAYS:
        assert getattr(folds[-1], name).tobytes() == getattr(search, name).tobytes()
        assert [len(getattr(fold, name)) for fold in folds] == [600, 700, 800]
    assert len({fold.fingerprint for fold in folds}) == 3


def test_the_earliest_training_part_is_at_least_half_the_latest() -> None:
    folds = rolling_splits(table(), SplitConfig(train=0.4, validation=0.4, test=0.2))
    assert [(fold.num_train_rows, fold.num_rows) for fold in folds] == [
        (200, 600),
        (300, 700),
        (400, 800),
    ]


def test_every_rolling_split_has_the_calendar_of_the_configured_one() -> None:
    days = pd.date_range("2014-01-01", periods=1400, freq="D")
    rows = pd.DataFrame({"when": days, "load": np.sin(np.arange(1400))})
    folds = rolling_splits(table(rows), SplitConfig(train=800, validation=200, test=400))
    assert [fold.num_train_rows for fold in folds] == [400, 600, 800]  # two years have 730
    assert "day_of_year_sin" in folds[-1].known_names
    assert {fold.known_names for fold in folds} == {folds[-1].known_names}


@pytest.mark.parametrize("place", [0, 1])
def test_no_value_after_an_earlier_origin_reaches_its_data(place: int) -> None:
    settings = {"missing": "interpolate", "outliers": "hampel"}
    end = (600, 700)[place]
    rows = planted(end)
    fold = rolling_splits(table(rows, **settings), SplitConfig())[place]
    other = rolling_splits(table(altered(rows, end), **settings), SplitConfig())[place]
    assert not fold.is_observed[end - 3 : end].any()
    for name in ARRAYS:
        assert getattr(fold, name).tobytes() == getattr(other, name).tobytes(), name
    train = planted(end - 100)
    fold = rolling_splits(table(train, **settings), SplitConfig())[place]
    other = rolling_splits(table(altered(train, end - 100), **settings), SplitConfig())[place]
    for name in ARRAYS:
        before, after = getattr(fold, name)[: end - 100], getattr(other, name)[: end - 100]
        assert before.tobytes() == after.tobytes(), name


def test_an_earlier_origin_is_the_split_of_a_table_that_ends_there() -> None:
    rows = planted(650)
    settings = {"missing": "interpolate", "outliers": "hampel"}
    fold = rolling_splits(table(rows, **settings), SplitConfig())[1]
    shorter = SplitConfig(train=600, validation=100, test=50)
    search, _ = split(table(rows[:750], **settings), shorter)
    for name in ARRAYS:
        assert getattr(fold, name).tobytes() == getattr(search, name).tobytes(), name
    assert fold.notes[-3:] == search.notes[-3:]


def emptied(column: str, first: int, last: int) -> pd.DataFrame:
    """Rows without a value of one column in some of them."""
    rows = frame()
    rows.loc[first:last, column] = np.nan
    return rows


@pytest.mark.parametrize(
    ("rows", "longest_lookback", "expected"),
    [
        (frame(), 600, [700]),
        (frame(), 552, [600, 700]),
        (frame(), 452, [500, 600, 700]),
        (emptied("heat", 0, 550), 0, [600, 700]),
        (emptied("load", 500, 599), 0, [600, 700]),
        (emptied("heat", 499, 590), 0, [600, 700]),
    ],
    ids=[
        "windows fit into the last alone",
        "windows fit into two",
        "windows just fit",
        "an input is never measured before",
        "nothing to score a forecast by",
        "no row to start a forecast after",
    ],
)
def test_origins_that_cannot_be_trained_on_or_scored_are_left_out(
    rows: pd.DataFrame, longest_lookback: int, expected: list[int]
) -> None:
    folds = rolling_splits(
        table(rows, missing="interpolate"), SplitConfig(), longest_lookback=longest_lookback
    )
    assert [fold.num_train_rows for fold in folds] == expected


@pytest.mark.parametrize("count", [1, 2, 5])
def test_as_many_origins_come_as_are_asked_for(count: int) -> None:
    folds = rolling_splits(table(horizon=4), SplitConfig(), count)
    assert len(folds) == count
    assert folds[-1].num_train_rows == 700


def test_a_table_of_few_rows_has_one_origin() -> None:
    few = table(frame(9), horizon=1, season=1)
    folds = rolling_splits(few, SplitConfig(train=3, validation=3, test=3))
    assert [fold.num_train_rows for fold in folds] == [3]


def altered(rows: pd.DataFrame, cut: int) -> pd.DataFrame:
    """The rows with every value from the cut on another one."""
    other = rows.copy()
    other.loc[cut:, "load"] = 1e4 * frame(seed=1)["load"][cut:]
    other.loc[cut:, "heat"] = -1e4 * frame(seed=1)["heat"][cut:]
    return other


def planted(cut: int) -> pd.DataFrame:
    """Rows with a gap across the cut and an outlier on each side of it."""
    rows = frame()
    rows.loc[[cut - 40, cut + 4], "load"] = 0.0
    rows.loc[cut - 3 : cut + 2, "load"] = np.nan
    return rows


@pytest.mark.parametrize("cut", [700, 800], ids=["training rows", "search rows"])
def test_no_value_after_a_cut_reaches_the_rows_before_it(cut: int) -> None:
    rows = planted(cut)
    settings = {"missing": "interpolate", "outliers": "hampel"}
    search, _ = split(table(rows, **settings), SplitConfig())
    other, _ = split(table(altered(rows, cut), **settings), SplitConfig())
    assert not search.is_observed[cut - 3 : cut].any()
    for name in ARRAYS:
        before, after = getattr(search, name)[:cut], getattr(other, name)[:cut]
        assert before.tobytes() == after.tobytes(), name
    assert search.fingerprint != other.fingerprint


def test_truth_is_never_repaired() -> None:
    rows = planted(800)
    settings = {"missing": "interpolate", "outliers": "hampel"}
    search, sealed = split(table(rows, **settings), SplitConfig())
    opened = sealed.open()
    np.testing.assert_array_equal(opened.truth[:, 0], rows["load"])
    assert np.isfinite(opened.values).all()
    assert abs(opened.values[760, 0] - 10) < 2
    assert any("missing values interpolated: 3, the first load" in line for line in search.notes)
    assert any("outliers replaced" in line and ": 1, the first" in line for line in search.notes)
    assert any("missing values interpolated: 6, the first load" in line for line in opened.notes)


def test_the_glitch_of_the_embedded_table_is_replaced_in_what_is_read_alone() -> None:
    search, _ = split(load(DataConfig()), SplitConfig())
    glitch = int(np.flatnonzero(search.truth[:, 0] == 5.85)[0])
    assert search.values[glitch, 0] == pytest.approx(1468.74, abs=0.01)
    assert np.flatnonzero(search.values != search.truth).tolist() == [glitch]
    assert search.is_observed.all()


def test_with_row_order_as_time_nothing_is_known_ahead() -> None:
    search, _ = split(table(frequency="none"), SplitConfig())
    assert search.known.shape == (800, 0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SplitConfig(train=0.9, validation=0.02, test=0.08), "validation part: got horizon=24 and"),
        (SplitConfig(train=24, validation=100, test=100), "train part: got horizon=24 and 24 rows"),
        (SplitConfig(train=0.8, validation=0.18, test=0.02), "test part: got horizon=24 and 20"),
        (SplitConfig(train=900, validation=90, test=50), "fit into the table: .* 1040, and 1000"),
        (SplitConfig(train="2014-02", validation="2014-01", test="2014-03"), "and 0 rows"),
        (SplitConfig(train="x", validation="2014-01", test="2014-03"), "date such as .* got 'x'"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(config: SplitConfig, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split(table(), config)


def test_a_split_by_dates_needs_timestamps() -> None:
    dates = SplitConfig(train="2014-01-20", validation="2014-01-25", test="2014-02")
    with pytest.raises(DataError, match="a split by dates needs timestamps"):
        split(table(frequency="none"), dates)


def test_a_column_without_values_to_train_on_is_refused() -> None:
    rows = frame()
    rows.loc[:750, "heat"] = np.nan
    with pytest.raises(DataError, match="heat has none in its 700 rows"):
        split(table(rows, missing="interpolate"), SplitConfig())


def test_two_series_are_not_split() -> None:
    one = table()
    two = dataclasses.replace(one, series=one.series * 2)
    with pytest.raises(DataError, match="a split takes one series: got 2"):
        split(two, SplitConfig())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('{"train": 800}', "must all be shares"),
        ('{"train": 0.9}', "sum to at most 1: .* together 1.2"),
        ('{"validation": 0.0}', "must be positive"),
        ('{"trian": 0.5}', "trian"),
    ],
)
def test_a_contradictory_split_is_refused(settings: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SplitConfig.model_validate_json(settings)


def test_the_shape_of_windows_follows_table_and_choices() -> None:
    data, _ = split(table(), SplitConfig())
    shape = data.window_shape(lookback=24, use_calendar=False)
    assert (shape.lookback, shape.horizon, shape.season) == (24, data.horizon, data.season)
    assert (shape.num_features, shape.num_targets, shape.num_known) == (2, 1, 0)
    assert data.window_shape(24, use_calendar=True).num_known == len(data.known_names) > 0
