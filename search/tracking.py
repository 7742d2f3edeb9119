"""The view: MLflow shows the record, and can be rebuilt from it at any time. Only here is MLflow.

One parent run a study, one nested child run a trial. MLflow takes an equal metric of an equal time
only once, so that showing a record twice changes nothing.
"""

import fcntl
import itertools
import json
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow's own patience, 7 retries of 120 s, would keep a call waiting for minutes where the
    # server is gone; here whoever calls tries again.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}.items():
    os.environ.setdefault(_name, _value)

from mlflow import MlflowClient, MlflowException  # noqa: E402
from mlflow.entities import (  # noqa: E402
    Dataset,
    DatasetInput,
    InputTag,
    Metric,
    Param,
    Run,
    RunStatus,
    RunTag,
)

from pipelines.baselines import BaselineScore  # noqa: E402
from search.projection import (  # noqa: E402
    Reading,
    Snapshot,
    StudyFacts,
    baseline_readings,
    description,
    evaluation_readings,
    last_time,
    leaderboard_csv,
    milliseconds,
    outcome_readings,
    outcome_tags,
    saved_view,
    study_readings,
    trial_params,
)
from search.record import TrialRecord, TrialState  # noqa: E402

# MLflow's limits.
METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 100
PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 8000

_RUN_STATUS = {
    TrialState.WAITING: "SCHEDULED",
    TrialState.RUNNING: "RUNNING",
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "FINISHED",  # KILLED would show a red cross
    TrialState.FAILED: "FAILED",
}


class ViewError(ValueError):
    """MLflow cannot be reached, or does not take a study."""


@dataclass
class _ShownRun:
    """What the view knows of a run; a found one may lack anything."""

    run_id: str
    params: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    state: TrialState | None = None
    num_evaluations: int = 0


class View:
    """One study's runs in MLflow; one writer at a time."""

    def __init__(self, uri: str, experiment: str, facts: StudyFacts):
        """Connect to the store, find the study's runs and complete its parent run."""
        self._facts = facts
        self._client = open_store(uri)
        self.experiment_id = _experiment_id(self._client, uri, experiment)
        found = self._find_runs()
        self._parent = self._show_study(found.pop("study", None))
        self._children: dict[int, _ShownRun] = {}
        for number, run in found.items():
            self._children[int(number)] = _shown(run)
            if run.data.tags.get("mlflow.parentRunId") != self._parent.run_id:
                self._client.set_tag(run.info.run_id, "mlflow.parentRunId", self._parent.run_id)

    def mark_running(self) -> None:
        """Show that the search goes on."""
        self._client.update_run(self._parent.run_id, "RUNNING")

    def show_trials(self, trials: Iterable[TrialRecord]) -> None:
        """Bring the child runs to what the record says."""
        for trial in trials:
            if trial.state is not TrialState.REJECTED and trial.config is not None:
                self._show_trial(trial)

    def show_baselines(self, baselines: Iterable[BaselineScore]) -> None:
        """Put the forecasts to beat on the parent run."""
        self._log_readings(self._parent, baseline_readings(baselines, self._facts.started_at))

    def show_all(self, snapshot: Snapshot) -> None:
        """Show every trial, and on the parent run best values, leaderboard and state."""
        self.show_trials(snapshot.trials)
        best, run = snapshot.leaderboard, self._parent
        self._log_readings(run, study_readings(snapshot.trials, self._facts.metric))
        best_trial = best[0].name if best else "none"
        self._log_tags(run, {"state": snapshot.state, "best_trial": best_trial})
        self._client.log_text(run.run_id, leaderboard_csv(best), "leaderboard.csv")
        for trial in best:
            if snapshot.kept.path(trial.number).exists():
                self._show_weights(trial, snapshot.kept.path(trial.number))
        is_over = snapshot.state in ("done", "space exhausted")
        ended_at = snapshot.last_time or self._facts.started_at
        self._end_run(run, "FINISHED" if is_over else "SCHEDULED", ended_at)

    def _show_study(self, found: Run | None) -> _ShownRun:
        facts = self._facts
        tags = {
            "kind": "study",
            "data_fingerprint": facts.data_fingerprint,
            "mlflow.source.name": "lstm-search",
            "mlflow.note.content": description(facts, self.experiment_id),
            **facts.tags,
        }
        run = _shown(found) if found else self._make_run(facts.name, facts.started_at, tags)
        self._log_tags(run, {name: tags[name] for name in tags.keys() - run.tags})
        self._log_params(run, {n: v for n, v in facts.params.items() if v})
        self._client.log_inputs(run.run_id, datasets=[_dataset(facts)])
        self._client.log_text(run.run_id, facts.config_yaml, "config.yaml")
        key = f"mlflow.sharedViewState.{facts.name}"
        self._client.set_experiment_tag(self.experiment_id, key, saved_view(facts))
        return run

    def _show_trial(self, trial: TrialRecord) -> None:
        run = self._children.get(trial.number)
        if run is None:
            started_at = trial.started_at or self._facts.started_at
            tags = {"kind": "trial", "trial": str(trial.number)}
            tags["mlflow.parentRunId"] = self._parent.run_id
            run = self._children[trial.number] = self._make_run(trial.name, started_at, tags)
        self._log_params(run, trial_params(trial))
        evaluations = trial.evaluations[run.num_evaluations :]
        self._log_readings(run, itertools.chain(*map(evaluation_readings, evaluations)))
        run.num_evaluations = len(trial.evaluations)
        if trial.state is not run.state:
            self._show_state(trial, run)

    def _show_state(self, trial: TrialRecord, run: _ShownRun) -> None:
        if trial.state.counts:
            self._log_readings(run, outcome_readings(trial, self._facts.metric))
            self._log_tags(run, outcome_tags(trial))
            if trial.traceback:
                self._client.log_text(run.run_id, trial.traceback, "traceback.txt")
            ended_at = last_time(trial) or self._facts.started_at
            self._end_run(run, _RUN_STATUS[trial.state], ended_at)
        else:
            self._client.update_run(run.run_id, _RUN_STATUS[trial.state])
        run.state = trial.state

    def _show_weights(self, trial: TrialRecord, path: Path) -> None:
        assert trial.config is not None
        run_id = self._children[trial.number].run_id
        self._client.log_artifact(run_id, str(path), "model")
        config = trial.config.model_dump_json(indent=2)
        self._client.log_text(run_id, config, "model/config.json")

    def _make_run(self, name: str, started_at: float, tags: Mapping[str, str]) -> _ShownRun:
        run = self._client.create_run(
            self.experiment_id,
            start_time=milliseconds(started_at),
            run_name=name,
            tags={"study": self._facts.name, "study_uid": self._facts.uid, **_cut(tags)},
        )
        return _shown(run)

    def _end_run(self, run: _ShownRun, status: str, ended_at: float) -> None:
        # The client's own set_terminated prints two lines about each run.
        self._client._tracking_client.store.update_run_info(
            run.run_id, RunStatus.from_string(status), milliseconds(ended_at), None
        )

    def _log_readings(self, run: _ShownRun, readings: Iterable[Reading]) -> None:
        metrics = [
            Metric(reading.name, reading.value, milliseconds(reading.time), reading.step)
            for reading in readings
        ]
        for first in range(0, len(metrics), METRICS_PER_CALL):
            self._client.log_batch(run.run_id, metrics[first : first + METRICS_PER_CALL])

    def _log_params(self, run: _ShownRun, params: Mapping[str, str]) -> None:
        # A parameter cannot be changed, and another version may write it another way.
        missing = [
            Param(name, value[:PARAM_CHARACTERS])
            for name, value in params.items()
            if name not in run.params
        ]
        for first in range(0, len(missing), PARAMS_PER_CALL):
            self._client.log_batch(run.run_id, params=missing[first : first + PARAMS_PER_CALL])
        run.params |= params.keys()

    def _log_tags(self, run: _ShownRun, tags: Mapping[str, str]) -> None:
        if tags:
            self._client.log_batch(run.run_id, tags=[RunTag(*tag) for tag in _cut(tags).items()])

    def _find_runs(self) -> dict[str, Run]:
        """The runs of the study by trial number, and its parent run as `study`."""
        found: dict[str, Run] = {}
        wanted, token = f"tags.study_uid = '{self._facts.uid}'", None
        while True:
            page = self._client.search_runs([self.experiment_id], wanted, page_token=token)
            for run in page:
                if run is not found.setdefault(run.data.tags.get("trial", "study"), run):
                    # Made twice: a server answered too late, or two processes wrote at a time.
                    self._client.delete_run(run.info.run_id)
            token = page.token
            if not token:
                return found


