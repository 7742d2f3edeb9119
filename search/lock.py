"""One writer a study: a lock that ends with its process, however that ends.

A file in the home is seen by one machine; where the record lies in PostgreSQL, which several
reach, a lock in the database is held beside it.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from search.database import (
    HeldElsewhereError,
    HeldStudy,
    is_postgresql,
    study_held,
    study_holder,
)


class StudyLockedError(ValueError):
    """Another process is searching this study."""


@contextmanager
def locked(path: Path, study: str, database: str | None = None) -> Iterator[HeldStudy | None]:
    """Hold the lock of a study, with this host and process id in it for whoever is refused.

    Gives the lock in the database, where there is one: it can be lost and taken again.

    Args:
        path: the lock file.
        study: the study's name.
        database: URL of the record, where it is no file of the home.

    Raises:
        StudyLockedError: where another process holds it; names that process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyLockedError(_refusal(_signature(path), study)) from None
        if not _is_at(path, file.fileno()):
            raise StudyLockedError(f"study {study} was deleted just now: try again")
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
        file.flush()
        try:
            with _locked_in(database, study) as held:
                yield held
        except HeldElsewhereError as error:
            file.truncate(0)
            raise StudyLockedError(_refusal(str(error), study)) from None
        file.truncate(0)


def is_locked(path: Path, database: str | None = None) -> bool:
    """Whether a living process holds the lock file `path`, or that study's lock in its database."""
    if database is not None and is_postgresql(database) and study_holder(database, path.stem):
        return True
    if not path.exists():
        return False
    with path.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def holder(path: Path, database: str | None = None) -> str:
    """The process that holds a lock, as it wrote itself down."""
    found = study_holder(database, path.stem) if database and is_postgresql(database) else None
    return found or _signature(path)


def _locked_in(database: str | None, study: str) -> AbstractContextManager[HeldStudy | None]:
    if database is not None and is_postgresql(database):
        return study_held(database, study)
    return nullcontext()


def _signature(path: Path) -> str:
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        return f"process {written['pid']} on {written['host']}"
    except (ValueError, KeyError, TypeError, OSError):
        return "another process"


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file still has its name; a deleted study's lock has not."""
    return path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor))


def _refusal(who: str, study: str) -> str:
    return (
        f"a study has one search at a time: {who} is searching {study}; "
        "wait for it, end it, or choose another --study"
    )
