"""What must hold of a study, whatever befell its search: each check returns what it found wrong.

Nothing here writes to the study: its record is copied first, and the copy is read.
"""

import math
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import optuna
from optuna.trial import FrozenTrial

from pipelines.evaluation import evaluate
from pipelines.scaling import Scaling
from pipelines.series import load
from pipelines.splits import SearchData, split
from pipelines.weights import forecaster_from_bytes
from pipelines.windows import build_windows, evenly_spaced
from search.config import SearchConfig
from search.config_file import parse_config
from search.facts import identity_of
from search.kept_weights import KeptWeights
from search.limits import Limits
from search.places import record_url, recorded_config
from search.projection import evaluation_readings, milliseconds
from search.record import Proposal, TrialRecord, TrialState, leaderboard, metric_of_errors
from search.stored_studies import read_study
from search.study import Study, open_study

Kind = Literal["trial", "value", "view", "weights", "proposal", "ending"]

TOLERANCE = {"float32": 1e-5, "bf16": 1e-2}
"""How far kept weights may miss the recorded metric, by the precision of the training."""


@dataclass(frozen=True)
class Violation:
    """Something lost, changed or doubled."""

    kind: Kind
    what: str


# Copies of a record


def copy_at_rest(home: Path, study: str, into: Path) -> None:
    """Copy a record that nobody writes to, as its last process left it, to another home."""
    source, target = _records(home, study, into)
    for suffix in ("", "-wal"):  # what was written last may lie beside the file
        file = source.with_name(source.name + suffix)
        if file.exists():
            shutil.copy(file, target.with_name(target.name + suffix))


def copy_live(home: Path, study: str, into: Path) -> bool:
    """Copy a record that is being written to; False where there is none to be read yet."""
    source, target = _records(home, study, into)
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
    except sqlite3.OperationalError:
        return False
    return True


def read_copy(home: Path, study: str) -> tuple[SearchConfig, list[TrialRecord]]:
    """Return the configuration and the trials of a copied record.

    Raises:
        UnknownStudyError: where the search had not begun.
    """
    here = SearchConfig(home=str(home))
    config = parse_config(recorded_config(here, study) | {"home": str(home), "storage": None})
    return config, read_study(record_url(here, study), study)[1]


def _records(home: Path, study: str, into: Path) -> tuple[Path, Path]:
    target = into / "studies" / f"{study}.db"
    target.parent.mkdir(parents=True, exist_ok=True)
    for file in target.parent.glob(f"{target.name}*"):
        file.unlink()
    return home / "studies" / target.name, target


def check_file(record: Path) -> list[Violation]:
    """SQLite finds nothing wrong with the record's file."""
    with closing(sqlite3.connect(record)) as database:
        try:
            [verdict] = database.execute("PRAGMA integrity_check").fetchone()
        except sqlite3.DatabaseError as error:
            verdict = str(error)
    return [] if verdict == "ok" else [Violation("trial", f"the record is damaged: {verdict}")]


# Trials and values


@dataclass
class Ledger:
    """All that was ever seen in a record: none of it may change or vanish."""

    seen: dict[int, TrialRecord] = field(default_factory=dict)

    def compare(self, trials: Sequence[TrialRecord]) -> list[Violation]:
        """Hold the trials against what was seen of them before, and remember them."""
        found: list[Violation] = []
        now = {trial.number: trial for trial in trials}
        for number, before in self.seen.items():
            if number not in now:
                found.append(Violation("trial", f"trial {number} vanished"))
            else:
                found += _changes(before, now[number])
        self.seen |= now
        return found


def _changes(before: TrialRecord, now: TrialRecord) -> list[Violation]:
    name = f"trial {before.number}"
    if before.state.counts or before.state is TrialState.REJECTED:
        # repr, because an undefined MASE is NaN, which does not equal itself.
        unchanged = repr(before) == repr(now)
        return [] if unchanged else [Violation("value", f"{name}, ended, was {before}, is {now}")]
    found = []
    if before.config is not None:  # else its process was killed while it was proposed
        for what in ("params", "seed", "config"):
            old, new = getattr(before, what), getattr(now, what)
            if old != new:
                found.append(Violation("trial", f"{name}: {what} were {old}, are {new}"))
    kept = {repr(recorded) for recorded in now.evaluations}
    for recorded in before.evaluations:
        if repr(recorded) not in kept:
            found.append(Violation("value", f"{name} lost the evaluation {recorded}"))
    return found


def check_count(trials: Sequence[TrialRecord], num_wanted: int, is_done: bool) -> list[Violation]:
    """Exactly as many trials as were asked for when the study is done, never more."""
    counted = sum(trial.state.counts for trial in trials)
    if counted > num_wanted or (is_done and counted != num_wanted):
        return [Violation("trial", f"{num_wanted} trials were asked for: {counted} are counted")]
    numbers = [trial.number for trial in trials]
    if numbers != list(range(len(trials))):
        return [Violation("trial", f"the numbers have gaps or doubles: {numbers}")]
    return []


