"""Contracts of evaluating a forecast: the same errors as one window at a time."""

from collections.abc import Callable

import pytest
import torch

from models.config import LSTMConfig
from models.forecaster import Forecaster
from pipelines.evaluation import evaluate, evaluate_forecast
from pipelines.metrics import mae, naive_scale
from pipelines.scaling import Scaling
from pipelines.splits import SearchData
from pipelines.windows import build_windows

MakeData = Callable[..., SearchData]


@pytest.mark.parametrize("transform", ["none", "log", "diff", "log_return"])
def test_a_forecaster_is_scored_in_original_units(make_data: MakeData, transform: str) -> None:
    data = make_data(target_transform=transform, targets=("load", "heat"))
    scaling = Scaling.fit(data)
    windows = build_windows(data, scaling, 10, False, "cpu")
    torch.manual_seed(0)
    forecaster = Forecaster(LSTMConfig(widths=(3,), dropout=0.5), windows.shape)
    torch.nn.init.normal_(forecaster.lstm.readout.weight, std=0.1)  # type: ignore[union-attr]
    origins = windows.validation_origins
    errors = evaluate(forecaster, windows, scaling, origins)

    forecasts = []
    for origin in origins.split(1):  # type: ignore[no-untyped-call]
        with torch.no_grad():
            standardised = forecaster.eval()(windows.inputs(origin)[0])
        level = torch.from_numpy(data.values[int(origin) - 1, None, :2])
        forecasts.append(scaling.decode(standardised, level))
    truth = torch.stack([torch.from_numpy(data.truth[t : t + 4]) for t in origins.tolist()])
    each = mae(torch.cat(forecasts), truth)
    naive = naive_scale(torch.from_numpy(data.truth[:80]), data.season)
    assert errors.mae == pytest.approx(each.mean().item())
    assert errors.mase == pytest.approx((each / naive).mean().item())
    assert errors.mae_scaled == pytest.approx(
        (each / torch.tensor(scaling.target_scale)).mean().item()
    )


@pytest.mark.parametrize("batch_size", [1, 10, 1000])
def test_the_batch_size_changes_nothing(make_data: MakeData, batch_size: int) -> None:
    data = make_data()
    scaling = Scaling.fit(data)
    windows = build_windows(data, scaling, 10, True, "cpu")

    def ones(origins: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(origins), 4, 1, dtype=torch.float64)

    errors = evaluate_forecast(ones, windows, scaling, windows.validation_origins, batch_size)
    truth = torch.stack([torch.from_numpy(data.truth[t : t + 4]) for t in range(80, 117)])
    assert errors.mae == pytest.approx((truth - 1).abs().mean().item())
