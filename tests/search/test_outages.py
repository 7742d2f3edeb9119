"""MLflow fails in every way that servers have, before real searches and played ones.

A proxy before a real server refuses, answers 500, hangs or loses answers of requests that took
effect. Whatever happened, in the end MLflow holds what the record holds, all of it once.
"""

import contextlib
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

from benchmarks.faulty_proxy import FaultyProxy, Mode
from pipelines.scores import Evaluation
from search import background_view
from search.background_view import BackgroundView
from search.kept_weights import KeptWeights
from search.projection import Snapshot, StudyFacts
from search.record import TrialRecord
from search.study import Study
from search.sync import sync_study
from search.tracking import rebuild

# Real servers, stores and searches; a busy machine may take minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MakeEvaluation = Callable[..., Evaluation]
MakeFacts = Callable[..., StudyFacts]
Dump = dict[str, dict[str, Any]]
DumpView = Callable[..., Dump]
Show = Callable[..., Dump]
Start = Callable[..., "Process"]

PATIENCE_SECONDS = 500
BROKEN = [mode for mode in get_args(Mode) if mode != "pass"]
REASONS = {
    "refuse": "connection refused",
    "500": "it answers with error 500",
    "hang": "no answer in time",
    "cut_answer": "the connection broke",
    "lose_answer": "the connection broke",
}

TINY = [
    "--data=loads.csv",
    "--horizon=6",
    "--max-concurrent=1",
    "--no-finalize",
    "--device=cpu",
    "--precision=float32",
    "--pruner=none",
    "--set=training.max_steps=40",
    "--set=training.evaluate_every_steps=10",
    "--set=training.warmup_steps=0",
    "--set=search.use_default_starts=false",
    "--set=space.num_layers=1",
    "--set=space.hidden_size={low: 4, high: 8}",
    "--set=space.lookback=12",
    "--set=space.batch_size=16",
]


@pytest.fixture(autouse=True)
def _quick_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_view, "FLUSH_SECONDS", 0.1)


@pytest.fixture
def proxy(mlflow_server: Any) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(mlflow_server.uri)
    yield proxy
    proxy.close()