def running_since(record: Path) -> frozenset[tuple[int, str]]:
    """The trials that a copied record says are running, and since when."""
    with closing(sqlite3.connect(record)) as database:
        query = "SELECT number, datetime_start FROM trials WHERE state = 'RUNNING'"
        return frozenset(database.execute(query).fetchall())


def check_none_runs(running: Iterable[tuple[int, str]]) -> list[Violation]:
    """No trial is running: for a record whose search ended in order."""
    left = sorted(running)
    return [Violation("trial", f"running where no search runs: trials {left}")] if left else []


# Proposals


def check_proposals(
    config: SearchConfig, data: SearchData, trials: Sequence[TrialRecord], scratch: Path
) -> list[Violation]:
    """The copied record proposes what a study never interrupted, of the same trials, would.

    The copy is opened as a resume would; the other study, in the folder `scratch`, is asked for
    every trial anew, in one process, and told the same of each.
    """
    assert config.study is not None
    record = record_url(config, config.study)
    raw = optuna.load_study(study_name=config.study, storage=record).get_trials()
    resumed = _open(config, data, record)
    replayed = _open(config, data, _fresh_record(scratch))
    for trial, frozen in zip(trials, raw, strict=True):
        if _was_proposed(trial):
            replayed._record.enqueue_trial(trial.params)
        elif "fixed_params" in frozen.system_attrs:
            replayed._record.enqueue_trial(frozen.system_attrs["fixed_params"])
    found = _replay(replayed, trials)
    for trial in trials:
        if not found and _is_interrupted(trial):
            _note_as(raw[trial.number], replayed)
    interrupted = [trial for trial in trials if _is_interrupted(trial)]
    again = [resumed.ask() for _ in interrupted]
    expected: list[Proposal | None] = [_as_proposal(trial) for trial in interrupted]
    again += [resumed.ask() for _ in range(2)]
    expected += [replayed.ask() for _ in range(2)]
    if not found and again != expected:
        found.append(Violation("proposal", f"resumed: {again}; never interrupted: {expected}"))
    return found


def _fresh_record(scratch: Path) -> str:
    """An empty record, copied from one made before: making one takes half a second."""
    empty, fresh = scratch / "empty.db", scratch / "replayed.db"
    if not empty.exists():
        optuna.storages.RDBStorage(f"sqlite:///{empty}").engine.dispose()
    for file in scratch.glob(f"{fresh.name}*"):
        file.unlink()
    shutil.copy(empty, fresh)
    return f"sqlite:///{fresh}"


def _replay(study: Study, trials: Iterable[TrialRecord]) -> list[Violation]:
    for trial in trials:
        if not _was_proposed(trial) or trial.state is TrialState.REJECTED:
            continue
        proposal = study.ask()
        if proposal != _as_proposal(trial):
            what = f"trial {trial.number} is {_as_proposal(trial)}, asked anew {proposal}"
            return [Violation("proposal", what)]
        for recorded in trial.evaluations:
            study.report(trial.number, recorded.evaluation)
        if trial.final is not None:
            study.report_final(trial.number, trial.final.evaluation)
        match trial.state:
            case TrialState.COMPLETE:
                study.complete(trial.number)
            case TrialState.PRUNED:
                study.prune(trial.number, trial.reason)
            case TrialState.FAILED:
                study.fail(trial.number, trial.reason)
    return []


def _note_as(recorded: FrozenTrial, study: Study) -> None:
    """Note of a running trial what TPE noted of it when it drew it, for the draws after it.

    A trial whose parameters are given, as those of a replay are, is not drawn and has no notes.
    """
    storage, running = study._record._storage, study._running[recorded.number]
    for key, value in recorded.system_attrs.items():
        if key.startswith("tpe:"):
            storage.set_trial_system_attr(running._trial_id, key, value)


def _open(config: SearchConfig, data: SearchData, url: str) -> Study:
    settings = config.search.model_copy(update={"trials": 100_000})
    limits = Limits(data, settings.max_parameters, settings.max_training_teraflops)
    identity = identity_of(config, data)
    assert config.study is not None
    return open_study(url, config.study, identity, config.space, config.training, settings, limits)


def _was_proposed(trial: TrialRecord) -> bool:
    return trial.config is not None or trial.state is TrialState.REJECTED


def _is_interrupted(trial: TrialRecord) -> bool:
    return trial.config is not None and trial.state in (TrialState.WAITING, TrialState.RUNNING)


def _as_proposal(trial: TrialRecord) -> Proposal:
    assert trial.config is not None
    return Proposal(trial.number, trial.config, trial.seed)


