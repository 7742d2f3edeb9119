"""What the tests of the search start from: a small table, evaluations, studies in real files."""

import contextlib
import logging
import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy
import torch

from pipelines.scores import Errors, Evaluation
from pipelines.splits import SearchData
from pipelines.training_config import TrainingBudget
from search.config import SearchConfig, SearchSettings
from search.config_file import to_yaml
from search.derived_space import derive
from search.kept_weights import KeptWeights
from search.limits import Limits
from search.projection import StudyFacts
from search.record import TrialRecord
from search.space import Space, TrialConfig
from search.stored_studies import read_study, study_names
from search.study import Study, open_study

MakeData = Callable[..., SearchData]
MakeEvaluation = Callable[..., Evaluation]
MakeSpace = Callable[..., Space]
OpenStudy = Callable[..., Study]
RecordAt = Callable[[Path], str]
MakeFacts = Callable[..., StudyFacts]
DumpView = Callable[..., dict[str, dict[str, Any]]]
LossOf = Callable[[TrialConfig, int], float]

BUDGET = TrainingBudget(max_steps=300, evaluate_every_steps=50, precision="float32")


@pytest.fixture(autouse=True)
def _on_one_thread() -> Iterator[None]:
    # The models are tiny: a second thread would only wait, and take a core from other processes.
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="session")
def make_data() -> MakeData:
    """120 rows of a season of 6, 80 of them to train on, horizon 4, and any change to it."""
    return small_data


@pytest.fixture(scope="session")
def make_evaluation() -> MakeEvaluation:
    """An evaluation of a given MAE (standardised) at a step, and any change to it."""
    return small_evaluation


@pytest.fixture(scope="session")
def make_space() -> MakeSpace:
    """The default space as the small table allows it, and any change to it."""
    return small_space


@pytest.fixture(scope="session")
def loss_of() -> LossOf:
    """A loss that a sampler can learn from, the same in every process."""
    return loss_at


@pytest.fixture(autouse=True)
def _connections_closed() -> Iterator[None]:
    with connections_closed():
        yield


@contextlib.contextmanager
def connections_closed() -> Iterator[None]:
    # A study has no end of its own, it is left or killed: its connections would end with a warning.
    connections: list[Any] = []

    def remember(connection: Any, _: Any) -> None:
        connections.append(connection)

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", remember)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", remember)
    for connection in connections:
        connection.close()


@pytest.fixture(scope="session", autouse=True)
def _migrations_read_once() -> Iterator[None]:
    # Whenever Optuna opens a record it reads all its migrations, some 50 ms, to learn which is the
    # newest: of one installed version it is the same each time. The comparison stays.
    manager: Any = optuna.storages._rdb.storage._VersionManager
    read = manager.get_head_version
    heads: list[str] = []

    def known_head(self: Any) -> str:
        if not heads:
            heads.append(read(self))
        return heads[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manager, "get_head_version", known_head)
        yield


