"""A recorded trial trained again, without Ray or MLflow, and compared with its record."""

import dataclasses
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from pipelines.data_config import DataConfig
from pipelines.scores import Evaluation
from pipelines.series import load
from pipelines.splits import SearchData, split
from pipelines.training_config import TrainingBudget
from search.__main__ import app
from search.config import ConfigError, SearchConfig
from search.derived_space import derive
from search.facts import facts_of, identity_of
from search.record import TrialRecord
from search.replay import Comparison, UnknownTrialError, replay, replay_command
from search.space import Space
from search.stored_studies import read_study
from search.study import Study, open_study
from search.trial import TrialStep, run_trial

from search.limits import Limits  # isort: skip

BUDGET = TrainingBudget(
    max_steps=6,
    evaluate_every_steps=2,
    warmup_steps=0,
    precision="float32",
    max_validation_windows=8,
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An hourly table of 20 days."""
    file = tmp_path_factory.mktemp("table") / "load.csv"
    hours = np.arange(480)
    noise = np.random.default_rng(0).normal(size=480)
    frame = pd.DataFrame(
        {
            "time": pd.date_range("2026-01-01", periods=480, freq="h"),
            "load": 50 + 10 * np.sin(2 * np.pi * hours / 24) + noise,
        }
    )
    frame.to_csv(file, index=False)
    return file


@pytest.fixture(scope="module")
def recorded(
    table: Path,
    tmp_path_factory: pytest.TempPathFactory,
    closing_connections: Callable[[], Any],
) -> SearchConfig:
    """A study whose trial 0 is complete, 1 was stopped early, 2 failed and 3 was rejected."""
    home = tmp_path_factory.mktemp("home")
    config = SearchConfig(
        study="load-1",
        home=str(home),
        data=DataConfig(path=str(table), horizon=4),
        training=BUDGET,
    )
    data, _ = split(load(config.data), config.split)
    config = config.model_copy(update={"space": small_space(data)})
    (home / "studies").mkdir()
    with closing_connections():
        study = begin(config, data)
        record_trial(study, data)
        record_trial(study, data, num_evaluations=1)
        proposal = study.ask()
        assert proposal is not None
        study.fail(proposal.number, "RuntimeError: it broke", "Traceback")
        study.queue([proposal.config])
        study.ask()
    return config


def small_space(data: SearchData) -> Space:
    narrow = {"hidden_size": {"low": 4, "high": 8}, "num_layers": 1, "lookback": 24}
    return derive(
        Space.model_validate(narrow),
        season=data.season,
        num_train_rows=data.num_train_rows,
        horizon=data.horizon,
        has_calendar=True,
    )[0]


def begin(config: SearchConfig, data: SearchData) -> Study:
    assert config.study is not None
    study = open_study(
        f"sqlite:///{config.studies_folder / 'load-1.db'}",
        config.study,
        identity_of(config, data),
        config.space,
        config.training,
        config.search,
        Limits(data, config.search.max_parameters, None),
    )
    study.note("config", config.model_dump_json())
    study.note("facts", asdict(facts_of(config, data)))
    return study


def record_trial(study: Study, data: SearchData, num_evaluations: int | None = None) -> None:
    """Train the next trial as a worker does, up to an evaluation after which it is stopped."""
    proposal = study.ask()
    assert proposal is not None
    study.started(proposal.number)
    steps = run_trial(proposal.config, data, proposal.seed, "mae")
    for place, step in enumerate(steps, start=1):
        assert isinstance(step, TrialStep)
        report = study.report_final if step.is_final else study.report
        report(proposal.number, step.evaluation)
        if place == num_evaluations:
            study.prune(proposal.number, f"stopped early at step {step.evaluation.step}")
            return
    study.complete(proposal.number)


def trial_of(config: SearchConfig, number: int) -> TrialRecord:
    return read_study(f"sqlite:///{config.studies_folder / 'load-1.db'}", "load-1")[1][number]


class Screen:
    """A console and what it was given."""

    def __init__(self) -> None:
        self.console = Console(width=140, record=True, quiet=False, file=Sink())

    @property
    def lines(self) -> list[str]:
        return self.console.export_text(clear=False).splitlines()


class Sink:
    """A file that forgets."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


@pytest.fixture
def screen() -> Screen:
    return Screen()


def test_on_an_equal_machine_every_value_is_the_same(
    recorded: SearchConfig, screen: Screen
) -> None:
    comparison = replay(recorded, 0, screen.console)
    trial = trial_of(recorded, 0)
    assert trial.final is not None
    assert comparison == Comparison(num_compared=len(trial.evaluations) + 1, largest=0.0)
    assert screen.lines[-1] == "4 evaluations compared: every error and training loss is the same"
    assert not any(line.startswith("note:") for line in screen.lines)
    assert [line.split()[0] for line in screen.lines[2:-1]] == ["2", "4", "6", screen_step(trial)]


def screen_step(trial: TrialRecord) -> str:
    assert trial.final is not None
    return str(trial.final.evaluation.step)


def test_a_trial_that_was_stopped_early_stops_there_again(
    recorded: SearchConfig, screen: Screen
) -> None:
    assert replay(recorded, 1, screen.console).num_compared == 1
    assert "ends where the recorded trial was stopped early at step 2" in screen.lines


def test_a_trial_that_failed_without_an_evaluation_is_trained_to_its_end(
    recorded: SearchConfig, screen: Screen
) -> None:
    assert replay(recorded, 2, screen.console).num_compared == 0
    assert "recorded as failed: RuntimeError: it broke" in screen.lines[0]
    assert screen.lines[-1].startswith("nothing to compare")


def test_another_seed_gives_other_values_and_is_said(
    recorded: SearchConfig, screen: Screen
) -> None:
    comparison = replay(recorded, 0, screen.console, seed=7)
    assert comparison.largest > 0
    assert "the seed is 7, not the recorded" in screen.lines[0]
    shown = re.search(r"is ([0-9.e+-]+)$", screen.lines[-1])
    assert shown
    assert float(shown[1]) == pytest.approx(comparison.largest, rel=0.01)


def test_what_differs_between_the_machines_is_said(
    recorded: SearchConfig, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.replay.versions", lambda: {"version_torch": "9.9"})
    trial = dataclasses.replace(
        trial_of(recorded, 0), ran_on={"host": "elsewhere", "device": "cuda"}, retries=("hung",)
    )
    notes, _ = read_study(f"sqlite:///{recorded.studies_folder / 'load-1.db'}", "load-1")
    monkeypatch.setattr("search.replay.recorded_trial", lambda *_: (notes, trial))
    replay(recorded, 0, screen.console)
    said = "\n".join(line for line in screen.lines if line.startswith("note:"))
    for part in ("tried again: hung", "device is cpu, recorded was cuda", "torch is 9.9, recorded"):
        assert part in said
    assert re.search(r"host is \S+, recorded was elsewhere: its hardware may differ", said)


def test_a_table_that_has_changed_is_refused_with_the_difference(
    recorded: SearchConfig, screen: Screen, table: Path, tmp_path: Path
) -> None:
    shorter = tmp_path / "load.csv"
    shorter.write_text("\n".join(table.read_text().splitlines()[:-24]) + "\n")
    with pytest.raises(ConfigError, match=r"searched on: .* had 384 rows .* has 365 and"):
        replay(recorded, 0, screen.console, data=str(shorter))


def test_a_table_that_lies_elsewhere_now_is_given(
    recorded: SearchConfig, screen: Screen, table: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved.csv"
    moved.write_bytes(table.read_bytes())
    assert replay(recorded, 0, screen.console, data=str(moved)).largest == 0


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (3, r"trial 3 is rejected \(rejected: the same as trial 002\)"),
        (99, r"has the trials 0 to \d: got 99"),
        (-1, "got -1"),
    ],
)
def test_a_trial_that_cannot_be_replayed_is_refused(
    recorded: SearchConfig, screen: Screen, number: int, reason: str
) -> None:
    with pytest.raises(UnknownTrialError, match=reason):
        replay(recorded, number, screen.console)


def test_a_trial_that_breaks_again_shows_its_traceback_and_ends_with_1(
    recorded: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("the model cannot be built")
        yield

    monkeypatch.setattr("search.replay.run_trial", broken)
    assert recorded.home is not None
    done = CliRunner().invoke(app, ["replay", "load-1", "2", "--home", recorded.home])
    assert done.exit_code == 1
    assert "Traceback (most recent call last)" in done.output
    assert "trial 2 failed again, or anew: ValueError('the model cannot be built')" in done.output


def test_nan_differs_from_every_number_but_not_from_nan(
    make_evaluation: Callable[..., Evaluation],
) -> None:
    known = make_evaluation(0.3)
    undefined = dataclasses.replace(known, train_loss=math.nan)
    same, other = Comparison(), Comparison()
    same.add(undefined, undefined)
    other.add(known, undefined)
    assert (same.largest, other.largest) == (0, math.inf)


def test_the_command_quotes_what_a_shell_would_take_apart() -> None:
    config = SearchConfig(study="load-1", home="my results", storage="postgresql://me:secret@db/x")
    command = replay_command(config, 3)
    assert command.endswith("replay load-1 3 --home 'my results' --storage URL")


@pytest.mark.slow
def test_the_command_needs_neither_ray_nor_mlflow(recorded: SearchConfig) -> None:
    code = (
        "import sys\nfrom search.__main__ import app\n"
        f"app(['replay', 'load-1', '0', '--home', {recorded.home!r}], standalone_mode=False)\n"
        "print({'ray', 'mlflow'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stderr == ""
    assert "every error and training loss is the same" in answer.stdout
    assert answer.stdout.splitlines()[-1] == "set()"
