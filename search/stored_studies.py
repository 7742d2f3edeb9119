"""Studies in a database: opened, read, noted on, listed, deleted.

With `study.py`, in which a study is searched, the door to Optuna.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import sqlalchemy

from search.bulk_store import BulkStore
from search.database import (
    HeldStudy,
    alone_with_tables,
    connect_args,
    connectable,
    is_postgresql,
    unpooled,
)
from search.frozen_trials import trial_record
from search.patience import OPENED_AT, PatientStorage
from search.record import TrialRecord

optuna.logging.set_verbosity(optuna.logging.ERROR)  # whoever reads a study reads nothing of Optuna


class UnknownStudyError(ValueError):
    """No study of this name."""


def read_study(url: str, name: str) -> tuple[dict[str, Any], list[TrialRecord]]:
    """Read a study's notes and trials without opening it for writing.

    Raises:
        UnknownStudyError: where there is no such study, or its record cannot be read.
    """
    with reading_explained(url, name):
        record = load_read_only(url, name)
        metric = record.user_attrs["identity"]["metric"]  # absent if killed while it was begun
        frozen_trials = record.get_trials(deepcopy=False)
    return dict(record.user_attrs), [trial_record(frozen, metric) for frozen in frozen_trials]


def read_notes(url: str, name: str) -> dict[str, Any]:
    """Read a study's notes alone, which is quick however many trials it has.

    Raises:
        UnknownStudyError: where there is no such study, or its record cannot be read.
    """
    with reading_explained(url, name):
        return dict(load_read_only(url, name).user_attrs)


def load_read_only(url: str, name: str) -> optuna.Study:
    """Optuna's own study, which nothing can be written to; to be used in `reading_explained`."""
    path = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and not path.exists():  # opening it would make the file
        raise UnknownStudyError(f"no study is named {name}: {path} is missing")
    storage = _storage(_read_only(url))
    return optuna.load_study(study_name=name, storage=storage)


@contextmanager
def reading_explained(url: str, name: str | None = None) -> Iterator[None]:
    """Say of a record that cannot be read, or holds no such study, what is wrong.

    Raises:
        UnknownStudyError: in the place of what Optuna and the database raise within.
    """
    what, remedy = f"the record of study {name}", "put a copy of it back, or choose another --study"
    if name is None:
        what = "the database of the records"
    if is_postgresql(url):
        remedy = "see that the server runs, and that it takes this user, password and database"
    try:
        yield
    except KeyError:
        raise UnknownStudyError(f"no study is named {name} in {shown_url(url)}") from None
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ or error  # the driver's own words
        raise UnknownStudyError(
            f"{what} must be readable: got {str(cause).splitlines()[0]} at {shown_url(url)}; "
            f"{remedy}"
        ) from None


def note_on_study(url: str, name: str, key: str, value: Any) -> None:
    """Note something about a study that nobody searches; `value` is plain JSON."""
    optuna.load_study(study_name=name, storage=open_storage(url)).set_user_attr(key, value)


def study_names(url: str) -> list[str]:
    """The studies in a database, the one opened for writing last at the end.

    Raises:
        UnknownStudyError: where it cannot be read.
    """
    with reading_explained(url):
        studies = open_storage(url).get_all_studies()
    studies.sort(key=lambda study: study.user_attrs.get(OPENED_AT, 0.0))
    return [study.study_name for study in studies]


def delete_study(url: str, name: str) -> None:
    """Delete a study with all its trials; a SQLite file stays, emptier."""
    optuna.delete_study(study_name=name, storage=open_storage(url))


def _read_only(url: str) -> str:
    """The same database, a SQLite file opened so that reading leaves its time as it is.

    By that time the latest study is told, and closing the record of a killed search would write.
    """
    if not url.startswith("sqlite:///"):
        return url
    path = Path(sqlalchemy.make_url(url).database or "").absolute()
    # Once for SQLAlchemy, once for SQLite.
    return f"sqlite:///file:{quote(quote(str(path)))}?mode=ro&uri=true"


def shown_url(url: str) -> str:
    """A database URL without its password."""
    # PostgreSQL takes passwords behind the question mark too.
    parsed = sqlalchemy.make_url(url).difference_update_query(["password", "sslpassword"])
    return parsed.render_as_string(hide_password=True)


def _storage(url: str) -> BulkStore:
    # It makes the tables where there are none, which two searches may find at the same time.
    with alone_with_tables(url):
        return BulkStore(connectable(url), unpooled(url))


def open_storage(url: str) -> BulkStore:
    """Open a database for writing; its tables are made where there are none."""
    storage = _storage(url)
    if storage.engine.name == "sqlite":
        sqlalchemy.event.listen(storage.engine, "connect", _tune_sqlite)
        storage.engine.dispose()
    return storage


def patient_storage(url: str, held: HeldStudy, say: Callable[[str], None]) -> PatientStorage:
    """The same for a study that is searched, which waits while the database is away."""
    with alone_with_tables(url):
        engine = {"connect_args": connect_args(url)}
        return PatientStorage(connectable(url), held, say, engine_kwargs=engine)


def _tune_sqlite(connection: Any, _: Any) -> None:
    # WAL with synchronous=NORMAL survives a killed process whole; a power cut may cost the last
    # writes, never the file. It makes each write three times cheaper.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
