"""A search as a job of a Ray cluster: what is sent, what is refused, what a study's job is."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from search import submit
from search.__main__ import app
from search.config import ConfigError
from search.submit import check_address, sent_settings  # says first how Ray is to behave

# isort: split
from ray.job_submission import JobDetails, JobStatus, JobType


class Cluster:
    """A cluster's jobs in memory, in place of its dashboard."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.sent: list[list[str]] = []
        self.is_first_elsewhere = False

    def list_jobs(self) -> list[JobDetails]:
        return [details(**job) for job in self.jobs]

    def get_job_info(self, id_: str) -> JobDetails:
        return next(job for job in self.list_jobs() if job.submission_id == id_)

    def submit_job(self, *, submission_id: str, runtime_env: dict[str, Any], **job: Any) -> None:
        if self.is_first_elsewhere:
            self.is_first_elsewhere = False
            self.jobs.append({"submission_id": submission_id, **job})
        if any(known["submission_id"] == submission_id for known in self.jobs):
            raise RuntimeError("Request failed with status code 500")
        folder = Path(runtime_env["working_dir"])
        files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        self.sent.append(sorted(str(file) for file in files))
        self.jobs.append({"submission_id": submission_id, **job})

    def end(self, exit_code: int | None, status: JobStatus = JobStatus.FAILED) -> None:
        self.jobs[-1] |= {"driver_exit_code": exit_code, "status": status}


