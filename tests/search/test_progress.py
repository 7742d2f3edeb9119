"""What a person watches: the rendered text for given trials."""

import io
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from models.config import LSTMConfig
from pipelines.scores import BaselineScore, Evaluation
from pipelines.training_config import TrainConfig
from search.progress import LineProgress, LiveProgress, Tally, format_seconds, make_progress
from search.record import RecordedEvaluation, TrialRecord, TrialState
from search.space import TrialConfig

MakeTrial = Callable[..., TrialRecord]
MakeBaseline = Callable[..., BaselineScore]
COMPLETE, PRUNED, FAILED = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED
RUNNING, REJECTED, WAITING = TrialState.RUNNING, TrialState.REJECTED, TrialState.WAITING


@pytest.fixture
def make_trial(make_evaluation: Callable[..., Evaluation]) -> MakeTrial:
    def make(number: int, state: TrialState, value: float | None = None, **more: Any) -> Any:
        steps = more.pop("steps", (50,) if value is not None else ())
        evaluations = tuple(RecordedEvaluation(make_evaluation(value, s), 0.0) for s in steps)
        fields: dict[str, Any] = {"params": {}, "evaluations": evaluations, "value": value}
        config = small_config(more.pop("widths", (64,)), more.pop("bidirectional", False))
        return TrialRecord(number, state, config, seed=0, **(fields | more))

    return make


@pytest.fixture
def make_baseline(make_evaluation: Callable[..., Evaluation]) -> MakeBaseline:
    return lambda name, value: BaselineScore(name, make_evaluation(value).errors, note="")


def test_trials_are_counted_by_their_outcome(make_trial: MakeTrial) -> None:
    tally = Tally(10, 200, "mae", [make_trial(0, COMPLETE, 0.2), make_trial(1, REJECTED)])
    tally.running[5] = make_trial(5, RUNNING)
    for number, state in ((2, PRUNED), (3, PRUNED), (4, FAILED), (5, COMPLETE)):
        tally.running[6] = make_trial(6, RUNNING)
        tally.count(make_trial(number, state, 0.3))
    assert tally.num_counted == 5
    assert tally.counts_in_words() == "1 running · 2 complete · 2 pruned · 1 failed"


def test_the_best_is_the_lowest_of_the_complete_trials_in_words(make_trial: MakeTrial) -> None:
    tally = Tally(10, 200, "mae", [make_trial(0, COMPLETE, 0.2)])
    assert tally.best_in_words() == "MAE 0.2000  trial 000: 1 layer 64, lookback 96"
    tally.count(make_trial(1, PRUNED, 0.1))
    tally.count(make_trial(2, COMPLETE, 0.3))
    assert tally.best_in_words().startswith("MAE 0.2000")
    tally.count(make_trial(3, COMPLETE, 0.15, widths=(64, 128), bidirectional=True))
    best = "MAE 0.1500  trial 003: 2 layers 64→128, bidirectional, lookback 96"
    assert tally.best_in_words() == best


def test_before_the_first_trial_there_is_no_best() -> None:
    assert Tally(10, 200, "mae", []).best_in_words() == "none yet"


@pytest.mark.parametrize(
    ("metric", "shown"),
    [("mae", "0.1000"), ("mse", "0.0100"), ("rmse", "0.1000"), ("mase", "0.2000")],
)
def test_baselines_are_shown_by_the_metric_of_the_search_the_best_first(
    make_baseline: MakeBaseline, metric: Any, shown: str
) -> None:
    tally = Tally(10, 200, metric, [])
    assert tally.baselines_in_words() == "being computed"
    tally.baselines += [make_baseline("persistence", 0.5), make_baseline("ridge", 0.1)]
    assert tally.baselines_in_words().startswith(f"ridge {shown} · persistence ")


def test_the_time_left_is_unknown_before_the_first_trial_of_this_run_has_ended(
    make_trial: MakeTrial,
) -> None:
    tally = Tally(10, 200, "mae", [make_trial(0, COMPLETE, 0.2)])
    assert tally.seconds_left() is None
    tally.running[1] = make_trial(1, RUNNING)
    assert tally.seconds_left() is None


def test_the_time_left_comes_from_the_trials_of_this_run(make_trial: MakeTrial) -> None:
    started = time.monotonic()
    tally = Tally(10, 200, "mae", [make_trial(number, COMPLETE, 0.2) for number in range(4)])
    time.sleep(0.05)
    tally.count(make_trial(4, COMPLETE, 0.2))
    tally.count(make_trial(5, PRUNED))
    left = tally.seconds_left()
    assert left is not None
    # Two trials so far and four to go.
    assert 2 * 0.05 <= left <= 2 * (time.monotonic() - started)


