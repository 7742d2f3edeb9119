"""Contracts of the baselines: each against its loop, all on the origins of a trial."""

import json
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

from pipelines.baselines import (
    baselines,
    persistence,
    ridge_lookbacks,
    seasonal_naive,
    training_mean,
)
from pipelines.scaling import Scaling
from pipelines.scores import BaselineScore
from pipelines.splits import SearchData
from pipelines.training_config import TrainingBudget
from pipelines.windows import Windows, build_windows

MakeData = Callable[..., SearchData]
SHORT = TrainingBudget(max_steps=20, evaluate_every_steps=10, warmup_steps=2, precision="float32")


def windows_of(data: SearchData) -> Windows:
    return build_windows(data, Scaling.fit(data), 10, False, "cpu")


def scores_of(data: SearchData) -> dict[str, BaselineScore]:
    return {score.name: score for score in baselines(data, SHORT, seed=0)}


def test_persistence_repeats_the_last_value(make_data: MakeData) -> None:
    data = make_data(target_transform="log")
    forecast = persistence(windows_of(data), torch.tensor([80, 90]))
    assert forecast.shape == (2, 4, 1)
    for place, t in enumerate((80, 90)):
        assert forecast[place].flatten().tolist() == [data.values[t - 1, 0]] * 4


@pytest.mark.parametrize("season", [1, 3, 4, 6])
def test_the_seasonal_naive_forecast_goes_back_whole_seasons_to_a_known_row(
    make_data: MakeData, season: int
) -> None:
    data = make_data(season=season)
    forecast = seasonal_naive(windows_of(data), torch.tensor([80, 90]))
    for place, t in enumerate((80, 90)):
        for step in range(4):
            row = t + step
            while row >= t:
                row -= season
            assert forecast[place, step, 0].item() == data.values[row, 0]


def test_the_training_mean_is_that_of_the_training_rows(make_data: MakeData) -> None:
    data = make_data(target_transform="diff")
    forecast = training_mean(windows_of(data), Scaling.fit(data), torch.tensor([90]))
    assert forecast.flatten().tolist() == pytest.approx([data.values[:80, 0].mean()] * 4)


def test_a_score_is_the_mean_error_over_every_validation_origin(make_data: MakeData) -> None:
    data = make_data()
    errors = [
        abs(data.values[t - 1, 0] - data.truth[t + step, 0])
        for t in range(80, 117)
        for step in range(4)
    ]
    assert scores_of(data)["persistence"].errors.mae == pytest.approx(np.mean(errors))


def test_the_baselines_come_in_a_fixed_order_and_say_what_was_chosen(make_data: MakeData) -> None:
    scores = scores_of(make_data())
    assert list(scores) == [
        "persistence",
        "seasonal naive (6)",
        "training mean",
        "ridge",
        "linear twin",
    ]
    assert re.fullmatch(r"lookback (12|24), penalty [0-9.]+", scores["ridge"].note)
    assert re.fullmatch(r"lookback (12|24), [12]0 steps", scores["linear twin"].note)


def test_a_score_is_flat_json(make_data: MakeData) -> None:
    score = scores_of(make_data())["ridge"]
    flat = json.loads(json.dumps(score.to_dict(), allow_nan=False))
    assert flat == {"name": "ridge", "note": score.note, **score.errors.to_dict()}


def test_without_a_season_there_is_no_seasonal_naive_forecast(make_data: MakeData) -> None:
    assert "seasonal naive (1)" not in scores_of(make_data(season=1))


@pytest.mark.parametrize("transform", ["log", "diff", "log_return"])
def test_every_transform_is_inverted_before_scoring(make_data: MakeData, transform: str) -> None:
    scores = scores_of(make_data(target_transform=transform))
    assert scores["ridge"].errors.mae < 2
    assert scores["linear twin"].errors.mae < 2
    assert scores["persistence"] == scores_of(make_data())["persistence"]


def test_the_baselines_repeat_themselves(make_data: MakeData) -> None:
    assert scores_of(make_data()) == scores_of(make_data())


@pytest.mark.parametrize(
    ("num_train_rows", "season", "expected"),
    [
        (6132, 24, (24, 48, 96, 168)),
        (210, 12, (12, 24, 48, 84)),
        (40, 12, (12,)),
        (30, 12, (9,)),
        (12, 12, (1,)),
        (100_000, 1440, (720,)),
        (1000, 1, (12, 24, 48, 84)),
    ],
)
def test_ridge_tries_lookbacks_that_leave_windows_enough(
    make_data: MakeData, num_train_rows: int, season: int, expected: tuple[int, ...]
) -> None:
    data = make_data(num_train_rows=num_train_rows, season=season, horizon=min(season, 12))
    assert ridge_lookbacks(data) == expected


def test_a_table_of_few_rows_still_has_every_baseline(make_data: MakeData) -> None:
    assert len(scores_of(make_data(num_train_rows=10))) == 5


def test_on_electricity_ridge_beats_the_naive_forecasts(electricity: SearchData) -> None:
    scores = {s.name: s.errors.mae_scaled for s in baselines(electricity, SHORT, seed=0)}
    assert scores["seasonal naive (24)"] == pytest.approx(0.0891, abs=5e-4)
    assert scores["ridge"] == pytest.approx(0.0794, abs=5e-4)
    assert scores["linear twin"] < scores["seasonal naive (24)"]
