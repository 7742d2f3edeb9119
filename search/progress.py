"""What a person watches: a live screen in a terminal, one line a finished trial elsewhere."""

import importlib.util
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipelines.scores import BaselineScore
from search.config import Metric
from search.record import TrialRecord, TrialState, metric_of_errors
from search.screen import say

NUM_NOTICES = 3
"""How many of the last retries the live screen shows."""

METRIC_NAMES: dict[Metric, str] = {"mae": "MAE", "mse": "MSE", "rmse": "RMSE", "mase": "MASE"}


class Tally:
    """How a search stands; what both screens show."""

    def __init__(
        self,
        total: int,
        max_steps: int,
        metric: Metric,
        trials: Iterable[TrialRecord] = (),
        baselines: Iterable[BaselineScore] = (),
        lag_of_view: Callable[[], str | None] = lambda: None,
    ):
        """Begin with what the record holds already.

        Args:
            total: how many trials the study is to hold.
            max_steps: the longest training.
            metric: what is minimised.
            trials: those of the record.
            baselines: the forecasts to beat, where they are known.
            lag_of_view: since when and why MLflow is behind; None where it is not.
        """
        self.total = total
        self.max_steps = max_steps
        self.metric = metric
        self.outcomes: Counter[TrialState] = Counter()
        self.running: dict[int, TrialRecord] = {}
        self.best: TrialRecord | None = None
        self.baselines = list(baselines)
        self.baselines_missed = ""
        self.retries: deque[str] = deque(maxlen=NUM_NOTICES)
        self.lag_of_view = lag_of_view
        self._started = time.monotonic()
        for trial in trials:
            if trial.state.counts:
                self.count(trial)
        self._num_before = self.num_counted

    @property
    def num_counted(self) -> int:
        """Trials that count towards the total."""
        return sum(self.outcomes.values())

    def count(self, trial: TrialRecord) -> None:
        """Take an ended trial into account."""
        self.running.pop(trial.number, None)
        self.outcomes[trial.state] += 1
        if trial.state is not TrialState.COMPLETE:
            return
        assert trial.value is not None
        if self.best is None or self.best.value is None or trial.value < self.best.value:
            self.best = trial

    def retry(self, trial: TrialRecord) -> str:
        """Take into account that a trial is tried again; say so in a line."""
        if trial.state is TrialState.RUNNING:  # out of memory: it goes on with smaller batches
            self.running[trial.number] = trial
        else:
            self.running.pop(trial.number, None)
        line = f"trial {trial.number:03d}: {trial.retries[-1]}; tried again ({len(trial.retries)})"
        self.retries.append(line)
        return line

    def seconds_left(self) -> float | None:
        """Estimate from the trials of this run; None before the first."""
        num_ended = self.num_counted - self._num_before
        if num_ended <= 0:
            return None
        per_trial = (time.monotonic() - self._started) / num_ended
        return per_trial * max(0, self.total - self.num_counted)

    def counts_in_words(self) -> str:
        """`2 running · 10 complete · 5 pruned · 0 failed`."""
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)
        counts = [f"{self.outcomes[state]} {state}" for state in states]
        return " · ".join([f"{len(self.running)} running", *counts])

    def best_in_words(self) -> str:
        """The best trial so far, its value and its configuration."""
        if self.best is None or self.best.config is None:
            return "none yet"
        value = f"{METRIC_NAMES[self.metric]} {self.best.value:.4f}"
        return f"{value}  trial {self.best.number:03d}: {self.best.config.describe()}"

    def baselines_in_words(self) -> str:
        """The forecasts to beat, the best first."""
        if self.baselines:
            return baselines_in_words(self.baselines, self.metric)
        if self.baselines_missed:
            return f"unknown: {self.baselines_missed.splitlines()[-1]}"  # after its traceback
        return "being computed"

    def lag_in_words(self) -> str:
        """That MLflow is behind and why; empty where it is not."""
        lag = self.lag_of_view()
        return f"MLflow is behind {lag}; trials go on" if lag else ""


def baselines_in_words(baselines: Iterable[BaselineScore], metric: Metric) -> str:
    """`ridge 0.0794 · seasonal naive (24) 0.0891`, the best first."""
    scores = sorted((metric_of_errors(b.errors, metric), b.name) for b in baselines)
    return " · ".join(f"{name} {value:.4f}" for value, name in scores)


