"""Where a search keeps its record and where it shows it."""

import json
import os
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import sqlalchemy

from search.config import SearchConfig
from search.config_file import parse_config
from search.database import HeldStudy
from search.lock import locked
from search.names import FINALISTS, check_study_name
from search.projection import trials_url
from search.stored_studies import UnknownStudyError, read_study, study_names
from search.ui import LOCAL_SERVER, local_store_uri


def record_url(config: SearchConfig, study: str) -> str:
    """Where the record of a study lies, as a SQLAlchemy URL."""
    if config.storage:
        return config.storage
    return f"sqlite:///{config.studies_folder / f'{study}.db'}"


def recorded_config(config: SearchConfig, name: str) -> dict[str, Any]:
    """The configuration with which a study was last searched; `latest` is the newest study.

    Raises:
        UnknownStudyError: where there is no such study.
    """
    name = latest_study(config) if name == "latest" else check_study_name(name)
    notes, _ = read_study(record_url(config, name), name)
    if "config" not in notes:
        raise UnknownStudyError(
            f"study {name} was ended before it began: begin it with --study {name}"
        )
    tree: dict[str, Any] = json.loads(notes["config"])
    return tree


def recorded_form(config: SearchConfig) -> str:
    """The configuration as a study notes it, for `--resume`: JSON without a log-in.

    The database is named anew each time, and MLflow's log-in comes from the environment.
    """
    uri = config.tracking.uri and without_login(config.tracking.uri)
    tracking = config.tracking.model_copy(update={"uri": uri})
    return config.model_copy(update={"storage": None, "tracking": tracking}).model_dump_json()


def config_of_study(study: str, home: str | None, storage: str | None) -> SearchConfig:
    """The configuration of a study that lies in a folder or a database; `latest` is the newest.

    Raises:
        ConfigError: for what cannot be a study's name.
        UnknownStudyError: where there is no such study; names those that there are.
    """
    folder = SearchConfig(home=home, storage=storage)
    name = name_of_study(folder, study)
    # The folder and the storage may have moved since they were recorded.
    return parse_config(recorded_config(folder, name) | {"home": home, "storage": storage})


def name_of_study(config: SearchConfig, study: str) -> str:
    """The name of a study that is there; `latest` is the newest.

    Raises:
        ConfigError: for what cannot be a study's name.
        UnknownStudyError: where there is no such study; names those that there are.
    """
    if study == "latest":
        return latest_study(config)
    name, known = parse_config({"study": study}).study, known_studies(config)
    if name not in known:
        raise UnknownStudyError(
            f"no study is named {name} in {_place(config)}; known are {', '.join(known) or 'none'}"
        )
    return name


def known_studies(config: SearchConfig) -> list[str]:
    """The studies of a folder or a database, the one searched last at the end."""
    if config.storage:
        return study_names(config.storage)
    records = sorted(config.studies_folder.glob("*.db"), key=_written_at)
    return [record.stem for record in records]


def latest_study(config: SearchConfig) -> str:
    """The study of a folder or a database that was searched last, those of finalists left out.

    Raises:
        UnknownStudyError: where there is none.
    """
    known = [name for name in known_studies(config) if not name.endswith(FINALISTS)]
    if not known:
        raise UnknownStudyError(
            f"there is no study in {_place(config)} yet; begin one: python -m search.run"
            f"{config.place}"
        )
    return known[-1]


def record_files(config: SearchConfig, study: str) -> list[Path]:
    """The files of a study's own record, its lock last; none where it lies in a database."""
    names = (
        [] if config.storage else [f"{study}.db{end}" for end in ("", "-wal", "-shm", "-journal")]
    )
    paths = [config.studies_folder / name for name in (*names, f"{study}.lock")]
    return [path for path in paths if path.exists() or path.is_symlink()]


def lock_file(config: SearchConfig, study: str) -> Path:
    """The lock of a study, held by whoever writes its record."""
    return config.studies_folder / f"{study}.lock"


def study_locked(config: SearchConfig, study: str) -> AbstractContextManager[HeldStudy | None]:
    """Hold the lock of a study.

    Raises:
        StudyLockedError: where another process holds it; names that process.
    """
    return locked(lock_file(config, study), study, config.storage)


def weights_folder(config: SearchConfig, study: str) -> Path:
    """Where a study keeps the weights of its best trials."""
    return config.studies_folder / study


def _place(config: SearchConfig) -> str:
    return "the database" if config.storage else str(config.studies_folder)


def _written_at(record: Path) -> float:
    # SQLite writes beside the file first; a search that was killed has left its last words there.
    write_ahead = record.with_name(f"{record.name}-wal")
    # A reader leaves an empty one.
    is_full = write_ahead.exists() and write_ahead.stat().st_size > 0
    return max(path.stat().st_mtime for path in (record, *[write_ahead] * is_full))


def tracking_uri(config: SearchConfig) -> str:
    """The MLflow server or store of a search: configured, from the environment, or here."""
    configured = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    return configured or local_store_uri(config.home_folder)


def is_server(uri: str) -> bool:
    """Whether a tracking URI is that of a server, which can be asked."""
    return uri.startswith(("http://", "https://"))


def shown_address(address: str) -> str:
    """An address without name and password."""
    kind, separator, rest = address.partition("://")
    if not separator:
        return address
    # People forget that a / in a password is written %2F; digits before one are a port.
    rest = re.sub(r"^([^/]*|[^/:@\[]*:(?!\d*/).*)@", "", rest)
    # PostgreSQL takes passwords behind the question mark too.
    rest = re.sub(r"(password=)[^&]*", r"\1***", rest)
    return f"{kind}{separator}{rest}"


def without_login(uri: str) -> str:
    """The address of an MLflow server without name and password, of a database without password."""
    if uri.startswith("http"):
        return shown_address(uri)
    if uri.partition(":")[0].partition("+")[0] not in ("postgresql", "mysql", "mssql"):
        return uri
    url = sqlalchemy.make_url(uri).difference_update_query(["password", "sslpassword"])
    bare = sqlalchemy.URL.create(
        url.drivername, url.username, None, url.host, url.port, url.database, url.query
    )
    return bare.render_as_string()


def experiment_name(config: SearchConfig) -> str:
    """The MLflow experiment of a search: configured, from the environment, or `lstm-search`."""
    configured = config.tracking.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME")
    return configured or "lstm-search"


def trials_page(config: SearchConfig, experiment_id: str) -> str:
    """The page that shows a study's trials, on the tracking server or on that of `search ui`."""
    assert config.study is not None
    uri = tracking_uri(config)
    server = without_login(uri) if uri.startswith("http") else LOCAL_SERVER
    return trials_url(server, experiment_id, config.study)
