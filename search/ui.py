"""`python -m search ui`: MLflow's own server on the store of this folder."""

import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

import typer

from search.config import ConfigError, SearchConfig

PREFERRED_PORT = 5000
LOCAL_SERVER = f"http://127.0.0.1:{PREFERRED_PORT}"
"""Where the links that a search prints lead."""


def serve(config: SearchConfig) -> NoReturn:
    """Become the server on the store in a configuration's home.

    Raises:
        ConfigError: where the folder holds no store yet.
    """
    home = config.home_folder
    if not (home / "mlflow.db").exists():
        raise ConfigError(
            f"there is no search in {home} yet; begin one: python -m search.run{config.home_option}"
        )
    port = free_port()
    typer.echo(f"MLflow starts on http://127.0.0.1:{port} in some ten seconds; Ctrl+C ends it")
    if port != PREFERRED_PORT:
        typer.echo(f"port {PREFERRED_PORT} is taken: put {port} in its place in a search's link")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri"]
    command += [local_store_uri(home), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--uvicorn-opts", "--log-level=warning"]
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Without job execution the server starts in a third of the time and memory.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONWARNINGS": "ignore",  # MLflow's own, on what it imports
    }
    # In this process's place, so that whoever ends it ends the server.
    os.execve(sys.executable, command, {**quiet, **os.environ})


def local_store_uri(home: Path) -> str:
    """The store beside the studies of this folder."""
    return f"sqlite:///{home.resolve() / 'mlflow.db'}"


def free_port() -> int:
    """The preferred port, or any free one where that is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PREFERRED_PORT))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
