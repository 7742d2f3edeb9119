"""What one dimension may be, and what it holds."""

from typing import Any

import pytest
from pydantic import ValidationError

from search.dimensions import Choice, Dimension, Float, Int, Value
from search.space import Space


@pytest.mark.parametrize(
    ("written", "dimension"),
    [
        (64, Choice[int](choices=(64,))),
        ({"choices": [64, 96]}, Choice[int](choices=(64, 96))),
        ({"choices": (64, 96)}, Choice[int](choices=(64, 96))),
        ({"low": 8, "high": 512, "log": True}, Int(low=8, high=512, log=True)),
        ({"low": 8, "high": 512, "step": 8}, Int(low=8, high=512, step=8)),
    ],
)
def test_a_dimension_is_fixed_by_a_value_narrowed_by_choices_or_given_a_range(
    written: Any, dimension: Dimension
) -> None:
    space = Space.model_validate({"width": written})
    assert space.width == dimension
    assert Space.model_validate_json(space.model_dump_json()) == space


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"low": 2, "high": 1}, "low must not exceed high: got low=2 and high=1; swap them"),
        ({"low": 1, "high": 8, "log": True, "step": 2}, "log and step exclude each other"),
        ({"low": 0, "high": 8, "log": True}, "a log range must be positive: got low=0"),
        ({"low": 1, "high": 8, "step": 0}, "greater than or equal to 1"),
        ({"low": 1}, "high"),
        ({"low": 1, "high": 8.5}, "valid integer"),
        ({"choices": []}, "at least 1 item"),
        ({"choices": ["64"]}, "valid integer"),
        ({"choices": [True]}, "valid integer"),
        ({"choices": [1], "low": 1}, "Extra inputs are not permitted"),
        ("64", "valid integer"),
        (None, "width"),
    ],
)
def test_a_dimension_that_cannot_be_is_refused(written: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Space.model_validate({"width": written})


@pytest.mark.parametrize("low", [float("nan"), float("-inf")])
def test_a_range_without_a_finite_end_is_refused(low: float) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        Space.model_validate({"dropout": {"low": low, "high": 0.5}})


@pytest.mark.parametrize(
    ("dimension", "held", "not_held"),
    [
        (Int(low=16, high=64), [16, 17, 64], [15, 65, 16.0, True, "16"]),
        (Int(low=1, high=8, step=3), [1, 4, 7], [2, 8]),
        (Float(low=0.0, high=0.4, step=0.1), [0.0, 0.1, 0.3, 0.30000000000000004], [0.05, 0.5]),
        (Float(low=0.5, high=1.5), [0.5, 0.7, 1], [0.4, True, "1"]),
        (Choice[int](choices=(1, 2)), [1, 2], [3, True]),
        (Choice[bool](choices=(True,)), [True], [False, 1]),
        (Choice[float](choices=(0.0,)), [0.0], [False]),
    ],
)
def test_a_dimension_knows_what_it_holds(
    dimension: Dimension, held: list[Value], not_held: list[Value]
) -> None:
    assert [value for value in held if not dimension.contains(value)] == []
    assert [value for value in not_held if dimension.contains(value)] == []
