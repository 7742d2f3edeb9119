"""Where the linear skip starts: at the ridge regression of the training windows.

Neighbouring values of a window are nearly equal, which makes the skip slow to train by gradient
steps (600 of them leave it far behind) and quick to solve. Training then starts from a good linear
forecast and spends its steps on what the LSTM adds. The legend of shapes is in
`models/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import torch
from torch import Tensor

from models.forecaster import Forecaster
from pipelines.ridge import solve_ridge
from pipelines.windows import Windows, evenly_spaced

PENALTIES = (1.0, 10.0, 100.0, 1000.0, 1e4, 1e5)
"""From next to none to a map of almost no weights, for a series that holds nothing linear."""

MAX_FIT_ROWS = 10_000
"""A row is one target's window; fewer are read of a longer table, evenly spaced."""

MAX_ROWS_OF_ALL_FITS = 100_000
"""Rows of all maps together, as far as `MIN_FIT_WINDOWS` allows: many targets take no longer."""

MIN_FIT_WINDOWS = 200
"""Windows read however many targets they have."""

HELD_OUT_PART = 0.2
"""Share of the training windows, the last ones, that the penalty is chosen on."""


MAX_KEPT_BYTES = 2**26
"""Of all fits that are kept for later trials; one for many targets may be megabytes."""


class _Fit(NamedTuple):
    """What a skip starts from, float32."""

    weight: Tensor
    """[maps, H, L]"""
    bias: Tensor
    """[maps, H]"""

    @property
    def num_bytes(self) -> int:
        return self.weight.nbytes + self.bias.nbytes


_kept: dict[bytes, _Fit] = {}
"""The fits of this process by what they were made of, the one that was used last at the end."""


def start_skip(forecaster: Forecaster, windows: Windows) -> None:
    """Set the forecaster's linear skip to the ridge regression of the training windows.

    It is fitted in the window's own normalised scale, where the skip stands: one map on all
    targets together, or a map on each. The penalty is chosen on the last training windows by a fit
    of those before them; no validation row is read. Without a skip nothing happens.

    A process fits once to equal rows, lookback, normalisation and number of maps, however many
    trials begin there: on a CPU that takes as long as some ten training steps, for each map.

    Args:
        forecaster: On the CPU.
        windows: On the CPU, of the forecaster's shape.
    """
    if forecaster.skip is None:
        return
    made_of = _made_of(forecaster, windows)
    fit = _kept.pop(made_of, None) or _fitted(forecaster, windows)
    _kept[made_of] = fit
    while sum(each.num_bytes for each in _kept.values()) > MAX_KEPT_BYTES:
        del _kept[next(iter(_kept))]
    with torch.no_grad():
        forecaster.skip.weight.copy_(fit.weight)
        forecaster.skip.bias.copy_(fit.bias)


def _made_of(forecaster: Forecaster, windows: Windows) -> bytes:
    """A digest of everything that a fit depends on."""
    assert forecaster.skip is not None
    shape = windows.shape
    sizes = shape.lookback, shape.horizon, shape.season, shape.num_targets
    digest = blake2b(repr((sizes, forecaster.config.normalisation)).encode())
    digest.update(repr(forecaster.skip.weight.shape).encode())
    rows = windows.values[: windows.num_train_rows, : shape.num_targets]
    for read in (rows, windows.train_origins):
        digest.update(read.contiguous().numpy().data)
    return digest.digest()


def _fitted(forecaster: Forecaster, windows: Windows) -> _Fit:
    assert forecaster.skip is not None
    num_maps = len(forecaster.skip.weight)
    every_target = range(windows.shape.num_targets)
    groups: list[Sequence[int]] = (
        [every_target] if num_maps == 1 else [(target,) for target in every_target]
    )
    num_rows = min(MAX_FIT_ROWS, MAX_ROWS_OF_ALL_FITS // num_maps)
    limit = max(MIN_FIT_WINDOWS, num_rows // len(groups[0]))
    origins = evenly_spaced(windows.train_origins, limit)
    maps = []
    for targets in groups:
        rows = _skip_rows(forecaster, windows, origins, targets)
        weights, bias = _fit(rows, (_choose_penalty(rows, windows.shape.horizon),))
        maps.append((weights[0].T.float(), bias[0].float()))
    return _Fit(*(torch.stack(parts) for parts in zip(*maps, strict=True)))


class _SkipRows(NamedTuple):
    """Windows and horizons of some targets as the skip sees them, float64."""

    origins: Tensor
    """[n], int64."""
    inputs: Tensor
    """[n, L], normalised."""
    outputs: Tensor
    """[n, H], normalised."""
    scale: Tensor
    """[n], standardised units for one normalised unit."""

    def those(self, chosen: Tensor) -> _SkipRows:
        """Return the rows where `chosen` [n] holds."""
        return _SkipRows(*(part[chosen] for part in self))


def _skip_rows(
    forecaster: Forecaster, windows: Windows, origins: Tensor, targets: Sequence[int]
) -> _SkipRows:
    spans = torch.cat([windows.spans(origins, target) for target in targets]).unsqueeze(2)
    lookback = windows.shape.lookback
    window, future = spans[:, :lookback], spans[:, lookback:]
    normalised = forecaster.normalise(window)  # every series is measured against itself
    scale = normalised.scale.expand(len(spans), 1, 1)
    return _SkipRows(
        origins=origins.repeat(len(targets)),
        inputs=normalised.inputs.squeeze(2).double(),
        outputs=((future - normalised.offset) / scale).squeeze(2).double(),
        scale=scale.flatten().double(),
    )


def _choose_penalty(rows: _SkipRows, horizon: int) -> float:
    """Return the penalty of least absolute error on the last origins, fitted on those before."""
    origins = rows.origins.sort().values
    first_held_out = origins[int(len(origins) * (1 - HELD_OUT_PART))]
    # What the fit forecasts must end before what the choice is made on begins.
    is_fitted = rows.origins <= first_held_out - horizon
    if not is_fitted.any():
        return PENALTIES[-1]  # too few rows to tell: the safe end, almost no weights
    weights, bias = _fit(rows.those(is_fitted), PENALTIES)
    held_out = rows.those(rows.origins >= first_held_out)
    errors = held_out.inputs @ weights + bias.unsqueeze(1) - held_out.outputs
    mean_errors = (errors.abs() * held_out.scale.unsqueeze(1)).mean(dim=(1, 2))
    return PENALTIES[int(mean_errors.argmin())]


def _fit(rows: _SkipRows, penalties: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return the ridge regression for each penalty: [penalties, L, H] and [penalties, H]."""
    # Counted in the window's units, as the loss is: of a nearly constant window, whose own scale
    # is tiny, any change would otherwise outweigh all other windows.
    return solve_ridge(rows.inputs, rows.outputs, penalties, importance=rows.scale.square())
