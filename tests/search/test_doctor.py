"""The doctor's verdicts: what is well, what is a warning and what is broken."""

import errno
import http.server
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from search import doctor
from search.__main__ import app
from search.config import SearchConfig
from search.doctor import Finding, Verdict, examine
from search.places import shown_address


@pytest.fixture(autouse=True)
def _plain_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name in doctor.VARIABLES:
        if name != "TMPDIR":
            monkeypatch.delenv(name, raising=False)
    # What Ray has left on this machine is measured file by file, at each examination.
    temporary = tmp_path_factory.mktemp("temporary")
    (temporary / "ray").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))


def findings(home: Path, what: str) -> list[Finding]:
    return [finding for finding in examine(SearchConfig(home=str(home))) if finding.what == what]


def finding(home: Path, what: str) -> Finding:
    [found] = findings(home, what)
    return found


def test_a_machine_that_has_all_is_told_its_versions_and_ends_with_0(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--home", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert {line.split()[0] for line in lines[:-1]} <= {"ok", "warning"}
    shown = {line.split()[1] for line in lines}
    assert shown >= {"python", "torch", "ray", "optuna", "mlflow", "CPU", "GPU", "home", "studies"}
    assert lines[-1].startswith("0 broken, ")
    assert not (tmp_path / "new").exists()


def test_a_home_that_is_a_file_is_broken_and_the_command_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = finding(tmp_path / "file" / "home", "home")
    assert found.verdict is Verdict.BROKEN
    assert "is a file; choose another by --home" in found.text
    done = CliRunner().invoke(app, ["doctor", "--home", str(tmp_path / "file" / "home")])
    assert done.exit_code == 1


def test_a_folder_without_the_right_to_write_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(dir: Path) -> None:  # as the system does, but for root too
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), dir)

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    found = finding(tmp_path, "home")
    assert (found.verdict, "Permission denied" in found.text) == (Verdict.BROKEN, True)


def test_a_disk_that_is_nearly_full_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    found = finding(tmp_path, "home")
    assert (found.verdict, "1.0 MB free: make room" in found.text) == (Verdict.WARNING, True)


def test_a_version_that_was_not_tested_is_a_warning_and_a_missing_package_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name == "optuna":
            raise doctor.PackageNotFoundError(name)
        return "1.0.0" if name == "ray" else "0"

    needs = ["ray[tune]>=2.60,<2.61", "optuna>=5", "pytest>=8; extra == 'dev'"]
    monkeypatch.setattr(doctor, "version", version)
    monkeypatch.setattr(doctor, "requires", lambda _: needs)
    ray, optuna = finding(tmp_path, "ray"), finding(tmp_path, "optuna")
    assert (ray.verdict, "tested is <2.61,>=2.60" in ray.text) == (Verdict.WARNING, True)
    assert (optuna.verdict, "is missing" in optuna.text) == (Verdict.BROKEN, True)
    assert findings(tmp_path, "pytest") == []


def test_a_gpu_that_this_torch_cannot_use_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "has_unused_gpu", lambda: True)
    found = finding(tmp_path, "GPU")
    assert (found.verdict, "CPU-only build" in found.text) == (Verdict.WARNING, True)


def test_a_record_that_cannot_be_read_is_broken(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "torn.db").write_bytes(b"no database at all" * 100)
    assert "1 in " in finding(tmp_path, "studies").text
    found = finding(tmp_path, "study")
    assert found.verdict is Verdict.BROKEN
    assert "record of study torn must be readable: got file is not a database" in found.text


def test_a_look_that_fails_is_a_finding_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> list[str]:
        raise OSError("the disk is gone")

    monkeypatch.setattr(doctor, "known_studies", fail)
    found = finding(tmp_path, "records")
    assert (found.verdict, "the disk is gone" in found.text) == (Verdict.BROKEN, True)
    assert finding(tmp_path, "MLflow").verdict is Verdict.OK


# MLflow and Ray


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers as an MLflow without an experiment, or with an error at any other address."""

    def do_GET(self) -> None:
        known = {"/version": (200, b"3.17.2")}
        known["/api/2.0/mlflow/experiments/get-by-name"] = (404, b"{}")
        status, content = known.get(self.path.partition("?")[0], (503, b""))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_tracking_server_is_asked_whether_it_is_well(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{server}")
    assert finding(tmp_path, "MLflow") == Finding(
        Verdict.OK, "MLflow", f"http://{server} answers, experiment lstm-search"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{server}/elsewhere")
    found = finding(tmp_path, "MLflow")
    assert (found.verdict, "error 503" in found.text) == (Verdict.WARNING, True)


def test_a_tracking_server_that_is_not_there_is_a_warning_for_trials_need_none(
    tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port}")
    found = finding(tmp_path, "MLflow")
    assert (found.verdict, "refused" in found.text) == (Verdict.WARNING, True)


def test_a_cluster_is_broken_where_nobody_answers(
    tmp_path: Path, server: str, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port}")
    texts = [(f.verdict, f.text) for f in findings(tmp_path, "Ray")]
    assert any(v is Verdict.BROKEN and "no cluster answers at" in text for v, text in texts)
    monkeypatch.setenv("RAY_ADDRESS", server)
    assert all(found.verdict is Verdict.OK for found in findings(tmp_path, "Ray"))


def test_no_password_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{free_port}/x")
    texts = [found.text for found in examine(SearchConfig(home=str(tmp_path)))]
    assert any(f"MLFLOW_TRACKING_URI=http://127.0.0.1:{free_port}/x" in text for text in texts)
    assert not any("secret" in text for text in texts)


def test_no_password_of_a_query_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://host/mlflow?password=secret")
    texts = [found.text for found in examine(SearchConfig(home=str(tmp_path)))]
    assert any("MLFLOW_TRACKING_URI=postgresql://host/mlflow?password=***" in t for t in texts)
    assert not any("secret" in text for text in texts)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:p@ss@db:5432/x", "postgresql://db:5432/x"),
        ("postgresql://me:p/ss@db:5432/x", "postgresql://db:5432/x"),
        ("postgresql://db/x?password=pass&user=me", "postgresql://db/x?password=***&user=me"),
        ("postgresql://db/x?sslpassword=pass", "postgresql://db/x?sslpassword=***"),
        ("http://me:p/ss@host:5000/x", "http://host:5000/x"),
        ("http://host:5000", "http://host:5000"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("http://host/a@b", "http://host/a@b"),
        ("http://[::1]:5000/a@b", "http://[::1]:5000/a@b"),
        ("sqlite:////tmp/a@b.db", "sqlite:////tmp/a@b.db"),
        ("sqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
        ("/some/folder", "/some/folder"),
    ],
)
def test_an_address_is_shown_without_name_and_password(address: str, shown: str) -> None:
    assert shown_address(address) == shown
