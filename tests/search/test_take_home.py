"""A model taken home: its files alone, with torch and safetensors alone, forecast the same."""

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

from models.config import LSTMConfig
from models.forecaster import Forecaster
from pipelines.data_config import DataConfig, SplitConfig
from pipelines.predictor import Predictor, example_of, load_predictor, predictor_of
from pipelines.scaling import Scaling
from pipelines.series import SeriesTable, load
from pipelines.splits import SearchData, split
from pipelines.training import build_forecaster
from pipelines.training_config import TrainConfig
from search.take_home import model as plain
from search.take_home.writing import torch_lstm_state, write_files

Trained = tuple[Predictor, SeriesTable, SearchData]

MODELS = [
    LSTMConfig(widths=(6,)),
    LSTMConfig(widths=(6, 6, 4), bidirectional=True, normalisation="none"),
    LSTMConfig(widths=(5, 5), dropout=0.3, normalisation="seasonal", linear_skip="per_target"),
    LSTMConfig(widths=(5, 5), head="aligned", patch_length=3, normalisation="mean_std"),
    LSTMConfig(widths=(4, 6), head="aligned", bidirectional=True, linear_skip="none"),
    LSTMConfig(widths=(), head="aligned"),
]


def trained(
    model: LSTMConfig, freq: str | None = "h", calendar: bool = True, transform: Any = "none"
) -> Trained:
    """A predictor whose every weight matters, of two targets and one further series."""
    rows, rng = np.arange(300), np.random.default_rng(0)
    waves = np.stack([100 + 30 * np.sin(2 * np.pi * (rows + shift) / 24) for shift in (0, 7)])
    columns = {"load": waves[0], "sun": waves[1], "heat": np.cos(rows)}
    frame = pd.DataFrame({name: rng.normal(size=300) + column for name, column in columns.items()})
    if freq is not None:
        frame.insert(0, "when", pd.date_range("2023-11-01", periods=300, freq=freq))
    settings = {"targets": ("load", "sun"), "horizon": 7, "frequency": freq or "none", "season": 24}
    table = load(DataConfig(**settings, target_transform=transform), frame)  # type: ignore[arg-type]
    data, _ = split(table, SplitConfig())
    training = TrainConfig(
        lookback=30, calendar=calendar, learning_rate=1e-3, weight_decay=0.0, batch_size=8
    )
    forecaster = build_forecaster(model, training, data, "cpu", 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in forecaster.parameters():
            weights += 0.2 * torch.randn(weights.shape, generator=generator)
    scaling = Scaling.fit(data)
    return (predictor_of(table, data, training, scaling, [forecaster], 210), table, data)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.describe())
@pytest.mark.parametrize("calendar", [True, False])
def test_the_plain_model_forecasts_as_the_predictor_does(
    tmp_path: Path, model: LSTMConfig, calendar: bool
) -> None:
    write_files(tmp_path / "home", *trained(model, calendar=calendar), with_onnx=False)
    check_example(tmp_path / "home")


@pytest.mark.parametrize("freq", ["B", "W-SUN", "MS", "15min", "YS", None])
def test_the_calendar_is_computed_alike(tmp_path: Path, freq: str | None) -> None:
    write_files(tmp_path / "home", *trained(MODELS[0], freq=freq), with_onnx=False)
    check_example(tmp_path / "home")


@pytest.mark.parametrize("transform", ["log", "diff", "log_return"])
def test_every_transform_is_undone_alike(tmp_path: Path, transform: str) -> None:
    write_files(tmp_path / "home", *trained(MODELS[0], transform=transform), with_onnx=False)
    check_example(tmp_path / "home")


def check_example(folder: Path) -> None:
    example = json.loads((folder / "example.json").read_text())
    timestamps = [pd.Timestamp(text).to_pydatetime() for text in example["timestamps"]]
    forecast = plain.load(folder).forecast(example["values"], timestamps)
    expected = np.array(example["forecast"])
    assert forecast.shape == expected.shape == (7, 2)
    assert forecast.numpy() == pytest.approx(expected, rel=1e-5, abs=1e-5 * np.abs(expected).max())


def test_the_example_is_the_forecast_of_the_predictor(tmp_path: Path) -> None:
    predictor, table, data = trained(MODELS[0])
    write_files(tmp_path / "home", predictor, table, data, with_onnx=False)
    stored = json.loads((tmp_path / "home" / "example.json").read_text())
    forecast = predictor.forecast(example_of(table, data, predictor))
    assert stored["forecast"] == forecast[["load", "sun"]].to_numpy().tolist()
    assert stored["timestamps"][-7:] == [stamp.isoformat() for stamp in forecast["when"]]


def test_too_few_rows_or_timestamps_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path / "home", *trained(MODELS[0]), with_onnx=False)
    model = plain.load(tmp_path / "home")
    with pytest.raises(ValueError, match=r"reads 30 rows and 37 timestamps, .* got 30 and 0; give"):
        model.forecast(torch.zeros(30, 3))
    with pytest.raises(ValueError, match="got 29 and 0"):
        model.forecast(torch.zeros(29, 3))


