"""The record of a search, on real SQLite files and a real PostgreSQL."""

import math
import os
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy

from pipelines.scores import Evaluation
from pipelines.splits import SearchData
from pipelines.training_config import TrainingBudget
from search.database import connectable
from search.record import PlannedRun, Proposal, TrialRecord, TrialState, trial_seed
from search.samplers import RANDOM_AFTER_REJECTIONS
from search.space import Space, TrialConfig
from search.starts import THREE_ANSWERS, Start, start_config
from search.stored_studies import UnknownStudyError, read_study
from search.study import SpaceExhaustedError, Study, StudyMismatchError

MakeData = Callable[..., SearchData]
MakeEvaluation = Callable[..., Evaluation]
MakeSpace = Callable[..., Space]
OpenStudy = Callable[..., Study]
RecordAt = Callable[[Path], str]
LossOf = Callable[[TrialConfig, int], float]

HERE = Path(__file__).parent

BUDGET = TrainingBudget(max_steps=300, evaluate_every_steps=50, precision="float32")  # as opened

# All but the widths and the direction, and with the widths a space of 3 × 2 configurations.
FIXED = {
    "num_layers": 1,
    "dropout": 0.0,
    "normalisation": "last",
    "linear_skip": "shared",
    "head": "last_state",
    "calendar": False,
    "patch_length": 1,
    "lookback": 12,
    "learning_rate": 1e-3,
    "batch_size": 32,
    "weight_decay": 1e-3,
}
SIX = FIXED | {"hidden_size": {"choices": [4, 8, 16]}}


ON_FILES = pytest.mark.parametrize("record_at", ["sqlite"], indirect=True)
"""For what copies the record, or is about proposals and rules wherever they are kept."""


@pytest.fixture(params=["sqlite", "postgresql"])
def record_at(request: pytest.FixtureRequest, record_at: RecordAt) -> RecordAt:
    """The record that a test calls by a path, in a file of this path or in a database."""
    if request.param == "sqlite":
        return record_at
    in_postgresql: RecordAt = request.getfixturevalue("database_at")
    return in_postgresql


def ask(study: Study) -> Proposal:
    proposal = study.ask()
    assert proposal is not None
    return proposal


def start(space: Space, *widths: int, **named: Any) -> TrialConfig:
    return start_config(Start(widths=widths, **named), space, BUDGET, season=6)


def states(study: Study) -> list[str]:
    return [str(trial.state) for trial in study.trials()]


def raw_trial(url: str, number: int) -> optuna.trial.FrozenTrial:
    """A trial as Optuna keeps it."""
    return optuna.load_study(study_name="study", storage=connectable(url)).trials[number]


def timeless(trial: TrialRecord) -> TrialRecord:
    """A trial without the times, which differ between two runs of one search."""
    evaluations = tuple(replace(recorded, time=0.0) for recorded in trial.evaluations)
    final = replace(trial.final, time=0.0) if trial.final else None
    ended_at = None if trial.ended_at is None else 0.0
    started_at = None if trial.started_at is None else 0.0
    return replace(
        trial, evaluations=evaluations, final=final, ended_at=ended_at, started_at=started_at
    )


# Counting


def test_complete_pruned_and_failed_trials_count_and_rejected_ones_do_not(
    open_small_study: OpenStudy, make_space: MakeSpace, make_evaluation: MakeEvaluation
) -> None:
    space = make_space(**SIX)
    study = open_small_study(space=space, sampler="random", pruner="none", trials=3)
    twice = start(space, 4)
    study.queue([twice, twice, start(space, 8), start(space, 16)])

    first = ask(study)
    study.report(first.number, make_evaluation(0.5))
    study.complete(first.number)
    second = ask(study)  # the second of the two was rejected on the way
    study.prune(second.number, "stopped early at step 50")
    third = ask(study)
    assert study.ask() is None  # two are counted and one runs
    assert not study.is_full
    study.fail(third.number, "RuntimeError: no memory")

    assert [first.number, second.number, third.number] == [0, 2, 3]
    assert states(study) == ["complete", "rejected", "pruned", "failed"]
    assert study.num_counted == 3
    assert study.is_full
    assert study.ask() is None


def test_trials_that_run_are_not_asked_for_again(open_small_study: OpenStudy) -> None:
    study = open_small_study(sampler="random", trials=3)
    proposals = [ask(study) for _ in range(3)]
    assert [proposal.number for proposal in proposals] == [0, 1, 2]
    assert study.ask() is None
    assert study.unended_numbers == {0, 1, 2}
    study.fail(1, "RuntimeError: lost")
    assert study.unended_numbers == {0, 2}
    assert not study.is_running(1)
    assert study.ask() is None


def test_a_study_goes_on_where_its_total_is_raised(open_small_study: OpenStudy) -> None:
    study = open_small_study(sampler="random", trials=1)
    study.fail(ask(study).number, "RuntimeError: lost")
    assert study.is_full
    longer = open_small_study(sampler="random", trials=2)
    assert not longer.is_full
    assert ask(longer).number == 1
    assert longer.ask() is None


# Planned runs


@pytest.fixture
def six_runs(make_space: MakeSpace) -> list[PlannedRun]:
    """Three configurations with each of two seeds, on two rolling origins in turn."""
    configs = [start(make_space(**SIX), width) for width in (4, 8, 16)]
    return [PlannedRun(config, seed, seed % 2) for seed in (70, 71) for config in configs]


