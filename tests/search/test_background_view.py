"""The view of a running search: an MLflow that is down delays it and never disturbs the search."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.scores import BaselineScore, Evaluation
from search import background_view, tracking
from search.background_view import BackgroundView
from search.kept_weights import KeptWeights
from search.projection import Snapshot, StudyFacts, trial_params
from search.record import TrialRecord
from search.study import Study
from search.tracking import rebuild

pytestmark = pytest.mark.slow  # real stores: half a minute together

MakeEvaluation = Callable[..., Evaluation]
MakeFacts = Callable[..., StudyFacts]
DumpView = Callable[..., dict[str, dict[str, Any]]]

PATIENCE_SECONDS = 120


def shown_trials(trials: list[TrialRecord]) -> list[TrialRecord]:
    return [trial for trial in trials if trial.config is not None]


def tell_all(view: BackgroundView, trials: list[TrialRecord]) -> None:
    for trial in shown_trials(trials):
        view.on_start(trial)
        view.on_evaluation(trial)
        view.on_end(trial)


def eventually(is_so: Callable[[], bool], timeout_seconds: float = PATIENCE_SECONDS) -> None:
    until = time.monotonic() + timeout_seconds
    while not is_so():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.1)


@pytest.mark.parametrize("has_own_process", [False, True])
def test_what_a_search_tells_is_what_its_record_says(
    has_own_process: bool,
    view_store: str,
    played_trials: list[TrialRecord],
    make_facts: MakeFacts,
    make_evaluation: MakeEvaluation,
    kept: KeptWeights,
    dump_view: DumpView,
) -> None:
    baseline = BaselineScore("ridge", make_evaluation(0.3).errors, "")
    view = BackgroundView(view_store, "lstm-search", make_facts(), has_own_process=has_own_process)
    tell_all(view, played_trials)
    view.on_baseline(baseline)
    assert view.close(played_trials, "done", kept, PATIENCE_SECONDS) == "1"
    assert view.lag() is None
    told = dump_view(view_store)
    snapshot = Snapshot(played_trials, "done", kept)
    rebuild(view_store, "lstm-search", make_facts(), snapshot, [baseline])
    assert dump_view(view_store) == told
    rebuild(view_store, "from the record", make_facts(), snapshot, [baseline])
    assert told_apart(dump_view(view_store, "from the record")) == told_apart(told)


def told_apart(dump: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Without the link to the experiment, which two experiments do not share."""
    dump["small"]["tags"].pop("mlflow.note.content")
    return dump


@pytest.mark.slow
def test_a_running_search_is_shown_as_running_before_any_trial_has_ended(
    view_store: str,
    played_study: Study,
    make_facts: MakeFacts,
    kept: KeptWeights,
    dump_view: DumpView,
) -> None:
    trial = played_study.trial(4)
    view = BackgroundView(view_store, "lstm-search", make_facts())
    view.on_start(trial)
    eventually(lambda: trial.name in dump_view(view_store))
    runs = dump_view(view_store)
    assert runs["small"]["info"][0] == runs[trial.name]["info"][0] == "RUNNING"
    assert runs[trial.name]["params"] == trial_params(trial)
    view.close([trial], "interrupted", kept, PATIENCE_SECONDS)


def test_a_trial_is_shown_once_it_has_ended_or_is_no_longer_brief(
    view_store: str,
    played_study: Study,
    make_facts: MakeFacts,
    kept: KeptWeights,
    dump_view: DumpView,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background_view, "FLUSH_SECONDS", 0.1)
    ended = next(trial for trial in played_study.trials() if trial.state.counts)
    brief = replace(played_study.trial(4), started_at=time.time() + 3600)
    view = BackgroundView(view_store, "lstm-search", make_facts())
    view.on_start(brief)
    view.on_end(ended)
    eventually(lambda: ended.name in dump_view(view_store))
    time.sleep(1)  # some turns
    assert brief.name not in dump_view(view_store)
    view.on_evaluation(replace(brief, started_at=time.time() - background_view.BRIEF_SECONDS))
    eventually(lambda: brief.name in dump_view(view_store))
    view.on_start(replace(brief, number=1000))
    view.close([brief], "interrupted", kept, PATIENCE_SECONDS)
    names = {run["tags"].get("trial") for run in dump_view(view_store).values()}
    assert {str(ended.number), "4", "1000"} <= names


