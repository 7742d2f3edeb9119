"""A small finished study: record, weights and, for who asks, its runs in an MLflow store."""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy

from benchmarks.invariants import copy_at_rest, read_copy, search_data
from pipelines.splits import SearchData
from search.config import SearchConfig
from search.config_file import parse_config
from search.facts import facts_of, identity_of
from search.kept_weights import KeptWeights
from search.limits import Limits
from search.places import record_url
from search.record import TrialRecord
from search.resolve import resolve
from search.stored_studies import read_study
from search.study import Study, open_study
from search.trial import TrialStep, run_trial

STUDY = "small"


@dataclass
class Finished:
    """A study in a home of its own, that a test may spoil."""

    home: Path
    config: SearchConfig
    data: SearchData

    @property
    def record(self) -> Path:
        return self.home / "studies" / f"{STUDY}.db"

    @property
    def weights(self) -> KeptWeights:
        return KeptWeights(self.weights_folder)

    @property
    def weights_folder(self) -> Path:
        return self.home / "studies" / STUDY

    def copied(self) -> tuple[SearchConfig, list[TrialRecord]]:
        """The record, read as the checks read it."""
        copy_at_rest(self.home, STUDY, self.home / "copy")
        return read_copy(self.home / "copy", STUDY)

    @property
    def trials(self) -> list[TrialRecord]:
        return self.copied()[1]


@pytest.fixture(scope="session")
def finished_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trials 0, 1, 2 and 5 complete, 3 pruned, 4 failed, 6 interrupted; one model, many rates."""
    home = tmp_path_factory.mktemp("finished")
    rows = np.arange(120)
    load = 50 + 10 * np.sin(2 * np.pi * rows / 6) + np.random.default_rng(1).normal(size=120)
    times = pd.date_range("2024-01-01", periods=120, freq="h")
    pd.DataFrame({"time": times, "load": load}).to_csv(home / "table.csv", index=False)
    with connections_closed():
        _search(_configuration(home))
    return home


def _configuration(home: Path) -> SearchConfig:
    fixed = {"num_layers": 1, "hidden_size": 8, "bidirectional": False, "head": "last_state"}
    fixed |= {"lookback": 12, "normalisation": "last", "patch_length": 2, "calendar": False}
    fixed |= {"dropout": 0.0, "linear_skip": "shared"}
    return parse_config(
        {
            "study": STUDY,
            "home": str(home),
            "data": {"path": str(home / "table.csv"), "horizon": 4, "season": 6},
            "space": fixed,
            "training": {"max_steps": 4, "evaluate_every_steps": 2, "precision": "float32"},
            "search": {"trials": 7, "num_startup_trials": 3, "use_default_starts": False},
        }
    )


def _search(unresolved: SearchConfig) -> None:
    data = search_data(unresolved)
    config, _ = resolve(unresolved, data)
    config.studies_folder.mkdir()
    limits = Limits(data, config.search.max_parameters, config.search.max_training_teraflops)
    study = open_study(
        record_url(config, STUDY),
        STUDY,
        identity_of(config, data),
        config.space,
        config.training,
        config.search,
        limits,
    )
    study.note("config", config.model_dump_json())
    study.note("facts", asdict(facts_of(config, data)))
    for number in range(7):
        _run(study, data, number, KeptWeights(config.studies_folder / STUDY))
    study.requeue_running()
    study.note("state", "interrupted")


def _run(study: Study, data: SearchData, number: int, kept: KeptWeights) -> None:
    proposal = study.ask()
    assert proposal is not None
    assert proposal.number == number
    study.started(number)
    ends_early = number in (3, 4, 6)
    for step in run_trial(proposal.config, data, proposal.seed, "mae"):
        assert isinstance(step, TrialStep)
        study.report(number, step.evaluation)
        if step.weights is not None:
            kept.write(number, step.weights)
        if ends_early:
            break
    if number == 3:
        study.prune(number, "stopped early at step 2")
    elif number == 4:
        study.fail(number, "RuntimeError: broken", "Traceback …")
    elif not ends_early:
        study.complete(number)


@pytest.fixture
def finished(finished_home: Path, tmp_path: Path) -> Finished:
    """That study in this test's own home."""
    home = tmp_path / "home"
    shutil.copytree(finished_home, home)
    config, _ = Finished(home, SearchConfig(), None).copied()  # type: ignore[arg-type]
    return Finished(home, config, search_data(config))


@pytest.fixture(scope="session")
def shown_store(finished_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store that shows it."""
    from search.projection import Snapshot, StudyFacts
    from search.tracking import rebuild

    store = tmp_path_factory.mktemp("view") / "mlflow.db"
    with connections_closed():
        notes, trials = read_study(f"sqlite:///{finished_home / 'studies' / STUDY}.db", STUDY)
        kept = KeptWeights(finished_home / "studies" / STUDY)
        snapshot = Snapshot(trials, "interrupted", kept)
        rebuild(f"sqlite:///{store}", "faults", StudyFacts(**notes["facts"]), snapshot, [])
    return store


@pytest.fixture
def view(shown_store: Path, tmp_path: Path) -> Path:
    """This test's own copy of that store."""
    copy = tmp_path / "mlflow.db"
    with (
        contextlib.closing(sqlite3.connect(shown_store)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    return copy


@pytest.fixture(scope="session")
def finished_trials(finished_home: Path) -> list[TrialRecord]:
    """Its trials as they were left."""
    with connections_closed():
        return read_study(f"sqlite:///{finished_home / 'studies' / STUDY}.db", STUDY)[1]


@pytest.fixture(scope="session")
def uid(finished_home: Path) -> str:
    """By which MLflow knows it."""
    with connections_closed():
        notes, _ = read_study(f"sqlite:///{finished_home / 'studies' / STUDY}.db", STUDY)
    return str(notes["facts"]["uid"])


@pytest.fixture(autouse=True)
def _connections_closed() -> Iterator[None]:
    with connections_closed():
        yield


@contextlib.contextmanager
def connections_closed() -> Iterator[None]:
    # A study has no end of its own: its connections would end with a warning.
    connections: list[Any] = []

    def remember(connection: Any, _: Any) -> None:
        connections.append(connection)

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", remember)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", remember)
    for connection in connections:
        connection.close()
