"""Contracts of the choice of windows to look at."""

import itertools

import numpy as np
import pytest

from pipelines.example_windows import choose_examples


def chosen(
    errors: np.ndarray, is_whole: np.ndarray | None = None, horizon: int = 1
) -> dict[str, list[int]]:
    """The places by kind."""
    is_whole = np.full(len(errors), True) if is_whole is None else is_whole
    found: dict[str, list[int]] = {"best": [], "typical": [], "worst": []}
    for example in choose_examples(errors, is_whole, 100 + np.arange(len(errors)), horizon):
        assert example.error == errors[example.place]
        found[example.kind].append(example.place)
    return found


def test_best_and_worst_are_the_extremes_and_typical_lies_at_the_median() -> None:
    errors = np.array([5.0, 1.0, 9.0, 4.5, 2.0, 8.0, 5.5, 3.0, 7.0])
    assert chosen(errors) == {"best": [1, 4], "typical": [0, 3], "worst": [2, 5]}


def test_no_two_windows_forecast_the_same_row() -> None:
    errors = np.random.default_rng(0).normal(size=300).cumsum()
    errors -= errors.min()
    places = sorted(itertools.chain(*chosen(errors, horizon=24).values()))
    assert len(places) == 6
    assert min(np.diff(places)) >= 24


def test_windows_with_gaps_in_the_truth_are_left_out_where_others_are_there() -> None:
    errors = np.array([0.0, 1.0, 2.0, 3.0, np.nan])
    some = np.array([False, True, True, False, False])
    assert chosen(errors, some) == {"best": [1], "typical": [2], "worst": []}
    none = np.full(5, False)
    assert chosen(errors, none) == {"best": [0, 2], "typical": [1], "worst": [3]}


@pytest.mark.parametrize("num_windows", [0, 1, 2, 3, 4, 6, 7])
def test_few_windows_give_fewer_examples_and_each_kind_one_before_any_two(num_windows: int) -> None:
    found = chosen(np.arange(num_windows, dtype=float))
    counts = [len(places) for places in found.values()]
    assert sum(counts) == min(num_windows, 6)
    assert max(counts) - min(counts) <= 1
