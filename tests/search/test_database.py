"""Records in a real PostgreSQL: one writer across machines, nothing that tells a password."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from search.__main__ import app
from search.config import ConfigError, SearchConfig
from search.database import connectable
from search.lock import StudyLockedError, holder, is_locked, locked
from search.stored_studies import UnknownStudyError, read_study, shown_url, study_names
from search.study import Study
from search.unwritable import UnwritableError, writing_explained

RecordAt = Callable[[Path], str]
OpenStudy = Callable[..., Study]

SMALL = (
    "--set=training.max_steps=6",
    "--set=training.evaluate_every_steps=2",
    "--set=training.warmup_steps=0",
    "--set=space.lookback=24",
    "--set=search.use_default_starts=false",
    "--set=space.num_layers=1",
    "--set=space.hidden_size={low: 4, high: 8}",
    "--max-concurrent=1",
)

HOLD_IT = """
import sys
from pathlib import Path
from search.lock import locked

with locked(Path(sys.argv[1]), "load", sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def url(database_at: RecordAt, tmp_path: Path) -> str:
    return database_at(tmp_path / "record")


@contextmanager
def another_machine(home: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    """A process with a home of its own that holds the study until its input ends."""
    command = [sys.executable, "-c", HOLD_IT, str(home / "load.lock"), url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def wait_until_free(lock: Path, url: str) -> None:
    # The server notices the end of a process by its connection's, a moment later.
    until = time.monotonic() + 60
    while is_locked(lock, url):
        assert time.monotonic() < until, "the lock outlived its process"
        time.sleep(0.05)


# One writer


def test_a_machine_with_another_home_is_refused_with_the_firsts_host_and_pid(
    url: str, tmp_path: Path
) -> None:
    lock = tmp_path / "here" / "load.lock"
    with another_machine(tmp_path / "there", url) as first:
        who = f"process {first.pid} on {socket.gethostname()}"
        for _ in range(2):  # the refusal changes nothing
            refusal = rf"one search at a time: {who} is searching load; wait for it, end it"
            with pytest.raises(StudyLockedError, match=refusal):
                locked(lock, "load", url).__enter__()
        assert is_locked(lock, url)
        assert holder(lock, url) == who


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_lock_is_free_after_its_process_has_ended(
    url: str, tmp_path: Path, end: signal.Signals
) -> None:
    lock = tmp_path / "here" / "load.lock"
    with another_machine(tmp_path / "there", url) as first:
        first.send_signal(end)
    wait_until_free(lock, url)
    with locked(lock, "load", url):
        assert holder(lock, url) == f"process {os.getpid()} on {socket.gethostname()}"
    wait_until_free(lock, url)


def test_locks_of_other_studies_and_other_databases_are_independent(
    database_at: RecordAt, url: str, tmp_path: Path
) -> None:
    other = database_at(tmp_path / "other")
    with (
        locked(tmp_path / "a" / "load.lock", "load", url),
        locked(tmp_path / "b" / "sales.lock", "sales", url),
        locked(tmp_path / "c" / "load.lock", "load", other),
    ):
        pass


def test_who_has_read_a_study_leaves_no_connection_behind(
    postgres: Any, url: str, study_in: Callable[..., Study]
) -> None:
    # The server has a hundred in all. The study is kept, and with it what it has opened.
    study = study_in(url, "load")
    connected = "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'"
    count = connected.format(url.rpartition("/")[2])
    [[before]] = postgres.execute(count)
    kept = [read_study(url, study.name) for _ in range(3)]
    assert study_names(url) == [study.name]
    assert postgres.execute(count) == [(before,)]
    assert len(kept) == 3


@pytest.mark.slow
def test_a_search_of_a_study_that_another_machine_searches_is_refused_and_then_goes_on(
    url: str, tmp_path: Path
) -> None:
    search = ["search.run", "--storage", url, "--no-finalize"]
    begin = ["--study", "load", "--trials", "2", *SMALL, "--home", str(tmp_path / "here")]
    with another_machine(tmp_path / "there", url) as first:
        refused = python([*search, *begin], tmp_path)
        assert refused.returncode == 2, refused.stderr
        assert f"process {first.pid} on {socket.gethostname()} is searching load" in refused.stderr
        assert study_names(url) == []
    wait_until_free(tmp_path / "here" / "load.lock", url)
    done = python([*search, *begin], tmp_path)
    assert done.returncode == 0, done.stderr
    assert sum(trial.state.counts for trial in read_study(url, "load")[1]) == 2

    # From a third machine, by the database alone.
    resume = ["--resume", "load", "--add-trials", "1", "--home", str(tmp_path / "third")]
    more = python([*search, *resume], tmp_path)
    assert more.returncode == 0, more.stderr
    notes, trials = read_study(url, "load")
    assert sum(trial.state.counts for trial in trials) == 3
    password = url.split(":")[2].split("@")[0]
    for shown in (refused, done, more):
        assert password not in shown.stdout + shown.stderr
    assert password not in str(notes)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "mlflow.db" for path in files)
    assert [path for path in files if password.encode() in path.read_bytes()] == []


def python(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=folder,
        timeout=280,
        check=False,
    )


# Tables


def test_a_database_without_tables_is_opened_by_four_at_the_same_time(postgres: Any) -> None:
    postgres.execute("CREATE DATABASE bare")
    with ThreadPoolExecutor(4) as threads:
        opened = list(threads.map(study_names, [postgres.url("bare")] * 4))
    assert opened == [[]] * 4


# Commands


@pytest.fixture
def record_at(database_at: RecordAt) -> RecordAt:
    return database_at


def invoke(*words: str, url: str, home: Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*words, "--storage", url, "--home", str(home)])
    return done.exit_code, done.output


def test_studies_in_a_database_are_listed_shown_and_deleted(
    url: str, open_small_study: OpenStudy, record_at: RecordAt, tmp_path: Path
) -> None:
    study = open_small_study(tmp_path / "record", name="load", sampler="random")
    study.note("config", SearchConfig(study="load").model_dump_json())
    assert study.ask() is not None
    code, page = invoke("studies", "list", url=url, home=tmp_path)
    assert (code, page.count("load")) == (0, 1)
    code, page = invoke("studies", "show", "load", url=url, home=tmp_path)
    assert code == 0
    assert "1 running" in page
    with another_machine(tmp_path / "there", url) as first:
        who = f"process {first.pid} on {socket.gethostname()}"
        code, page = invoke("studies", "delete", "load", "--yes", url=url, home=tmp_path)
        assert code == 2
        assert f"it is being searched by {who}" in " ".join(page.split())
    wait_until_free(tmp_path / "studies" / "load.lock", url)
    assert invoke("studies", "delete", "load", "--yes", url=url, home=tmp_path)[0] == 0
    assert study_names(url) == []


# What cannot be opened


def test_without_the_driver_the_remedy_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = importlib.util.find_spec
    absent = ("psycopg", "psycopg2")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in absent else found(name)
    )
    with pytest.raises(ConfigError, match=r"driver psycopg, .* pip install 'lstm-search\[postg"):
        study_names("postgresql://me:secret@127.0.0.1/x")
    with pytest.raises(ConfigError, match=r"driver psycopg2, .*postgresql:// without \+psycopg2"):
        connectable("postgresql+psycopg2://me:secret@127.0.0.1/x")
    code, said = invoke("studies", "list", url="postgresql://me:secret@127.0.0.1/x", home=tmp_path)
    assert code == 2
    assert "pip install 'lstm-search[postgresql]'" in " ".join(said.split())
    assert "secret" not in said


