"""One writer a study, whatever becomes of it."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from search.lock import StudyLockedError, locked

HOLD_IT = """
import sys
from pathlib import Path
from search.lock import locked

with locked(Path(sys.argv[1]), "load"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its input ends."""
    command = [sys.executable, "-c", HOLD_IT, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def test_a_second_process_is_refused_with_the_firsts_host_and_pid(tmp_path: Path) -> None:
    path = tmp_path / "studies" / "load.lock"
    with holder(path) as first:
        who = f"process {first.pid} on {socket.gethostname()} is searching load"
        with pytest.raises(StudyLockedError, match=rf"{who}; wait for it, end it, or choose"):
            locked(path, "load").__enter__()
        # The refused one has not taken the first one's place in the file.
        with pytest.raises(StudyLockedError, match=who):
            locked(path, "load").__enter__()


def test_the_lock_is_free_after_its_process_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "load.lock"
    with holder(path) as first:
        first.communicate()
    with locked(path, "load"):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_the_lock_is_free_after_its_process_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "load.lock"
    with holder(path) as first:
        first.send_signal(signal.SIGKILL)
    assert json.loads(path.read_text())["pid"] == first.pid  # it had no time to tidy up
    with locked(path, "load"):
        assert json.loads(path.read_text()) == {"host": socket.gethostname(), "pid": os.getpid()}


def test_the_lock_is_free_after_its_block_has_failed(tmp_path: Path) -> None:
    path = tmp_path / "load.lock"
    with pytest.raises(RuntimeError, match="broken"), locked(path, "load"):
        raise RuntimeError("broken")
    with locked(path, "load"):
        pass
    assert path.read_text() == ""


def test_locks_of_other_studies_are_independent(tmp_path: Path) -> None:
    with locked(tmp_path / "load.lock", "load"), locked(tmp_path / "sales.lock", "sales"):
        pass


def test_a_holder_that_has_not_yet_signed_is_called_another_process(tmp_path: Path) -> None:
    path = tmp_path / "load.lock"
    with locked(path, "load"):
        path.write_text("")
        with pytest.raises(StudyLockedError, match="another process is searching load"):
            locked(path, "load").__enter__()
