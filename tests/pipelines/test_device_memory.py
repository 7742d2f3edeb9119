"""What a training is predicted to take of a GPU grows with what it is made of."""

from typing import Any

import pytest

from models.config import LSTMConfig, WindowShape
from pipelines.device_memory import predicted_peak_bytes
from pipelines.training_config import TrainConfig

SHAPE = WindowShape(lookback=96, horizon=24, num_features=3, num_targets=1, num_known=8, season=24)
TRAINING = TrainConfig(
    precision="float32",
    lookback=96,
    calendar=True,
    learning_rate=1e-3,
    weight_decay=0.0,
    batch_size=1024,
)


def peak(shape: WindowShape = SHAPE, num_rows: int = 1000, **changes: Any) -> int:
    model = {name: changes.pop(name) for name in LSTMConfig.model_fields if name in changes}
    return predicted_peak_bytes(
        LSTMConfig(**{"widths": (64,), **model}),
        TRAINING.model_copy(update=changes),
        shape,
        num_rows,
    )


@pytest.mark.parametrize(
    "more",
    [
        {"widths": (128,)},
        {"widths": (64, 64)},
        {"bidirectional": True},
        {"batch_size": 2048},
        {"head": "aligned"},
        {"num_rows": 10_000},
    ],
)
def test_more_of_anything_takes_more(more: dict[str, Any]) -> None:
    assert peak(**more) > peak()


@pytest.mark.parametrize("less", [{"patch_length": 4}, {"precision": "bf16"}])
def test_fewer_positions_or_shorter_numbers_take_less(less: dict[str, Any]) -> None:
    assert peak(**less) < peak()


def test_of_a_large_batch_the_layers_take_the_most() -> None:
    outputs = 4 * 1024 * 96 * 64  # bytes of the states of one layer
    assert 7 * outputs < peak() < 20 * outputs
    # Kept for the backward pass: six numbers a unit, and the state itself.
    assert peak(widths=(64, 64)) - peak() == pytest.approx(7 * outputs, rel=0.02)


def test_the_table_is_there_once() -> None:
    in_a_row = 4 * (3 + 8) + 2 * 8 + 8  # float32 inputs, float64 truth and level, an origin
    assert peak(num_rows=5000) - peak(num_rows=4000) == 1000 * in_a_row
