"""Forecast errors from many origins, in batches: one way for a forecaster and for a baseline.

The legend of shapes is in `models/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from models.forecaster import Forecaster
from pipelines.metrics import ErrorSums, error_sums
from pipelines.scaling import Scaling
from pipelines.scores import Errors
from pipelines.training_config import EVALUATION_BATCH_SIZE
from pipelines.windows import Windows

Forecast = Callable[[Tensor], Tensor]
"""From origins [B] to forecasts [B, H, T] in original units."""


def evaluate(
    forecaster: Forecaster,
    windows: Windows,
    scaling: Scaling,
    origins: Tensor,
    batch_size: int = EVALUATION_BATCH_SIZE,
) -> Errors:
    """Return a forecaster's errors from some origins, computed in float32.

    Leaves the forecaster in evaluation mode.

    Args:
        forecaster: On the device of the windows, for windows of their shape.
        windows: Holds the truth, and the training rows that MASE is measured against.
        scaling: The one that the windows were built with.
        origins: int64, at least one.
        batch_size: Windows a forward pass.
    """
    forecaster.eval()

    def forecast(batch: Tensor) -> Tensor:
        standardised = forecaster(*windows.inputs(batch))
        return scaling.decode(standardised, windows.last_level(batch))

    return evaluate_forecast(forecast, windows, scaling, origins, batch_size)


def evaluate_forecast(
    forecast: Forecast,
    windows: Windows,
    scaling: Scaling,
    origins: Tensor,
    batch_size: int = EVALUATION_BATCH_SIZE,
) -> Errors:
    """Return the errors of any forecast from some origins; arguments as for `evaluate`."""
    sums: list[ErrorSums] = []
    with torch.inference_mode():
        for batch in torch.split(origins, batch_size):
            sums.append(error_sums(forecast(batch), windows.true_future(batch)))
    target_scale = torch.tensor(scaling.target_scale, dtype=torch.float64, device=origins.device)
    return sum(sums[1:], sums[0]).errors(target_scale, windows.mase_scale)
