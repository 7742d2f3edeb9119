"""Windows as indices into one resident tensor: nothing is copied until a batch is read.

A window is named by its origin t, the first row forecast: it reads the rows t-L…t-1 and is scored
on t…t+H-1. The legend of shapes is in `models/__init__.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.config import WindowShape
from pipelines.metrics import naive_scale
from pipelines.scaling import Scaling

if TYPE_CHECKING:
    from pipelines.splits import SearchData, TestData


@dataclass(frozen=True, eq=False)
class Windows:
    """A series on its device, and the origins from which it may be read."""

    shape: WindowShape
    values: Tensor
    """[N, F], standardised, float32."""
    known: Tensor
    """[N, K], covariates known ahead, float32."""
    truth: Tensor
    """[N, T], original units as measured, float64; NaN where nothing was measured."""
    level: Tensor
    """[N, T], original units, float64; the truth with its gaps repaired."""
    num_train_rows: int
    """The first row after the training part."""
    train_origins: Tensor
    """int64, windows whose every row, forecast included, is in the training part."""
    validation_origins: Tensor
    """int64, windows whose forecast is in the validation part; they may look back into train."""

    @cached_property
    def mase_scale(self) -> Tensor:
        """[T], the unit of MASE, of the training rows; the same at every evaluation."""
        return naive_scale(self.truth[: self.num_train_rows], self.shape.season)

    def inputs(self, origins: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what a forecaster reads: window [B, L, F] and known [B, L+H, K] or None."""
        lookback, horizon = self.shape.lookback, self.shape.horizon
        window = _cut(self.values, origins, -lookback, 0)
        if self.shape.num_known == 0:
            return window, None
        return window, _cut(self.known, origins, -lookback, horizon)

    def spans(self, origins: Tensor, feature: int) -> Tensor:
        """Return the windows and horizons of one feature in one, [B, L+H] standardised."""
        lookback, horizon = self.shape.lookback, self.shape.horizon
        return _cut(self.values[:, feature, None], origins, -lookback, horizon).squeeze(2)

    def future(self, origins: Tensor) -> Tensor:
        """Return the standardised targets to forecast, [B, H, T]."""
        targets = self.values[:, : self.shape.num_targets]
        return _cut(targets, origins, 0, self.shape.horizon)

    def true_future(self, origins: Tensor) -> Tensor:
        """Return the measured targets, [B, H, T] in original units; NaN where there is none."""
        return _cut(self.truth, origins, 0, self.shape.horizon)

    def last_level(self, origins: Tensor) -> Tensor:
        """Return the targets in the last row before the forecast, [B, T] in original units."""
        return self.level[origins - 1]


def build_windows(
    data: SearchData | TestData,
    scaling: Scaling,
    lookback: int,
    use_calendar: bool,
    device: torch.device | str,
) -> Windows:
    """Put a table on a device and list the origins of its windows.

    No forecast starts after a row that was not measured: an interpolated row is drawn towards the
    next measured one, which is the very value to forecast.

    Raises:
        ValueError: No window fits into the training or the validation part, or a target was never
            measured in the latter.
    """
    device = torch.device(device)
    shape = data.window_shape(lookback, use_calendar)
    train_end, horizon = data.num_train_rows, data.horizon
    train = _origins(data.is_observed, lookback, train_end - horizon)
    validation = _origins(data.is_observed, train_end, data.num_rows - horizon)
    _check_parts(data, shape, len(train), len(validation))
    return Windows(
        shape=shape,
        values=torch.from_numpy(scaling.encode(data.values)).to(device),
        known=torch.tensor(data.known[:, : shape.num_known], dtype=torch.float32, device=device),
        truth=torch.tensor(data.truth, dtype=torch.float64, device=device),
        level=torch.tensor(data.values[:, : data.num_targets], dtype=torch.float64, device=device),
        num_train_rows=train_end,
        train_origins=torch.from_numpy(train).to(device),
        validation_origins=torch.from_numpy(validation).to(device),
    )


def build_test_windows(
    test: TestData,
    scaling: Scaling,
    lookback: int,
    use_calendar: bool,
    device: torch.device | str,
) -> tuple[Windows, Tensor]:
    """Put an opened table on a device; return it with the origins of its test windows, int64.

    The same origins for every lookback: what a forecast reads may lie before the test part.

    Raises:
        ValueError: The lookback is longer than the parts before the test part, no forecast fits
            into the test part, or nothing was measured there.
    """
    windows = build_windows(test, scaling, lookback, use_calendar, device)
    origins = _origins(test.is_observed, test.first_test_row, test.num_rows - test.horizon)
    if lookback > test.first_test_row or len(origins) == 0:
        raise ValueError(
            "lookback and horizon must fit around the first test row: got "
            f"lookback={lookback}, horizon={test.horizon}, {test.first_test_row} rows before it "
            f"and {test.num_rows - test.first_test_row} from it on; give more data"
        )
    if np.isnan(test.truth[test.first_test_row :]).all():
        raise ValueError(
            "the test part must hold measured values of a target: got none of "
            f"{', '.join(test.targets)} in its {test.num_rows - test.first_test_row} rows; move "
            "the split"
        )
    return windows, torch.from_numpy(origins).to(device)


def evenly_spaced(origins: Tensor, limit: int | None) -> Tensor:
    """Return `limit` of the origins at most (None: all), in order, from the first to the last."""
    if limit is None or len(origins) <= limit:
        return origins
    places = torch.linspace(0, len(origins) - 1, limit, dtype=torch.float64, device=origins.device)
    return origins[places.round().long()]


def _cut(table: Tensor, origins: Tensor, first: int, end: int) -> Tensor:
    """Return the rows first…end-1 counted from each origin: [N, C] -> [B, end - first, C]."""
    # Of a view of all windows, in which they overlap: so each is copied at once, not row by row.
    every_window = table.unfold(0, end - first, 1).transpose(1, 2)
    return every_window.index_select(0, origins + first)


def _origins(is_observed: npt.NDArray[np.bool_], first: int, last: int) -> npt.NDArray[np.int64]:
    """Return the origins first…last (inclusive) whose preceding row was measured."""
    origins = np.arange(first, last + 1, dtype=np.int64)
    return origins[is_observed[origins - 1]]


def _check_parts(
    data: SearchData | TestData, shape: WindowShape, num_train: int, num_validation: int
) -> None:
    """Raise ValueError where a part has no window, or nothing to score a forecast by."""
    num_validation_rows = data.num_rows - data.num_train_rows
    if num_train == 0:
        raise ValueError(
            "lookback and horizon must fit into the training part: got "
            f"lookback={shape.lookback}, horizon={shape.horizon} and {data.num_train_rows} rows; "
            "lower one of them or give more data"
        )
    if num_validation == 0:
        raise ValueError(
            "the horizon must fit into the validation part: got "
            f"horizon={shape.horizon} and {num_validation_rows} rows; "
            "lower the horizon or give more data"
        )
    is_unmeasured = np.isnan(data.truth[data.num_train_rows :]).all(axis=0)
    if is_unmeasured.any():
        raise ValueError(
            "the validation part must hold measured values of each target: got none of "
            f"{data.targets[int(is_unmeasured.argmax())]} in its {num_validation_rows} rows; "
            "drop that target or move the split"
        )
