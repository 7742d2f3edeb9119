"""A peer's search is ended from outside after its time, with all that it started."""

import os
import sys
from pathlib import Path

import pytest

from benchmarks.driver import processes_of
from benchmarks.peers.compare import task_of
from benchmarks.peers.task import Task
from benchmarks.peers.timed import peer_evaluations
from search.config import SearchConfig

# In the place of Python: the folder for its trials is its fourth argument.
PEER = """#!{python}
import os, subprocess, sys, time
sys.path.insert(0, {root!r})
from benchmarks.peers.task import TrialRun, write_run
run = TrialRun(16, 1, 1e-3, 32)
run.evaluated(50, 0.5)
run.evaluated(100, 0.25)
run.evaluations.append((time.time() + 1000, 0.125))
write_run(__import__("pathlib").Path(sys.argv[4]), "first", run)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({pids!r}, "w").write(str(os.getsid(0)))
{then}
"""


@pytest.fixture
def task() -> Task:
    return task_of(SearchConfig(), lookback=96)


def peer(folder: Path, then: str) -> str:
    """A program that leaves a trial, starts a process and then does something."""
    file = folder / "peer"
    root, pids = str(Path(__file__).parents[2]), str(folder / "session")
    file.write_text(PEER.format(python=sys.executable, root=root, pids=pids, then=then))
    file.chmod(0o700)
    return str(file)


@pytest.mark.slow  # it imports torch
def test_what_a_peer_evaluated_in_its_time_counts_and_nothing_of_it_is_left(
    task: Task, tmp_path: Path
) -> None:
    python = peer(tmp_path, "time.sleep(600)")
    found = peer_evaluations("optuna_alone", python, task, seed=0, seconds=15)
    assert [mae for _, mae in found] == [0.5, 0.25]
    assert all(0 < at <= 15 for at, _ in found)
    session = int((tmp_path / "session").read_text())
    assert session != os.getsid(0)
    assert not processes_of(session)


@pytest.mark.slow  # it imports torch
def test_a_peer_that_ends_before_its_time_is_no_measurement(task: Task, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="it broke"):
        peer_evaluations("optuna_alone", peer(tmp_path, "sys.exit('it broke')"), task, 0, 60)
    assert not processes_of(int((tmp_path / "session").read_text()))
