"""Each check passes a study that is whole and catches what was planted in one."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import pytest

from benchmarks.invariants import (
    Ledger,
    Violation,
    check_count,
    check_file,
    check_none_runs,
    check_proposals,
    check_view,
    check_weights,
    copy_at_rest,
    copy_live,
    running_since,
)
from search.record import TrialRecord, TrialState
from search.stored_studies import UnknownStudyError, read_study
from search.study import Study

if TYPE_CHECKING:
    from conftest import Finished


pytestmark = pytest.mark.slow  # whole records are copied, opened and replayed


def change(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        for statement in statements:
            assert database.execute(statement).rowcount > 0, statement


def tells(found: list[Violation], kind: str, words: str) -> bool:
    return any(violation.kind == kind and words in violation.what for violation in found)


# Trials and values


def test_a_study_that_is_whole_passes_every_check_of_its_record(finished: "Finished") -> None:
    config, trials = finished.copied()
    states = [str(trial.state) for trial in trials]
    complete = "complete"
    assert states == [complete, complete, complete, "pruned", "failed", complete, "waiting"]
    ledger = Ledger()
    assert ledger.compare(trials) == []
    assert ledger.compare(finished.trials) == []
    assert check_file(finished.record) == []
    assert check_count(trials, 7, is_done=False) == []
    assert check_none_runs(running_since(finished.record)) == []
    scratch = finished.home / "scratch"
    scratch.mkdir()
    assert check_proposals(config, finished.data, trials, scratch) == []
    assert check_weights(finished.weights_folder, config, finished.data, trials) == []


def test_a_changed_value_of_an_ended_trial_is_caught(finished: "Finished") -> None:
    ledger = Ledger()
    ledger.compare(finished.trials)
    change(finished.record, "UPDATE trial_values SET value = value + 1e-9 WHERE trial_id = 2")
    assert tells(ledger.compare(finished.trials), "value", "trial 1, ended, was")


def test_an_evaluation_that_vanished_from_an_interrupted_trial_is_caught(
    finished: "Finished",
) -> None:
    ledger = Ledger()
    ledger.compare(finished.trials)
    evaluation = "key LIKE 'evaluation/%' AND trial_id = 7"
    change(finished.record, f"DELETE FROM trial_user_attributes WHERE {evaluation}")
    assert tells(ledger.compare(finished.trials), "value", "trial 6 lost the evaluation")


def test_an_interrupted_trial_with_another_seed_or_other_parameters_is_caught(
    finished: "Finished",
) -> None:
    ledger = Ledger()
    ledger.compare(finished.trials)
    change(
        finished.record,
        "UPDATE trial_user_attributes SET value_json = '1' WHERE key = 'seed' AND trial_id = 7",
        "UPDATE trial_params SET param_value = 0.001 "
        "WHERE param_name = 'learning_rate' AND trial_id = 7",
    )
    found = ledger.compare(finished.trials)
    assert tells(found, "trial", "trial 6: seed were")
    assert tells(found, "trial", "trial 6: params were")


def test_a_trial_that_vanished_is_caught(finished: "Finished") -> None:
    ledger = Ledger()
    ledger.compare(finished.trials)
    assert tells(ledger.compare(finished.trials[:-1]), "trial", "trial 6 vanished")


def test_an_interrupted_trial_may_go_on_and_end(finished: "Finished") -> None:
    ledger = Ledger()
    trials = finished.trials
    ledger.compare(trials)
    ended = replace(trials[6], state=TrialState.PRUNED, reason="diverged by step 4")
    assert ledger.compare([*trials[:6], ended]) == []


def test_a_trial_too_many_or_too_few_is_caught(finished: "Finished") -> None:
    trials = finished.trials
    assert tells(check_count(trials, 5, is_done=False), "trial", "5 trials were asked for: 6")
    assert tells(check_count(trials, 7, is_done=True), "trial", "7 trials were asked for: 6")
    assert tells(check_count(trials[1:], 7, is_done=False), "trial", "gaps or doubles")


def test_a_trial_left_running_is_caught(finished: "Finished") -> None:
    change(finished.record, "UPDATE trials SET state = 'RUNNING' WHERE number = 6")
    [left] = check_none_runs(running_since(finished.record))
    assert left.what.startswith("running where no search runs: trials [(6, ")


def test_a_damaged_record_is_caught(finished: "Finished") -> None:
    finished.trials  # noqa: B018 - nothing is left beside the file once it was read
    content = bytearray(finished.record.read_bytes())
    page = 4096
    content[page : 3 * page] = bytes(2 * page)
    finished.record.write_bytes(content)
    assert tells(check_file(finished.record), "trial", "damaged")


# Copies


def test_a_live_copy_holds_what_was_written_last(finished: "Finished", tmp_path: Path) -> None:
    with closing(sqlite3.connect(finished.record)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("UPDATE trials SET state = 'RUNNING' WHERE number = 6")
        writer.commit()  # into the log beside the file
        assert copy_live(finished.home, "small", tmp_path / "copy")
        _, trials = read_study(f"sqlite:///{tmp_path}/copy/studies/small.db", "small")
    assert trials[6].state is TrialState.RUNNING


def test_copying_a_record_leaves_it_as_it_is(finished: "Finished", tmp_path: Path) -> None:
    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in finished.record.parent.glob("small.db*")}

    before = files()
    copy_at_rest(finished.home, "small", tmp_path / "copy")
    assert files() == before


def test_a_record_that_is_not_there_yet_cannot_be_copied(tmp_path: Path) -> None:
    assert not copy_live(tmp_path, "small", tmp_path / "live")
    copy_at_rest(tmp_path, "small", tmp_path / "copy")
    with pytest.raises(UnknownStudyError, match="small"):
        read_study(f"sqlite:///{tmp_path}/copy/studies/small.db", "small")


# Proposals


def test_a_sampler_that_does_not_follow_from_the_record_is_caught(
    finished: "Finished", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, trials = finished.copied()
    monkeypatch.setattr(Study, "_sampler", lambda _: optuna.samplers.RandomSampler())
    found = check_proposals(config, finished.data, trials, tmp_path)
    assert tells(found, "proposal", "never interrupted")


def test_an_interrupted_trial_that_comes_back_with_another_seed_is_caught(
    finished: "Finished", tmp_path: Path
) -> None:
    change(
        finished.record,
        "UPDATE trial_user_attributes SET value_json = '1' WHERE key = 'seed' AND trial_id = 7",
    )
    config, trials = finished.copied()
    found = check_proposals(config, finished.data, trials, tmp_path)
    assert tells(found, "proposal", "trial 6 is")


# The weights


def test_another_trials_weights_are_caught(finished: "Finished") -> None:
    kept = finished.weights
    shutil.copy(kept.path(0), kept.path(1))
    config, trials = finished.copied()
    found = check_weights(finished.weights_folder, config, finished.data, trials)
    assert tells(found, "weights", "001.safetensors gives")
    assert len(found) == 1


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize(
    ("harm", "words"), [(Path.unlink, "trial 5 has none"), (spoil, "005.safetensors")]
)
def test_missing_and_cut_weights_are_caught(
    harm: Callable[[Path], None], words: str, finished: "Finished"
) -> None:
    harm(finished.weights.path(5))
    config, trials = finished.copied()
    found = check_weights(finished.weights_folder, config, finished.data, trials)
    assert tells(found, "weights", words)


# The view

OF_TRIAL_1 = "run_uuid = (SELECT run_uuid FROM tags WHERE key = 'trial' AND value = '1')"


def test_a_view_that_is_whole_passes(
    view: Path, uid: str, finished_trials: list[TrialRecord]
) -> None:
    assert check_view(view, uid, finished_trials) == []


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (
            f"DELETE FROM metrics WHERE key = 'val_mae' AND step = 4 AND {OF_TRIAL_1}",
            "trial 1: MLflow lacks [('val_mae', 4",
        ),
        (
            "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) SELECT key, value,"
            f" timestamp + 1, run_uuid, step, is_nan FROM metrics WHERE {OF_TRIAL_1}"
            " AND key = 'val_mae' AND step = 2",
            "trial 1: MLflow holds [('val_mae', 2",
        ),
        (
            f"UPDATE metrics SET value = 7 WHERE key = 'train_loss' AND {OF_TRIAL_1}",
            "trial 1: MLflow lacks [('train_loss', 2",
        ),
        (
            f"UPDATE runs SET lifecycle_stage = 'deleted' WHERE {OF_TRIAL_1}",
            "no run of trial 1",
        ),
        (
            f"UPDATE runs SET status = 'RUNNING' WHERE {OF_TRIAL_1}",
            "trial 1 is complete and MLflow shows RUNNING",
        ),
        ("DELETE FROM tags WHERE key = 'study_uid'", "no run of the study"),
    ],
)
def test_what_the_view_lacks_or_holds_too_often_is_caught(
    statement: str, words: str, view: Path, uid: str, finished_trials: list[TrialRecord]
) -> None:
    change(view, statement)
    assert tells(check_view(view, uid, finished_trials), "view", words)


def test_a_doubled_run_is_caught(view: Path, uid: str, finished_trials: list[TrialRecord]) -> None:
    with closing(sqlite3.connect(view)) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(runs)")][1:]
    names = ", ".join(columns)
    change(
        view,
        f"INSERT INTO runs (run_uuid, {names}) SELECT 'twin', {names} FROM runs WHERE {OF_TRIAL_1}",
        "INSERT INTO tags (key, value, run_uuid) SELECT key, value, 'twin' FROM tags "
        f"WHERE {OF_TRIAL_1}",
    )
    assert tells(check_view(view, uid, finished_trials), "view", "2 runs of trial 1")
