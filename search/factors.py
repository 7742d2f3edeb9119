"""What each choice of a grid bought: means over its combinations, with intervals over its seeds.

A seed is the unit that repeats: all combinations are trained with the same seeds, so a difference
between two of them is taken seed by seed, and what a seed does to both drops out.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations as pairs_of
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from search.record import TrialRecord, TrialState
from search.space import TrialConfig, widths_text

EQUAL_PARAMETERS = 1.15
"""Two parameter counts are called equal where the larger is at most this times the smaller."""

CONFIDENCE = 0.95

LAYER_ASPECTS = ("widths", "hidden size", "depth", "direction")
"""What is compared at equal parameter counts too, as it makes them many or few."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and half the width of its 95 % t-interval."""

    mean: float
    half_width: float
    """NaN of a single seed."""

    @classmethod
    def of(cls, values: Sequence[float]) -> "Interval":
        """The interval of one value a seed: t quantile × standard deviation / √number."""
        count = len(values)
        if count < 2:
            return cls(fmean(values), math.nan)
        quantile = float(stdtrit(count - 1, 0.5 + CONFIDENCE / 2))
        return cls(fmean(values), quantile * stdev(values) / math.sqrt(count))

    @property
    def excludes_zero(self) -> bool:
        """Whether all of the interval lies on one side of zero; never of a single seed."""
        return abs(self.mean) > self.half_width

    def __str__(self) -> str:
        width = "" if math.isnan(self.half_width) else f" ± {self.half_width:.4f}"
        return f"{self.mean:.4f}{width}"


@dataclass(frozen=True)
class Combination:
    """A configuration of the grid and what became of it with each seed."""

    config: TrialConfig
    num_parameters: int
    values: tuple[float, ...]
    """The search's metric, one a seed, in the same order for every combination."""

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that was set, by name."""
        return {**self.config.model.model_dump(), **self.config.training.model_dump()}

    @cached_property
    def beside_the_layers(self) -> frozenset[tuple[str, Any]]:
        """What was set of all but the layers' widths and direction."""
        return _all_but({"widths", "bidirectional"}, self)

    @property
    def interval(self) -> Interval:
        """Over the seeds."""
        return Interval.of(self.values)

    def has_as_many_parameters_as(self, other: "Combination") -> bool:
        """Whether the counts are nearly equal."""
        counts = self.num_parameters, other.num_parameters
        return max(counts) <= EQUAL_PARAMETERS * min(counts)


@dataclass(frozen=True)
class Level:
    """One value of a factor, averaged over the combinations that have it."""

    name: str
    num_combinations: int
    interval: Interval
    behind_best: Interval
    """How much worse than the factor's best level, seed by seed; of that one zero."""


@dataclass(frozen=True)
class Factor:
    """A setting that the grid varied, at equal steps."""

    name: str
    levels: tuple[Level, ...]
    is_matched: bool
    """Whether each level was tried with the same values of all other settings; where not, the
    means differ in those too."""


@dataclass(frozen=True)
class Contrast:
    """Two levels of a factor where their parameters are equally many."""

    factor: str
    names: tuple[str, str]
    num_pairs: int
    """Pairs of combinations, one of each level, equal in all but the layers."""
    num_parameters: tuple[int, int]
    """The fewest and the most among them."""
    intervals: tuple[Interval, Interval]
    difference: Interval
    """The second minus the first, seed by seed."""


@dataclass(frozen=True)
class Findings:
    """What a grid has shown so far."""

    combinations: tuple[Combination, ...]
    """The best first."""
    num_seeds: int
    """Those that every combination has been trained with."""
    factors: tuple[Factor, ...]
    contrasts: tuple[Contrast, ...]
    left_out: tuple[str, ...]
    """The combinations that are not averaged, and why."""

    def behind_best(self, combination: Combination) -> Interval:
        """How much worse than the best combination, seed by seed."""
        return Interval.of(_differences(self.combinations[0].values, combination.values))


def findings_of(trials: Iterable[TrialRecord]) -> Findings:
    """Average what a grid has tried.

    Only seeds that all combinations have been trained with count, so that all means are over the
    same; a combination of which a run diverged or failed has no mean and is left out.
    """
    by_config: dict[TrialConfig, list[TrialRecord]] = {}
    for trial in trials:
        if trial.config is not None and trial.state.counts:
            by_config.setdefault(trial.config, []).append(trial)
    broken = {
        config: [trial for trial in runs if trial.state is not TrialState.COMPLETE]
        for config, runs in by_config.items()
    }
    whole = [runs for config, runs in by_config.items() if not broken[config]]
    seeds = set.intersection(*({trial.seed for trial in runs} for runs in whole)) if whole else ()
    found = [_combination(runs, sorted(seeds)) for runs in whole] if seeds else []
    found.sort(key=lambda combination: combination.interval.mean)
    return Findings(
        tuple(found),
        len(seeds),
        tuple(_factors(found)),
        tuple(_contrasts(found)),
        tuple(_why_left_out(by_config[config], bad) for config, bad in broken.items() if bad),
    )


def varied(combinations: Sequence[Combination]) -> list[str]:
    """The settings of which there are several values."""
    if not combinations:
        return []
    return [
        name
        for name in combinations[0].settings
        if len({combination.settings[name] for combination in combinations}) > 1
    ]


def title(name: str) -> str:
    """What a setting is called here."""
    return "direction" if name == "bidirectional" else name