@pytest.fixture
def open_planned(open_small_study: OpenStudy, make_space: MakeSpace) -> OpenStudy:
    def open_it(**changes: Any) -> Study:
        space = make_space(**SIX)
        return open_small_study(space=space, sampler="grid", pruner="none", trials=1, **changes)

    return open_it


def test_planned_runs_are_asked_for_in_order_with_their_own_seeds_and_folds(
    open_planned: OpenStudy, six_runs: list[PlannedRun]
) -> None:
    study = open_planned()
    study.plan(six_runs)
    proposals = [ask(study) for _ in six_runs]
    assert [PlannedRun(p.config, p.seed, p.fold) for p in proposals] == six_runs
    assert study.ask() is None
    assert [(t.config, t.seed, t.fold) for t in study.trials()] == [
        (run.config, run.seed, run.fold) for run in six_runs
    ]


def test_the_total_of_a_plan_is_the_number_of_its_runs_whatever_was_asked_for(
    open_planned: OpenStudy, six_runs: list[PlannedRun], make_evaluation: MakeEvaluation
) -> None:
    study = open_planned()
    study.plan(six_runs)
    assert study.settings.trials == 6
    for _ in six_runs:
        number = ask(study).number
        study.report(number, make_evaluation(0.5))
        study.complete(number)
    assert study.is_full
    assert states(study) == ["complete"] * 6  # a configuration that comes again is no duplicate


def test_a_run_that_is_planned_twice_is_tried_once(
    open_planned: OpenStudy, six_runs: list[PlannedRun]
) -> None:
    study = open_planned()
    study.plan([*six_runs[:2], *six_runs[:2]])
    assert study.settings.trials == 2


def test_a_plan_that_is_resumed_holds_each_run_once_and_can_grow(
    open_planned: OpenStudy, six_runs: list[PlannedRun], make_evaluation: MakeEvaluation
) -> None:
    study = open_planned()
    study.plan(six_runs[:4])
    for _ in range(2):
        number = ask(study).number
        study.report(number, make_evaluation(0.5))
        study.complete(number)
    cut_off = ask(study)  # the process is killed here

    resumed = open_planned()
    resumed.plan(six_runs)
    assert resumed.settings.trials == 6
    again = ask(resumed)
    assert (again.number, again.config, again.seed, again.fold) == (
        cut_off.number,
        cut_off.config,
        cut_off.seed,
        cut_off.fold,
    )
    rest = [ask(resumed) for _ in range(3)]
    assert [PlannedRun(p.config, p.seed, p.fold) for p in rest] == six_runs[3:]
    assert resumed.ask() is None


def test_a_process_that_is_killed_between_two_runs_leaves_a_plan_that_goes_on(
    open_planned: OpenStudy, six_runs: list[PlannedRun]
) -> None:
    open_planned().plan(six_runs)  # killed before its first run
    resumed = open_planned()
    resumed.plan(six_runs)
    assert resumed.settings.trials == 6
    assert [ask(resumed).number for _ in six_runs] == list(range(6))


def test_a_plan_is_complete_without_the_runs_that_the_limits_refuse(
    open_planned: OpenStudy, six_runs: list[PlannedRun], make_evaluation: MakeEvaluation
) -> None:
    study = open_planned(max_parameters=500)  # too few for 16 cells, the third of each three
    study.plan(six_runs[1:3])
    assert study.settings.trials == 1
    number = ask(study).number
    assert study.ask() is None  # while the first still runs, and may be tried again
    study.report(number, make_evaluation(0.5))
    study.complete(number)
    assert study.ask() is None
    assert study.is_full
    assert states(study) == ["complete"]


def test_a_run_that_lower_limits_refuse_is_missed_by_no_total_and_comes_back_with_higher_ones(
    open_planned: OpenStudy, six_runs: list[PlannedRun], make_evaluation: MakeEvaluation
) -> None:
    first = open_planned()
    first.plan(six_runs[1:3])
    assert [ask(first).config, ask(first).config] == [run.config for run in six_runs[1:3]]

    lower = open_planned(max_parameters=500)  # after a kill: both wait, the second has 16 cells
    lower.plan(six_runs[1:2])
    assert lower.settings.trials == 1
    number = ask(lower).number
    lower.report(number, make_evaluation(0.5))
    lower.complete(number)
    assert lower.is_full
    assert lower.ask() is None

    higher = open_planned()
    higher.plan(six_runs[1:3])
    assert higher.settings.trials == 2
    assert ask(higher).config == six_runs[2].config
    assert higher.ask() is None


def test_a_waiting_run_that_lower_limits_refuse_is_passed_over(
    open_planned: OpenStudy, six_runs: list[PlannedRun]
) -> None:
    first = open_planned()
    first.plan(six_runs[2:3])
    ask(first)

    lower = open_planned(max_parameters=500)
    lower.plan(six_runs[:2])
    assert lower.settings.trials == 2
    assert [ask(lower).config for _ in range(2)] == [run.config for run in six_runs[:2]]
    assert lower.ask() is None
    assert states(lower) == ["rejected", "running", "running"]

    higher = open_planned()
    higher.plan(six_runs[:3])
    assert higher.settings.trials == 3


