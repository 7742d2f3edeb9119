"""A Ray cluster that is there already, as `ray start` begins it, joined by the command."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.serving import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120
TINY = (
    *("--no-finalize", "--device=cpu", "--precision=float32", "--trials=2", "--quiet"),
    *("--set=search.use_default_starts=false", "--set=space.num_layers=1"),
    *("--set=space.hidden_size={low: 4, high: 8}", "--set=space.lookback=12"),
    *("--set=training.max_steps=6", "--set=training.evaluate_every_steps=2"),
)


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of somebody who has no token yet."""
    tokens = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    environment = {name: value for name, value in os.environ.items() if name not in tokens}
    return environment | {"HOME": str(tmp_path_factory.mktemp("user"))}


@pytest.fixture(scope="module")
def open_cluster(user: dict[str, str]) -> Iterator[str]:
    """The address of a cluster that wants no token, since there was none when it began."""
    port = free_port()
    folder = tempfile.mkdtemp(prefix="ray-")  # a short path: those of sockets have 107 bytes
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
    command += [f"--port={port}", f"--temp-dir={folder}", "--num-cpus=2", "--disable-usage-stats"]
    command += [f"--ray-client-server-port={free_port()}", "--include-dashboard=false"]
    command += [f"--dashboard-agent-listen-port={free_port()}"]
    command += ["--min-worker-port=0", "--max-worker-port=0"]  # any that are free
    silent = subprocess.DEVNULL
    head = subprocess.Popen(command, env=user, stdout=silent, stderr=silent, start_new_session=True)
    try:
        wait_for(port, head)
        yield f"127.0.0.1:{port}"
    finally:
        head.terminate()
        with suppress(subprocess.TimeoutExpired):
            head.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(port: int, head: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        assert head.poll() is None
        assert time.monotonic() < until
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.2)


@pytest.mark.parametrize("mode", [None, "disabled"], ids=["with its token", "without"])
def test_a_cluster_without_a_token_is_joined_without_one(
    open_cluster: str, user: dict[str, str], tmp_path: Path, mode: str | None
) -> None:
    token = Path(user["HOME"], ".ray", "auth_token")  # as a search on this machine alone makes it
    token.parent.mkdir(exist_ok=True)
    token.write_text("0" * 64)
    token.chmod(0o600)
    environment = user | ({"RAY_AUTH_MODE": mode} if mode else {})
    command = [sys.executable, "-m", "search.run", f"--address={open_cluster}", *TINY]
    answer = subprocess.run(
        [*command, f"--home={tmp_path / 'home'}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    if mode is None:
        assert answer.returncode == 2, answer.stderr
        assert "a cluster without a token must be joined without one" in answer.stderr
    else:
        assert answer.returncode == 0, answer.stderr
        assert "(done)" in answer.stdout
