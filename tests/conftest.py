"""What all tests share: a quiet environment, a free port, a headless browser."""

import os
import shutil
import socket
from pathlib import Path

import pytest

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


@pytest.fixture(scope="session")
def chromium() -> Path:
    """A browser that runs with `--headless`."""
    return find_program("chromium", "chromium-browser", "google-chrome")


def find_program(*names: str) -> Path:
    """The first of `names` on the path; without any, the test skips, or fails where CI=true."""
    for name in names:
        if path := shutil.which(name):
            return Path(path)
    reason = f"needs {' or '.join(names)} on the path; tests/install-debian-packages.sh gets it"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
