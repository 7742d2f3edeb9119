"""A chosen configuration trained again on every row there is, for as long as it was found best.

The legend of shapes is in `models/__init__.py`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import fields

import torch

from models.config import LSTMConfig
from models.forecaster import Forecaster
from pipelines.scaling import Scaling
from pipelines.splits import SearchData, TestData
from pipelines.training import TrainConfig, Training, forecaster_for
from pipelines.windows import Windows, build_windows


def whole_scaling(data: TestData) -> Scaling:
    """Return the scaling of a table fitted on all of its rows."""
    return Scaling.fit(dataclasses.replace(_as_search_data(data), num_train_rows=data.num_rows))


def refit(
    model: LSTMConfig,
    config: TrainConfig,
    data: TestData,
    seed: int,
    num_steps: int,
    device: torch.device | str,
) -> Forecaster:
    """Return a forecaster trained on all rows for `num_steps` steps, on the CPU.

    Nothing is held back to stop by: the steps are those after which the same configuration was
    best. Its learning rate follows the schedule of the whole budget, as it did then.

    Args:
        model: What is trained.
        config: How.
        data: The table with its test part opened.
        seed: Of weights, batches and dropout.
        num_steps: Optimiser steps, at most `config.max_steps`.
        device: Where it is trained.

    Raises:
        TrainingDiverged: The loss is not finite.
    """
    scaling = whole_scaling(data)
    windows = _all_as_training(data, scaling, config, "cpu")
    forecaster = forecaster_for(windows, model, seed).to(device)
    windows = _all_as_training(data, scaling, config, device)
    training = Training(forecaster, windows, scaling, config, seed)
    # In the strides of the trial, so that its batches are drawn alike.
    for first in range(0, num_steps, config.evaluate_every_steps):
        training.take_steps(first, min(first + config.evaluate_every_steps, num_steps))
    return forecaster.cpu().eval()


def _all_as_training(
    data: TestData, scaling: Scaling, config: TrainConfig, device: torch.device | str
) -> Windows:
    windows = build_windows(
        _as_search_data(data), scaling, config.lookback, config.calendar, device
    )
    last_origins = torch.arange(
        windows.num_train_rows - data.horizon + 1, windows.num_train_rows, device=device
    )
    is_observed = torch.from_numpy(data.is_observed).to(device)
    between = last_origins[is_observed[last_origins - 1]]
    origins = torch.cat([windows.train_origins, between, windows.validation_origins])
    return dataclasses.replace(windows, train_origins=origins, num_train_rows=data.num_rows)


def _as_search_data(data: TestData) -> SearchData:
    """The verdict is out: the test part is rows like all others."""
    return SearchData(**{item.name: getattr(data, item.name) for item in fields(SearchData)})
