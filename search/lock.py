"""One writer a study: a lock that ends with its process, however that ends."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class StudyLockedError(RuntimeError):
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
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
        file.flush()
        yield
        file.truncate(0)


def _refusal(path: Path, study: str) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        who = f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError):
        who = "another process"
    return (
        f"a study has one search at a time: {who} is searching {study}; "
        "wait for it, end it, or choose another --study"
    )
