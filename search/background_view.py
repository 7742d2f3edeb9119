"""The view kept up to date while a search runs, in a thread of its own."""

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines.baselines import BaselineScore
from search.kept_weights import KeptWeights
from search.projection import Snapshot, StudyFacts
from search.record import TrialRecord
from search.tracking import View

FLUSH_SECONDS = 3.0


@dataclass
class _Pending:
    trials: dict[int, TrialRecord] = field(default_factory=dict)
    baselines: list[BaselineScore] = field(default_factory=list)
    snapshot: Snapshot | None = None


class BackgroundView:
    """Keeps the view up to date; never touches the record.

    It is told what happens (`search.executor.Listener`) and passes frozen trials on. An MLflow
    that fails is tried again at the next turn: it delays the view, never the search.
    """

    def __init__(self, uri: str, experiment: str, facts: StudyFacts):
        """Start the thread; it connects by itself."""
        self._arguments = (uri, experiment, facts)
        self._view: View | None = None
        self._news: queue.SimpleQueue[TrialRecord | BaselineScore | Snapshot] = queue.SimpleQueue()
        self._pending = _Pending()
        self.error: Exception | None = None
        """Why the view is behind, where it is."""
        self.seconds = 0.0
        """Time that the thread has spent on MLflow."""
        self._thread = threading.Thread(target=self._run, name="mlflow-view", daemon=True)
        self._thread.start()

    def on_start(self, trial: TrialRecord) -> None:
        """Show a running trial."""
        self._news.put(trial)

    def on_evaluation(self, trial: TrialRecord) -> None:
        """Show an evaluation more."""
        self._news.put(trial)

    def on_end(self, trial: TrialRecord) -> None:
        """Show how a trial ended."""
        self._news.put(trial)

    def on_baseline(self, baseline: BaselineScore) -> None:
        """Show one of the forecasts to beat."""
        self._news.put(baseline)

    def close(
        self, trials: Sequence[TrialRecord], state: str, kept: KeptWeights, timeout_seconds: float
    ) -> str | None:
        """Show what is left and the summary; tried once, within the timeout.

        Returns:
            The experiment's id; None where MLflow did not take everything in time.
        """
        self._news.put(Snapshot(trials, state, kept))
        self._thread.join(timeout_seconds)
        if self._thread.is_alive() or self.error is not None or self._view is None:
            return None
        return self._view.experiment_id

    def _run(self) -> None:
        while self._pending.snapshot is None:
            self._gather(until=time.monotonic() + FLUSH_SECONDS)
            started = time.monotonic()
            try:
                self._flush()
                self.error = None
            except Exception as error:  # whatever MLflow raises, the search must not notice
                self.error = error
                self._view = None  # what it knows of the runs may be wrong: read them again
            self.seconds += time.monotonic() - started

    def _gather(self, until: float) -> None:
        """Collect news for a while, the latest of each trial."""
        while self._pending.snapshot is None and (left := until - time.monotonic()) > 0:
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

    def _flush(self) -> None:
        view = self._view = self._view or self._connect()
        for number, trial in list(self._pending.trials.items()):
            view.show_trials([trial])
            del self._pending.trials[number]
        if self._pending.baselines:
            view.show_baselines(self._pending.baselines)
            self._pending.baselines.clear()
        if self._pending.snapshot is not None:
            view.show_all(self._pending.snapshot)

    def _connect(self) -> View:
        view = View(*self._arguments)
        view.mark_running()
        return view