def open_store(uri: str) -> MlflowClient:
    """Connect to an MLflow server or store; a SQLite store is made once, by one process."""
    path = _sqlite_path(uri)
    if path is None:
        return MlflowClient(tracking_uri=uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _held(path.with_suffix(".lock")):
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)  # makes the schema
    return client


def rebuild(
    uri: str,
    experiment: str,
    facts: StudyFacts,
    snapshot: Snapshot,
    baselines: Iterable[BaselineScore],
) -> str:
    """Bring a study's runs to what the record says; return the experiment's id.

    Raises:
        ViewError: where MLflow cannot be reached or refuses.
    """
    try:
        view = View(uri, experiment, facts)
        view.show_baselines(baselines)
        view.show_all(snapshot)
    except MlflowException as error:
        reason = str(error).splitlines()[0]
        raise ViewError(f"MLflow does not take study {facts.name}: {reason}") from None
    return view.experiment_id


def set_verbosity(is_verbose: bool) -> None:
    """Let MLflow's own messages about its store through, or warnings only."""
    level = logging.INFO if is_verbose else logging.WARNING
    logging.getLogger("mlflow.store.db.utils").setLevel(level)


set_verbosity(is_verbose=False)


def _cut(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:TAG_CHARACTERS] for name, value in tags.items()}


def _shown(run: Run) -> _ShownRun:
    return _ShownRun(run.info.run_id, frozenset(run.data.params), frozenset(run.data.tags))


def _experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return _make_experiment(client, uri, name)
    if experiment.lifecycle_stage == "deleted":
        raise ViewError(
            f"experiment {name} is deleted in MLflow: restore it there or choose another "
            "--experiment"
        )
    return str(experiment.experiment_id)


def _make_experiment(client: MlflowClient, uri: str, name: str) -> str:
    path = _sqlite_path(uri)
    # An absolute place serves a direct client and a server alike.
    location = None if path is None else (path.parent / "artifacts").absolute().as_uri()
    # So marked, the page opens on runs and metrics instead of on traces of chats.
    tags = {"mlflow.experimentKind": "custom_model_development"}
    try:
        return str(client.create_experiment(name, artifact_location=location, tags=tags))
    except MlflowException:
        made_meanwhile = client.get_experiment_by_name(name)
        if made_meanwhile is None:
            raise
        return str(made_meanwhile.experiment_id)


def _sqlite_path(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


@contextmanager
def _held(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _dataset(facts: StudyFacts) -> DatasetInput:
    dataset = Dataset(
        name=facts.data_name,
        digest=facts.data_fingerprint[:32],
        source_type="local",
        source=json.dumps({"uri": facts.data_source}),
        profile=json.dumps({"num_rows": facts.num_rows}),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "train and validation")])