@pytest.fixture
def wait_at_most(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """How long each request of this process waits for its answer."""

    def wait(seconds: float) -> None:
        # MLflow reads it at every request.
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", f"{seconds:g}")

    wait(60)
    return wait


@pytest.fixture
def experiment(request: pytest.FixtureRequest) -> str:
    """One of this test alone."""
    return str(request.node.name)


# A played study before a proxy


@pytest.mark.parametrize("mode", BROKEN)
@pytest.mark.parametrize("begins", ["before the search", "in its middle"])
def test_what_an_outage_kept_from_mlflow_is_there_once_when_it_is_over(
    mode: Mode,
    begins: str,
    experiment: str,
    proxy: FaultyProxy,
    mlflow_server: Any,
    played_study: Study,
    make_facts: MakeFacts,
    make_evaluation: MakeEvaluation,
    kept: KeptWeights,
    shown: Show,
    wait_at_most: Callable[[float], None],
) -> None:
    running = played_study.trial(4)
    earlier, later = played_study.trials()[:3], played_study.trials()[3:]
    if begins == "before the search":
        proxy.behave(mode)
        wait_at_most(1)
    view = BackgroundView(proxy.uri, experiment, make_facts())
    tell_all(view, earlier)
    if begins == "in its middle":
        view.on_evaluation(running)
        eventually(
            lambda: running.name in shown(experiment) and earlier[-1].name in shown(experiment)
        )
        wait_at_most(1)
        proxy.behave(mode)
    tell_all(view, later)
    # The first call of all may meet a connection that breaks.
    eventually(lambda: re.fullmatch(rf"since \d\d:\d\d \({REASONS[mode]}\)", view.lag() or ""))
    played_study.report(4, make_evaluation(0.4, step=100))
    view.on_evaluation(played_study.trial(4))
    proxy.behave("pass")
    wait_at_most(60)
    eventually(lambda: view.lag() is None)
    eventually(lambda: num_shown(shown(experiment), running.name) == 2)  # by itself
    played_study.complete(4)
    trials = played_study.trials()
    assert view.close(trials, "done", kept, PATIENCE_SECONDS) is not None
    snapshot = Snapshot(trials, "done", kept)
    assert_shown_once(shown, mlflow_server.uri, experiment, make_facts(), snapshot)


class OddAnswersLost(FaultyProxy):
    """Every other request takes effect, and is made again because its answer is lost."""

    def note_request(self) -> Mode:
        super().note_request()
        return "lose_answer" if self.num_requests % 2 else "pass"


def test_calls_that_take_effect_twice_unnoticed_leave_everything_in_mlflow_once(
    experiment: str,
    mlflow_server: Any,
    played_trials: list[TrialRecord],
    make_facts: MakeFacts,
    kept: KeptWeights,
    shown: Show,
) -> None:
    proxy = OddAnswersLost(mlflow_server.uri)
    with contextlib.closing(proxy):
        view = BackgroundView(proxy.uri, experiment, make_facts())
        tell_all(view, played_trials)
        assert view.close(played_trials, "done", kept, PATIENCE_SECONDS) is not None
    assert num_deleted(mlflow_server.store_uri, experiment) > 0  # runs were made twice
    snapshot = Snapshot(played_trials, "done", kept)
    assert_shown_once(shown, mlflow_server.uri, experiment, make_facts(), snapshot)


def test_requests_that_a_hanging_server_answers_too_late_double_nothing(
    experiment: str,
    mlflow_server: Any,
    played_trials: list[TrialRecord],
    make_facts: MakeFacts,
    kept: KeptWeights,
    shown: Show,
    wait_at_most: Callable[[float], None],
) -> None:
    wait_at_most(3)
    view = BackgroundView(mlflow_server.uri, experiment, make_facts())
    tell_all(view, played_trials[:1])
    ended = played_trials[0].name
    eventually(
        lambda: ended in (runs := shown(experiment)) and runs[ended]["info"][0] == "FINISHED"
    )
    with mlflow_server.paused():
        tell_all(view, played_trials[1:])  # so that the request that hangs makes a run
        eventually(lambda: view.outage is not None)
        wait_at_most(60)
    eventually(lambda: view.outage is None)
    assert view.close(played_trials, "done", kept, PATIENCE_SECONDS) is not None
    snapshot = Snapshot(played_trials, "done", kept)
    assert_shown_once(shown, mlflow_server.uri, experiment, make_facts(), snapshot)


@pytest.mark.parametrize("mode", ["refuse", "500", "hang"])
def test_a_server_that_never_comes_back_does_not_hold_up_the_end(
    mode: Mode,
    proxy: FaultyProxy,
    played_trials: list[TrialRecord],
    make_facts: MakeFacts,
    kept: KeptWeights,
    wait_at_most: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background_view, "LAST_PATIENCE_SECONDS", 1.0)
    proxy.behave(mode)
    wait_at_most(1)
    view = BackgroundView(proxy.uri, "never", make_facts())
    tell_all(view, played_trials)
    eventually(lambda: view.outage is not None)
    wait_at_most(3600)  # as long as the end would last, were it to wait for an answer
    assert view.close(played_trials, "done", kept, timeout_seconds=3600) is None


def test_a_server_that_has_not_answered_all_along_does_not_hold_up_the_end_either(
    proxy: FaultyProxy,
    played_trials: list[TrialRecord],
    make_facts: MakeFacts,
    kept: KeptWeights,
    wait_at_most: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background_view, "LAST_PATIENCE_SECONDS", 0.5)
    wait_at_most(3600)
    proxy.behave("hang")
    view = BackgroundView(proxy.uri, "never", make_facts())
    eventually(lambda: proxy.num_requests > 0)
    time.sleep(0.6)  # longer than the patience
    assert view.close(played_trials, "done", kept, timeout_seconds=3600) is None


def test_a_server_that_hangs_from_the_beginning_takes_no_more_than_the_ends_timeout(
    proxy: FaultyProxy,
    played_trials: list[TrialRecord],
    make_facts: MakeFacts,
    kept: KeptWeights,
    wait_at_most: Callable[[float], None],
) -> None:
    wait_at_most(3600)
    proxy.behave("hang")
    view = BackgroundView(proxy.uri, "hanging", make_facts())
    eventually(lambda: proxy.num_requests > 0)
    tell_all(view, played_trials)  # returns, although the view waits for its answer
    assert view.close(played_trials, "done", kept, timeout_seconds=0.5) is None
    assert view.outage is None  # it has not failed: it was left waiting


# Real searches


def test_a_search_that_never_meets_its_server_ends_with_0_and_the_command_that_makes_up_for_it(
    start: Start, proxy: FaultyProxy, mlflow_server: Any, shown: Show, synced_anew: Show
) -> None:
    with proxy.behaving("refuse"):
        search = start("search.run", *TINY, "-n", "2", study="never", uri=proxy.uri)
        assert (search.end(), search.errors()) == (0, "")
    [command] = re.findall(r"^browse    MLflow is behind: python -m (.*)$", search.said, re.M)
    sync = start(*shlex.split(command), study="never", uri=proxy.uri)
    assert (sync.end(), sync.errors()) == (0, "")
    assert sync.said.startswith("never: 2 trials are in MLflow: ")
    assert shown("never") == synced_anew("never", mlflow_server.uri)


def test_a_search_whose_server_goes_and_comes_back_says_so_goes_on_and_catches_up(
    start: Start, proxy: FaultyProxy, mlflow_server: Any, shown: Show, synced_anew: Show
) -> None:
    search = start("search.run", *TINY, "-n", "2000", study="between", uri=proxy.uri)
    search.wait_for_line(r"\[1/2000\] ")
    proxy.behave("refuse")
    search.wait_for_line(r"MLflow is behind since \d\d:\d\d \(.*\); trials go on$")
    ended = re.findall(r"^\[.*\] (\d{3} \d(?: bi)?): ", search.said, re.M)
    search.wait_for_line(r"\[\d+/2000\] ")
    proxy.behave("pass")
    search.wait_for_line("MLflow has caught up$")
    assert ended
    assert [name for name in ended if "outcome" not in shown("between")[name]["tags"]] == []
    os.killpg(search.process.pid, signal.SIGINT)
    assert (search.end(), search.errors()) == (130, "")
    if "MLflow is behind: " in search.said:  # a busy machine may outlast the end's patience
        assert start("search", "sync", "between", study="between", uri=proxy.uri).end() == 0
    assert shown("between") == synced_anew("between", mlflow_server.uri)


# Two searches at a time


def test_two_searches_of_two_studies_share_one_new_store_and_neither_finds_it_locked(
    start: Start, folder: Path, dump_view: DumpView, synced_anew: Show
) -> None:
    studies = ("left", "right")
    searches = [start("search.run", *TINY, "-n", "3", study=name) for name in studies]
    store = f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}"
    for study, search in zip(studies, searches, strict=True):
        assert (search.end(), search.errors()) == (0, "")  # MLflow would print that it is locked
        assert "locked" not in search.said
        if "MLflow is behind: " in search.said:  # a busy machine may outlast the end's patience
            assert start("search", "sync", study, study=study).end() == 0
        assert without_links(dump_view(store, study)) == synced_anew(study, store)