@pytest.fixture(scope="session")
def empty_record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record without a study, to be copied: making one takes half a second."""
    file = tmp_path_factory.mktemp("record") / "empty.db"
    optuna.storages.RDBStorage(f"sqlite:///{file}").engine.dispose()
    return file


@pytest.fixture
def record_at(request: pytest.FixtureRequest, empty_record: Path) -> RecordAt:
    """The URL of the record that a test calls by a path, made where it is not there yet.

    In a file of this path, or with the parameter `postgresql` in a database.
    """
    if getattr(request, "param", "sqlite") == "postgresql":
        in_postgresql: RecordAt = request.getfixturevalue("database_at")
        return in_postgresql

    def url_of(file: Path) -> str:
        if not file.exists():
            shutil.copy(empty_record, file)
        return f"sqlite:///{file}"

    return url_of


@pytest.fixture
def open_small_study(tmp_path: Path, record_at: RecordAt) -> OpenStudy:
    """Open the study of this test, again and again, in one record unless another is named."""

    def open_it(file: Path = tmp_path / "record.db", **changes: Any) -> Study:
        return small_study(record_at(file), **changes)

    return open_it


@pytest.fixture(scope="session")
def study_in() -> OpenStudy:
    """Open a small study in the record of a URL."""
    return small_study


class PostgresServer:
    """A PostgreSQL of the tests' own, that keeps its data in `folder` and can be stopped."""

    USER, PASSWORD = "searcher", "correct-horse"

    def __init__(self, programs: Path, folder: Path):
        # It refuses to run as root, and Debian's package makes this user.
        owner = "postgres" if os.geteuid() == 0 else None
        self._as_owner: dict[str, Any] = {"user": owner, "group": owner} if owner else {}
        self._programs, self._data = programs, folder / "data"
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._emptied: list[str] = []
        self._num_copies = 0
        password = folder / "password"
        password.write_text(self.PASSWORD)
        if owner:
            for path in (folder, password):
                shutil.chown(path, owner, owner)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        command = [
            programs / "initdb",
            "-D",
            self._data,
            "-U",
            self.USER,
            "--no-sync",
            "-E",
            "UTF8",
        ]
        command += ["--auth=scram-sha-256", f"--pwfile={password}", "--no-locale"]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, **self._as_owner)

    def url(self, database: str = "postgres", password: str = PASSWORD) -> str:
        return f"postgresql://{self.USER}:{password}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run a statement as the server's owner; return its rows."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def copy_of(self, template: str) -> str:
        """A database for one test; those that were emptied come again, which is much quicker."""
        if self._emptied:
            return self._emptied.pop()
        self._num_copies += 1
        name = f"record_{self._num_copies}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def empty(self, databases: Iterable[str]) -> None:
        """Delete the studies of databases, and end what is connected to them."""
        for name in databases:
            self.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            )
            self.execute("TRUNCATE studies CASCADE", database=name)
            self._emptied.append(name)

    def start(self) -> None:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",  # nobody cuts the power of a test
            "max_connections": 100,
        }
        command = [self._programs / "postgres", "-D", self._data]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self._data.parent,
                start_new_session=True,
                **self._as_owner,
            )
        self._wait_until_it_answers()

    def _wait_until_it_answers(self, timeout_seconds: float = 90) -> None:
        import psycopg

        until = time.monotonic() + timeout_seconds
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                assert time.monotonic() < until, self._log.read_text()
                time.sleep(0.1)
            else:
                return

    def stop(self) -> None:
        """End it and whatever is connected to it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait(60)
        self._process = None


@contextlib.contextmanager
def postgres_running(programs: Path) -> Iterator[PostgresServer]:
    # Not below pytest's folder, which is closed to the server's user.
    with tempfile.TemporaryDirectory(prefix="lstm-search-postgres-") as folder:
        server = PostgresServer(programs, Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgres(postgresql_programs: Path) -> Iterator[PostgresServer]:
    """A running PostgreSQL, the same for all tests."""
    with postgres_running(postgresql_programs) as server:
        yield server


@pytest.fixture
def own_postgres(postgresql_programs: Path) -> Iterator[PostgresServer]:
    """This test's own PostgreSQL, which it may stop."""
    with postgres_running(postgresql_programs) as server:
        yield server


@pytest.fixture(scope="session")
def empty_database(postgres: PostgresServer) -> str:
    """A database with the tables of a record and no study, to be copied."""
    postgres.execute("CREATE DATABASE empty_record")
    with connections_closed():
        study_names(postgres.url("empty_record"))
    return "empty_record"


@pytest.fixture
def database_at(postgres: PostgresServer, empty_database: str) -> Iterator[RecordAt]:
    """The same as `record_at`, in PostgreSQL: each path is a database."""
    names: dict[Path, str] = {}

    def url_of(file: Path) -> str:
        if file not in names:
            names[file] = postgres.copy_of(empty_database)
        return postgres.url(names[file])

    yield url_of
    postgres.empty(names.values())


def small_data(**changes: Any) -> SearchData:
    num_rows = changes.pop("num_rows", 120)
    rows = np.arange(num_rows)
    columns = [50 + 10 * np.sin(2 * np.pi * rows / 6), 5 + 3 * np.cos(2 * np.pi * rows / 6)]
    values = np.stack(columns, axis=1) + np.random.default_rng(1).normal(size=(num_rows, 2))
    fields: dict[str, Any] = {
        "name": "small",
        "series_id": "small",
        "columns": ("load", "heat"),
        "targets": ("load",),
        "frequency": "h",
        "season": 6,
        "horizon": 4,
        "target_transform": "none",
        "fingerprint": "0123456789abcdef",
        "values": values,
        "truth": values[:, :1].copy(),
        "is_observed": np.full(num_rows, True),
        "known": np.sin(np.stack([rows, rows + 1], axis=1)).astype(np.float32),
        "known_names": ("one", "two"),
        "num_train_rows": num_rows * 2 // 3,
        "notes": (),
    }
    return SearchData(**(fields | changes))