def test_a_run_outside_the_space_cannot_be_planned(
    open_planned: OpenStudy, make_space: MakeSpace
) -> None:
    outside = start(make_space(**SIX), 4, learning_rate=0.5)
    with pytest.raises(ValueError, match=r"learning_rate is outside the space: got 0\.5"):
        open_planned().plan([PlannedRun(outside, 1)])


def test_a_run_that_is_let_wait_comes_before_those_that_are_new(
    open_planned: OpenStudy, six_runs: list[PlannedRun]
) -> None:
    study = open_planned()
    study.plan(six_runs)
    first, second = ask(study), ask(study)
    study.requeue(first.number)
    assert ask(study) == first
    assert ask(study).number == second.number + 1


def test_a_proposal_is_recorded_with_what_a_rerun_needs(open_small_study: OpenStudy) -> None:
    study = open_small_study(sampler="random", seed=7)
    proposal = ask(study)
    study.started(proposal.number)
    study.ran_on(proposal.number, {"host": "here", "pid": 1})
    (trial,) = open_small_study(sampler="random", seed=7).trials()
    assert (trial.config, trial.seed) == (proposal.config, trial_seed(7, 0))
    assert trial.seed == proposal.seed
    assert trial.params["learning_rate"] == proposal.config.training.learning_rate
    assert trial.num_parameters > 0
    assert trial.started_at is not None
    assert trial.ran_on == {"host": "here", "pid": 1}


# What is asked first


def test_the_starts_come_first_and_in_order(
    open_small_study: OpenStudy, make_space: MakeSpace
) -> None:
    space = make_space()
    starts = [start_config(answer, space, BUDGET, season=6) for answer in THREE_ANSWERS]
    own = start(space, 32, 16, 24, bidirectional=True)
    study = open_small_study(space=space)
    assert study.queue([*starts, own]) == ()
    asked = [ask(study).config for _ in range(5)]
    assert [config.model for config in asked[:4]] == [config.model for config in [*starts, own]]
    assert asked[4] not in asked[:4]


@ON_FILES
def test_a_start_outside_a_narrowed_space_is_left_out_and_named(
    open_small_study: OpenStudy, make_space: MakeSpace
) -> None:
    space = make_space(num_layers={"low": 1, "high": 2})
    study = open_small_study(space=space, max_parameters=20_000)
    left_out = study.queue(
        [start(space, 16, 16, 16), start(space, 16), start(space, 8), start(space, 256)]
    )
    assert [reason.split(":")[0] for reason in left_out] == [
        "3 layers 16→16→16, lookback 24",
        "1 layer 8, lookback 24",
        "1 layer 256, lookback 24",
    ]
    assert left_out[0].endswith("num_layers is outside the space: got 3")
    assert left_out[1].endswith("hidden_size is outside the space: got 8")
    assert left_out[2].endswith("parameters exceed search.max_parameters=20,000")
    assert ask(study).config.model.widths == (16,)
    assert len(study.trials()) == 1


# Proposals that are not tried


@ON_FILES
def test_a_configuration_that_is_known_is_rejected_with_the_trial_it_equals(
    open_small_study: OpenStudy, make_space: MakeSpace
) -> None:
    space = make_space(dropout={"low": 0.0, "high": 0.4, "step": 0.1})
    study = open_small_study(space=space)
    known = start(space, 64, 64, dropout=0.3)
    # The same as numbers add up in binary, which is how a sampler makes them of steps.
    again = start(space, 64, 64, dropout=0.1 + 0.2)
    study.queue([known, again, start(space, 64)])
    assert ask(study).config == known
    assert ask(study).config.model.widths == (64,)
    rejected = study.trial(1)
    assert rejected.state is TrialState.REJECTED
    assert rejected.reason == "rejected: the same as trial 000"
    assert rejected.config is None


def test_a_failed_configuration_is_not_proposed_again(
    open_small_study: OpenStudy, make_space: MakeSpace
) -> None:
    space = make_space(**SIX)
    study = open_small_study(space=space)
    study.queue([start(space, 4), start(space, 4), start(space, 8)])
    study.fail(ask(study).number, "RuntimeError: lost")
    study = open_small_study(space=space)  # nor after a resume
    assert ask(study).config.model.widths == (8,)
    assert states(study) == ["failed", "rejected", "running"]


@ON_FILES
def test_too_large_and_too_costly_configurations_are_never_proposed(
    open_small_study: OpenStudy, make_space: MakeSpace, tmp_path: Path
) -> None:
    space = make_space(**FIXED | {"hidden_size": {"choices": [4, 6, 230, 240, 250, 256]}})
    for name, limit, reason in (
        ("large", {"max_parameters": 10_000}, "search.max_parameters=10,000"),
        ("costly", {"max_teraflops": 0.01}, "search.max_training_teraflops=0.01"),
    ):
        study = open_small_study(tmp_path / name, space=space, sampler="random", **limit)
        widths = {ask(study).config.model.widths[0] for _ in range(3)}
        assert widths == {4, 6}
        rejected = [t for t in study.trials() if t.state is TrialState.REJECTED]
        assert any(trial.reason.endswith(f"exceed {reason}") for trial in rejected)
        assert len(study.unended_numbers) == 3


@ON_FILES
def test_a_point_that_makes_no_model_is_rejected(
    open_small_study: OpenStudy, make_space: MakeSpace
) -> None:
    contradicting = {"num_layers": {"choices": [0, 1]}, "linear_skip": "none"}
    space = make_space(**FIXED | contradicting)
    study = open_small_study(space=space, sampler="random")
    assert [len(ask(study).config.model.widths) for _ in range(4)] == [1, 1, 1, 1]
    rejected = [trial for trial in study.trials() if trial.state is TrialState.REJECTED]
    assert rejected
    assert all("widths may be empty only with" in trial.reason for trial in rejected)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "random"])