class Process:
    """A command of ours in a group of its own; what it says is read by lines."""

    def __init__(self, command: Sequence[str], folder: Path, variables: dict[str, str]):
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `close`
        self.said = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )

    def wait_for_line(self, pattern: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if re.match(pattern, line):
                return
        raise AssertionError(f"no line {pattern} in {self.said}, {self.errors()}")

    def end(self) -> int:
        """Wait for its end; return the exit code."""
        said, _ = self.process.communicate(timeout=PATIENCE_SECONDS)
        self.said += said
        return self.process.returncode

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start a command with its view in the experiment of its study's name."""
    with contextlib.ExitStack() as started:

        def begin(*command: str, study: str, uri: str = "") -> Process:
            variables = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": study}
            named = ["--study", study] if command[0] == "search.run" else []
            process = Process([*command, *named], folder, variables)
            started.callback(process.close)
            return process

        yield begin


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with a table."""
    folder = tmp_path_factory.mktemp("user")
    rows = np.arange(480)
    daily = 50 + 10 * np.sin(2 * np.pi * rows / 24)
    noise = np.random.default_rng(1).normal(size=len(rows))
    when = pd.date_range("2024-01-01", periods=len(rows), freq="h")
    table = pd.DataFrame({"when": when, "load": (daily + noise).round(3)})
    table.to_csv(folder / "loads.csv", index=False)
    return folder


@pytest.fixture
def shown(mlflow_server: Any, dump_view: DumpView) -> Show:
    """What the server shows in an experiment, but for links."""
    return lambda experiment: without_links(dump_view(mlflow_server.store_uri, experiment))


@pytest.fixture
def synced_anew(
    folder: Path, mlflow_server: Any, dump_view: DumpView, monkeypatch: pytest.MonkeyPatch
) -> Show:
    """What a study's record alone leads to, in an experiment that nothing else wrote to."""

    def sync(study: str, uri: str) -> Dump:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"{study} anew")
        sync_study(study, str(folder / "mlruns"))
        store = uri if uri.startswith("sqlite") else mlflow_server.store_uri
        return without_links(dump_view(store, f"{study} anew"))

    return sync


def assert_shown_once(
    shown: Show, uri: str, experiment: str, facts: StudyFacts, snapshot: Snapshot
) -> None:
    """MLflow holds what the record holds, and nothing twice."""
    rebuild(uri, f"{experiment} anew", facts, snapshot, [])
    assert shown(experiment) == shown(f"{experiment} anew")  # and no two runs have one name


def without_links(dump: Dump) -> Dump:
    """Without the link to the experiment, which two experiments do not share."""
    for run in dump.values():
        run["tags"].pop("mlflow.note.content", None)
    return dump


def num_deleted(store_uri: str, experiment: str) -> int:
    query = (
        "SELECT count(*) FROM runs JOIN experiments USING (experiment_id) "
        "WHERE experiments.name = ? AND runs.lifecycle_stage = 'deleted'"
    )
    with contextlib.closing(sqlite3.connect(store_uri.removeprefix("sqlite:///"))) as store:
        [(count,)] = store.execute(query, [experiment]).fetchall()
    return int(count)


def tell_all(view: BackgroundView, trials: Sequence[TrialRecord]) -> None:
    for trial in trials:
        if trial.config is not None:
            view.on_start(trial)
            view.on_evaluation(trial)
            view.on_end(trial)


def num_shown(runs: dict[str, Any], name: str) -> int:
    """The evaluations of a trial that are shown; a brief one has no run yet, or an empty one."""
    return len(runs.get(name, {}).get("metrics", {}).get("val_mae", ()))


def eventually(is_so: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.1)
