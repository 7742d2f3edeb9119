"""Where the linear skip starts: at the ridge regression of the training windows.

Neighbouring values of a window are nearly equal, which makes the skip slow to train by gradient
steps (600 of them leave it far behind) and quick to solve. Training then starts from a good linear
forecast and spends its steps on what the LSTM adds. The legend of shapes is in
`models/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models.forecaster import Forecaster
from pipelines.ridge import solve_ridge
from pipelines.windows import Windows, evenly_spaced

PENALTIES = (1.0, 10.0, 100.0, 1000.0, 1e4, 1e5)
"""From next to none to a map of almost no weights, for a series that holds nothing linear."""

MAX_FIT_WINDOWS = 10_000
"""Training windows that a target's fit reads, evenly spaced, so that its time stays bounded."""

MIN_FIT_WINDOWS = 1_000
"""Windows read of each target however many there are."""

MAX_FIT_ROWS = 50_000
"""Windows read of all targets together, as far as `MIN_FIT_WINDOWS` allows."""

HELD_OUT_PART = 0.2
"""Share of the training windows, the last ones, that the penalty is chosen on."""


def start_skip(forecaster: Forecaster, windows: Windows) -> None:
    """Set the forecaster's linear skip to the ridge regression of the training windows.

    Each target's map is fitted on that target, in the window's own normalised scale, where the
    skip stands. The penalty is chosen on the last training windows by a fit of those before them;
    no validation row is read. Without a skip nothing happens.
    """
    if forecaster.skip is None:
        return
    num_targets = windows.shape.num_targets
    limit = min(MAX_FIT_WINDOWS, max(MIN_FIT_WINDOWS, MAX_FIT_ROWS // num_targets))
    origins = evenly_spaced(windows.train_origins, limit)
    for target in range(num_targets):
        rows = _skip_rows(forecaster, windows, origins, target)
        penalty = _choose_penalty(rows, origins, windows.shape.horizon)
        weights, bias = _fit(rows, (penalty,))
        with torch.no_grad():
            forecaster.skip.weight[target] = weights[0].T
            forecaster.skip.bias[target] = bias[0]


class _SkipRows(NamedTuple):
    """One target's windows and horizons as the skip sees them, float64."""

    inputs: Tensor
    """[n, L], normalised."""
    outputs: Tensor
    """[n, H], normalised."""
    scale: Tensor
    """[n], standardised units for one normalised unit."""

    def those(self, chosen: Tensor) -> _SkipRows:
        """Return the rows where `chosen` [n] holds."""
        return _SkipRows(*(part[chosen] for part in self))


def _skip_rows(forecaster: Forecaster, windows: Windows, origins: Tensor, target: int) -> _SkipRows:
    spans = windows.spans(origins, target).unsqueeze(2)
    lookback = windows.shape.lookback
    window, future = spans[:, :lookback], spans[:, lookback:]
    normalised = forecaster.normalise(window)  # every series is measured against itself
    scale = normalised.scale.expand(len(origins), 1, 1)
    return _SkipRows(
        inputs=normalised.inputs.squeeze(2).double(),
        outputs=((future - normalised.offset) / scale).squeeze(2).double(),
        scale=scale.flatten().double(),
    )


def _choose_penalty(rows: _SkipRows, origins: Tensor, horizon: int) -> float:
    """Return the penalty of least absolute error on the last origins, fitted on those before."""
    first_held_out = origins[int(len(origins) * (1 - HELD_OUT_PART))]
    # What the fit forecasts must end before what the choice is made on begins.
    is_fitted = origins <= first_held_out - horizon
    if not is_fitted.any():
        return PENALTIES[-1]  # too few rows to tell: the safe end, almost no weights
    weights, bias = _fit(rows.those(is_fitted), PENALTIES)
    held_out = rows.those(origins >= first_held_out)
    errors = held_out.inputs @ weights + bias.unsqueeze(1) - held_out.outputs
    mean_errors = (errors.abs() * held_out.scale.unsqueeze(1)).mean(dim=(1, 2))
    return PENALTIES[int(mean_errors.argmin())]


def _fit(rows: _SkipRows, penalties: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return the ridge regression for each penalty: [penalties, L, H] and [penalties, H]."""
    # Counted in the window's units, as the loss is: of a nearly constant window, whose own scale
    # is tiny, any change would otherwise outweigh all other windows.
    return solve_ridge(rows.inputs, rows.outputs, penalties, importance=rows.scale.square())
