"""A real MLflow server with log-in, as a team runs it: who passes the check, and a search there."""

from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
import requests
from mlflow import MlflowClient
from typer.testing import CliRunner

from search import SearchConfig, run_search, view_check
from search.__main__ import app
from search.config import ConfigError, Tracking
from search.config_file import parse_config
from search.doctor import Finding, Verdict, examine
from search.run import app as run_app
from search.view_check import check_view

# A real server; a busy machine may take minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN", raising=False)
    monkeypatch.setattr(view_check, "PATIENCE_SECONDS", 300.0)


LOGINS = {
    "admin": "an-admin-of-tests",
    "reader": "a-reader-of-tests",
    "editor": "an-editor-of-tests",
}


@pytest.fixture(scope="module")
def team_server(
    tmp_path_factory: pytest.TempPathFactory, make_mlflow_server: Callable[[Path], Any]
) -> Iterator[Any]:
    """MLflow with its own log-in: an admin, a reader, and an editor of the experiment `shared`."""
    folder = tmp_path_factory.mktemp("team")
    rules = folder / "login.ini"
    rules.write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\n"
        f"database_uri = sqlite:///{folder / 'logins.db'}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    server = make_mlflow_server(folder)
    try:
        server.start(
            "--app-name=basic-auth",
            MLFLOW_AUTH_CONFIG_PATH=str(rules),
            MLFLOW_AUTH_ADMIN_PASSWORD=LOGINS["admin"],
            MLFLOW_FLASK_SERVER_SECRET_KEY="of these tests",
        )
        with pytest.MonkeyPatch.context() as patch:
            log_in("admin", patch)
            for name in ("reader", "editor"):
                login = {"username": name, "password": LOGINS[name]}
                administer(server.uri, "2.0/mlflow/users/create", login)
            shared = MlflowClient(server.uri).create_experiment("shared")
            right = {"resource_type": "experiment", "resource_id": shared, "permission": "EDIT"}
            granted = {"username": "editor"} | right
            administer(server.uri, "3.0/mlflow/users/permissions/grant", granted)
        yield server
    finally:
        server.stop()


def administer(uri: str, path: str, content: dict[str, str]) -> None:
    # MLflow's own client for this loads its whole server into this process.
    login = ("admin", LOGINS["admin"])
    requests.post(f"{uri}/api/{path}", json=content, auth=login, timeout=120).raise_for_status()


def log_in(user: str, patch: pytest.MonkeyPatch, password: str | None = None) -> None:
    patch.setenv("MLFLOW_TRACKING_USERNAME", user)
    patch.setenv("MLFLOW_TRACKING_PASSWORD", password or LOGINS[user])


def runs_in(uri: str, experiment: str) -> list[Any]:
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id]))


def small_search(home: Path) -> SearchConfig:
    space = {"num_layers": 1, "hidden_size": {"low": 4, "high": 8}, "lookback": 12}
    return parse_config(
        {
            "study": "team",
            "home": str(home),
            "data": {"horizon": 6},
            "space": space | {"bidirectional": False, "patch_length": 1, "batch_size": 16},
            "training": {
                "max_steps": 6,
                "evaluate_every_steps": 2,
                "warmup_steps": 0,
                "precision": "float32",
            },
            "search": {"trials": 2, "use_default_starts": False},
            "resources": {"device": "cpu"},
        }
    )


def loads() -> pd.DataFrame:
    rows = np.arange(480)
    daily = 50 + 10 * np.sin(2 * np.pi * rows / 24)
    when = pd.date_range("2024-01-01", periods=len(rows), freq="h")
    noise = np.random.default_rng(1).normal(size=len(rows))
    return pd.DataFrame({"when": when, "load": (daily + noise).round(3)})


