"""What the record holds of a trial."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pipelines.scores import BaselineScore, Evaluation
from pipelines.training_config import TrainingBudget
from search.config import Metric
from search.record import (
    TrialRecord,
    TrialState,
    baseline_from_plain,
    baseline_to_plain,
    best_of_each_configuration,
    leaderboard,
    metric_value,
    proposal_seed,
    trial_seed,
)
from search.space import Space
from search.starts import Start, start_config

MakeEvaluation = Callable[..., Evaluation]
MakeSpace = Callable[..., Space]


def record(number: int = 0, state: TrialState = TrialState.RUNNING, **fields: Any) -> TrialRecord:
    return TrialRecord(number=number, state=state, config=None, seed=0, params={}, **fields)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_a_complete_trial_without_a_finite_value_cannot_be_built(value: float | None) -> None:
    with pytest.raises(ValueError, match="a complete trial has a finite value: got"):
        record(state=TrialState.COMPLETE, value=value)
    assert record(state=TrialState.COMPLETE, value=0.5).value == 0.5


@pytest.mark.parametrize("state", [state for state in TrialState if state != "complete"])
def test_any_other_trial_may_be_without_a_value(state: TrialState) -> None:
    assert record(state=state).value is None


def test_complete_pruned_and_failed_trials_count() -> None:
    assert [state for state in TrialState if state.counts] == ["complete", "pruned", "failed"]


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (Start(widths=(64, 128), bidirectional=True), "017 64-128 bi"),
        (Start(widths=(128,)), "017 128"),
    ],
)
def test_a_trial_is_named_by_number_widths_and_direction(
    start: Start, name: str, make_space: MakeSpace
) -> None:
    config = start_config(start, make_space(), TrainingBudget(), season=6)
    assert replace(record(17), config=config).name == name


def test_a_trial_without_a_configuration_is_named_by_its_number() -> None:
    assert record(7).name == "007"
    assert record(1234).name == "1234"


@pytest.mark.parametrize(
    ("metric", "field"),
    [("mae", "mae_scaled"), ("mse", "mse_scaled"), ("rmse", "rmse_scaled"), ("mase", "mase")],
)
def test_a_metric_is_judged_on_standardised_values_mase_being_so_already(
    metric: Metric, field: str, make_evaluation: MakeEvaluation
) -> None:
    evaluation = make_evaluation(0.3)
    judged = replace(evaluation, errors=replace(evaluation.errors, **{field: 0.123}))
    assert metric_value(judged, metric) == 0.123


def test_the_leaderboard_is_the_complete_trials_by_value_and_number() -> None:
    complete, pruned = TrialState.COMPLETE, TrialState.PRUNED
    trials = [
        record(0, complete, value=0.3),
        record(1, pruned, value=0.1),
        record(2, complete, value=0.2),
        record(3, TrialState.FAILED),
        record(4, complete, value=0.2),
    ]
    assert [trial.number for trial in leaderboard(trials)] == [2, 4, 0]
    assert [trial.number for trial in leaderboard(reversed(trials), 2)] == [2, 4]
    assert leaderboard([]) == []


def test_a_seed_is_that_of_study_and_number_for_ever() -> None:
    # A study of an earlier version goes on with the seeds it would have had.
    assert [trial_seed(0, number) for number in range(3)] == [2968811710, 3964924996, 3141116543]
    assert [proposal_seed(0, number) for number in range(3)] == [3831201730, 901243215, 1961547765]


def test_no_two_seeds_are_equal() -> None:
    seeds = {
        of(study, number)
        for of in (trial_seed, proposal_seed)
        for study in range(20)
        for number in range(200)
    }
    assert len(seeds) > 7990  # of 8,000 numbers below 2³²


@pytest.mark.parametrize("mase", [0.9, math.nan])
def test_a_recorded_baseline_rebuilds_an_equal_object(
    mase: float, make_evaluation: MakeEvaluation
) -> None:
    errors = replace(make_evaluation(0.25).errors, mase=mase)
    baseline = BaselineScore("ridge", errors, "lookback 24, penalty 10")
    plain = json.loads(json.dumps(baseline_to_plain(baseline)))
    assert repr(baseline_from_plain(plain)) == repr(baseline)


def test_of_a_configuration_that_was_tried_with_many_seeds_the_best_trial_stands_for_it(
    make_space: MakeSpace,
) -> None:
    space = make_space()
    configs = [
        start_config(Start(widths=(width,)), space, TrainingBudget(), season=6) for width in (8, 16)
    ]
    values = [0.3, 0.5, 0.2, 0.4]
    trials = [
        replace(record(number, TrialState.COMPLETE, value=value), config=configs[number % 2])
        for number, value in enumerate(values)
    ]
    assert [trial.number for trial in best_of_each_configuration(trials)] == [2, 3]
    assert [trial.number for trial in best_of_each_configuration(trials, 1)] == [2]
