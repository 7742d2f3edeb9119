"""`python -m search export`: one trial's model, written as files for plain torch."""

from __future__ import annotations

import importlib.util
import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from models.forecaster import Forecaster
from pipelines.covariates import future_timestamps
from pipelines.predictor import Predictor, example_of, predictor_of
from pipelines.scaling import Scaling
from pipelines.series import SeriesTable
from pipelines.splits import SearchData
from pipelines.weights import forecaster_from_file
from search.config import ConfigError, SearchConfig
from search.kept_weights import KeptWeights
from search.names import FINALISTS
from search.places import record_url, weights_folder
from search.record import TrialRecord, leaderboard
from search.replay import recorded_data
from search.stored_studies import read_study
from search.take_home import model as plain

_PYTHON_FILES = ("model.py", "example.py")


def take_home(
    config: SearchConfig, number: int | None, to: Path, data: str | None, with_onnx: bool
) -> list[Path]:
    """Write a trial's model into a new folder.

    Args:
        config: Of the study, as it was recorded.
        number: Of the trial; None: the best.
        to: The folder.
        data: Where the table lies now, from whose training rows the scaling is fitted again.
        with_onnx: Whether `model.onnx` is written too.

    Returns:
        The files.

    Raises:
        ConfigError: The folder exists, the trial has no weights, or the table is another.
    """
    if to.exists() or not to.parent.is_dir():
        problem = "exists" if to.exists() else f"is in no folder: {to.parent} is missing"
        raise ConfigError(f"--out names a new folder: {to} {problem}; choose another")
    table, search_data, predictor = trained_predictor(config, number, data)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".export-") as scratch:
        folder = Path(scratch) / to.name
        write_files(folder, predictor, table, search_data, with_onnx)
        folder.rename(to)
    return sorted(to.iterdir())


def trained_predictor(
    config: SearchConfig, number: int | None, data: str | None
) -> tuple[SeriesTable, SearchData, Predictor]:
    """Return the table of a study, read again, and the predictor of one of its trials.

    Raises:
        ConfigError: The trial has no weights, or the table is another.
    """
    assert config.study is not None
    if config.study.endswith(FINALISTS):
        raise ConfigError(
            f"a trial of the search itself is exported: got {config.study}; export "
            f"{config.study.removesuffix(FINALISTS)}"
        )
    notes, trials = read_study(record_url(config, config.study), config.study)
    trial, path = _trial_with_weights(config, trials, number)
    assert trial.config is not None
    table, search_data = recorded_data(config, notes, data)
    predictor = predictor_of(
        table,
        search_data,
        trial.config.training,
        Scaling.fit(search_data),
        [forecaster_from_file(path)],
        search_data.num_train_rows,
        (f"trial {trial.name} of study {config.study}, not refitted",),
    )
    return table, search_data, predictor


def write_files(
    folder: Path, predictor: Predictor, table: SeriesTable, data: SearchData, with_onnx: bool
) -> None:
    """Write a predictor of one forecaster, what runs it, and an example."""
    predictor.save(folder)
    source = Path(__file__).parent
    for name in _PYTHON_FILES:
        text = (source / name).read_text(encoding="utf-8")
        alone = text.replace("from search.take_home.model import", "from model import")
        (folder / name).write_text(alone, encoding="utf-8")
    example = _example(predictor, table, data)
    (folder / "example.json").write_text(json.dumps(example, indent=1), encoding="utf-8")
    state = torch_lstm_state(predictor.forecasters[0])
    if state is not None:
        tensors, arguments = state
        safetensors.torch.save_file(
            tensors, folder / "lstm_state_dict.safetensors", metadata=dict(arguments)
        )
    if with_onnx:
        write_onnx(folder)


