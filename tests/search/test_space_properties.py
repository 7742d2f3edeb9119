"""What holds of any point of any space: it builds, or is refused before it costs anything."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.config import WindowShape
from models.forecaster import Forecaster
from pipelines.splits import SearchData
from pipelines.training_config import TrainingBudget
from search.derived_space import derive
from search.dimensions import Choice, Dimension, Float, Int, Value
from search.limits import Limits
from search.space import Space, TrialConfig

MakeData = Callable[..., SearchData]

BUDGET = TrainingBudget()
FEW = settings(max_examples=40, deadline=None, derandomize=True)


def values_in(dimension: Dimension) -> st.SearchStrategy[Value]:
    match dimension:
        case Choice(choices=choices):
            return st.sampled_from(choices)
        case Int(low=low, high=high, step=step):
            return st.sampled_from(range(low, high + 1, step or 1))
        case Float(low=low, high=high, step=None):
            return st.floats(low, high)
        case Float(low=low, high=high, step=step):
            num_steps = int((high - low) / step + 1e-9)
            return st.sampled_from([low + i * step for i in range(num_steps + 1)])


@st.composite
def ints(draw: st.DrawFn, low: int, high: int) -> dict[str, Any] | int:
    """Whole numbers as a configuration gives them: a range, choices or one value."""
    ends = sorted((draw(st.integers(low, high)), draw(st.integers(low, high))))
    kind = draw(st.sampled_from(("range", "log", "step", "choices", "value")))
    if kind == "value":
        return ends[0]
    if kind == "choices":
        return {"choices": sorted(set(ends))}
    more = {"log": {"log": ends[0] > 0}, "step": {"step": draw(st.integers(1, 5))}}
    return {"low": ends[0], "high": ends[1], **more.get(kind, {})}


@st.composite
def floats(draw: st.DrawFn, low: float, high: float) -> dict[str, Any] | float:
    """Real numbers likewise."""
    ends = sorted((draw(st.floats(low, high)), draw(st.floats(low, high))))
    kind = draw(st.sampled_from(("range", "log", "choices", "value")))
    if kind == "value":
        return ends[0]
    if kind == "choices":
        return {"choices": sorted(set(ends))}
    return {"low": ends[0], "high": ends[1], "log": kind == "log" and ends[0] > 0}


def some_of(*values: Value) -> st.SearchStrategy[dict[str, list[Value]]]:
    chosen = st.lists(st.sampled_from(values), min_size=1, unique=True)
    return chosen.map(lambda choices: {"choices": choices})


LAYERS = {"num_layers", "shape", "hidden_size", "width"}
some_settings = st.fixed_dictionaries(
    {},
    optional={
        "num_layers": ints(0, 4),
        "shape": some_of("uniform", "per_layer"),
        "hidden_size": ints(1, 80),
        "width": ints(1, 80),
        "bidirectional": some_of(True, False),
        "dropout": floats(0.0, 0.9),
        "normalisation": some_of("none", "last", "mean_std", "seasonal"),
        "linear_skip": some_of("none", "shared", "per_target"),
        "head": some_of("last_state", "aligned"),
        "calendar": some_of(True, False),
        "patch_length": ints(1, 12),
        "lookback": ints(1, 60),
        "learning_rate": floats(1e-6, 1.0),
        "batch_size": ints(1, 512),
        "weight_decay": floats(0.0, 1.0),
    },
)
stacks = st.lists(st.integers(1, 80), min_size=1, max_size=4)
spaces_of_lists = st.builds(
    lambda space, widths: {k: v for k, v in space.items() if k not in LAYERS} | {"widths": widths},
    some_settings,
    st.lists(stacks, min_size=1, max_size=3),
)
spaces = (some_settings | spaces_of_lists).map(Space.model_validate)


@st.composite
def searched(draw: st.DrawFn, make_data: MakeData) -> tuple[SearchData, Space]:
    """A table of any size, and a space that is derived for it."""
    season, horizon = draw(st.integers(1, 24)), draw(st.integers(1, 12))
    num_targets, num_known = draw(st.integers(1, 3)), draw(st.integers(0, 4))
    num_features = num_targets + draw(st.integers(0, 2))
    num_train_rows = horizon + draw(st.integers(1, 150))
    num_rows = num_train_rows + horizon + 5
    names = tuple(f"c{number}" for number in range(num_features))
    data = make_data(
        columns=names,
        targets=names[:num_targets],
        values=np.zeros((num_rows, num_features)),
        truth=np.zeros((num_rows, num_targets)),
        is_observed=np.full(num_rows, True),
        known=np.zeros((num_rows, num_known), dtype=np.float32),
        known_names=tuple(f"k{number}" for number in range(num_known)),
        num_train_rows=num_train_rows,
        season=season,
        horizon=horizon,
    )
    space, _ = derive(draw(spaces), season, num_train_rows, horizon, has_calendar=num_known > 0)
    return data, space


def build(config: TrialConfig, data: SearchData) -> tuple[Forecaster, WindowShape]:
    shape = data.window_shape(config.training.lookback, config.training.calendar)
    with torch.device("meta"):  # shapes without memory
        return Forecaster(config.model, shape), shape


def proposed(space: Space, drawn: st.DataObject) -> TrialConfig | str:
    """Return what the space holds at any of its points, or why nothing is there."""
    try:
        point = space.draw(lambda _, dimension: drawn.draw(values_in(dimension)))
        return space.config_at(point, BUDGET)
    except ValueError as error:
        return str(error)


@FEW
@given(drawn=st.data())
def test_a_point_of_any_space_builds_as_counted_or_is_refused(
    drawn: st.DataObject, make_data: MakeData
) -> None:
    data, space = drawn.draw(searched(make_data))
    config = proposed(space, drawn)
    limits = Limits(data, max_parameters=10**9, max_training_teraflops=None)
    reason = config if isinstance(config, str) else limits.why_refused(config)
    if isinstance(config, str) or reason is not None:
        assert reason is not None
        assert reason.isprintable()
        return
    forecaster, shape = build(config, data)
    num_built = sum(weights.numel() for weights in forecaster.parameters())
    assert limits.num_parameters(config) == config.model.num_parameters(shape) == num_built
    just_too_few = Limits(data, max_parameters=num_built - 1, max_training_teraflops=None)
    assert "parameters exceed" in str(just_too_few.why_refused(config))


@FEW
@given(drawn=st.data())
def test_what_a_derived_default_space_proposes_builds_on_any_table(
    drawn: st.DataObject, make_data: MakeData
) -> None:
    data, _ = drawn.draw(searched(make_data))
    has_calendar = data.known.shape[1] > 0
    space, _ = derive(Space(), data.season, data.num_train_rows, data.horizon, has_calendar)
    point = space.draw(lambda _, dimension: drawn.draw(values_in(dimension)))
    config = space.config_at(point, BUDGET)
    assert Limits(data, 10**9, None).why_refused(config) is None
    forecaster, shape = build(config, data)
    num_built = sum(weights.numel() for weights in forecaster.parameters())
    assert config.model.num_parameters(shape) == num_built
    window = torch.zeros(2, shape.lookback, shape.num_features, device="meta")
    num_positions = shape.lookback + shape.horizon
    known = torch.zeros(2, num_positions, shape.num_known, device="meta")
    forecast = forecaster(window, known if shape.num_known else None)
    assert forecast.shape == (2, shape.horizon, shape.num_targets)


@FEW
@given(drawn=st.data())
def test_a_point_is_held_by_its_space_and_found_again(
    drawn: st.DataObject, make_data: MakeData
) -> None:
    _, space = drawn.draw(searched(make_data))
    config = proposed(space, drawn)
    if isinstance(config, TrialConfig):
        assert space.config_at(space.point_of(config), BUDGET) == config
        assert TrialConfig.model_validate_json(config.model_dump_json()) == config
