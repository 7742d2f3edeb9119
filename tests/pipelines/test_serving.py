"""The saved model, as MLflow loads and serves it: by itself, anywhere, without a pickle."""

import json
import os
import pickletools
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.models import Model

from benchmarks.serving import as_request, connection_to, serving
from models.config import LSTMConfig
from pipelines.data_config import DataConfig, SplitConfig
from pipelines.model_package import write_package
from pipelines.predictor import Predictor, example_of, predictor_of
from pipelines.scaling import Scaling
from pipelines.series import load
from pipelines.serving import read_model, write_model
from pipelines.splits import split
from pipelines.training import build_forecaster
from pipelines.training_config import TrainConfig

ROOT = Path(__file__).parents[2]


def small_predictor(freq: str | None = "h") -> tuple[Predictor, pd.DataFrame]:
    rows = np.arange(300)
    frame = pd.DataFrame({"load": 100 + 30 * np.sin(2 * np.pi * rows / 24), "heat": np.cos(rows)})
    if freq is not None:
        frame.insert(0, "when", pd.date_range("2026-01-05", periods=300, freq=freq))
    table = load(DataConfig(targets=("load",), horizon=5, frequency=freq or "none"), frame)
    data, _ = split(table, SplitConfig())
    training = TrainConfig(
        lookback=12, calendar=True, learning_rate=1e-3, weight_decay=0.0, batch_size=8
    )
    forecasters = [
        build_forecaster(LSTMConfig(widths=(6, 4)), training, data, "cpu", seed) for seed in (0, 1)
    ]
    predictor = predictor_of(
        table, data, training, Scaling.fit(data), forecasters, data.num_train_rows
    )
    return predictor, example_of(table, data, predictor)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Predictor, pd.DataFrame]:
    """A written model, its predictor and its example."""
    folder = tmp_path_factory.mktemp("models") / "model"
    predictor, example = small_predictor()
    write_model(predictor, folder, example)
    return folder, predictor, example


Written = tuple[Path, Predictor, pd.DataFrame]


def test_no_file_of_a_model_is_a_pickle(written: Written) -> None:
    files = [path for path in written[0].rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {"", ".json", ".py", ".safetensors", ".txt", ".yaml"}
    assert [path.name for path in files if is_pickle(path.read_bytes())] == []
    text = "\n".join(path.read_text() for path in files if path.suffix in (".py", ".yaml", ""))
    assert not re.search(
        r"import (cloud)?pickle|(?<!safetensors\.)torch\.load|python_model\.pkl", text
    )


def test_a_pickle_would_be_found() -> None:
    import pickle

    assert is_pickle(pickle.dumps({"weights": [1, 2]}))
    assert is_pickle(pickle.dumps(np.arange(3), protocol=0))


def is_pickle(content: bytes) -> bool:
    try:
        return len(list(pickletools.genops(content))) > 1
    except Exception:  # whatever is wrong with it, it is no pickle
        return False


def test_a_model_names_its_columns_requirements_and_origin(written: Written) -> None:
    folder, predictor, example = written
    model = Model.load(str(folder))
    assert model.signature.inputs.input_names() == ["when", "load", "heat"]
    assert str(model.signature.outputs) == (
        "['when': datetime (required), 'load': double (required)]"
    )
    assert model.load_input_example(str(folder)).shape == example.shape
    assert model.metadata["data_fingerprint"] == predictor.spec.fingerprint
    required = (folder / "requirements.txt").read_text().split()
    names = {line.partition("==")[0] for line in required}
    assert names == {"mlflow", "numpy", "pandas", "pydantic", "safetensors", "torch"}
    assert all(re.fullmatch(r"[a-z]+==[0-9.]+(rc\d+)?", line) for line in required)


def test_no_path_of_this_machine_is_in_a_model(written: Written) -> None:
    for path in written[0].rglob("*"):
        if path.is_file():
            assert str(ROOT).encode() not in path.read_bytes(), path
            assert b"/tmp" not in path.read_bytes(), path


def test_a_loaded_model_forecasts_as_the_predictor_does(written: Written) -> None:
    folder, predictor, example = written
    model = mlflow.pyfunc.load_model(str(folder))
    assert model.predict(example).equals(predictor.forecast(example))
    # As pandas.read_csv reads it: whole numbers, and text for timestamps.
    plain = example.assign(when=example["when"].astype("str"), load=range(12))
    assert model.predict(plain).equals(predictor.forecast(plain))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame[1:], "a forecast reads 12 rows: got 11"),
        (lambda frame: frame.drop(columns="heat"), r"missing inputs \['heat'\]"),
        (lambda frame: with_gap(frame), r"after 2026-01-14 14:00:00 comes 2026-01-14 16:00:00"),
    ],
    ids=["rows", "column", "gap"],
)
def test_a_loaded_model_refuses_what_it_cannot_read(
    written: Written, change: Any, message: str
) -> None:
    model = mlflow.pyfunc.load_model(str(written[0]))
    with pytest.raises(mlflow.MlflowException, match=message):
        model.predict(change(written[2]))


def with_gap(frame: pd.DataFrame) -> pd.DataFrame:
    earlier = frame.assign(when=frame["when"] - pd.Timedelta(hours=12))
    return pd.concat([earlier, frame], ignore_index=True).drop(index=15)