def torch_lstm_state(forecaster: Forecaster) -> tuple[dict[str, Tensor], Mapping[str, str]] | None:
    """Return the LSTM layers as one `torch.nn.LSTM` names them, and the arguments that make it.

    None where no `nn.LSTM` is that stack: layers of different widths, or no layer.
    """
    widths, lstm = forecaster.config.widths, forecaster.lstm
    if lstm is None or len(set(widths)) != 1:
        return None
    tensors: dict[str, Tensor] = {}
    first = 0
    for run in lstm.lstm.runs:
        assert isinstance(run, nn.LSTM)
        for name, tensor in run.state_dict().items():
            layer, _, direction = name.rpartition("_l")[2].partition("_")
            suffix = f"_{direction}" if direction else ""
            start = name.rpartition("_l")[0]
            tensors[f"{start}_l{first + int(layer)}{suffix}"] = tensor.contiguous()
        first += run.num_layers
    arguments = {
        "input_size": lstm.lstm.input_size,
        "hidden_size": widths[0],
        "num_layers": len(widths),
        "bidirectional": forecaster.config.bidirectional,
        "batch_first": True,
    }
    return tensors, {name: json.dumps(value) for name, value in arguments.items()}


def write_onnx(folder: Path) -> None:
    """Write model.onnx beside the other files: standardised windows in, standardised forecasts out.

    Raises:
        ConfigError: The package onnx is missing.
    """
    if importlib.util.find_spec("onnx") is None:
        raise ConfigError("--onnx needs the package onnx: pip install 'lstm-search[onnx]'")
    model = plain.load(folder)
    config = model.config
    window = torch.zeros(2, config["lookback"], len(config["columns"]))
    known = torch.zeros(2, config["lookback"] + config["horizon"], len(config["known"]))
    inputs = {"window": window} | ({"known": known} if config["known"] else {})
    # Each batch size; the rest of a shape is the model's.
    axes = {name: {0: "batch"} for name in (*inputs, "forecast")}
    whole = model if config["known"] else _WithoutKnown(model)
    with warnings.catch_warnings():
        # This exporter is the one that needs no further packages; it warns of its successor.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            whole,
            tuple(inputs.values()),
            str(folder / "model.onnx"),
            input_names=list(inputs),
            output_names=["forecast"],
            dynamic_axes=axes,
            dynamo=False,
        )


class _WithoutKnown(nn.Module):
    """A forecaster that reads no calendar; ONNX has no input without numbers."""

    def __init__(self, model: plain.Forecaster) -> None:
        super().__init__()
        self.model = model

    def forward(self, window: Tensor) -> Tensor:
        num_steps = self.model.lookback + self.model.horizon
        known = window[:, :1, :0].expand(-1, num_steps, -1)
        forecast: Tensor = self.model(window, known)
        return forecast


def _example(predictor: Predictor, table: SeriesTable, data: SearchData) -> dict[str, list[Any]]:
    frame, spec = example_of(table, data, predictor), predictor.spec
    forecast = predictor.forecast(frame)
    timestamps: list[str] = []
    if spec.timestamp is not None and spec.frequency is not None:
        past = list(frame[spec.timestamp])
        future = future_timestamps(past[-1], spec.frequency, spec.horizon)
        timestamps = [stamp.isoformat() for stamp in (*past[-spec.lookback :], *future)]
    return {
        "columns": list(spec.columns),
        "values": frame[list(spec.columns)].to_numpy().tolist(),
        "timestamps": timestamps,
        "forecast": forecast[list(spec.targets)].to_numpy().tolist(),
    }


def _trial_with_weights(
    config: SearchConfig, trials: list[TrialRecord], number: int | None
) -> tuple[TrialRecord, Path]:
    assert config.study is not None
    kept = KeptWeights(weights_folder(config, config.study))
    known = list(_numbers_kept(kept, trials))
    if number is None:
        best = leaderboard(trials, 1)
        if not best:
            raise ConfigError(
                f"study {config.study} has no complete trial: search on with --resume"
            )
        number = best[0].number
    if number not in known:
        shown = ", ".join(str(one) for one in known[:20]) or "none"
        raise ConfigError(
            f"a trial is exported while its weights are kept, as those of the best are: study "
            f"{config.study} has those of {shown}: got {number}; choose one of them, or raise "
            "search.num_kept_weights and train it again"
        )
    return trials[number], kept.path(number)


def _numbers_kept(kept: KeptWeights, trials: list[TrialRecord]) -> Iterator[int]:
    for trial in trials:
        if trial.config is not None and kept.path(trial.number).is_file():
            yield trial.number
