"""What the speed benchmarks count and repeat is what the record says."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.bare_loop import Run, runs_of, time_bare_loop
from benchmarks.floor import first_step_at, idle_seconds
from benchmarks.quality import course_of, seconds_below
from benchmarks.recorded_curves import Curves
from benchmarks.scale import Simulation, opened
from search.config_file import parse_config
from search.kept_weights import KeptWeights
from search.record import RecordedEvaluation, TrialRecord


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> list[TrialRecord]:
    """A simulated search's."""
    folder = tmp_path_factory.mktemp("simulated")
    curves = Curves.read()
    study = opened(folder, 12, curves).study
    simulation = Simulation(study, KeptWeights(folder / "weights"), curves, num_workers=3)
    list(simulation.run())
    return study.trials()


def test_the_bare_loop_repeats_each_trial_that_ran_with_its_seed_and_steps(
    trials: list[TrialRecord],
) -> None:
    ran = [trial for trial in trials if trial.evaluations]
    runs = runs_of(trials)
    assert len(runs) == len(ran) == 12
    assert {run.seed for run in runs} == {trial.seed for trial in ran}
    assert sum(run.steps for run in runs) == sum(t.evaluations[-1].evaluation.step for t in ran)
    started = {trial.seed: trial.started_at for trial in ran}
    times = [started[run.seed] for run in runs]
    assert times == sorted(time for time in times if time is not None)


def test_a_slot_is_idle_from_its_last_end_to_the_last_of_all(trials: list[TrialRecord]) -> None:
    ran = [trial for trial in trials if trial.evaluations]
    ends = [(7, 10.0), (8, 14.0), (7, 13.0), (9, 11.5)]
    played = [
        replace(trial, ran_on={"pid": pid}, ended_at=end)
        for trial, (pid, end) in zip(ran, ends, strict=False)
    ]
    assert idle_seconds(played) == 2.5


def test_the_first_step_comes_before_the_first_evaluation_by_what_that_took(
    trials: list[TrialRecord],
) -> None:
    first, second = [trial for trial in trials if trial.evaluations][:2]
    took = replace(first.evaluations[0].evaluation, train_seconds=2.0, evaluate_seconds=0.5)
    early = replace(first, evaluations=(RecordedEvaluation(took, time=100.0),))
    late = replace(second, evaluations=(RecordedEvaluation(took, time=101.0),))
    assert first_step_at([late, early]) == 97.5


def test_time_to_quality_is_that_of_the_first_evaluation_below(trials: list[TrialRecord]) -> None:
    reached = sorted(
        (e.time, e.evaluation.errors.mae_scaled) for t in trials for e in t.evaluations
    )
    begin, middle = reached[0][0] - 1.0, sorted(error for _, error in reached)[len(reached) // 2]
    expected = next(time for time, error in reached if error < middle) - begin
    course = course_of(trials, "mae", begin)
    assert seconds_below(course, middle) == expected
    assert seconds_below(course, 0.0) == float("inf")
    assert seconds_below(course, float("inf")) == 1.0


def test_values_that_were_measured_on_fewer_windows_are_no_bests(trials: list[TrialRecord]) -> None:
    trial = next(trial for trial in trials if trial.evaluations)
    few = trial.evaluations[0]
    final = RecordedEvaluation(
        replace(few.evaluation, num_windows=few.evaluation.num_windows + 1), few.time + 5
    )
    assert [at for at, _ in course_of([replace(trial, final=final)], "mae", few.time)] == [5.0]
    assert course_of([], "mae", 0.0) == []


@pytest.mark.slow  # two processes that import torch
def test_the_bare_loop_trains_and_says_where_it_breaks(
    trials: list[TrialRecord], tmp_path: Path
) -> None:
    config = parse_config({"home": str(tmp_path)})
    shortest = min(runs_of(trials), key=lambda run: run.steps)
    quick = json.loads(shortest.config)
    quick["training"] |= {"max_steps": 4, "evaluate_every_steps": 2, "warmup_steps": 0}
    assert time_bare_loop(config, [Run(json.dumps(quick), 1, 2)], num_workers=2) > 0
    with pytest.raises(Exception, match="non-zero exit status 1"):
        time_bare_loop(config, [Run("{}", 1, 2)], num_workers=1)
