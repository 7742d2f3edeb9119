"""The search space: points, configurations, and what is derived from the table."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from models.forecaster import Forecaster
from pipelines.splits import SearchData
from pipelines.training_config import TrainingBudget
from search.limits import Limits
from search.space import (
    THREE_ANSWERS,
    Choice,
    Dimension,
    Float,
    Int,
    Space,
    Start,
    TrialConfig,
    Value,
    derive,
    start_config,
)

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


# Starts


def test_the_three_answers_are_points_of_the_default_space(make_space: MakeSpace) -> None:
    space = make_space()
    configs = [start_config(start, space, BUDGET, season=6) for start in THREE_ANSWERS]
    assert [config.model.widths for config in configs] == [(128,), (64, 64), (64, 128)]
    assert not any(config.model.bidirectional for config in configs)
    for config in configs:
        assert space.config_at(space.point_of(config), BUDGET) == config


@pytest.mark.parametrize(
    ("choices", "skip"),
    [
        (["none", "shared"], "shared"),
        (["shared", "per_target", "none"], "per_target"),
        (["none"], "none"),
    ],
)
def test_a_start_has_a_linear_skip_where_there_can_be_one(
    make_space: MakeSpace, choices: list[str], skip: str
) -> None:
    space = make_space(linear_skip={"choices": choices})
    config = start_config(Start(widths=(16,)), space, BUDGET, season=6)
    assert config.model.linear_skip == skip


def test_what_a_start_leaves_out_takes_the_spaces_value_nearest_to_a_good_one(
    make_space: MakeSpace,
) -> None:
    space = make_space(
        learning_rate={"low": 0.01, "high": 0.1},
        batch_size={"choices": [16, 100]},
        dropout={"low": 0.25, "high": 0.5, "step": 0.1},
        normalisation={"choices": ["none", "mean_std"]},
        patch_length={"choices": [1, 6, 3]},
        weight_decay=0.5,
        linear_skip="none",
        lookback={"low": 10, "high": 36, "step": 10},
    )
    config = start_config(Start(widths=(16,)), space, BUDGET, season=6)
    assert config.training.learning_rate == 0.01
    assert config.training.batch_size == 100
    assert config.training.weight_decay == 0.5
    assert config.training.lookback == 30  # of 42, and the last on the range's grid
    assert config.model.dropout == 0.25
    assert config.model.normalisation == "none"
    assert config.model.patch_length == 3
    assert config.model.linear_skip == "none"
    assert space.config_at(space.point_of(config), BUDGET) == config


def point_values(config: TrialConfig) -> dict[str, Value]:
    return {
        name: value
        for name, value in (config.model.model_dump() | config.training.model_dump()).items()
        if name in set(Space.model_fields) - {"widths"}
    }


def test_what_a_start_names_is_kept(make_space: MakeSpace) -> None:
    named: dict[str, Any] = {
        "bidirectional": True,
        "dropout": 0.3,
        "normalisation": "seasonal",
        "linear_skip": "none",
        "head": "aligned",
        "calendar": False,
        "patch_length": 6,
        "lookback": 12,
        "learning_rate": 7e-4,
        "batch_size": 128,
        "weight_decay": 0.01,
    }
    config = start_config(Start(widths=(9, 5), **named), make_space(), BUDGET, season=6)
    assert config.model.widths == (9, 5)
    assert point_values(config) == named


def test_a_start_with_an_impossible_value_is_refused(make_space: MakeSpace) -> None:
    with pytest.raises(ValueError, match="dropout"):
        start_config(Start(widths=(8,), dropout=1.5), make_space(), BUDGET, season=6)


# What is derived from the table

TABLES = {
    "hourly": (24, 6000, 24, True),
    "daily": (7, 1000, 7, True),
    "300 monthly rows": (12, 210, 12, True),
    "business days": (5, 1750, 5, True),
    "no season": (1, 500, 10, True),
    "row order": (1, 500, 10, False),
    "minutes": (1440, 40000, 60, True),
    "tiny": (24, 40, 10, True),
    "one window": (24, 11, 10, False),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_combination_that_is_derived_fits_the_table(
    table: tuple[int, int, int, bool], make_data: MakeData
) -> None:
    season, num_train_rows, horizon, has_calendar = table
    space, _ = derive(Space(), season, num_train_rows, horizon, has_calendar)
    data = make_data(
        num_rows=num_train_rows * 3 // 2 + 1,
        num_train_rows=num_train_rows,
        season=season,
        horizon=horizon,
    )
    limits = Limits(data, 10**9, None)
    names = ("lookback", "patch_length", "normalisation", "calendar")
    for values in product(*(getattr(space, name).choices for name in names)):
        config = fixed(space, **dict(zip(names, values, strict=True)))
        assert limits.why_refused(config) is None


@given(
    season=st.integers(1, 2000),
    horizon=st.integers(1, 300),
    num_windows=st.integers(1, 20000),
    has_calendar=st.booleans(),
)
def test_what_is_derived_fits_any_table(
    season: int, horizon: int, num_windows: int, has_calendar: bool
) -> None:
    num_train_rows = horizon + num_windows
    space, notes = derive(Space(), season, num_train_rows, horizon, has_calendar)
    lookbacks, patches = space.lookback.choices, space.patch_length.choices
    assert max(lookbacks) + horizon <= num_train_rows
    assert all(lookback % patch == 0 for lookback, patch in product(lookbacks, patches))
    assert 1 in patches
    if "seasonal" in space.normalisation.choices:
        assert season > 1
        assert min(lookbacks) >= season
    assert space.calendar.choices == ((True, False) if has_calendar else (False,))
    assert (len(lookbacks) < 4) == any(note.startswith("lookback narrowed") for note in notes)


@pytest.mark.parametrize(
    ("table", "lookbacks", "patches", "is_seasonal"),
    [
        ("hourly", (48, 96, 168, 336), (1, 4, 12, 24), True),
        ("daily", (14, 28, 49, 98), (1, 7), True),
        ("300 monthly rows", (24, 48), (1, 2, 6, 12), True),
        ("business days", (10, 20, 35, 70), (1, 5), True),
        ("no season", (16, 32, 56, 112), (1, 4, 8), False),
        ("minutes", (1440,), (1, 240, 720, 1440), True),
        ("tiny", (10,), (1,), False),
        ("one window", (1,), (1,), False),
    ],
)
def test_the_defaults_derive_from_season_and_rows(
    table: str, lookbacks: tuple[int, ...], patches: tuple[int, ...], is_seasonal: bool
) -> None:
    space, _ = derive(Space(), *TABLES[table])
    assert space.lookback == Choice[int](choices=lookbacks)
    assert space.patch_length == Choice[int](choices=patches)
    assert space.normalisation is not None
    assert space.normalisation.contains("seasonal") == is_seasonal


def test_a_map_for_each_target_is_open_where_there_are_several() -> None:
    one, _ = derive(Space(), *TABLES["hourly"])
    several, _ = derive(Space(), *TABLES["hourly"], num_targets=3)
    assert one.linear_skip == Choice[Any](choices=("shared", "none"))
    assert several.linear_skip == Choice[Any](choices=("per_target", "shared", "none"))


def test_what_was_narrowed_is_said_with_its_reason() -> None:
    _, notes = derive(Space(), *TABLES["hourly"])
    assert notes == ()
    _, notes = derive(Space(), *TABLES["300 monthly rows"])
    assert notes == ("lookback narrowed to 24, 48 rows: 210 rows to train on",)
    _, notes = derive(Space(), season=96, num_train_rows=20000, horizon=96, has_calendar=True)
    assert notes == ("lookback narrowed to 192, 384 rows: longer ones cost much",)
    wants_calendar = Space(calendar=Choice[bool](choices=(True,)))
    _, notes = derive(wants_calendar, *TABLES["row order"])
    assert notes == ("calendar narrowed to false: the table has no calendar features",)


def test_what_the_user_gave_is_not_derived_anew() -> None:
    chosen = Space.model_validate(
        {
            "lookback": {"low": 20, "high": 60, "step": 4},
            "patch_length": 2,
            "normalisation": "mean_std",
            "linear_skip": "none",
            "calendar": False,
        }
    )
    assert derive(chosen, *TABLES["hourly"]) == (chosen, ())


@pytest.mark.parametrize(
    ("lookback", "patches"),
    [
        ({"low": 24, "high": 96, "step": 12}, (1, 4, 12)),
        ({"low": 24, "high": 96}, (1,)),
        ({"low": 24, "high": 96, "log": True}, (1,)),
        (48, (1, 4, 12, 24)),
    ],
)
def test_the_patches_divide_every_lookback_of_the_users_range(
    lookback: Any, patches: tuple[int, ...]
) -> None:
    space, _ = derive(Space.model_validate({"lookback": lookback}), *TABLES["hourly"])
    assert space.patch_length == Choice[int](choices=patches)


def test_a_lookback_of_less_than_a_season_leaves_the_seasonal_normalisation_out() -> None:
    short = Space.model_validate({"lookback": {"choices": [48, 12]}})
    space, _ = derive(short, *TABLES["hourly"])
    assert space.normalisation == Choice(choices=("last", "mean_std", "none"))


def test_a_space_that_is_not_derived_yet_cannot_be_drawn_from() -> None:
    with pytest.raises(AssertionError, match="normalisation must be derived from the table"):
        Space().draw(lambda _, d: d.choices[0] if isinstance(d, Choice) else d.low)


def test_a_start_of_more_layers_than_any_forecaster_has_is_refused() -> None:
    assert len(Start(widths=(1,) * 64).widths) == 64
    with pytest.raises(ValidationError, match="at most 64 items"):
        Start(widths=(1,) * 65)
