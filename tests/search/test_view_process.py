"""The view in a process of its own shows what a thread would, and outlives nothing."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faulty_proxy import FaultyProxy
from pipelines.scores import BaselineScore, Evaluation
from search import background_view, view_process
from search.background_view import BackgroundView
from search.kept_weights import KeptWeights
from search.projection import Snapshot, StudyFacts
from search.record import TrialRecord
from search.tracking import rebuild
from search.view_process import ViewProcess, ViewProcessError, _Call

MakeFacts = Callable[..., StudyFacts]
DumpView = Callable[..., dict[str, dict[str, Any]]]

PATIENCE_SECONDS = 120


def test_a_snapshot_arrives_as_it_was_sent(
    played_trials: list[TrialRecord], tmp_path: Path
) -> None:
    sent = Snapshot(played_trials, "done", KeptWeights(tmp_path))
    call = _Call(method="show_all", snapshot=sent)
    arrived = _Call.model_validate_json(call.model_dump_json()).snapshot
    assert arrived is not None
    assert replace(arrived, pages=()) == sent


def test_numbers_that_json_does_not_know_arrive(
    make_evaluation: Callable[..., Evaluation],
) -> None:
    errors = make_evaluation(math.inf).errors
    call = _Call(method="show_baselines", baselines=(BaselineScore("ridge", errors, ""),))
    back = _Call.model_validate_json(call.model_dump_json())
    assert back.baselines is not None
    assert repr(back.baselines) == repr(call.baselines)  # NaN is not equal to itself
    assert "inf" in repr(back.baselines)


def test_a_process_that_was_ended_is_not_started_again(make_facts: MakeFacts) -> None:
    process = ViewProcess()
    process.end(is_patient=True)
    with pytest.raises(ViewProcessError, match="was ended"):
        process.connect("sqlite://", "lstm-search", make_facts(), is_verbose=False)


@pytest.mark.slow
def test_a_process_that_is_killed_comes_back_and_nothing_is_missing(
    view_store: str,
    played_trials: list[TrialRecord],
    make_facts: MakeFacts,
    kept: KeptWeights,
    dump_view: DumpView,
    started: list["subprocess.Popen[bytes]"],
) -> None:
    earlier, later = played_trials[:3], played_trials[3:]
    view = BackgroundView(view_store, "lstm-search", make_facts(), has_own_process=True)
    for trial in earlier:
        view.on_end(trial)
    eventually(lambda: earlier[-1].name in dump_view(view_store))
    started[0].kill()
    for trial in later:
        view.on_end(trial)
    eventually(lambda: view.outage is not None)
    assert "has ended with exit code -9" in (view.lag() or "")
    eventually(lambda: view.outage is None)
    assert view.close(played_trials, "done", kept, PATIENCE_SECONDS) == "1"
    assert [process.poll() for process in started] == [-signal.SIGKILL, 0]
    told = dump_view(view_store)
    rebuild(view_store, "lstm-search", make_facts(), Snapshot(played_trials, "done", kept), [])
    assert dump_view(view_store) == told
    shown = {trial.name for trial in played_trials if trial.config is not None}
    assert told.keys() == {"small", "experiment", *shown}


@pytest.mark.slow
def test_a_process_whose_server_hangs_is_ended_with_the_search(
    mlflow_server: Any,
    played_trials: list[TrialRecord],
    make_facts: MakeFacts,
    kept: KeptWeights,
    started: list["subprocess.Popen[bytes]"],
) -> None:
    with contextlib.closing(FaultyProxy(mlflow_server.uri)) as proxy:
        proxy.behave("hang")
        view = BackgroundView(proxy.uri, "hanging", make_facts(), has_own_process=True)
        eventually(lambda: proxy.num_requests > 0)
        assert view.close(played_trials, "done", kept, timeout_seconds=0.5) is None
        assert started[0].poll() == -signal.SIGKILL


@pytest.mark.slow
def test_what_has_the_same_name_in_the_folder_that_one_is_in_is_not_taken(
    view_store: str, make_facts: MakeFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "search.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    process = ViewProcess()
    try:
        assert process.connect(view_store, "x", make_facts(), is_verbose=False).experiment_id
    finally:
        process.end(is_patient=True)


@pytest.mark.slow
def test_a_process_ends_with_the_search_that_is_killed() -> None:
    parent = """
import time
from search.view_process import ViewProcess
view = ViewProcess()
view._start_unless_alive()
print(view._process.pid, flush=True)
time.sleep(600)
"""
    command = [sys.executable, "-c", parent]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as search:
        assert search.stdout is not None
        pid = int(search.stdout.readline())
        os.kill(pid, 0)  # it is there
        search.kill()
    eventually(lambda: has_ended(pid))


@pytest.mark.slow
def test_a_process_whose_search_is_killed_in_the_middle_of_a_call_ends_too(
    mlflow_server: Any,
) -> None:
    parent = """
import sys
from search.projection import StudyFacts
from search.view_process import ViewProcess
view = ViewProcess()
view._start_unless_alive()
print(view._process.pid, flush=True)
facts = StudyFacts("small", "uid", "mae", 0.0, "", "", "", 1, "", {}, {})
view.connect(sys.argv[1], "killed", facts, is_verbose=False)
"""
    with contextlib.closing(FaultyProxy(mlflow_server.uri)) as proxy:
        proxy.behave("hang")
        command = [sys.executable, "-c", parent, proxy.uri]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as search:
            assert search.stdout is not None
            pid = int(search.stdout.readline())
            eventually(lambda: proxy.num_requests > 0)
            search.kill()
        until = time.monotonic() + 5  # and MLflow would wait for 20 s
        while not has_ended(pid):
            assert time.monotonic() < until
            time.sleep(0.1)


@pytest.mark.slow
def test_a_signal_to_all_processes_of_a_search_does_not_end_it(
    view_store: str, make_facts: MakeFacts, started: list["subprocess.Popen[bytes]"]
) -> None:
    process = ViewProcess()
    view = process.connect(view_store, "x", make_facts(), is_verbose=False)
    started[0].send_signal(signal.SIGTERM)
    started[0].send_signal(signal.SIGINT)
    view.mark_running()
    process.end(is_patient=True)
    assert started[0].poll() == 0


def has_ended(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists() or is_zombie(pid)


def is_zombie(pid: int) -> bool:
    return " Z " in Path(f"/proc/{pid}/stat").read_text()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list["subprocess.Popen[bytes]"]:
    """The processes of views that the test starts."""
    started = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            if "search.view_process" in self.args:
                started.append(self)

    monkeypatch.setattr(view_process.subprocess, "Popen", Noted)
    monkeypatch.setattr(background_view, "FLUSH_SECONDS", 0.1)
    return started


def eventually(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.1)