@pytest.mark.parametrize("has_own_process", [False, True])
def test_a_store_that_cannot_be_opened_is_remembered_and_raised_nowhere(
    has_own_process: bool,
    tmp_path: Path,
    played_trials: list[TrialRecord],
    make_facts: MakeFacts,
    kept: KeptWeights,
) -> None:
    (tmp_path / "file").write_text("not a folder")
    store = f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}"
    view = BackgroundView(store, "x", make_facts(), has_own_process=has_own_process)
    tell_all(view, played_trials)
    assert view.close(played_trials, "done", kept, PATIENCE_SECONDS) is None
    assert "File exists" in (view.lag() or "")


@pytest.mark.parametrize("has_own_process", [False, True])
def test_a_server_that_comes_goes_and_comes_back_misses_nothing(
    has_own_process: bool,
    stopped_server: Any,
    played_study: Study,
    make_facts: MakeFacts,
    make_evaluation: MakeEvaluation,
    kept: KeptWeights,
    dump_view: DumpView,
) -> None:
    def shown() -> dict[str, dict[str, Any]]:
        return dump_view(stopped_server.store_uri)

    *ended, running = shown_trials(played_study.trials())
    name = played_study.trial(4).name
    view = BackgroundView(
        stopped_server.uri, "lstm-search", make_facts(), has_own_process=has_own_process
    )
    tell_all(view, ended)  # nobody listens yet
    eventually(lambda: view.outage is not None)
    stopped_server.start()
    eventually(lambda: name in shown() and view.outage is None)
    stopped_server.stop()
    for step in (100, 150, 200):
        played_study.report(4, make_evaluation(0.4, step=step))
        view.on_evaluation(played_study.trial(4))
    eventually(lambda: view.outage is not None)
    stopped_server.start()
    eventually(lambda: len(shown()[name]["metrics"]["val_mae"]) == 4)
    played_study.complete(4)
    view.on_end(played_study.trial(4))
    trials = played_study.trials()
    assert view.close(trials, "done", kept, PATIENCE_SECONDS) == "1"
    told = shown()
    assert running.name in told
    rebuild(stopped_server.uri, "lstm-search", make_facts(), Snapshot(trials, "done", kept), [])
    assert shown() == told
    steps = [step for step, *_ in told[name]["metrics"]["val_mae_scaled"]]
    assert steps == [50, 100, 150, 200]


def test_a_view_that_waits_for_the_first_evaluation_connects_with_it(
    view_store: str,
    played_trials: list[TrialRecord],
    make_facts: MakeFacts,
    kept: KeptWeights,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_connected = threading.Event()

    class NotedView(tracking.View):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            has_connected.set()
            super().__init__(*arguments, **options)

    monkeypatch.setattr(tracking, "View", NotedView)
    first = shown_trials(played_trials)[0]
    view = BackgroundView(view_store, "lstm-search", make_facts(), first_wait_seconds=3600)
    view.on_start(first)
    assert not has_connected.wait(1.0)
    view.on_evaluation(first)
    assert has_connected.wait(PATIENCE_SECONDS)
    # Its thread must not outlive the test, whose end closes every connection.
    assert view.close([first], "interrupted", kept, PATIENCE_SECONDS) == "1"


def test_a_view_whose_search_breaks_shows_nothing_more(
    view_store: str, played_trials: list[TrialRecord], make_facts: MakeFacts
) -> None:
    with pytest.raises(RuntimeError), BackgroundView(view_store, "x", make_facts()) as view:
        raise RuntimeError
    eventually(lambda: not view._thread.is_alive())
