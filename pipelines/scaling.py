"""Scaling: fitted on the training rows, applied to every row, inverted on forecasts.

A target is first transformed (level to logarithm, difference or log return), then every column is
standardised. The legend of shapes is in `models/__init__.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.config import Settings
from pipelines.data_config import TargetTransform

if TYPE_CHECKING:
    from pipelines.splits import SearchData, TestData

Float64Array = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]


class Scaling(Settings):
    """How columns in original units become standardised ones, and forecasts go back."""

    transform: TargetTransform
    """What the targets become before they are standardised; other columns stay as they are."""
    mean: tuple[float, ...]
    """[F], mean of each transformed column over the training rows."""
    scale: tuple[float, ...]
    """[F], standard deviation of each transformed column over the training rows; 1 if constant."""
    target_mean: tuple[float, ...]
    """[T], mean of each target over the training rows, original units."""
    target_scale: tuple[float, ...]
    """[T], standard deviation of each target over the training rows, original units; 1 if
    constant. Errors divided by it compare over targets and over transforms."""

    @classmethod
    def fit(cls, data: SearchData | TestData) -> Self:
        """Return the scaling of a table, from its training rows alone.

        Raises:
            ValueError: A logarithm is asked of a target that is not positive.
        """
        train = data.values[: data.num_train_rows]
        transformed = transform_targets(train, data.num_targets, data.target_transform)
        if data.target_transform in ("diff", "log_return"):
            transformed = transformed[1:]  # the first row has no predecessor to differ from
        targets = train[:, : data.num_targets]
        return cls(
            transform=data.target_transform,
            mean=_as_tuple(transformed.mean(axis=0)),
            scale=_as_tuple(_spread(transformed)),
            target_mean=_as_tuple(targets.mean(axis=0)),
            target_scale=_as_tuple(_spread(targets)),
        )

    @property
    def num_targets(self) -> int:
        """T."""
        return len(self.target_scale)

    def encode(self, values: Float64Array) -> Float32Array:
        """Return rows [N, F] in original units as standardised ones.

        Under `diff` and `log_return` the first row counts as no change, since the row before it
        is not known.

        Raises:
            ValueError: A logarithm is asked of a target that is not positive.
        """
        transformed = transform_targets(values, self.num_targets, self.transform)
        standardised: Float64Array = (transformed - self.mean) / np.array(self.scale)
        return standardised.astype(np.float32)

    def decode(self, forecast: Tensor, level: Tensor) -> Tensor:
        """Return a standardised forecast in original units.

        Args:
            forecast: [B, H, T], standardised.
            level: [B, T], original units: the targets in the last row before the forecast, from
                which differences and returns add up.

        Returns:
            [B, H, T], original units, float64: a float32 could not hold a small change of a
            large level.
        """
        num_targets, device = self.num_targets, forecast.device
        mean = torch.tensor(self.mean[:num_targets], dtype=torch.float64, device=device)
        scale = torch.tensor(self.scale[:num_targets], dtype=torch.float64, device=device)
        transformed = forecast.double() * scale + mean
        match self.transform:
            case "none":
                return transformed
            case "log":
                return transformed.exp()
            case "diff":
                return level.unsqueeze(1) + transformed.cumsum(dim=1)
            case "log_return":
                return level.unsqueeze(1) * transformed.cumsum(dim=1).exp()


def transform_targets(
    values: Float64Array, num_targets: int, transform: TargetTransform
) -> Float64Array:
    """Return rows [N, F] with their first T columns transformed; a first difference is 0.

    Raises:
        ValueError: A logarithm is asked of a target that is not positive.
    """
    targets = values[:, :num_targets]
    if transform in ("log", "log_return"):
        _check_positive(targets, transform)
        targets = np.log(targets)
    if transform in ("diff", "log_return"):
        targets = np.diff(targets, axis=0, prepend=targets[:1])
    return np.concatenate([targets, values[:, num_targets:]], axis=1)


def _check_positive(targets: Float64Array, transform: TargetTransform) -> None:
    is_positive = targets > 0
    if is_positive.all():
        return
    row, column = np.argwhere(~is_positive)[0]
    raise ValueError(
        f"target_transform {transform} needs positive targets: got {targets[row, column]} in row "
        f"{row} of target {column}; use target_transform diff or none"
    )


def _spread(rows: Float64Array) -> Float64Array:
    """Return the population standard deviation of each column, 1 where a column is constant."""
    # Of a constant 0.1 the computed deviation is not 0 but rounding noise, so compare the values.
    is_constant = np.ptp(rows, axis=0) == 0
    return np.where(is_constant, 1.0, rows.std(axis=0))


def _as_tuple(numbers: Float64Array) -> tuple[float, ...]:
    return tuple(float(number) for number in numbers)