def format_seconds(seconds: float | None) -> str:
    """`1:02:03` or `2:03`; `?` for None."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class LineProgress:
    """One line a finished trial, for logs and pipes."""

    def __init__(self, console: Console, tally: Tally):
        """Print to `console`."""
        self._console = console
        self._tally = tally
        self._is_view_behind = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def on_start(self, trial: TrialRecord) -> None:
        """Note that a trial runs."""
        self._tally.running[trial.number] = trial
        self._look_at_view()

    def on_evaluation(self, trial: TrialRecord) -> None:
        """Nothing of the trial: a line is a finished one."""
        self._look_at_view()

    def on_retry(self, trial: TrialRecord) -> None:
        """Print that a trial is tried again, and why."""
        self._print(self._tally.retry(trial))

    def on_end(self, trial: TrialRecord) -> None:
        """Print the trial's line."""
        is_best_before = self._tally.best
        self._tally.count(trial)
        value = "–" if trial.value is None else f"{trial.value:.4f}"
        config = trial.config.describe() if trial.config else ""
        mark = "  best so far" if self._tally.best is not is_best_before else ""
        self._print(
            f"[{self._tally.num_counted}/{self._tally.total}] {trial.name}: "
            f"{trial.reason or trial.state} {METRIC_NAMES[self._tally.metric]} {value}  "
            f"{config}{mark}"
        )
        self._look_at_view()

    def on_baseline(self, baseline: BaselineScore) -> None:
        """Print one of the forecasts to beat."""
        self._tally.baselines.append(baseline)
        value = metric_of_errors(baseline.errors, self._tally.metric)
        self._print(f"to beat: {baseline.name} {METRIC_NAMES[self._tally.metric]} {value:.4f}")

    def on_baselines_missed(self, reason: str) -> None:
        """Print why there are no forecasts to beat."""
        self._tally.baselines_missed = reason
        self._print(f"to beat: {self._tally.baselines_in_words()}")

    def _look_at_view(self) -> None:
        """Print a line when MLflow falls behind, and one when it has caught up."""
        lag = self._tally.lag_in_words()
        if bool(lag) != self._is_view_behind:
            self._is_view_behind = bool(lag)
            self._print(lag or "MLflow has caught up")

    def _print(self, line: str) -> None:
        say(self._console, line)


class LiveProgress:
    """A screen that redraws itself, for terminals and notebooks."""

    def __init__(self, console: Console, tally: Tally):
        """Draw on `console`."""
        self._tally = tally
        self._live = Live(console=console, refresh_per_second=2, get_renderable=self._draw)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    def on_start(self, trial: TrialRecord) -> None:
        """Show the trial among the running ones."""
        self._tally.running[trial.number] = trial

    def on_evaluation(self, trial: TrialRecord) -> None:
        """Show the trial's latest evaluation."""
        self._tally.running[trial.number] = trial

    def on_retry(self, trial: TrialRecord) -> None:
        """Show that a trial is tried again, and why."""
        self._tally.retry(trial)

    def on_end(self, trial: TrialRecord) -> None:
        """Count the trial."""
        self._tally.count(trial)

    def on_baseline(self, baseline: BaselineScore) -> None:
        """Show one of the forecasts to beat."""
        self._tally.baselines.append(baseline)

    def on_baselines_missed(self, reason: str) -> None:
        """Show why there are no forecasts to beat."""
        self._tally.baselines_missed = reason

    def _draw(self) -> RenderableType:
        tally = self._tally
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            "search",
            ProgressBar(total=tally.total, completed=tally.num_counted, width=40),
            f"{tally.num_counted}/{tally.total} trials",
            f"{format_seconds(tally.seconds_left())} left",
        )
        facts = Table.grid(padding=(0, 1))
        facts.add_row("trials", tally.counts_in_words())
        facts.add_row("best", Text(tally.best_in_words(), style="bold green"))
        facts.add_row("to beat", Text(tally.baselines_in_words()))
        notices = [*tally.retries, *filter(None, [tally.lag_in_words()])]
        return Group(
            bar,
            facts,
            *(self._running_line(trial) for trial in tally.running.values()),
            *(_one_line(notice, "yellow") for notice in notices),
        )

    def _running_line(self, trial: TrialRecord) -> RenderableType:
        step = trial.evaluations[-1].evaluation.step if trial.evaluations else 0
        value = "" if trial.value is None else f"{trial.value:.4f}"
        config = trial.config.describe() if trial.config else ""
        return _one_line(
            f"  {trial.number:03d} step {step:>4}/{self._tally.max_steps} {value:>7} {config}",
            "dim",
        )


def _one_line(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def make_progress(console: Console, tally: Tally, is_quiet: bool) -> LineProgress | LiveProgress:
    """Return the screen that suits where the output goes."""
    if is_quiet:
        return LineProgress(Console(quiet=True), tally)
    has_widgets = importlib.util.find_spec("ipywidgets") is not None  # rich draws with them
    is_live = console.is_terminal or (console.is_jupyter and has_widgets)
    return LiveProgress(console, tally) if is_live else LineProgress(console, tally)
