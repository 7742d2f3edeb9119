"""The view rebuilt from records on disk, as `python -m search sync` does it."""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from pipelines.scores import BaselineScore, Evaluation
from search.__main__ import app
from search.background_view import BackgroundView
from search.config import ConfigError, SearchConfig
from search.kept_weights import KeptWeights
from search.lock import locked
from search.mlflow_store import ViewError
from search.projection import StudyFacts
from search.record import baseline_to_plain
from search.stored_studies import UnknownStudyError
from search.study import Study
from search.sync import sync_study

pytestmark = pytest.mark.slow  # real stores: half a minute together

MakeEvaluation = Callable[..., Evaluation]
MakeFacts = Callable[..., StudyFacts]
DumpView = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def baseline(make_evaluation: MakeEvaluation) -> BaselineScore:
    return BaselineScore("ridge", make_evaluation(0.3).errors, "lookback 24")


@pytest.fixture
def study(
    played_study: Study,
    tmp_path: Path,
    view_store: str,
    make_facts: MakeFacts,
    baseline: BaselineScore,
) -> Study:
    """A study whose process was killed while trial 4 ran; its folder has a store of no run."""
    kept = KeptWeights(tmp_path / "studies" / "small")
    kept.write(6, b"the weights of trial 6")
    config = SearchConfig(study="small", home=str(tmp_path))
    played_study.note("config", config.model_dump_json())
    played_study.note("facts", asdict(make_facts()))
    played_study.note("baselines", [baseline_to_plain(baseline)])
    return played_study


@pytest.fixture
def finished(study: Study, make_evaluation: MakeEvaluation) -> Study:
    """The same study with all its trials ended."""
    study.report(4, make_evaluation(0.4, step=300))
    study.complete(4)
    study.note("state", "done")
    return study


def num_shown(study: Study) -> int:
    return sum(trial.config is not None for trial in study.trials())


@pytest.mark.parametrize("name", ["small", "latest"])
def test_a_study_is_shown_whole_from_its_record_alone(
    name: str, finished: Study, tmp_path: Path, view_store: str, dump_view: DumpView
) -> None:
    line = sync_study(name, str(tmp_path))
    assert line.startswith("small: 6 trials are in MLflow: http://127.0.0.1:5000/#/experiments/1/")
    assert line.endswith("viewStateShareKey=small")
    runs = dump_view(view_store)
    assert len(runs) == num_shown(finished) + len(["the study", "the experiment"])
    assert runs["small"]["info"][0] == "FINISHED"
    assert runs["small"]["tags"]["state"] == "done"
    assert runs["small"]["latest"]["val_mae_scaled_baseline_ridge"] == 0.3
    weights = runs[finished.trial(6).name]["artifacts"]["model/006.safetensors"]
    assert weights == b"the weights of trial 6"


def test_syncing_twice_changes_nothing(
    finished: Study, tmp_path: Path, view_store: str, dump_view: DumpView
) -> None:
    sync_study("small", str(tmp_path))
    once = dump_view(view_store)
    sync_study("small", str(tmp_path))
    assert dump_view(view_store) == once


def test_syncing_a_study_that_was_killed_twice_changes_nothing_either(
    study: Study, tmp_path: Path, view_store: str, dump_view: DumpView
) -> None:
    sync_study("small", str(tmp_path))
    once = dump_view(view_store)
    sync_study("small", str(tmp_path))
    assert dump_view(view_store) == once


def test_syncing_after_a_search_that_was_watched_changes_nothing(
    finished: Study,
    baseline: BaselineScore,
    tmp_path: Path,
    view_store: str,
    make_facts: MakeFacts,
    dump_view: DumpView,
) -> None:
    view = BackgroundView(view_store, "lstm-search", make_facts())
    view.on_baseline(baseline)
    kept = KeptWeights(tmp_path / "studies" / "small")
    assert view.close(finished.trials(), "done", kept, 60)
    watched = dump_view(view_store)
    sync_study("small", str(tmp_path))
    assert dump_view(view_store) == watched


