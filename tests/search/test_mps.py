"""The service by which trials share a GPU runs as long as whoever started it; here it is played."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search import mps
from search.config import ConfigError

PLAYED = """#!/bin/sh
if [ "$1" = -d ]; then echo started >>"$MPS_LOG"; touch "$CUDA_MPS_PIPE_DIRECTORY/control"
else read -r word; echo "$word" >>"$MPS_LOG"; fi
"""
STARTS = """
import signal, sys
from search.mps import mps_environment
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
print(mps_environment()["CUDA_MPS_PIPE_DIRECTORY"], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What was said to the service."""
    control = tmp_path / "bin" / mps.CONTROL
    control.parent.mkdir()
    control.write_text(PLAYED, encoding="utf-8")
    control.chmod(0o755)
    monkeypatch.setenv("PATH", f"{control.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("MPS_LOG", str(tmp_path / "log"))
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    return tmp_path / "log"


@pytest.fixture(autouse=True)
def _none_has_been_started() -> None:
    mps.mps_environment.cache_clear()


@pytest.mark.parametrize("number", [None, signal.SIGINT, signal.SIGKILL])
def test_the_service_ends_with_its_process_however_that_ends(
    log: Path, number: signal.Signals | None
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert log.read_text(encoding="utf-8") == "started\n"
        assert folder.stat().st_mode & 0o077 == 0  # nobody else may speak to it
        if number is not None:
            process.send_signal(number)
        else:
            assert process.stdin is not None
            process.stdin.close()
        process.wait()
    until = time.monotonic() + 20
    while folder.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert log.read_text(encoding="utf-8") == "started\nquit\n"
    assert not folder.exists()


def test_a_service_that_runs_already_is_used(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/tmp/mps")
    assert mps.mps_environment() == {}
    assert not log.exists()


def test_where_there_is_no_service_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="got no nvidia-cuda-mps-control on the PATH"):
        mps.mps_environment()


def test_a_service_that_does_not_start_is_said(log: Path) -> None:
    control = Path(os.environ["PATH"].split(":")[0]) / mps.CONTROL
    control.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="Multi-Process Service to start"):
        mps.mps_environment()
