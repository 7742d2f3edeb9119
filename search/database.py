"""PostgreSQL as the place of records: its driver, and one writer a study across machines."""

import hashlib
import importlib.util
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import sqlalchemy

from search.config import ConfigError

CONNECT_SECONDS = 10

# A machine that loses its power never says that it has gone: the server asks, after half a minute
# of silence, and ends the connections of one that does not answer, and with them its locks.
_SETTINGS = {
    "tcp_keepalives_idle": "30s",
    "tcp_keepalives_interval": "10s",
    "tcp_keepalives_count": "3",
    "lock_timeout": "60s",
}
_SET = sqlalchemy.select(
    *(sqlalchemy.func.set_config(name, value, False) for name, value in _SETTINGS.items())
)
_WAIT_FOR_LOCK = sqlalchemy.text("SELECT pg_advisory_lock(:key)")
_TRY_LOCK = sqlalchemy.text("SELECT pg_try_advisory_lock(:key)")
_IS_HELD = sqlalchemy.text(
    "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
    "AND pid = pg_backend_pid() AND ((classid::bigint << 32) | objid::bigint) = :key)"
)
_HOLDER = sqlalchemy.text(
    "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "
    "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 "
    "AND a.datname = current_database() "
    "AND ((l.classid::bigint << 32) | l.objid::bigint) = :key"
)


class HeldElsewhereError(RuntimeError):
    """Another process, perhaps on another machine, holds the lock."""


class LostStudyError(RuntimeError):
    """A search has lost its study to another one while the database was away."""


class StillHeldError(RuntimeError):
    """The server has not noticed yet that this process's earlier connection has ended."""


class HeldStudy:
    """A study's lock in its database, which ends with its connection and can be taken again."""

    def __init__(self, url: str, study: str, connection: sqlalchemy.Connection):
        """Take over a connection that holds the lock."""
        self._url, self._study = url, study
        self._connection = connection
        self._again = ExitStack()

    def is_held(self) -> bool:
        """Whether this connection holds the lock.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: where the server does not answer on a new connection.
        """
        if self._connection.closed or self._connection.invalidated:
            return False
        try:
            key = {"key": _key_of(self._study)}
            return bool(self._connection.execute(_IS_HELD, key).scalar_one())
        except sqlalchemy.exc.DBAPIError as error:
            if error.connection_invalidated:
                return False
            raise

    def retake(self) -> None:
        """Take the lock by a new connection.

        Raises:
            LostStudyError: where another process has taken it meanwhile.
            StillHeldError: where the server still believes in the old connection.
            sqlalchemy.exc.SQLAlchemyError: where the server does not answer.
        """
        self.close()
        connection = self._again.enter_context(_connected(self._url))
        if not connection.execute(_TRY_LOCK, {"key": _key_of(self._study)}).scalar_one():
            who = _named(connection, self._study) or "another process"
            self.close()
            if who == _signed():
                raise StillHeldError(f"{who} holds {self._study} by a connection that has ended")
            raise LostStudyError(f"{who} has taken study {self._study} meanwhile")
        self._connection = connection

    def close(self) -> None:
        """Leave the lock that was taken again."""
        with suppress(sqlalchemy.exc.SQLAlchemyError):
            self._again.close()


def is_postgresql(url: str) -> bool:
    """Whether a record lies on a server, where several machines may reach it."""
    return sqlalchemy.make_url(url).get_backend_name() == "postgresql"


def connectable(url: str) -> str:
    """The URL with the driver named, since SQLAlchemy's own choice of one differs by version.

    Raises:
        ConfigError: where the driver is not installed.
    """
    if not is_postgresql(url):
        return url
    parsed = sqlalchemy.make_url(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    driver = parsed.drivername.partition("+")[2]
    if importlib.util.find_spec(driver) is None:
        raise ConfigError(
            f"a record in PostgreSQL needs the driver {driver}, which is not installed here: "
            "pip install 'lstm-search[postgresql]'"
            + ("" if driver == "psycopg" else f", and write postgresql:// without +{driver}")
        )
    return parsed.render_as_string(hide_password=False)


def connect_args(url: str) -> dict[str, Any]:
    """What the driver is told beside the URL: patience with a server that does not answer."""
    return {"connect_timeout": CONNECT_SECONDS} if is_postgresql(url) else {}


def unpooled(url: str) -> dict[str, Any]:
    """Settings of an engine that keeps no connection: a server has few, and many ask."""
    pool = {"poolclass": sqlalchemy.NullPool} if is_postgresql(url) else {}
    return {"connect_args": connect_args(url), **pool}


@contextmanager
def study_held(url: str, study: str) -> Iterator[HeldStudy]:
    """Hold a study's lock in its database; the server frees it when this process ends.

    Raises:
        HeldElsewhereError: where another process holds it; its text is that process.
    """
    with _connected(url) as connection:
        if not connection.execute(_TRY_LOCK, {"key": _key_of(study)}).scalar_one():
            raise HeldElsewhereError(_named(connection, study) or "another process")
        held = HeldStudy(url, study, connection)
        try:
            yield held
        finally:
            held.close()


@contextmanager
def alone_with_tables(url: str) -> Iterator[None]:
    """Wait until no other process makes or upgrades the tables of a record, and keep them off."""
    if not is_postgresql(url):
        yield
        return
    with _connected(url) as connection:
        connection.execute(_WAIT_FOR_LOCK, {"key": _key("tables")})
        yield


def study_holder(url: str, study: str) -> str | None:
    """The process that holds a study's lock in its database, None where nobody does."""
    with _connected(url) as connection:
        return _named(connection, study)


@contextmanager
def _connected(url: str) -> Iterator[sqlalchemy.Connection]:
    arguments = {"application_name": _signed(), **connect_args(url)}
    engine = sqlalchemy.create_engine(
        connectable(url),
        poolclass=sqlalchemy.NullPool,
        isolation_level="AUTOCOMMIT",  # a transaction for hours would keep the server from tidying
        connect_args=arguments,
    )
    with engine.connect() as connection:
        connection.execute(_SET)
        yield connection


def _signed() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _named(connection: sqlalchemy.Connection, study: str) -> str | None:
    found = connection.execute(_HOLDER, {"key": _key_of(study)}).first()
    # The server shows the names of other roles' connections to some roles only.
    return None if found is None else found[0] or "another process"


def _key_of(study: str) -> int:
    return _key(f"study {study}")


def _key(what: str) -> int:
    digest = hashlib.sha256(f"lstm-search {what}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)
