"""Who proposes a configuration and who stops a trial: a search's settings in Optuna's terms."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from pipelines.training_config import TrainingBudget
from search.bounded_tpe import BoundedTPESampler
from search.config import SearchSettings
from search.dimensions import Choice, Dimension, Float, Int, Suggest, Value
from search.frozen_trials import num_rejected_last
from search.record import proposal_seed

RANDOM_AFTER_REJECTIONS = 20

_LEARNT_FROM = {
    "tpe": (OptunaState.COMPLETE, OptunaState.PRUNED),
    "gp": (OptunaState.COMPLETE,),
}
"""The trials of which a sampler learns, by its own rule."""


def sampler_for(
    number: int,
    settings: SearchSettings,
    frozen_trials: Sequence[FrozenTrial],
    cost_of: Callable[[Suggest], float],
) -> optuna.samplers.BaseSampler:
    """The sampler of one proposal.

    A sampler's own random state is not in the record: seeding one for each proposal makes a
    resumed study propose what an uninterrupted one would.

    Args:
        number: of the trial that is proposed.
        settings: of the search.
        frozen_trials: all that the record holds, by number.
        cost_of: what training the configuration takes that is drawn so; infinite where it would
            be rejected.
    """
    seed = proposal_seed(settings.seed, number)
    num_startup = settings.num_startup_trials
    is_stuck = num_rejected_last(frozen_trials[:number]) >= RANDOM_AFTER_REJECTIONS
    if is_stuck or settings.sampler in ("random", "grid"):
        return optuna.samplers.RandomSampler(seed)
    learns_from = _LEARNT_FROM[settings.sampler]
    if sum(trial.state in learns_from for trial in frozen_trials) < num_startup:
        return _cheapest_random(seed, settings.startup_draws or 1, cost_of)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if settings.sampler == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=num_startup)
        return BoundedTPESampler(
            seed=seed,
            n_startup_trials=num_startup,
            multivariate=True,
            group=True,
            constant_liar=True,
        )


def _cheapest_random(
    seed: int, num_draws: int, cost_of: Callable[[Suggest], float]
) -> optuna.samplers.RandomSampler:
    """The sampler that draws at random what costs least, of this seed's draw and some others.

    What trials cost varies by a hundred, and says little of how good they will be
    (docs/performance.md).
    """

    def cost_of_draw(seed: int) -> float:
        drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed)).ask()
        return cost_of(suggest_from(drawn))

    seeds = [seed, *(proposal_seed(seed, place) for place in range(num_draws - 1))]
    return optuna.samplers.RandomSampler(min(seeds, key=cost_of_draw))


def pruner_of(settings: SearchSettings, budget: TrainingBudget) -> optuna.pruners.BasePruner:
    """Who decides which trials stop early."""
    factor = settings.reduction_factor
    first_rung = settings.first_rung_steps or budget.evaluate_every_steps
    match settings.pruner:
        case "asha":
            return optuna.pruners.SuccessiveHalvingPruner(first_rung, factor)
        case "hyperband":
            return optuna.pruners.HyperbandPruner(first_rung, budget.max_steps, factor)
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=first_rung)
        case "none":
            return optuna.pruners.NopPruner()


def suggest_from(trial: optuna.Trial) -> Suggest:
    """Draw dimensions by way of a trial of Optuna's."""

    def suggest(name: str, dimension: Dimension) -> Value:
        if isinstance(dimension, Choice):
            choices: Sequence[Value] = dimension.choices
            value: Any = trial.suggest_categorical(name, choices)
            return cast(Value, value)
        with warnings.catch_warnings():
            # The last step may end below `high`, as in Python's own ranges.
            warnings.filterwarnings("ignore", message="The distribution is specified by")
            return _suggest_in_range(trial, name, dimension)

    return suggest


def _suggest_in_range(trial: optuna.Trial, name: str, dimension: Int | Float) -> Value:
    low, high, log = dimension.low, dimension.high, dimension.log
    if isinstance(dimension, Int):
        return trial.suggest_int(name, int(low), int(high), step=dimension.step or 1, log=log)
    value = trial.suggest_float(name, low, high, step=dimension.step, log=log)
    # Three steps of 0.1 are 0.30000000000000004, which would be another model than 0.3.
    return value if dimension.step is None else float(f"{value:.12g}")
