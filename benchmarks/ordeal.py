"""One small study that meets faults, from its first trial to its last."""

import random
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.driver import END_SECONDS, REPOSITORY, Driver, processes_of
from benchmarks.faulty_proxy import FaultyProxy, Mode
from benchmarks.invariants import (
    Ledger,
    Violation,
    check_count,
    check_file,
    check_none_runs,
    check_proposals,
    check_view,
    check_weights,
    copy_at_rest,
    copy_live,
    read_copy,
    running_since,
    search_data,
)
from pipelines.splits import SearchData
from search.config import SearchConfig
from search.places import record_url
from search.record import TrialRecord, TrialState
from search.stored_studies import UnknownStudyError, read_study

NUM_TRIALS = 12
MORE_TRIALS = 4
"""Asked for beyond the first, where a study was done before it had met its faults."""

WORKERS = ("ray::TrialActor", "ray::ResourceTrainable")
"""What Ray calls the processes that train."""

# MLflow's patience, shorter than the project's own, so that outages of seconds are long ones.
QUICK_MLFLOW = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "3", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}


@dataclass
class Ordeal:
    """A study, the driver that searches it now, its view, and what was found wrong so far."""

    folder: Path
    table: Path
    rng: random.Random
    view_store: Path
    """MLflow's SQLite file: of the server, or of the study's own home."""
    proxy: FaultyProxy | None = None
    """Before the server; None where the view is that file."""
    ledger: Ledger = field(default_factory=Ledger)
    violations: list[Violation] = field(default_factory=list)
    num_wanted: int = NUM_TRIALS

    def __post_init__(self) -> None:
        self.home, self.study = self.folder / "home", self.folder.name
        self.orders, self.scratch = self.folder / "orders", self.folder / "scratch"
        self.orders.mkdir(parents=True)
        self.scratch.mkdir()
        self._data: SearchData | None = None
        self._running_at_rest: frozenset[tuple[int, str]] = frozenset()
        self._repair = threading.Timer(0, lambda: None)
        self._view_lock: sqlite3.Connection | None = None
        self._write_configuration()
        self.driver = self._start([])

    # The search

    def resume(self, *, wants_more: bool) -> bool:
        """Go on with the study in a new driver, or begin it where it had not begun.

        Returns:
            Whether a driver was started: a study that is done goes on where more is wanted.
        """
        copy_at_rest(self.home, self.study, self.folder / "copy")
        try:
            config, trials = read_copy(self.folder / "copy", self.study)
        except UnknownStudyError:
            self.driver = self._start([])
            return True
        is_done = sum(trial.state.counts for trial in trials) >= config.search.trials
        if is_done and not wants_more:
            return False
        self.num_wanted = config.search.trials + MORE_TRIALS * is_done
        more = ["--add-trials", str(MORE_TRIALS)] if is_done else []
        self.driver = self._start(["--resume", self.study, *more])
        return True

    def _start(self, how: Sequence[str]) -> Driver:
        begin = ["--config", str(self.folder / "search.yaml"), "--study", self.study]
        arguments = [*(how or begin), "--home", str(self.home)]
        environment = {**QUICK_MLFLOW, "LSTM_SEARCH_FAULT_ORDERS": str(self.orders)}
        return Driver(arguments, self.folder / "output.txt", environment)

    def _write_configuration(self) -> None:
        rng = self.rng
        tree: dict[str, Any] = {
            "data": {"path": str(self.table), "horizon": 6},
            "final": {"finalize": False},
            "training": {
                "max_steps": 80,
                "evaluate_every_steps": 20,
                "max_validation_windows": rng.choice([10, 2048]),
                "precision": rng.choice(["float32", "float32", "auto"]),
            },
            "search": {
                "trials": NUM_TRIALS,
                "num_startup_trials": 4,
                "pruner": rng.choice(["none", "asha"]),
                "sampler": rng.choice(["tpe", "tpe", "random"]),
                "seed": rng.randrange(1000),
                "num_kept_weights": 4,
            },
            "resources": {
                "max_step_seconds": 20.0,
                "max_concurrent": 2,
                "save_every_seconds": rng.choice([0.0, 0.3, 30.0]),
            },
            "space": {"hidden_size": {"low": 8, "high": 64}, "width": {"low": 8, "high": 64}},
        }
        if self.proxy is not None:
            tree["tracking"] = {"uri": self.proxy.uri, "experiment": "faults"}
        (self.folder / "search.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")

    # Waiting for the moment of a fault

    def wait_until(self, condition: Callable[[], bool], seconds: float = END_SECONDS) -> bool:
        """Wait for something; False where the driver ended, or the time, before it came."""
        until = time.monotonic() + seconds
        while not condition():
            if not self.driver.is_alive or time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def pause(self, seconds: float) -> bool:
        """Let the search go on for a while; False where it ended."""
        until = time.monotonic() + seconds
        return self.wait_until(lambda: time.monotonic() >= until)

    def workers(self) -> list[int]:
        """The processes that train trials."""
        names = processes_of(self.driver.pid)
        return [pid for pid, name in names.items() if name.startswith(WORKERS)]

    def order(self, kind: str) -> bool:
        """Let one trial break from within; False where the search ended before one did."""
        order = self.orders / f"{kind}.{uuid.uuid4().hex}"
        order.touch()
        if self.wait_until(lambda: not order.exists()):
            return True
        order.unlink(missing_ok=True)
        return False

    def wait_for_a_write(self) -> bool:
        """Return as soon as the record is written to."""
        log = self.home / "studies" / f"{self.study}.db-wal"

        def stamp() -> tuple[int, int] | None:
            try:
                stat = log.stat()
            except FileNotFoundError:
                return None
            return stat.st_mtime_ns, stat.st_size

        before, until = stamp(), time.monotonic() + END_SECONDS
        while stamp() == before:
            if not self.driver.is_alive or time.monotonic() > until:
                return False
            time.sleep(0.0002)
        return True

    def num_counted(self) -> int:
        """The trials that have ended, as the record says now."""
        return sum(trial.state.counts for trial in self._look() or ())

    def is_training(self) -> bool:
        """Whether a trial runs now."""
        return any(trial.state is TrialState.RUNNING for trial in self._look() or ())

    # The view and its outages

    def break_view(self, mode: Mode, seconds: float) -> None:
        """Let MLflow's server behave so for a while, or its file be locked."""
        self.mend_view()
        if self.proxy is not None:
            self.proxy.behave(mode)
        else:
            self.view_store.parent.mkdir(parents=True, exist_ok=True)
            self._view_lock = sqlite3.connect(self.view_store, check_same_thread=False)
            self._view_lock.execute("BEGIN IMMEDIATE")
        self._repair = threading.Timer(seconds, self._mend)
        self._repair.start()

    def mend_view(self) -> None:
        """Let MLflow be as it should."""
        self._repair.cancel()
        if self._repair.is_alive():
            self._repair.join()
        self._mend()

    def _mend(self) -> None:
        lock, self._view_lock = self._view_lock, None
        if lock is not None:
            lock.close()
        if self.proxy is not None:
            self.proxy.behave("pass")

    # What must hold

    def _look(self) -> list[TrialRecord] | None:
        """The trials as they are now; None where there is no record yet."""
        copy = self.folder / "live"
        if not copy_live(self.home, self.study, copy):
            return None
        try:
            return read_study(record_url(SearchConfig(home=str(copy)), self.study), self.study)[1]
        except UnknownStudyError:
            return None

    def check_live(self) -> list[Violation]:
        """Check what must hold while the search goes on."""
        trials = self._look()
        found = [] if trials is None else self.ledger.compare(trials)
        self.violations += found
        return found

    def check_at_rest(self, exit_codes: Collection[int], *, syncs: bool) -> list[Violation]:
        """Wait for the driver's end and check what must hold while no search runs.

        Args:
            exit_codes: with which it may end, beside that of a study that is done.
            syncs: whether `python -m search sync` is run, after which MLflow must be whole.
        """
        code = self.driver.wait()
        found = [] if code is not None else [Violation("ending", f"no end in {END_SECONDS:g} s")]
        if code is None:
            self.driver.kill()
        if outlived := self.driver.end_session():
            found.append(Violation("ending", f"its processes outlived it: {outlived}"))
        self.mend_view()
        self._forget_orders()
        found += self._check_record(code, exit_codes, syncs)
        self.violations += found
        return found

    def _check_record(
        self, code: int | None, exit_codes: Collection[int], syncs: bool
    ) -> list[Violation]:
        copy = self.folder / "copy"
        copy_at_rest(self.home, self.study, copy)
        record = copy / "studies" / f"{self.study}.db"
        if record.exists() and (damage := check_file(record)):
            return damage
        try:
            config, trials = read_copy(copy, self.study)
        except UnknownStudyError as error:
            is_lost = bool(self.ledger.seen)
            return [Violation("trial", f"the study is gone: {error}")] if is_lost else []
        data = self._data = self._data or search_data(config)
        notes, _ = read_study(record_url(config, self.study), self.study)
        # A search of which no trial was complete ends with 1.
        has_best = any(trial.state is TrialState.COMPLETE for trial in trials)
        is_done = code == (0 if has_best else 1) and notes.get("state") == "done"
        before, self._running_at_rest = self._running_at_rest, running_since(record)
        found = self.ledger.compare(trials)
        found += check_count(trials, config.search.trials, is_done)
        if not is_done and code not in exit_codes:
            found.append(Violation("ending", f"exit code {code}:\n{self.driver.tail()}"))
        if code is not None and code >= 0:
            # A driver that ended before it opened the study has touched no trial of it.
            found += check_none_runs(self._running_at_rest - before)
        folder = self.home / "studies" / self.study
        found += check_weights(folder, config, data, trials)
        found += check_proposals(config, data, trials, self.scratch)
        if "facts" in notes and (is_done or syncs):
            found += self._check_view(notes, trials, needs_sync=not is_done or syncs)
        return found

    def _check_view(
        self, notes: dict[str, Any], trials: Sequence[TrialRecord], needs_sync: bool
    ) -> list[Violation]:
        # A search that ends in order says whether MLflow has taken all.
        if needs_sync or notes["mlflow_url"] is None:
            command = [sys.executable, "-m", "search", "sync", self.study, "--home", str(self.home)]
            done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
            if done.returncode != 0:
                return [Violation("view", f"sync ended with {done.returncode}: {done.stderr}")]
        return check_view(self.view_store, notes["facts"]["uid"], trials)

    def _forget_orders(self) -> None:
        for order in self.orders.iterdir():
            order.unlink()

    def close(self) -> None:
        """End whatever still runs."""
        self.mend_view()
        self.driver.kill()
