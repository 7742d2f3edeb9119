"""The view kept up to date while a search runs, in a thread or a process of its own."""

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Self

from pipelines.scores import BaselineScore
from search.kept_weights import KeptWeights
from search.projection import Snapshot, StudyFacts
from search.record import TrialRecord, TrialState

if TYPE_CHECKING:
    from search.tracking import View
    from search.view_process import RemoteView, ViewProcess

FLUSH_SECONDS = 3.0
BRIEF_SECONDS = 10.0
"""A trial that ends within them is shown once, ended: each time takes the driver some 15 ms."""
NUM_LAST_TRIES = 2
"""Once the search is over: turns in a row that may come to nothing."""
LAST_PATIENCE_SECONDS = 20.0
"""Once it is over: how long an MLflow that failed or kept still before may keep still again."""


@dataclass(frozen=True)
class Outage:
    """MLflow takes nothing."""

    since: float
    """When the first call was made that failed (seconds since 1970)."""
    reason: str
    """What is wrong with MLflow, in a few words."""

    def __str__(self) -> str:
        return f"since {time.strftime('%H:%M', time.localtime(self.since))} ({self.reason})"


@dataclass
class _Pending:
    trials: dict[int, TrialRecord] = field(default_factory=dict)
    baselines: list[BaselineScore] = field(default_factory=list)
    snapshot: Snapshot | None = None


