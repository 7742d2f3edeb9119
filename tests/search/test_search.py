"""One whole search from Python, on real Ray, SQLite and MLflow, and going on with it."""

import contextlib
import io
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pipelines.data_config import DataConfig
from pipelines.evaluation import evaluate
from pipelines.scaling import Scaling
from pipelines.series import load
from pipelines.splits import SplitConfig, split
from pipelines.windows import build_windows
from search import SearchConfig, SearchResult, load_result, run_search
from search.config import ConfigError
from search.config_file import parse_config
from search.executor import ray
from search.places import recorded_config
from search.record import Ending, TrialRecord, TrialState
from search.stored_studies import UnknownStudyError
from search.study import StudyMismatchError

NARROW = {
    "num_layers": 1,
    "hidden_size": {"low": 4, "high": 8},
    "bidirectional": False,
    "lookback": {"choices": [12, 24]},
    "patch_length": 1,
    "batch_size": 16,
}


@pytest.fixture(scope="module")
def searched(
    local_ray: None,
    tmp_path_factory: pytest.TempPathFactory,
    empty_view: Path,
    closing_connections: Callable[[], AbstractContextManager[None]],
) -> Iterator[SimpleNamespace]:
    """A search of three trials of a table that is a file; then of five, from its record."""
    home = tmp_path_factory.mktemp("home")
    shutil.copy(empty_view, home / "mlflow.db")
    table = home / "loads.csv"
    loads().to_csv(table, index=False)
    console = Console(file=io.StringIO(), width=200, record=True)
    before = signal_handlers()
    with closing_connections(), pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        first = run_search(small_search(home), data=table, console=console)
        after = signal_handlers()
        reloaded = load_result("loads-1", home=str(home))
        tree = recorded_config(SearchConfig(home=str(home)), "latest")
        tree["search"]["trials"] = 5
        going_on = parse_config(tree)
        second = in_a_thread(lambda: run_search(going_on, is_quiet=True))
        yield SimpleNamespace(
            home=home,
            table=table,
            first=first,
            reloaded=reloaded,
            second=second,
            lines=console.export_text().splitlines(),
            signals=(before, after),
        )


@pytest.mark.slow
def test_a_search_returns_as_many_trials_as_it_was_asked_for(searched: SimpleNamespace) -> None:
    result: SearchResult = searched.first
    assert result.ending is Ending.DONE
    assert result.study == "loads-1"
    assert sum(trial.state.counts for trial in result.trials) == 3


@pytest.mark.slow
def test_the_best_is_the_complete_trial_of_the_lowest_value(searched: SimpleNamespace) -> None:
    result: SearchResult = searched.first
    complete = [trial for trial in result.trials if trial.state is TrialState.COMPLETE]
    assert complete
    assert result.best_value == min(trial.value for trial in complete)
    assert result.best_trial is not None
    assert result.best_config == result.best_trial.config


@pytest.mark.slow
def test_the_data_frame_has_a_row_for_each_trial(searched: SimpleNamespace) -> None:
    result: SearchResult = searched.first
    frame = result.trials_dataframe()
    ran = [trial for trial in result.trials if trial.config is not None]
    assert list(frame["number"]) == [trial.number for trial in ran]
    assert list(frame["state"]) == [trial.state.value for trial in ran]
    assert list(frame["hidden_size"]) == [trial.params["hidden_size"] for trial in ran]
    assert {"value", "reason", "lookback", "learning_rate"} <= set(frame.columns)


@pytest.mark.slow
def test_the_loaded_best_model_reproduces_the_best_value(searched: SimpleNamespace) -> None:
    result: SearchResult = searched.first
    best, config = result.load_best(), result.best_config
    assert config is not None
    data, _ = split(load(DataConfig(path=str(searched.table), horizon=6)), SplitConfig())
    scaling = Scaling.fit(data)
    training = config.training
    windows = build_windows(data, scaling, training.lookback, training.calendar, "cpu")
    errors = evaluate(best, windows, scaling, windows.validation_origins)
    assert errors.mae_scaled == pytest.approx(result.best_value, abs=1e-5)


@pytest.mark.slow
def test_the_page_of_the_trials_is_in_the_experiment_that_was_made(
    searched: SimpleNamespace,
) -> None:
    result: SearchResult = searched.first
    with contextlib.closing(sqlite3.connect(searched.home / "mlflow.db")) as store:
        found = store.execute("select experiment_id from experiments where name='lstm-search'")
        [[experiment_id]] = found.fetchall()
    assert result.mlflow_url is not None
    assert result.mlflow_url.startswith(f"http://127.0.0.1:5000/#/experiments/{experiment_id}/")
    assert "loads-1" in result.mlflow_url


@pytest.mark.slow
def test_the_record_alone_gives_the_same_result(searched: SimpleNamespace) -> None:
    result, reloaded = searched.first, searched.reloaded
    assert reloaded.config == result.config
    assert reloaded.trials == result.trials
    assert reloaded.baselines == result.baselines
    assert (reloaded.ending, reloaded.mlflow_url) == (result.ending, result.mlflow_url)
    assert reloaded.best_value == result.best_value
    assert num_weights(reloaded) == num_weights(result)


