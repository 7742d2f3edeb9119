"""Which configurations are refused before they cost anything."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

from models.config import WindowShape
from pipelines.splits import SearchData
from pipelines.training_config import TrainingBudget
from search.config import ConfigError
from search.dimensions import Choice, Dimension, Int, Point, Value
from search.space import Space, TrialConfig, widths_text


@dataclass(frozen=True)
class Limits:
    """What a configuration must not exceed on one table."""

    data: SearchData
    max_parameters: int
    max_training_teraflops: float | None

    def num_parameters(self, config: TrialConfig) -> int:
        """Parameters of the forecaster.

        Raises:
            ValueError: where model and windows contradict each other.
        """
        return config.model.num_parameters(self._shape(config))

    def training_teraflops(self, config: TrialConfig) -> float:
        """Floating-point operations of a whole trial's training, in 10¹²; see `num_flops`."""
        num_windows = config.training.batch_size * config.training.max_steps
        forward = config.model.num_flops(self._shape(config)) * num_windows
        return 3 * forward / 1e12  # backward costs twice forward

    def why_refused(self, config: TrialConfig) -> str | None:
        """Return the reason against a configuration, or None."""
        try:
            num_parameters = self.num_parameters(config)
        except ValueError as error:
            return str(error)
        if num_parameters > self.max_parameters:
            limit = f"search.max_parameters={self.max_parameters:,}"
            return f"{num_parameters:,} parameters exceed {limit}"
        num_rows = config.training.lookback + self.data.horizon
        if num_rows > self.data.num_train_rows:
            limit = f"{self.data.num_train_rows} rows to train on"
            return f"lookback and horizon, {num_rows} rows together, exceed the {limit}"
        teraflops, most = self.training_teraflops(config), self.max_training_teraflops
        if most is not None and teraflops > most:
            limit = f"search.max_training_teraflops={most:g}"
            return f"its training's {teraflops:.1f} teraflops exceed {limit}"
        return None

    def _shape(self, config: TrialConfig) -> WindowShape:
        return self.data.window_shape(config.training.lookback, config.training.calendar)


def check_space(space: Space, budget: TrainingBudget, limits: Limits) -> None:
    """Refuse a space in which nothing can be tried, whatever is proposed.

    Args:
        space: the derived space, without any `null`.
        budget: the training budget of every trial.
        limits: which configurations are refused.

    Raises:
        ConfigError: where each of its configurations contradicts itself or the limits; says why
            the first, the smallest, does.
    """
    refusals, contradictions = [], []
    for point in _smallest_points(space):
        try:
            config = space.config_at(point, budget)
        except ValueError as error:
            contradictions.append(str(error))
            continue
        reason = limits.why_refused(config)
        if reason is None:
            return
        refusals.append(reason)
    if not _is_wide(space):
        raise ConfigError(
            "the space must hold a configuration that can be tried: the smallest cannot; "
            f"{[*refusals, *contradictions][0]}"
        )


_DECISIVE = ("shape", "linear_skip", "head", "normalisation", "patch_length", "lookback")
"""The dimensions that may contradict each other; of all others the smallest value costs least."""

_MOST_VALUES = 16


def _smallest_points(space: Space) -> Iterator[Point]:
    """The points of every contradiction that there can be, layers, cells and batches the fewest."""
    layers, sizes = _layers(space)
    decisive = [_values(getattr(space, name)) for name in _DECISIVE]
    for values in product(sizes, *decisive):
        chosen = dict(zip((layers, *_DECISIVE), values, strict=True))
        yield space.draw(partial(_choose, chosen))


def _layers(space: Space) -> tuple[str, list[Value]]:
    """The dimension that says how many layers there are, and its smallest values."""
    if space.widths is not None:
        # Which of some lists has the fewest parameters depends on the rest.
        return "widths", [widths_text(widths) for widths in space.widths]
    # The second number of layers in case that the first is none.
    return "num_layers", _values(space.num_layers)[:2]


def _choose(chosen: Point, name: str, dimension: Dimension) -> Value:
    return chosen[name] if name in chosen else _values(dimension)[0]


def _values(dimension: Dimension) -> list[Value]:
    """The values of a dimension, the smallest first; of a range the first few."""
    if isinstance(dimension, Choice):
        return sorted(dimension.choices)
    if isinstance(dimension, Int):
        return list(range(dimension.low, dimension.high + 1, dimension.step or 1)[:_MOST_VALUES])
    return [dimension.low]


def _is_wide(space: Space) -> bool:
    """Whether some range has values that were not looked at."""
    return any(len(_values(getattr(space, name))) >= _MOST_VALUES for name in _DECISIVE)
