"""What all tests share: a quiet environment, a free port, hosts, a headless browser."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from benchmarks.hosts import Network, network, why_no_namespaces

# Ray and MLflow read these when they are imported, which test modules do after this file.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


@pytest.fixture
def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def leave_out(reason: str) -> NoReturn:
    """Skip the test that something here keeps from running, or fail it where CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def left_out() -> Callable[[str], NoReturn]:
    """Skips the test that something here keeps from running, or fails it where CI=true."""
    return leave_out


@pytest.fixture(scope="session")
def namespaces() -> None:
    """The right, and the programs, to make hosts of network namespaces."""
    if problem := why_no_namespaces():
        leave_out(problem)


@pytest.fixture
def hosts(tmp_path: Path, namespaces: None) -> Iterator[Network]:
    """A network without hosts; they are added by the test, and end with it."""
    with network(tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def program() -> Callable[..., Path]:
    """Finds the first of some programs that is there, or skips the test."""
    return find_program


@pytest.fixture(scope="session")
def chromium() -> Path:
    """A browser that runs with `--headless`."""
    return find_program("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def postgresql_programs() -> Path:
    """The folder with `initdb` and `postgres`, which Debian keeps off the path."""
    versions = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    return find_program("initdb", beside=versions).resolve().parent


def find_program(*names: str, beside: Sequence[str] = ()) -> Path:
    """The first of `names` on the path or in the folders `beside` it.

    Without any, the test skips, or fails where CI=true.
    """
    folders = os.pathsep.join([os.environ.get("PATH", os.defpath), *beside])
    for name in names:
        if path := shutil.which(name, path=folders):
            return Path(path)
    reason = f"needs {' or '.join(names)} on the path; tests/install-debian-packages.sh gets it"
    leave_out(reason)


RunElsewhere = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def environment_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunElsewhere]:
    """Make a virtual environment of what pip is asked to install, and of nothing else.

    Where no package index answers, the test skips, or fails where CI=true. What is returned runs
    the Python of that environment on some arguments, in the folder `cwd`.
    """

    def make(*requirements: str) -> RunElsewhere:
        folder = tmp_path_factory.mktemp("environment")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=600)

        def run(*arguments: str, cwd: Path = folder) -> subprocess.CompletedProcess[str]:
            environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
            return subprocess.run(
                [str(folder / "bin" / "python"), *arguments],
                cwd=cwd,
                env=environ,
                capture_output=True,
                text=True,
                timeout=1200,
                check=False,
            )

        pip = ("-m", "pip", "install", "--disable-pip-version-check", "--no-compile")
        outcome = run(*pip, *requirements)
        if outcome.returncode != 0:
            reason = f"needs a package index for {' '.join(requirements)}: {outcome.stderr[-300:]}"
            leave_out(reason)
        return run

    return make
