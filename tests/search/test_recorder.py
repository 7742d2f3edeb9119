"""What trials report, in the record, on the disk and told, without Ray."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.scores import BaselineScore, Evaluation
from search.kept_weights import Files, KeptWeights
from search.record import TrialRecord, TrialState
from search.recorder import Recorder
from search.study import Study

pytestmark = pytest.mark.parametrize("record_at", ["sqlite", "postgresql"], indirect=True)

MakeEvaluation = Callable[..., Evaluation]

RAISED = """ray::TrialActor.train() (pid=17, ip=10.0.0.1)
  File "/code/search/executor.py", line 301, in step
    return self._next_result()
           ^^^^^^^^^^^^^^^^^^^
  File "/code/pipelines/scaling.py", line 51, in fit
    raise OSError(...)
OSError: [Errno 28] no space
left on the disk
"""
DIED = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: TrialActor\n\tpid: 17\n"
)

RAY_ENDED_IT = "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low\n"


@pytest.fixture
def desk(open_small_study: Callable[..., Study], tmp_path: Path) -> SimpleNamespace:
    """A recorder that keeps the weights of one trial; what it tells is noted."""
    study = open_small_study(num_kept_weights=1, pruner="median", num_startup_trials=50)
    told: list[Any] = []
    kept = KeptWeights(tmp_path / "kept")
    recorder = Recorder(study, kept, [Listener(told)], 30.0, 1, 5)
    return SimpleNamespace(study=study, kept=kept, recorder=recorder, told=told, folder=tmp_path)


def test_a_trial_is_recorded_from_start_to_end_and_each_step_is_told(
    desk: SimpleNamespace, make_evaluation: MakeEvaluation
) -> None:
    number = begin(desk)
    for step, value in ((50, 0.3), (100, 0.2)):
        assert not desk.recorder.evaluate(number, result(make_evaluation(value, step)))
    desk.recorder.finish(number, pruned=None)
    trial = desk.study.trial(number)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.2)
    assert trial.ran_on == {"host": "here", "pid": 17}
    assert desk.told == [("start", 0), ("evaluation", 0), ("evaluation", 0), ("end", 0)]


def test_the_final_evaluation_is_the_value_of_a_trial(
    desk: SimpleNamespace, make_evaluation: MakeEvaluation
) -> None:
    number = begin(desk)
    desk.recorder.evaluate(number, result(make_evaluation(0.2, 50, is_full=False)))
    assert not desk.recorder.evaluate(number, result(make_evaluation(0.25, 50), is_final=True))
    desk.recorder.finish(number, pruned=None)
    assert desk.study.trial(number).value == 0.25
    assert len(desk.study.trial(number).evaluations) == 1


def test_a_trial_that_diverged_is_pruned(desk: SimpleNamespace) -> None:
    number = begin(desk)
    desk.recorder.finish(number, pruned="diverged by step 50")
    trial = desk.study.trial(number)
    assert (trial.state, trial.reason) == (TrialState.PRUNED, "diverged by step 50")


def test_only_the_best_weights_stay(desk: SimpleNamespace, make_evaluation: MakeEvaluation) -> None:
    for value in (0.3, 0.2, 0.4):
        number = begin(desk)
        desk.recorder.evaluate(number, result(make_evaluation(value), weights=b"weights"))
        desk.recorder.finish(number, pruned=None)
    for _ in range(2):
        failing = begin(desk)
        desk.recorder.evaluate(failing, result(make_evaluation(0.1), weights=b"weights"))
        desk.recorder.fail(failing, RAISED)
    assert files(desk) == ["001.safetensors"]


def test_a_trial_that_is_stopped_leaves_no_weights(
    desk: SimpleNamespace, make_evaluation: MakeEvaluation
) -> None:
    for _ in range(5):
        number = begin(desk)
        desk.recorder.evaluate(number, result(make_evaluation(0.1)))
        desk.recorder.finish(number, pruned=None)
    number = begin(desk)
    assert desk.recorder.evaluate(number, result(make_evaluation(0.9), weights=b"weights"))
    assert desk.study.trial(number).reason == "stopped early at step 50"
    assert desk.told[-1] == ("end", number)
    assert files(desk) == []
    desk.recorder.finish(number, pruned=None)  # Tune tells the end of a stopped trial too
    assert desk.told[-1] == ("end", number)
    assert desk.told.count(("end", number)) == 1


def test_the_weights_of_trials_that_run_or_wait_stay(
    desk: SimpleNamespace, make_evaluation: MakeEvaluation
) -> None:
    best, running = begin(desk), begin(desk)
    desk.recorder.evaluate(running, result(make_evaluation(0.2), weights=b"running"))
    desk.recorder.evaluate(best, result(make_evaluation(0.1), weights=b"best"))
    desk.recorder.finish(best, pruned=None)
    assert files(desk) == ["000.safetensors", "001.safetensors"]
    desk.study.requeue_running()
    desk.recorder.clear_files()
    assert files(desk) == ["000.safetensors", "001.safetensors"]


@pytest.mark.parametrize(
    ("traceback", "reason"),
    [
        (RAISED, "OSError: [Errno 28] no space"),
        (DIED, "its worker process died: killed, out of memory, or its machine was lost"),
        (RAY_ENDED_IT, "out of memory: its machine had none left, so its worker process was ended"),
        ("", "its worker process died: killed, out of memory, or its machine was lost"),
    ],
)
def test_a_failed_trial_says_why_in_a_line_and_keeps_the_traceback(
    desk: SimpleNamespace, traceback: str, reason: str
) -> None:
    number = begin(desk)
    desk.recorder.fail(number, traceback)
    again = desk.study.trial(number)
    assert (again.state, again.reason) == (TrialState.WAITING, "")
    assert (again.retries, again.traceback) == ((reason,), traceback)
    assert desk.told[-1] == ("retry", number)
    assert begin(desk) == number
    desk.recorder.fail(number, "")
    trial = desk.study.trial(number)
    assert (trial.state, trial.retries) == (TrialState.FAILED, (reason,))
    assert trial.reason.startswith("its worker process died")
    assert desk.told[-1] == ("end", number)


def test_a_trial_that_is_tried_again_can_end_well(
    desk: SimpleNamespace, make_evaluation: MakeEvaluation
) -> None:
    number = begin(desk)
    before = desk.study.trial(number)
    desk.recorder.fail(number, DIED)
    assert begin(desk) == number
    desk.recorder.evaluate(number, result(make_evaluation(0.1)))
    desk.recorder.finish(number, pruned=None)
    after = desk.study.trial(number)
    assert (after.state, len(after.retries)) == (TrialState.COMPLETE, 1)
    assert (after.seed, after.params, after.started_at) == (
        before.seed,
        before.params,
        before.started_at,
    )


def test_retries_are_counted_over_the_resumes_of_a_study(
    desk: SimpleNamespace, open_small_study: Callable[..., Study]
) -> None:
    number = begin(desk)
    desk.recorder.fail(number, DIED)
    study = open_small_study(num_kept_weights=1, pruner="median", num_startup_trials=50)
    recorder = Recorder(study, desk.kept, [], 30.0, 1, 5)
    proposal = study.ask()
    assert proposal is not None
    recorder.start(proposal.number)
    recorder.fail(proposal.number, DIED)
    assert (proposal.number, study.trial(number).state) == (number, TrialState.FAILED)


def test_a_trial_that_goes_on_in_another_way_says_why_and_runs_on(desk: SimpleNamespace) -> None:
    number = begin(desk)
    desk.recorder.retry(number, "out of memory at batch size 64, now halved")
    trial = desk.study.trial(number)
    assert trial.state is TrialState.RUNNING
    assert trial.retries == ("out of memory at batch size 64, now halved",)
    assert desk.told[-1] == ("retry", number)


def test_a_state_is_kept_until_its_trial_ends_and_dropped_where_the_trial_raised(
    desk: SimpleNamespace, make_evaluation: MakeEvaluation
) -> None:
    raising, dying = begin(desk), begin(desk)
    for number in (raising, dying):
        desk.recorder.evaluate(number, result(make_evaluation(0.1), saved=b"state"))
    assert desk.kept.state_path(dying).read_bytes() == b"state"
    assert files(desk) == ["000.state", "001.state"]
    desk.recorder.fail(raising, RAISED)
    desk.recorder.fail(dying, DIED)
    assert files(desk) == ["001.state"]
    assert [begin(desk), begin(desk)] == [raising, dying]
    desk.recorder.finish(dying, pruned=None)
    assert files(desk) == []


def test_weights_are_on_disk_before_their_evaluation_is_recorded_and_a_state_after_it(
    desk: SimpleNamespace, make_evaluation: MakeEvaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[str], int]] = []
    report = desk.study.report

    def watched(number: int, evaluation: Evaluation) -> bool:
        seen.append((files(desk), len(desk.study.trial(number).evaluations)))
        return bool(report(number, evaluation))

    monkeypatch.setattr(desk.study, "report", watched)
    number = begin(desk)
    desk.recorder.evaluate(number, result(make_evaluation(0.1), weights=b"w", saved=b"s"))
    assert seen == [(["000.safetensors"], 0)]
    assert files(desk) == ["000.safetensors", "000.state"]


def test_a_trial_is_overdue_while_it_runs_longer_than_a_step_may_take(
    desk: SimpleNamespace, make_evaluation: MakeEvaluation
) -> None:
    recorder = Recorder(desk.study, desk.kept, [], -1.0, 0, 5)
    number = desk.study.ask().number
    assert recorder.overdue() == []
    recorder.start(number)
    assert recorder.overdue() == [number]
    recorder.evaluate(number, result(make_evaluation(0.1)))
    recorder.finish(number, pruned=None)
    assert recorder.overdue() == []
    begin(desk)
    assert desk.recorder.overdue() == []


def test_a_process_that_died_after_the_longest_step_was_hung(desk: SimpleNamespace) -> None:
    recorder = Recorder(desk.study, desk.kept, [], 0.0, 0, 5)
    number = desk.study.ask().number
    recorder.start(number)
    recorder.fail(number, DIED)
    reason = "hung: its worker process was ended after resources.max_step_seconds=0 without"
    assert desk.study.trial(number).reason.startswith(reason)


def test_all_is_hopeless_once_so_many_trials_in_a_row_have_failed(
    desk: SimpleNamespace, make_evaluation: MakeEvaluation
) -> None:
    recorder = Recorder(desk.study, desk.kept, [], 30.0, 1, 2)

    def trial(ends: Callable[[int], None]) -> bool:
        number = desk.study.ask().number
        recorder.start(number)
        ends(number)
        return recorder.is_hopeless

    def breaks(number: int) -> None:
        recorder.fail(number, RAISED)

    def completes(number: int) -> None:
        recorder.evaluate(number, result(make_evaluation(0.1)))
        recorder.finish(number, pruned=None)

    def diverges(number: int) -> None:
        recorder.finish(number, pruned="diverged by step 50")

    fails = [breaks, breaks]  # tried again once, it is the same trial
    seen = [trial(ends) for ends in (*fails, completes, *fails, diverges, *fails, *fails)]
    assert seen == [False] * 9 + [True]


def test_a_trial_that_ended_before_cannot_fail(
    desk: SimpleNamespace, make_evaluation: MakeEvaluation
) -> None:
    number = begin(desk)
    desk.recorder.evaluate(number, result(make_evaluation(0.1)))
    desk.recorder.finish(number, pruned=None)
    desk.recorder.fail(number, RAISED)
    assert desk.study.trial(number).state is TrialState.COMPLETE


def test_baselines_are_noted_and_told_and_their_absence_is_noted(
    desk: SimpleNamespace, make_evaluation: MakeEvaluation
) -> None:
    desk.recorder.score([BaselineScore("ridge", make_evaluation(0.1).errors, note="")])
    assert [plain["name"] for plain in desk.study.attributes["baselines"]] == ["ridge"]
    assert desk.told == [("baseline", "ridge")]
    desk.recorder.miss_baselines("OSError: the disk is full")
    assert desk.study.attributes["baselines_error"] == "OSError: the disk is full"
    assert desk.told[-1] == ("missed", "OSError: the disk is full")


class Listener:
    """Remembers what it is told."""

    def __init__(self, told: list[Any]):
        self._told = told

    def on_start(self, trial: TrialRecord) -> None:
        self._told.append(("start", trial.number))

    def on_evaluation(self, trial: TrialRecord) -> None:
        self._told.append(("evaluation", trial.number))

    def on_retry(self, trial: TrialRecord) -> None:
        self._told.append(("retry", trial.number))

    def on_end(self, trial: TrialRecord) -> None:
        self._told.append(("end", trial.number))

    def on_baseline(self, baseline: BaselineScore) -> None:
        self._told.append(("baseline", baseline.name))

    def on_baselines_missed(self, reason: str) -> None:
        self._told.append(("missed", reason))


def begin(desk: SimpleNamespace) -> int:
    number: int = desk.study.ask().number
    desk.recorder.start(number)
    return number


def result(
    evaluation: Evaluation,
    is_final: bool = False,
    weights: bytes | None = None,
    saved: bytes | None = None,
) -> dict[str, Any]:
    """What a worker reports."""
    return {
        "evaluation": json.dumps(evaluation.to_dict()),
        "is_final": is_final,
        "ran_on": json.dumps({"host": "here", "pid": 17}),
        "files": Files(weights, saved),
    }


def files(desk: SimpleNamespace) -> list[str]:
    return sorted(path.name for path in (desk.folder / "kept").glob("*"))
