"""TPE over a bounded part of a study: all of a small one, and the good trials of a large one."""

import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial

from search.bounded_tpe import (
    NUM_BEST,
    NUM_LATEST,
    NUM_RUNNING,
    BoundedTPESampler,
    learnt_from,
)

DISTRIBUTIONS = {"x": optuna.distributions.FloatDistribution(0, 1)}


def study_of(num_trials: int, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    """Trials that are the better the nearer `x` is to 0.3; each third was stopped early."""
    study = optuna.create_study(sampler=sampler)
    for number in range(num_trials):
        x = (number * 0.618) % 1
        is_stopped = number % 3 == 0
        study.add_trial(
            create_trial(
                params={"x": x},
                distributions=DISTRIBUTIONS,
                value=None if is_stopped else abs(x - 0.3),
                intermediate_values={50: abs(x - 0.3)},
                state=TrialState.PRUNED if is_stopped else TrialState.COMPLETE,
            )
        )
    return study


def study_with_conditions(num_trials: int, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    """Trials of one to three layers, each with a width of its own."""
    study = optuna.create_study(sampler=sampler)
    for _ in range(num_trials):
        trial = study.ask()
        draw_layers(trial)
        study.tell(trial, sum(trial.params.values()))
    return study


def draw_layers(trial: optuna.Trial) -> None:
    for layer in range(trial.suggest_int("num_layers", 1, 3)):
        trial.suggest_int(f"width_{layer}", 4, 128)
    trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)


def proposed_by(sampler_class: type[TPESampler], num_trials: int) -> float:
    sampler = sampler_class(seed=1, multivariate=True, group=True, constant_liar=True)
    value = study_of(num_trials, sampler).ask(DISTRIBUTIONS).params["x"]
    assert isinstance(value, float)
    return value


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_study_within_the_bound_gets_the_proposals_of_plain_tpe() -> None:
    num_trials = NUM_LATEST
    assert proposed_by(BoundedTPESampler, num_trials) == proposed_by(TPESampler, num_trials)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_dimensions_that_only_some_trials_have_are_drawn_as_by_plain_tpe() -> None:
    study = study_with_conditions(40, optuna.samplers.RandomSampler(1))
    drawn = []
    for sampler_class in (BoundedTPESampler, TPESampler):
        study.sampler = sampler_class(seed=1, multivariate=True, group=True, constant_liar=True)
        trial = study.ask()
        draw_layers(trial)
        drawn.append(trial.params)
        study.tell(trial, state=TrialState.FAIL)  # from which neither learns
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) > 2


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_beyond_it_proposals_still_come_from_the_good_ones() -> None:
    assert abs(proposed_by(BoundedTPESampler, 1000) - 0.3) < 0.1


def test_of_a_long_study_the_best_the_latest_and_what_runs_last_are_kept() -> None:
    study = study_of(600, optuna.samplers.RandomSampler(1))
    for _ in range(NUM_RUNNING + 10):
        study.ask()
    trials = study.get_trials()
    states = TrialState.COMPLETE, TrialState.PRUNED
    ended, running = study.get_trials(states=states), study.get_trials(states=(TrialState.RUNNING,))
    kept = learnt_from(ended, running)
    numbers = [trial.number for trial in kept]
    assert numbers == sorted(numbers)
    assert len(kept) == NUM_BEST + NUM_LATEST + NUM_RUNNING
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    best = sorted(complete, key=lambda trial: trial.value or 0.0)[:NUM_BEST]
    assert {trial.number for trial in best} <= set(numbers)
    assert set(range(600 - NUM_LATEST, 600)) <= set(numbers)
    assert numbers[-NUM_RUNNING:] == list(range(610, 610 + NUM_RUNNING))