def shown(name: str, value: object) -> str:
    """A setting's value in words."""
    if isinstance(value, tuple):
        return widths_text(value)
    if name in ("bidirectional", "direction"):
        return "both" if value else "one"
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value}"


def _combination(runs: Sequence[TrialRecord], seeds: Sequence[int]) -> Combination:
    values = {trial.seed: trial.value for trial in runs}
    first = runs[0]
    assert first.config is not None
    found = tuple(value for seed in seeds if (value := values[seed]) is not None)
    return Combination(first.config, first.num_parameters, found)


def _why_left_out(runs: Sequence[TrialRecord], bad: Sequence[TrialRecord]) -> str:
    config = bad[0].config
    assert config is not None
    ended = f"{len(bad)} of {len(runs)} runs ended without a result"
    return f"{config.describe()}: {ended}, the first so: {bad[0].reason}"


# What is compared


@dataclass(frozen=True)
class _Aspect:
    """A way to tell combinations apart."""

    name: str
    level_of: Callable[[Combination], Any]
    """Which level a combination has; None of one to which it does not apply."""
    rest_of: Callable[[Combination], Any]
    """What else a combination is: levels are matched where it is equal."""


def _aspects(combinations: Sequence[Combination]) -> Iterator[_Aspect]:
    names = varied(combinations)
    if "widths" in names:
        yield from _layer_aspects(combinations)
    for name in names:
        if name != "widths":
            yield _Aspect(title(name), partial(_setting, name), partial(_all_but, {name}))


def _layer_aspects(combinations: Sequence[Combination]) -> Iterator[_Aspect]:
    besides = partial(_all_but, {"widths"})
    yield _Aspect("widths", partial(_setting, "widths"), besides)
    if len({len(_widths(combination)) for combination in combinations}) == 1:
        return
    if len({_hidden_size(combination) for combination in combinations} - {None}) > 1:
        yield _Aspect("hidden size", _hidden_size, lambda c: (len(_widths(c)), besides(c)))
    yield _Aspect(
        "depth",
        lambda c: len(_widths(c)),
        lambda c: (_hidden_size(c) or _widths(c), besides(c)),
    )


def _setting(name: str, combination: Combination) -> Any:
    return combination.settings[name]


def _all_but(names: Iterable[str], combination: Combination) -> frozenset[tuple[str, Any]]:
    return frozenset((k, v) for k, v in combination.settings.items() if k not in names)


def _widths(combination: Combination) -> tuple[int, ...]:
    return combination.config.model.widths


def _hidden_size(combination: Combination) -> int | None:
    """The width of every layer; None where the layers differ or there is none."""
    widths = set(_widths(combination))
    return widths.pop() if len(widths) == 1 else None


# At equal steps


def _factors(combinations: Sequence[Combination]) -> Iterator[Factor]:
    for aspect in _aspects(combinations):
        groups = _by_level(combinations, aspect)
        rests = [{aspect.rest_of(c) for c in members} for members in groups.values()]
        shared = set.intersection(*rests)
        if shared:
            groups = {
                level: [c for c in members if aspect.rest_of(c) in shared]
                for level, members in groups.items()
            }
        yield Factor(aspect.name, tuple(_levels(aspect.name, groups)), bool(shared))


def _by_level(combinations: Sequence[Combination], aspect: _Aspect) -> dict[Any, list[Combination]]:
    levels = sorted({aspect.level_of(c) for c in combinations} - {None})
    return {level: [c for c in combinations if aspect.level_of(c) == level] for level in levels}


def _levels(name: str, groups: Mapping[Any, Sequence[Combination]]) -> Iterator[Level]:
    means = {level: _means_by_seed(members) for level, members in groups.items()}
    best = min(means.values(), key=fmean)
    for level, members in groups.items():
        behind = Interval.of(_differences(best, means[level]))
        yield Level(shown(name, level), len(members), Interval.of(means[level]), behind)


def _means_by_seed(combinations: Sequence[Combination]) -> list[float]:
    return [fmean(values) for values in zip(*(c.values for c in combinations), strict=True)]


def _differences(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [b - a for a, b in zip(first, second, strict=True)]


# At equal parameter counts


def _contrasts(combinations: Sequence[Combination]) -> Iterator[Contrast]:
    for aspect in _aspects(combinations):
        if aspect.name in LAYER_ASPECTS:
            groups = _by_level(combinations, aspect)
            for (first, some), (second, others) in pairs_of(groups.items(), 2):
                names = shown(aspect.name, first), shown(aspect.name, second)
                if pairs := _equally_large(some, others):
                    yield _contrast(aspect.name, names, pairs)


def _equally_large(
    some: Sequence[Combination], others: Sequence[Combination]
) -> list[tuple[Combination, Combination]]:
    """The pairs of as many parameters that are equal in all but their layers."""
    alike: dict[frozenset[tuple[str, Any]], list[Combination]] = {}
    for other in others:
        alike.setdefault(other.beside_the_layers, []).append(other)
    return [
        (one, other)
        for one in some
        for other in alike.get(one.beside_the_layers, ())
        if one.has_as_many_parameters_as(other)
    ]


def _contrast(
    factor: str, names: tuple[str, str], pairs: Sequence[tuple[Combination, Combination]]
) -> Contrast:
    first, second = (_means_by_seed(side) for side in zip(*pairs, strict=True))
    counts = [combination.num_parameters for pair in pairs for combination in pair]
    return Contrast(
        factor,
        names,
        len(pairs),
        (min(counts), max(counts)),
        (Interval.of(first), Interval.of(second)),
        Interval.of(_differences(first, second)),
    )