# The view


def check_view(store: Path, uid: str, trials: Iterable[TrialRecord]) -> list[Violation]:
    """MLflow's store holds one run a trial, and every evaluation of the record, once."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as database:
        runs = _runs_of(database, uid)
        found = [
            Violation("view", f"{count} runs of {'the study' if name is None else f'trial {name}'}")
            for name, count in Counter(runs.values()).items()
            if count > 1
        ]
        if None not in runs.values():
            found.append(Violation("view", "no run of the study"))
        by_number = {number: run for run, number in runs.items()}
        for trial in trials:
            if trial.config is None or trial.state is TrialState.REJECTED:
                continue
            run = by_number.get(str(trial.number))
            if run is None:
                found.append(Violation("view", f"no run of trial {trial.number}"))
            else:
                found += _check_run(database, run, trial)
    return found


def _runs_of(database: sqlite3.Connection, uid: str) -> dict[str, str | None]:
    """The study's runs that are not deleted, with the number of their trial."""
    query = """
        SELECT run_uuid, (SELECT value FROM tags AS t WHERE t.run_uuid = runs.run_uuid
                          AND t.key = 'trial')
        FROM runs JOIN tags USING (run_uuid)
        WHERE key = 'study_uid' AND value = ? AND lifecycle_stage = 'active'
    """
    return dict(database.execute(query, (uid,)).fetchall())


def _check_run(database: sqlite3.Connection, run: str, trial: TrialRecord) -> list[Violation]:
    expected = Counter(
        (reading.name, reading.step, milliseconds(reading.time), *_as_stored(reading.value))
        for recorded in trial.evaluations
        for reading in evaluation_readings(recorded)
    )
    names = {name for name, *_ in expected}
    query = "SELECT key, step, timestamp, value, is_nan FROM metrics WHERE run_uuid = ?"
    rows = ((*row[:4], bool(row[4])) for row in database.execute(query, (run,)))
    shown = Counter(row for row in rows if row[0] in names)
    name = f"trial {trial.number}"
    found = []
    if missing := expected - shown:
        found.append(Violation("view", f"{name}: MLflow lacks {sorted(missing)[:3]}"))
    if surplus := shown - expected:
        found.append(Violation("view", f"{name}: MLflow holds {sorted(surplus)[:3]} beside it"))
    query = "SELECT status FROM runs WHERE run_uuid = ?"
    [(status,)] = database.execute(query, (run,)).fetchall()
    if trial.state.counts and status not in ("FINISHED", "FAILED"):
        found.append(Violation("view", f"{name} is {trial.state} and MLflow shows {status}"))
    return found


def _as_stored(value: float) -> tuple[float, bool]:
    return (0.0, True) if math.isnan(value) else (value, False)


# The weights


def check_weights(
    folder: Path, config: SearchConfig, data: SearchData, trials: Sequence[TrialRecord]
) -> list[Violation]:
    """The best trials have their weights, every file loads, those of complete trials are right.

    Files of other trials that may still run are loaded only: they may be one evaluation ahead of
    the record, or behind it.
    """
    kept = KeptWeights(folder)
    found = []
    for best in leaderboard(trials, config.search.num_kept_weights):
        if not kept.path(best.number).exists():
            found.append(Violation("weights", f"trial {best.number} has none"))
    by_number = {trial.number: trial for trial in trials}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            found += _check_weights_file(path, config, data, by_number[int(path.stem)])
        except (ValueError, KeyError) as error:
            found.append(Violation("weights", f"{path.name}: {error!r}"))
    return found


def _check_weights_file(
    path: Path, config: SearchConfig, data: SearchData, trial: TrialRecord
) -> list[Violation]:
    forecaster = forecaster_from_bytes(path.read_bytes())
    assert trial.config is not None
    if forecaster.config != trial.config.model:
        return [Violation("weights", f"{path.name} holds another model: {forecaster.config}")]
    if trial.state is not TrialState.COMPLETE:
        return []
    training, scaling = trial.config.training, Scaling.fit(data)
    windows = build_windows(data, scaling, training.lookback, training.calendar, "cpu")
    origins = windows.validation_origins
    if trial.final is None:
        origins = evenly_spaced(origins, training.max_validation_windows)
    errors = evaluate(forecaster, windows, scaling, origins)
    measured = metric_of_errors(errors, config.search.metric)
    assert trial.value is not None
    tolerance = TOLERANCE[config.training.precision]
    if not abs(measured - trial.value) <= tolerance:
        what = f"{path.name} gives {measured:.8f}, the record says {trial.value:.8f}"
        return [Violation("weights", what)]
    return []


def search_data(config: SearchConfig) -> SearchData:
    """The table of a study, as its trials get it."""
    return split(load(config.data), config.split)[0]
