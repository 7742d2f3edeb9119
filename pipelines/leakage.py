"""Columns that know the future: a leak makes any error small, and a model worthless.

A column that is no target is suspicious where its latest value foretells a target far better than
the target's own latest value does, since slow series are correlated with each other's future, and
with their own. The legend of shapes is in `models/__init__.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipelines.scaling import Scaling

if TYPE_CHECKING:
    from pipelines.splits import SearchData

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

SUSPICIOUS_CORRELATION = 0.99
SUSPICIOUS_NOISE = 0.5
"""Share of the variance left by the target's own latest value, of which a leak leaves less."""

SUSPICIOUS_ERROR = 0.1
"""Share of the error of the best baseline, and of a line through the target's own latest value."""

MAX_ROWS = 5000
"""Rows that a correlation reads, drawn at random: evenly spaced ones might all be of one hour."""

FEWEST_ROWS = 20
"""With fewer, a correlation may be high by chance."""


@dataclass(frozen=True, eq=False)
class _Foresight:
    """What the latest values of some columns tell of a target one lead later."""

    lead: int
    correlation: Floats
    """[columns], over the training rows; NaN where either is constant."""
    error: Floats
    """[columns], mean absolute error of a line fitted on the training rows, over the validation
    rows, original units."""

    def suspicion(self, best_baseline_error: float) -> npt.NDArray[np.bool_]:
        """Return which columns know too much; the first column is the target itself."""
        unexplained = np.maximum(1 - np.square(self.correlation), 0.0)
        is_copy = (np.abs(self.correlation) > SUSPICIOUS_CORRELATION) & (
            unexplained < SUSPICIOUS_NOISE * unexplained[0]
        )
        limit = SUSPICIOUS_ERROR * min(best_baseline_error, float(self.error[0]))
        return np.asarray(is_copy | (self.error < limit))


def audit(data: SearchData, best_baseline_error: float) -> tuple[str, ...]:
    """Return a warning for each column and target that looks like a leak, naming its worst lead.

    At every lead up to the horizon, the column's latest value is set against the target that many
    rows later. It is suspicious if they are correlated beyond 0.99 on the training rows, and less
    than half of the variance is left that the target's own latest value leaves; or if a line
    through it, fitted on the training rows, errs on the validation rows less than a tenth of the
    best baseline and of a line through the target's own latest value.

    Args:
        data: What the search has seen.
        best_baseline_error: Mean absolute error on the validation part, standardised.
    """
    if data.num_features == data.num_targets:
        return ()
    train = _starts(data, 0, data.num_train_rows)
    validation = _starts(data, data.num_train_rows - 1, data.num_rows)
    if min(len(train), len(validation)) < FEWEST_ROWS:
        return ()
    scale = Scaling.fit(data).target_scale
    warnings: list[str] = []
    for target in range(data.num_targets):
        leads = [
            _foresee(data, target, lead, train, validation) for lead in range(1, data.horizon + 1)
        ]
        warnings += _warnings(data, target, leads, best_baseline_error * scale[target])
    return tuple(warnings)


def _starts(data: SearchData, first: int, end: int) -> Rows:
    """Return measured rows, of which every lead is before the end."""
    rows = np.arange(first, max(first, end - data.horizon), dtype=np.int64)
    rows = rows[data.is_observed[rows]]
    if len(rows) > MAX_ROWS:
        rows = np.sort(np.random.default_rng(0).choice(rows, MAX_ROWS, replace=False))
    return rows


def _foresee(data: SearchData, target: int, lead: int, train: Rows, validation: Rows) -> _Foresight:
    """Return what the target and every column that is none tell of the target."""
    columns = [target, *range(data.num_targets, data.num_features)]
    future = data.truth[:, target]
    train, validation = (rows[np.isfinite(future[rows + lead])] for rows in (train, validation))
    unknown = np.full(len(columns), np.nan)
    if min(len(train), len(validation)) < FEWEST_ROWS:
        return _Foresight(lead, unknown, unknown)
    x, y = data.values[np.ix_(train, columns)], future[train + lead]
    x_mean, y_mean = x.mean(axis=0), y.mean()
    x, y = x - x_mean, y - y_mean
    power = np.square(x).sum(axis=0)
    # Of a constant column the power is rounding noise.
    power = np.where(np.ptp(x, axis=0) > 0, power, np.nan)
    total = np.square(y).sum() if np.ptp(y) > 0 else np.nan
    slope = y @ x / power
    line = (data.values[np.ix_(validation, columns)] - x_mean) * slope + y_mean
    error = np.abs(line - future[validation + lead, None]).mean(axis=0)
    return _Foresight(lead, y @ x / np.sqrt(power * total), error)


def _warnings(
    data: SearchData, target: int, leads: list[_Foresight], best_baseline_error: float
) -> list[str]:
    """Return a warning for each suspicious column, at the lead of its highest correlation.

    The best baseline's error is in the target's units here.
    """
    is_suspicious = np.stack([found.suspicion(best_baseline_error) for found in leads])
    correlation = np.stack([np.abs(np.nan_to_num(found.correlation)) for found in leads])
    names = (data.targets[target], *data.columns[data.num_targets :])
    warnings = []
    for place in np.flatnonzero(is_suspicious.any(axis=0)).tolist():
        worst = leads[np.where(is_suspicious[:, place], correlation[:, place], -1).argmax()]
        warnings.append(_warning(names[place], names[0], worst, place))
    return warnings


def _warning(column: str, target: str, found: _Foresight, place: int) -> str:
    own, other = found.correlation[0], found.correlation[place]
    step = "1 step" if found.lead == 1 else f"{found.lead} steps"
    return (
        f"{column} may know the future: its latest value foretells {target} {step} ahead with "
        f"correlation {other:.4f} and error {found.error[place]:.3g}, {target}'s own latest value "
        f"with {own:.4f} and {found.error[0]:.3g}; leave {column} out unless it is known that early"
    )
