"""The forecasts that an LSTM has to beat: fitted, and scored on the whole validation part.

All read the same rows as a trial and are scored on the same origins. The legend of shapes is in
`models/__init__.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.config import LSTMConfig, Skip
from models.forecaster import Forecaster
from pipelines.contenders import Contender, ensemble_contender, validation_errors
from pipelines.evaluation import evaluate_forecast
from pipelines.ridge import Ridge, fit_ridge
from pipelines.scaling import Scaling
from pipelines.scores import BaselineScore, Evaluation, TrainingDiverged
from pipelines.training import Training, build_forecaster
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


def baselines(data: SearchData, budget: TrainingBudget, seed: int) -> Iterator[BaselineScore]:
    """Yield the baselines' scores, the quickest first; computed on the CPU.

    Persistence, the seasonal naive forecast where there is a season, the training mean, ridge, and
    the linear twin: the searched model without LSTM, trained within the same budget.

    Raises:
        ValueError: No window fits into the training or the validation part.
        TrainingDiverged: The linear twin's loss or an error of it is not finite.
    """
    scaling = Scaling.fit(data)
    for fitted in fit_baselines(data, budget, seed):
        errors = validation_errors(fitted, data, scaling)
        yield BaselineScore(fitted.name, errors, fitted.note)


def fit_baselines(data: SearchData, budget: TrainingBudget, seed: int) -> Iterator[Contender]:
    """Yield the baselines, fitted on the training part and chosen on the validation part.

    Raises:
        ValueError: No window fits into the training or the validation part.
        TrainingDiverged: The linear twin's loss or an error of it is not finite.
    """
    scaling = Scaling.fit(data)
    lookbacks = ridge_lookbacks(data)
    yield Contender("persistence", "", lookbacks[0], False, persistence)
    if 1 < data.season <= data.num_train_rows:
        yield Contender(f"seasonal naive ({data.season})", "", lookbacks[0], False, seasonal_naive)

    def mean(windows: Windows, origins: Tensor) -> Tensor:
        return training_mean(windows, scaling, origins)

    yield Contender("training mean", "", lookbacks[0], False, mean)
    ridge = _fit_best_ridge(data, scaling, lookbacks, budget.max_final_windows)
    yield ridge
    yield _fit_linear_twin(data, scaling, budget, ridge.lookback, seed)


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


def _fit_best_ridge(
    data: SearchData, scaling: Scaling, lookbacks: tuple[int, ...], max_windows: int
) -> Contender:
    """Return the ridge that errs least on at most `max_windows` validation windows."""
    candidates = []
    for lookback in lookbacks:
        windows = build_windows(data, scaling, lookback, False, "cpu")
        origins = evenly_spaced(windows.validation_origins, max_windows)
        for ridge in fit_ridge(windows, RIDGE_PENALTIES):
            forecast = partial(_ridge_forecast, ridge, scaling)
            errors = evaluate_forecast(partial(forecast, windows), windows, scaling, origins)
            note = f"lookback {lookback}, penalty {ridge.penalty:g}"
            fitted = Contender("ridge", note, lookback, False, forecast)
            candidates.append((errors.mae_scaled, fitted))
    return min(candidates, key=lambda candidate: candidate[0])[1]


def _ridge_forecast(ridge: Ridge, scaling: Scaling, windows: Windows, origins: Tensor) -> Tensor:
    return scaling.decode(ridge.forecast(windows, origins), windows.last_level(origins))


def _fit_linear_twin(
    data: SearchData, scaling: Scaling, budget: TrainingBudget, lookback: int, seed: int
) -> Contender:
    """Train the searched model without LSTM and return it with its best weights.

    Of several targets with a map for all and with a map for each, of which the better on the
    validation part counts.
    """
    config = TrainConfig(
        **budget.model_dump(),
        lookback=lookback,
        calendar=data.known.shape[1] > 0,
        learning_rate=3e-3,
        weight_decay=0.0,
        batch_size=64,
    )
    windows = build_windows(data, scaling, config.lookback, config.calendar, "cpu")
    skips: tuple[Skip, ...] = ("shared", "per_target") if data.num_targets > 1 else ("shared",)
    best: tuple[Evaluation, Forecaster] | None = None
    for skip in skips:
        model = LSTMConfig(widths=(), linear_skip=skip)
        forecaster = build_forecaster(model, config, data, "cpu", seed)
        try:
            for evaluation in Training(forecaster, windows, scaling, config, seed):
                if best is None or evaluation.errors.mae_scaled < best[0].errors.mae_scaled:
                    best = evaluation, copy.deepcopy(forecaster)
        except TrainingDiverged:
            if best is None and skip == skips[-1]:
                raise
    assert best is not None, "a budget has at least one evaluation"
    evaluation, forecaster = best
    # Raises where an error on all validation windows is not finite: on these it will be scored.
    Training(forecaster, windows, scaling, config, seed).validate(windows.validation_origins)
    note = f"lookback {lookback}, {evaluation.step} steps"
    if len(skips) > 1:
        note += f", skip {forecaster.config.linear_skip}"
    return ensemble_contender("linear twin", note, [forecaster], scaling, lookback, config.calendar)