def test_what_was_taken_home_is_still_a_predictor(tmp_path: Path) -> None:
    predictor, table, data = trained(MODELS[1])
    write_files(tmp_path / "home", predictor, table, data, with_onnx=False)
    example = example_of(table, data, predictor)
    again = load_predictor(tmp_path / "home")
    assert again.forecast(example).equals(predictor.forecast(example))


@pytest.mark.parametrize(
    "model",
    [
        LSTMConfig(widths=(6,)),
        LSTMConfig(widths=(5, 5, 5)),
        LSTMConfig(widths=(5, 5, 5), dropout=0.3),
        LSTMConfig(widths=(5, 5), bidirectional=True),
        LSTMConfig(widths=(5, 5), bidirectional=True, dropout=0.3),
    ],
    ids=lambda model: f"{model.describe()}, dropout {model.dropout}",
)
def test_layers_of_equal_width_load_into_torchs_lstm_strictly(
    tmp_path: Path, model: LSTMConfig
) -> None:
    predictor, table, data = trained(model)
    write_files(tmp_path / "home", predictor, table, data, with_onnx=False)
    path = tmp_path / "home" / "lstm_state_dict.safetensors"
    with safe_open(path, "pt") as file:
        arguments = {name: json.loads(text) for name, text in file.metadata().items()}
    lstm = nn.LSTM(**arguments)
    lstm.load_state_dict(safetensors.torch.load_file(path), strict=True)
    ours = predictor.forecasters[0].lstm
    assert ours is not None
    x = torch.randn(3, 9, arguments["input_size"], generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert lstm(x)[0].numpy() == pytest.approx(ours.lstm(x)[0].numpy(), abs=1e-6)


@pytest.mark.parametrize("widths", [(4, 6), ()])
def test_no_torch_lstm_is_written_where_there_is_none(widths: tuple[int, ...]) -> None:
    forecaster: Forecaster = trained(LSTMConfig(widths=widths))[0].forecasters[0]
    assert torch_lstm_state(forecaster) is None


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.describe())
def test_onnxruntime_computes_what_the_model_computes(tmp_path: Path, model: LSTMConfig) -> None:
    has_calendar = model.widths != (6,)
    write_files(tmp_path / "home", *trained(model, calendar=has_calendar), with_onnx=True)
    home = plain.load(tmp_path / "home")
    session = onnxruntime.InferenceSession(str(tmp_path / "home" / "model.onnx"))
    generator = torch.Generator().manual_seed(0)
    num_known = len(home.config["known"])
    for num_windows in (1, 5):
        window = torch.randn(num_windows, 30, 3, generator=generator)
        known = torch.randn(num_windows, 37, num_known, generator=generator)
        with torch.inference_mode():
            expected = home(window, known).numpy()
        inputs = {"window": window.numpy(), "known": known.numpy()}
        names = [one.name for one in session.get_inputs()]
        (forecast,) = session.run(["forecast"], {name: inputs[name] for name in names})
        assert forecast == pytest.approx(expected, abs=2e-5)


@pytest.mark.slow
def test_the_files_run_where_only_torch_and_safetensors_are(
    tmp_path: Path, environment_of: Callable[..., Any]
) -> None:
    packages = ("torch", "safetensors")
    versions = (importlib.metadata.version(name).partition("+")[0] for name in packages)
    run = environment_of(*map("==".join, zip(packages, versions, strict=True)))
    foreign = "numpy pandas pydantic mlflow ray optuna models pipelines search"
    found = run("-c", FIND, *foreign.split(), cwd=tmp_path)
    assert (found.returncode, found.stdout.split()) == (0, []), found
    for place, model in enumerate(MODELS):
        home = tmp_path / str(place)
        write_files(home, *trained(model), with_onnx=False)
        outcome = run("example.py", cwd=home)
        assert outcome.returncode == 0, outcome
        assert outcome.stdout.splitlines()[-1] == "as stored"


FIND = "import sys, importlib.util as u; print(*filter(u.find_spec, sys.argv[1:]))"


@pytest.mark.slow
def test_an_example_that_differs_is_said(tmp_path: Path) -> None:
    write_files(tmp_path / "home", *trained(MODELS[0]), with_onnx=False)
    path = tmp_path / "home" / "example.json"
    example = json.loads(path.read_text())
    example["forecast"][0][0] += 1
    path.write_text(json.dumps(example))
    outcome = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path / "home",
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert outcome.returncode == 1
    assert "differs from the stored forecast" in outcome.stdout


def test_the_plain_files_import_nothing_but_torch_safetensors_and_each_other(
    tmp_path: Path,
) -> None:
    import ast

    write_files(tmp_path / "home", *trained(MODELS[0]), with_onnx=False)
    imported = {
        name.partition(".")[0]
        for path in (tmp_path / "home").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - sys.stdlib_module_names == {"torch", "safetensors", "model"}