def test_what_was_deleted_in_mlflow_comes_back(
    finished: Study, tmp_path: Path, view_store: str, dump_view: DumpView
) -> None:
    sync_study("small", str(tmp_path))
    once, client = dump_view(view_store), MlflowClient(view_store)
    for run in client.search_runs(["1"])[::2]:
        client.delete_run(run.info.run_id)
    assert dump_view(view_store).keys() < once.keys()
    sync_study("small", str(tmp_path))
    assert dump_view(view_store) == once


def test_a_trial_that_ran_when_its_process_was_killed_is_shown_waiting_for_a_resume(
    study: Study, tmp_path: Path, view_store: str, dump_view: DumpView
) -> None:
    sync_study("small", str(tmp_path))
    runs = dump_view(view_store)
    assert runs[study.trial(4).name]["info"][0] == "SCHEDULED"
    assert (runs["small"]["info"][0], runs["small"]["tags"]["state"]) == (
        "SCHEDULED",
        "interrupted",
    )


def test_a_folder_that_was_moved_is_synced_where_it_is(
    finished: Study, tmp_path: Path, view_store: str, dump_view: DumpView
) -> None:
    moved = tmp_path / "moved"
    (tmp_path / "studies").rename(tmp_path / "away")
    moved.mkdir()
    (tmp_path / "away").rename(moved / "studies")
    shutil.move(tmp_path / "mlflow.db", moved / "mlflow.db")
    sync_study("small", str(moved))
    assert len(dump_view(f"sqlite:///{moved / 'mlflow.db'}")) == num_shown(finished) + 2
    assert not (tmp_path / "mlflow.db").exists()


def test_a_record_elsewhere_is_found_by_its_url(
    open_small_study: Callable[..., Study],
    make_facts: MakeFacts,
    tmp_path: Path,
    view_store: str,
    dump_view: DumpView,
) -> None:
    study = open_small_study(tmp_path / "elsewhere.db", name="small")
    study.note("config", SearchConfig(study="small", home="another machine's").model_dump_json())
    study.note("facts", asdict(make_facts()))
    sync_study("small", str(tmp_path), f"sqlite:///{tmp_path / 'elsewhere.db'}")
    assert set(dump_view(view_store)) == {"small", "experiment"}


def test_a_study_that_is_being_searched_is_left_to_its_search(
    study: Study, tmp_path: Path, view_store: str, dump_view: DumpView
) -> None:
    with (
        locked(tmp_path / "studies" / "small.lock", "small"),
        pytest.raises(ConfigError, match=r"small is being searched.*sync it when it has ended"),
    ):
        sync_study("small", str(tmp_path))
    assert set(dump_view(view_store)) == {"experiment"}


def test_an_unknown_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownStudyError, match="no study is named nothing"):
        sync_study("nothing", str(tmp_path))


def test_a_server_that_is_not_there_is_one_line_for_the_user(
    finished: Study, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port}")
    with pytest.raises(ViewError, match="MLflow does not take study small") as raised:
        sync_study("small", str(tmp_path))
    assert "\n" not in str(raised.value)


def test_the_experiment_of_the_environment_is_honoured(
    finished: Study,
    tmp_path: Path,
    view_store: str,
    dump_view: DumpView,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ours")
    sync_study("small", str(tmp_path))
    assert len(dump_view(view_store, "ours")) == num_shown(finished) + 2


def test_the_command_prints_the_line_or_the_error_and_its_exit_code(
    finished: Study, tmp_path: Path
) -> None:
    done = CliRunner().invoke(app, ["sync", "--home", str(tmp_path)])
    assert (done.exit_code, done.output[:6]) == (0, "small:")
    wrong = CliRunner().invoke(app, ["sync", "nothing", "--home", str(tmp_path)])
    assert (wrong.exit_code, wrong.output[:6]) == (2, "error:")
