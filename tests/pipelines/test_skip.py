"""Contracts of the linear skip's start: the best linear map of the training rows, or none."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from models.config import LSTMConfig, Skip
from models.forecaster import Forecaster
from pipelines import skip
from pipelines.evaluation import evaluate
from pipelines.scaling import Scaling
from pipelines.skip import start_skip
from pipelines.splits import SearchData
from pipelines.windows import Windows, build_windows

MakeData = Callable[..., SearchData]


def started(data: SearchData, model: LSTMConfig, lookback: int) -> tuple[Forecaster, Windows]:
    windows = build_windows(data, Scaling.fit(data), lookback, False, "cpu")
    forecaster = Forecaster(model, windows.shape)
    start_skip(forecaster, windows)
    return forecaster, windows


@pytest.mark.parametrize("normalisation", ["none", "last", "mean_std", "seasonal"])
def test_in_every_normalisation_a_linear_series_is_forecast_from_the_start(
    make_data: MakeData, normalisation: str
) -> None:
    rows = np.arange(400)
    values = (30 + 10 * np.sin(2 * np.pi * rows / 6) + 4 * np.cos(2 * np.pi * rows / 6))[:, None]
    data = make_data(
        values=values,
        columns=("load",),
        num_train_rows=300,
        is_observed=np.full(400, True),
        known=np.zeros((400, 0), np.float32),
        season=6,
    )
    model = LSTMConfig(widths=(4,), normalisation=normalisation)  # type: ignore[arg-type]
    forecaster, windows = started(data, model, lookback=12)
    errors = evaluate(forecaster, windows, Scaling.fit(data), windows.validation_origins)
    assert errors.mae_scaled < 0.01


def test_on_electricity_it_starts_where_the_seasonal_naive_forecast_is_beaten(
    electricity: SearchData,
) -> None:
    forecaster, windows = started(electricity, LSTMConfig(widths=()), lookback=168)
    errors = evaluate(forecaster, windows, Scaling.fit(electricity), windows.validation_origins)
    assert errors.mae_scaled == pytest.approx(0.080, abs=0.002)


def test_what_nothing_linear_forecasts_gets_hardly_any_weights(make_data: MakeData) -> None:
    steps = np.random.default_rng(0).normal(size=(600, 1))
    data = make_data(
        values=np.cumsum(steps, axis=0),
        columns=("load",),
        num_train_rows=500,
        is_observed=np.full(600, True),
        known=np.zeros((600, 0), np.float32),
    )
    forecaster, _ = started(data, LSTMConfig(widths=()), lookback=48)
    assert forecaster.skip is not None
    assert forecaster.skip.weight.abs().max() < 0.02


def test_constant_windows_do_not_outweigh_all_others_in_their_own_scale(
    make_data: MakeData,
) -> None:
    rng = np.random.default_rng(0)
    is_idle = np.arange(600) % 100 < 40
    load = 30 + 10 * np.sin(2 * np.pi * np.arange(600) / 6) + rng.normal(size=600)
    data = make_data(
        values=np.where(is_idle, 0.0, load)[:, None],
        columns=("load",),
        num_train_rows=500,
        is_observed=np.full(600, True),
        known=np.zeros((600, 0), np.float32),
    )
    model = LSTMConfig(widths=(), normalisation="mean_std")
    forecaster, windows = started(data, model, lookback=12)
    untrained = Forecaster(model, windows.shape)
    errors, untrained_errors = (
        evaluate(each, windows, Scaling.fit(data), windows.validation_origins).mae
        for each in (forecaster, untrained)
    )
    assert errors < untrained_errors


def test_no_row_after_the_cut_is_read(make_data: MakeData) -> None:
    data = make_data()
    altered = data.values.copy()
    altered[data.num_train_rows :] = 1e6
    one, other = (
        started(table, LSTMConfig(widths=()), 12)[0] for table in (data, make_data(values=altered))
    )
    for name, weights in one.state_dict().items():
        assert torch.equal(weights, other.state_dict()[name])


def test_a_table_of_hardly_any_windows_starts_near_zero(make_data: MakeData) -> None:
    forecaster, windows = started(make_data(num_train_rows=16), LSTMConfig(widths=()), 12)
    assert len(windows.train_origins) == 1
    assert forecaster.skip is not None
    assert forecaster.skip.weight.abs().max() < 1e-3


def test_a_forecaster_without_skip_is_left_alone(make_data: MakeData) -> None:
    torch.manual_seed(0)
    forecaster, windows = started(make_data(), LSTMConfig(widths=(3,), linear_skip="none"), 12)
    torch.manual_seed(0)
    fresh = Forecaster(forecaster.config, windows.shape).state_dict()
    assert all(
        torch.equal(weights, fresh[name]) for name, weights in forecaster.state_dict().items()
    )


@pytest.mark.parametrize(("linear_skip", "is_enough"), [("shared", False), ("per_target", True)])
def test_targets_that_need_different_maps_start_well_from_one_of_their_own(
    make_data: MakeData, linear_skip: Skip, is_enough: bool
) -> None:
    rows, noise = np.arange(600), 0.02 * np.random.default_rng(0).normal(size=(600, 2))
    # One repeats after 6 rows; the other alternates, so that no map serves both.
    values = np.stack([np.sin(2 * np.pi * rows / 6), (-1.0) ** rows], axis=1) + noise
    data = make_data(
        values=values,
        columns=("slow", "fast"),
        targets=("slow", "fast"),
        num_train_rows=500,
        is_observed=np.full(600, True),
        known=np.zeros((600, 0), np.float32),
    )
    model = LSTMConfig(widths=(), normalisation="none", linear_skip=linear_skip)
    forecaster, windows = started(data, model, lookback=2)
    errors = evaluate(forecaster, windows, Scaling.fit(data), windows.validation_origins)
    assert (errors.mae_scaled < 0.1) is is_enough


@pytest.fixture
def num_fits(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Counts the fits from here on; nothing is kept of earlier ones."""
    fits: list[Forecaster] = []
    fitted = skip._fitted

    def counted(forecaster: Forecaster, windows: Windows) -> Any:
        fits.append(forecaster)
        return fitted(forecaster, windows)

    monkeypatch.setattr(skip, "_fitted", counted)
    monkeypatch.setattr(skip, "_kept", {})
    return lambda: len(fits)


