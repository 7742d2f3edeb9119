"""Studies deleted whole: runs, artifacts, weights, record and what Ray left, together.

Nothing outside the home is touched but Ray's own temporary folders, and no link is followed.
"""

import json
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.config import ConfigError, SearchConfig
from search.config_file import parse_config
from search.leftovers import unused_leftovers
from search.lock import StudyLockedError, holder, is_locked
from search.names import FINALISTS
from search.openings import keep_openings
from search.places import (
    known_studies,
    lock_file,
    record_files,
    record_url,
    study_locked,
    tracking_uri,
    weights_folder,
)
from search.stored_runs import StoredRuns, delete_runs, shrink_store, stored_runs
from search.stored_studies import UnknownStudyError, delete_study, read_study
from search.studies import Overview, num_bytes_in, overviews


@dataclass(frozen=True)
class Removed:
    """What has gone with a study."""

    num_bytes: int
    num_runs: int
    notes: tuple[str, ...] = ()
    """What is left for the user to do."""


@dataclass(frozen=True)
class Cleaning:
    """What a cleaning takes, and what it leaves although it is old."""

    studies: tuple[Overview, ...]
    leftovers: tuple[Path, ...]
    kept: tuple[tuple[str, str], ...]
    """Studies, and why each is kept."""


def plan_cleaning(config: SearchConfig, older_than_seconds: float) -> Cleaning:
    """Choose the studies that were last written to so long ago, and Ray's unused leftovers."""
    found, now = overviews(config), time.time()
    old = [s for s in found if now - (s.last_at or now) >= older_than_seconds or not s.is_readable]
    names = {study.name for study in found}
    reasons = {
        study.name: "its finalists are kept until it is deleted by name"
        if f"{study.name}{FINALISTS}" in names
        else why_kept(config, study.name)
        for study in old
    }
    return Cleaning(
        tuple(study for study in old if reasons[study.name] is None),
        tuple(unused_leftovers(path for study in found for path in study.ray_sessions)),
        tuple((name, reason) for name, reason in reasons.items() if reason is not None),
    )


def why_kept(config: SearchConfig, name: str) -> str | None:
    """Why a study must not be deleted; None where it may be.

    Raises:
        ViewError: where MLflow does not say whether a registered model needs the study's runs.
    """
    if name.endswith(FINALISTS):
        return f"it holds finalists and goes with its study, {name.removesuffix(FINALISTS)}"
    if is_locked(lock := lock_file(config, name), config.storage):
        return f"it is being searched by {holder(lock, config.storage)}: end that search first"
    try:
        notes, _ = read_study(record_url(config, name), name)
    except UnknownStudyError as error:
        files = " ".join(str(path) for path in record_files(config, name))
        return f"{error}; or delete its files yourself: {files}"
    models = _stored(config, notes)[1].models
    return f"a registered model needs it: {', '.join(models)}" if models else None


def remove_study(config: SearchConfig, name: str) -> Removed:
    """Delete a study and its finalists for good: runs with their artifacts, weights, record.

    In this order, the finalists first, so that one who is killed in the middle can delete it again.

    Raises:
        ConfigError: where the study is kept; says why.
        ViewError: where MLflow cannot be reached or refuses.
    """
    if reason := why_kept(config, name):
        raise ConfigError(f"study {name} is kept: {reason}")
    finalists = f"{name}{FINALISTS}"
    names = [finalists, name] if finalists in known_studies(config) else [name]
    removed = [_remove(config, each) for each in names]
    return Removed(
        sum(each.num_bytes for each in removed),
        sum(each.num_runs for each in removed),
        tuple(dict.fromkeys(note for each in removed for note in each.notes)),
    )


def _remove(config: SearchConfig, name: str) -> Removed:
    with _held(config, name):
        notes, _ = read_study(record_url(config, name), name)
        uri, stored = _stored(config, notes)
        store = Path(uri.removeprefix("sqlite:///"))
        store_files = [store, store.with_name(f"{store.name}-wal")] if stored.is_local else []
        own = [*record_files(config, name), weights_folder(config, name), *stored.folders]
        before = num_bytes_in([*own, *store_files])
        if stored.run_ids:
            delete_runs(uri, stored, name, notes["facts"]["uid"])
        is_shrunk = not stored.is_local or shrink_store(uri)
        delete_path(weights_folder(config, name))
        _keep_openings(config, name)  # by now a full disk has room for a line
        if config.storage:
            delete_study(config.storage, name)
        for path in record_files(config, name):
            delete_path(path)
    return Removed(
        before - num_bytes_in([*own, *store_files]),
        len(stored.run_ids),
        tuple(_left_to_do(stored, is_shrunk)),
    )


def _keep_openings(config: SearchConfig, name: str) -> None:
    try:
        keep_openings(config, name)
    except OSError as error:
        raise ConfigError(
            f"what study {name} has seen of a test part must outlive it: {error.strerror}: "
            f"{error.filename}; make room or give the right to write, then delete it again"
        ) from None


def delete_path(path: Path) -> None:
    """Delete a file, a folder, or a link but not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def delete_leftovers(paths: Iterable[Path]) -> int:
    """Delete folders that Ray left; return the bytes freed."""
    freed = 0
    for path in paths:
        before = num_bytes_in([path])
        shutil.rmtree(path, ignore_errors=True)
        freed += before - num_bytes_in([path])
    return freed


def _left_to_do(stored: StoredRuns, is_shrunk: bool) -> Iterator[str]:
    if stored.run_ids and not stored.is_local:
        yield "its runs are marked deleted: `mlflow gc` beside that server frees their bytes"
    if not is_shrunk:
        yield "mlflow.db is in use or its disk full: it shrinks at the next deletion"


def _stored(config: SearchConfig, notes: dict[str, Any]) -> tuple[str, StoredRuns]:
    """Where the view of a study is, and what it holds of it."""
    if "config" not in notes or "facts" not in notes:  # killed while it was begun
        return "", StoredRuns((), (), (), is_local=False)
    at = {"home": config.home, "storage": config.storage}
    recorded = parse_config(json.loads(notes["config"]) | at)
    uri = tracking_uri(recorded)
    return uri, stored_runs(uri, notes["facts"]["uid"], config.home_folder)


@contextmanager
def _held(config: SearchConfig, name: str) -> Iterator[None]:
    try:
        with study_locked(config, name):
            yield
    except StudyLockedError:
        who = holder(lock_file(config, name), config.storage)
        raise ConfigError(
            f"study {name} is being searched by {who}: end that search first"
        ) from None
