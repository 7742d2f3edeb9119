"""What the controls of the gate plant."""

import numpy as np
import pytest

from benchmarks.controls import KINDS, NUM_ROWS, SEASON, logistic_heights, run_control


def test_planted_heights_are_foretold_by_a_parabola_and_by_no_line() -> None:
    heights = logistic_heights(0.3, 1000)
    before, after = heights[:-1], heights[1:]
    np.testing.assert_allclose(after, 4 * before * (1 - before))
    assert abs(np.corrcoef(before, after)[0, 1]) < 0.1
    assert 0 < heights.min() < 0.05 < 0.95 < heights.max() < 1


@pytest.mark.parametrize("kind", ["white noise", "random walk", "planted"])
def test_a_series_is_made_anew_from_its_seed_alone(kind: str) -> None:
    make = KINDS[kind]
    assert len(make(0)) == NUM_ROWS
    assert NUM_ROWS % SEASON == 0
    np.testing.assert_array_equal(make(0), make(0))
    assert not np.allclose(make(0), make(1))


@pytest.mark.slow
def test_returns_are_those_of_the_sp_500() -> None:
    returns = KINDS["returns"](0)
    assert len(returns) == 5030
    assert returns.min() == pytest.approx(-9.47, abs=0.01)  # 15 October 2008


@pytest.mark.slow
def test_a_control_ends_with_the_gates_words() -> None:
    is_passed, reason = run_control("white noise", num_steps=2, seed=0)
    assert not is_passed
    assert reason.startswith(("no LSTM beat ", "not surely better than "))
