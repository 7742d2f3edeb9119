import numpy as np
import pytest

from pipelines.repairs import OUTLIER_THRESHOLD, Values, find_outliers, interpolate, repair

SEASON = 24


def wave(num_rows: int = 600, seed: int = 0) -> Values:
    """A daily wave with a little noise, [N, 1]."""
    rows = np.arange(num_rows)
    noise = np.random.default_rng(seed).normal(scale=0.1, size=num_rows)
    return np.asarray(10 + np.sin(2 * np.pi * rows / SEASON) + noise)[:, None]


def expect_slowly(values: Values, row: int, column: int, season: int) -> float:
    lags = {1, 2, 3, season, 2 * season, 3 * season}
    before = [values[row - lag, column] for lag in lags if lag <= row]
    known = [value for value in before if not np.isnan(value)]
    return float(np.median(known)) if len(known) >= 3 else np.nan


@pytest.mark.parametrize("season", [1, 2, 7, 24])
def test_the_reference_is_the_median_of_rows_before_and_of_seasons_before(season: int) -> None:
    values = np.random.default_rng(1).normal(size=(100, 2))
    values[[4, 5, 6, 30, 31, 70], [0, 0, 0, 1, 0, 1]] = np.nan
    slowly = [
        [expect_slowly(values, row, column, season) for column in (0, 1)] for row in range(100)
    ]
    np.testing.assert_array_equal(find_outliers(values, season, 60).expected, slowly)


def test_the_scale_is_the_median_deviation_of_the_training_rows_alone() -> None:
    values = wave()
    found = find_outliers(values, SEASON, 400)
    deviation = np.abs(values - found.expected)[:400]
    assert found.scale == pytest.approx(1.4826 * np.nanmedian(deviation))
    values[400:] *= 100
    assert find_outliers(values, SEASON, 400).scale == found.scale


def test_a_planted_outlier_is_found_and_nothing_else() -> None:
    values = wave()
    values[300] = 0.0
    assert np.flatnonzero(find_outliers(values, SEASON, 400).is_outlier).tolist() == [300]


def test_beyond_the_threshold_a_value_is_an_outlier_and_below_it_none() -> None:
    values = wave()
    found = find_outliers(values, SEASON, 400)
    # A later row does not move the scale, so the planted deviation is exact.
    values[450] = found.expected[450] + (OUTLIER_THRESHOLD - 0.01) * found.scale
    assert not find_outliers(values, SEASON, 400).is_outlier[450, 0]
    values[450] = found.expected[450] + (OUTLIER_THRESHOLD + 0.01) * found.scale
    assert find_outliers(values, SEASON, 400).is_outlier[450, 0]


def test_a_column_that_is_mostly_zero_has_no_outliers() -> None:
    values = np.zeros((200, 1))
    values[::7] = 5.0
    assert not find_outliers(values, 1, 200).is_outlier.any()


def test_an_outlier_is_replaced_by_what_the_rows_before_suggest_and_counts_as_measured() -> None:
    values = wave()
    values[300] = 0.0
    repaired = repair(values, (400, 500, 600), SEASON, replace_outliers=True)
    assert repaired.values[300, 0] == expect_slowly(values, 300, 0, SEASON)
    assert repaired.is_outlier[300, 0]
    assert repaired.is_observed.all()
    assert values[300, 0] == 0.0


def test_outliers_stay_where_no_repair_is_asked_for() -> None:
    values = wave()
    values[300] = 0.0
    repaired = repair(values, (400, 500, 600), SEASON, replace_outliers=False)
    np.testing.assert_array_equal(repaired.values, values)


def test_missing_values_lie_on_the_line_between_their_neighbours() -> None:
    values = np.array([[np.nan, 1.0, np.nan, np.nan, 4.0, np.nan]]).T
    assert interpolate(values)[:, 0].tolist() == [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]


def test_a_row_with_one_missing_value_is_not_observed() -> None:
    values = np.array([[1.0, 1.0], [2.0, np.nan], [3.0, 3.0], [4.0, 4.0]])
    repaired = repair(values, (4,), 1, replace_outliers=False)
    assert repaired.is_observed.tolist() == [True, False, True, True]
    assert repaired.values[1].tolist() == [2.0, 2.0]


def test_a_gap_is_not_drawn_towards_an_outlier() -> None:
    values = wave()
    values[296:300] = np.nan
    values[300] = 0.0
    repaired = repair(values, (600,), SEASON, replace_outliers=True)
    assert repaired.values[296:301].min() > 8


def test_a_gap_across_the_end_of_a_part_is_filled_from_that_part_alone() -> None:
    values = np.arange(10.0)[:, None]
    values[4:7] = np.nan
    repaired = repair(values, (5, 10), 1, replace_outliers=False)
    assert repaired.values[:, 0].tolist() == [0, 1, 2, 3, 3, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("seed", range(5))
def test_no_value_reaches_a_forecast_that_starts_before_it(seed: int) -> None:
    """At every origin, what may be read is bit-identical whatever comes after."""
    generator = np.random.default_rng(seed)
    values = np.concatenate([wave(200, seed), wave(200, seed + 9)], axis=1)
    values[generator.random(values.shape) < 0.1] = np.nan
    values[generator.integers(30, 200, 10), 0] = 0.0
    ends = (120, 160, 200)
    repaired = repair(values, ends, SEASON, replace_outliers=True)
    for origin in range(120, 200):
        if not repaired.is_observed[origin - 1]:
            continue
        altered = values.copy()
        altered[origin:] = generator.normal(scale=1e3, size=altered[origin:].shape)
        other = repair(altered, ends, SEASON, replace_outliers=True)
        np.testing.assert_array_equal(other.values[:origin], repaired.values[:origin])
        np.testing.assert_array_equal(other.is_observed[:origin], repaired.is_observed[:origin])
