"""How a store of MLflow is opened, and what is said where it fails."""

from pathlib import Path

import pytest

from search.mlflow_store import open_store, why

from mlflow import MlflowException  # isort: skip - search.mlflow_store says first how it behaves


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MlflowException("experiment x is gone\nmore"), "experiment x is gone"),
        (ValueError(), "ValueError"),
        (MlflowException("API request failed with error code 403 != 200"), "error 403"),
        (OSError("y" * 9000), "y" * 200),
    ],
)
def test_why_mlflow_fails_is_a_few_words(error: Exception, reason: str) -> None:
    assert why(error) in (reason, f"it answers with {reason}")


@pytest.mark.slow
def test_a_new_store_is_made_quietly(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    open_store(f"sqlite:///{tmp_path / 'deep' / 'folder' / 'mlflow.db'}")
    assert capfd.readouterr() == ("", "")