@ON_FILES
def test_a_small_space_ends_with_every_configuration_tried_once(
    sampler: str,
    open_small_study: OpenStudy,
    make_space: MakeSpace,
    make_evaluation: MakeEvaluation,
    loss_of: LossOf,
) -> None:
    study = open_small_study(space=make_space(**SIX), sampler=sampler, num_startup_trials=2)
    for _ in range(6):
        proposal = ask(study)
        study.report(proposal.number, make_evaluation(loss_of(proposal.config, 50)))
        study.complete(proposal.number)
    with pytest.raises(SpaceExhaustedError, match="the last 200 proposals were known or refused"):
        study.ask()
    tried = [trial.config for trial in study.trials() if trial.config is not None]
    assert sorted((config.model.widths[0], config.model.bidirectional) for config in tried) == [
        (width, direction) for width in (4, 8, 16) for direction in (False, True)
    ]
    assert study.num_counted == 6


# Going on as if nothing had happened


def lifetime(
    study: Study, running: list[Proposal], evaluate: MakeEvaluation, loss: LossOf
) -> Proposal:
    """Ask for one more trial; where that makes three, end the one that has run longest."""
    proposal = ask(study)
    running.append(proposal)
    study.report(proposal.number, evaluate(loss(proposal.config, 100), 100))
    if len(running) == 3:
        oldest = running.pop(0)
        study.report(oldest.number, evaluate(loss(oldest.config, 300), 300))
        if oldest.number % 4 == 1:
            study.prune(oldest.number, "diverged by step 250")
        elif oldest.number % 4 == 2:
            study.fail(oldest.number, "RuntimeError: lost")
        else:
            study.complete(oldest.number)
    return proposal


@pytest.mark.parametrize(
    ("sampler", "count"),
    [
        ("random", 4),
        pytest.param("tpe", 20, marks=pytest.mark.slow),
        pytest.param("gp", 9, marks=pytest.mark.slow),
    ],
)
@ON_FILES
def test_a_study_reopened_before_every_proposal_proposes_the_same_as_one_left_open(
    sampler: str,
    count: int,
    tmp_path: Path,
    open_small_study: OpenStudy,
    make_evaluation: MakeEvaluation,
    loss_of: LossOf,
) -> None:
    settings = {"sampler": sampler, "pruner": "asha", "num_startup_trials": 4, "seed": 3}
    left_open = open_small_study(tmp_path / "left-open", **settings)
    running: list[Proposal] = []
    expected = [lifetime(left_open, running, make_evaluation, loss_of) for _ in range(count)]

    running, proposals = [], []
    for _ in range(count):
        reopened = open_small_study(tmp_path / "reopened", **settings)
        assert [ask(reopened) for _ in running] == running  # what ran comes first, unchanged
        proposals.append(lifetime(reopened, running, make_evaluation, loss_of))
    assert proposals == expected
    assert list(map(timeless, reopened.trials())) == list(map(timeless, left_open.trials()))


@ON_FILES
def test_of_the_draws_the_cheapest_that_is_new_is_tried(
    tmp_path: Path, open_small_study: OpenStudy, make_space: MakeSpace
) -> None:
    settings = {"sampler": "tpe", "startup_draws": 60, "num_startup_trials": 6, "trials": 6}
    study = open_small_study(tmp_path / "six", space=make_space(**SIX), **settings)
    costs = [study.training_teraflops(ask(study).config) for _ in range(6)]
    assert costs == sorted(costs)
    assert states(study) == ["running"] * 6


def test_what_was_running_waits_again_as_it_was_and_comes_first(
    open_small_study: OpenStudy,
    make_evaluation: MakeEvaluation,
    tmp_path: Path,
    record_at: RecordAt,
) -> None:
    study = open_small_study(sampler="random", first_rung_steps=50)
    proposals = [ask(study) for _ in range(3)]
    study.report(0, make_evaluation(0.5, 50))
    study.complete(0)
    study.report(1, make_evaluation(0.4, 50))
    before = [raw_trial(record_at(tmp_path / "record.db"), number) for number in (1, 2)]
    assert before[0].system_attrs["completed_rung_0"] == 0.4

    study = open_small_study(sampler="random", first_rung_steps=50)
    assert states(study) == ["complete", "waiting", "waiting"]
    assert study.unended_numbers == {1, 2}
    assert not study.is_running(1)
    after = [raw_trial(record_at(tmp_path / "record.db"), number) for number in (1, 2)]
    for old, new in zip(before, after, strict=True):
        assert (new.params, new.user_attrs) == (old.params, old.user_attrs)
        assert (new.system_attrs, new.intermediate_values) == (
            old.system_attrs,
            old.intermediate_values,
        )
    assert [ask(study), ask(study)] == proposals[1:]
    assert ask(study).number == 3
    assert states(study) == ["complete", "running", "running", "running"]


def test_what_ran_when_a_search_ends_waits_without_reopening_too(
    open_small_study: OpenStudy,
) -> None:
    study = open_small_study(sampler="random")
    proposal = ask(study)
    study.requeue_running()
    assert states(study) == ["waiting"]
    assert not study.is_running(proposal.number)
    assert ask(study) == proposal


