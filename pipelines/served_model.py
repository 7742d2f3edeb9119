"""The predictor as MLflow loads and serves it; a copy of this module travels with each model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException

from pipelines.predictor import Predictor, load_predictor


class ServedModel:
    """What `mlflow.pyfunc` calls."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(
        self, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Forecast as `Predictor.forecast` does; there are no parameters.

        Raises:
            MlflowException: The table cannot be read.
        """
        try:
            return self.predictor.forecast(model_input)
        except ValueError as error:
            # Of any other exception MLflow's server hides the words and shows the traceback.
            raise MlflowException.invalid_parameter_value(str(error)) from error


def _load_pyfunc(path: str) -> ServedModel:
    """Return the model in a folder; MLflow looks for a function of this name."""
    return ServedModel(load_predictor(Path(path)))
