"""The saved model as an MLflow model: loaded and served without this project, without a pickle.

With `pipelines/served_model.py`, what MLflow loads of it, one of the two doors to MLflow;
`search/mlflow_store.py` and what imports it are the other.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow.pyfunc
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import AnyType

from pipelines.model_package import ENTRY, write_package
from pipelines.predictor import Predictor, PredictorSpec, load_predictor

PREDICTOR_FOLDER = "predictor"
_REQUIRED = ("mlflow", "numpy", "pandas", "pydantic", "safetensors", "torch")


def write_model(predictor: Predictor, folder: Path, example: pd.DataFrame) -> None:
    """Write a predictor as an MLflow model into a folder that is new or empty.

    Args:
        predictor: What is saved.
        folder: Where; it then holds the weights, the code that reads them, the signature, the
            requirements and the example.
        example: A table that it can read, shown to whoever calls the model.

    Raises:
        ValueError: The predictor cannot read the example.
    """
    predictor.forecast(example)
    with tempfile.TemporaryDirectory() as scratch, _without_remarks():
        data, code = Path(scratch) / PREDICTOR_FOLDER, Path(scratch) / "code"
        predictor.save(data)
        package = write_package(code)
        mlflow.pyfunc.save_model(
            folder,
            loader_module=f"{package}.{ENTRY}",
            data_path=str(data),
            code_paths=[str(code / package)],
            signature=signature_of(predictor),
            input_example=example,
            pip_requirements=list(_requirements()),
            metadata=_metadata(predictor.spec),
        )


def read_model(folder: Path) -> Predictor:
    """Return the predictor in an MLflow model; nothing in it is run.

    Raises:
        ValueError: It is none that `write_model` wrote.
    """
    predictor = folder / "data" / PREDICTOR_FOLDER
    try:
        return load_predictor(predictor)
    except FileNotFoundError as error:
        raise ValueError(
            f"a model must be one that lstm-search saved: {error.filename} is missing"
        ) from None


def signature_of(predictor: Predictor) -> ModelSignature:
    """Return the columns that the model reads and writes."""
    spec = predictor.spec
    # Not double and datetime: MLflow would then refuse whole numbers and, of pandas 3, text; the
    # predictor checks better what may be read as what.
    read = [*filter(None, [spec.timestamp]), *spec.columns]
    inputs = Schema([ColSpec(AnyType(), name) for name in read])
    time_type = DataType.long if spec.timestamp is None else DataType.datetime
    written = [ColSpec(DataType.double, name) for name in spec.targets]
    return ModelSignature(inputs, Schema([ColSpec(time_type, predictor.time_column), *written]))


@contextmanager
def _without_remarks() -> Iterator[None]:
    # It would say on the screen of a search that it compares the example with the signature.
    logger = logging.getLogger("mlflow.pyfunc")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _requirements() -> Iterator[str]:
    for name in _REQUIRED:
        version = importlib.metadata.version(name)
        # A local label such as +cpu is of one index only.
        yield f"{name}=={version.partition('+')[0]}"


def _metadata(spec: PredictorSpec) -> dict[str, str | int]:
    return {
        "data": spec.name,
        "data_fingerprint": spec.fingerprint,
        "frequency": spec.frequency or "none",
        "horizon": spec.horizon,
        "lookback": spec.lookback,
        "model": spec.model.describe(),
        "num_forecasters": spec.num_forecasters,
        "num_rows": spec.num_rows,
    }
