"""The search space: points and configurations."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from models.forecaster import Forecaster
from pipelines.splits import SearchData
from pipelines.training_config import TrainingBudget
from search.dimensions import Choice, Dimension, Float, Int, Value
from search.limits import Limits
from search.space import Space, TrialConfig
from search.starts import Start, start_config

MakeData = Callable[..., SearchData]
MakeSpace = Callable[..., Space]

BUDGET = TrainingBudget()
DERIVED = Space.model_validate(
    {
        "lookback": {"choices": [12, 24]},
        "patch_length": {"choices": [1, 3, 6]},
        "normalisation": {"choices": ["last", "mean_std", "none", "seasonal"]},
        "linear_skip": {"choices": ["shared", "none", "per_target"]},
        "calendar": {"choices": [True, False]},
    }
)


@st.composite
def points(draw: st.DrawFn, space: Space = DERIVED) -> dict[str, Value]:
    """Any point that a sampler can draw."""
    return space.draw(lambda _, dimension: draw(values_in(dimension)))


def values_in(dimension: Dimension) -> st.SearchStrategy[Value]:
    match dimension:
        case Choice(choices=choices):
            return st.sampled_from(choices)
        case Int(low=low, high=high, step=step):
            return st.sampled_from(range(low, high + 1, step or 1))
        case Float(low=low, high=high, step=None):
            return st.floats(low, high)
        case Float(low=low, high=high, step=step):
            return st.sampled_from([low + i * step for i in range(round((high - low) / step) + 1)])


def fixed(space: Space, **chosen: Value) -> TrialConfig:
    """The configuration of `chosen` values and of the first of every other dimension."""

    def choose(name: str, dimension: Dimension) -> Value:
        first = dimension.choices[0] if isinstance(dimension, Choice) else dimension.low
        return chosen.get(name, first)

    return space.config_at(space.draw(choose), BUDGET)


# Points and configurations


@settings(deadline=None, max_examples=30)
@given(point=points())
def test_every_point_builds_a_model_of_just_as_many_parameters_as_were_counted(
    point: dict[str, Value], make_data: MakeData
) -> None:
    data = make_data()
    config = DERIVED.config_at(point, BUDGET)
    with torch.device("meta"):  # shapes without memory
        forecaster = Forecaster(
            config.model, data.window_shape(config.training.lookback, config.training.calendar)
        )
    counted = Limits(data, 10**9, None).num_parameters(config)
    assert sum(weights.numel() for weights in forecaster.parameters()) == counted


@given(point=points())
def test_a_configuration_goes_to_its_point_and_back_unchanged(point: dict[str, Value]) -> None:
    config = DERIVED.config_at(point, BUDGET)
    assert DERIVED.config_at(DERIVED.point_of(config), BUDGET) == config


@given(point=points())
def test_a_recorded_configuration_rebuilds_an_equal_object(point: dict[str, Value]) -> None:
    config = DERIVED.config_at(point, BUDGET)
    again = TrialConfig.model_validate_json(config.model_dump_json())
    assert again == config
    assert hash(again) == hash(config)


def test_the_values_of_a_point_and_the_budget_arrive_in_the_configuration() -> None:
    budget = TrainingBudget(max_steps=70, loss="mae")
    point = {
        "num_layers": 2,
        "shape": "per_layer",
        "width_0": 64,
        "width_1": 128,
        "bidirectional": True,
        "dropout": 0.2,
        "normalisation": "mean_std",
        "linear_skip": "none",
        "head": "aligned",
        "patch_length": 3,
        "lookback": 24,
        "calendar": False,
        "learning_rate": 1e-3,
        "batch_size": 32,
        "weight_decay": 1e-4,
    }
    config = DERIVED.config_at(point, budget)
    assert config.model.model_dump() == {
        "widths": (64, 128),
        **{name: point[name] for name in ("bidirectional", "dropout", "normalisation")},
        **{name: point[name] for name in ("linear_skip", "head", "patch_length")},
    }
    assert config.training.model_dump() == budget.model_dump() | {
        name: point[name]
        for name in ("lookback", "calendar", "learning_rate", "batch_size", "weight_decay")
    }
    assert config.describe() == "2 layers 64→128, bidirectional, lookback 24"
    assert DERIVED.point_of(config) == point


def test_equal_widths_are_one_configuration_however_they_were_drawn() -> None:
    uniform = fixed(DERIVED, num_layers=2, shape="uniform", hidden_size=64)
    per_layer = fixed(DERIVED, num_layers=2, shape="per_layer", width_0=64, width_1=64)
    assert uniform == per_layer
    assert DERIVED.point_of(per_layer)["hidden_size"] == 64


def test_equal_widths_that_one_shape_cannot_hold_are_a_point_of_the_other() -> None:
    space = DERIVED.model_copy(update={"hidden_size": Choice[int](choices=(32,))})
    config = fixed(space, num_layers=2, shape="per_layer", width_0=64, width_1=64)
    point = space.point_of(config)
    assert (point["shape"], point["width_0"], point["width_1"]) == ("per_layer", 64, 64)
    assert space.config_at(point, BUDGET) == config


def test_the_shape_is_asked_only_where_there_are_several_layers() -> None:
    def names(**chosen: Value) -> set[str]:
        asked = []

        def choose(name: str, dimension: Dimension) -> Value:
            asked.append(name)
            first = dimension.choices[0] if isinstance(dimension, Choice) else dimension.low
            return chosen.get(name, first)

        DERIVED.draw(choose)
        assert len(asked) == len(set(asked))
        about_widths = ("num_layers", "shape", "hidden_size", "width")
        return {name for name in asked if name.startswith(about_widths)}

    assert names(num_layers=1) == {"num_layers", "hidden_size"}
    assert names(num_layers=2, shape="uniform") == {"num_layers", "shape", "hidden_size"}
    layers = {"width_0", "width_1", "width_2"}
    assert names(num_layers=3, shape="per_layer") == {"num_layers", "shape"} | layers


def test_a_space_of_no_layers_asks_for_no_width_and_holds_the_linear_twin() -> None:
    space = DERIVED.model_copy(update={"num_layers": Choice[int](choices=(0,))})
    config = fixed(space)
    assert config.model.widths == ()
    assert space.config_at(space.point_of(config), BUDGET) == config


def test_whole_lists_of_widths_are_one_dimension_of_plain_values() -> None:
    space = DERIVED.model_copy(update={"widths": ((128,), (64, 64), (64, 128))})
    config = fixed(space, widths="64-128", bidirectional=True)
    assert config.model.widths == (64, 128)
    point = space.point_of(config)
    assert point["widths"] == "64-128"
    assert not {"num_layers", "shape", "hidden_size", "width_0"} & point.keys()
    assert space.config_at(point, BUDGET) == config
    assert TrialConfig.model_validate_json(config.model_dump_json()) == config


def test_a_list_of_widths_beside_those_of_the_space_is_outside_it() -> None:
    space = DERIVED.model_copy(update={"widths": ((128,), (64, 64))})
    start = start_config(Start(widths=(64, 64)), space, BUDGET, season=6)
    assert space.point_of(start)["widths"] == "64-64"
    other = start_config(Start(widths=(64, 128)), space, BUDGET, season=6)
    with pytest.raises(ValueError, match="widths is outside the space: got 64-128"):
        space.point_of(other)


@pytest.mark.parametrize("beside", ["num_layers", "shape", "hidden_size", "width"])
def test_the_layers_are_said_by_lists_of_widths_or_by_their_parts(beside: str) -> None:
    value = "uniform" if beside == "shape" else 2
    with pytest.raises(ValidationError, match=f"got {beside} beside it; drop one or the other"):
        Space.model_validate({"widths": [[128]], beside: value})


def test_a_space_of_width_lists_is_read_back_as_it_was_written() -> None:
    space = Space.model_validate({"widths": [[128], [64, 64]]})
    assert space.widths == ((128,), (64, 64))
    assert Space.model_validate_json(space.model_dump_json()) == space


def test_a_point_whose_values_contradict_each_other_is_refused() -> None:
    space = DERIVED.model_copy(update={"num_layers": Choice[int](choices=(0,))})
    with pytest.raises(ValueError, match=r"^widths may be empty only with a linear_skip.*skip$"):
        fixed(space, linear_skip="none")


def test_a_point_that_is_no_configuration_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^batch_size: Input should be greater than 0$"):
        fixed(DERIVED, batch_size=-1)


@pytest.mark.parametrize(
    ("narrowed", "chosen", "message"),
    [
        ({"num_layers": 1}, {"num_layers": 2}, "num_layers is outside the space: got 2"),
        ({"shape": "uniform"}, {"num_layers": 2, "shape": "per_layer", "width_1": 32}, "shape is"),
        ({"hidden_size": {"low": 32, "high": 64}}, {}, "hidden_size is outside the space: got 16"),
        (
            {"shape": "uniform", "hidden_size": 32},
            {"num_layers": 2},
            "hidden_size is outside the space: got 16",
        ),
        ({"head": "aligned"}, {}, "head is outside the space: got last_state"),
        ({"dropout": {"low": 0.05, "high": 0.45, "step": 0.1}}, {}, "dropout is outside"),
        ({"lookback": 24}, {}, "lookback is outside the space: got 12"),
    ],
)
def test_a_configuration_outside_a_narrowed_space_is_refused_by_the_dimension(
    narrowed: dict[str, Any], chosen: dict[str, Value], message: str
) -> None:
    narrow = Space.model_validate(DERIVED.model_dump() | narrowed)
    with pytest.raises(ValueError, match=message):
        narrow.point_of(fixed(DERIVED, **chosen))


# Dimensions


def test_every_dimension_can_be_fixed_by_a_plain_value() -> None:
    plain: dict[str, Value] = {
        "num_layers": 5,
        "shape": "per_layer",
        "hidden_size": 1000,
        "width": 7,
        "bidirectional": True,
        "dropout": 0.9,
        "normalisation": "none",
        "linear_skip": "none",
        "head": "aligned",
        "calendar": False,
        "patch_length": 9,
        "lookback": 99,
        "learning_rate": 1,  # a whole number is a real one
        "batch_size": 5,
        "weight_decay": 0.0,
    }
    assert set(plain) == set(Space.model_fields) - {"widths"}  # a choice of lists
    config = fixed(Space.model_validate(plain))
    assert config.model.widths == (7, 7, 7, 7, 7)
    for name in set(plain) - {"num_layers", "shape", "hidden_size", "width"}:
        part = config.model if name in type(config.model).model_fields else config.training
        assert getattr(part, name) == plain[name]


@pytest.mark.parametrize(
    ("name", "least", "most", "beyond"),
    [
        ("num_layers", 0, 64, [-1, 65, 10**6]),
        ("hidden_size", 1, 65_536, [0, -5, 65_537, 10**30]),
        ("width", 1, 65_536, [0, 65_537]),
        ("dropout", 0.0, 0.99, [-0.1, 1.0, 1.5]),
        ("patch_length", 1, 100_000, [0, -1, 100_001]),
        ("lookback", 1, 100_000, [0, -1, 100_001]),
        ("learning_rate", 1e-10, 1e38, [0.0, -1.0, 1e300]),
        ("batch_size", 1, 1_048_576, [0, -1, 2**40]),
        ("weight_decay", 0.0, 100.0, [-1e-9, 101.0]),
    ],
)
def test_values_with_which_no_trial_can_run_are_refused(
    name: str, least: float, most: float, beyond: list[float]
) -> None:
    for value in (least, most, {"choices": [least, most]}, {"low": least, "high": most}):
        Space.model_validate({name: value})
    for value in beyond:
        low, high = min(value, most), max(value, most)
        for written in (value, {"choices": [most, value]}, {"low": low, "high": high}):
            with pytest.raises(ValidationError, match=rf"{name}[\s\S]*must be "):
                Space.model_validate({name: written})


def test_a_space_that_is_not_derived_yet_cannot_be_drawn_from() -> None:
    with pytest.raises(AssertionError, match="normalisation must be derived from the table"):
        Space().draw(lambda _, d: d.choices[0] if isinstance(d, Choice) else d.low)