def test_no_time_is_left_at_the_end_nor_beyond(make_trial: MakeTrial) -> None:
    tally = Tally(1, 200, "mae", [])
    for number in range(2):
        tally.count(make_trial(number, COMPLETE, 0.2))
    assert tally.seconds_left() == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (7384, "2:03:04")],
)
def test_seconds_are_shown_as_a_clock(seconds: float | None, text: str) -> None:
    assert format_seconds(seconds) == text


def test_the_live_screen_shows_counts_best_baselines_and_every_running_trial(
    make_trial: MakeTrial, make_baseline: MakeBaseline
) -> None:
    console = terminal()
    tally = Tally(20, 200, "mae", [make_trial(0, COMPLETE, 0.2)])
    with make_progress(console, tally, is_quiet=False):
        pass
    before = last_screen(console)
    screen = make_progress(console, tally, is_quiet=False)
    assert isinstance(screen, LiveProgress)
    with screen:
        screen.on_baseline(make_baseline("ridge", 0.08))
        for number in (1, 2, 3):
            screen.on_start(make_trial(number, RUNNING))
        screen.on_evaluation(make_trial(1, RUNNING, 0.31, steps=(50, 100)))
        screen.on_end(make_trial(2, COMPLETE, 0.15, widths=(64, 128), bidirectional=True))
    shown = last_screen(console)
    assert "1/20 trials" in before
    assert "? left" in before
    assert "being computed" in before
    assert "2/20 trials" in shown
    assert "? left" not in shown
    assert "2 running · 2 complete · 0 pruned · 0 failed" in shown
    assert "MAE 0.1500  trial 002: 2 layers 64→128, bidirectional, lookback 96" in shown
    assert "ridge 0.0800" in shown
    assert "001 step  100/200  0.3100 1 layer 64, lookback 96" in shown
    assert "003 step    0/200         1 layer 64, lookback 96" in shown
    assert "002 step" not in shown


def test_without_a_terminal_a_line_is_a_finished_trial(
    make_trial: MakeTrial, make_baseline: MakeBaseline
) -> None:
    console = Console(file=io.StringIO(), width=40, record=True)
    lines = make_progress(console, Tally(20, 200, "mae", []), is_quiet=False)
    assert isinstance(lines, LineProgress)
    with lines:
        for number in range(5):
            lines.on_start(make_trial(number, RUNNING))
            lines.on_evaluation(make_trial(number, RUNNING, 0.9))
        lines.on_baseline(make_baseline("seasonal naive (24)", 0.0891))
        lines.on_end(make_trial(0, COMPLETE, 0.2))
        lines.on_end(make_trial(2, PRUNED, 0.9, reason="stopped early at step 50"))
        lines.on_end(make_trial(1, FAILED, reason="OSError: [Errno 28] no space"))
        lines.on_end(make_trial(3, COMPLETE, 0.3))
        lines.on_end(make_trial(4, COMPLETE, 0.1, widths=(64, 128), bidirectional=True))
    assert console.export_text().splitlines() == [
        "to beat: seasonal naive (24) MAE 0.0891",
        "[1/20] 000 64: complete MAE 0.2000  1 layer 64, lookback 96  best so far",
        "[2/20] 002 64: stopped early at step 50 MAE 0.9000  1 layer 64, lookback 96",
        "[3/20] 001 64: OSError: [Errno 28] no space MAE –  1 layer 64, lookback 96",
        "[4/20] 003 64: complete MAE 0.3000  1 layer 64, lookback 96",
        "[5/20] 004 64-128 bi: complete MAE 0.1000  "
        "2 layers 64→128, bidirectional, lookback 96  best so far",
    ]


def test_a_trial_that_is_tried_again_is_a_line_with_the_reason_and_the_count(
    make_trial: MakeTrial,
) -> None:
    console = Console(file=io.StringIO(), width=40, record=True)
    tally = Tally(20, 200, "mae", [])
    lines = make_progress(console, tally, is_quiet=False)
    for count in (1, 2):
        lines.on_start(make_trial(17, RUNNING))
        reasons = ("OSError: first", "its worker process died: killed [or so]")[:count]
        lines.on_retry(make_trial(17, WAITING, retries=reasons))
    assert console.export_text().splitlines() == [
        "trial 017: OSError: first; tried again (1)",
        "trial 017: its worker process died: killed [or so]; tried again (2)",
    ]
    assert tally.counts_in_words() == "0 running · 0 complete · 0 pruned · 0 failed"


