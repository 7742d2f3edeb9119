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

MAX_FIT_ROWS = 10_000
"""A row is one target's window; fewer are read from a longer table, evenly spaced."""

MIN_FIT_WINDOWS = 200
"""Windows read however many targets they have."""

HELD_OUT_PART = 0.2
"""Share of the training windows, the last ones, that the penalty is chosen on."""


def start_skip(forecaster: Forecaster, windows: Windows) -> None:
    """Set the forecaster's linear skip to the ridge regression of the training windows.

    It is fitted in the window's own normalised scale, where the skip stands, on all targets
    together, since they share it. The penalty is chosen on the last training windows by a fit of
    those before them; no validation row is read. Without a skip nothing happens.
    """
    if forecaster.skip is None:
        return
    limit = max(MIN_FIT_WINDOWS, MAX_FIT_ROWS // windows.shape.num_targets)
    origins = evenly_spaced(windows.train_origins, limit)
    penalty = _choose_penalty(forecaster, windows, origins)
    weights, bias = _fit(forecaster, windows, origins, (penalty,))
    with torch.no_grad():
        forecaster.skip.weight.copy_(weights[0].T)
        forecaster.skip.bias.copy_(bias[0])


def _choose_penalty(forecaster: Forecaster, windows: Windows, origins: Tensor) -> float:
    """Return the penalty of least absolute error on the last origins, fitted on those before."""
    first_held_out = origins[int(len(origins) * (1 - HELD_OUT_PART))]
    # What the fit forecasts must end before what the choice is made on begins.
    fitted = origins[origins <= first_held_out - windows.shape.horizon]
    if len(fitted) == 0:
        return PENALTIES[-1]  # too few rows to tell: the safe end, almost no weights
    weights, bias = _fit(forecaster, windows, fitted, PENALTIES)
    held_out = _skip_rows(forecaster, windows, origins[origins >= first_held_out])
    errors = held_out.inputs @ weights + bias.unsqueeze(1) - held_out.outputs
    mean_errors = (errors.abs() * held_out.scale.unsqueeze(1)).mean(dim=(1, 2))
    return PENALTIES[int(mean_errors.argmin())]


def _fit(
    forecaster: Forecaster, windows: Windows, origins: Tensor, penalties: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Return the ridge regression for each penalty: [penalties, L, H] and [penalties, H]."""
    rows = _skip_rows(forecaster, windows, origins)
    # Counted in the window's units, as the loss is: of a nearly constant window, whose own scale
    # is tiny, any change would otherwise outweigh all other windows.
    return solve_ridge(rows.inputs, rows.outputs, penalties, importance=rows.scale.square())


class _SkipRows(NamedTuple):
    """Every target's windows and horizons as the skip sees them, float64."""

    inputs: Tensor
    """[n, L], normalised."""
    outputs: Tensor
    """[n, H], normalised."""
    scale: Tensor
    """[n], standardised units for one normalised unit."""


def _skip_rows(forecaster: Forecaster, windows: Windows, origins: Tensor) -> _SkipRows:
    window, _ = windows.inputs(origins)
    future = windows.future(origins)
    normalised = forecaster.normalise(window)
    scale = normalised.scale.expand(len(future), 1, future.shape[2])
    return _SkipRows(
        inputs=_rows_of_targets(normalised.inputs[..., : future.shape[2]]),
        outputs=_rows_of_targets((future - normalised.offset) / scale),
        scale=_rows_of_targets(scale).squeeze(1),
    )


def _rows_of_targets(steps: Tensor) -> Tensor:
    """Return [B, L, T] as [B*T, L], float64."""
    return steps.transpose(1, 2).flatten(0, 1).double()
