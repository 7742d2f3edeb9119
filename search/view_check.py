"""The MLflow server, asked before the first trial whether it takes what a search shows.

What a person has to put right (a log-in, a right, a version, the place of the files) is refused
while it costs nothing. A server that is only away or unwell is no reason to wait: trials go on
without it.
"""

import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from requests import JSONDecodeError

from search.config import ConfigError
from search.mlflow_store import EXPERIMENT_TAGS, why  # says, before MLflow, how it is to behave
from search.outcome import without_secrets
from search.places import shown_address

# isort: split
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

PATIENCE_SECONDS = 9.0
"""How long the server may take for all questions together."""

OLDEST_VERSION = 3
"""The first one with models as this project registers them."""

PROBE_TAG = {"key": "kind", "value": "check"}
PROBE_FILE = "check.txt"
PROBE_TEXT = "Written and read back by lstm-search before a search. It may be deleted.\n"


class _UnwellError(Exception):
    """The server answers with what may pass, such as error 503."""


@dataclass(frozen=True)
class _Answer:
    status: int
    body: Any
    """What its JSON says; None where it is none."""
    text: str


def check_view(
    uri: str,
    experiment: str,
    *,
    makes_experiment: bool = True,
    patience_seconds: float | None = None,
) -> str | None:
    """Make a run and a file in the experiment, read the file back and delete the run.

    Args:
        uri: the server.
        experiment: its name.
        makes_experiment: whether a missing one is made; else its runs are not looked at.
        patience_seconds: for all of it; None: `PATIENCE_SECONDS`.

    Returns:
        Why the server takes nothing just now; None where it takes everything.

    Raises:
        ConfigError: for what stays wrong until somebody puts it right.
    """
    answers: SimpleQueue[str | ConfigError | None] = SimpleQueue()
    check = _Check(uri, experiment)
    # A thread, since a store of files may keep its client waiting for as long as it likes.
    threading.Thread(
        target=lambda: answers.put(check.outcome(makes_experiment)), name="view-check", daemon=True
    ).start()
    patience = PATIENCE_SECONDS if patience_seconds is None else patience_seconds
    try:
        outcome = answers.get(timeout=patience)
    except Empty:
        return f"not all was answered in {patience:g} s"
    if isinstance(outcome, ConfigError):
        raise outcome
    return outcome


