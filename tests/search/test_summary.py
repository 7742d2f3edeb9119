"""What a search prints at its end: the rendered text for given results."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from models.config import LSTMConfig
from pipelines.scores import BaselineScore, Evaluation
from pipelines.training_config import TrainConfig
from search.config import SearchConfig
from search.record import Ending, TrialRecord, TrialState
from search.result import SearchResult
from search.space import TrialConfig
from search.summary import print_summary

PAGE = "http://127.0.0.1:5000/#/experiments/1/runs"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_the_ten_best_are_shown_the_best_first(summary: Callable[..., str]) -> None:
    trials = [complete(number, value=1 / (number + 1)) for number in range(12)]
    trials += [failed(12), pruned(13, value=0.01)]
    shown = summary(trials)
    assert "The best 10 trials" in shown
    numbers = [line.split("│")[1].strip() for line in shown.splitlines() if line.startswith("│")]
    assert numbers == [f"{number:03d}" for number in (11, 10, 9, 8, 7, 6, 5, 4, 3, 2)]
    assert "│   011 │             0.0833 │      1,234 │" in shown


def test_a_model_is_described_in_words(summary: Callable[..., str]) -> None:
    model = LSTMConfig(widths=(64, 128), bidirectional=True, linear_skip="shared", patch_length=4)
    words = "2 layers 64→128, bidirectional, lookback 96, last, last_state, skip shared, calendar, "
    shown = summary([complete(0, 0.1, model)])
    assert words + "patch 4, rate 1.0e-03" in shown
    assert shown.startswith("The best trial ")


@pytest.mark.parametrize(
    ("metric", "heading"),
    [("mae", "MAE (standardised)"), ("rmse", "RMSE (standardised)"), ("mase", "MASE")],
)
def test_the_heading_says_what_the_value_is(
    summary: Callable[..., str], metric: str, heading: str
) -> None:
    shown = summary([complete(0, 0.1)], search={"metric": metric})
    assert heading in shown
    assert ("standardised" in shown) == ("standardised" in heading)


def test_baselines_study_and_ending_are_named(
    summary: Callable[..., str], make_evaluation: Callable[..., Evaluation]
) -> None:
    names = {"persistence": 0.5, "ridge": 0.0794}
    scores = [BaselineScore(name, make_evaluation(v).errors, "") for name, v in names.items()]
    shown = summary([complete(0, 0.1)], baselines=scores)
    assert "to beat   ridge 0.0794 · persistence 0.5000" in shown
    assert "study     loads-1 (done)" in shown


def test_without_baselines_it_says_so(summary: Callable[..., str]) -> None:
    assert "to beat   unknown: no baseline was computed" in summary([complete(0, 0.1)])


def test_the_page_of_the_trials_comes_with_the_command_that_serves_it(
    summary: Callable[..., str],
) -> None:
    lines = summary([complete(0, 0.1)]).splitlines()
    place = lines.index(f"browse    {PAGE}")
    assert lines[place + 1 : place + 3] == [
        "          served by: python -m search ui",
        "          (a bare `mlflow ui` looks into another store)",
    ]


def test_on_a_tracking_server_there_is_nothing_to_serve(summary: Callable[..., str]) -> None:
    shown = summary([complete(0, 0.1)], tracking={"uri": "http://mlflow.example:5000"})
    assert PAGE in shown
    assert "served by" not in shown


def test_another_store_than_this_folders_is_not_served_by_search_ui(
    summary: Callable[..., str],
) -> None:
    shown = summary([complete(0, 0.1)], tracking={"uri": "sqlite:////data/mlflow.db"})
    assert "served by: mlflow server" in shown
    assert "search ui" not in shown


def test_where_mlflow_is_behind_the_command_that_brings_it_up_to_date(
    summary: Callable[..., str],
) -> None:
    shown = summary([complete(0, 0.1)], page=None)
    assert "browse    MLflow is behind: python -m search sync loads-1" in shown
    assert "http" not in shown


@pytest.mark.parametrize(
    ("ending", "command"),
    [
        (Ending.DONE, "go on     python -m search.run --resume loads-1 --add-trials 50"),
        (Ending.INTERRUPTED, "go on     python -m search.run --resume loads-1"),
        (Ending.TIME_OVER, "go on     python -m search.run --resume loads-1"),
        (Ending.EXHAUSTED, "go on     in a new --study with a wider space"),
        (Ending.BROKEN, "go on     python -m search.run --resume loads-1"),
    ],
)
def test_it_ends_with_how_to_go_on(
    summary: Callable[..., str], ending: Ending, command: str
) -> None:
    last = summary([complete(0, 0.1), failed(1)], ending=ending).splitlines()[-1]
    assert last.startswith(command)
    assert ("--add-trials" in last) == (ending is Ending.DONE)


def test_what_a_grid_left_out_is_said_again_at_the_end(summary: Callable[..., str]) -> None:
    shown = summary([complete(0, 0.1)], left_out=("widths 8: too large", "widths 9: too large"))
    lines = shown.splitlines()
    place = lines.index("study     loads-1 (done)")
    assert lines[place + 1 : place + 4] == [
        "          left out: 2 combinations cannot be trained",
        "          left out: widths 8: too large",
        "          left out: widths 9: too large",
    ]
    assert "left out" not in summary([complete(0, 0.1)])


def test_commands_name_the_folder_where_it_is_another_one(summary: Callable[..., str]) -> None:
    trials, home = [complete(0, 0.1)], "my results"
    shown = summary(trials, home=home)
    assert "served by: python -m search ui --home 'my results'" in shown
    assert "--resume loads-1 --home 'my results' --add-trials 50" in shown
    assert "search sync loads-1 --home 'my results'" in summary(trials, home=home, page=None)


def test_a_database_url_with_its_password_is_not_printed(summary: Callable[..., str]) -> None:
    shown = summary([complete(0, 0.1)], storage="postgresql://me:secret@db/optuna")
    assert "--resume loads-1 --storage URL --add-trials 50" in shown
    behind = summary([complete(0, 0.1)], storage="postgresql://me:secret@db/optuna", page=None)
    assert "MLflow is behind: python -m search sync loads-1 --storage URL" in behind
    assert "secret" not in shown + behind


def test_without_a_complete_trial_it_says_why_the_first_ones_failed(
    summary: Callable[..., str],
) -> None:
    shown = summary([failed(number) for number in range(5)])
    assert shown.startswith("no trial is complete yet\n")
    failures = [line for line in shown.splitlines() if "failed:" in line]
    assert failures == [f"  trial 00{n} 64 failed: OSError: [Errno 28] disk {n}" for n in range(3)]


def test_a_search_that_gave_up_says_why(summary: Callable[..., str]) -> None:
    trials = [complete(0, 0.1), replace(failed(1), ended_at=9.0), replace(failed(2), ended_at=8.0)]
    shown = summary(trials, ending=Ending.BROKEN).splitlines()
    why = "trials failed one after another, at last 001 64: OSError: [Errno 28] disk 1"
    assert shown[shown.index("study     loads-1 (broken)") + 1] == f"given up  {why}"


@pytest.fixture
def summary() -> Callable[..., str]:
    return render


def render(
    trials: list[TrialRecord],
    ending: Ending = Ending.DONE,
    baselines: Any = (),
    page: str | None = PAGE,
    left_out: tuple[str, ...] = (),
    **config: Any,
) -> str:
    console = Console(file=io.StringIO(), width=200, record=True)
    searched = SearchConfig.model_validate({"study": "loads-1"} | config)
    result = SearchResult(searched, ending, tuple(trials), tuple(baselines), page, left_out)
    print_summary(result, console)
    return console.export_text()


def complete(number: int, value: float, model: LSTMConfig | None = None) -> TrialRecord:
    return trial(number, TrialState.COMPLETE, value=value, model=model)


def pruned(number: int, value: float) -> TrialRecord:
    return trial(number, TrialState.PRUNED, value=value, reason="stopped early at step 50")


def failed(number: int) -> TrialRecord:
    return trial(number, TrialState.FAILED, reason=f"OSError: [Errno 28] disk {number}")


def trial(
    number: int, state: TrialState, model: LSTMConfig | None = None, **more: Any
) -> TrialRecord:
    training = TrainConfig(
        lookback=96, calendar=True, learning_rate=1e-3, weight_decay=0.0, batch_size=64
    )
    config = TrialConfig(model=model or LSTMConfig(widths=(64,)), training=training)
    return TrialRecord(number, state, config, seed=0, params={}, num_parameters=1234, **more)
