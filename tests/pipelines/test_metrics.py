"""Every metric against a slow, obvious loop."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from pipelines.metrics import error_sums, mae, mase, mse, naive_scale, rmse


@pytest.fixture
def forecast_and_truth() -> tuple[Tensor, Tensor]:
    """[7, 3, 2] each; a tenth of the truth was not measured."""
    generator = torch.Generator().manual_seed(0)
    forecast = torch.randn(7, 3, 2, generator=generator, dtype=torch.float64)
    truth = torch.randn(7, 3, 2, generator=generator, dtype=torch.float64)
    truth[torch.rand(7, 3, 2, generator=generator) < 0.1] = torch.nan
    assert truth.isnan().any()
    return forecast, truth


def errors_one_by_one(forecast: Tensor, truth: Tensor, target: int) -> Iterator[float]:
    for window in range(forecast.shape[0]):
        for step in range(forecast.shape[1]):
            true = truth[window, step, target].item()
            if not math.isnan(true):
                yield forecast[window, step, target].item() - true


def slow_mae(errors: list[float]) -> float:
    return sum(abs(error) for error in errors) / len(errors)


def slow_mse(errors: list[float]) -> float:
    return sum(error**2 for error in errors) / len(errors)


def slow_rmse(errors: list[float]) -> float:
    return math.sqrt(slow_mse(errors))


@pytest.mark.parametrize(
    ("metric", "slow_metric"), [(mae, slow_mae), (mse, slow_mse), (rmse, slow_rmse)]
)
def test_a_metric_is_its_loop_for_each_target(
    metric: Callable[[Tensor, Tensor], Tensor],
    slow_metric: Callable[[list[float]], float],
    forecast_and_truth: tuple[Tensor, Tensor],
) -> None:
    forecast, truth = forecast_and_truth
    for target in range(2):
        expected = slow_metric(list(errors_one_by_one(forecast, truth, target)))
        assert metric(forecast, truth)[target].item() == pytest.approx(expected)


def test_mase_is_the_mae_in_units_of_the_scale(forecast_and_truth: tuple[Tensor, Tensor]) -> None:
    forecast, truth = forecast_and_truth
    scale = torch.tensor([2.0, 0.5])
    for target in range(2):
        expected = slow_mae(list(errors_one_by_one(forecast, truth, target))) / scale[target].item()
        assert mase(forecast, truth, scale)[target].item() == pytest.approx(expected)


def test_the_naive_scale_is_its_loop() -> None:
    truth = torch.randn(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth[12, 1] = torch.nan
    for target in range(2):
        column = truth[:, target].tolist()
        changes = [abs(column[row] - column[row - 7]) for row in range(7, 30)]
        measured = [change for change in changes if not math.isnan(change)]
        expected = sum(measured) / len(measured)
        assert naive_scale(truth, 7)[target].item() == pytest.approx(expected)


def test_the_naive_scale_is_undefined_without_a_change_or_a_pair() -> None:
    assert naive_scale(torch.tensor([[1.0], [2.0], [1.0], [2.0]]), 2).isnan().all()
    assert naive_scale(torch.tensor([[1.0], [2.0]]), 2).isnan().all()


def test_errors_are_means_over_targets_in_original_and_in_training_deviations(
    forecast_and_truth: tuple[Tensor, Tensor],
) -> None:
    forecast, truth = forecast_and_truth
    deviation = [4.0, 0.5]
    each = [list(errors_one_by_one(forecast, truth, target)) for target in range(2)]
    scaled = [
        [error / size for error in errors] for errors, size in zip(each, deviation, strict=True)
    ]

    def mean(metric: Callable[[list[float]], float], errors: list[list[float]]) -> float:
        return sum(map(metric, errors)) / 2

    errors = error_sums(forecast, truth).errors(torch.tensor(deviation), torch.tensor([2.0, 2.0]))
    assert errors.to_dict() == pytest.approx(
        {
            "mae": mean(slow_mae, each),
            "mse": mean(slow_mse, each),
            "rmse": mean(slow_rmse, each),
            "mase": mean(slow_mae, each) / 2,
            "mae_scaled": mean(slow_mae, scaled),
            "mse_scaled": mean(slow_mse, scaled),
            "rmse_scaled": mean(slow_rmse, scaled),
        }
    )


def test_sums_of_batches_are_those_of_the_whole(forecast_and_truth: tuple[Tensor, Tensor]) -> None:
    forecast, truth = forecast_and_truth
    whole = error_sums(forecast, truth)
    parts = error_sums(forecast[:3], truth[:3]) + error_sums(forecast[3:], truth[3:])
    torch.testing.assert_close(parts.mae, whole.mae)
    torch.testing.assert_close(parts.mse, whole.mse)


def test_a_target_without_measurements_is_left_out_of_the_means() -> None:
    truth = torch.tensor([[[1.0, torch.nan]]])
    errors = error_sums(torch.tensor([[[3.0, 5.0]]]), truth).errors(torch.ones(2), torch.ones(2))
    assert errors.mae == 2.0


def test_a_target_without_a_naive_scale_is_left_out_of_mase_alone() -> None:
    sums = error_sums(torch.tensor([[[3.0, 6.0]]]), torch.tensor([[[1.0, 1.0]]]))
    errors = sums.errors(torch.ones(2), torch.tensor([2.0, torch.nan]))
    assert (errors.mae, errors.mase) == (3.5, 1.0)


def test_a_forecast_of_nan_is_no_gap_but_an_error() -> None:
    forecast, truth = torch.tensor([[[torch.nan], [1.0]]]), torch.tensor([[[1.0], [1.0]]])
    assert mae(forecast, truth).isnan().all()
