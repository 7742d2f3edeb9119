"""A finished search brought to its verdict, on real Ray, SQLite and MLflow; and once only."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pipelines.predictor import load_predictor
from pipelines.series import load
from pipelines.splits import split
from search import run_search
from search.conclusion import Conclusion
from search.config import ConfigError, SearchConfig
from search.config_file import parse_config
from search.finalize import finalize
from search.mlflow_store import ViewError
from search.openings import num_openings
from search.places import latest_study, record_url, tracking_uri
from search.record import TrialState
from search.registry import champion_of
from search.stored_studies import read_notes, read_study
from search.studies import overview

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def concluded(
    local_ray: None,
    tmp_path_factory: pytest.TempPathFactory,
    empty_view: Path,
    closing_connections: Callable[[], AbstractContextManager[None]],
) -> Iterator[SimpleNamespace]:
    """A search of three trials, its verdict at the second try, and the same asked for again."""
    home = tmp_path_factory.mktemp("home")
    shutil.copy(empty_view, home / "mlflow.db")
    loads().to_csv(home / "loads.csv", index=False)
    with closing_connections(), pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        config = run_search(small_search(home), is_quiet=True).config
        nowhere = config.tracking.model_copy(update={"uri": "http://127.0.0.1:9"})
        with pytest.raises(ViewError) as refused:
            finalize(config.model_copy(update={"tracking": nowhere}), is_quiet=True)
        then = read_notes(record_url(config, "loads-1"), "loads-1")
        first = finalize(config, is_quiet=True)
        second = finalize(config, is_quiet=True)
        yield SimpleNamespace(
            home=home,
            config=config,
            refused=refused.value,
            notes_when_refused=then,
            first=first,
            second=second,
        )


def test_every_finalist_is_trained_with_every_seed_on_every_origin(
    concluded: SimpleNamespace,
) -> None:
    name = "loads-1.finalists"
    _, trials = read_study(record_url(concluded.config, name), name)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert {trial.fold for trial in trials} == {0, 1, 2}
    configs = {trial.config for trial in trials}
    assert len(configs) == 2
    assert len({(t.config, t.seed, t.fold) for t in trials}) == len(trials) == 2 * 2 * 3


def test_the_test_part_is_opened_once_and_the_second_verdict_is_the_first(
    concluded: SimpleNamespace,
) -> None:
    first, second = concluded.first, concluded.second
    assert (first.is_new, second.is_new) == (True, False)
    assert first.verdict.num_openings == 1
    assert second.verdict == first.verdict
    _, sealed = split(load(concluded.config.data), concluded.config.split)
    assert num_openings(concluded.config, sealed.test_fingerprint) == 1


def test_the_verdict_says_how_the_model_and_every_baseline_err_on_the_same_windows(
    concluded: SimpleNamespace,
) -> None:
    verdict = concluded.first.verdict
    names = [score.name for score in verdict.baselines]
    assert names == [
        "persistence",
        "seasonal naive (24)",
        "training mean",
        "ridge",
        "linear twin",
    ]
    assert [comparison.opponent for comparison in verdict.comparisons] == names
    assert len(verdict.seeds) == 2
    assert len(verdict.model.by_step) == verdict.horizon == 6
    assert verdict.num_windows == 96 - 6 + 1


def test_the_ensemble_errs_no_more_than_its_seeds_do_on_average(
    concluded: SimpleNamespace,
) -> None:
    verdict = concluded.first.verdict
    alone = [seed.errors.mae_scaled for seed in verdict.seeds]
    assert verdict.model.errors.mae_scaled <= np.mean(alone) + 1e-12
    assert verdict.test_value == pytest.approx(np.mean(alone))


def test_the_registered_model_forecasts_as_the_one_in_the_folder(
    concluded: SimpleNamespace,
) -> None:
    conclusion: Conclusion = concluded.first
    assert conclusion.model is not None
    assert conclusion.model.alias == ("champion" if conclusion.verdict.is_passed else "challenger")
    registered = champion_of(
        tracking_uri(concluded.config), conclusion.model.name, conclusion.model.alias
    )
    assert registered is not None
    rows = loads().tail(48)
    local = load_predictor(conclusion.folder).forecast(rows)
    pd.testing.assert_frame_equal(registered.predictor.forecast(rows), local)
    assert registered.tags["reason"] == conclusion.verdict.reason


def test_the_registered_model_has_seen_every_row_and_says_so(concluded: SimpleNamespace) -> None:
    notes = read_notes(record_url(concluded.config, "loads-1"), "loads-1")
    predictor = load_predictor(concluded.first.folder)
    is_refitted = "refit" in notes["model_tags"]
    assert is_refitted != any("discarded" in each for each in concluded.first.verdict.warnings)
    assert predictor.spec.num_rows == (480 if is_refitted else 336)


def test_mlflow_shows_the_verdict_and_the_report_on_the_study_s_own_run(
    concluded: SimpleNamespace,
) -> None:
    with closing(sqlite3.connect(concluded.home / "mlflow.db")) as store:
        rows = store.execute(
            "select r.run_uuid, r.artifact_uri from runs r join tags t on t.run_uuid = r.run_uuid "
            "join tags n on n.run_uuid = r.run_uuid where t.key = 'kind' and t.value = 'study' "
            "and n.key = 'study' and n.value = 'loads-1'"
        )
        [[run_id, artifacts]] = rows.fetchall()
        metrics = dict(
            store.execute("select key, value from latest_metrics where run_uuid = ?", [run_id])
        )
        tags = dict(store.execute("select key, value from tags where run_uuid = ?", [run_id]))
    verdict = concluded.first.verdict
    assert metrics["test_mae_scaled"] == pytest.approx(verdict.model.errors.mae_scaled)
    ridge = verdict.baselines[3].errors.mae_scaled
    assert metrics["test_mae_scaled_baseline_ridge"] == pytest.approx(ridge)
    assert tags["verdict_reason"] == verdict.reason
    folder = Path(artifacts.removeprefix("file://"))
    assert {"report.html", "verdict.json", "history.png"} <= {p.name for p in folder.iterdir()}
    assert json.loads((folder / "verdict.json").read_text())["reason"] == verdict.reason


def test_another_table_is_refused_before_anything_starts(concluded: SimpleNamespace) -> None:
    other = loads()
    other["load"] += 1
    with pytest.raises(ConfigError, match="finalized on the table that it was searched on"):
        finalize(concluded.config, other, is_quiet=True)


def test_an_mlflow_that_does_not_answer_costs_no_opening(concluded: SimpleNamespace) -> None:
    assert "champion" in str(concluded.refused)
    assert not {"openings", "verdict"} & concluded.notes_when_refused.keys()


def test_the_command_tells_the_known_verdict_and_exits_with_4_where_a_champion_is_required(
    concluded: SimpleNamespace,
) -> None:
    command = [sys.executable, "-m", "search", "finalize", "--home", str(concluded.home)]
    answer = subprocess.run([*command, "--require-champion"], capture_output=True, text=True)
    assert answer.stderr == ""
    assert answer.returncode == 4
    assert "verdict   not passed: " in answer.stdout  # 91 windows hold no 8 blocks of a week
    assert "known from before: the test part was not opened again" in answer.stdout
    assert f"report    {concluded.first.report}" in answer.stdout
    assert subprocess.run(command, capture_output=True).returncode == 0


def test_the_list_of_studies_shows_the_verdict_and_the_latest_is_not_that_of_the_finalists(
    concluded: SimpleNamespace,
) -> None:
    assert overview(concluded.config, "loads-1").verdict == "not passed"
    assert latest_study(concluded.config) == "loads-1"
    finalists = overview(concluded.config, "loads-1.finalists")
    assert (finalists.num_counted, finalists.num_asked) == (12, 12)


def test_finalists_are_not_searched_on(concluded: SimpleNamespace) -> None:
    finalists = concluded.config.model_copy(update={"study": "loads-1.finalists"})
    with pytest.raises(ConfigError, match="python -m search finalize loads-1"):
        run_search(finalists, is_quiet=True)


def small_search(home: Path) -> SearchConfig:
    return parse_config(
        {
            "study": "loads-1",
            "home": str(home),
            "data": {"path": str(home / "loads.csv"), "horizon": 6},
            "space": {
                "num_layers": 1,
                "hidden_size": {"low": 4, "high": 8},
                "bidirectional": False,
                "lookback": {"choices": [12, 24]},
                "patch_length": 1,
                "batch_size": 16,
            },
            "training": {
                "max_steps": 20,
                "evaluate_every_steps": 10,
                "warmup_steps": 0,
                "precision": "float32",
            },
            "search": {"trials": 3, "pruner": "none", "use_default_starts": False},
            "resources": {"device": "cpu"},
            "final": {"finalists": 2, "seeds": 2},
        }
    )


def loads() -> pd.DataFrame:
    """480 hours of a noisy day."""
    rows = np.arange(480)
    noise = np.random.default_rng(0).normal(size=480)
    times = pd.date_range("2024-01-01", periods=480, freq="h")
    return pd.DataFrame({"time": times, "load": 50 + 10 * np.sin(2 * np.pi * rows / 24) + noise})