def test_a_server_that_is_not_there_is_named_without_the_password(
    free_port: int, tmp_path: Path
) -> None:
    url = f"postgresql://me:secret@127.0.0.1:{free_port}/x"
    with pytest.raises(UnknownStudyError, match=r"database .*refused.* at postgresql://me:\*\*\*@"):
        study_names(url)
    code, said = invoke("studies", "list", url=url, home=tmp_path)
    assert code == 2
    assert "see that the server runs" in " ".join(said.split())
    assert "secret" not in said


def test_a_search_whose_server_ends_says_so_and_with_the_server_it_goes_on(
    own_postgres: Any, study_in: OpenStudy, tmp_path: Path
) -> None:
    url = own_postgres.url()
    numbers: list[int] = []

    def search(study: Study) -> None:
        proposal = study.ask()
        assert proposal is not None
        numbers.append(proposal.number)

    def search_until_the_server_ends() -> None:
        with writing_explained(tmp_path), locked(tmp_path / "load.lock", "load", url):
            study = study_in(url, sampler="random")
            search(study)
            own_postgres.stop()
            search(study)

    with pytest.raises(UnwritableError, match=r"record: .*see that the database's server runs"):
        search_until_the_server_ends()
    own_postgres.start()
    with locked(tmp_path / "load.lock", "load", url):
        search(study_in(url, sampler="random"))
    assert numbers == [0, 0]


def test_a_wrong_password_is_refused_and_not_told(postgres: Any) -> None:
    with pytest.raises(UnknownStudyError, match="password authentication failed") as refused:
        study_names(postgres.url(password="wrong-horse"))
    assert "wrong-horse" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@db/x", "postgresql://me:***@db/x"),
        ("postgresql://me@db/x?password=secret", "postgresql://me@db/x"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_a_dry_run_prints_no_password(tmp_path: Path) -> None:
    url = "postgresql://me:secret@127.0.0.1/x"
    shown = python(["search.run", "--dry-run", "--storage", url], tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "storage: postgresql://***@127.0.0.1/x" in shown.stdout
    assert "secret" not in shown.stdout + shown.stderr
