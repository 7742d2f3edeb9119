"""Searches as jobs of a real Ray cluster with a token, submitted from its host and from another."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.hosts import Host, network, processes
from benchmarks.invariants import check_count, check_weights, search_data
from search.config import SearchConfig
from search.places import config_of_study, record_url
from search.record import TrialRecord
from search.stored_studies import read_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 300
SECRET = "kept-by-the-cluster"
TINY = (
    "--data=table.csv",
    "--no-finalize",
    "--device=cpu",
    "--precision=float32",
    "--pruner=none",
    "--set=search.use_default_starts=false",
    "--set=space.num_layers=1",
    "--set=space.hidden_size={low: 4, high: 8}",
    "--set=space.lookback=12",
    "--set=space.batch_size=16",
    "--set=training.evaluate_every_steps=50",
)
SHORT = (*TINY, "--trials=3", "--set=training.max_steps=100")
# Long enough to be met in the middle on any machine, by a signal and by a command.
LONG = (*TINY, "--trials=4", "--set=training.max_steps=1000")
LONGER = (*TINY, "--trials=4", "--set=training.max_steps=2000")


class Cluster:
    """Two hosts; Ray with its jobs on the first."""

    def __init__(self, one: Host, two: Host):
        self.one, self.two = one, two
        self.folder = one.network.folder
        self.home = self.folder / "home"

    def begin(self, *arguments: str, host: Host | None = None) -> "subprocess.Popen[str]":
        """Begin `python -m search` on a host, where the table is."""
        token = self.one.network.token
        settings = [f"-C{self.folder}", f"PYTHONPATH={ROOT}", f"RAY_AUTH_TOKEN_PATH={token}"]
        inside = (host or self.one).command("env", *settings)
        command = subprocess.Popen(
            [*inside, sys.executable, "-m", "search", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.one.network.started.append(command)  # type: ignore[arg-type]
        return command

    def ask(self, *arguments: str, host: Host | None = None) -> tuple[int, str]:
        command = self.begin(*arguments, host=host)
        said, _ = command.communicate(timeout=PATIENCE_SECONDS)
        return command.returncode, said

    def trials(self, study: str) -> list[TrialRecord]:
        config = SearchConfig(home=str(self.home / "mlruns"))
        return read_study(record_url(config, study), study)[1]

    def wait_for_steps(self, study: str) -> None:
        """Until a trial of the study has evaluated."""
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            if (self.home / "mlruns" / "studies" / f"{study}.db").exists():
                try:
                    if any(trial.evaluations for trial in self.trials(study)):
                        return
                except ValueError:  # a record that is being made
                    pass
            time.sleep(0.3)
        raise AssertionError("no trial has evaluated")

    def is_right(self, study: str, num_trials: int) -> list[object]:
        config = config_of_study(study, str(self.home / "mlruns"), None)
        config = config.model_copy(
            update={"data": config.data.model_copy(update={"path": str(self.folder / "table.csv")})}
        )
        trials = self.trials(study)
        found = check_count(trials, num_trials, is_done=True)
        folder = config.studies_folder / study
        return [*found, *check_weights(folder, config, search_data(config), trials)]

    def jobs_page(self, *flags: str, host: Host | None = None) -> str:
        """What the jobs' interface answers to whoever asks by hand: the body, then the status."""
        address = f"http://{self.one.address}:8265/api/jobs/"
        ask = [
            "curl",
            "--silent",
            "--show-error",
            "--max-time",
            "60",
            "--write-out",
            "%{http_code}",
        ]
        command = (host or self.one).command(*ask, *flags, address)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, namespaces: None, empty_view: Path
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "home" / "mlruns").mkdir(parents=True)
    shutil.copy(empty_view, folder / "home" / "mlruns" / "mlflow.db")
    rng = np.random.default_rng(0)
    hours = pd.date_range("2024-01-01", periods=480, freq="h")
    load = np.sin(2 * np.pi * np.arange(480) / 24) + 0.1 * rng.normal(size=480)
    pd.DataFrame({"time": hours, "load": load}).to_csv(folder / "table.csv", index=False)
    with network(folder) as made:
        hosts = Cluster(made.add_host(), made.add_host())
        python = Path(sys.executable).parent
        environment = {
            "HOME": str(hosts.home),
            "PATH": f"{python}:{os.environ['PATH']}",
            "MLFLOW_TRACKING_PASSWORD": SECRET,
        }
        hosts.one.start_ray(environment=environment, dashboard_host="0.0.0.0")
        yield hosts


@pytest.fixture(scope="module")
def said(cluster: Cluster) -> str:
    """What is said of the job of a study called one, to its end."""
    exit_code, said = cluster.ask("submit", "--study=one", "--", *SHORT)
    assert exit_code == 0, said
    return said


