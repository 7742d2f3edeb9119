"""What stops a search that cannot write: a full disk, a folder without rights, a lost database."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy

from search.database import LostStudyError


class UnwritableError(RuntimeError):
    """The record, or a file beside it, cannot be written; what was written is whole."""


@contextmanager
def writing_explained(home: Path) -> Iterator[None]:
    """Say in one line what could not be written to the record, or below `home`.

    Raises:
        UnwritableError: instead of the error of a database or file.
    """
    try:
        yield
    except Exception as error:
        lost = next((e for e in _chain(error) if isinstance(e, LostStudyError)), None)
        if lost is not None:
            raise UnwritableError(
                f"a search must hold its study: the record's database was away, and {lost}; what "
                "is written is whole, and this search has ended: wait for the other, or end it"
            ) from error
        reason = next((reason for each in _chain(error) if (reason := _reason(each, home))), None)
        if reason is None:
            raise
        remedy = "make room, give it the rights or choose another --home"
        if any(map(_is_of_a_server, _chain(error))):
            remedy = "see that the database's server runs and takes this user and password"
        raise UnwritableError(
            f"a search must be able to write its record: {reason}; what is written is whole: "
            f"{remedy}, then go on"
        ) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    # Ray Tune raises an error of its own while it handles one of ours, which stays its context.
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_of_a_server(error: BaseException) -> bool:
    return isinstance(error, sqlalchemy.exc.DBAPIError) and not isinstance(
        error.orig, sqlite3.Error
    )


def _reason(error: BaseException, home: Path) -> str | None:
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        return str(error.orig).splitlines()[0]
    if isinstance(error, OSError) and isinstance(error.filename, str | Path):
        path = Path(error.filename)
        # Of a missing parent too, which is then the file that could not be made.
        if path.resolve().is_relative_to(home.resolve()) or home.resolve().is_relative_to(path):
            return f"{error.strerror}: {path}"
    return None
