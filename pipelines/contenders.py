"""Fitted forecasts that meet on the same windows: the baselines, a model, an ensemble of models.

The legend of shapes is in `models/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.forecaster import Forecaster
from pipelines.evaluation import evaluate_forecast
from pipelines.scaling import Scaling
from pipelines.scores import Errors
from pipelines.windows import Windows, build_windows

if TYPE_CHECKING:
    from pipelines.splits import SearchData


@dataclass(frozen=True, eq=False)
class Contender:
    """A forecast that is fitted and needs nothing but windows."""

    name: str
    note: str
    """What was chosen when it was fitted, such as `lookback 168, penalty 10`; may be empty."""
    lookback: int
    """L of the windows that it reads."""
    use_calendar: bool
    """Whether these windows hold the calendar features."""
    forecast: Callable[[Windows, Tensor], Tensor]
    """From windows and origins [B] to forecasts [B, H, T] in original units."""


def validation_errors(contender: Contender, data: SearchData, scaling: Scaling) -> Errors:
    """Return a contender's errors on the whole validation part; on the CPU.

    Args:
        contender: Fitted.
        data: The table without its test part.
        scaling: Fitted on its training rows, with which contenders read their windows.

    Raises:
        ValueError: No window fits into the training or the validation part.
    """
    cut = contender.lookback, contender.use_calendar
    windows = build_windows(data, scaling, *cut, "cpu")
    forecast = partial(contender.forecast, windows)
    return evaluate_forecast(forecast, windows, scaling, windows.validation_origins)


def ensemble_contender(
    name: str,
    note: str,
    forecasters: Sequence[Forecaster],
    scaling: Scaling,
    lookback: int,
    use_calendar: bool,
) -> Contender:
    """Return the mean of some forecasters' forecasts in original units; of one, that forecaster.

    Args:
        name: Of the contender.
        note: How it came about.
        forecasters: For windows of one shape, standardised by one scaling.
        scaling: That scaling; the windows are built with it.
        lookback: L of these windows.
        use_calendar: Whether the forecasters read the calendar features.
    """
    for forecaster in forecasters:
        forecaster.eval()

    def forecast(windows: Windows, origins: Tensor) -> Tensor:
        inputs, level = windows.inputs(origins), windows.last_level(origins)
        # Each in original units first: the mean of logarithms would be another model.
        each = [scaling.decode(forecaster(*inputs), level) for forecaster in forecasters]
        return torch.stack(each).mean(dim=0)

    return Contender(name, note, lookback, use_calendar, forecast)
