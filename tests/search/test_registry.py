"""Models in MLflow's registry: registered, named champion, read back; on a store, on a server."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from models.config import LSTMConfig
from pipelines.data_config import DataConfig, SplitConfig
from pipelines.predictor import Predictor, example_of, predictor_of
from pipelines.scaling import Scaling
from pipelines.series import load
from pipelines.splits import split
from pipelines.training import build_forecaster
from pipelines.training_config import TrainConfig
from search.mlflow_store import ViewError, open_store
from search.registry import champion_of, fetch_predictor, register, set_alias

Registered = tuple[Predictor, pd.DataFrame]


@pytest.fixture(scope="module")
def predictors() -> list[Registered]:
    """Two predictors of different weights, each with its example."""
    rows = np.arange(300)
    frame = pd.DataFrame(
        {
            "when": pd.date_range("2026-01-05", periods=300, freq="h"),
            "load": 100 + 30 * np.sin(2 * np.pi * rows / 24) + rows % 7,
        }
    )
    table = load(DataConfig(horizon=5), frame)
    data, _ = split(table, SplitConfig())
    training = TrainConfig(
        lookback=12, calendar=True, learning_rate=1e-3, weight_decay=0.0, batch_size=8
    )
    scaling, made = Scaling.fit(data), []
    for normalisation in ("last", "mean_std"):
        model = LSTMConfig(widths=(4,), normalisation=normalisation)
        forecasters = [build_forecaster(model, training, data, "cpu", seed) for seed in (0, 1)]
        predictor = predictor_of(table, data, training, scaling, forecasters, 210)
        made.append((predictor, example_of(table, data, predictor)))
    return made


@pytest.fixture(params=["store", pytest.param("server", marks=pytest.mark.slow)])
def uri(request: pytest.FixtureRequest) -> str:
    """A local store, or a server."""
    if request.param == "store":
        return str(request.getfixturevalue("view_store"))
    return str(request.getfixturevalue("mlflow_server").uri)


@pytest.fixture
def run_id(uri: str, tmp_path: Path) -> str:
    """A run of an experiment of this test."""
    # Of a server the artifacts go through it; of a store they lie where the experiment says.
    return run_at(uri, None if uri.startswith("http") else tmp_path / "art if acts", tmp_path)


def run_at(uri: str, artifacts: Path | None, tmp_path: Path) -> str:
    client = open_store(uri)
    place = None if artifacts is None else artifacts.as_uri()
    experiment = client.create_experiment(f"of {tmp_path.name}", artifact_location=place)
    return str(client.create_run(experiment).info.run_id)


@pytest.fixture
def name(tmp_path: Path) -> str:
    return f"load-{tmp_path.name}"


@pytest.fixture(autouse=True)
def _globals_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert mlflow.active_run() is None
    assert mlflow.get_tracking_uri().startswith(f"sqlite:///{tmp_path}")  # MLflow's own default
    assert not (tmp_path / "mlruns").exists()


def test_a_registered_champion_is_read_back_with_its_tags(
    uri: str, run_id: str, name: str, predictors: list[Registered]
) -> None:
    predictor, example = predictors[0]
    assert champion_of(uri, name) is None
    version = register(uri, run_id, predictor, name, example, {"rows": "210"})
    assert champion_of(uri, name) is None
    set_alias(uri, name, "champion", version)
    champion = champion_of(uri, name)
    assert champion is not None
    assert (champion.version, champion.tags["rows"]) == (version, "210")
    assert champion.predictor.spec == predictor.spec
    assert champion.predictor.forecast(example).equals(predictor.forecast(example))


def test_the_next_version_becomes_champion_and_the_old_one_stays(
    uri: str, run_id: str, name: str, predictors: list[Registered]
) -> None:
    (old, example), (new, _) = predictors
    versions = [register(uri, run_id, one, name, example, {}) for one in (old, new)]
    assert versions == ["1", "2"]
    for version in versions:
        set_alias(uri, name, "champion", version)
    champion = champion_of(uri, name)
    assert champion is not None
    assert champion.version == "2"
    assert champion.predictor.forecast(example).equals(new.forecast(example))
    first = fetch_predictor(uri, f"models:/{name}/1")
    assert first.forecast(example).equals(old.forecast(example))
    assert not first.forecast(example).equals(new.forecast(example))


@pytest.mark.slow
def test_mlflow_loads_a_registered_model_by_its_alias(
    uri: str, run_id: str, name: str, predictors: list[Registered], tmp_path: Path
) -> None:
    predictor, example = predictors[0]
    set_alias(uri, name, "champion", register(uri, run_id, predictor, name, example, {}))
    expected = predictor.forecast(example)
    example.to_parquet(tmp_path / "example.parquet")
    code = (
        "import mlflow.pyfunc, pandas\n"
        f"mlflow.set_tracking_uri({uri!r})\n"
        f"model = mlflow.pyfunc.load_model('models:/{name}@champion')\n"
        "example = pandas.read_parquet('example.parquet')\n"
        "model.predict(example).to_parquet('forecast.parquet')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=240)
    assert pd.read_parquet(tmp_path / "forecast.parquet").equals(expected)


@pytest.mark.slow
def test_a_server_registers_models_of_a_local_search_too(
    mlflow_server: Any, name: str, predictors: list[Registered], tmp_path: Path
) -> None:
    uri, (predictor, example) = mlflow_server.uri, predictors[0]
    # As `lstm-search ui` serves them: the artifacts lie in a folder, not behind the server.
    run_id = run_at(uri, tmp_path / "artifacts", tmp_path)
    version = register(uri, run_id, predictor, name, example, {})
    again = fetch_predictor(uri, f"models:/{name}/{version}")
    assert again.forecast(example).equals(predictor.forecast(example))


def test_what_mlflow_does_not_have_is_said(uri: str, name: str) -> None:
    with pytest.raises(ViewError, match=f"there is no {name} with the alias champion; look"):
        fetch_predictor(uri, f"models:/{name}@champion")
    with pytest.raises(ViewError, match=f"does not hand out version 7 of {name}: .*not found"):
        fetch_predictor(uri, f"models:/{name}/7")
    with pytest.raises(ValueError, match=r"models:/NAME@ALIAS or models:/NAME/VERSION: got models"):
        fetch_predictor(uri, f"models:/{name}/champion")
    with pytest.raises(ViewError, match=f"does not make version 3 of {name} its champion"):
        set_alias(uri, name, "champion", "3")


def test_a_champion_that_no_search_made_is_refused_and_not_run(
    view_store: str, tmp_path: Path, run_id: Any, name: str, uri: str
) -> None:
    client = open_store(uri)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "MLmodel").write_text("flavors: {}")
    client.log_artifacts(run_id, str(tmp_path / "foreign"), "foreign")
    client.create_registered_model(name)
    source = f"{client.get_run(run_id).info.artifact_uri}/foreign"
    version = client.create_model_version(name, source, run_id).version
    set_alias(uri, name, "champion", str(version))
    with pytest.raises(ValueError, match="must be one that lstm-search saved"):
        champion_of(uri, name)


def test_where_no_server_answers_a_view_error_says_so(
    free_port: int, predictors: list[Registered], name: str
) -> None:
    uri = f"http://127.0.0.1:{free_port}"
    predictor, example = predictors[0]
    asked: list[Callable[[], object]] = [
        lambda: register(uri, "0" * 32, predictor, name, example, {}),
        lambda: champion_of(uri, name),
        lambda: fetch_predictor(uri, f"models:/{name}/1"),
    ]
    for ask in asked:
        with pytest.raises(ViewError, match="connection refused; see that MLflow runs"):
            ask()


def test_a_store_that_is_not_there_is_not_made_by_asking(tmp_path: Path) -> None:
    store = tmp_path / "elsewhere" / "mlflow.db"
    with pytest.raises(ViewError, match=r"there is no MLflow store .*mlflow.db yet"):
        fetch_predictor(f"sqlite:///{store}", "models:/load/1")
    assert not store.parent.exists()
