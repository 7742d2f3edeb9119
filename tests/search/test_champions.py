"""Real searches one after the other, as the table grows: which model becomes the champion."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.controls import SEASON, planted_signal
from pipelines.verdict import Verdict
from search import commands, run_search
from search.config import SearchConfig
from search.config_file import parse_config
from search.finalize import finalize
from search.places import config_of_study, record_url, tracking_uri
from search.registry import champion_of
from search.stored_studies import read_notes

pytestmark = pytest.mark.slow

WEAK, STRONG = 300, 600
"""Optimiser steps: both beat what is simple, the more the better."""

STUDIES = {
    # The last row that the table holds, the steps of a training, what is registered.
    "first": (2000, WEAK, "all"),
    "too-soon": (2100, WEAK, "none"),
    "better": (2400, STRONG, "none"),
    "worse": (2400, WEAK, "none"),
}
NUM_TEST_ROWS = 400


@pytest.fixture(scope="module")
def home(
    local_ray: None,
    tmp_path_factory: pytest.TempPathFactory,
    empty_view: Path,
    closing_connections: Callable[[], AbstractContextManager[None]],
) -> Iterator[Path]:
    """A folder in which all studies were searched, and all but the last brought to a verdict."""
    home = tmp_path_factory.mktemp("home")
    shutil.copy(empty_view, home / "mlflow.db")
    with closing_connections(), pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        for name in STUDIES:
            config = run_search(study_of_planted_signal(home, name), is_quiet=True).config
            if name != "worse":
                finalize(config, is_quiet=True)
        yield home


def study_of_planted_signal(home: Path, name: str) -> SearchConfig:
    """A study that trains one model of the first rows of a series; its last 400 are the test."""
    num_rows, num_steps, refit = STUDIES[name]
    days = pd.date_range("2018-01-01", periods=num_rows, freq="D")
    values = planted_signal(0)[:num_rows]
    path = home / "tables" / name / "signal.csv"
    path.parent.mkdir(parents=True)
    pd.DataFrame({"day": days, "signal": values}).to_csv(path, index=False)
    num_search_rows = num_rows - NUM_TEST_ROWS
    return parse_config(
        {
            "study": name,
            "home": str(home),
            "data": {"path": str(path), "horizon": SEASON, "season": SEASON},
            "split": {"train": num_search_rows - 300, "validation": 300, "test": NUM_TEST_ROWS},
            "space": {
                "num_layers": 1,
                "hidden_size": 32,
                "bidirectional": False,
                "dropout": 0.0,
                "normalisation": "none",
                "linear_skip": "shared",
                "head": "last_state",
                "calendar": False,
                "patch_length": 1,
                "lookback": 2 * SEASON,
                "learning_rate": 1e-2,
                "batch_size": 64,
                "weight_decay": 1e-6,
            },
            "training": {
                "max_steps": num_steps,
                "evaluate_every_steps": 100,
                "precision": "float32",
            },
            "search": {"trials": 1, "pruner": "none", "use_default_starts": False},
            "resources": {"device": "cpu"},
            "final": {
                "finalists": 1,
                "seeds": 2,
                "refit": refit,
                "registered_model_name": "signal",
            },
        }
    )


def verdict_of(home: Path, name: str) -> Verdict:
    config = config_of_study(name, str(home), None)
    return Verdict.model_validate_json(read_notes(record_url(config, name), name)["verdict"])


def test_the_first_model_that_passes_has_no_champion_to_meet(home: Path) -> None:
    verdict = verdict_of(home, "first")
    assert verdict.is_passed, verdict.reason
    assert (verdict.champion, verdict.champion_note) == (None, "there is no champion yet")


def test_a_champion_that_was_trained_on_this_test_part_is_not_compared_and_that_is_said(
    home: Path,
) -> None:
    verdict = verdict_of(home, "too-soon")
    assert verdict.champion is None
    assert verdict.champion_note == (
        "not compared with today's champion, version 1: its training reached to "
        "2023-06-23 00:00:00, into this test part"
    )


def test_a_better_model_of_a_table_that_has_grown_takes_the_champions_place(home: Path) -> None:
    verdict = verdict_of(home, "better")
    assert verdict.champion is not None
    assert verdict.champion.opponent == "champion (version 2)"
    assert verdict.champion.skill is not None
    assert verdict.champion.skill > 0
    assert verdict.is_passed, verdict.reason


def test_a_worse_model_that_beats_every_baseline_leaves_the_champion_in_its_place(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of_study("worse", str(home), None)
    final = config.final.model_copy(update={"require_champion": True})
    config = config.model_copy(update={"final": final})
    assert commands.finalize(config, is_verbose=False, is_quiet=True) == 4
    verdict = verdict_of(home, "worse")
    assert all(each.lower is not None and each.lower > 0 for each in verdict.comparisons)
    assert verdict.reason.endswith("but not today's champion")
    assert verdict.reason in capsys.readouterr().out
    champion = champion_of(tracking_uri(config), "signal")
    challenger = champion_of(tracking_uri(config), "signal", "challenger")
    assert champion is not None
    assert challenger is not None
    assert (champion.version, challenger.version) == ("3", "4")
    assert challenger.tags["reason"] == verdict.reason
