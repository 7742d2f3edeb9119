"""One writer a study: a lock that ends with its process, however that ends."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class StudyLockedError(ValueError):
    """Another process is searching this study."""


@contextmanager
def locked(path: Path, study: str) -> Iterator[None]:
    """Hold the lock file `path`, with this host and process id in it for whoever is refused.

    Raises:
        StudyLockedError: where another process holds it; names that process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyLockedError(_refusal(path, study)) from None
        if not _is_at(path, file.fileno()):
            raise StudyLockedError(f"study {study} was deleted just now: try again")
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
        file.flush()
        yield
        file.truncate(0)


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock file `path`."""
    if not path.exists():
        return False
    with path.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def holder(path: Path) -> str:
    """The process that holds a lock, as it wrote itself down."""
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        return f"process {written['pid']} on {written['host']}"
    except (ValueError, KeyError, TypeError, OSError):
        return "another process"


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file still has its name; a deleted study's lock has not."""
    return path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor))


def _refusal(path: Path, study: str) -> str:
    return (
        f"a study has one search at a time: {holder(path)} is searching {study}; "
        "wait for it, end it, or choose another --study"
    )
