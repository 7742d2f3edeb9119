"""How far a peer comes in a given time: its own search, ended from outside."""

import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.driver import kill_processes_of, processes_of
from benchmarks.peers.task import Task, read_runs

MORE_TRIALS_THAN_ARE_RUN = 10_000


def peer_evaluations(
    peer: str, python: str, task: Task, seed: int, seconds: float
) -> list[tuple[float, float]]:
    """Let a peer search for that long, from the command on.

    Return when each of its evaluations ended, in seconds since the command, and its validation
    error. Raises `SystemExit` with the end of what the peer printed where it ends before.
    """
    with tempfile.TemporaryDirectory(prefix="lstm-search-peer-") as name:
        folder = Path(name)
        task.save(folder / "task.npz")
        arguments = ["--trials", str(MORE_TRIALS_THAN_ARE_RUN), "--seed", str(seed)]
        command = [python, "-m", f"benchmarks.peers.{peer}", str(folder / "task.npz"), name]
        began_at = time.time()
        with (folder / "output.log").open("wb") as output:
            search = subprocess.Popen(
                [*command, *arguments], stdout=output, stderr=output, start_new_session=True
            )
            try:
                search.wait(seconds)
                raise SystemExit((folder / "output.log").read_text(errors="replace")[-2000:])
            except subprocess.TimeoutExpired:
                pass
            finally:
                _end_session(search)
        evaluations = [each for run in read_runs(folder) for each in run.evaluations]
    return [(at - began_at, mae) for at, mae in evaluations if at - began_at <= seconds]


def _end_session(search: "subprocess.Popen[bytes]") -> None:
    """Kill a process and all that it started."""
    while processes_of(search.pid):
        kill_processes_of(search.pid)
        time.sleep(0.1)
    search.wait()
