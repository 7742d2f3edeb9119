"""What a grid prints at its end: the rendered text for given results."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from models.config import LSTMConfig
from pipelines.training_config import TrainConfig
from search.config_file import parse_config
from search.record import Ending, TrialRecord, TrialState
from search.result import SearchResult
from search.space import TrialConfig
from search.summary import print_summary


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_combinations_are_listed_with_means_and_paired_differences() -> None:
    shown = printed([run((8,), 0, 0.1), run((8,), 1, 0.3), run((16,), 0, 0.2), run((16,), 1, 0.4)])
    assert "The grid, means over 2 seeds ± 95% t-intervals" in shown
    assert cells(shown, "The grid") == [
        ["8", "1,000", "0.2000 ± 1.2706", ""],
        ["16", "1,000", "0.3000 ± 1.2706", "0.1000 ± 0.0000"],
    ]
    assert "The best" not in shown  # of single runs the luckiest would be shown


def test_factors_and_what_has_as_many_parameters_have_tables_of_their_own() -> None:
    shown = printed([run((8,), 0, 0.1), run((16,), 0, 0.2), run((8,), 0, 0.4, both=True)])
    assert cells(shown, "What each choice bought") == [
        ["widths", "8", "1", "0.1000", ""],
        ["widths", "16", "1", "0.2000", "0.1000"],
        ["direction", "one", "1", "0.1000", ""],
        ["direction", "both", "1", "0.4000", "0.3000"],
    ]
    assert cells(shown, "At equal parameter counts (within 15%)") == [
        ["widths", "8", "16", "2", "1,000", "0.2500", "0.2000", "-0.0500"],
        ["direction", "one", "both", "2", "1,000", "0.1500", "0.4000", "0.2500"],
    ]


def test_a_factor_without_matched_values_is_marked_and_the_mark_explained() -> None:
    shown = printed([run((8,), 0, 0.1), run((4, 4), 0, 0.2)])
    assert [row[0] for row in cells(shown, "What each choice bought")] == [
        "widths", "widths", "hidden size *", "hidden size *", "depth *", "depth *"
    ]  # fmt: skip
    assert "*  other settings differ too" in shown
    assert "*" not in printed([run((8,), 0, 0.1), run((16,), 0, 0.2)])


def test_one_combination_with_one_seed_is_a_line_of_its_mean() -> None:
    shown = printed([run((8,), 0, 0.1)])
    assert "The grid, of one seed" in shown
    assert cells(shown, "The grid") == [["1,000", "0.1000", ""]]
    assert "What each choice bought" not in shown


def test_of_many_combinations_the_best_are_shown() -> None:
    shown = printed([run((width,), 0, width / 1000) for width in range(1, 31)])
    assert "The best 20 of 30 combinations, of one seed" in shown
    assert len(cells(shown, "The best 20")) == 20
    assert "; 415 more are not shown" in shown  # of 30 × 29 / 2


def test_before_every_combination_has_a_seed_in_common_that_is_said() -> None:
    shown = printed([run((8,), 0, 0.1), run((16,), 1, 0.2)])
    assert "no seed has been trained with every combination yet" in shown


def test_a_combination_that_diverged_is_named_with_its_reason() -> None:
    broken = run((16,), 0, None, state=TrialState.PRUNED, reason="diverged at step 50")
    assert "not averaged: 1 layer 16, lookback 96: 1 of 1 runs ended without a result, the first " \
        "so: diverged at step 50" in printed([run((8,), 0, 0.1), broken])  # fmt: skip


def test_it_ends_with_how_to_add_seeds() -> None:
    last = printed([run((8,), 0, 0.1)]).splitlines()[-1]
    assert last == "go on     python -m search.run --resume cells --repeats 5"


def test_a_grid_without_a_complete_run_says_so() -> None:
    failed = run((16,), 0, None, state=TrialState.FAILED, reason="OSError: no disk")
    assert printed([failed]).startswith("no trial is complete yet\n")


def printed(trials: list[TrialRecord]) -> str:
    console = Console(file=io.StringIO(), width=200, record=True)
    config = parse_config({"study": "cells", "search": {"sampler": "grid", "repeats": 3}})
    print_summary(SearchResult(config, Ending.DONE, tuple(trials), (), None), console)
    return console.export_text()


def cells(shown: str, title: str) -> list[list[str]]:
    """The rows of the table under a title."""
    lines = iter(shown.splitlines())
    next(line for line in lines if line.startswith(title))
    rows = []
    for line in lines:
        if line.startswith("└"):
            break
        if line.startswith("│"):
            rows.append([cell.strip() for cell in line.strip("│").split("│")])
    return rows


def run(
    widths: tuple[int, ...],
    seed: int,
    value: float | None,
    both: bool = False,
    state: TrialState = TrialState.COMPLETE,
    **more: Any,
) -> TrialRecord:
    training = TrainConfig(
        lookback=96, calendar=True, learning_rate=1e-3, weight_decay=0.0, batch_size=64
    )
    config = TrialConfig(model=LSTMConfig(widths=widths, bidirectional=both), training=training)
    fields = {"number": 0, "params": {}, "num_parameters": 1000}
    return TrialRecord(state=state, config=config, seed=seed, value=value, **fields, **more)