def test_a_waiting_trial_that_a_lower_limit_refuses_is_rejected(
    open_small_study: OpenStudy, make_space: MakeSpace
) -> None:
    space = make_space()
    study = open_small_study(space=space)
    study.queue([start(space, 256), start(space, 16)])
    assert ask(study).config.model.widths == (256,)
    study = open_small_study(space=space, max_parameters=20_000)
    assert ask(study).config.model.widths == (16,)
    assert states(study) == ["rejected", "running"]


class Killed(BaseException):
    """The end of the process, as far as the record can tell."""


@contextmanager
def killed_at_statement(number: int) -> Iterator[Counter[str]]:
    """Let nothing but `number` more statements reach a database; count those that came."""
    count: Counter[str] = Counter()

    def tick(*_: Any) -> None:
        count["statements"] += 1
        if count["statements"] > number:
            raise Killed

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", tick)
    try:
        yield count
    except Killed:
        pass
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", tick)


@pytest.mark.parametrize(
    ("sampler", "num_before"),
    [
        ("random", 1),
        pytest.param("random", 3, marks=pytest.mark.slow),
        pytest.param("tpe", 9, marks=pytest.mark.slow),
    ],
)
@ON_FILES
def test_a_proposal_is_the_same_wherever_its_process_was_killed_while_it_was_made(
    sampler: str,
    num_before: int,
    tmp_path: Path,
    open_small_study: OpenStudy,
    make_evaluation: MakeEvaluation,
    loss_of: LossOf,
) -> None:
    def reopen(file: Path) -> tuple[Study, list[Proposal]]:
        study = open_small_study(file, sampler=sampler)
        return study, [ask(study) for t in study.trials() if t.state is TrialState.WAITING]

    study, running = open_small_study(sampler=sampler), []
    for _ in range(num_before):
        lifetime(study, running, make_evaluation, loss_of)
    before = tmp_path / "before.db"
    copy_record(tmp_path / "record.db", before)
    with killed_at_statement(10**9) as count:
        expected = ask(study)

    for number in range(count["statements"]):
        file = tmp_path / f"killed-{number}.db"
        copy_record(before, file)
        killed, _ = reopen(file)
        with killed_at_statement(number) as count_now:
            ask(killed)
        assert count_now["statements"] == number + 1  # it was killed
        reopened, waiting = reopen(file)
        again = waiting if len(waiting) > len(running) else [*waiting, ask(reopened)]
        assert again == [*running, expected], f"killed at statement {number}"


