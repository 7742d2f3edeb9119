"""A record whose database goes away: a real store that fails on order, and a real server."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy

from benchmarks.invariants import check_count
from search import patience
from search.database import LostStudyError, study_held
from search.held_storage import HeldStorage
from search.patience import OPENED_AT, PatientStorage
from search.stored_studies import note_on_study, read_study

RecordAt = Callable[[Path], str]
GONE = sqlalchemy.exc.OperationalError("COMMIT", None, Exception("the connection is lost"))


class Lock:
    """The lock of a study, as a test says what becomes of it."""

    def __init__(self) -> None:
        self.held = True
        self.num_retaken = 0
        self.taken_by: str | None = None

    def is_held(self) -> bool:
        return self.held

    def retake(self) -> None:
        if self.taken_by:
            raise LostStudyError(f"{self.taken_by} has taken it")
        self.held = True
        self.num_retaken += 1


class Store:
    """A patient storage over SQLite that fails on order."""

    def __init__(self, url: str):
        self.said: list[str] = []
        self.lock = Lock()
        self.storage = PatientStorage(url, self.lock, self.said.append)  # type: ignore[arg-type]
        optuna.create_study(storage=self.storage, study_name="load")
        held = HeldStorage(self.storage, "load")
        self.study = optuna.load_study(storage=held, study_name="load")
        self.failures = {"before": 0, "after": 0}
        session = self.storage.scoped_session.session_factory
        sqlalchemy.event.listen(session, "before_commit", lambda _: self._fail("before"))
        sqlalchemy.event.listen(session, "after_commit", lambda _: self._fail("after"))

    def fail(self, when: str, count: int) -> None:
        """Lose the next commits, or the answers to them, and with them the lock."""
        self.failures[when] = count

    def _fail(self, when: str) -> None:
        if self.failures[when]:
            self.failures[when] -= 1
            self.lock.held = False
            raise GONE


@pytest.fixture
def store(record_at: RecordAt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    return Store(record_at(tmp_path / "record.db"))


def stored_trials(store: Store) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(storage=store.storage, study_name="load").get_trials()


def states(store: Store) -> list[str]:
    return [trial.state.name for trial in stored_trials(store)]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("count", [1, 7])
def test_a_call_whose_answer_is_lost_is_done_once(store: Store, when: str, count: int) -> None:
    store.fail(when, count)
    trial = store.study.ask()
    store.fail(when, count)
    trial.set_user_attr("seed", 1)
    store.fail(when, count)
    trial.suggest_int("cells", 1, 9)
    store.fail(when, count)
    trial.report(0.5, 1)
    store.fail(when, count)
    store.study.tell(trial, 0.5)
    assert states(store) == ["COMPLETE"]
    [ended] = stored_trials(store)
    assert ended.intermediate_values == {1: 0.5}
    assert ended.user_attrs == {"seed": 1}
    assert store.lock.held
    assert store.lock.num_retaken > 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_waiting_trial_whose_start_is_not_answered_is_the_one_that_runs(
    store: Store, when: str
) -> None:
    store.study.enqueue_trial({"cells": 3})
    store.study.enqueue_trial({"cells": 4})
    store.fail(when, 1)
    assert store.study.ask().number == 0
    assert states(store) == ["RUNNING", "WAITING"]


def test_an_outage_is_said_once(store: Store) -> None:
    store.fail("before", 7)
    store.study.set_user_attr("note", 1)
    [said] = store.said
    assert said.startswith("the record's database is away since ")
    assert "10 minutes at most" in said


def test_an_outage_longer_than_the_patience_is_an_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.0)
    store.fail("before", 1)
    with pytest.raises(optuna.exceptions.StorageInternalError):
        store.study.set_user_attr("note", 1)


def test_a_study_that_another_search_holds_after_the_outage_is_not_written_to(store: Store) -> None:
    trial = store.study.ask()
    store.lock.taken_by = "process 7 on elsewhere"
    store.fail("before", 1)
    with pytest.raises(LostStudyError, match="process 7 on elsewhere"):
        trial.set_user_attr("seed", 1)
    with pytest.raises(LostStudyError):
        trial.set_user_attr("seed", 2)
    rows = store.storage.engine.connect().exec_driver_sql("SELECT * FROM trial_user_attributes")
    assert rows.all() == []


def test_a_study_that_another_search_opened_and_left_in_the_outage_is_not_written_to(
    store: Store,
) -> None:
    trial = store.study.ask()
    store.study.set_user_attr(OPENED_AT, 1.0)
    store.storage.opened(store.storage.get_study_id_from_name("load"), 1.0)
    store.study.set_user_attr(OPENED_AT, 2.0)
    store.fail("before", 1)
    with pytest.raises(LostStudyError, match="another search has gone on"):
        store.study.tell(trial, 0.5)


def test_an_interrupt_ends_the_wait_and_the_search_as_a_second_one_would(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: noted.append(number))
    try:
        noting = signal.getsignal(signal.SIGINT)
        monkeypatch.setattr(time, "sleep", lambda _: signal.raise_signal(signal.SIGINT))
        store.fail("before", 1)
        for _ in range(2):  # its last words do not wait again
            with pytest.raises(KeyboardInterrupt):
                store.study.set_user_attr("note", 1)
        assert noted == []
        assert signal.getsignal(signal.SIGINT) is noting
    finally:
        signal.signal(signal.SIGINT, handler)


# A real server


def test_a_lock_that_ended_with_its_connection_is_taken_again(own_postgres: Any) -> None:
    with study_held(own_postgres.url(), "load") as held:
        assert held.is_held()
        own_postgres.stop()
        assert not held.is_held()
        with pytest.raises(sqlalchemy.exc.OperationalError):
            held.retake()
        own_postgres.start()
        held.retake()
        assert held.is_held()


@pytest.mark.slow
def test_a_search_whose_server_is_restarted_waits_and_loses_nothing(
    own_postgres: Any, tmp_path: Path
) -> None:
    with searching(own_postgres.url(), tmp_path, trials=6) as search:
        before = first_two_ended(own_postgres, search)
        own_postgres.stop()
        time.sleep(5)
        own_postgres.start()
        said, _ = search.communicate(timeout=280)
    assert search.returncode == 0, said
    assert said.count("the record's database is away since") == 1
    trials = read_study(own_postgres.url(), "load")[1]
    assert check_count(trials, 6, True) == []
    assert [trial.retries for trial in trials] == [()] * len(trials)
    assert trials[:2] == before


@pytest.mark.slow
@pytest.mark.parametrize("other", ["holds it", "has left it"])
def test_a_search_that_loses_its_study_to_another_one_ends_and_writes_no_more(
    other: str, own_postgres: Any, tmp_path: Path
) -> None:
    url = own_postgres.url()
    with searching(url, tmp_path, trials=1000) as search, ExitStack() as held:
        first_two_ended(own_postgres, search)
        search.send_signal(signal.SIGSTOP)  # so that the other search comes first
        connections = "FROM pg_stat_activity WHERE datname = 'postgres' AND pid <> "
        connections += "pg_backend_pid()"
        own_postgres.execute(f"SELECT pg_terminate_backend(pid) {connections}")
        while own_postgres.execute(f"SELECT count(*) {connections}")[0][0]:
            time.sleep(0.1)
        lock = held.enter_context(study_held(url, "load"))
        note_on_study(url, "load", OPENED_AT, time.time())
        before = read_study(url, "load")
        if other == "has left it":
            held.close()
        search.send_signal(signal.SIGCONT)
        said, _ = search.communicate(timeout=280)
        assert read_study(url, "load") == before
        assert (other == "holds it") is lock.is_held()
    reason = {
        "holds it": f"process {os.getpid()} on .* has taken study load meanwhile",
        "has left it": "another search has gone on with it meanwhile",
    }[other]
    assert search.returncode == 1, said
    assert re.search(f"a search must hold its study: .* and {reason}", said), said
    assert "Traceback" not in said


@pytest.mark.slow
def test_one_interrupt_ends_a_search_that_waits_for_its_record(
    own_postgres: Any, tmp_path: Path
) -> None:
    with searching(own_postgres.url(), tmp_path, trials=1000) as search:
        first_two_ended(own_postgres, search)
        before = read_study(own_postgres.url(), "load")[1]
        own_postgres.stop()
        assert search.stdout is not None
        said = ""
        while "the record's database is away since" not in said:
            said += (line := search.stdout.readline())
            assert line, said
        search.send_signal(signal.SIGINT)
        said += search.communicate(timeout=280)[0]
    assert search.returncode == 130, said
    assert "interrupted; the record is safe: " in said
    own_postgres.start()
    assert read_study(own_postgres.url(), "load")[1][:2] == before[:2]


@contextmanager
def searching(url: str, folder: Path, trials: int) -> Iterator["subprocess.Popen[str]"]:
    """A search of the study `load` in a process of its own."""
    words = ["--storage", url, "--study=load", f"--trials={trials}", "--home", str(folder / "home")]
    words += ["--no-finalize", "--max-concurrent=2"]
    words += ["--set=training.max_steps=60", "--set=training.evaluate_every_steps=20"]
    words += ["--set=space.lookback=24", "--set=space.num_layers=1"]
    words += ["--set=training.warmup_steps=0"]
    words += ["--set=search.use_default_starts=false", "--set=space.hidden_size={low: 4, high: 8}"]
    with subprocess.Popen(
        [sys.executable, "-m", "search.run", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    ) as search:
        try:
            yield search
        finally:
            if search.poll() is None:
                search.kill()


def first_two_ended(server: Any, search: "subprocess.Popen[str]") -> list[Any]:
    """The first two trials, once they have ended."""
    ended = "SELECT count(*) FROM trials WHERE number < 2 AND state IN ('COMPLETE', 'PRUNED')"
    tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'trials'"
    while search.poll() is None:
        if server.execute(tables)[0][0] and server.execute(ended)[0][0] == 2:
            return read_study(server.url(), "load")[1][:2]
        time.sleep(0.2)
    raise AssertionError(search.communicate()[0])
