"""MLflow's model registry: models under a name, their versions, and which of them is champion.

Beside `search/tracking.py` the search's door to MLflow.
"""

import re
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import pandas as pd

from pipelines.predictor import Predictor
from pipelines.printable import printable
from search.mlflow_store import OUTAGES, TAG_CHARACTERS, ViewError, open_store, why

import mlflow.artifacts  # isort: skip - search.mlflow_store says first how it behaves
from mlflow import MlflowClient, MlflowException  # isort: skip
from mlflow.entities.model_registry import ModelVersion  # isort: skip

from pipelines.serving import read_model, write_model  # isort: skip

CHAMPION = "champion"

Answer = TypeVar("Answer")


class Registered(NamedTuple):
    """A version of a registered model, read back."""

    version: str
    tags: dict[str, str]
    predictor: Predictor


def register(
    uri: str,
    run_id: str,
    predictor: Predictor,
    name: str,
    example: pd.DataFrame,
    tags: Mapping[str, str],
) -> str:
    """Store a predictor with a run, as a new version of a registered model.

    Args:
        uri: MLflow's server or store.
        run_id: The run that the model comes from; its files go there.
        predictor: What is registered.
        name: Of the registered model, which is made where it is missing.
        example: A table that the predictor can read.
        tags: Of the version.

    Returns:
        The version.

    Raises:
        ViewError: MLflow cannot be reached or refuses.
    """
    place = f"model-{uuid.uuid4().hex[:12]}"  # a run may bring forth several
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        write_model(predictor, folder, example)

        def upload() -> str:
            client = open_store(uri)
            client.log_artifacts(run_id, str(folder), place)
            source = f"{client.get_run(run_id).info.artifact_uri}/{place}"
            _make_model(client, name)
            shown = {tag: text[:TAG_CHARACTERS] for tag, text in tags.items()}
            made = client.create_model_version(name, source, run_id, tags=shown)
            return str(made.version)

        return _answer(f"MLflow does not register {name}", upload)


def set_alias(uri: str, name: str, alias: str, version: str) -> None:
    """Let an alias such as `champion` mean a version; it means one at a time.

    Raises:
        ViewError: MLflow cannot be reached or refuses.
    """

    def set_it() -> None:
        open_store(uri).set_registered_model_alias(name, alias, version)

    _answer(f"MLflow does not make version {version} of {name} its {alias}", set_it)


def champion_of(uri: str, name: str, alias: str = CHAMPION) -> Registered | None:
    """Return the version that an alias means; None where there is no such model or alias.

    Raises:
        ViewError: MLflow cannot be reached or refuses.
        ValueError: The version is no model that a search registered.
    """

    def find() -> ModelVersion | None:
        try:
            return open_store(uri).get_model_version_by_alias(name, alias)
        except MlflowException as error:
            if _says_there_is_none(error):
                return None
            raise

    found = _answer(f"MLflow does not say which version of {name} is its {alias}", find)
    if found is None:
        return None
    return Registered(str(found.version), dict(found.tags), _fetch(uri, name, str(found.version)))


def fetch_predictor(uri: str, model: str) -> Predictor:
    """Return the predictor of `models:/NAME@ALIAS` or `models:/NAME/VERSION`; runs nothing in it.

    Raises:
        ViewError: MLflow cannot be reached, or has no such model.
        ValueError: It is no such address, or no model that a search registered.
    """
    parts = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", model)
    if parts is None:
        raise ValueError(
            "a registered model is written models:/NAME@ALIAS or models:/NAME/VERSION: got "
            f"{printable(model)}; write it so, such as models:/load@champion"
        )
    name, alias, version = parts.groups()
    _check_store(uri)
    if alias is not None:
        found = champion_of(uri, name, alias)
        if found is None:
            raise ViewError(
                f"MLflow must have the model: there is no {name} with the alias {alias}; look for "
                "its name under Models: python -m search ui, with the --home of the search"
            )
        return found.predictor
    return _fetch(uri, name, version)


def _fetch(uri: str, name: str, version: str) -> Predictor:
    with tempfile.TemporaryDirectory() as scratch:

        def download() -> str:
            # A client, and not models:/…, which MLflow looks for in its global registry.
            source = open_store(uri).get_model_version_download_uri(name, version)
            place: str = mlflow.artifacts.download_artifacts(
                artifact_uri=source, dst_path=scratch, tracking_uri=uri
            )
            return place

        place = _answer(f"MLflow does not hand out version {version} of {name}", download)
        try:
            return read_model(Path(place))
        except ValueError as error:
            raise ValueError(
                f"version {version} of {name} cannot be read: {error}; let its alias mean another "
                "version, or choose another --registered-model-name"
            ) from None


def _check_store(uri: str) -> None:
    store = uri.removeprefix("sqlite:///")
    if store != uri and not Path(store).exists():  # opening it would make an empty one
        raise ViewError(f"there is no MLflow store {store} yet: a search makes it; name another")


def _make_model(client: MlflowClient, name: str) -> None:
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if not _says_there_is_none(error):
            raise
        try:
            client.create_registered_model(name)
        except MlflowException as conflict:  # another search has made it meanwhile
            if conflict.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _says_there_is_none(error: MlflowException) -> bool:
    # An alias that is missing is an invalid parameter to MLflow's stores.
    is_alias = error.error_code == "INVALID_PARAMETER_VALUE" and "alias" in str(error)
    return error.error_code == "RESOURCE_DOES_NOT_EXIST" or is_alias


def _answer(problem: str, call: Callable[[], Answer]) -> Answer:
    """Return what MLflow answers.

    Raises:
        ViewError: It does not.
    """
    try:
        return call()
    except OUTAGES as error:
        raise ViewError(
            f"{problem}: {why(error)}; see that MLflow runs at MLFLOW_TRACKING_URI or "
            "tracking.uri, and that the name is right"
        ) from None
