"""Forecast errors: MAE, MSE, RMSE and MASE of each target, over all windows and steps.

What was not measured (NaN in the truth) is left out; a target without any measurement has the
error NaN. The legend of shapes is in `models/__init__.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.scores import Errors


@dataclass(frozen=True, eq=False)
class ErrorSums:
    """Sums over the windows seen so far, so that no forecast has to be kept. Each is [T]."""

    absolute: Tensor
    squared: Tensor
    count: Tensor

    def __add__(self, other: ErrorSums) -> ErrorSums:
        return ErrorSums(
            self.absolute + other.absolute,
            self.squared + other.squared,
            self.count + other.count,
        )

    @property
    def mae(self) -> Tensor:
        """[T], mean absolute errors."""
        return self.absolute / self.count

    @property
    def mse(self) -> Tensor:
        """[T], mean squared errors."""
        return self.squared / self.count

    def errors(self, target_scale: Tensor, mase_scale: Tensor) -> Errors:
        """Return the mean errors over the targets.

        Args:
            target_scale: [T], standard deviations over the training rows, original units.
            mase_scale: [T], what `naive_scale` gives, original units.
        """
        is_scored = self.count > 0
        is_mase_defined = is_scored & ~mase_scale.isnan()
        mae, mse = self.mae, self.mse
        rmse = mse.sqrt()
        means = [
            mae[is_scored].mean(),
            mse[is_scored].mean(),
            rmse[is_scored].mean(),
            (mae / mase_scale)[is_mase_defined].mean(),
            (mae / target_scale)[is_scored].mean(),
            (mse / target_scale**2)[is_scored].mean(),
            (rmse / target_scale)[is_scored].mean(),
        ]
        return Errors(*torch.stack(means).tolist())  # one transfer from the device for all


def error_sums(forecast: Tensor, truth: Tensor) -> ErrorSums:
    """Return the error sums of forecasts [N, H, T] against the truth, both in original units."""
    is_measured = ~truth.isnan()
    error = torch.where(is_measured, forecast - truth, 0.0)
    return ErrorSums(
        absolute=error.abs().sum(dim=(0, 1)),
        squared=error.square().sum(dim=(0, 1)),
        count=is_measured.sum(dim=(0, 1)),
    )


def mae(forecast: Tensor, truth: Tensor) -> Tensor:
    """Return the mean absolute error of each target, [N, H, T] and [N, H, T] -> [T]."""
    return error_sums(forecast, truth).mae


def mse(forecast: Tensor, truth: Tensor) -> Tensor:
    """Return the mean squared error of each target, [N, H, T] and [N, H, T] -> [T]."""
    return error_sums(forecast, truth).mse


def rmse(forecast: Tensor, truth: Tensor) -> Tensor:
    """Return the root of the mean squared error of each target, [N, H, T] twice -> [T]."""
    return mse(forecast, truth).sqrt()


def mase(forecast: Tensor, truth: Tensor, scale: Tensor) -> Tensor:
    """Return the mean absolute scaled error of each target, [N, H, T] twice and [T] -> [T].

    Below 1 the forecast errs less than the seasonal naive one did on the training rows.
    Source: Hyndman & Koehler (2006), "Another look at measures of forecast accuracy".
    """
    return mae(forecast, truth) / scale


def naive_scale(truth: Tensor, season: int) -> Tensor:
    """Return the in-sample MAE of the seasonal naive forecast, the unit of MASE: [N, T] -> [T].

    It is the mean of |y_t - y_{t-season}| over the training rows where both were measured
    (Hyndman & Koehler, 2006), and NaN, for undefined, where there is no such pair or where the
    target repeats itself exactly.
    """
    change = (truth[season:] - truth[:-season]).abs()
    scale = change.nanmean(dim=0)
    return torch.where(scale > 0, scale, torch.nan)