def small_evaluation(mae_scaled: float, step: int = 50, **changes: Any) -> Evaluation:
    errors = Errors(
        mae=10 * mae_scaled,
        mse=100 * mae_scaled**2,
        rmse=10 * mae_scaled,
        mase=2 * mae_scaled,
        mae_scaled=mae_scaled,
        mse_scaled=mae_scaled**2,
        rmse_scaled=mae_scaled,
    )
    fields: dict[str, Any] = {
        "step": step,
        "train_loss": mae_scaled / 2,
        "errors": errors,
        "learning_rate": 1e-3,
        "steps_per_second": 100.0,
        "peak_memory_bytes": 1 << 20,
        "num_windows": 20,
        "is_full": True,
        "train_seconds": 0.5,
        "evaluate_seconds": 0.1,
    }
    return Evaluation(**(fields | changes))


def small_space(**dimensions: Any) -> Space:
    space = Space.model_validate(dimensions)
    return derive(space, season=6, num_train_rows=80, horizon=4, has_calendar=True)[0]


def loss_at(config: TrialConfig, step: int) -> float:
    training, model = config.training, config.model
    distance = abs(math.log10(training.learning_rate / 3e-3)) + abs(math.log2(model.widths[0] / 64))
    return 0.1 + 0.02 * distance + 0.01 * model.bidirectional + 1 / (step + 50)


def small_study(
    url: str,
    name: str = "study",
    space: Space | None = None,
    data: SearchData | None = None,
    identity: dict[str, Any] | None = None,
    budget: TrainingBudget = BUDGET,
    max_teraflops: float | None = None,
    **settings: Any,
) -> Study:
    space, data = space or small_space(), data or small_data()
    search = SearchSettings.model_validate({"num_startup_trials": 5, "trials": 1000} | settings)
    limits = Limits(data, search.max_parameters, max_teraflops)
    begun_with = {"data": data.fingerprint, "metric": search.metric} | (identity or {})
    return open_study(url, name, begun_with, space, budget, search, limits)


# The view: MLflow stores and servers, and all that they hold


