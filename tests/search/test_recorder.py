"""What trials report, in the record, on the disk and told, without Ray."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.baselines import BaselineScore
from pipelines.training import Evaluation
from search.kept_weights import KeptWeights
from search.record import TrialRecord, TrialState
from search.recorder import Recorder
from search.study import Study

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


@pytest.fixture
def desk(open_small_study: Callable[..., Study], tmp_path: Path) -> SimpleNamespace:
    """A recorder that keeps the weights of one trial; its letters are what has arrived."""
    study = open_small_study(num_kept_weights=1, pruner="median", num_startup_trials=50)
    letters: dict[int, bytes] = {}
    told: list[Any] = []

    def fetch() -> dict[int, bytes]:
        arrived = dict(letters)
        letters.clear()
        return arrived

    kept = KeptWeights(tmp_path / "kept")
    recorder = Recorder(study, kept, [Listener(told)], 30.0, fetch)
    return SimpleNamespace(
        study=study, kept=kept, recorder=recorder, letters=letters, told=told, folder=tmp_path
    )


def test_a_trial_is_recorded_from_start_to_end_and_each_step_is_told(
    desk: SimpleNamespace, make_evaluation: MakeEvaluation
) -> None:
    number = begin(desk)
    for step, value in ((50, 0.3), (100, 0.2)):
        assert not desk.recorder.evaluate(number, result(make_evaluation(value, step)))
    desk.recorder.finish(number, diverged=None)
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
    desk.recorder.finish(number, diverged=None)
    assert desk.study.trial(number).value == 0.25
    assert len(desk.study.trial(number).evaluations) == 1


def test_a_trial_that_diverged_is_pruned(desk: SimpleNamespace) -> None:
    number = begin(desk)
    desk.recorder.finish(number, diverged="diverged by step 50")
    trial = desk.study.trial(number)
    assert (trial.state, trial.reason) == (TrialState.PRUNED, "diverged by step 50")


def test_only_the_best_weights_stay_even_those_that_come_with_the_end_go(
    desk: SimpleNamespace, make_evaluation: MakeEvaluation
) -> None:
    for value in (0.3, 0.2, 0.4):
        number = begin(desk)
        desk.letters[number] = b"weights"
        desk.recorder.evaluate(number, result(make_evaluation(value)))
        desk.recorder.finish(number, diverged=None)
    failing = begin(desk)
    desk.letters[failing] = b"weights"
    desk.recorder.fail(failing, RAISED)
    assert files(desk) == ["001.safetensors"]


def test_a_trial_that_is_stopped_leaves_no_weights(
    desk: SimpleNamespace, make_evaluation: MakeEvaluation
) -> None:
    for _ in range(5):
        number = begin(desk)
        desk.recorder.evaluate(number, result(make_evaluation(0.1)))
        desk.recorder.finish(number, diverged=None)
    number = begin(desk)
    desk.letters[number] = b"weights"
    assert desk.recorder.evaluate(number, result(make_evaluation(0.9)))
    assert desk.study.trial(number).reason == "stopped early at step 50"
    assert desk.told[-1] == ("end", number)
    assert files(desk) == []
    desk.recorder.finish(number, diverged=None)  # Tune tells the end of a stopped trial too
    assert desk.told[-1] == ("end", number)
    assert desk.told.count(("end", number)) == 1


def test_the_weights_of_running_trials_stay(
    desk: SimpleNamespace, make_evaluation: MakeEvaluation
) -> None:
    best, running = begin(desk), begin(desk)
    desk.letters |= {best: b"best", running: b"running"}
    desk.recorder.evaluate(best, result(make_evaluation(0.1)))
    desk.recorder.finish(best, diverged=None)
    assert files(desk) == ["000.safetensors", "001.safetensors"]
    desk.study.requeue_running()
    desk.recorder.keep_best_weights()
    assert files(desk) == ["000.safetensors"]


@pytest.mark.parametrize(
    ("traceback", "reason"),
    [
        (RAISED, "OSError: [Errno 28] no space"),
        (DIED, "its worker process died: killed, out of memory, or its machine was lost"),
        ("", "its worker process died: killed, out of memory, or its machine was lost"),
    ],
)
def test_a_failed_trial_says_why_in_a_line_and_keeps_the_traceback(
    desk: SimpleNamespace, traceback: str, reason: str
) -> None:
    number = begin(desk)
    desk.recorder.fail(number, traceback)
    trial = desk.study.trial(number)
    assert (trial.state, trial.reason) == (TrialState.FAILED, reason)
    assert trial.traceback == traceback


def test_a_process_that_died_after_the_longest_step_was_hung(desk: SimpleNamespace) -> None:
    recorder = Recorder(desk.study, desk.kept, [], 0.0, dict)
    number = desk.study.ask().number
    recorder.start(number)
    recorder.fail(number, DIED)
    reason = "hung: its worker process was ended after resources.max_step_seconds=0 without"
    assert desk.study.trial(number).reason.startswith(reason)


def test_a_trial_that_ended_before_cannot_fail(
    desk: SimpleNamespace, make_evaluation: MakeEvaluation
) -> None:
    number = begin(desk)
    desk.recorder.evaluate(number, result(make_evaluation(0.1)))
    desk.recorder.finish(number, diverged=None)
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


class Listener:
    """Remembers what it is told."""

    def __init__(self, told: list[Any]):
        self._told = told

    def on_start(self, trial: TrialRecord) -> None:
        self._told.append(("start", trial.number))

    def on_evaluation(self, trial: TrialRecord) -> None:
        self._told.append(("evaluation", trial.number))

    def on_end(self, trial: TrialRecord) -> None:
        self._told.append(("end", trial.number))

    def on_baseline(self, baseline: BaselineScore) -> None:
        self._told.append(("baseline", baseline.name))


def begin(desk: SimpleNamespace) -> int:
    number: int = desk.study.ask().number
    desk.recorder.start(number)
    return number


def result(evaluation: Evaluation, is_final: bool = False) -> dict[str, Any]:
    """What a worker reports."""
    return {
        "evaluation": json.dumps(evaluation.to_dict()),
        "is_final": is_final,
        "ran_on": json.dumps({"host": "here", "pid": 17}),
    }


def files(desk: SimpleNamespace) -> list[str]:
    return sorted(path.name for path in (desk.folder / "kept").glob("*"))
