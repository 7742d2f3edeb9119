"""What the view shows of a record, without MLflow: names, values and times."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from models.config import LSTMConfig
from pipelines.scores import BaselineScore, Evaluation
from pipelines.training_config import TrainConfig
from search.kept_weights import KeptWeights
from search.projection import (
    Snapshot,
    StudyFacts,
    baseline_readings,
    best_metric,
    evaluation_readings,
    leaderboard_csv,
    outcome_readings,
    outcome_tags,
    saved_view,
    study_readings,
    trial_params,
    trials_url,
)
from search.record import RecordedEvaluation, TrialRecord, TrialState
from search.space import TrialConfig

MakeEvaluation = Callable[..., Evaluation]
MakeFacts = Callable[..., StudyFacts]

TRAINING = TrainConfig(
    lookback=24, calendar=True, learning_rate=3e-3, weight_decay=0.0, batch_size=32
)
ERRORS = ("mae", "mse", "rmse", "mase", "mae_scaled", "mse_scaled", "rmse_scaled")


def make_trial(number: int = 0, **changes: Any) -> TrialRecord:
    fields: dict[str, Any] = {
        "state": TrialState.RUNNING,
        "config": TrialConfig(model=LSTMConfig(widths=(64,)), training=TRAINING),
        "seed": 7,
        "params": {},
        "started_at": 1000.0,
    }
    return TrialRecord(number=number, **(fields | changes))


def recorded(evaluation: Evaluation, time: float = 1001.0) -> RecordedEvaluation:
    return RecordedEvaluation(evaluation, time)


@pytest.mark.parametrize(
    ("widths", "expected"),
    [
        ((128,), ("128", "1", "uniform", "128")),
        ((64, 64), ("64-64", "2", "uniform", "64")),
        ((64, 128), ("64-128", "2", "per_layer", "128")),
        ((), ("none", "0", "uniform", "0")),
    ],
)
def test_widths_are_shown_as_names_that_a_table_can_be_sorted_and_grouped_by(
    widths: tuple[int, ...], expected: tuple[str, ...]
) -> None:
    config = TrialConfig(model=LSTMConfig(widths=widths), training=TRAINING)
    params = trial_params(make_trial(config=config))
    names = ("widths", "num_layers", "shape", "hidden_size")
    assert tuple(params[name] for name in names) == expected


def test_every_setting_of_a_trial_is_a_parameter_and_none_is_empty() -> None:
    widths = ((), (64,), (64, 64), (64, 128, 32))
    configs = [TrialConfig(model=LSTMConfig(widths=w), training=TRAINING) for w in widths]
    shown = [trial_params(make_trial(config=config)) for config in configs]
    settings = LSTMConfig.model_fields.keys() | TrainConfig.model_fields.keys()
    assert {frozenset(params) for params in shown} == {frozenset(shown[0])}
    assert settings | {"num_parameters", "seed"} <= shown[0].keys()
    assert all(value for params in shown for value in params.values())


def test_an_evaluation_shows_every_error_at_its_step_and_its_recorded_time(
    make_evaluation: MakeEvaluation,
) -> None:
    evaluation = make_evaluation(0.25, step=150)
    readings = evaluation_readings(recorded(evaluation, 1234.5))
    values = {reading.name: reading.value for reading in readings}
    errors = asdict(evaluation.errors)
    assert {name: values[f"val_{name}"] for name in ERRORS} == errors
    assert values["train_loss"] == evaluation.train_loss
    assert values["learning_rate"] == evaluation.learning_rate
    assert values["peak_memory_mib"] == 1.0
    assert {(reading.step, reading.time) for reading in readings} == {(150, 1234.5)}


def test_an_undefined_mase_has_no_reading(make_evaluation: MakeEvaluation) -> None:
    evaluation = make_evaluation(0.25)
    evaluation = replace(evaluation, errors=replace(evaluation.errors, mase=math.nan))
    trial = make_trial(evaluations=(recorded(evaluation),), state=TrialState.PRUNED, ended_at=1002)
    baseline = BaselineScore("ridge", evaluation.errors, "")
    readings = [
        *evaluation_readings(recorded(evaluation)),
        *outcome_readings(trial, "mae"),
        *baseline_readings([baseline], 1000.0),
    ]
    assert not any("mase" in reading.name for reading in readings)
    assert all(math.isfinite(reading.value) for reading in readings)


def test_the_outcome_is_the_best_evaluations_not_the_lasts(make_evaluation: MakeEvaluation) -> None:
    evaluations = [
        recorded(make_evaluation(value, step=step), 1000 + step)
        for step, value in ((50, 0.5), (100, 0.2), (150, 0.3))
    ]
    trial = make_trial(evaluations=tuple(evaluations), state=TrialState.PRUNED, ended_at=1200.0)
    values = {reading.name: reading.value for reading in outcome_readings(trial, "mae")}
    assert values["val_mae_scaled_best"] == 0.2
    assert values["val_mae_best"] == evaluations[1].evaluation.errors.mae
    assert values["step_of_best"] == 100
    assert values["duration_seconds"] == 200.0


def test_the_outcome_of_a_complete_trial_is_its_evaluation_on_the_whole_validation_part(
    make_evaluation: MakeEvaluation,
) -> None:
    trial = make_trial(
        evaluations=(recorded(make_evaluation(0.2, step=100)),),
        final=recorded(make_evaluation(0.25, step=100)),
        state=TrialState.COMPLETE,
        value=0.25,
        ended_at=1002.0,
    )
    values = {reading.name: reading.value for reading in outcome_readings(trial, "mae")}
    assert values["val_mae_scaled_best"] == 0.25


def test_an_evaluation_without_the_metric_is_never_the_best(
    make_evaluation: MakeEvaluation,
) -> None:
    undefined, defined = make_evaluation(0.1, step=50), make_evaluation(0.3, step=100)
    undefined = replace(undefined, errors=replace(undefined.errors, mase=math.nan))
    trial = make_trial(
        evaluations=(recorded(undefined), recorded(defined)),
        state=TrialState.PRUNED,
        ended_at=1002.0,
    )
    values = {reading.name: reading.value for reading in outcome_readings(trial, "mase")}
    assert values["step_of_best"] == 100


def test_a_trial_that_failed_before_its_first_evaluation_has_an_outcome_too() -> None:
    trial = make_trial(state=TrialState.FAILED, reason="out of luck", ended_at=1005.0)
    assert [reading.name for reading in outcome_readings(trial, "mae")] == ["duration_seconds"]
    assert outcome_tags(trial) == {"outcome": "failed", "reason": "out of luck"}


def test_a_study_shows_the_best_and_the_counts_after_each_trial(
    played_trials: list[TrialRecord],
) -> None:
    trials = played_trials
    readings = list(study_readings(trials, "mae"))
    ended = [t for t in sorted(trials, key=lambda t: t.ended_at or math.inf) if t.state.counts]
    assert [trial.number for trial in ended] == [0, 1, 6, 2, 3]
    best = {r.step: r.value for r in readings if r.name == "val_mae_scaled_best"}
    assert list(best.values()) == pytest.approx([0.35, 0.34, 0.29, 0.29, 0.29])
    assert list(best) == [1, 2, 3, 4, 5]
    last = {r.name: r.value for r in readings if r.step == len(ended)}
    counts = {name: value for name, value in last.items() if name.startswith("num_")}
    assert counts == {"num_complete": 3, "num_pruned": 1, "num_failed": 1}
    assert [r.time for r in readings if r.name == "num_failed"] == [
        trial.ended_at for trial in ended
    ]


def test_a_study_that_has_only_begun_shows_no_readings() -> None:
    assert list(study_readings([make_trial()], "mae")) == []


def test_the_leaderboard_has_a_row_for_each_complete_trial_the_best_first(
    played_trials: list[TrialRecord], tmp_path: Path
) -> None:
    snapshot = Snapshot(played_trials, "done", KeptWeights(tmp_path))
    rows = list(csv.DictReader(leaderboard_csv(snapshot.leaderboard).splitlines()))
    assert [row["trial"] for row in rows] == ["6", "1", "0"]
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert [float(row["value"]) for row in rows] == [t.value for t in snapshot.leaderboard]
    assert rows[0].items() >= trial_params(snapshot.leaderboard[0]).items()


def test_the_leaderboard_of_no_trial_is_a_row_of_names() -> None:
    assert leaderboard_csv([]) == "rank,trial,value\n"


def test_a_snapshot_ends_with_the_last_thing_that_the_record_heard(
    played_trials: list[TrialRecord], tmp_path: Path
) -> None:
    trials = played_trials
    ended_at = max(trial.ended_at for trial in trials if trial.ended_at is not None)
    assert Snapshot(trials, "done", KeptWeights(tmp_path)).last_time == ended_at
    assert Snapshot([], "done", KeptWeights(tmp_path)).last_time is None


@pytest.mark.parametrize("metric", ["mae", "mse", "rmse", "mase"])
def test_a_trial_shows_the_metric_that_the_page_is_sorted_by(
    metric: Any, make_evaluation: MakeEvaluation, make_facts: MakeFacts
) -> None:
    trial = make_trial(evaluations=(recorded(make_evaluation(0.2)),), ended_at=1002.0)
    assert best_metric(metric) in {reading.name for reading in outcome_readings(trial, metric)}
    state = json.loads(json.loads(saved_view(make_facts(metric=metric)))["state"])
    assert state["orderByKey"] == f"metrics.`{best_metric(metric)}`"
    assert state["orderByAsc"] is True


def test_the_pages_columns_are_what_every_trial_shows(make_facts: MakeFacts) -> None:
    state = json.loads(json.loads(saved_view(make_facts()))["state"])
    shown = {f"params.`{name}`" for name in trial_params(make_trial())}
    shown |= {"tags.`outcome`", f"metrics.`{best_metric('mae')}`"}
    assert set(state["selectedColumns"]) <= shown
    assert set(state["selectedColumns"]) < set(state["columnOrder"])
    assert set(state["columnWidths"]) == set(state["columnOrder"])


def test_the_page_shows_one_study_even_where_an_older_one_had_its_name(
    make_facts: MakeFacts,
) -> None:
    state = json.loads(json.loads(saved_view(make_facts(uid="c0ffee")))["state"])
    assert state["searchFilter"] == "tags.study_uid = 'c0ffee' and tags.kind = 'trial'"


@pytest.mark.parametrize("study", ["a", "electricity_2014-amber", "7.B_-", "x" * 100])
def test_the_link_names_the_saved_view_of_any_study(study: str) -> None:
    page = urlsplit(trials_url("http://127.0.0.1:5000", "3", study)).fragment
    assert page.startswith("/experiments/3/runs?")
    assert parse_qs(urlsplit(page).query)["viewStateShareKey"] == [study]


def test_the_link_holds_no_password_of_the_server() -> None:
    url = trials_url("https://me:secret@tracking.example:8443/ml/", "3", "small")
    assert url.startswith("https://tracking.example:8443/ml/#/experiments/3/runs?")