def copy_record(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


def test_a_start_that_was_half_asked_for_is_asked_for_again(
    open_small_study: OpenStudy, make_space: MakeSpace
) -> None:
    space = make_space()
    study = open_small_study(space=space)
    study.queue([start(space, 64, 128), start(space, 128)])
    with killed_at_statement(30) as count:
        ask(study)
    assert count["statements"] == 31  # it was killed
    study = open_small_study(space=space)
    assert [ask(study).config.model.widths for _ in range(2)] == [(64, 128), (128,)]
    assert states(study) == ["running", "running"]


@pytest.mark.slow
@ON_FILES
def test_a_sampler_that_only_repeats_itself_draws_at_random_after_a_kill_too(
    tmp_path: Path,
    open_small_study: OpenStudy,
    make_space: MakeSpace,
    make_evaluation: MakeEvaluation,
) -> None:
    settings = {"space": make_space(**SIX), "num_startup_trials": 2}
    study = open_small_study(**settings)
    for _ in range(5):
        proposal = ask(study)
        # The best by far is a neighbour of all that is left.
        mae = 0.1 if proposal.config.model.bidirectional else 0.9
        study.report(proposal.number, make_evaluation(mae))
        study.complete(proposal.number)
    before = tmp_path / "before.db"
    copy_record(tmp_path / "record.db", before)
    with killed_at_statement(10**9) as count:
        expected = ask(study)
    assert expected.number > 5 + RANDOM_AFTER_REJECTIONS

    with killed_at_statement(count["statements"] * 9 // 10):
        ask(open_small_study(before, **settings))
    assert ask(open_small_study(before, **settings)) == expected


# Evaluations


def test_an_evaluation_is_recorded_whole_and_the_value_reported_is_the_best_so_far(
    open_small_study: OpenStudy,
    make_evaluation: MakeEvaluation,
    tmp_path: Path,
    record_at: RecordAt,
) -> None:
    study = open_small_study(sampler="random", pruner="none")
    number = ask(study).number
    evaluations = [
        make_evaluation(mae, step) for step, mae in ((50, 0.5), (100, 0.3), (150, 0.4), (200, 0.2))
    ]
    for evaluation in evaluations:
        assert not study.report(number, evaluation)
    trial = study.trial(number)
    assert [recorded.evaluation for recorded in trial.evaluations] == evaluations
    times = [recorded.time for recorded in trial.evaluations]
    assert times == sorted(times)
    assert trial.value == 0.2
    values = raw_trial(record_at(tmp_path / "record.db"), number).intermediate_values
    assert values == {50: 0.5, 100: 0.3, 150: 0.3, 200: 0.2}


def test_an_undefined_mase_is_undefined_in_the_record_too(
    open_small_study: OpenStudy, make_evaluation: MakeEvaluation
) -> None:
    study = open_small_study(sampler="random", pruner="none")
    number = ask(study).number
    errors = replace(make_evaluation(0.5).errors, mase=math.nan)
    study.report(number, make_evaluation(0.5, errors=errors))
    (recorded,) = study.complete(number).evaluations
    assert math.isnan(recorded.evaluation.errors.mase)
    assert recorded.evaluation.errors.mae_scaled == 0.5


def test_a_step_that_is_reported_again_changes_nothing_and_writes_nothing_twice(
    open_small_study: OpenStudy,
    make_evaluation: MakeEvaluation,
    tmp_path: Path,
    record_at: RecordAt,
) -> None:
    study = open_small_study(sampler="random", pruner="none")
    number = ask(study).number
    for step in (50, 100):
        study.report(number, make_evaluation(0.5 - step / 1000, step))
    study = open_small_study(sampler="random", pruner="none")
    ask(study)
    before = study.trial(number), contents(record_at(tmp_path / "record.db"))
    for step in (50, 100):
        study.report(number, make_evaluation(0.1, step))
    assert (study.trial(number), contents(record_at(tmp_path / "record.db"))) == before
    study.report(number, make_evaluation(0.2, 150))
    assert len(study.trial(number).evaluations) == 3


def contents(url: str) -> dict[str, list[str]]:
    tables = sqlalchemy.MetaData()
    engine = sqlalchemy.create_engine(connectable(url))
    with engine.connect() as connection:
        tables.reflect(connection)
        return {
            table.name: sorted(map(repr, connection.execute(table.select())))
            for table in tables.sorted_tables
        }


@pytest.mark.parametrize("is_report_first", [True, False])
def test_an_evaluation_is_recorded_and_reported_or_neither_and_comes_again_on_the_rerun(
    is_report_first: bool,
    open_small_study: OpenStudy,
    make_evaluation: MakeEvaluation,
    tmp_path: Path,
    record_at: RecordAt,
) -> None:
    study = open_small_study(sampler="random", pruner="none")
    number = ask(study).number
    if is_report_first:
        study.report(number, make_evaluation(0.6, 50))
    with killed_at_statement(10**9) as count:
        study.report(number, make_evaluation(0.5, 100))
    whole = count["statements"]
    with killed_at_statement(whole - 1):
        study.report(number, make_evaluation(0.4, 150))
    stored = raw_trial(record_at(tmp_path / "record.db"), number)
    assert max(stored.intermediate_values) == 100
    assert "evaluation/150" not in stored.user_attrs
    assert "evaluation/100" in stored.user_attrs

    study = open_small_study(sampler="random", pruner="none")
    ask(study)
    for step, mae in ((50, 0.6), (100, 0.5), (150, 0.4)):
        study.report(number, make_evaluation(mae, step))
    stored = raw_trial(record_at(tmp_path / "record.db"), number)
    assert stored.intermediate_values[150] == 0.4
    assert "evaluation/150" in stored.user_attrs


def test_the_metric_of_the_study_is_the_one_that_is_minimised(
    open_small_study: OpenStudy, make_evaluation: MakeEvaluation
) -> None:
    study = open_small_study(sampler="random", pruner="none", metric="mase")
    number = ask(study).number
    study.report(number, make_evaluation(0.3))
    assert study.complete(number).value == 0.6


# Stopping early


def test_a_trial_at_its_last_evaluation_is_not_judged(
    open_small_study: OpenStudy, make_evaluation: MakeEvaluation
) -> None:
    study = open_small_study(sampler="random", first_rung_steps=300, reduction_factor=2)
    for mae in (0.1, 0.2, 0.9):
        number = ask(study).number
        assert not study.report(number, make_evaluation(mae, 250))
        assert not study.report(number, make_evaluation(mae, 300))
        assert study.complete(number).state is TrialState.COMPLETE


def test_a_trial_may_worsen_after_a_good_evaluation(
    open_small_study: OpenStudy, make_evaluation: MakeEvaluation
) -> None:
    study = open_small_study(sampler="random", first_rung_steps=100, reduction_factor=2)
    for mae in (0.5, 0.4):
        number = ask(study).number
        assert not study.report(number, make_evaluation(mae, 50))
        assert not study.report(number, make_evaluation(9.0, 100))  # judged by the best so far


def test_rung_marks_outlive_the_process(
    open_small_study: OpenStudy, make_evaluation: MakeEvaluation
) -> None:
    settings = {"sampler": "random", "first_rung_steps": 50, "reduction_factor": 2}
    study = open_small_study(**settings)
    for mae in (0.1, 0.2):
        study.report(ask(study).number, make_evaluation(mae, 50))
    study = open_small_study(**settings)
    ask(study), ask(study)
    assert study.report(ask(study).number, make_evaluation(0.15, 50))


# Outcomes


def test_a_complete_trials_value_is_its_final_evaluations(
    open_small_study: OpenStudy,
    make_evaluation: MakeEvaluation,
    tmp_path: Path,
    record_at: RecordAt,
) -> None:
    study = open_small_study(sampler="random", pruner="none")
    number = ask(study).number
    study.report(number, make_evaluation(0.2, 150, is_full=False))
    study.report(number, make_evaluation(0.3, 300, is_full=False))
    final = make_evaluation(0.25, 150)
    study.report_final(number, final)
    trial = study.complete(number)
    assert trial.state is TrialState.COMPLETE
    assert trial.value == 0.25
    assert trial.final is not None
    assert trial.final.evaluation == final
    assert [recorded.evaluation.step for recorded in trial.evaluations] == [150, 300]
    assert raw_trial(record_at(tmp_path / "record.db"), number).value == 0.25


def test_a_complete_trials_value_is_its_best_where_there_is_no_final_evaluation(
    open_small_study: OpenStudy, make_evaluation: MakeEvaluation
) -> None:
    study = open_small_study(sampler="random", pruner="none")
    number = ask(study).number
    for step, mae in ((100, 0.4), (200, 0.2), (300, 0.3)):
        study.report(number, make_evaluation(mae, step))
    assert study.complete(number).value == 0.2


def test_a_diverged_trial_is_pruned_without_a_value_and_the_sampler_goes_on(
    open_small_study: OpenStudy,
    make_evaluation: MakeEvaluation,
    loss_of: LossOf,
    tmp_path: Path,
    record_at: RecordAt,
) -> None:
    study = open_small_study(num_startup_trials=2)
    for _ in range(2):
        proposal = ask(study)
        trial = study.prune(proposal.number, "diverged by step 50")
        assert (trial.state, trial.value) == (TrialState.PRUNED, None)
        assert trial.reason == "diverged by step 50"
        assert raw_trial(record_at(tmp_path / "record.db"), trial.number).value is None
    proposal = ask(study)
    study.report(proposal.number, make_evaluation(loss_of(proposal.config, 50)))
    study.complete(proposal.number)
    ask(study)
    assert states(study) == ["pruned", "pruned", "complete", "running"]


def test_a_trial_stopped_early_shows_its_best_value_and_is_never_among_the_best(
    open_small_study: OpenStudy, make_evaluation: MakeEvaluation
) -> None:
    study = open_small_study(sampler="random", pruner="none")
    for mae in (0.3, 0.1, 0.2):
        number = ask(study).number
        study.report(number, make_evaluation(mae, 50))
        study.report(number, make_evaluation(mae + 1, 100))
        if mae == 0.1:
            assert study.prune(number, "stopped early at step 100").value == 0.1
        else:
            study.complete(number)
    assert study.best_numbers(5) == [2, 0]
    assert study.best_numbers(1) == [2]


def test_a_failed_trial_has_its_reason_and_traceback_in_the_record(
    open_small_study: OpenStudy,
) -> None:
    study = open_small_study(sampler="random")
    number = ask(study).number
    traceback = 'Traceback:\n  raise ValueError("rejected: é \x00 by the driver")'
    study.fail(number, "ValueError: no device", traceback)
    (trial,) = open_small_study(sampler="random").trials()
    assert (trial.state, trial.reason) == (TrialState.FAILED, "ValueError: no device")
    assert trial.traceback == traceback
    assert trial.ended_at is not None
    assert study.num_counted == 1


def test_an_outcome_that_was_not_told_is_told_by_the_rerun(
    open_small_study: OpenStudy, make_evaluation: MakeEvaluation
) -> None:
    study = open_small_study(sampler="random", pruner="none")
    number = ask(study).number
    study.report(number, make_evaluation(0.5, 300))
    for statements in (0, 1):  # before the outcome, and between it and the state
        with killed_at_statement(statements):
            study.fail(number, "RuntimeError: lost")
        study = open_small_study(sampler="random", pruner="none")
        assert states(study) == ["waiting"]
        assert ask(study).number == number
    trial = study.complete(number)
    assert (trial.state, trial.reason, trial.value) == (TrialState.COMPLETE, "", 0.5)


# Opening


def test_a_study_is_begun_once(
    tmp_path: Path, open_small_study: OpenStudy, make_space: MakeSpace
) -> None:
    study = open_small_study(name="load")
    study.note("facts", {"rows": 120})
    again = open_small_study(name="load")
    assert again.name == "load"
    assert again.attributes["facts"] == {"rows": 120}
    assert again.attributes["created_at"] == study.attributes["created_at"]


@pytest.mark.parametrize(
    ("identity", "difference"),
    [
        ({"space": {"width": {"low": 8}}}, "space.width.low was 4, now 8"),
        ({"data": "ffff"}, "data was 0123, now ffff"),
        ({"metric": "mse"}, "metric was mae, now mse"),
        ({"training": {"max_steps": 600}}, "training.max_steps was 300, now 600"),
        ({"seed": 1}, "seed was 0, now 1"),
        ({"more": 1}, "more was None, now 1"),
        ({"seed": 1, "metric": "mse"}, "metric was mae, now mse; seed was 0, now 1"),
    ],
)
@ON_FILES
def test_a_study_begun_with_other_settings_is_refused_with_the_difference(
    identity: dict[str, Any], difference: str, open_small_study: OpenStudy
) -> None:
    begun_with = {
        "metric": "mae",
        "data": "0123",
        "space": {"width": {"low": 4}},
        "training": {"max_steps": 300},
        "seed": 0,
    }
    open_small_study(identity=begun_with)
    message = rf"study study was begun with other settings: {difference}; put them back or choose"
    with pytest.raises(StudyMismatchError, match=message):
        open_small_study(identity=begun_with | identity)


def test_a_search_that_is_refused_leaves_the_study_as_it_was(open_small_study: OpenStudy) -> None:
    study = open_small_study(sampler="random")
    ask(study)
    with pytest.raises(StudyMismatchError, match="seed was None, now 1"):
        open_small_study(identity={"seed": 1})
    assert states(study) == ["running"]  # and not waiting, as after a resume


def test_trials_sampler_and_limits_may_change(open_small_study: OpenStudy) -> None:
    ask(open_small_study(trials=5, max_parameters=10**6))
    study = open_small_study(
        trials=9, sampler="random", max_parameters=10**5, time_budget="2h", num_kept_weights=3
    )
    assert study.settings.trials == 9


def test_two_studies_in_one_database_are_independent(open_small_study: OpenStudy) -> None:
    one = open_small_study(name="one", sampler="random")
    two = open_small_study(name="two", sampler="random", identity={"data": "other"})
    ask(one), ask(one)
    assert ask(two).number == 0
    assert (states(one), states(two)) == (["running"] * 2, ["running"])


def test_reading_a_study_gives_its_notes_and_trials_and_leaves_it_alone(
    open_small_study: OpenStudy,
    make_evaluation: MakeEvaluation,
    tmp_path: Path,
    record_at: RecordAt,
) -> None:
    study = open_small_study(sampler="random", pruner="none", metric="mse")
    study.note("state", "done")
    number = ask(study).number
    study.report(number, make_evaluation(0.5))
    study.complete(number)
    ask(study)
    before = contents(record_at(tmp_path / "record.db"))
    notes, trials = read_study(record_at(tmp_path / "record.db"), "study")
    assert notes["state"] == "done"
    assert trials == study.trials()
    assert trials[0].value == 0.25
    assert contents(record_at(tmp_path / "record.db")) == before


def test_reading_a_study_that_is_not_there_makes_no_file(tmp_path: Path) -> None:
    file = tmp_path / "studies" / "load.db"
    with pytest.raises(UnknownStudyError, match=rf"no study is named load: {file} is missing"):
        read_study(f"sqlite:///{file}", "load")
    assert list(tmp_path.iterdir()) == []


def test_reading_a_study_of_another_name_is_refused(
    open_small_study: OpenStudy, tmp_path: Path, record_at: RecordAt
) -> None:
    open_small_study()
    with pytest.raises(
        UnknownStudyError, match=r"no study is named load in (sqlite|postgresql):///?"
    ):
        read_study(record_at(tmp_path / "record.db"), "load")


def test_a_study_killed_while_it_was_begun_is_unknown_and_can_be_begun(
    open_small_study: OpenStudy, tmp_path: Path, record_at: RecordAt
) -> None:
    url = record_at(tmp_path / "record.db")
    optuna.create_study(study_name="study", storage=connectable(url))
    with pytest.raises(UnknownStudyError, match="no study is named study"):
        read_study(url, "study")
    assert ask(open_small_study(sampler="random")).number == 0


# Real ends of real processes


@pytest.mark.slow
def test_a_search_killed_at_random_moments_ends_as_one_that_was_left_alone(tmp_path: Path) -> None:
    # The order of a set of texts differs between processes of different hash seeds.
    with searches(tmp_path / "alone.db", hash_seed=1) as search_alone:
        assert search_alone(math.inf, math.inf) == 0
    expected = trials_in(tmp_path / "alone.db")
    assert sum(trial.state.counts for trial in expected) == NUM_TRIALS

    file, rng = tmp_path / "killed.db", random.Random(0)
    beginnings = [(0, 0.0), (0, 0.01), (0, 0.1)]
    moments = [(rng.randint(1, 5), rng.uniform(0, 0.02)) for _ in range(12)]
    known: list[TrialRecord] = []
    num_killed = 0
    with searches(file, hash_seed=2) as search_until:
        for evaluation, seconds in [*beginnings, *moments, (math.inf, math.inf)]:
            code = search_until(evaluation, seconds)
            assert code in (0, -9)
            num_killed += code == -9
            assert_whole(file)
            trials = trials_in(file)
            assert_consistent(trials, known)
            known = trials
            if code == 0:
                break
    assert num_killed >= 5
    assert list(map(timeless, known)) == list(map(timeless, expected))


NUM_TRIALS = 12


@contextmanager
def searches(file: Path, hash_seed: int) -> Iterator[Callable[[float, float], int]]:
    """Search in a process that is killed some seconds after an evaluation; return its exit code."""
    command = [sys.executable, HERE / "search_until_killed.py", str(file), str(NUM_TRIALS)]
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed), "PYTHONWARNINGS": "default"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def search_until(evaluation: float, seconds: float) -> int:
            process.stdin.write(f"{evaluation} {seconds}\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield search_until


def trials_in(file: Path) -> list[TrialRecord]:
    try:
        return read_study(f"sqlite:///{file}", "study")[1]
    except UnknownStudyError:
        return []  # killed before it was begun


def assert_whole(file: Path) -> None:
    if file.exists():
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def assert_consistent(trials: list[TrialRecord], known: list[TrialRecord]) -> None:
    assert [trial.number for trial in trials] == list(range(len(trials)))
    ended = [trial for trial in trials if trial.state not in ("running", "waiting")]
    assert len(trials) - len(ended) <= 1  # that search runs one trial at a time
    for old in known:
        new = trials[old.number]
        if old.state in ("running", "waiting"):
            assert set(old.evaluations) <= set(new.evaluations)
        else:
            assert new == old
    configs = [trial.config for trial in trials if trial.config is not None]
    assert len(configs) == len(set(configs))