def test_a_trial_that_goes_on_with_smaller_batches_still_runs(make_trial: MakeTrial) -> None:
    tally = Tally(20, 200, "mae", [])
    tally.retry(make_trial(17, RUNNING, retries=("out of memory",)))
    assert tally.counts_in_words().startswith("1 running")


def test_the_live_screen_shows_the_last_retries_and_why_mlflow_is_behind(
    make_trial: MakeTrial,
) -> None:
    console, behind = terminal(), ["since 14:03 (connection refused)"]
    tally = Tally(20, 200, "mae", lag_of_view=lambda: behind[0] if behind else None)
    screen = make_progress(console, tally, is_quiet=False)
    with screen:
        for number in range(4):
            screen.on_retry(make_trial(number, WAITING, retries=("OSError: [Errno 5] lost",)))
        screen.on_baselines_missed("ray::_score() (pid=17)\n  File ...\nValueError: [broken]")
    shown = last_screen(console)
    assert "trial 000" not in shown
    assert "trial 003: OSError: [Errno 5] lost; tried again (1)" in shown
    assert "MLflow is behind since 14:03 (connection refused); trials go on" in shown
    assert "unknown: ValueError: [broken]" in shown
    behind.clear()
    with screen:
        pass
    assert "MLflow is behind" not in last_screen(console)


def test_without_a_terminal_mlflows_outage_is_a_line_when_it_begins_and_one_when_it_ends(
    make_trial: MakeTrial,
) -> None:
    console = Console(file=io.StringIO(), width=40, record=True)
    behind: list[str] = []
    tally = Tally(20, 200, "mae", lag_of_view=lambda: behind[-1] if behind else None)
    lines = make_progress(console, tally, is_quiet=False)
    lines.on_start(make_trial(0, RUNNING))
    behind.append("since 14:03 (no answer in time)")
    lines.on_evaluation(make_trial(0, RUNNING, 0.9))
    behind.append("since 14:03 (connection refused)")
    lines.on_evaluation(make_trial(0, RUNNING, 0.8))
    behind.clear()
    lines.on_start(make_trial(1, RUNNING))
    lines.on_evaluation(make_trial(1, RUNNING, 0.9))
    assert console.export_text().splitlines() == [
        "MLflow is behind since 14:03 (no answer in time); trials go on",
        "MLflow has caught up",
    ]


def test_baselines_that_cannot_be_computed_are_unknown_and_the_reason_is_a_line() -> None:
    console = Console(file=io.StringIO(), width=40, record=True)
    lines = make_progress(console, Tally(20, 200, "mae", []), is_quiet=False)
    lines.on_baselines_missed("The worker died unexpectedly while executing this task.")
    said = "to beat: unknown: The worker died unexpectedly while executing this task.\n"
    assert console.export_text() == said


def test_a_resumed_search_counts_on_from_what_the_record_holds(make_trial: MakeTrial) -> None:
    console = Console(file=io.StringIO(), width=100, record=True)
    before = [make_trial(0, COMPLETE, 0.1), make_trial(1, FAILED), make_trial(2, REJECTED)]
    lines = make_progress(console, Tally(4, 200, "mae", before), is_quiet=False)
    lines.on_end(make_trial(3, COMPLETE, 0.2))
    assert console.export_text().startswith("[3/4] 003 64: complete MAE 0.2000")
    assert "best so far" not in console.export_text()


def test_quiet_shows_nothing_and_still_counts(make_trial: MakeTrial) -> None:
    console, tally = terminal(), Tally(20, 200, "mae", [])
    with make_progress(console, tally, is_quiet=True) as nothing:
        nothing.on_start(make_trial(0, RUNNING))
        nothing.on_end(make_trial(0, COMPLETE, 0.2))
    assert tally.num_counted == 1
    assert console.export_text() == ""


def test_a_trial_without_a_configuration_is_shown_by_its_number(make_trial: MakeTrial) -> None:
    console = Console(file=io.StringIO(), width=100, record=True)
    lines = make_progress(console, Tally(4, 200, "mae", []), is_quiet=False)
    lines.on_end(replace(make_trial(7, FAILED, reason="broken"), config=None))
    assert console.export_text().startswith("[1/4] 007: broken MAE –")


def small_config(widths: tuple[int, ...], bidirectional: bool) -> TrialConfig:
    training = TrainConfig(
        lookback=96, calendar=True, learning_rate=1e-3, weight_decay=0.0, batch_size=64
    )
    model = LSTMConfig(widths=widths, bidirectional=bidirectional)
    return TrialConfig(model=model, training=training)


def terminal() -> Console:
    return Console(file=io.StringIO(), width=120, record=True, force_terminal=True)


def last_screen(console: Console) -> str:
    text = console.export_text(clear=False)
    return text[text.rindex("search ") :]
