"""Contracts of the inspection: every figure against its loop, over all that was measured."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch import Tensor

from pipelines.baselines import persistence, seasonal_naive
from pipelines.contenders import Contender
from pipelines.inspection import autocorrelation, inspect
from pipelines.scaling import Scaling
from pipelines.splits import TestData
from pipelines.verdict import Inspection
from pipelines.windows import Windows

MakeTestData = Callable[..., TestData]
MODEL = Contender("model", "", 10, True, persistence)
BASELINE = Contender("season", "", 30, False, seasonal_naive)


def inspected(test: TestData, model: Contender = MODEL) -> Inspection:
    return inspect(model, BASELINE, test, Scaling.fit(test))


def errors_of_persistence(test: TestData) -> dict[tuple[int, int, int], float]:
    """Absolute standardised error by origin, step and target, where there was a measurement."""
    scale = Scaling.fit(test).target_scale
    return {
        (t, step, target): abs(error) / scale[target]
        for t in range(test.first_test_row, test.num_rows - test.horizon + 1)
        if test.is_observed[t - 1]
        for step in range(test.horizon)
        for target in range(test.num_targets)
        if not np.isnan(error := test.values[t - 1, target] - test.truth[t + step, target])
    }


def with_gaps(make_test_data: MakeTestData, **changes: Any) -> TestData:
    """Two targets, some of their measurements missing."""
    test = make_test_data(targets=("load", "heat"), **changes)
    test.truth[[85, 90, 91, 110], 0] = np.nan
    test.truth[100:104, 1] = np.nan
    test.is_observed[[85, 90, 91, 110, *range(100, 104)]] = False
    return test


def mean_over_targets(
    errors: dict[tuple[int, int, int], float], is_in: Callable[[int], bool]
) -> float:
    by_target = [
        [error for (t, step, target), error in errors.items() if target == each and is_in(t + step)]
        for each in (0, 1)
    ]
    return float(np.mean([np.mean(each) for each in by_target if each]))


def test_errors_by_hour_and_weekday_are_those_of_the_rows_forecast(
    make_test_data: MakeTestData,
) -> None:
    test = with_gaps(make_test_data)
    found, errors = inspected(test), errors_of_persistence(test)
    assert test.timestamps is not None
    hours, days = test.timestamps.hour, test.timestamps.strftime("%a")
    assert list(found.by_hour) == [f"{hour:02d}" for hour in range(24)]
    for name, error in found.by_hour.items():
        expected = mean_over_targets(errors, lambda row, hour=int(name): hours[row] == hour)
        assert error == pytest.approx(expected, rel=1e-12)
    assert list(found.by_weekday) == ["Thu", "Fri"]  # rows 80 to 119 from a Monday on
    for name, error in found.by_weekday.items():
        expected = mean_over_targets(errors, lambda row, day=name: days[row] == day)
        assert error == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("frequency", "has_hours", "has_weekdays"),
    [
        ("30min", True, True),
        ("12h", True, True),
        ("D", False, True),
        ("B", False, True),
        ("W-TUE", False, False),
        ("7D", False, False),
        ("MS", False, False),
        ("YE-DEC", False, False),
    ],
)
def test_hours_and_weekdays_are_shown_where_rows_are_parts_of_them(
    make_test_data: MakeTestData, frequency: str, has_hours: bool, has_weekdays: bool
) -> None:
    timestamps = pd.date_range("2024-01-01", periods=120, freq=frequency)
    found = inspected(make_test_data(frequency=frequency, timestamps=timestamps))
    assert (bool(found.by_hour), bool(found.by_weekday)) == (has_hours, has_weekdays)


def test_without_timestamps_there_are_no_hours_and_examples_are_named_by_their_row(
    make_test_data: MakeTestData,
) -> None:
    found = inspected(make_test_data(frequency=None, timestamps=None))
    assert (found.by_hour, found.by_weekday) == ({}, {})
    rows = [int(example.origin.removeprefix("row ")) for example in found.examples]
    assert all(81 <= row <= 117 for row in rows)


def test_one_step_errors_have_their_textbook_autocorrelation(make_test_data: MakeTestData) -> None:
    test = make_test_data()
    found = inspected(test)
    errors = [test.values[t - 1, 0] - test.truth[t, 0] for t in range(80, 117)]
    mean = np.mean(errors)
    power = sum((error - mean) ** 2 for error in errors)
    assert len(found.residual_autocorrelation) == 12  # two seasons
    for lag, correlation in enumerate(found.residual_autocorrelation, start=1):
        products = [(errors[t] - mean) * (errors[t - lag] - mean) for t in range(lag, len(errors))]
        assert correlation == pytest.approx(sum(products) / power, abs=1e-12)
    assert found.autocorrelation_bound == pytest.approx(1.96 / np.sqrt(37))


def test_white_noise_stays_within_its_bound_and_a_pattern_does_not() -> None:
    noise = np.random.default_rng(0).normal(size=5000)
    correlations, bound = autocorrelation(noise, 200)
    assert bound is not None
    assert len(correlations) == 200
    assert 0.9 < np.mean(np.abs(correlations) < bound) < 0.99
    seasonal = noise + np.sin(2 * np.pi * np.arange(5000) / 24)
    assert autocorrelation(seasonal, 24)[0][23] > 5 * bound


def test_gaps_in_the_errors_change_their_autocorrelation_little() -> None:
    generator = np.random.default_rng(0)
    noise = generator.normal(size=5001)
    errors = noise[1:] + noise[:-1]  # correlated by one half at lag 1 and by nothing beyond
    errors[generator.integers(5000, size=100)] = np.nan
    correlations, _ = autocorrelation(errors, 3)
    assert correlations == pytest.approx((0.5, 0, 0), abs=0.05)


@pytest.mark.parametrize(
    "errors",
    [np.full(50, 0.1), np.full(50, np.nan), np.array([1.0, 2.0]), np.array([])],
    ids=["all equal", "nothing measured", "too few", "none"],
)
def test_errors_that_have_no_autocorrelation_get_none(errors: np.ndarray) -> None:
    assert autocorrelation(errors, 10) == ((), None)


def test_lags_end_at_200_and_before_half_the_errors(make_test_data: MakeTestData) -> None:
    assert len(inspected(make_test_data(season=30)).residual_autocorrelation) == 18
    assert len(inspected(make_test_data(season=1)).residual_autocorrelation) == 8  # two horizons
    assert len(autocorrelation(np.arange(1000.0), 500)[0]) == 499


def test_examples_show_history_truth_and_both_forecasts(make_test_data: MakeTestData) -> None:
    test = with_gaps(make_test_data)
    found, errors = inspected(test), errors_of_persistence(test)
    assert [example.kind for example in found.examples] == ["best", "best", "typical", "worst"]
    for example in found.examples:
        assert test.timestamps is not None
        t = test.timestamps.get_loc(pd.Timestamp(example.origin))
        assert isinstance(t, int)
        assert example.history == tuple(
            None if np.isnan(value) else value for value in test.truth[t - 12 : t, 0]
        )
        assert example.truth == tuple(test.truth[t : t + 4, 0])
        assert example.forecast == (test.values[t - 1, 0],) * 4
        assert example.best_baseline == tuple(test.values[t - 6 : t - 2, 0])
        own = [error for (origin, *_), error in errors.items() if origin == t]
        assert example.error == pytest.approx(np.mean(own))


def test_an_inspection_is_json_and_comes_back(make_test_data: MakeTestData) -> None:
    found = inspected(with_gaps(make_test_data))
    text = json.dumps(found.model_dump(mode="json"), allow_nan=False)
    assert Inspection.model_validate_json(text) == found


def test_forecasts_are_asked_for_in_batches(
    make_test_data: MakeTestData, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def noted(windows: Windows, origins: Tensor) -> Tensor:
        sizes.append(len(origins))
        return persistence(windows, origins)

    test = make_test_data()
    whole = inspected(test)
    monkeypatch.setattr("pipelines.inspection.EVALUATION_BATCH_SIZE", 10)
    assert inspected(test, Contender("model", "", 10, True, noted)) == whole
    assert sizes == [10, 10, 10, 7, 6]  # the last for the examples
