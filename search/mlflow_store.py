"""The MLflow store or server of a search: how it is opened, and what is wrong where it fails.

It says, before MLflow is imported, how that is to behave: whatever else of the search imports
MLflow imports this first.
"""

import fcntl
import http.client
import logging
import os
import re
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow's own patience, 7 retries of 120 s, would keep a call waiting for minutes where the
    # server is gone; here whoever calls tries again. One retry bridges a server's hiccup.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # It would draw over the screen of a search.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}.items():
    os.environ.setdefault(_name, _value)

from mlflow import MlflowClient, MlflowException  # noqa: E402
from sqlalchemy.exc import SQLAlchemyError  # noqa: E402

TAG_CHARACTERS = 8000
"""MLflow's limit."""

REASON_CHARACTERS = 200

# So marked, its page opens on runs and metrics instead of on traces of chats.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


class ViewError(ValueError):
    """MLflow cannot be reached, or does not take a study."""


OUTAGES = (MlflowException, OSError, SQLAlchemyError, sqlite3.Error)
"""What MLflow's client raises where its server or store fails; it wraps only some of it."""


def open_store(uri: str) -> MlflowClient:
    """Connect to an MLflow server or store; a SQLite store is made once, by one process."""
    path = sqlite_path(uri)
    if path is None:
        return MlflowClient(tracking_uri=uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _held(path.with_suffix(".lock")):
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)  # makes the schema
    return client


def experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    """The id of an experiment, which is made where it is missing.

    Raises:
        ViewError: where it is deleted.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return _make_experiment(client, uri, name)
    if experiment.lifecycle_stage == "deleted":
        raise ViewError(
            f"experiment {name} is deleted in MLflow: restore it there or choose another "
            "--experiment"
        )
    return str(experiment.experiment_id)


def _make_experiment(client: MlflowClient, uri: str, name: str) -> str:
    path = sqlite_path(uri)
    # An absolute place serves a direct client and a server alike.
    location = None if path is None else (path.parent / "artifacts").absolute().as_uri()
    try:
        return str(client.create_experiment(name, location, EXPERIMENT_TAGS))
    except MlflowException:
        made_meanwhile = client.get_experiment_by_name(name)
        if made_meanwhile is None:
            raise
        return str(made_meanwhile.experiment_id)


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite store; None for any other."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def pages(search: Callable[..., Any], **arguments: Any) -> Iterator[Any]:
    """All that a search of MLflow's client finds, page after page."""
    token = None
    while True:
        page = search(**arguments, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


@contextmanager
def _held(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def why(error: BaseException) -> str:
    """What is wrong with MLflow, in a few words, from whatever its client has raised."""
    causes = list(_causes(error))
    for cause in causes:
        match cause:
            case ConnectionRefusedError():
                return "connection refused"
            case TimeoutError():
                return "no answer in time"
            case socket.gaierror():
                return "its host is not known"
            case ConnectionError() | http.client.HTTPException():
                return "the connection broke"
            case sqlite3.Error():
                return str(cause)  # such as "database is locked"
    status = re.search(r"too many (\d{3}) error responses|error code (\d{3})", str(causes))
    if status:
        return f"it answers with error {status[1] or status[2]}"
    words = (str(error).splitlines() or [""])[0]
    return words[:REASON_CHARACTERS] or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        # urllib3 hands the cause of a broken connection on as an argument.
        yield from (argument for argument in error.args if isinstance(argument, BaseException))
        error = error.__cause__ or error.__context__


def set_verbosity(is_verbose: bool) -> None:
    """Let MLflow's own messages about its store through, or none: `why` tells what matters."""
    # At a locked database it would print a traceback of a hundred lines into a search's screen.
    level = logging.INFO if is_verbose else logging.CRITICAL
    logging.getLogger("mlflow.store.db.utils").setLevel(level)


set_verbosity(is_verbose=False)
