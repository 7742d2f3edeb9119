"""One search as a user starts it: the real command in a process of its own, and its Ray."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
INJECTED = Path(__file__).with_name("injected")

END_SECONDS = 300.0
"""Longer than any search of these takes to end, on a busy machine too."""

RAYS_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Idle processes that outlive a killed driver by a minute, by Ray's own design."""


class Driver:
    """A running `python -m search.run` in a session of its own, its output in a file."""

    def __init__(self, arguments: Sequence[str], output: Path, environment: Mapping[str, str]):
        """Start it."""
        self.output = output
        # This checkout's own code in Ray's workers too, wherever another one is installed.
        paths = [str(INJECTED), str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        with output.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "search.run", *arguments],
                cwd=REPOSITORY,
                env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.started_at = time.monotonic()

    @property
    def is_alive(self) -> bool:
        """Whether the driver itself still runs; its Ray may outlive it by seconds."""
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send the driver a signal, where it still runs."""
        self._process.send_signal(number)

    def interrupt_group(self) -> None:
        """Do as a terminal does at Ctrl-C: signal every process in the foreground."""
        if self.is_alive:
            os.killpg(self.pid, signal.SIGINT)

    def wait(self, seconds: float = END_SECONDS) -> int | None:
        """Return the exit code, minus a signal's number; None where it has not ended in time."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end_session(self, patience_seconds: float = 60.0) -> list[str]:
        """Wait until all that the driver started has ended; kill the rest and name it.

        Ray's agents are not waited for, and not named.
        """
        until = time.monotonic() + patience_seconds
        while self._left() and time.monotonic() < until:
            time.sleep(0.2)
        left = self._left()
        kill_processes_of(self.pid)
        self._process.wait()
        return left

    def _left(self) -> list[str]:
        names = processes_of(self.pid).values()
        return [name for name in names if not name.startswith(RAYS_AGENTS)]

    def kill(self) -> None:
        """End it and all that it started, at once."""
        self.send(signal.SIGKILL)
        self.end_session(patience_seconds=0)

    def tail(self, num_lines: int = 12) -> str:
        """Return the last lines that it printed."""
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-num_lines:])


def kill_processes_of(session: int) -> None:
    """Kill what a session holds now; what is started meanwhile may be left."""
    for pid in processes_of(session):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def processes_of(session: int) -> dict[int, str]:
    """Return the living processes of a session with what they call themselves (Linux)."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):  # it has ended meanwhile
            # The name in brackets may hold spaces: state, parent, group and session follow it.
            state, _, _, of_session = (folder / "stat").read_text().rpartition(") ")[2].split()[:4]
            if int(of_session) == session and state != "Z":
                words = (folder / "cmdline").read_bytes().split(b"\0")
                found[int(folder.name)] = b" ".join(words).decode(errors="replace").strip()
    return found
