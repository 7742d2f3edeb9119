"""What MLflow holds of a study, to be deleted with it."""

import shutil
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from search.mlflow_store import OUTAGES, ViewError, open_store, pages, sqlite_path, why

from mlflow import MlflowClient  # isort: skip - search.mlflow_store says first how MLflow behaves
from mlflow.entities import Run, ViewType  # isort: skip


@dataclass(frozen=True)
class StoredRuns:
    """All that MLflow holds of one study, deleted runs included."""

    run_ids: tuple[str, ...]
    folders: tuple[Path, ...]
    """Where their artifacts lie, as far as that is in the folder of a local store."""
    models: tuple[str, ...]
    """Registered model versions that point to one of the runs, such as `load v2`."""
    is_local: bool
    """Whether the store can be freed of them here and now."""


def stored_runs(uri: str, uid: str, home: Path) -> StoredRuns:
    """Find a study's runs in all experiments of a store; makes no store.

    Only what lies below `home` is to be freed from here.

    Raises:
        ViewError: where MLflow cannot be reached or refuses.
    """
    path = sqlite_path(uri)
    is_local = path is not None and path.resolve().is_relative_to(home.resolve())
    if path is not None and not path.exists():
        return StoredRuns((), (), (), is_local)
    try:
        client = open_store(uri)
        runs = _runs_of_study(client, uid)
        models = _models_of(client, runs) if runs else ()
    except OUTAGES as error:
        raise ViewError(
            f"MLflow must answer before a study is deleted, lest a registered model lose its run: "
            f"{why(error)}; start it, or put its address right"
        ) from None
    artifacts = path.parent.resolve() / "artifacts" if path and is_local else None
    folders = [_folder_in(artifacts, run) for run in runs]
    return StoredRuns(
        tuple(run.info.run_id for run in runs),
        tuple(folder for folder in folders if folder is not None),
        models,
        is_local,
    )


def delete_runs(uri: str, stored: StoredRuns, name: str, uid: str) -> None:
    """Delete a study's runs: for good from a local store, else as marks for `mlflow gc`.

    Raises:
        ViewError: where MLflow cannot be reached or refuses.
    """
    if not stored.run_ids:
        return
    try:
        client = open_store(uri)
        for run_id in stored.run_ids:
            if client.get_run(run_id).info.lifecycle_stage == "active":
                client.delete_run(run_id)
        for folder in stored.folders:
            shutil.rmtree(folder, ignore_errors=True)
        for run_id in stored.run_ids if stored.is_local else ():
            # As `mlflow gc` does it; MLflow's clients only mark.
            client._tracking_client.store._hard_delete_run(run_id)
        _forget_saved_view(client, name, uid)
    except OUTAGES as error:
        raise ViewError(f"MLflow does not delete study {name}: {why(error)}; try again") from None


def shrink_store(uri: str) -> bool:
    """Give back the room of deleted rows; return False where the store is in use just now."""
    path = sqlite_path(uri)
    if path is None or not path.exists():
        return True
    connection = sqlite3.connect(path, timeout=5)
    try:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError:  # locked by a search or a server, or no room for the copy
        return False
    finally:
        connection.close()
    return True


def _runs_of_study(client: MlflowClient, uid: str) -> list[Run]:
    # The experiment may have been another one each time, named by the environment.
    ids = [e.experiment_id for e in pages(client.search_experiments, view_type=ViewType.ALL)]
    wanted = f"tags.study_uid = '{uid}'"
    found = pages(
        client.search_runs,
        experiment_ids=ids,
        filter_string=wanted,
        run_view_type=ViewType.ALL,
    )
    return list(found)


def _models_of(client: MlflowClient, runs: Iterable[Run]) -> tuple[str, ...]:
    places = {run.info.run_id: run.info.artifact_uri for run in runs}
    return tuple(
        f"{version.name} v{version.version}"
        for version in pages(client.search_model_versions)
        if version.run_id in places
        or any(place and str(version.source).startswith(place) for place in places.values())
        or any(f"runs:/{run_id}" in str(version.source) for run_id in places)
    )


def _folder_in(artifacts: Path | None, run: Run) -> Path | None:
    """The folder of a run below the store's own; None for any other place, links included."""
    if artifacts is None or not str(run.info.artifact_uri).startswith("file://"):
        return None
    folder = Path(unquote(urlsplit(run.info.artifact_uri).path)).parent
    is_inside = folder.name == run.info.run_id and folder.resolve() == artifacts / folder.name
    return folder if is_inside and folder.is_dir() else None


def _forget_saved_view(client: MlflowClient, name: str, uid: str) -> None:
    key = f"mlflow.sharedViewState.{name}"
    for experiment in pages(client.search_experiments):
        if uid in experiment.tags.get(key, ""):  # a younger study of the same name has another
            client.delete_experiment_tag(experiment.experiment_id, key)
