"""A refit sees every row, trains as long as it is told, and is the same for the same seed."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from models.config import LSTMConfig
from pipelines.data_config import DataConfig, SplitConfig
from pipelines.refit import _all_as_training, refit, whole_scaling
from pipelines.series import load
from pipelines.splits import TestData, split
from pipelines.training import TrainConfig

MODEL = LSTMConfig(widths=(4,))
CONFIG = TrainConfig(
    lookback=12,
    calendar=False,
    learning_rate=1e-3,
    weight_decay=0.0,
    batch_size=8,
    max_steps=6,
    evaluate_every_steps=2,
    warmup_steps=1,
    precision="float32",
)


@pytest.fixture
def opened() -> TestData:
    rows = np.arange(120)
    load_values = 50 + 10 * np.sin(2 * np.pi * rows / 6) + rows
    times = pd.date_range("2024-01-01", periods=120, freq="h")
    table = load(
        DataConfig(horizon=4, season=6), pd.DataFrame({"time": times, "load": load_values})
    )
    _, sealed = split(table, SplitConfig())
    return sealed.open()


def test_every_window_of_the_table_is_trained_on(opened: TestData) -> None:
    windows = _all_as_training(opened, whole_scaling(opened), CONFIG, "cpu")
    assert windows.train_origins.tolist() == list(range(12, 120 - 4 + 1))


def test_no_window_starts_after_an_unmeasured_row(opened: TestData) -> None:
    is_observed = opened.is_observed.copy()
    gaps = [50, opened.num_train_rows - 2, opened.first_test_row + 3]
    is_observed[gaps] = False
    gappy = dataclasses.replace(opened, is_observed=is_observed)
    windows = _all_as_training(gappy, whole_scaling(gappy), CONFIG, "cpu")
    expected = sorted(set(range(12, 117)) - {gap + 1 for gap in gaps})
    assert windows.train_origins.tolist() == expected


def test_the_scaling_is_that_of_all_rows(opened: TestData) -> None:
    scaling = whole_scaling(opened)
    assert scaling.target_mean[0] == pytest.approx(opened.values[:, 0].mean())
    assert scaling.target_scale[0] == pytest.approx(opened.values[:, 0].std())


def test_equal_seeds_give_equal_weights_and_other_seeds_others(opened: TestData) -> None:
    once, twice, other = (trained(opened, seed, 4) for seed in (1, 1, 2))
    assert torch.equal(once, twice)
    assert not torch.equal(once, other)


def test_it_trains_as_many_steps_as_it_is_told(opened: TestData) -> None:
    start, short, long = (trained(opened, 1, num_steps) for num_steps in (0, 3, 5))
    assert not torch.equal(start, short)
    assert not torch.equal(short, long)


def trained(data: TestData, seed: int, num_steps: int) -> torch.Tensor:
    """All weights after some steps, in one row."""
    forecaster = refit(MODEL, CONFIG, data, seed, num_steps, "cpu")
    return torch.cat([weight.detach().flatten() for weight in forecaster.parameters()])
