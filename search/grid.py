"""The grid: every combination of what the space leaves open, each trained with the same seeds.

So two combinations differ in what is asked about and in nothing else: equal steps, equal windows,
equal seeds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from pipelines.splits import SearchData
from search.config import ConfigError, SearchConfig, SearchSettings
from search.dimensions import Choice, Dimension, Float, Int, Point, Value
from search.limits import Limits
from search.record import PlannedRun
from search.space import Space, TrialConfig

MAX_RUNS = 10_000
"""Most runs of a grid: more than anybody waits for."""

MAX_UNLISTED_VALUES = 16
"""Most values of a range of whole numbers that names no step."""

NUM_REASONS_SHOWN = 10


@dataclass(frozen=True)
class Grid:
    """The runs of a grid, and what is to be said of them before they start."""

    runs: tuple[PlannedRun, ...] = ()
    """All combinations with the first seed, then all with the second: raised repeats come last,
    and a grid that is stopped early holds whole rounds."""
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    """The combinations that cannot be trained, in words, each with the reason."""


def plan_grid(config: SearchConfig, data: SearchData) -> Grid:
    """Lay out the runs of a grid.

    Args:
        config: as it was resolved.
        data: what the runs train on.

    Raises:
        ConfigError: where a dimension has no list of values, where there are too many
            combinations, or where none can be trained.
    """
    settings = config.search
    points = _points_of_a_grid(config.space, settings.repeats)
    free = free_dimensions(points)
    limits = Limits(data, settings.max_parameters, settings.max_training_teraflops)
    combinations: dict[TrialConfig, None] = {}  # of equal ones the first
    refused: list[str] = []
    for point in points:
        found, reason = _combination_at(point, config, limits)
        if found is not None:
            combinations[found] = None
        else:
            shown = ", ".join(f"{name} {point[name]}" for name in free if name in point)
            refused.append(f"{shown}: {reason}" if shown else reason)
    if not combinations:
        raise ConfigError(
            f"a grid needs a combination that can be trained: got {len(points)} of which none "
            f"can; {refused[0]}"
        )
    seeds = paired_seeds(settings.seed, settings.repeats)
    runs = tuple(PlannedRun(combination, seed) for seed in seeds for combination in combinations)
    notes = _size_in_words(free, len(combinations), settings)
    return Grid(runs, (*notes, *left_out_in_words(refused)), tuple(refused))


def paired_seeds(study_seed: int, count: int) -> tuple[int, ...]:
    """The seeds of the repeats, the same for every combination; of more, the first stay."""
    return tuple(
        int(np.random.SeedSequence([study_seed, repeat, 3]).generate_state(1)[0])
        for repeat in range(count)
    )


def free_dimensions(points: Sequence[Point]) -> dict[str, int]:
    """The dimensions that take several values at some points, and how many."""
    values: dict[str, set[Value]] = {}
    for point in points:
        for name, value in point.items():
            values.setdefault(name, set()).add(value)
    return {name: len(taken) for name, taken in values.items() if len(taken) > 1}


def grid_points(space: Space, unlisted: dict[str, Int | Float]) -> Iterator[Point]:
    """Go through every point of a space, the last dimension changing first.

    Args:
        space: without any `null`.
        unlisted: takes the ranges that nobody could go through, by the names of their fields; of
            each the lowest value stands for all.
    """
    places: list[int] = []  # of the value of each dimension in turn, in its list
    while True:
        point, counts = _draw_at(space, places, unlisted)
        yield point
        places += [0] * (len(counts) - len(places))
        while places and places[-1] + 1 == counts[len(places) - 1]:
            places.pop()
        if not places:
            return
        places[-1] += 1


def _draw_at(
    space: Space, places: Sequence[int], unlisted: dict[str, Int | Float]
) -> tuple[Point, list[int]]:
    """The point with these values, the first ones after them, and how many each could take."""
    counts: list[int] = []

    def suggest(name: str, dimension: Dimension) -> Value:
        values = dimension.choices if isinstance(dimension, Choice) else _listed(dimension)
        if not isinstance(dimension, Choice) and not values:
            unlisted["width" if name.startswith("width_") else name] = dimension
            values = (dimension.low,)
        place = places[len(counts)] if len(counts) < len(places) else 0
        counts.append(len(values))
        return values[place]

    return space.draw(suggest), counts


def _listed(dimension: Int | Float) -> Sequence[Value]:
    """The values of a range; none of one that nobody could go through."""
    if isinstance(dimension, Int):
        values = range(dimension.low, dimension.high + 1, dimension.step or 1)
        is_short = dimension.step is not None or len(values) <= MAX_UNLISTED_VALUES
        return values if is_short else ()
    if dimension.step is None:
        return (dimension.low,) if dimension.low == dimension.high else ()
    num_steps = int((dimension.high - dimension.low) / dimension.step + 1e-9)
    steps = (dimension.low + step * dimension.step for step in range(num_steps + 1))
    return tuple(float(f"{value:.12g}") for value in steps)  # three steps of 0.1 are 0.3


def _no_list(ranges: dict[str, Int | Float]) -> ConfigError:
    shown = ", ".join(f"{name} from {d.low} to {d.high}" for name, d in ranges.items())
    name, first = next(iter(ranges.items()))
    return ConfigError(
        f"a grid needs a list of the values of each dimension: got {shown}; give a value "
        f"(space.{name}={first.low}), a list (space.{name}={{choices: [{first.low}, "
        f"{first.high}]}}) or a step, for the layers also whole lists "
        "(space.widths=[[128], [64, 64]])"
    )


def _points_of_a_grid(space: Space, repeats: int) -> list[Point]:
    most = MAX_RUNS // repeats
    unlisted: dict[str, Int | Float] = {}
    points = list(islice(grid_points(space, unlisted), most + 1))
    if unlisted:
        raise _no_list(unlisted)
    if len(points) > most:
        raise ConfigError(
            f"a grid has at most {MAX_RUNS:,} runs: got more than {most:,} combinations, each "
            f"with {_counted(repeats, 'seed')}; fix dimensions of the space or list fewer values"
        )
    return points


def _combination_at(
    point: Point, config: SearchConfig, limits: Limits
) -> tuple[TrialConfig | None, str]:
    """The configuration at a point, or the reason why it cannot be trained."""
    try:
        combination = config.space.config_at(point, config.training)
    except ValueError as error:
        return None, str(error)
    reason = limits.why_refused(combination)
    return (combination, "") if reason is None else (None, reason)


def _size_in_words(
    free: dict[str, int], num_combinations: int, settings: SearchSettings
) -> Iterator[str]:
    factors = ", ".join(f"{name} {count}" for name, count in free.items())
    num_runs = num_combinations * settings.repeats
    seeds = _counted(settings.repeats, "seed")
    runs = _counted(num_runs, "run")
    combinations = _counted(num_combinations, "combination")
    yield f"grid: {combinations} ({factors or 'all is fixed'}) × {seeds} = {runs}"
    if settings.trials not in (num_runs, SearchSettings.model_fields["trials"].default):
        yield f"search.trials={settings.trials} does not apply to a grid"


def left_out_in_words(refused: Sequence[str]) -> Iterator[str]:
    """The combinations that cannot be trained: how many, the first ones, and the rest by count."""
    if not refused:
        return
    yield f"left out: {_counted(len(refused), 'combination')} cannot be trained"
    yield from (f"left out: {reason}" for reason in refused[:NUM_REASONS_SHOWN])
    if len(refused) > NUM_REASONS_SHOWN:
        more = len(refused) - NUM_REASONS_SHOWN
        yield f"left out: {more:,} more, for such reasons"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
