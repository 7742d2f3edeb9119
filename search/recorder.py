"""What the trials report, brought into the record, onto the disk and to whoever listens."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pipelines.scores import BaselineScore, Evaluation
from search.kept_weights import KeptWeights
from search.record import TrialRecord, TrialState, baseline_to_plain
from search.study import Study


class Listener(Protocol):
    """Who is told what happens, in the driver's main thread: the screen, the view."""

    def on_start(self, trial: TrialRecord) -> None:
        """Learn that a trial runs."""

    def on_evaluation(self, trial: TrialRecord) -> None:
        """Learn that a trial has one evaluation more."""

    def on_retry(self, trial: TrialRecord) -> None:
        """Learn that a trial is tried again; why is the last of its `retries`."""

    def on_end(self, trial: TrialRecord) -> None:
        """Learn how a trial ended."""

    def on_baseline(self, baseline: BaselineScore) -> None:
        """Learn one of the forecasts to beat."""

    def on_baselines_missed(self, reason: str) -> None:
        """Learn that there are no forecasts to beat."""


class Recorder:
    """Writes what the trials report; no trial is told as ended before its weights are on disk."""

    def __init__(
        self,
        study: Study,
        kept: KeptWeights,
        listeners: Sequence[Listener],
        max_step_seconds: float,
        max_retries: int,
        max_failures_in_a_row: int,
    ):
        """Write to `study` and `kept`, and tell the listeners."""
        self._study = study
        self._kept = kept
        self._listeners = listeners
        self._max_step_seconds = max_step_seconds
        self._max_retries = max_retries
        self._max_failures_in_a_row = max_failures_in_a_row
        self._num_failures_in_a_row = 0
        self._heard_at: dict[int, float] = {}

    @property
    def is_hopeless(self) -> bool:
        """Whether so many trials have failed in a row that the others would."""
        return self._num_failures_in_a_row >= self._max_failures_in_a_row

    def start(self, number: int) -> None:
        """Record that a trial runs."""
        self._heard_at[number] = self._now()
        self._study.started(number)
        self._tell("on_start", self._study.trial(number))

    def evaluate(self, number: int, result: Mapping[str, Any]) -> bool:
        """Record an evaluation; return whether the trial is stopped with it."""
        self._heard_at[number] = self._now()
        evaluation, files = Evaluation.from_dict(json.loads(result["evaluation"])), result["files"]
        # Before the evaluation, so that no recorded best lacks its weights.
        if files.weights is not None:
            self._kept.write(number, files.weights)
        self._study.ran_on(number, json.loads(result["ran_on"]))
        if result["is_final"]:
            self._study.report_final(number, evaluation)
            return False
        is_stopped = self._study.report(number, evaluation)
        # After it: ahead of the record, a state would leave an evaluation out for ever.
        if files.saved is not None:
            self._kept.save_state(number, files.saved)
        self._tell("on_evaluation", self._study.trial(number))
        if is_stopped:
            self._end(self._study.prune(number, f"stopped early at step {evaluation.step}"))
        return is_stopped

    def retry(self, number: int, reason: str) -> None:
        """Record that a trial goes on in another way."""
        self._heard_at[number] = self._now()
        self._tell("on_retry", self._study.note_retry(number, reason))

    def finish(self, number: int, pruned: str | None) -> None:
        """Record the end of a trial that was not stopped by `evaluate`; `pruned`: why so."""
        if not self._study.is_running(number):
            return
        if pruned:
            self._end(self._study.prune(number, pruned))
        else:
            self._end(self._study.complete(number))

    def fail(self, number: int, traceback: str) -> None:
        """Record that a trial broke: it waits to be tried again, or has failed too often."""
        if not self._study.is_running(number):
            return
        # Ray ends a worker before the kernel would, and raises that in the driver.
        is_out_of_memory = "ray.exceptions.OutOfMemoryError" in traceback
        raised = None if is_out_of_memory else _raised(traceback)
        reason = raised or self._why_it_died(number, is_out_of_memory)
        if raised:
            self._kept.drop_state(number)  # which may be the cause
        if len(self._study.trial(number).retries) >= self._max_retries:
            self._end(self._study.fail(number, reason, traceback))
            return
        self._heard_at.pop(number, None)  # it may have died before it began
        self._study.note_retry(number, reason, traceback)
        self._tell("on_retry", self._study.requeue(number))

    def requeue_running(self) -> None:
        """Let the running trials wait, none of which is to blame."""
        self._heard_at.clear()
        self._study.requeue_running()

    def overdue(self) -> list[int]:
        """The running trials that have hung for too long."""
        latest = self._now() - self._max_step_seconds
        return [number for number, heard_at in self._heard_at.items() if heard_at < latest]

    def score(self, baselines: Sequence[BaselineScore]) -> None:
        """Record the forecasts to beat."""
        self._study.note("baselines", [baseline_to_plain(baseline) for baseline in baselines])
        for baseline in baselines:
            self._tell("on_baseline", baseline)

    def miss_baselines(self, error: str) -> None:
        """Record why there are no forecasts to beat."""
        self._study.note("baselines_error", error)
        self._tell("on_baselines_missed", error)

    def clear_files(self) -> None:
        """Delete the weights of all but the best trials and those that have not ended."""
        unended = self._study.unended_numbers
        best = self._study.best_numbers(self._study.settings.num_kept_weights)
        self._kept.keep_only(unended.union(best))
        self._kept.keep_only_states(unended)

    def _end(self, trial: TrialRecord) -> None:
        self._heard_at.pop(trial.number, None)
        is_failure = trial.state is TrialState.FAILED
        self._num_failures_in_a_row = self._num_failures_in_a_row + 1 if is_failure else 0
        self.clear_files()
        self._tell("on_end", trial)

    def _why_it_died(self, number: int, is_out_of_memory: bool) -> str:
        if is_out_of_memory:
            return "out of memory: its machine had none left, so its worker process was ended"
        now = self._now()
        if now - self._heard_at.get(number, now) >= self._max_step_seconds:
            limit = f"resources.max_step_seconds={self._max_step_seconds:g}"
            return f"hung: its worker process was ended after {limit} without an evaluation"
        return "its worker process died: killed, out of memory, or its machine was lost"

    def _now(self) -> float:
        # A trial that reported while the record's database was away has not hung.
        return time.monotonic() - self._study.seconds_away

    def _tell(self, event: str, news: TrialRecord | BaselineScore | str) -> None:
        for listener in self._listeners:
            getattr(listener, event)(news)


def _raised(traceback: str) -> str | None:
    """The exception that a traceback ends with, its first line; None where no code raised it."""
    _, has_frames, last_frame = traceback.rpartition('  File "')
    outside = (line for line in last_frame.splitlines()[1:] if line and not line[0].isspace())
    return next(outside, None) if has_frames else None
