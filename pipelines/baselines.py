"""The forecasts that an LSTM has to beat, scored on the whole validation part.

All read the same rows as a trial and are scored on the same origins. The legend of shapes is in
`models/__init__.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.config import LSTMConfig
from pipelines.evaluation import Forecast, evaluate_forecast
from pipelines.metrics import Errors
from pipelines.ridge import Ridge, fit_ridge
from pipelines.scaling import Scaling
from pipelines.training import Evaluation, Training, build_forecaster
from pipelines.training_config import TrainConfig, TrainingBudget
from pipelines.windows import Windows, build_windows, evenly_spaced

if TYPE_CHECKING:
    from pipelines.splits import SearchData

RIDGE_SEASONS = (1, 2, 4, 7)
"""Lookbacks that ridge tries, in seasons: for hours a day, two, four and a week."""

SHORTEST_SEASON = 12
"""Steps that count as a season where the series has none or a shorter one."""

RIDGE_MAX_LOOKBACK = 720
"""A month of hours; the time of a fit grows with the square of the lookback."""

RIDGE_PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""On sums over standardised windows: from next to none to a map of almost no weights."""


@dataclass(frozen=True)
class BaselineScore:
    """A baseline's name and its validation errors."""

    name: str
    errors: Errors
    note: str
    """What was chosen on the validation part, such as `lookback 168, penalty 10`; may be empty."""

    def to_dict(self) -> dict[str, str | float]:
        """Return a flat dictionary for JSON, which has no NaN: an undefined MASE is left out."""
        return {"name": self.name, "note": self.note, **self.errors.to_dict()}


def baselines(data: SearchData, budget: TrainingBudget, seed: int) -> Iterator[BaselineScore]:
    """Yield the baselines' scores, the quickest first; computed on the CPU.

    Persistence, the seasonal naive forecast where there is a season, the training mean, ridge, and
    the linear twin: the searched model without LSTM, trained within the same budget.

    Raises:
        ValueError: No window fits into the training or the validation part.
        TrainingDiverged: The linear twin's loss or an error of it is not finite.
    """
    scaling = Scaling.fit(data)
    lookbacks = ridge_lookbacks(data)
    yield from _naive_scores(build_windows(data, scaling, lookbacks[0], False, "cpu"), scaling)
    lookback, score = _ridge_score(data, scaling, lookbacks, budget.max_validation_windows)
    yield score
    yield _linear_twin_score(data, scaling, budget, lookback, seed)


def persistence(windows: Windows, origins: Tensor) -> Tensor:
    """Return the last value for every step, [B, H, T] in original units."""
    return windows.last_level(origins).unsqueeze(1).expand(-1, windows.shape.horizon, -1)


def seasonal_naive(windows: Windows, origins: Tensor) -> Tensor:
    """Return the value one season before each step, or as many as needed, [B, H, T].

    In original units. An origin must have a season of rows before it.
    """
    season = windows.shape.season
    steps = torch.arange(windows.shape.horizon, device=origins.device)
    return windows.level[origins.unsqueeze(1) + steps % season - season]


def training_mean(windows: Windows, scaling: Scaling, origins: Tensor) -> Tensor:
    """Return the training rows' mean for every step, [B, H, T] in original units."""
    mean = torch.tensor(scaling.target_mean, dtype=torch.float64, device=origins.device)
    return mean.expand(len(origins), windows.shape.horizon, -1)


def ridge_lookbacks(data: SearchData) -> tuple[int, ...]:
    """Return the lookbacks that ridge tries: those with no more weights than training windows."""
    longest = max(1, min((data.num_train_rows - data.horizon + 1) // 2, RIDGE_MAX_LOOKBACK))
    season = max(data.season, SHORTEST_SEASON)
    fitting = tuple(count * season for count in RIDGE_SEASONS if count * season <= longest)
    return fitting or (longest,)


def _naive_scores(windows: Windows, scaling: Scaling) -> Iterator[BaselineScore]:
    """Yield the scores of the baselines that fit nothing but a mean."""

    def score(name: str, forecast: Forecast) -> BaselineScore:
        errors = evaluate_forecast(forecast, windows, scaling, windows.validation_origins)
        return BaselineScore(name, errors, note="")

    yield score("persistence", lambda origins: persistence(windows, origins))
    season = windows.shape.season
    if 1 < season <= windows.num_train_rows:
        yield score(f"seasonal naive ({season})", lambda origins: seasonal_naive(windows, origins))
    yield score("training mean", lambda origins: training_mean(windows, scaling, origins))


def _ridge_score(
    data: SearchData, scaling: Scaling, lookbacks: tuple[int, ...], max_windows: int
) -> tuple[int, BaselineScore]:
    """Return the best lookback, by at most `max_windows` validation windows, and ridge's score."""
    windows_of = {
        lookback: build_windows(data, scaling, lookback, False, "cpu") for lookback in lookbacks
    }
    candidates = [
        (_choice_error(ridge, windows, scaling, max_windows), lookback, ridge)
        for lookback, windows in windows_of.items()
        for ridge in fit_ridge(windows, RIDGE_PENALTIES)
    ]
    _, lookback, ridge = min(candidates, key=lambda candidate: candidate[0])
    windows = windows_of[lookback]
    errors = _ridge_errors(ridge, windows, scaling, windows.validation_origins)
    note = f"lookback {lookback}, penalty {ridge.penalty:g}"
    return lookback, BaselineScore("ridge", errors, note)


def _choice_error(ridge: Ridge, windows: Windows, scaling: Scaling, max_windows: int) -> float:
    """Return the validation error that lookback and penalty are chosen by."""
    origins = evenly_spaced(windows.validation_origins, max_windows)
    return _ridge_errors(ridge, windows, scaling, origins).mae_scaled


def _ridge_errors(ridge: Ridge, windows: Windows, scaling: Scaling, origins: Tensor) -> Errors:
    def forecast(batch: Tensor) -> Tensor:
        return scaling.decode(ridge.forecast(windows, batch), windows.last_level(batch))

    return evaluate_forecast(forecast, windows, scaling, origins)


def _linear_twin_score(
    data: SearchData, scaling: Scaling, budget: TrainingBudget, lookback: int, seed: int
) -> BaselineScore:
    """Train the searched model without LSTM and return the score of its best weights."""
    config = TrainConfig(
        **budget.model_dump(),
        lookback=lookback,
        calendar=data.known.shape[1] > 0,
        learning_rate=3e-3,
        weight_decay=0.0,
        batch_size=64,
    )
    windows = build_windows(data, scaling, config.lookback, config.calendar, "cpu")
    forecaster = build_forecaster(LSTMConfig(widths=()), config, data, "cpu", seed)
    best: tuple[Evaluation, dict[str, Tensor]] | None = None
    training = Training(forecaster, windows, scaling, config, seed)
    for evaluation in training:
        if best is None or evaluation.errors.mae_scaled < best[0].errors.mae_scaled:
            best = evaluation, copy.deepcopy(forecaster.state_dict())
    assert best is not None, "a budget has at least one evaluation"
    forecaster.load_state_dict(best[1])
    errors = training.evaluate_fully(best[0]).errors
    return BaselineScore("linear twin", errors, f"lookback {lookback}, {best[0].step} steps")
