"""How variants of a search are compared: by what each had at a time, and seed by seed."""

import math
from pathlib import Path

import pytest

from benchmarks.quality import draw, p_of_no_difference, seconds_below, value_at

COURSE = [(10.0, 0.3), (12.0, 0.2), (30.0, 0.1)]


@pytest.mark.parametrize(
    ("seconds", "value"), [(9.0, math.inf), (10.0, 0.3), (29.0, 0.2), (99.0, 0.1)]
)
def test_the_best_value_is_the_last_one_by_then(seconds: float, value: float) -> None:
    assert value_at(COURSE, seconds) == value


@pytest.mark.parametrize(("threshold", "seconds"), [(0.25, 12.0), (0.2, 30.0), (0.1, math.inf)])
def test_below_a_value_is_not_at_it(threshold: float, seconds: float) -> None:
    assert seconds_below(COURSE, threshold) == seconds


@pytest.mark.parametrize(
    ("differences", "p"),
    [([1, 1, 1, 1], 2 / 16), ([1, 1, 1, -1], 10 / 16), ([0, 0], 1), ([1] * 10, 2 / 1024)],
)
def test_signs_are_flipped_in_every_way(differences: list[float], p: float) -> None:
    assert p_of_no_difference(differences) == pytest.approx(p)


def test_courses_are_drawn_from_the_first_value_of_all_on(tmp_path: Path) -> None:
    late = [(20.0, 0.5)]
    draw({"series": {"one": [COURSE, late], "other": [late]}}, 40.0, tmp_path / "quality.png")
    assert (tmp_path / "quality.png").stat().st_size > 5_000