def details(**job: Any) -> JobDetails:
    state = {"type": JobType.SUBMISSION, "status": JobStatus.RUNNING}
    return JobDetails(**state | job)


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    for name in ("RAY_AUTH_MODE", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    made = Cluster()
    monkeypatch.setattr(submit, "JobSubmissionClient", lambda address: made)
    return made


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command is given, with a table."""
    (tmp_path / "tables").mkdir()
    for name in ("a", "b"):
        (tmp_path / "tables" / f"{name}.csv").write_text("when,load\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.output


def submitted(*flags: str, study: str = "load") -> tuple[int, str]:
    return ask("submit", "--study", study, "--no-wait", "--", *flags)


def test_the_job_is_the_same_command_with_its_study(cluster: Cluster) -> None:
    assert submitted("--trials", "5", "--set", "space.hidden_size={low: 4, high: 8}")[0] == 0
    [job] = cluster.jobs
    assert job["submission_id"] == "load~1"
    assert job["entrypoint"].endswith(
        "exec python -m search.run --trials 5 --set 'space.hidden_size={low: 4, high: 8}' "
        "--study=load"
    )


def test_the_code_and_the_files_of_relative_paths_go_along_and_nothing_else(
    cluster: Cluster, folder: Path
) -> None:
    (folder / "load.yaml").write_text(json.dumps({"data": {"path": "tables/*.csv"}}))
    (folder / "of-nobody-else.txt").touch()
    assert submitted("--config", "load.yaml")[0] == 0
    [sent] = cluster.sent
    code = {name for name in sent if name.partition("/")[0] in ("models", "pipelines", "search")}
    assert {"search/run.py", "models/forecaster.py", "pipelines/series.py"} <= code
    assert set(sent) - code == {"load.yaml", "tables/a.csv", "tables/b.csv"}
    assert not any(name.endswith(".pyc") for name in sent)


@pytest.mark.parametrize("path", ["/data/load.csv", "https://data.example.org/load.csv"])
def test_absolute_paths_and_urls_are_the_clusters_own(cluster: Cluster, path: str) -> None:
    assert submitted("--data", path)[0] == 0
    assert [name for name in cluster.sent[0] if name.endswith(".csv") and "tables" in name] == []


def test_record_and_view_lie_where_the_clusters_head_says(cluster: Cluster) -> None:
    submitted(study="one")
    submitted("--home", "/shared/mlruns", study="two")
    one, two = (job["entrypoint"] for job in cluster.jobs)
    assert one.startswith('export LSTM_SEARCH_HOME="${LSTM_SEARCH_HOME:-$HOME/mlruns}"; exec ')
    assert two.startswith("exec python -m search.run --home /shared/mlruns ")


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        (["--study", "b"], "drop --study behind the --"),
        (["--resume"], "drop --resume behind the --"),
        (["--address", "10.0.0.1:6379"], "drop --address behind the --"),
        (["--home", "mlruns"], "--home is an absolute path on the cluster's head: got mlruns"),
        (["--summary-json", "last.json"], "--summary-json is an absolute path"),
        (["--data", "missing.csv"], "no file missing.csv"),
        (["--data", "../b.csv"], "files are sent from below this folder: got ../b.csv"),
        (["--trials", "0"], "trials"),
        (["--trial", "5"], "No such option"),
    ],
)
def test_what_a_job_could_not_do_is_refused_before_anything_is_sent(
    cluster: Cluster, folder: Path, flags: list[str], rule: str
) -> None:
    (folder.parent / "b.csv").write_text("when,load\n")
    exit_code, said = submitted(*flags)
    assert (exit_code, cluster.jobs) == (2, [])
    assert rule in " ".join(said.split())


@pytest.mark.parametrize(
    "flags",
    [
        ["--storage", "postgresql://jo:hunter2@db/studies"],
        ["--storage", "postgresql://db/studies?user=jo&password=hunter2"],
        ["--tracking-uri", "https://jo:hunter2@mlflow.example.org"],
    ],
)
def test_a_password_is_refused_and_not_said(cluster: Cluster, flags: list[str]) -> None:
    exit_code, said = submitted(*flags)
    assert (exit_code, cluster.jobs, "hunter2" in said) == (2, [], False)
    assert "a job's command and settings are for all to read" in " ".join(said.split())


def test_of_the_environment_only_the_address_and_the_experiment_of_mlflow_go_along() -> None:
    kept = {"MLFLOW_TRACKING_URI": "https://mlflow.example.org", "MLFLOW_EXPERIMENT_NAME": "load"}
    secret = {"MLFLOW_TRACKING_PASSWORD": "hunter2", "PGPASSWORD": "hunter2", "RAY_AUTH_TOKEN": "t"}
    assert sent_settings(kept | secret) == kept
    assert sent_settings({"MLFLOW_TRACKING_URI": "sqlite:///mine.db"}) == {}
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI has a password in it"):
        sent_settings({"MLFLOW_TRACKING_URI": "https://jo:hunter2@mlflow.example.org"})


def test_a_search_that_runs_already_is_not_submitted_again(cluster: Cluster) -> None:
    submitted("--trials", "5")
    assert submitted("--trials", "5") == (0, "job load~1 runs already\n")
    assert len(cluster.jobs) == 1


def test_one_that_runs_with_other_flags_is_named_and_left_alone(cluster: Cluster) -> None:
    submitted("--trials", "5")
    exit_code, said = submitted("--trials", "6")
    assert (exit_code, len(cluster.jobs)) == (2, 1)
    assert "job load~1 searches load with other flags" in " ".join(said.split())


@pytest.mark.parametrize("exit_code", [0, 4])
def test_one_that_is_done_is_reported(cluster: Cluster, exit_code: int) -> None:
    submitted("--trials", "5")
    cluster.end(exit_code)
    assert submitted("--trials", "5") == (0, "job load~1 is over\n")
    assert ask("job", "status", "load")[0] == exit_code


@pytest.mark.parametrize(
    ("exit_code", "status", "told"),
    [(1, "FAILED", 1), (-9, "FAILED", 137), (None, "FAILED", 1), (None, "STOPPED", 143)],
)
def test_one_that_broke_or_was_stopped_goes_on_in_a_new_job(
    cluster: Cluster, exit_code: int | None, status: str, told: int
) -> None:
    submitted("--trials", "5")
    cluster.end(exit_code, JobStatus(status))
    assert ask("job", "status", "load")[0] == told
    assert submitted("--trials", "5")[0] == 0
    assert [job["submission_id"] for job in cluster.jobs] == ["load~1", "load~2"]


def test_a_done_search_of_other_flags_goes_on_in_a_new_job(cluster: Cluster) -> None:
    submitted("--trials", "5")
    cluster.end(0)
    submitted("--trials", "9")
    assert [job["submission_id"] for job in cluster.jobs] == ["load~1", "load~2"]


def test_who_comes_second_to_a_name_finds_the_job_of_the_first(cluster: Cluster) -> None:
    cluster.is_first_elsewhere = True
    assert submitted("--trials", "5") == (0, "job load~1 runs already\n")
    assert len(cluster.jobs) == 1


def test_a_cluster_that_takes_no_job_is_not_asked_for_ever(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("Request failed with status code 500: no space left")

    monkeypatch.setattr(cluster, "submit_job", refuse)
    exit_code, said = submitted()
    assert (exit_code, said) == (1, "error: Request failed with status code 500: no space left\n")


def test_jobs_of_other_programs_and_studies_are_left_alone(cluster: Cluster) -> None:
    cluster.jobs += [
        {"submission_id": "raysubmit_1", "entrypoint": "python train.py", "metadata": {}},
        {"submission_id": "load-2~7", "entrypoint": "x", "metadata": {"study": "load-2"}},
    ]
    assert ask("job", "status", "load")[0] == 2
    submitted()
    assert cluster.jobs[-1]["submission_id"] == "load~1"


def test_a_name_may_hold_the_day_but_nothing_that_the_table_must_tell(cluster: Cluster) -> None:
    assert submitted(study="nightly-{date}")[0] == 0
    assert cluster.jobs[0]["submission_id"] == f"nightly-{date.today()}~1"
    exit_code, said = submitted(study="nightly-{data}")
    assert (exit_code, len(cluster.jobs)) == (2, 1)
    assert "use {date}" in said


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8265", "ray://10.0.0.1:10001", "http://", "http://jo:hunter2@host:8265"]
)
def test_an_address_that_is_no_dashboards_is_refused_without_its_login(address: str) -> None:
    with pytest.raises(ConfigError, match="--address is that of a cluster's dashboard") as caught:
        check_address(address, is_insecure=True)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "head.example.org", "[2001:db8::1]", "127.0.0.1.nip.io"]
)
def test_the_token_goes_to_another_host_only_by_https(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(ConfigError, match="the token goes to another host by https:// only"):
        check_address(f"http://{host}:8265", is_insecure=False)
    check_address(f"https://{host}:8265", is_insecure=False)
    check_address(f"http://{host}:8265", is_insecure=True)
    monkeypatch.delenv("RAY_AUTH_MODE")  # then none is sent
    check_address(f"http://{host}:8265", is_insecure=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.9.9.9"])
def test_the_token_may_go_to_this_machine(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    check_address(f"http://{host}:8265", is_insecure=False)
