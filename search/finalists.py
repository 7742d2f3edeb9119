"""The finalists: a search's best configurations, trained again on rolling origins by many seeds.

One validation part ranks wrongly, and so does one seed: a winner of a hundred is partly lucky.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from rich.console import Console

from pipelines.splits import SearchData
from search.config import ConfigError, SearchConfig, SearchSettings
from search.names import FINALISTS
from search.places import study_locked
from search.record import (
    PlannedRun,
    TrialRecord,
    TrialState,
)
from search.search import search_study
from search.slots import Slots
from search.space import TrialConfig


@dataclass(frozen=True)
class Finalist:
    """A configuration, as all its seeds and origins see it."""

    number: int
    """Of the trial in the search."""
    searched_value: float
    """The metric by which the search chose it."""
    config: TrialConfig
    runs: tuple[TrialRecord, ...]
    """One for each seed and rolling origin."""

    @property
    def values(self) -> tuple[float, ...]:
        """The metric of each run that is complete."""
        return tuple(
            trial.value
            for trial in self.runs
            if trial.state is TrialState.COMPLETE and trial.value is not None
        )

    @property
    def mean(self) -> float:
        """What finalists are ranked by; infinite where a run diverged, or too few are complete."""
        has_diverged = any(trial.state is TrialState.PRUNED for trial in self.runs)
        return math.inf if has_diverged or not self.values else fmean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over the runs."""
        return stdev(self.values) if len(self.values) > 1 else math.nan

    def seeds_on(self, fold: int) -> tuple[TrialRecord, ...]:
        """The complete runs on one rolling origin, by seed."""
        return tuple(
            trial
            for trial in self.runs
            if trial.fold == fold and trial.state is TrialState.COMPLETE
        )


def finalist_seeds(study_seed: int, count: int) -> tuple[int, ...]:
    """The seeds that every finalist is trained with, the same for each."""
    return tuple(
        int(np.random.SeedSequence([study_seed, place, 2]).generate_state(1)[0])
        for place in range(count)
    )


def finalists_config(config: SearchConfig) -> SearchConfig:
    """The configuration of the study that trains the finalists of another."""
    final = config.final
    settings = {
        "sampler": "grid",
        "pruner": "none",
        "time_budget": None,
        "start_with": (),
        "num_kept_weights": 10 * final.finalists * final.seeds,
    }
    return config.model_copy(
        update={
            "study": f"{config.study}{FINALISTS}",
            "search": config.search.model_copy(update=settings),
        }
    )


def admitting(settings: SearchSettings, best: Sequence[TrialRecord]) -> SearchSettings:
    """The settings with limits that refuse none of these trials.

    The search has admitted them, under limits that may have been lowered since.
    """
    largest = max(trial.num_parameters for trial in best)
    limits = {
        "max_parameters": max(settings.max_parameters, largest),
        "max_training_teraflops": None,
    }
    return settings.model_copy(update=limits)


def train_finalists(
    config: SearchConfig,
    best: Sequence[TrialRecord],
    folds: tuple[SearchData, ...],
    slots: Slots,
    console: Console,
    is_quiet: bool,
) -> list[Finalist]:
    """Train what is not yet trained of the finalists, and return them, the best first.

    Args:
        config: of the search, as it was resolved; it has a name.
        best: trials of the search, each of another configuration.
        folds: the rolling origins, oldest first.
        slots: how many runs are trained at a time.
        console: where progress is shown.
        is_quiet: show nothing.

    Raises:
        ConfigError: where the search has no complete trial.
        KeyboardInterrupt: where the runs were interrupted; they go on next time.
    """
    if not best:
        raise ConfigError(
            f"finalists need a complete trial: study {config.study} has none; search on with "
            "--resume --add-trials 50"
        )
    seeds = finalist_seeds(config.search.seed, config.final.seeds)
    plan = [
        PlannedRun(trial.config, seed, fold)
        for fold in reversed(range(len(folds)))
        for trial in best
        for seed in seeds
        if trial.config is not None
    ]
    own = finalists_config(config)
    settings = admitting(own.search, best).model_copy(update={"trials": len(plan)})
    own = own.model_copy(update={"search": settings})  # its total is what lists of studies say
    assert own.study is not None
    with study_locked(own, own.study) as held:
        result = search_study(
            own, folds, slots, console, is_quiet, plan, has_baselines=False, held=held
        )
    wanted = {(run.config, run.seed, run.fold) for run in plan}
    ended = [t for t in result.trials if (t.config, t.seed, t.fold) in wanted and t.state.counts]
    if len(ended) < len(wanted):
        raise KeyboardInterrupt
    finalists = [
        Finalist(
            trial.number,
            trial.value,
            trial.config,
            tuple(run for run in ended if run.config == trial.config),
        )
        for trial in best
        if trial.config is not None and trial.value is not None
    ]
    return sorted(finalists, key=lambda finalist: finalist.mean)
