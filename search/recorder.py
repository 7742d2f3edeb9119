"""What the trials report, brought into the record, onto the disk and to whoever listens."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from pipelines.baselines import BaselineScore
from pipelines.training import Evaluation
from search.kept_weights import KeptWeights
from search.record import TrialRecord, baseline_to_plain
from search.study import Study


class Listener(Protocol):
    """Who is told what happens, in the driver's main thread: the screen, the view."""

    def on_start(self, trial: TrialRecord) -> None:
        """Learn that a trial runs."""

    def on_evaluation(self, trial: TrialRecord) -> None:
        """Learn that a trial has one evaluation more."""

    def on_end(self, trial: TrialRecord) -> None:
        """Learn how a trial ended."""

    def on_baseline(self, baseline: BaselineScore) -> None:
        """Learn one of the forecasts to beat."""


class Recorder:
    """Writes what the trials report; no trial is told as ended before its weights are on disk."""

    def __init__(
        self,
        study: Study,
        kept: KeptWeights,
        listeners: Sequence[Listener],
        max_step_seconds: float,
        fetch_weights: Callable[[], Mapping[int, bytes]],
    ):
        """Write to `study` and `kept`; `fetch_weights` hands out what arrived, by trial."""
        self._study = study
        self._kept = kept
        self._listeners = listeners
        self._max_step_seconds = max_step_seconds
        self._fetch_weights = fetch_weights
        self._heard_at: dict[int, float] = {}

    def start(self, number: int) -> None:
        """Record that a trial runs."""
        self._heard_at[number] = time.monotonic()
        self._study.started(number)
        self._tell("on_start", self._study.trial(number))

    def evaluate(self, number: int, result: Mapping[str, Any]) -> bool:
        """Record an evaluation; return whether the trial is stopped with it."""
        self._heard_at[number] = time.monotonic()
        evaluation = Evaluation.from_dict(json.loads(result["evaluation"]))
        self._study.ran_on(number, json.loads(result["ran_on"]))
        if result["is_final"]:
            self._study.report_final(number, evaluation)
            return False
        is_stopped = self._study.report(number, evaluation)
        self._tell("on_evaluation", self._study.trial(number))
        if is_stopped:
            self._end(self._study.prune(number, f"stopped early at step {evaluation.step}"))
        return is_stopped

    def finish(self, number: int, diverged: str | None) -> None:
        """Record the end of a trial that was not stopped by `evaluate`."""
        if not self._study.is_running(number):
            return
        self.write_weights()
        if diverged:
            self._end(self._study.prune(number, diverged))
        else:
            self._end(self._study.complete(number))

    def fail(self, number: int, traceback: str) -> None:
        """Record that a trial broke."""
        if self._study.is_running(number):
            reason = _raised(traceback) or self._why_it_died(number)
            self._end(self._study.fail(number, reason, traceback))

    def score(self, baselines: Sequence[BaselineScore]) -> None:
        """Record the forecasts to beat."""
        self._study.note("baselines", [baseline_to_plain(baseline) for baseline in baselines])
        for baseline in baselines:
            self._tell("on_baseline", baseline)

    def miss_baselines(self, error: str) -> None:
        """Record why there are no forecasts to beat."""
        self._study.note("baselines_error", error)

    def write_weights(self) -> None:
        """Write the weights that have arrived."""
        for number, weights in self._fetch_weights().items():
            self._kept.write(number, weights)

    def keep_best_weights(self) -> None:
        """Delete the weights of all but the best and the running trials."""
        self.write_weights()  # what an ended trial sent must not arrive after the clearing
        best = self._study.best_numbers(self._study.settings.num_kept_weights)
        self._kept.keep_only(self._study.running_numbers.union(best))

    def _end(self, trial: TrialRecord) -> None:
        self.keep_best_weights()
        self._tell("on_end", trial)

    def _why_it_died(self, number: int) -> str:
        now = time.monotonic()
        if now - self._heard_at.get(number, now) >= self._max_step_seconds:
            limit = f"resources.max_step_seconds={self._max_step_seconds:g}"
            return f"hung: its worker process was ended after {limit} without an evaluation"
        return "its worker process died: killed, out of memory, or its machine was lost"

    def _tell(self, event: str, news: TrialRecord | BaselineScore) -> None:
        for listener in self._listeners:
            getattr(listener, event)(news)


def _raised(traceback: str) -> str | None:
    """The exception that a traceback ends with, its first line; None where no code raised it."""
    _, has_frames, last_frame = traceback.rpartition('  File "')
    outside = (line for line in last_frame.splitlines()[1:] if line and not line[0].isspace())
    return next(outside, None) if has_frames else None