def test_a_model_without_timestamps_is_loaded_too(tmp_path: Path) -> None:
    predictor, example = small_predictor(freq=None)
    write_model(predictor, tmp_path / "model", example)
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    assert model.predict(example).equals(predictor.forecast(example))


def test_the_predictor_is_read_back_without_running_the_models_code(
    written: Written, tmp_path: Path
) -> None:
    folder, predictor, example = written
    assert read_model(folder).forecast(example).equals(predictor.forecast(example))
    (tmp_path / "MLmodel").write_text("flavors: {}")
    with pytest.raises(ValueError, match=r"must be one that lstm-search saved: .*config.json is"):
        read_model(tmp_path)


def test_an_example_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    predictor, example = small_predictor()
    with pytest.raises(ValueError, match="a forecast reads 12 rows: got 3"):
        write_model(predictor, tmp_path / "model", example[:3])
    assert not (tmp_path / "model").exists()


def test_equal_code_has_an_equal_name_and_no_name_of_ours_is_left_in_it(tmp_path: Path) -> None:
    name = write_package(tmp_path / "one")
    assert write_package(tmp_path / "two") == name
    assert re.fullmatch(r"lstm_search_model_[0-9a-f]{12}", name)
    sources = {p.name: p.read_text() for p in (tmp_path / "one").rglob("*.py")}
    assert {"predictor.py", "forecaster.py", "lstm.py", "scaling.py"} <= sources.keys()
    assert "training.py" not in sources
    foreign = re.compile(r"^(from|import) (models|pipelines|search)\b", re.MULTILINE)
    assert [file for file, source in sources.items() if foreign.search(source)] == []


ELSEWHERE = """
import json, sys
sys.path[:0] = {packages!r}
import mlflow.pyfunc, pandas
import models, search  # those of this folder
answers = []
for folder in {folders!r}:
    model = mlflow.pyfunc.load_model(folder)
    example = model.input_example
    answers.append(json.loads(model.predict(example).to_json(date_format="iso")))
assert models.OWN and search.OWN and "pipelines" not in sys.modules
print(json.dumps(answers))
"""


@pytest.mark.slow
def test_two_versions_load_in_one_process_where_models_and_search_are_others(
    written: Written, tmp_path: Path
) -> None:
    folder, predictor, example = written
    other = write_changed(folder, tmp_path / "other")
    for package in ("models", "search"):
        (tmp_path / f"{package}.py").write_text("OWN = True\n")
    # Without `site` no .pth is read: this project, installed for editing, cannot be imported.
    packages = [path for path in sys.path if path.endswith("site-packages")]
    code = ELSEWHERE.format(packages=packages, folders=[str(folder), str(other)])
    outcome = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    first, second = json.loads(outcome.stdout.splitlines()[-1])
    expected = list(predictor.forecast(example)["load"])
    assert list(first["load"].values()) == pytest.approx(expected, rel=1e-9)
    assert list(second["load"].values()) == pytest.approx([-v for v in expected], rel=1e-9)


@pytest.mark.slow
def test_a_model_loads_where_only_its_own_requirements_are_installed(
    written: Written, tmp_path: Path, environment_of: Callable[..., Any]
) -> None:
    folder, predictor, example = written
    for package in ("models", "search"):
        (tmp_path / f"{package}.py").write_text("OWN = True\n")
    run = environment_of("-r", str(folder / "requirements.txt"))
    code = ELSEWHERE.format(packages=[], folders=[str(folder)])
    outcome = run("-c", code, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    (answer,) = json.loads(outcome.stdout.splitlines()[-1])
    expected = list(predictor.forecast(example)["load"])
    assert list(answer["load"].values()) == pytest.approx(expected, rel=1e-6)


def write_changed(folder: Path, to: Path) -> Path:
    """A model as another version of the code would have written it: its forecasts are negative."""
    shutil.copytree(folder, to)
    package = next((to / "code").iterdir())
    other = package.name[:-12] + "0" * 12
    package.rename(to / "code" / other)
    for path in [*to.rglob("*.py"), to / "MLmodel"]:
        path.write_text(path.read_text().replace(package.name, other))
    served = to / "code" / other / "pipelines" / "served_model.py"
    call = "self.predictor.forecast(model_input)"
    assert call in served.read_text()
    negative = f'{call}.eval("load = -load")'
    served.write_text(served.read_text().replace(call, negative))
    return to


@pytest.mark.slow
def test_a_served_model_answers_over_http_as_it_forecasts_here(
    written: Written, tmp_path: Path, free_port: int
) -> None:
    folder, predictor, example = written
    with (
        serving(folder, free_port, tmp_path / "serve.log") as url,
        connection_to(url) as ask,
    ):
        rows = ask(as_request(example))["predictions"]
        with pytest.raises(
            RuntimeError, match=r"answers 400: .*Error: a forecast reads 12 rows: got 3"
        ):
            ask(as_request(example[:3]))
    expected = predictor.forecast(example)
    assert [row["load"] for row in rows] == pytest.approx(list(expected["load"]), rel=1e-9)
    assert [pd.Timestamp(row["when"]) for row in rows] == list(expected["when"])
