"""The configurations that a search tries first."""

import math
from typing import Annotated

from pydantic import Field

from models.config import MAX_LAYERS, Head, Normalisation, Settings, Skip
from pipelines.training_config import TrainingBudget
from search.derived_space import base_period
from search.dimensions import Choice, Dimension, Int, Point, Value
from search.space import MODEL_DIMENSIONS, TRAINING_DIMENSIONS, Space, TrialConfig


class Start(Settings):
    """A configuration to try first; what is left out takes a value that does well in general."""

    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1, max_length=MAX_LAYERS)
    """Cells in each layer, the lowest first."""
    bidirectional: bool | None = None
    dropout: float | None = None
    normalisation: Normalisation | None = None
    linear_skip: Skip | None = None
    head: Head | None = None
    calendar: bool | None = None
    patch_length: int | None = None
    lookback: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    weight_decay: float | None = None


THREE_ANSWERS = (Start(widths=(128,)), Start(widths=(64, 64)), Start(widths=(64, 128)))
"""One layer of many cells; equal layers, stacked; a width for each layer. One-directional."""


def start_config(start: Start, space: Space, budget: TrainingBudget, season: int) -> TrialConfig:
    """Complete a start with values of `space` that do well in general, not tuned on any series.

    Raises:
        ValueError: where a value that the start names is no possible one.
    """
    given = start.model_dump(exclude_none=True)
    widths = given.pop("widths")
    preferred = _PREFERRED | {"lookback": 7 * base_period(season), "patch_length": 4}
    if space.linear_skip is not None and not space.linear_skip.contains("per_target"):
        preferred["linear_skip"] = "shared"
    values = {
        name: _nearest(getattr(space, name), preferred[name])
        for name in MODEL_DIMENSIONS + TRAINING_DIMENSIONS
    } | given
    point: Point = {"num_layers": len(widths), **values}
    point |= {f"width_{layer}": width for layer, width in enumerate(widths)}
    return space.config_at(point, budget)


_PREFERRED: Point = {
    "bidirectional": False,
    "dropout": 0.0,
    "normalisation": "last",
    "linear_skip": "per_target",
    "head": "last_state",
    "calendar": True,
    "learning_rate": 3e-3,
    "batch_size": 64,
    "weight_decay": 1e-3,
}


def _nearest(dimension: Dimension, wanted: Value) -> Value:
    """The value of `dimension` that is nearest to `wanted`; the first listed where none is near."""
    if dimension.contains(wanted):
        return wanted
    if isinstance(dimension, Choice):
        numbers = [v for v in dimension.choices if not isinstance(v, bool | str)]
        if numbers and not isinstance(wanted, bool | str):
            nearest: Value = min(numbers, key=lambda value: abs(value - wanted))
            return nearest
        first: Value = dimension.choices[0]
        return first
    assert not isinstance(wanted, bool | str)
    clipped = min(max(wanted, dimension.low), dimension.high)
    if dimension.step is not None:
        num_steps = math.floor((dimension.high - dimension.low) / dimension.step + 1e-9)
        nearest_step = round((clipped - dimension.low) / dimension.step)
        clipped = dimension.low + dimension.step * min(nearest_step, num_steps)
    return round(clipped) if isinstance(dimension, Int) else clipped
