"""What fewer validation windows lose is told by orders of trials, by hand."""

import pytest

from benchmarks.validation_windows import regret, share_of_pairs_reversed, share_stopped

EVERY = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
"""By all windows; the better half are the first three, the best third the first two."""


@pytest.mark.parametrize(
    ("few", "share"),
    [(EVERY, 0), ([0.2, 0.1, 0.3, 0, 0, 0], 1 / 3), ([0.3, 0.2, 0.1, 0, 0, 0], 1)],
)
def test_pairs_of_the_better_half_are_in_the_same_order_or_not(
    few: list[float], share: float
) -> None:
    assert share_of_pairs_reversed(few, EVERY) == pytest.approx(share)


@pytest.mark.parametrize(
    ("few", "share"), [(EVERY, 0), ([0.2, 0.5, 0.1, 0.5, 0.5, 0.6], 1 / 2), (EVERY[::-1], 1)]
)
def test_those_who_would_be_stopped_are_the_best_third_of_all_that_are_not_of_the_few(
    few: list[float], share: float
) -> None:
    assert share_stopped(few, EVERY) == share


def test_the_regret_is_what_the_chosen_one_is_above_the_best() -> None:
    assert regret([value * 2 for value in EVERY], EVERY) == 0
    assert 0 < regret(EVERY[::-1], EVERY) <= 0.6 / 0.1 - 1
    assert regret([1.0, 0.0], [0.1, 0.3]) == 0  # half of two is one: nothing to choose
