"""The view in a real MLflow: its SQLite store, and a server in a process of its own."""

import csv
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
import sqlalchemy
import yaml
from mlflow import MlflowClient

from pipelines.scores import BaselineScore, Evaluation
from search.config import SearchConfig
from search.config_file import parse_config
from search.kept_weights import KeptWeights
from search.mlflow_store import ViewError
from search.projection import (
    Snapshot,
    StudyFacts,
    evaluation_readings,
    milliseconds,
    outcome_readings,
    saved_view,
    trial_params,
)
from search.record import RecordedEvaluation, TrialRecord, TrialState
from search.study import Study
from search.tracking import View, rebuild

pytestmark = pytest.mark.slow  # real stores: half a minute together

MakeEvaluation = Callable[..., Evaluation]
MakeFacts = Callable[..., StudyFacts]
DumpView = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def facts(make_facts: MakeFacts) -> StudyFacts:
    return make_facts()


@pytest.fixture(scope="module")
def baselines(make_evaluation: MakeEvaluation) -> list[BaselineScore]:
    names = ("persistence", "seasonal naive (24)", "ridge")
    return [
        BaselineScore(name, make_evaluation(0.3 + place / 10).errors, "")
        for place, name in enumerate(names)
    ]


ON_BOTH = pytest.mark.parametrize(
    "view_store", ["local", pytest.param("server", marks=pytest.mark.slow)], indirect=True
)
"""For what a store shows wherever it is; the rest asks the tables of a local one."""


@pytest.fixture(scope="module")
def snapshot(
    played_trials: list[TrialRecord], tmp_path_factory: pytest.TempPathFactory
) -> Snapshot:
    """The played study as its record holds it, with the weights of its best two trials."""
    kept = KeptWeights(tmp_path_factory.mktemp("kept"))
    for number in (6, 1):
        kept.write(number, f"the weights of trial {number}".encode())
    return Snapshot(played_trials, "done", kept)


@pytest.fixture(scope="module")
def shown_folder(
    empty_view: Path,
    facts: StudyFacts,
    snapshot: Snapshot,
    baselines: list[BaselineScore],
    tmp_path_factory: pytest.TempPathFactory,
    closing_connections: Callable[[], AbstractContextManager[None]],
) -> Path:
    """A folder with a store that shows the played study."""
    folder = tmp_path_factory.mktemp("shown")
    shutil.copy(empty_view, folder / "mlflow.db")
    with closing_connections():
        rebuild(store_in(folder), "lstm-search", facts, snapshot, baselines)
    return folder


@pytest.fixture(scope="module")
def shown(shown_folder: Path, dump_view: DumpView) -> dict[str, dict[str, Any]]:
    """All that the store shows."""
    return dump_view(store_in(shown_folder))


@pytest.fixture
def projected(
    view_store: str, facts: StudyFacts, snapshot: Snapshot, baselines: list[BaselineScore]
) -> str:
    """A store of this test that shows the played study."""
    rebuild(view_store, "lstm-search", facts, snapshot, baselines)
    return view_store


