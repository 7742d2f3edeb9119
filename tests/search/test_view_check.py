"""The questions to an MLflow server before a search, to one that answers by a script."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from search import view_check
from search.config import ConfigError
from search.view_check import check_view

EXPERIMENTS = "/api/2.0/mlflow/experiments"
RUNS = "/api/2.0/mlflow/runs"
FOUND = {"experiment": {"experiment_id": "7", "lifecycle_stage": "active"}}
PATIENCE_SECONDS = 120.0
"""None of these tests is about how soon an answer comes."""

Script = dict[str, tuple[int, Any]]


@pytest.fixture(autouse=True)
def _without_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("USERNAME", "PASSWORD", "TOKEN", "URI"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))  # whose own log-in is in no file
    monkeypatch.setattr(view_check, "PATIENCE_SECONDS", PATIENCE_SECONDS)


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers each path as the server's script says; 404 for any other."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append((path, self.headers.get("Authorization")))  # type: ignore[attr-defined]
        status, body = self.server.script.get(path, (404, "nothing"))  # type: ignore[attr-defined]
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815 - the name that the server calls

    def log_message(self, *_: object) -> None:
        pass


class ScriptedServer(http.server.ThreadingHTTPServer):
    """What it answers, and what it was asked with which log-in."""

    def __init__(self, script: Script):
        super().__init__(("127.0.0.1", 0), Scripted)
        self.script = script
        self.asked: list[tuple[str, str | None]] = []
        self.address = f"127.0.0.1:{self.server_port}"


@contextmanager
def serving(script: Script) -> Iterator[ScriptedServer]:
    with ScriptedServer(script) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def check(script: Script, login: str = "") -> str | None:
    with serving(script) as server:
        return check_view(f"http://{login}{server.address}", "team")


def up_to(path: str, answer: tuple[int, Any]) -> Script:
    """A server of today that answers well but for one path."""
    well: Script = {
        "/version": (200, "3.17.2"),
        f"{EXPERIMENTS}/get-by-name": (200, FOUND),
        f"{RUNS}/search": (200, {}),
    }
    return well | {path: answer}


@pytest.mark.parametrize("version", ["2.22.1", "1.30.0"])
def test_a_server_of_an_older_version_is_refused_with_its_version_and_the_remedy(
    version: str,
) -> None:
    with pytest.raises(
        ConfigError, match=rf"must have version 3 .* has {version}; have it brought up"
    ):
        check({"/version": (200, version)})


@pytest.mark.parametrize("version", ["3.0.0", "3.17.2", "4.1.0rc0"])
def test_a_server_of_this_version_or_a_later_one_is_asked_further(version: str) -> None:
    with serving({"/version": (200, version)}) as server:
        check_view(f"http://{server.address}", "team")
    assert [path for path, _ in server.asked] == ["/version", f"{EXPERIMENTS}/get-by-name"]


def test_a_service_that_has_no_page_for_its_version_is_asked_further() -> None:
    denied = up_to(f"{RUNS}/create", (403, "Permission denied")) | {"/version": (404, "")}
    with pytest.raises(ConfigError, match="right to create runs in experiment team"):
        check(denied)


def test_a_page_that_is_no_mlflow_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"must lead to an MLflow server: .* no version"):
        check({"/version": (200, "<html>Please log in</html>")})


def test_a_server_that_asks_for_a_login_is_refused_where_none_is_given() -> None:
    with pytest.raises(ConfigError, match=r"asks for one .* set MLFLOW_TRACKING_USERNAME"):
        check({"/version": (401, "You are not authenticated")})


@pytest.mark.parametrize("given", ["variables", "token", "address"])
def test_a_login_that_is_refused_is_told_without_its_password(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = "jo:hunter2-hunter2@" if given == "address" else ""
    if given == "variables":
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "jo")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2-hunter2")
    if given == "token":
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2-hunter2")
    with pytest.raises(ConfigError, match="must accept the log-in") as caught:
        check({"/version": (401, "")}, login)
    assert "hunter2" not in str(caught.value)
    assert ("user jo" in str(caught.value)) == (given == "variables")


def test_a_token_is_sent_as_mlflow_sends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-token-of-mine")
    with (
        serving({"/version": (200, "2.0.0")}) as server,
        pytest.raises(ConfigError, match=r"2\.0\.0"),
    ):
        check_view(f"http://{server.address}", "team")
    assert server.asked == [("/version", "Bearer a-token-of-mine")]


@pytest.mark.parametrize(
    ("path", "right"),
    [
        (f"{EXPERIMENTS}/get-by-name", "to read experiment team"),
        (f"{RUNS}/search", "to read experiment team"),
        (f"{RUNS}/create", "to create runs in experiment team"),
    ],
)
def test_a_right_that_is_missing_is_named(path: str, right: str) -> None:
    with pytest.raises(ConfigError, match=f"needs the right {right}: .* choose another"):
        check(up_to(path, (403, "Permission denied")))


def test_the_right_to_create_an_experiment_is_named_where_it_is_missing() -> None:
    none_yet = up_to(f"{EXPERIMENTS}/get-by-name", (404, {"error_code": "RESOURCE_DOES_NOT_EXIST"}))
    with pytest.raises(ConfigError, match="needs the right to create experiment team"):
        check(none_yet | {f"{EXPERIMENTS}/create": (403, "Permission denied")})


def test_an_experiment_that_was_deleted_is_refused() -> None:
    gone = {"experiment": FOUND["experiment"] | {"lifecycle_stage": "deleted"}}
    with pytest.raises(ConfigError, match=r"experiment team is deleted in MLflow: restore it"):
        check(up_to(f"{EXPERIMENTS}/get-by-name", (200, gone)))


@pytest.mark.parametrize("status", [429, 500, 502, 503])
@pytest.mark.parametrize("path", ["/version", f"{EXPERIMENTS}/get-by-name", f"{RUNS}/create"])
def test_an_error_that_may_pass_is_no_refusal(path: str, status: int) -> None:
    assert check(up_to(path, (status, "busy"))) == f"it answers with error {status}"


def test_nobody_there_is_no_refusal(free_port: int) -> None:
    assert check_view(f"http://127.0.0.1:{free_port}", "team") == "connection refused"


def test_a_server_that_keeps_still_is_no_refusal_and_is_not_waited_for() -> None:
    class Still(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_over.wait(PATIENCE_SECONDS)

    is_over = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Still) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        uri = f"http://127.0.0.1:{server.server_port}"
        try:
            problem = check_view(uri, "team", patience_seconds=0.2)
            assert not is_over.is_set()  # it has not answered
        finally:
            is_over.set()
            server.shutdown()
            thread.join()
    assert problem == "not all was answered in 0.2 s"
