"""The configurations that a search tries first."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.training_config import TrainingBudget
from search.dimensions import Value
from search.space import Space, TrialConfig
from search.starts import THREE_ANSWERS, Start, start_config

MakeSpace = Callable[..., Space]

BUDGET = TrainingBudget()


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


def test_a_start_of_more_layers_than_any_forecaster_has_is_refused() -> None:
    assert len(Start(widths=(1,) * 64).widths) == 64
    with pytest.raises(ValidationError, match="at most 64 items"):
        Start(widths=(1,) * 65)
