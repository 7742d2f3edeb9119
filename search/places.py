"""Where a search keeps its record and where it shows it."""

import json
import os
from pathlib import Path
from typing import Any

from search.config import SearchConfig
from search.projection import trials_url
from search.study import UnknownStudyError, read_study
from search.ui import LOCAL_SERVER, local_store_uri


def record_url(config: SearchConfig, study: str) -> str:
    """Where the record of a study lies, as a SQLAlchemy URL."""
    if config.storage:
        return config.storage
    config.studies_folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{config.studies_folder / f'{study}.db'}"


def recorded_config(config: SearchConfig, name: str) -> dict[str, Any]:
    """The configuration with which a study was last searched; `latest` is the newest study.

    Raises:
        UnknownStudyError: where there is no such study.
    """
    if name == "latest":
        name = latest_study(config)
    notes, _ = read_study(record_url(config, name), name)
    if "config" not in notes:
        raise UnknownStudyError(
            f"study {name} was ended before it began: begin it with --study {name}"
        )
    tree: dict[str, Any] = json.loads(notes["config"])
    return tree


def latest_study(config: SearchConfig) -> str:
    """The study of this folder that was written to last.

    Raises:
        UnknownStudyError: where there is none.
    """
    records = sorted(config.studies_folder.glob("*.db"), key=_written_at)
    if not records:
        raise UnknownStudyError(
            f"there is no study in {config.studies_folder} yet; begin one: python -m search.run"
        )
    return records[-1].stem


def _written_at(record: Path) -> float:
    # SQLite writes beside the file first; a search that was killed has left its last words there.
    write_ahead = record.with_name(f"{record.name}-wal")
    return max(path.stat().st_mtime for path in (record, write_ahead) if path.exists())


def tracking_uri(config: SearchConfig) -> str:
    """The MLflow server or store of a search: configured, from the environment, or here."""
    configured = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    return configured or local_store_uri(Path(config.home))


def experiment_name(config: SearchConfig) -> str:
    """The MLflow experiment of a search: configured, from the environment, or `lstm-search`."""
    configured = config.tracking.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME")
    return configured or "lstm-search"


def trials_page(config: SearchConfig, experiment_id: str) -> str:
    """The page that shows a study's trials, on the tracking server or on that of `search ui`."""
    assert config.study is not None
    uri = tracking_uri(config)
    server = uri if uri.startswith("http") else LOCAL_SERVER
    return trials_url(server, experiment_id, config.study)