class BackgroundView:
    """Keeps the view up to date; never touches the record.

    It is told what happens (`search.recorder.Listener`) and passes frozen trials on. An MLflow
    that fails is tried again at the next turn: it delays the view, never the search.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        facts: StudyFacts,
        is_verbose: bool = False,
        first_wait_seconds: float = 0.0,
        has_own_process: bool = False,
    ):
        """Start the thread; it connects by itself.

        Args:
            uri: MLflow server or store.
            experiment: its name.
            facts: what is shown of the study.
            is_verbose: let MLflow's own messages through.
            first_wait_seconds: how long the first evaluation is waited for. MLflow takes seconds of
                a core to load and to make its store, which would delay the first trials.
            has_own_process: whether MLflow is called in another process, where it takes nothing of
                this one's interpreter, for 4 s of a core and 0.2 GiB.
        """
        self._arguments = (uri, experiment, facts)
        self._is_verbose = is_verbose
        self._first_wait_seconds = first_wait_seconds
        self._has_evaluation = threading.Event()
        self._view: View | RemoteView | None = None
        self._process = _view_process() if has_own_process else None
        self._news: queue.SimpleQueue[TrialRecord | BaselineScore | Snapshot] = queue.SimpleQueue()
        self._pending = _Pending()
        self._progressed_at = time.monotonic()
        self._waits_since = math.inf
        self._is_given_up = threading.Event()
        self.outage: Outage | None = None
        """Why the view is behind, where it is."""
        self._thread = threading.Thread(target=self._run, name="mlflow-view", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_up()

    def lag(self) -> str | None:
        """`since 14:03 (connection refused)` where the view is behind."""
        return str(self.outage) if self.outage else None

    def on_start(self, trial: TrialRecord) -> None:
        """Show a running trial."""
        self._news.put(trial)

    def on_evaluation(self, trial: TrialRecord) -> None:
        """Show an evaluation more."""
        self._news.put(trial)
        self._has_evaluation.set()

    def on_retry(self, trial: TrialRecord) -> None:
        """Show that a trial is tried again, and why."""
        self._news.put(trial)

    def on_end(self, trial: TrialRecord) -> None:
        """Show how a trial ended."""
        self._news.put(trial)

    def on_baseline(self, baseline: BaselineScore) -> None:
        """Show one of the forecasts to beat."""
        self._news.put(baseline)

    def on_baselines_missed(self, reason: str) -> None:
        """Nothing: there are none to show."""

    def close(
        self, trials: Sequence[TrialRecord], state: str, kept: KeptWeights, timeout_seconds: float
    ) -> str | None:
        """Show what is left and the summary, within the timeout.

        An MLflow that has not answered lately is given up sooner, unless it takes things again.

        Returns:
            The experiment's id; None where MLflow did not take everything in time.
        """
        now = self._progressed_at = time.monotonic()
        is_silent = now - self._waits_since > LAST_PATIENCE_SECONDS
        self._news.put(Snapshot(trials, state, kept))
        self._has_evaluation.set()
        while self._thread.is_alive():
            is_brief = is_silent or self.outage is not None
            until = self._progressed_at + LAST_PATIENCE_SECONDS if is_brief else math.inf
            left = min(until, now + timeout_seconds) - time.monotonic()
            if left <= 0:
                break
            self._thread.join(min(left, 1.0))
        is_whole = not self._thread.is_alive() and self.outage is None
        # What is left is for a sync, which must not meet this thread.
        self.give_up(is_patient=is_whole)
        return self._view.experiment_id if is_whole and self._view is not None else None

    def give_up(self, *, is_patient: bool = False) -> None:
        """Show nothing more, whatever is left; be patient with a process that has no more to do."""
        self._is_given_up.set()
        self._has_evaluation.set()
        if self._process is not None:
            self._process.end(is_patient=is_patient)

    def _run(self) -> None:
        self._has_evaluation.wait(self._first_wait_seconds)
        self._show_or_note_outage()  # connects
        num_fruitless = 0
        while num_fruitless < NUM_LAST_TRIES and not self._is_given_up.is_set():
            self._gather(until=time.monotonic() + FLUSH_SECONDS)
            began, is_over = time.monotonic(), self._pending.snapshot is not None
            if self._show_or_note_outage() and is_over:
                return
            is_fruitless = self._progressed_at < began
            num_fruitless = num_fruitless + 1 if is_over and is_fruitless else 0

    def _gather(self, until: float) -> None:
        """Collect news for a while, the latest of each trial."""
        while (left := until - time.monotonic()) > 0:
            try:
                news = self._news.get(timeout=left)
            except queue.Empty:
                return
            match news:
                case TrialRecord():
                    self._pending.trials[news.number] = news
                case BaselineScore():
                    self._pending.baselines.append(news)
                case Snapshot():
                    self._pending.snapshot = news
                    return  # the last of all news

    def _show_or_note_outage(self) -> bool:
        """Show all that is pending; return whether MLflow took it."""
        began = time.time()
        try:
            for show in self._what_is_left():
                if self._is_given_up.is_set():
                    return False
                self._waits_since = time.monotonic()
                show()
                self._progressed_at = time.monotonic()
        except Exception as error:  # whatever MLflow raises, the search must not notice
            if self._is_given_up.is_set():
                return False
            self.outage = Outage(self.outage.since if self.outage else began, _reason(error))
            self._view = None  # what it knows of the runs may be wrong: read them again
            return False
        finally:
            self._waits_since = math.inf
        self.outage = None
        return True

    def _what_is_left(self) -> Iterator[Callable[[], None]]:
        """Small steps, each one pending until it has been made."""
        if self._view is None:
            yield self._connect
        view, pending = self._view, self._pending
        assert view is not None
        for number, trial in list(pending.trials.items()):
            if _is_brief_yet(trial) and pending.snapshot is None:
                continue
            yield partial(view.show_trials, [trial])
            del pending.trials[number]
        if pending.baselines:
            yield partial(view.show_baselines, pending.baselines)
            pending.baselines.clear()
        if pending.snapshot is not None:
            # One by one, although `show_all` would: each is a sign of life.
            yield from (partial(view.show_trials, [trial]) for trial in pending.snapshot.trials)
            yield partial(view.show_all, pending.snapshot)

    def _connect(self) -> None:
        connect = self._process.connect if self._process is not None else _connect_here
        view = connect(*self._arguments, self._is_verbose)
        view.mark_running()
        self._view = view


# Whichever is not asked for is not loaded: MLflow takes seconds.


def _connect_here(uri: str, experiment: str, facts: StudyFacts, is_verbose: bool) -> "View":
    from search.tracking import connect

    return connect(uri, experiment, facts, is_verbose)


def _view_process() -> "ViewProcess":
    from search.view_process import ViewProcess

    return ViewProcess()


def _reason(error: Exception) -> str:
    from search.view_process import ViewProcessError

    if isinstance(error, ViewProcessError):
        return str(error)
    from search.mlflow_store import why

    return why(error)


def _is_brief_yet(trial: TrialRecord) -> bool:
    began = trial.started_at or 0.0
    return trial.state is TrialState.RUNNING and time.time() - began < BRIEF_SECONDS
