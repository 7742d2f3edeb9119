"""Contracts of the ensemble: the mean of its members in original units."""

from collections.abc import Callable

import pytest
import torch

from models.config import LSTMConfig
from models.forecaster import Forecaster
from pipelines.contenders import ensemble_contender
from pipelines.scaling import Scaling
from pipelines.splits import SearchData
from pipelines.training import build_forecaster
from pipelines.training_config import TrainConfig
from pipelines.windows import build_windows

MakeData = Callable[..., SearchData]
CONFIG = LSTMConfig(widths=(4,), dropout=0.5)


def members(data: SearchData) -> list[Forecaster]:
    training = TrainConfig(
        lookback=10,
        calendar=True,
        learning_rate=1e-3,
        weight_decay=0.0,
        batch_size=8,
        precision="float32",
    )
    forecasters = [build_forecaster(CONFIG, training, data, "cpu", seed) for seed in range(3)]
    generator = torch.Generator().manual_seed(0)
    for forecaster in forecasters:  # which all begin as the same linear map
        for weights in forecaster.parameters():
            weights.data += 0.1 * torch.randn(weights.shape, generator=generator)
    return forecasters


@pytest.mark.parametrize("transform", ["none", "log", "log_return"])
def test_an_ensemble_is_the_mean_of_its_members_in_original_units(
    make_data: MakeData, transform: str
) -> None:
    data = make_data(target_transform=transform)
    scaling, forecasters = Scaling.fit(data), members(data)
    windows = build_windows(data, scaling, 10, True, "cpu")
    origins = torch.tensor([80, 90, 95])
    with torch.inference_mode():
        whole = ensemble_contender("model", "note", forecasters, scaling, 10, True)
        each = [
            ensemble_contender("", "", [one], scaling, 10, True).forecast(windows, origins)
            for one in forecasters
        ]
        alone = scaling.decode(
            forecasters[0](*windows.inputs(origins)), windows.last_level(origins)
        )
        forecast = whole.forecast(windows, origins)
    assert (whole.name, whole.note, whole.lookback, whole.use_calendar) == (
        "model",
        "note",
        10,
        True,
    )
    assert forecast.shape == (3, 4, 1)
    torch.testing.assert_close(each[0], alone, rtol=0, atol=0)
    torch.testing.assert_close(forecast, (each[0] + each[1] + each[2]) / 3)
    assert not torch.equal(each[0], each[1])


def test_an_ensemble_forecasts_without_dropout(make_data: MakeData) -> None:
    data = make_data()
    scaling, forecasters = Scaling.fit(data), members(data)
    for forecaster in forecasters:
        forecaster.train()
    windows = build_windows(data, scaling, 10, True, "cpu")
    contender = ensemble_contender("model", "", forecasters, scaling, 10, True)
    with torch.inference_mode():
        first, second = (contender.forecast(windows, torch.tensor([80, 90])) for _ in range(2))
    assert torch.equal(first, second)