@pytest.fixture(scope="session")
def empty_view(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without a run, to be copied: making one takes some seconds."""
    from search.mlflow_store import open_store

    file = tmp_path_factory.mktemp("view") / "mlflow.db"
    with connections_closed():
        open_store(f"sqlite:///{file}")
    copy = file.with_name("empty.db")
    with (
        contextlib.closing(sqlite3.connect(file)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    return copy


@pytest.fixture
def view_store(request: pytest.FixtureRequest, tmp_path: Path, empty_view: Path) -> Iterator[str]:
    """The URI of this test's own MLflow store, in its folder, or with the parameter `server` there.

    The server is the same for all tests: it shows what this one made until its end.
    """
    if getattr(request, "param", "local") == "server":
        server: MlflowServer = request.getfixturevalue("mlflow_server")
        server.hide_experiments()
        yield server.uri
        server.hide_experiments()
    else:
        shutil.copy(empty_view, tmp_path / "mlflow.db")
        yield f"sqlite:///{tmp_path / 'mlflow.db'}"


class MlflowServer:
    """`mlflow server` on a store in `folder`; it can be stopped and started again."""

    def __init__(self, folder: Path, empty_view: Path):
        self.folder = folder
        shutil.copy(empty_view, folder / "mlflow.db")
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self._port = listener.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self.store_uri = f"sqlite:///{folder / 'mlflow.db'}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str, **variables: str) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", *options]
        command += ["--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--backend-store-uri", self.store_uri]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        self._process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for_page(f"{self.uri}/health")

    def hide_experiments(self) -> None:
        """Delete all but the first, and free their names."""
        from mlflow import MlflowClient  # takes seconds: for the tests that use it
        from mlflow.entities import ViewType

        client = MlflowClient(self.uri)
        for experiment in client.search_experiments(ViewType.DELETED_ONLY):
            client.restore_experiment(experiment.experiment_id)
        for experiment in client.search_experiments(filter_string="name != 'Default'"):
            client.rename_experiment(experiment.experiment_id, uuid.uuid4().hex)
            client.delete_experiment(experiment.experiment_id)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let it hang: it takes connections and requests, and answers them after the block."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # its own group: children left behind
        self._process = None


@pytest.fixture(scope="session")
def make_mlflow_server(empty_view: Path) -> Callable[[Path], MlflowServer]:
    """An MLflow server in a folder, not started yet; whoever starts it stops it."""
    return lambda folder: MlflowServer(folder, empty_view)


@pytest.fixture(scope="session")
def mlflow_server(
    tmp_path_factory: pytest.TempPathFactory, empty_view: Path
) -> Iterator[MlflowServer]:
    """A running MLflow server, the same for all tests."""
    server = MlflowServer(tmp_path_factory.mktemp("server"), empty_view)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def kept(tmp_path: Path) -> KeptWeights:
    """Where weights are kept: those of trial 6, which is complete in the played study."""
    kept = KeptWeights(tmp_path / "kept")
    kept.write(6, b"the weights of trial 6")
    return kept


@pytest.fixture
def stopped_server(tmp_path: Path, empty_view: Path) -> Iterator[MlflowServer]:
    """This test's own MLflow server, not started yet."""
    server = MlflowServer(tmp_path, empty_view)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def wait_for() -> Callable[[str], None]:
    """Wait until an address answers."""
    return wait_for_page


def wait_for_page(url: str, timeout_seconds: float = 90) -> None:
    until = time.monotonic() + timeout_seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert time.monotonic() < until, f"{url} does not answer"
            time.sleep(0.2)


@pytest.fixture(scope="session")
def played_record(tmp_path_factory: pytest.TempPathFactory, empty_record: Path) -> Path:
    """The record of a study `small` with trials of every outcome."""
    file = tmp_path_factory.mktemp("played") / "small.db"
    shutil.copy(empty_record, file)
    with connections_closed():
        play(small_study(f"sqlite:///{file}", name="small", pruner="none"))
    return file


@pytest.fixture(scope="session")
def played_trials(played_record: Path) -> list[TrialRecord]:
    """The trials of that study: 4 runs, the others have ended."""
    with connections_closed():
        return read_study(f"sqlite:///{played_record}", "small")[1]


@pytest.fixture
def played_study(played_record: Path, tmp_path: Path) -> Study:
    """That study, of this test alone, in `studies/small.db`."""
    file = tmp_path / "studies" / "small.db"
    file.parent.mkdir()
    shutil.copy(played_record, file)
    study = small_study(f"sqlite:///{file}", name="small", pruner="none")
    assert study.ask() is not None  # trial 4, which waited: its process is another
    return study


def play(study: Study) -> None:
    """Trials 0 and 1 complete, 2 pruned, 3 failed, 4 running, 6 complete; 5 was rejected."""
    proposals = [study.ask() for _ in range(5)]
    known = proposals[0]
    assert known is not None
    study.queue([known.config])
    proposals.append(study.ask())
    numbers = [proposal.number for proposal in proposals if proposal is not None]
    assert numbers == [0, 1, 2, 3, 4, 6]
    for number in numbers:
        study.started(number)
        study.report(number, small_evaluation(0.5 - number / 100, step=50))
        study.ran_on(number, {"host": "here", "pid": 17})
    for number in (0, 1, 6):
        study.report(number, small_evaluation(0.3 - number / 100, step=100))
        study.report(number, small_evaluation(0.4 - number / 100, step=300))
        study.report_final(number, small_evaluation(0.35 - number / 100, step=100))
        study.complete(number)
    study.report(2, small_evaluation(0.45, step=100))
    study.prune(2, "stopped early at step 100")
    study.fail(3, "OSError: the disk is full", "Traceback:\n  ...\nOSError: the disk is full")


@pytest.fixture(scope="session")
def make_facts() -> MakeFacts:
    """What the view shows of a study as a whole, and any change to it."""
    return small_facts


def small_facts(**changes: Any) -> StudyFacts:
    config = SearchConfig(study="small")
    fields: dict[str, Any] = {
        "name": "small",
        "uid": "0123456789abcdef0123456789abcdef",
        "metric": "mae",
        "started_at": 1_790_000_000.0,
        "data_name": "small",
        "data_fingerprint": "0123456789abcdef" * 4,
        "data_source": "small.csv",
        "num_rows": 120,
        "config_yaml": to_yaml(config),
        "params": {"study": "small", "search.trials": "100"},
        "tags": {"git_commit": "c0ffee", "version_torch": "2.13.0"},
    }
    return StudyFacts(**(fields | changes))


@pytest.fixture(scope="session")
def dump_view(request: pytest.FixtureRequest) -> DumpView:
    """All that a local store, or the server of all tests, shows of an experiment."""

    def dump(uri: str, *experiment: str) -> dict[str, dict[str, Any]]:
        if uri.startswith("http"):
            server: MlflowServer = request.getfixturevalue("mlflow_server")
            assert uri == server.uri
            uri = server.store_uri
        return dump_experiment(uri, *experiment)

    return dump


def dump_experiment(store_uri: str, experiment: str = "lstm-search") -> dict[str, dict[str, Any]]:
    store = Path(store_uri.removeprefix("sqlite:///"))
    with contextlib.closing(sqlite3.connect(store)) as database:
        # Read from the tables: the same for a server, and it takes no time.
        def rows(query: str, *values: Any) -> list[Any]:
            return sorted(database.execute(query, values).fetchall())

        of_name = "SELECT experiment_id FROM experiments WHERE name = ?"
        active = f"lifecycle_stage = 'active' AND experiment_id = ({of_name})"
        runs = rows(f"SELECT run_uuid, name FROM runs WHERE {active}", experiment)
        names = dict(runs)
        assert len(set(names.values())) == len(runs), f"runs of one name: {runs}"
        dump = {name: dump_run(rows, run_id, store.parent) for run_id, name in runs}
        tags = f"SELECT key, value FROM experiment_tags WHERE experiment_id = ({of_name})"
        dump["experiment"] = {"tags": dict(rows(tags, experiment))}
    for run in dump.values():
        if parent := run["tags"].get("mlflow.parentRunId"):
            run["tags"]["mlflow.parentRunId"] = names.get(parent, "a run that is not shown")
    return dump


def dump_run(rows: Callable[..., list[Any]], run_id: str, folder: Path) -> dict[str, Any]:
    query = "SELECT status, start_time, end_time, artifact_uri FROM runs WHERE run_uuid = ?"
    [(*info, artifact_uri)] = rows(query, run_id)
    place = artifact_uri.removeprefix("file://")
    place = Path(place.replace("mlflow-artifacts:", f"{folder}/artifacts"))
    metrics: dict[str, list[Any]] = {}
    query = "SELECT key, step, timestamp, value, is_nan FROM metrics WHERE run_uuid = ?"
    for name, *reading in rows(query, run_id):
        metrics.setdefault(name, []).append(tuple(reading))
    query = (
        "SELECT name, digest, dataset_source, dataset_profile FROM datasets JOIN inputs "
        "ON dataset_uuid = source_id WHERE destination_id = ?"
    )
    return {
        "info": tuple(info),
        "params": dict(rows("SELECT key, value FROM params WHERE run_uuid = ?", run_id)),
        "tags": dict(rows("SELECT key, value FROM tags WHERE run_uuid = ?", run_id)),
        "latest": dict(rows("SELECT key, value FROM latest_metrics WHERE run_uuid = ?", run_id)),
        "metrics": metrics,
        "inputs": rows(query, run_id),
        "artifacts": {
            str(path.relative_to(place)): path.read_bytes()
            for path in place.rglob("*")
            if path.is_file()
        },
    }


# The executor: one Ray for all tests


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Ray with two CPUs and a GPU, which is declared even where there is none."""
    from search import executor  # says first how quiet Ray is to be

    executor.ray.shutdown()
    executor.ray.init(
        address="local",
        num_cpus=2,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield
    executor.ray.shutdown()


@pytest.fixture(scope="session")
def closing_connections() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Close the databases that are opened within, for fixtures that outlive one test."""
    return connections_closed