@pytest.mark.slow
def test_going_on_trains_only_what_is_missing(searched: SimpleNamespace) -> None:
    first, second = searched.first, searched.second
    assert second.ending is Ending.DONE
    assert sum(trial.state.counts for trial in second.trials) == 5
    assert second.trials[: len(first.trials)] == first.trials
    ended = max(trial.ended_at for trial in first.trials if trial.ended_at)
    added = [t for t in second.trials[len(first.trials) :] if t.state is not TrialState.REJECTED]
    assert all(trial.started_at > ended for trial in added)
    pids = pids_of(first.trials) & pids_of(added)
    assert pids == set()


@pytest.mark.slow
def test_a_full_study_trains_nothing_and_one_killed_as_it_began_begins_again(
    searched: SimpleNamespace, tmp_path: Path, empty_view: Path
) -> None:
    # The record as it is where the process was killed before its facts were noted.
    (tmp_path / "studies").mkdir()
    shutil.copy(empty_view, tmp_path / "mlflow.db")
    copy = tmp_path / "studies" / "loads-1.db"
    record = searched.home / "studies" / "loads-1.db"
    with (
        contextlib.closing(sqlite3.connect(record)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
        target.execute("delete from study_user_attributes where key = 'facts'")
        target.commit()
    config = searched.second.config.model_copy(update={"home": str(tmp_path)})
    result = run_search(config, is_quiet=True)
    assert result.ending is Ending.DONE
    assert result.trials == searched.second.trials


@pytest.mark.slow
def test_another_table_or_space_under_the_same_name_is_refused_with_the_difference(
    searched: SimpleNamespace,
) -> None:
    config = searched.second.config
    changed = loads()
    changed.loc[100, "load"] += 1
    with pytest.raises(StudyMismatchError, match=r"loads-1 was begun .*: data was \w+, now \w+;"):
        run_search(config, data=changed, is_quiet=True)
    space = config.space.model_copy(update={"lookback": parse_config(WIDER).space.lookback})
    with pytest.raises(StudyMismatchError, match=r"space.lookback.choices was \[12, 24\], now"):
        run_search(config.model_copy(update={"space": space}), is_quiet=True)


@pytest.mark.slow
def test_it_first_says_on_what_it_runs_then_what_it_understood(searched: SimpleNamespace) -> None:
    device, study, *rest = searched.lines
    assert device.startswith("cpu (")
    assert "torch " in device
    assert device.endswith(": 2 trials at a time, 1 CPU and 0 GPU each")
    assert study == "study loads-1"
    assert "target: load" in rest
    assert sum(line.startswith("to beat: ") for line in rest) == 5
    assert [line[:5] for line in rest if line.startswith("[")] == ["[1/3]", "[2/3]", "[3/3]"]


@pytest.mark.slow
def test_signal_handlers_are_left_alone_and_ray_is_left_running(searched: SimpleNamespace) -> None:
    before, after = searched.signals
    assert after == before
    assert ray.is_initialized()


@pytest.mark.slow
def test_quiet_says_nothing_even_on_a_console_that_was_given(
    local_ray: None, tmp_path: Path
) -> None:
    console = Console(file=io.StringIO(), record=True)
    config = small_search(tmp_path, resources={"cpus_per_trial": 1e6})
    with pytest.raises(ConfigError):
        run_search(config, data=loads(), console=console, is_quiet=True)
    assert console.export_text() == ""


def test_an_unknown_study_has_no_result(tmp_path: Path) -> None:
    with pytest.raises(UnknownStudyError, match=r"there is no study in .* yet; begin one"):
        load_result(home=str(tmp_path))
    (tmp_path / "studies").mkdir()
    with pytest.raises(UnknownStudyError, match="no study is named nothing"):
        load_result("nothing", home=str(tmp_path))


WIDER = {"space": {"lookback": {"choices": [12, 24, 36]}}}


def small_search(home: Path, **changes: Any) -> SearchConfig:
    budget = {"max_steps": 6, "evaluate_every_steps": 2, "warmup_steps": 0}
    tree: dict[str, Any] = {
        "study": "loads-1",
        "home": str(home),
        "data": {"horizon": 6},
        "space": NARROW,
        "training": budget | {"precision": "float32"},
        "search": {"trials": 3, "use_default_starts": False},
        "resources": {"device": "cpu"},
    }
    return parse_config(tree | changes)


def loads() -> pd.DataFrame:
    rows = np.arange(480)
    daily = 50 + 10 * np.sin(2 * np.pi * rows / 24)
    noise = np.random.default_rng(1).normal(size=len(rows))
    when = pd.date_range("2024-01-01", periods=len(rows), freq="h")
    return pd.DataFrame({"when": when, "load": (daily + noise).round(3)})


def in_a_thread(search: Callable[[], SearchResult]) -> SearchResult:
    results: list[SearchResult] = []
    thread = threading.Thread(target=lambda: results.append(search()))
    thread.start()
    thread.join(120)
    return results[0]


def pids_of(trials: Any) -> set[int]:
    ran: list[TrialRecord] = [trial for trial in trials if trial.ran_on]
    return {trial.ran_on["pid"] for trial in ran}


def num_weights(result: SearchResult) -> int:
    return sum(parameter.numel() for parameter in result.load_best().parameters())


def signal_handlers() -> dict[int, Any]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    return {number: signal.getsignal(number) for number in numbers}