def weight_of(data: SearchData, lookback: int = 12, **model: Any) -> torch.Tensor:
    forecaster, _ = started(data, LSTMConfig(**model), lookback)
    assert forecaster.skip is not None
    return forecaster.skip.weight.detach().clone()


def test_trials_of_other_widths_start_from_the_same_fit_which_their_training_leaves_alone(
    make_data: MakeData, num_fits: Callable[[], int]
) -> None:
    data = make_data()
    forecaster, _ = started(data, LSTMConfig(widths=(4,)), lookback=12)
    assert forecaster.skip is not None
    first = forecaster.skip.weight.detach().clone()
    forecaster.skip.weight.data.zero_()
    assert torch.equal(weight_of(make_data(), widths=(8, 8)), first)
    assert num_fits() == 1


@pytest.mark.parametrize(
    "changes",
    [{"lookback": 24}, {"normalisation": "mean_std"}, {"linear_skip": "per_target"}, {"row": 5}],
    ids=str,
)
def test_what_a_fit_depends_on_makes_another(
    make_data: MakeData, num_fits: Callable[[], int], changes: dict[str, Any]
) -> None:
    data = make_data(targets=("load", "heat"))
    other, model = data, {"widths": (4,), "linear_skip": "shared"} | changes
    if row := model.pop("row", None):
        values = data.values.copy()
        values[row] += 1
        other = dataclasses.replace(data, values=values)
    weight_of(data, widths=(4,), linear_skip="shared")
    weight = weight_of(other, **model)
    assert num_fits() == 2
    skip._kept.clear()
    assert torch.equal(weight_of(other, **model), weight)


def test_no_more_fits_are_kept_than_fit_and_the_one_used_last_stays(
    make_data: MakeData, num_fits: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data()
    weight_of(data, widths=())
    ((fit),) = skip._kept.values()
    monkeypatch.setattr(skip, "MAX_KEPT_BYTES", 2 * fit.num_bytes)
    for normalisation in ("mean_std", "last", "none", "last"):
        weight_of(data, widths=(), normalisation=normalisation)
    assert num_fits() == 3
    assert len(skip._kept) == 2