def store_in(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


def shown_trials(snapshot: Snapshot) -> dict[str, TrialRecord]:
    """The trials that must be shown, by the names of their runs."""
    shown = [trial for trial in snapshot.trials if trial.state is not TrialState.REJECTED]
    assert len(shown) == len(snapshot.trials) - 1
    return {trial.name: trial for trial in shown}


def test_a_study_is_one_run_and_each_of_its_trials_a_run_nested_in_it(
    shown: dict[str, dict[str, Any]], snapshot: Snapshot
) -> None:
    assert set(shown) == {"small", "experiment"} | set(shown_trials(snapshot))
    for name, trial in shown_trials(snapshot).items():
        tags = shown[name]["tags"]
        assert tags["mlflow.parentRunId"] == "small"
        assert (tags["kind"], tags["trial"], tags["study"]) == ("trial", f"{trial.number}", "small")
    assert "mlflow.parentRunId" not in shown["small"]["tags"]


def test_every_metric_of_every_evaluation_is_there_once_with_the_records_time(
    shown: dict[str, dict[str, Any]], snapshot: Snapshot
) -> None:
    for name, trial in shown_trials(snapshot).items():
        expected: dict[str, list[tuple[int, int, float, int]]] = {}
        readings = [r for recorded in trial.evaluations for r in evaluation_readings(recorded)]
        if trial.state.counts:
            readings += outcome_readings(trial, "mae")
        for reading in readings:
            point = (reading.step, milliseconds(reading.time), float(reading.value), 0)
            expected.setdefault(reading.name, []).append(point)
        assert shown[name]["metrics"] == expected
        assert len(expected["val_mae"]) == len(trial.evaluations)


def test_every_trial_has_the_same_parameters_and_none_is_empty(
    shown: dict[str, dict[str, Any]], snapshot: Snapshot
) -> None:
    for name, trial in shown_trials(snapshot).items():
        assert shown[name]["params"] == trial_params(trial)
        assert all(shown[name]["params"].values())


def test_a_trial_shows_how_it_ended_and_why(shown: dict[str, dict[str, Any]]) -> None:
    ends = {
        run["tags"]["trial"]: (
            run["info"][0],
            run["tags"].get("outcome"),
            run["tags"].get("reason"),
        )
        for run in shown.values()
        if run["tags"].get("kind") == "trial"
    }
    assert ends == {
        "0": ("FINISHED", "complete", None),
        "1": ("FINISHED", "complete", None),
        "2": ("FINISHED", "pruned", "stopped early at step 100"),
        "3": ("FAILED", "failed", "OSError: the disk is full"),
        "4": ("RUNNING", None, None),
        "6": ("FINISHED", "complete", None),
    }


def test_start_end_and_machine_are_the_records(
    shown: dict[str, dict[str, Any]], snapshot: Snapshot
) -> None:
    for name, trial in shown_trials(snapshot).items():
        assert trial.started_at is not None
        _, started, ended = shown[name]["info"]
        assert started == milliseconds(trial.started_at)
        assert ended == (milliseconds(trial.ended_at) if trial.ended_at else None)
        if trial.state.counts:
            assert (shown[name]["tags"]["host"], shown[name]["tags"]["pid"]) == ("here", "17")


def test_only_a_failed_trial_has_a_traceback_and_only_the_best_kept_have_weights(
    shown: dict[str, dict[str, Any]], snapshot: Snapshot
) -> None:
    artifacts = {
        trial.number: shown[name]["artifacts"] for name, trial in shown_trials(snapshot).items()
    }
    assert artifacts.pop(3) == {"traceback.txt": snapshot.trials[3].traceback.encode()}
    for number in (6, 1):
        config = snapshot.trials[number].config
        assert config is not None
        shown = artifacts.pop(number)
        assert (
            shown.pop(f"model/{number:03d}.safetensors")
            == f"the weights of trial {number}".encode()
        )
        assert type(config).model_validate_json(shown.pop("model/config.json")) == config
        assert shown == {}
    assert artifacts == {0: {}, 2: {}, 4: {}}


def test_the_studys_run_shows_best_values_counts_and_baselines(
    shown: dict[str, dict[str, Any]], snapshot: Snapshot, baselines: list[BaselineScore]
) -> None:
    latest = shown["small"]["latest"]
    best = snapshot.leaderboard[0]
    assert best.final is not None
    for name, value in asdict(best.final.evaluation.errors).items():
        assert latest[f"val_{name}_best"] == value
    for name, baseline in zip(
        ("persistence", "seasonal_naive_24", "ridge"), baselines, strict=True
    ):
        for error, value in asdict(baseline.errors).items():
            assert latest[f"val_{error}_baseline_{name}"] == value
    assert latest["num_complete"] == 3
    assert latest["num_pruned"] == latest["num_failed"] == 1


def test_the_studys_run_tells_where_it_comes_from_and_how_to_read_it(
    shown: dict[str, dict[str, Any]], facts: StudyFacts, snapshot: Snapshot
) -> None:
    run = shown["small"]
    assert run["info"][0] == "FINISHED"
    assert run["tags"].items() >= facts.tags.items()
    assert run["tags"]["data_fingerprint"] == facts.data_fingerprint
    assert run["tags"]["best_trial"] == snapshot.leaderboard[0].name
    assert run["tags"]["state"] == "done"
    assert "val_mae_scaled_best" in run["tags"]["mlflow.note.content"]
    assert run["params"] == facts.params
    [(name, digest, source, profile)] = run["inputs"]
    assert (name, facts.data_fingerprint.startswith(digest)) == ("small", True)
    assert (json.loads(source), json.loads(profile)) == ({"uri": "small.csv"}, {"num_rows": 120})


def test_the_studys_run_holds_the_configuration_and_the_leaderboard(
    shown: dict[str, dict[str, Any]], snapshot: Snapshot
) -> None:
    artifacts = shown["small"]["artifacts"]
    assert set(artifacts) == {"config.yaml", "leaderboard.csv"}
    config = parse_config(yaml.safe_load(artifacts["config.yaml"]))
    assert config == SearchConfig(study="small")
    rows = list(csv.DictReader(artifacts["leaderboard.csv"].decode().splitlines()))
    assert [int(row["trial"]) for row in rows] == [t.number for t in snapshot.leaderboard]


def test_the_experiment_holds_the_page_of_the_study(
    shown: dict[str, dict[str, Any]], facts: StudyFacts
) -> None:
    tags = shown["experiment"]["tags"]
    assert tags["mlflow.sharedViewState.small"] == saved_view(facts)


@ON_BOTH
def test_the_pages_filter_and_order_find_the_trials_the_best_first(
    projected: str, facts: StudyFacts, snapshot: Snapshot
) -> None:
    state = json.loads(json.loads(saved_view(facts))["state"])
    client = MlflowClient(projected)
    experiment = client.get_experiment_by_name("lstm-search")
    order = f"{state['orderByKey']} ASC"
    runs = client.search_runs([experiment.experiment_id], state["searchFilter"], order_by=[order])
    numbers = [int(run.data.tags["trial"]) for run in runs]
    assert numbers == [6, 1, 0, 2, 3, 4]  # the one that runs has no best yet


@pytest.mark.parametrize("study", ["0a-b.c_D7", "x" * 100])
@ON_BOTH
def test_a_study_of_any_name_that_a_configuration_allows_is_shown_and_found_again(
    study: str, view_store: str, make_facts: MakeFacts, dump_view: DumpView
) -> None:
    assert SearchConfig(study=study).study == study
    for _ in range(2):
        View(view_store, "lstm-search", make_facts(name=study))
    assert set(dump_view(view_store)) == {study, "experiment"}


@pytest.mark.parametrize("study", ["it's", 'a "b"', "a`b", "a b", "a%b", "-a", "a\n", "ä", ""])
def test_a_name_that_could_break_a_filter_is_no_studys_name(study: str) -> None:
    with pytest.raises(ValueError, match="study"):
        SearchConfig(study=study)


@ON_BOTH
def test_an_experiment_of_any_name_is_found_again(
    view_store: str, facts: StudyFacts, dump_view: DumpView
) -> None:
    name = 'it\'s "mine" % `1` ä'
    for _ in range(2):
        View(view_store, name, facts)
    assert set(dump_view(view_store, name)) == {"small", "experiment"}


@ON_BOTH
def test_showing_a_study_twice_changes_nothing(
    projected: str,
    facts: StudyFacts,
    snapshot: Snapshot,
    baselines: list[BaselineScore],
    dump_view: DumpView,
) -> None:
    before = dump_view(projected), run_ids(projected)
    rebuild(projected, "lstm-search", facts, snapshot, baselines)
    assert (dump_view(projected), run_ids(projected)) == before


@ON_BOTH
def test_one_view_that_shows_everything_twice_changes_nothing(
    projected: str, facts: StudyFacts, snapshot: Snapshot, dump_view: DumpView
) -> None:
    before = dump_view(projected)
    view = View(projected, "lstm-search", facts)
    view.show_trials(snapshot.trials)
    view.show_all(snapshot)
    view.show_all(snapshot)
    assert dump_view(projected) == before


@ON_BOTH
def test_trials_shown_as_they_grow_end_like_trials_shown_at_once(
    projected: str,
    played_study: Study,
    facts: StudyFacts,
    snapshot: Snapshot,
    dump_view: DumpView,
) -> None:
    view = View(projected, "growing", facts)
    for trial in snapshot.trials:
        if trial.config is not None:
            for count in range(len(trial.evaluations)):
                begun = replace(trial, state=TrialState.RUNNING, final=None, ended_at=None)
                view.show_trials([replace(begun, evaluations=trial.evaluations[:count])])
    view.show_all(snapshot)
    at_once, grown = dump_view(projected), dump_view(projected, "growing")
    for name in shown_trials(snapshot):
        assert grown[name] == at_once[name]


@pytest.mark.parametrize("deleted", ["trials", "study", "all"])
@ON_BOTH
def test_deleted_runs_come_back_and_nothing_else_changes(
    deleted: str,
    projected: str,
    facts: StudyFacts,
    snapshot: Snapshot,
    baselines: list[BaselineScore],
    dump_view: DumpView,
) -> None:
    before, ids = dump_view(projected), run_ids(projected)
    gone = {
        "trials": {name for name in ids if name != "small"},
        "study": {"small"},
        "all": set(ids),
    }[deleted]
    for name in gone:
        MlflowClient(projected).delete_run(ids[name])
    rebuild(projected, "lstm-search", facts, snapshot, baselines)
    assert dump_view(projected) == before
    assert {name: ids[name] for name in ids.keys() - gone}.items() <= run_ids(projected).items()


HALF_SHOWN = (
    "DELETE FROM params WHERE run_uuid IN (:study, :trial)",
    "DELETE FROM metrics WHERE run_uuid IN (:study, :trial)",
    "DELETE FROM latest_metrics WHERE run_uuid IN (:study, :trial)",
    "DELETE FROM tags WHERE key IN ('state', 'best_trial', 'outcome', 'reason', 'host', 'pid')",
    "DELETE FROM inputs WHERE destination_id = :study",
    "UPDATE runs SET status = 'RUNNING', end_time = NULL WHERE run_uuid IN (:study, :trial)",
    "DELETE FROM experiment_tags WHERE key LIKE '%sharedViewState%'",
)
"""What may be missing where a process was killed while it showed a study."""


def test_a_half_shown_study_is_completed(
    projected: str,
    facts: StudyFacts,
    snapshot: Snapshot,
    baselines: list[BaselineScore],
    dump_view: DumpView,
    tmp_path: Path,
) -> None:
    before, ids = dump_view(projected), run_ids(projected)
    places = {"study": ids["small"], "trial": ids[snapshot.trials[0].name]}
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as store, store:
        for removal in HALF_SHOWN:
            assert store.execute(removal, places).rowcount > 0
    for path in (tmp_path / "artifacts").rglob("*.*"):
        path.unlink()
    rebuild(projected, "lstm-search", facts, snapshot, baselines)
    after = dump_view(projected)
    assert (after, run_ids(projected)) == (before, ids)


@ON_BOTH
def test_runs_that_were_made_twice_become_one(
    projected: str,
    facts: StudyFacts,
    snapshot: Snapshot,
    baselines: list[BaselineScore],
    dump_view: DumpView,
) -> None:
    before, client = dump_view(projected), MlflowClient(projected)
    for run_id in run_ids(projected).values():
        run = client.get_run(run_id)
        client.create_run(
            run.info.experiment_id, run.info.start_time, run.data.tags, run.info.run_name
        )
    rebuild(projected, "lstm-search", facts, snapshot, baselines)
    assert dump_view(projected) == before


@ON_BOTH
def test_a_note_that_a_person_wrote_stays(
    projected: str, facts: StudyFacts, snapshot: Snapshot, dump_view: DumpView
) -> None:
    client, run_id = MlflowClient(projected), run_ids(projected)["small"]
    client.set_tag(run_id, "mlflow.note.content", "the one for the talk")
    rebuild(projected, "lstm-search", facts, snapshot, [])
    assert dump_view(projected)["small"]["tags"]["mlflow.note.content"] == "the one for the talk"


@ON_BOTH
def test_a_study_made_anew_under_a_known_name_has_runs_of_its_own(
    projected: str, make_facts: MakeFacts, snapshot: Snapshot
) -> None:
    old = run_ids(projected)
    facts = make_facts(uid="f" * 32)
    rebuild(projected, "lstm-search", facts, snapshot, [])
    rebuild(projected, "lstm-search", facts, snapshot, [])
    client = MlflowClient(projected)
    experiment = client.get_experiment_by_name("lstm-search").experiment_id
    new = client.search_runs([experiment], f"tags.study_uid = '{facts.uid}'")
    assert len(client.search_runs([experiment])) == len(old) + len(new) == 2 * len(old)
    parents = {run.data.tags.get("mlflow.parentRunId") for run in new}
    assert parents.isdisjoint(old.values())
    state = json.loads(json.loads(experiment_tag(client, experiment))["state"])
    shown = client.search_runs([experiment], state["searchFilter"])
    assert {run.info.run_id for run in shown} < {run.info.run_id for run in new}


def experiment_tag(client: MlflowClient, experiment_id: str) -> str:
    tags: dict[str, str] = client.get_experiment(experiment_id).tags
    return tags["mlflow.sharedViewState.small"]


@ON_BOTH
def test_a_study_that_goes_on_keeps_its_runs_and_adds_to_them(
    projected: str,
    played_study: Study,
    make_evaluation: MakeEvaluation,
    facts: StudyFacts,
    snapshot: Snapshot,
    dump_view: DumpView,
) -> None:
    before, ids = dump_view(projected), run_ids(projected)
    played_study.report(4, make_evaluation(0.1, step=300))
    played_study.complete(4)
    view = View(projected, "lstm-search", facts)
    view.mark_running()
    assert dump_view(projected)["small"]["info"][0] == "RUNNING"
    view.show_all(Snapshot(played_study.trials(), "done", snapshot.kept))
    after = dump_view(projected)
    grown = after.pop(snapshot.trials[4].name), after.pop("small")
    assert grown[0]["tags"]["outcome"] == "complete"
    assert grown[1]["latest"]["val_mae_scaled_best"] == 0.1
    old = before["small"]["metrics"]["num_complete"]
    assert grown[1]["metrics"]["num_complete"][:-1] == old
    assert all(after[name] == before[name] for name in after)
    assert run_ids(projected) == ids


@pytest.mark.parametrize(
    ("state", "status"),
    [("done", "FINISHED"), ("space exhausted", "FINISHED"), ("interrupted", "SCHEDULED")],
)
@ON_BOTH
def test_a_study_that_can_go_on_is_not_shown_as_finished(
    state: str, status: str, view_store: str, facts: StudyFacts, snapshot: Snapshot
) -> None:
    view = View(view_store, "lstm-search", facts)
    view.show_all(Snapshot([], state, snapshot.kept))
    run = MlflowClient(view_store).get_run(run_ids(view_store)["small"])
    assert (run.info.status, run.data.tags["state"]) == (status, state)


@ON_BOTH
def test_a_trial_that_was_tried_again_shows_how_often_and_every_reason(
    view_store: str, facts: StudyFacts, snapshot: Snapshot, dump_view: DumpView
) -> None:
    trial, view = snapshot.trials[4], View(view_store, "lstm-search", facts)
    for reasons in ((), ("OSError: [Errno 5]",), ("OSError: [Errno 5]", "hung: x" * 2000)):
        waiting = replace(trial, state=TrialState.WAITING, retries=reasons)
        for state in (TrialState.WAITING, TrialState.RUNNING):
            view.show_trials([replace(waiting, state=state)])
    run = dump_view(view_store)[trial.name]
    assert run["info"][0] == "RUNNING"
    assert (run["tags"]["retries"], run["tags"]["retry_reason"][:7]) == ("2", "hung: x")
    text = f"try 1: OSError: [Errno 5]\ntry 2: {'hung: x' * 2000}\n"
    assert run["artifacts"] == {"retries.txt": text.encode()}


def test_ended_runs_are_shown_again_unless_they_are_trusted(
    projected: str, facts: StudyFacts, snapshot: Snapshot, dump_view: DumpView, tmp_path: Path
) -> None:
    before, complete = dump_view(projected), snapshot.trials[0].name
    ids = run_ids(projected)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as store, store:
        of_two = [ids[complete], ids[snapshot.trials[2].name]]
        store.execute("DELETE FROM metrics WHERE run_uuid IN (?, ?)", of_two)
        # The second was cut off before its end.
        store.execute("UPDATE runs SET end_time = NULL WHERE run_uuid = ?", of_two[1:])
    trusting = View(projected, "lstm-search", facts, trusts_ended_runs=True)
    trusting.show_all(snapshot)
    assert dump_view(projected)[complete].pop("metrics") == {}
    View(projected, "lstm-search", facts).show_all(snapshot)
    assert dump_view(projected) == before


@ON_BOTH
def test_runs_made_twice_behind_a_views_back_become_one_at_the_end(
    view_store: str, facts: StudyFacts, snapshot: Snapshot, dump_view: DumpView
) -> None:
    view, client = View(view_store, "lstm-search", facts), MlflowClient(view_store)
    view.show_trials(snapshot.trials)
    ids = run_ids(view_store)
    for run in [client.get_run(run_id) for run_id in ids.values()]:
        tags = {name: value for name, value in run.data.tags.items() if name != "outcome"}
        for started_at in (run.info.start_time - 1, run.info.start_time + 1):  # found in any order
            client.create_run(run.info.experiment_id, started_at, tags, run.info.run_name)
    view.show_all(snapshot)
    assert run_ids(view_store) == ids
    rebuild(view_store, "anew", facts, snapshot, [])
    for name in shown_trials(snapshot):
        assert dump_view(view_store)[name] == dump_view(view_store, "anew")[name]


@ON_BOTH
def test_a_trial_that_waits_to_be_run_again_is_shown_as_scheduled(
    projected: str, played_study: Study, facts: StudyFacts, dump_view: DumpView
) -> None:
    played_study.requeue_running()
    View(projected, "lstm-search", facts).show_trials(played_study.trials())
    assert dump_view(projected)[played_study.trial(4).name]["info"][0] == "SCHEDULED"


@ON_BOTH
def test_a_trial_of_more_readings_than_one_call_takes_is_shown_whole(
    view_store: str,
    make_evaluation: MakeEvaluation,
    facts: StudyFacts,
    snapshot: Snapshot,
    dump_view: DumpView,
) -> None:
    trial = snapshot.trials[4]
    many = [RecordedEvaluation(make_evaluation(0.4, step=step), step) for step in range(250)]
    grown = replace(trial, evaluations=tuple(many))
    View(view_store, "lstm-search", facts).show_trials([grown])
    history = dump_view(view_store)[trial.name]["metrics"]["val_mae"]
    assert [step for step, *_ in history] == list(range(250))


@ON_BOTH
def test_values_longer_than_mlflow_takes_are_cut(
    view_store: str,
    make_facts: MakeFacts,
    snapshot: Snapshot,
    dump_view: DumpView,
    capfd: pytest.CaptureFixture[str],
) -> None:
    facts = make_facts(params={"space.choices": "1, " * 9000}, tags={"note": "t" * 9000})
    failed = replace(snapshot.trials[3], reason="r" * 9000)
    View(view_store, "lstm-search", facts).show_trials([failed])
    runs = dump_view(view_store)
    assert capfd.readouterr() == ("", "")
    assert len(runs["small"]["params"]["space.choices"]) == 6000
    assert len(runs["small"]["tags"]["note"]) == len(runs[failed.name]["tags"]["reason"]) == 8000


def test_what_the_user_does_in_mlflow_is_left_alone(
    view_store: str,
    user_of: Callable[[str], None],
    facts: StudyFacts,
    snapshot: Snapshot,
    dump_view: DumpView,
) -> None:
    user_of(view_store)
    with mlflow.start_run(run_name="my own", tags={"study": "small", "kind": "trial"}) as run:
        mlflow.log_metric("mine", 1.0)
        view = View(view_store, "lstm-search", facts)
        view.show_all(snapshot)
        view.show_all(snapshot)
        active = mlflow.active_run()
        assert active is not None
        assert active.info.run_id == run.info.run_id
        mlflow.log_metric("mine", 2.0)
    mine = dump_view(view_store, "mine")
    assert set(mine) == {"my own", "experiment"}
    assert [value for _, _, value, _ in mine["my own"]["metrics"]["mine"]] == [1.0, 2.0]
    assert set(mine["my own"]["metrics"]) == {"mine"}
    names = {each.name for each in MlflowClient(view_store).search_experiments()}
    assert names == {"Default", "mine", "lstm-search"}
    assert mlflow.get_tracking_uri() == view_store


def test_a_run_of_the_user_in_our_experiment_is_left_alone(
    projected: str,
    user_of: Callable[[str], None],
    facts: StudyFacts,
    snapshot: Snapshot,
    dump_view: DumpView,
) -> None:
    user_of(projected)
    mlflow.set_experiment("lstm-search")
    with mlflow.start_run(run_name="my own", tags={"study": "small"}):
        mlflow.log_metric("mine", 1.0)
    before = dump_view(projected)
    rebuild(projected, "lstm-search", facts, snapshot, [])
    assert dump_view(projected) == before


@pytest.fixture
def user_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Somebody who uses MLflow in this process, with an experiment of their own."""
    # MLflow notes its current store and experiment for the process and those it starts.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "")
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)

    def use(store: str) -> None:
        mlflow.set_tracking_uri(store)
        mlflow.set_experiment("mine")

    yield use
    mlflow.set_tracking_uri(None)


@ON_BOTH
def test_a_deleted_experiment_is_not_used_and_the_remedy_is_named(
    projected: str, facts: StudyFacts, snapshot: Snapshot
) -> None:
    client = MlflowClient(projected)
    client.delete_experiment(client.get_experiment_by_name("lstm-search").experiment_id)
    with pytest.raises(ViewError, match="lstm-search is deleted in MLflow: restore it there"):
        rebuild(projected, "lstm-search", facts, snapshot, [])


def test_a_store_that_another_process_holds_is_an_error_of_one_line_and_no_traceback(
    projected: str,
    facts: StudyFacts,
    snapshot: Snapshot,
    tmp_path: Path,
    locks_not_awaited: None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        store.execute("BEGIN IMMEDIATE")
        with pytest.raises(ViewError, match=r"take study small: database is locked; see that"):
            rebuild(projected, "lstm-search", facts, snapshot, [])
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def locks_not_awaited() -> Iterator[None]:
    """MLflow gives a locked SQLite file up at once, and not after its 20 seconds."""

    def at_once(*event: Any) -> tuple[str, Any]:
        _, _, statement, parameters, _, _ = event
        return statement.replace("busy_timeout = 20000", "busy_timeout = 1"), parameters

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", at_once, retval=True)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", at_once)


def test_a_server_that_is_not_there_is_an_error_that_names_the_study(
    free_port: int, facts: StudyFacts, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ViewError, match="MLflow does not take study small: connection refused"):
        rebuild(f"http://127.0.0.1:{free_port}", "lstm-search", facts, snapshot, [])


@pytest.mark.slow
def test_a_server_shows_what_a_store_shows(
    projected: str,
    mlflow_server: Any,
    facts: StudyFacts,
    snapshot: Snapshot,
    baselines: list[BaselineScore],
    dump_view: DumpView,
    capfd: pytest.CaptureFixture[str],
) -> None:
    rebuild(mlflow_server.uri, "lstm-search", facts, snapshot, baselines)
    assert capfd.readouterr().out == ""  # MLflow itself prints two lines a run
    shown = dump_view(mlflow_server.store_uri)
    assert anywhere(shown) == anywhere(dump_view(projected))
    rebuild(mlflow_server.uri, "lstm-search", facts, snapshot, baselines)
    assert dump_view(mlflow_server.store_uri) == shown


@pytest.mark.slow
def test_two_processes_that_make_the_store_at_the_same_moment_both_show_their_study(
    tmp_path: Path, make_facts: MakeFacts, dump_view: DumpView
) -> None:
    store = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    script = (
        "import json, sys\n"
        "from search.tracking import StudyFacts, View\n"
        "View(sys.argv[1], 'lstm-search', StudyFacts(**json.loads(sys.argv[2])))\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, store, json.dumps(asdict(make_facts(name=n, uid=n)))],
            cwd=Path(__file__).parents[2],
        )
        for n in ("one", "two")
    ]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert set(dump_view(store)) == {"one", "two", "experiment"}


def anywhere(shown: dict[str, Any]) -> str:
    """What is shown without the experiment's number, which is another in each store."""
    return re.sub(r"/experiments/\d+/", "/experiments/N/", repr(sorted(shown.items())))


def run_ids(uri: str, experiment: str = "lstm-search") -> dict[str, str]:
    """The ids of the runs, by their names."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    return {run.info.run_name: run.info.run_id for run in client.search_runs([found.experiment_id])}
