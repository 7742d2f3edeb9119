"""`python -m search forecast` and `export`, as they are typed, on a study with trained trials."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from pipelines.data_config import DataConfig
from pipelines.predictor import example_of, load_predictor
from pipelines.series import load
from pipelines.splits import SearchData, split
from pipelines.training_config import TrainingBudget
from search.__main__ import app
from search.config import SearchConfig
from search.derived_space import derive
from search.facts import facts_of, identity_of
from search.kept_weights import KeptWeights
from search.limits import Limits
from search.mlflow_store import open_store
from search.places import weights_folder
from search.registry import register, set_alias
from search.space import Space
from search.study import Study, open_study
from search.take_home.writing import trained_predictor
from search.trial import TrialStep, run_trial

BUDGET = TrainingBudget(max_steps=4, evaluate_every_steps=2, warmup_steps=0, precision="float32")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An hourly table of 20 days."""
    file = tmp_path_factory.mktemp("table") / "load.csv"
    hours = np.arange(480)
    noise = np.random.default_rng(0).normal(size=480)
    times = pd.date_range("2026-01-01", periods=480, freq="h")
    load_column = 50 + 10 * np.sin(2 * np.pi * hours / 24) + noise
    pd.DataFrame({"time": times, "load": load_column}).to_csv(file, index=False)
    return file


@pytest.fixture(scope="module")
def searched(
    table: Path,
    tmp_path_factory: pytest.TempPathFactory,
    closing_connections: Callable[[], Any],
) -> SearchConfig:
    """A study of two complete trials; the weights of the worse one are no longer kept."""
    home = tmp_path_factory.mktemp("home")
    config = SearchConfig(
        study="load-1",
        home=str(home),
        data=DataConfig(path=str(table), horizon=4),
        training=BUDGET,
    )
    data, _ = split(load(config.data), config.split)
    narrow = {"hidden_size": {"low": 4, "high": 8}, "num_layers": 2, "lookback": 24}
    space = Space.model_validate(narrow)
    rows = data.num_train_rows
    space, _ = derive(space, season=24, num_train_rows=rows, horizon=4, has_calendar=True)
    config = config.model_copy(update={"space": space})
    config.studies_folder.mkdir(parents=True)
    with closing_connections():
        study = open_study(
            f"sqlite:///{config.studies_folder / 'load-1.db'}",
            "load-1",
            identity_of(config, data),
            config.space,
            config.training,
            config.search,
            Limits(data, config.search.max_parameters, None),
        )
        study.note("config", config.model_dump_json())
        study.note("facts", asdict(facts_of(config, data)))
        kept = KeptWeights(weights_folder(config, "load-1"))
        values = [train_next(study, data, kept) for _ in range(2)]
    kept.keep_only([int(np.argmin(values))])
    return config