def test_a_user_with_all_rights_passes_and_leaves_no_run(
    team_server: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log_in("admin", monkeypatch)
    assert check_view(team_server.uri, "made by the check") is None
    assert runs_in(team_server.uri, "made by the check") == []
    assert capfd.readouterr() == ("", "")


def test_who_may_not_delete_passes_and_leaves_one_run_for_all_checks(
    team_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in("editor", monkeypatch)
    for _ in range(2):
        assert check_view(team_server.uri, "shared") is None
    kinds = [(r.data.tags["kind"], r.info.status) for r in runs_in(team_server.uri, "shared")]
    assert kinds.count(("check", "FINISHED")) == 1
    assert ("check", "RUNNING") not in kinds


def test_who_may_only_read_is_refused(team_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in("reader", monkeypatch)
    rule = "needs the right to create runs in experiment Default: .* denies it to user reader;"
    with pytest.raises(ConfigError, match=rule):
        check_view(team_server.uri, "Default")


def test_a_wrong_password_ends_the_command_before_anything_is_recorded(
    team_server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log_in("admin", monkeypatch, "not-the-password")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team_server.uri)
    ended = CliRunner().invoke(run_app, ["--home", str(tmp_path / "home"), "--trials", "1"])
    assert ended.exit_code == 2
    assert "must accept the log-in" in ended.output
    assert "not-the-password" not in ended.output
    assert list((tmp_path / "home").rglob("*.db")) == []


def test_a_place_of_files_that_takes_none_is_refused(
    team_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in("admin", monkeypatch)
    place = MlflowClient(team_server.uri).create_experiment("broken")
    (team_server.folder / "artifacts").mkdir(exist_ok=True)
    (team_server.folder / "artifacts" / place).write_text("a file where a folder must be")
    rule = r"must take and give files: .* belong to mlflow-artifacts:/.*; see the server's"
    with pytest.raises(ConfigError, match=rule):
        check_view(team_server.uri, "broken")
    assert runs_in(team_server.uri, "broken") == []


def test_doctor_says_the_same_and_makes_no_experiment(
    team_server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team_server.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "not there yet")
    config = SearchConfig(home=str(tmp_path))
    log_in("admin", monkeypatch)
    text = f"{team_server.uri} answers, experiment not there yet"
    assert Finding(Verdict.OK, "MLflow", text) in list(examine(config))
    assert MlflowClient(team_server.uri).get_experiment_by_name("not there yet") is None
    log_in("admin", monkeypatch, "not-the-password")
    [found] = [each for each in examine(config) if each.what == "MLflow"]
    assert (found.verdict, "must accept the log-in" in found.text) == (Verdict.BROKEN, True)


def test_a_search_with_login_is_shown_there_whole(
    team_server: Any,
    local_ray: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    log_in("editor", monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team_server.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "shared")
    result = run_search(small_search(tmp_path), data=loads(), is_quiet=True)
    if result.mlflow_url is None:  # a busy machine may outlast the end's patience
        synced = CliRunner().invoke(app, ["sync", "team", "--home", str(tmp_path)])
        assert synced.exit_code == 0
    runs = [r for r in runs_in(team_server.uri, "shared") if r.data.tags["kind"] != "check"]
    shown = {run.data.tags.get("trial"): run.data.tags.get("outcome") for run in runs}
    recorded = {str(trial.number): trial.state.value for trial in result.trials}
    assert len(recorded) == 2
    assert shown == {None: None} | recorded


def test_a_login_in_the_address_is_used_and_not_noted(
    team_server: Any,
    local_ray: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "shared")
    home = tmp_path / "home"
    address = team_server.uri.replace("//", f"//editor:{LOGINS['editor']}@")
    result = run_search(
        small_search(home).model_copy(update={"tracking": Tracking(uri=address)}),
        data=loads(),
        is_quiet=True,
    )
    assert result.mlflow_url is None or result.mlflow_url.startswith(team_server.uri)
    kept = [path for path in home.rglob("*") if path.is_file()]
    assert home / "studies" / "team.db" in kept
    kept.append(team_server.folder / "mlflow.db")
    assert not [path for path in kept if LOGINS["editor"].encode() in path.read_bytes()]
    resumed = CliRunner().invoke(run_app, ["--resume", "team", "--home", str(home)])
    assert resumed.exit_code == 2
    assert "must be given a log-in" in " ".join(resumed.output.split())


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/version",
        "/signup",
        "/graphql",
        "/get-artifact?path=x&run_uuid=x",
        "/api/2.0/mlflow/experiments/search?max_results=1",
        "/ajax-api/2.0/mlflow/experiments/search?max_results=1",
        "/api/2.0/mlflow/registered-models/search",
        "/api/2.0/mlflow-artifacts/artifacts?path=.",
        "/api/2.0/mlflow-artifacts/artifacts/x",
    ],
)
def test_without_login_a_door_is_shut(team_server: Any, path: str) -> None:
    assert knock(team_server, "GET", path)[0] == 401
    assert knock(team_server, "POST", path)[0] == 401
    assert knock(team_server, "PUT", path)[0] == 401


@pytest.mark.parametrize("way_out", ["..", "%2e%2e", "%252e%252e", "..%2f..", "a/../.."])
def test_no_path_leads_out_of_the_artifacts(
    team_server: Any, monkeypatch: pytest.MonkeyPatch, way_out: str
) -> None:
    log_in("admin", monkeypatch)
    client = MlflowClient(team_server.uri)
    place = client.create_experiment(f"way out {way_out}")
    run = client.create_run(place).info.run_id
    client.log_text(run, "inside", "inside.txt")
    artifacts = "/api/2.0/mlflow-artifacts/artifacts"
    inside = f"{artifacts}/{place}/{run}/artifacts"
    assert knock(team_server, "GET", f"{inside}/inside.txt", "admin") == (200, "inside")
    for folder in (team_server.folder, team_server.folder / "artifacts"):
        (folder / "outside.txt").write_text("a secret")
    before = files_in(team_server.folder)
    for method, path in (
        ("GET", f"{artifacts}/{way_out}/outside.txt"),
        ("GET", f"{artifacts}?path={way_out}"),
        ("GET", f"/get-artifact?path={way_out}/outside.txt&run_uuid={run}"),
        ("GET", f"/api/2.0/mlflow/artifacts/list?path={way_out}&run_id={run}"),
        ("PUT", f"{artifacts}/{way_out}/written.txt"),
        ("POST", f"/ajax-api/2.0/mlflow/upload-artifact?path={way_out}/w.txt&run_uuid={run}"),
    ):
        status, answer = knock(team_server, method, path, "admin")
        assert (status, "Invalid path" in answer) == (400, True), (method, path, answer)
    assert files_in(team_server.folder) == before


def knock(server: Any, method: str, path: str, user: str = "") -> tuple[int, str]:
    """The status and text of an answer to a path that is sent as it is written."""
    login = f"{user}:{LOGINS[user]}".encode() if user else b""
    headers = {"Authorization": f"Basic {b64encode(login).decode()}"} if user else {}
    with closing(HTTPConnection(urlsplit(server.uri).netloc, timeout=120)) as connection:
        connection.request(method, path, body=b"x" if method != "GET" else None, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*.txt") if path.is_file()}