class _Check:
    """The questions to one server."""

    def __init__(self, uri: str, experiment: str):
        self._uri = uri
        self._experiment = experiment
        self._shown = shown_address(uri)
        self._login = get_default_host_creds(uri.rstrip("/"))

    def outcome(self, makes_experiment: bool) -> str | ConfigError | None:
        """Ask everything; what is wrong is returned, for it crosses threads."""
        try:
            self._check_version()
            experiment_id = self._experiment_id(makes_experiment)
            if experiment_id is not None:
                self._check_runs(experiment_id)
        except ConfigError as error:
            return error
        except _UnwellError as error:
            return str(error)
        except Exception as error:  # whatever else it is, trials need no MLflow
            return without_secrets(why(error), None)
        return None

    def _check_version(self) -> None:
        answer = self._ask("GET", "/version", "to be asked for its version")
        if answer.status == 404:
            return  # a service that speaks MLflow's language, and has versions of its own
        first = answer.text.strip().partition(".")[0]
        if not first.isdecimal():
            raise ConfigError(
                f"MLFLOW_TRACKING_URI or tracking.uri must lead to an MLflow server: "
                f"{self._shown}/version answers with no version; put the address right, or log in "
                "where a page asks for it"
            )
        if int(first) < OLDEST_VERSION:
            raise ConfigError(
                f"the MLflow server must have version {OLDEST_VERSION} or a later one: "
                f"{self._shown} has {answer.text.strip()[:20]}; have it brought "
                "up to date, or take the local store (MLFLOW_TRACKING_URI not set)"
            )

    def _experiment_id(self, makes_experiment: bool) -> str | None:
        """The experiment's id; None where there is none and none is to be made."""
        found = self._find_experiment()
        if found is None and makes_experiment:
            tags = [{"key": key, "value": value} for key, value in EXPERIMENT_TAGS.items()]
            content = {"name": self._experiment, "tags": tags}
            right = f"to create experiment {self._experiment}"
            self._ask("POST", "/api/2.0/mlflow/experiments/create", right, content)
            found = self._find_experiment()  # by whoever has made it
            if found is None:
                raise _UnwellError(f"it does not make experiment {self._experiment}")
        if found is None:
            return None
        if found["lifecycle_stage"] == "deleted":
            raise ConfigError(
                f"experiment {self._experiment} is deleted in MLflow: restore it there or choose "
                "another --experiment"
            )
        return str(found["experiment_id"])

    def _find_experiment(self) -> Any:
        answer = self._ask(
            "GET",
            "/api/2.0/mlflow/experiments/get-by-name",
            f"to read experiment {self._experiment}",
            query={"experiment_name": self._experiment},
        )
        if answer.status == 404 and answer.body is not None:
            return None
        return self._accepted(answer)["experiment"]

    def _check_runs(self, experiment_id: str) -> None:
        run = self._left_run(experiment_id)
        if run is not None:
            self._check_files(run)
            return
        run = self._make_run(experiment_id)
        try:
            self._check_files(run)
        finally:
            self._delete_run(run["info"]["run_id"])

    def _left_run(self, experiment_id: str) -> Any:
        """A run of an earlier check by somebody who may not delete: one is enough for all."""
        wanted = "tags.kind = 'check' and attributes.status = 'FINISHED'"
        content = {"experiment_ids": [experiment_id], "filter": wanted, "max_results": 1}
        right = f"to read experiment {self._experiment}"
        answer = self._ask("POST", "/api/2.0/mlflow/runs/search", right, content)
        return next(iter(self._accepted(answer).get("runs", [])), None)

    def _make_run(self, experiment_id: str) -> Any:
        content = {
            "experiment_id": experiment_id,
            "run_name": "check of the server",
            "start_time": int(time.time() * 1000),
            "tags": [PROBE_TAG],
        }
        right = f"to create runs in experiment {self._experiment}"
        answer = self._ask("POST", "/api/2.0/mlflow/runs/create", right, content)
        return self._accepted(answer)["run"]

    def _delete_run(self, run_id: str) -> None:
        content: dict[str, Any] = {"run_id": run_id}
        if self._request("POST", "/api/2.0/mlflow/runs/delete", content).status != 200:
            # A search needs no right to delete; an ended run is found again by the next check.
            ended = {"status": "FINISHED", "end_time": int(time.time() * 1000)}
            self._request("POST", "/api/2.0/mlflow/runs/update", content | ended)

    def _check_files(self, run: Any) -> None:
        place = str(run["info"]["artifact_uri"])
        try:
            found = self._there_and_back(place)
            problem = "" if found == PROBE_TEXT else "what was written comes back changed"
        except Exception as error:  # of any library: MLflow loads the one that a place needs
            self._check_version()  # raises where the server has gone meanwhile
            problem = why(error)
        if problem:
            raise ConfigError(
                f"the MLflow server must take and give files: those of experiment "
                f"{self._experiment} at {self._shown} belong to "
                f"{without_secrets(place, None)}, where this fails: "
                f"{without_secrets(problem, None)}; see the server's --artifacts-destination and "
                "who may write there, or choose another --experiment"
            )

    def _there_and_back(self, place: str) -> str:
        # A client would ask for the run before each step.
        files = get_artifact_repository(place, tracking_uri=self._uri)
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder, PROBE_FILE)
            written.write_text(PROBE_TEXT, encoding="utf-8")
            files.log_artifact(str(written))
            written.unlink()
            read = files.download_artifacts(PROBE_FILE, folder)
            return Path(read).read_text(encoding="utf-8")

    def _ask(
        self,
        method: str,
        path: str,
        right: str,
        content: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> _Answer:
        """An answer that is neither a refusal nor a sign of illness."""
        answer = self._request(method, path, content, query)
        if answer.status == 401:
            raise ConfigError(self._about_the_login())
        if answer.status == 403:
            raise ConfigError(
                f"a search needs the right {right}: {self._shown} denies it to "
                f"{self._who()}; have it granted there, or choose another --experiment"
            )
        if answer.status == 429 or answer.status >= 500:
            raise _UnwellError(f"it answers with error {answer.status}")
        return answer

    def _request(
        self,
        method: str,
        path: str,
        content: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> _Answer:
        # MLflow's own, so that log-in, certificates and proxies are those of the view.
        response = http_request(
            self._login,
            path,
            method,
            max_retries=0,
            raise_on_status=False,
            json=content,
            params=query,
        )
        try:
            body = response.json()
        except JSONDecodeError:
            body = None
        return _Answer(response.status_code, body, response.text)

    def _accepted(self, answer: _Answer) -> Any:
        if answer.status != 200 or not isinstance(answer.body, dict):
            raise _UnwellError(f"it answers with error {answer.status}")
        return answer.body

    def _about_the_login(self) -> str:
        variables = (
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
        if self._has_login():
            return (
                f"the MLflow server must accept the log-in: {self._shown} refuses that of "
                f"{self._who()}; put {variables} right"
            )
        return (
            f"the MLflow server must be given a log-in: {self._shown} asks for one and there is "
            f"none; set {variables}"
        )

    def _has_login(self) -> bool:
        is_in_address = self._shown != self._uri  # it is shown without
        has_password = bool(self._login.username and self._login.password)
        return is_in_address or has_password or bool(self._login.token)

    def _who(self) -> str:
        if self._login.username and self._login.password:
            return f"user {self._login.username}"
        return "this user" if self._has_login() else "whoever has not logged in"