def train_next(study: Study, data: SearchData, kept: KeptWeights) -> float:
    proposal = study.ask()
    assert proposal is not None
    study.started(proposal.number)
    value = float("inf")
    for step in run_trial(proposal.config, data, proposal.seed, "mae"):
        assert isinstance(step, TrialStep)
        (study.report_final if step.is_final else study.report)(proposal.number, step.evaluation)
        value = min(value, step.evaluation.errors.mae_scaled)
        if step.weights is not None:
            kept.write(proposal.number, step.weights)
    study.complete(proposal.number)
    return value


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_best_trial_is_exported_and_forecasts_a_table(
    searched: SearchConfig, table: Path, tmp_path: Path
) -> None:
    home, out = tmp_path / "model", tmp_path / "forecast.csv"
    exported = run("export", "load-1", "--out", home, "--home", searched.home)
    assert exported.exit_code == 0, exported.output
    assert f"try it: cd {home} && python example.py" in exported.output
    plot = tmp_path / "forecast.png"
    done = run("forecast", "--model", home, "--data", table, "--out", out, "--plot", plot)
    assert done.exit_code == 0, done.output
    assert f"wrote {out}: 4 rows, 2026-01-21 00:00:00 to 2026-01-21 03:00:00" in done.output
    expected = load_predictor(home).forecast(pd.read_csv(table))
    assert pd.read_csv(out)["load"].tolist() == pytest.approx(expected["load"].tolist())
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_registered_model_forecasts_a_table(
    searched: SearchConfig, table: Path, tmp_path: Path, view_store: str
) -> None:
    read, data, predictor = trained_predictor(searched, None, None)
    client = open_store(view_store)
    place = (tmp_path / "artifacts").as_uri()
    run_id = client.create_run(client.create_experiment("x", artifact_location=place)).info.run_id
    example = example_of(read, data, predictor)
    set_alias(
        view_store, "load", "champion", register(view_store, run_id, predictor, "load", example, {})
    )
    out = tmp_path / "forecast.parquet"
    # The store lies in the folder that --home names, as a local search leaves it.
    words = ("--data", table, "--out", out, "--home", tmp_path)
    done = run("forecast", "--model", "models:/load@champion", *words)
    assert done.exit_code == 0, done.output
    expected = predictor.forecast(pd.read_csv(table))
    assert pd.read_parquet(out)["load"].tolist() == pytest.approx(expected["load"].tolist())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "nowhere"), "nowhere holds no config.json; name another"),
        (("--model", "models:/load@champion"), "there is no MLflow store"),
        (("--model", "nowhere", "--out", "forecast.xls"), r"must end in .csv, .parquet"),
        (("--model", "nowhere", "--plot", "forecast.txt"), r"must end in .png"),
    ],
)
def test_a_forecast_that_cannot_be_is_refused_in_one_line(
    table: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    given = ("--data", table, "--out", tmp_path / "f.csv", "--home", tmp_path / "none", *words)
    done = run("forecast", *given)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_gap_is_filled_where_it_is_asked_on_the_command_line(
    searched: SearchConfig, table: Path, tmp_path: Path
) -> None:
    home, new, out = tmp_path / "model", tmp_path / "new.csv", tmp_path / "forecast.csv"
    run("export", "load-1", "--out", home, "--home", searched.home)
    pd.read_csv(table).drop(index=470).to_csv(new, index=False)
    words = ("forecast", "--model", home, "--data", new, "--out", out)
    refused = run(*words)
    assert (refused.exit_code, out.exists()) == (2, False)
    assert "--set data.missing=interpolate" in refused.stderr
    filled = run(*words, "--set", "data.missing=interpolate")
    assert filled.exit_code == 0, filled.output
    assert "values interpolated: 1" in filled.output


def test_what_cannot_be_exported_is_said(
    searched: SearchConfig, table: Path, tmp_path: Path
) -> None:
    out, home = tmp_path / "model", searched.home
    kept = next(iter(weights_folder(searched, "load-1").glob("*.safetensors")))
    best = int(kept.stem)
    worse = run("export", "load-1", "--trial", 1 - best, "--out", out, "--home", home)
    assert worse.exit_code == 2
    assert f"study load-1 has those of {best}: got {1 - best}" in worse.stderr
    there = run("export", "load-1", "--out", tmp_path, "--home", home)
    assert "exists; choose another" in there.stderr
    other = tmp_path / "other.csv"
    pd.read_csv(table)[:-1].to_csv(other, index=False)
    moved = run("export", "load-1", "--out", out, "--home", home, "--data", other)
    assert "must be the one that the study was searched on" in moved.stderr
    assert not out.exists()


@pytest.mark.slow
def test_the_exported_example_runs_as_it_is(searched: SearchConfig, tmp_path: Path) -> None:
    out = tmp_path / "model"
    run("export", "load-1", "--out", out, "--home", searched.home, "--onnx")
    assert {"model.onnx", "model.py", "example.py", "config.json", "scaler.json"} <= {
        path.name for path in out.iterdir()
    }
    command = [sys.executable, "example.py"]
    done = subprocess.run(
        command, cwd=out, capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "as stored"
