"""Which configurations are refused before they cost anything."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from models.config import WindowShape
from models.forecaster import Forecaster
from pipelines.splits import SearchData
from pipelines.training_config import TrainingBudget
from search.config import ConfigError
from search.limits import Limits, check_space
from search.space import Space, TrialConfig
from search.starts import Start, start_config

MakeData = Callable[..., SearchData]
MakeSpace = Callable[..., Space]
MakeConfig = Callable[..., TrialConfig]


@pytest.fixture
def make_config(make_space: MakeSpace) -> MakeConfig:
    def make(budget: TrainingBudget | None = None, **start: Any) -> TrialConfig:
        named = Start.model_validate({"widths": (8, 16), "lookback": 12} | start)
        return start_config(named, make_space(), budget or TrainingBudget(), season=6)

    return make


def num_parameters_of_the_module(config: TrialConfig) -> int:
    shape = WindowShape(
        lookback=config.training.lookback,
        horizon=4,
        num_features=2,
        num_targets=1,
        num_known=2 if config.training.calendar else 0,
        season=6,
    )
    return sum(weights.numel() for weights in Forecaster(config.model, shape).parameters())


@pytest.mark.parametrize("calendar", [True, False])
@pytest.mark.parametrize("head", ["last_state", "aligned"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_parameters_counted_are_those_of_the_module(
    calendar: bool,
    head: str,
    bidirectional: bool,
    make_config: MakeConfig,
    make_data: MakeData,
) -> None:
    config = make_config(calendar=calendar, head=head, bidirectional=bidirectional, patch_length=3)
    counted = Limits(make_data(), 1, None).num_parameters(config)
    assert counted == num_parameters_of_the_module(config)


def test_a_configuration_of_just_as_many_parameters_as_allowed_is_admitted(
    make_config: MakeConfig, make_data: MakeData
) -> None:
    config = make_config()
    count = num_parameters_of_the_module(config)
    assert Limits(make_data(), count, None).why_refused(config) is None
    reason = Limits(make_data(), count - 1, None).why_refused(config)
    assert reason == f"{count:,} parameters exceed search.max_parameters={count - 1:,}"


def test_the_arithmetic_of_a_trial_is_that_of_its_windows_forward_and_twice_backward(
    make_config: MakeConfig, make_data: MakeData
) -> None:
    limits = Limits(make_data(), 10**9, None)
    config = make_config(
        TrainingBudget(max_steps=100),
        widths=(16,),
        batch_size=32,
        calendar=False,
        linear_skip="none",
        patch_length=1,
        head="last_state",
    )
    # 12 positions of 4 gates with weights for 2 features and 16 units, two biases as torch has it,
    # then a head from 16 units to 4 steps; a multiply-add is two operations.
    forward = 2 * (12 * 4 * 16 * (2 + 16 + 2) + 16 * 4)
    assert limits.training_teraflops(config) == pytest.approx(3 * forward * 100 * 32 / 1e12)


def test_a_configuration_of_more_arithmetic_than_allowed_is_refused(
    make_config: MakeConfig, make_data: MakeData
) -> None:
    config = make_config(TrainingBudget(max_steps=10**6))
    teraflops = Limits(make_data(), 10**9, None).training_teraflops(config)
    assert Limits(make_data(), 10**9, teraflops).why_refused(config) is None
    reason = Limits(make_data(), 10**9, 1.5).why_refused(config)
    assert reason == (
        f"its training's {teraflops:.1f} teraflops exceed search.max_training_teraflops=1.5"
    )


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        ({"lookback": 10, "patch_length": 3}, "lookback must be a multiple of patch_length"),
        ({"lookback": 5, "normalisation": "seasonal", "patch_length": 1}, "at least one season"),
    ],
)
def test_a_model_that_cannot_read_the_windows_is_refused_with_the_reason(
    start: dict[str, Any], reason: str, make_config: MakeConfig, make_data: MakeData
) -> None:
    assert reason in str(Limits(make_data(), 10**9, None).why_refused(make_config(**start)))


def test_a_lookback_beyond_the_training_part_is_refused(
    make_config: MakeConfig, make_data: MakeData
) -> None:
    limits = Limits(make_data(num_train_rows=40, horizon=4), 10**9, None)
    assert limits.why_refused(make_config(lookback=36, patch_length=1)) is None
    assert limits.why_refused(make_config(lookback=37, patch_length=1)) == (
        "lookback and horizon, 41 rows together, exceed the 40 rows to train on"
    )


# A space as a whole


@pytest.mark.parametrize(
    "narrowed",
    [
        {},
        {"num_layers": 0},
        {"num_layers": {"choices": [0, 3]}, "linear_skip": "none"},
        {"lookback": {"low": 11, "high": 12}, "patch_length": 4},
        {"lookback": {"choices": [3, 12]}, "normalisation": "seasonal"},
        {"lookback": 12, "patch_length": {"choices": [7, 12]}},
        {"lookback": {"choices": [12, 5000]}, "hidden_size": {"choices": [8, 65_536]}},
        {"num_layers": 2, "width": 65_536, "hidden_size": 8},
        {"widths": [[65_536], [8, 8]]},
        {"num_layers": 2, "width": 8, "hidden_size": 65_536},
        # Wider than what is looked at: the search itself will find out.
        {"lookback": {"low": 1, "high": 80}, "patch_length": 40},
    ],
)
def test_a_space_in_which_something_can_be_tried_is_admitted(
    narrowed: dict[str, Any], make_data: MakeData, make_space: MakeSpace
) -> None:
    space = Space.model_validate(make_space().model_dump() | narrowed)
    check_space(space, TrainingBudget(), Limits(make_data(), 2_000_000, 0.5))


@pytest.mark.parametrize(
    ("narrowed", "why"),
    [
        ({"num_layers": 0, "linear_skip": "none"}, "widths may be empty only with a linear_skip"),
        ({"lookback": {"choices": [11, 13]}, "patch_length": 4}, "lookback must be a multiple of"),
        ({"lookback": 5, "normalisation": "seasonal"}, "a lookback of at least one season: got"),
        ({"lookback": 5000}, "lookback and horizon, 5004 rows together, exceed the 80 rows to"),
        ({"hidden_size": 65_536, "width": 65_536}, "parameters exceed search.max_parameters=2,0"),
        ({"widths": [[65_536], [8, 65_536]]}, "parameters exceed search.max_parameters=2,000,000"),
        ({"batch_size": 1_048_576}, "teraflops exceed search.max_training_teraflops=0.5"),
    ],
)
def test_a_space_in_which_nothing_can_be_tried_is_refused_with_the_reason(
    narrowed: dict[str, Any], why: str, make_data: MakeData, make_space: MakeSpace
) -> None:
    space = Space.model_validate(make_space().model_dump() | {"patch_length": 1} | narrowed)
    with pytest.raises(ConfigError, match=f"the smallest cannot; .*{re.escape(why)}") as caught:
        check_space(space, TrainingBudget(), Limits(make_data(), 2_000_000, 0.5))
    assert "\n" not in str(caught.value)
