"""Contracts of the configuration: what is refused, counted, described and written to JSON."""

import subprocess
import sys
from itertools import product

import pytest
from pydantic import ValidationError

from models.config import LSTMConfig, WindowShape
from models.forecaster import Forecaster

SHAPE = WindowShape(lookback=24, horizon=10, num_features=3, num_targets=2, num_known=2, season=12)
STRUCTURES: dict[str, tuple[object, ...]] = {
    "bidirectional": (False, True),
    "dropout": (0.0, 0.2),
    "normalisation": ("none", "last", "mean_std", "seasonal"),
    "linear_skip": ("none", "shared", "per_target"),
    "head": ("last_state", "aligned"),
    "patch_length": (1, 4),
}


@pytest.mark.parametrize(
    "config",
    [
        LSTMConfig(widths=(128,)),
        LSTMConfig(widths=()),
        LSTMConfig(
            widths=(64, 128),
            bidirectional=True,
            dropout=0.2,
            normalisation="seasonal",
            linear_skip="none",
            head="aligned",
            patch_length=4,
        ),
    ],
    ids=LSTMConfig.describe,
)
def test_a_configuration_written_to_json_reads_back_equal(config: LSTMConfig) -> None:
    assert LSTMConfig.model_validate_json(config.model_dump_json()) == config


def test_a_window_shape_written_to_json_reads_back_equal() -> None:
    assert WindowShape.model_validate_json(SHAPE.model_dump_json()) == SHAPE


def test_reading_a_configuration_does_not_load_torch() -> None:
    code = "import sys, models, models.config; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (LSTMConfig(widths=(128,)), "1 layer 128"),
        (LSTMConfig(widths=(64, 64)), "2 layers 64→64"),
        (LSTMConfig(widths=(64, 128), bidirectional=True), "2 layers 64→128, bidirectional"),
        (LSTMConfig(widths=(), bidirectional=True), "linear (no LSTM)"),
    ],
)
def test_a_configuration_is_described_by_its_layers(config: LSTMConfig, words: str) -> None:
    assert config.describe() == words


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{}", "widths\n.*Field required"),
        ('{"widths": [64, 0]}', "greater than 0"),
        ('{"widths": [64.5]}', "valid integer"),
        ('{"widths": 64}', "valid array"),
        ('{"widths": [], "linear_skip": "none"}', "widths may be empty only with a linear_skip"),
        ('{"widths": [64], "dropout": 1.0}', "less than 1"),
        ('{"widths": [64], "dropout": -0.1}', "greater than or equal to 0"),
        ('{"widths": [64], "dropout": NaN}', "dropout"),
        ('{"widths": [64], "normalisation": "max"}', "'none', 'last', 'mean_std' or 'seasonal'"),
        ('{"widths": [64], "head": "first_state"}', "'last_state' or 'aligned'"),
        ('{"widths": [64], "patch_length": 0}', "greater than 0"),
        ('{"widths": [64], "bidirectional": 1}', "valid boolean"),
        ('{"widths": [64], "hidden_size": 64}', "Extra inputs are not permitted"),
    ],
)
def test_a_configuration_that_means_nothing_is_refused(text: str, rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        LSTMConfig.model_validate_json(text)


def test_a_configuration_cannot_be_altered() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        LSTMConfig(widths=(64,)).widths = (128,)  # type: ignore[misc]


def test_more_targets_than_features_are_refused() -> None:
    with pytest.raises(ValidationError, match="got num_targets=2 and num_features=1; give every"):
        WindowShape(lookback=24, horizon=10, num_features=1, num_targets=2)


@pytest.mark.parametrize(
    ("config", "changes", "rule"),
    [
        (
            LSTMConfig(widths=(8,), patch_length=7),
            {},
            "multiple of patch_length: got lookback=24 and patch_length=7; change",
        ),
        (
            LSTMConfig(widths=(8,), normalisation="seasonal"),
            {"season": 1},
            "season longer than one step: got season=1; give the season",
        ),
        (
            LSTMConfig(widths=(8,), normalisation="seasonal"),
            {"season": 25},
            "at least one season: got lookback=24 and season=25; raise the lookback",
        ),
    ],
)
def test_a_window_that_the_model_cannot_read_is_refused_before_it_is_built(
    config: LSTMConfig, changes: dict[str, int], rule: str
) -> None:
    shape = SHAPE.model_copy(update=changes)
    with pytest.raises(ValueError, match=rule):
        config.check(shape)
    with pytest.raises(ValueError, match=rule):
        config.num_parameters(shape)
    with pytest.raises(ValueError, match=rule):
        Forecaster(config, shape)


def test_a_window_of_exactly_one_season_can_be_read() -> None:
    LSTMConfig(widths=(8,), normalisation="seasonal").check(
        SHAPE.model_copy(update={"season": SHAPE.lookback})
    )


@pytest.mark.parametrize("num_known", [0, 2])
@pytest.mark.parametrize(("num_features", "num_targets"), [(1, 1), (3, 2)])
@pytest.mark.parametrize("widths", [(), (4,), (4, 4), (4, 6), (6, 6, 3)])
def test_the_parameter_count_is_the_one_of_the_module(
    widths: tuple[int, ...], num_features: int, num_targets: int, num_known: int
) -> None:
    shape = WindowShape(
        lookback=24,
        horizon=10,
        num_features=num_features,
        num_targets=num_targets,
        num_known=num_known,
        season=12,
    )
    for choice in product(*STRUCTURES.values()):
        structure = dict(zip(STRUCTURES, choice, strict=True))
        if not widths and structure["linear_skip"] == "none":
            continue
        config = LSTMConfig.model_validate({"widths": widths, **structure})
        num_parameters = sum(p.numel() for p in Forecaster(config, shape).parameters())
        assert config.num_parameters(shape) == num_parameters, config