def test_a_job_is_followed_to_its_end_and_reported_when_submitted_again(
    cluster: Cluster, said: str
) -> None:
    assert "[3/3]" in said
    assert cluster.is_right("one", 3) == []
    again, repeated = cluster.ask("submit", "--study=one", "--", *SHORT)
    assert (again, repeated.splitlines()[0]) == (0, "job one~1 is over")
    assert said.splitlines()[1:] == repeated.splitlines()[1:]
    assert cluster.is_right("one", 3) == []
    assert "exit code 0" in cluster.ask("job", "status", "one")[1]
    assert "[3/3]" in cluster.ask("job", "logs", "one")[1]


def test_two_that_submit_at_once_follow_one_job_which_stops_in_order_and_goes_on(
    cluster: Cluster,
) -> None:
    command = ("submit", "--study=two", "--", *LONGER)
    followers = [cluster.begin(*command) for _ in range(2)]
    cluster.wait_for_steps("two")
    stopped, said = cluster.ask("job", "stop", "two")
    assert (stopped, "stopped" in said) == (0, True)
    for follower in followers:
        seen, _ = follower.communicate(timeout=PATIENCE_SECONDS)
        assert follower.returncode == 143
        assert "interrupted; " in seen or "go on" in seen
    assert {job["submission_id"] for job in jobs_of(cluster, "two")} == {"two~1"}
    assert cluster.ask(*command)[0] == 0
    assert {job["submission_id"] for job in jobs_of(cluster, "two")} == {"two~1", "two~2"}
    assert cluster.is_right("two", 4) == []


def test_a_job_whose_search_was_killed_goes_on_when_submitted_again(cluster: Cluster) -> None:
    command = ("submit", "--study=three", "--", *LONG)
    follower = cluster.begin(*command)
    cluster.wait_for_steps("three")
    os.kill(process_of(cluster, "--study=three"), signal.SIGKILL)
    follower.communicate(timeout=PATIENCE_SECONDS)
    assert follower.returncode == 128 + signal.SIGKILL
    assert cluster.ask(*command)[0] == 0
    assert cluster.is_right("three", 4) == []


def jobs_of(cluster: Cluster, study: str) -> list[dict[str, str]]:
    token = cluster.one.network.token.read_text()
    answer = cluster.jobs_page("--header", f"Authorization: Bearer {token}")
    assert answer.endswith("200"), answer
    found = json.loads(answer.removesuffix("200"))
    return [job for job in found if (job["metadata"] or {}).get("study") == study]


def process_of(cluster: Cluster, flag: str) -> int:
    """The search that has this flag, which no shell and no follower is."""
    for process in processes(cluster.one.space):
        command = Path(f"/proc/{process}/cmdline").read_text().split("\0")
        if flag in command and "search.run" in command:
            return process
    raise AssertionError(f"no search with {flag}")


def test_no_secret_is_in_what_the_cluster_shows_of_a_job(cluster: Cluster, said: str) -> None:
    shown = said + json.dumps(jobs_of(cluster, "one")) + cluster.ask("job", "logs", "one")[1]
    assert "one~1" in shown
    assert SECRET not in shown
    assert cluster.one.network.token.read_text() not in shown


# The doors: from the cluster's own host, and from another one


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("token", [None, "0" * 64, ""])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nobody_sees_or_makes_a_job_without_the_token(
    cluster: Cluster, here: bool, token: str | None, method: str
) -> None:
    host = cluster.one if here else cluster.two
    flags = ["--request", method, "--header", "Content-Type: application/json"]
    flags += ["--data", '{"entrypoint": "id"}'] if method == "POST" else []
    flags += [] if token is None else ["--header", f"Authorization: Bearer {token}"]
    answer = cluster.jobs_page(*flags, host=host)
    assert answer[-3:] in ("401", "403"), answer
    assert "submission_id" not in answer


def test_another_host_with_the_token_asks_by_plain_http_only_when_told_to(cluster: Cluster) -> None:
    command = ("job", "status", "nothing", f"--address=http://{cluster.one.address}:8265")
    exit_code, said = cluster.ask(*command, host=cluster.two)
    assert exit_code == 2
    assert "the token goes to another host by https:// only" in said
    exit_code, said = cluster.ask(*command, "--insecure", host=cluster.two)
    assert exit_code == 2
    assert "no job of study nothing on the cluster" in said


def test_a_wrong_token_is_told_in_one_line(cluster: Cluster, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    inside = cluster.one.command("env", f"-C{ROOT}", f"RAY_AUTH_TOKEN_PATH={wrong}")
    asked = subprocess.run(
        [*inside, sys.executable, "-m", "search", "job", "status", "one"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert asked.returncode == 2
    assert asked.stderr.startswith("error: a cluster wants its token")
    assert len(asked.stderr.splitlines()) == 1


def test_another_user_of_the_host_cannot_read_the_token(cluster: Cluster) -> None:
    token = cluster.one.network.token
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    read = subprocess.run([*as_nobody, "cat", str(token)], capture_output=True, text=True)
    assert read.returncode != 0
    assert token.read_text() not in read.stdout
