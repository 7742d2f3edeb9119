"""The view: MLflow shows the record, and can be rebuilt from it at any time.

Here and in `search/registry.py` is the search's door to MLflow.

One parent run a study, one nested child run a trial. MLflow takes an equal metric of an equal time
only once, so that showing a record twice changes nothing.
"""

import fcntl
import http.client
import itertools
import json
import logging
import os
import re
import shutil
import socket
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow's own patience, 7 retries of 120 s, would keep a call waiting for minutes where the
    # server is gone; here whoever calls tries again. One retry bridges a server's hiccup.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # It would draw over the screen of a search.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
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
    ViewType,
)
from sqlalchemy.exc import SQLAlchemyError  # noqa: E402

from pipelines.baselines import BaselineScore  # noqa: E402
from pipelines.verdict import Verdict  # noqa: E402
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
    retries_text,
    retry_tags,
    saved_view,
    study_readings,
    trial_params,
    verdict_readings,
    verdict_tags,
)
from search.record import TrialRecord, TrialState  # noqa: E402

# MLflow's limits; of all kinds together a call takes 1,000.
METRICS_PER_CALL = 800
PARAMS_PER_CALL = 100
TAGS_PER_CALL = 100
PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 8000

_RUN_STATUS = {
    TrialState.WAITING: "SCHEDULED",
    TrialState.RUNNING: "RUNNING",
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "FINISHED",  # KILLED would show a red cross
    TrialState.FAILED: "FAILED",
}


REASON_CHARACTERS = 200

# So marked, its page opens on runs and metrics instead of on traces of chats.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


class ViewError(ValueError):
    """MLflow cannot be reached, or does not take a study."""


Thing = TypeVar("Thing")

OUTAGES = (MlflowException, OSError, SQLAlchemyError, sqlite3.Error)
"""What MLflow's client raises where its server or store fails; it wraps only some of it."""


@dataclass
class _ShownRun:
    """What the view knows of a run; a found one may lack anything."""

    run_id: str
    params: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    state: TrialState | None = None
    num_evaluations: int = 0
    num_retries: int = 0
    is_whole: bool = False
    """Whether it showed an ended trial when it was found: a run is ended last of all."""


@dataclass(frozen=True)
class ShownStudy:
    """Where a study is in MLflow."""

    experiment_id: str
    run_id: str
    """Of its parent run."""


class View:
    """One study's runs in MLflow; one writer at a time."""

    def __init__(
        self, uri: str, experiment: str, facts: StudyFacts, *, trusts_ended_runs: bool = False
    ):
        """Connect to the store, find the study's runs and complete its parent run.

        Args:
            uri: the store or server.
            experiment: its name; made where it is missing.
            facts: the study.
            trusts_ended_runs: show no ended trial again whose run is there and has ended. It
                saves minutes where thousands are, and repairs nothing in them.
        """
        self._facts = facts
        self._client = open_store(uri)
        self.experiment_id = _experiment_id(self._client, uri, experiment)
        found = self._find_runs(known=frozenset())
        self._parent = self._show_study(found.pop("study", None))
        self._children: dict[int, _ShownRun] = {}
        for number, run in found.items():
            shown = self._children[int(number)] = _shown(run)
            shown.is_whole = trusts_ended_runs and _has_ended(run)
            if run.data.tags.get("mlflow.parentRunId") != self._parent.run_id:
                self._client.set_tag(run.info.run_id, "mlflow.parentRunId", self._parent.run_id)

    @property
    def run_id(self) -> str:
        """The study's parent run."""
        return self._parent.run_id

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
        self._log(self._parent, baseline_readings(baselines, self._facts.started_at))

    def show_all(self, snapshot: Snapshot) -> None:
        """Show every trial, and on the parent run best values, leaderboard and state."""
        # A call that took effect after its answer was lost has been made twice.
        self._find_runs(known={r.run_id for r in (self._parent, *self._children.values())})
        self.show_trials(snapshot.trials)
        best, run = snapshot.leaderboard, self._parent
        tags = {"state": snapshot.state, "best_trial": best[0].name if best else "none"}
        self._log(run, study_readings(snapshot.trials, self._facts.metric), tags)
        self._client.log_text(run.run_id, leaderboard_csv(best), "leaderboard.csv")
        for trial in best:
            if snapshot.kept.path(trial.number).exists():
                self._show_weights(trial, snapshot.kept.path(trial.number))
        ended_at = snapshot.last_time or self._facts.started_at
        if snapshot.verdict is not None:
            self._show_verdict(snapshot.verdict, ended_at)
        for page in snapshot.pages:
            self._client.log_artifact(run.run_id, str(page))
        is_over = snapshot.state in ("done", "space exhausted")
        self._end_run(run, "FINISHED" if is_over else "SCHEDULED", ended_at)

    def _show_verdict(self, verdict: Verdict, time: float) -> None:
        run = self._parent
        self._log(run, verdict_readings(verdict, time), verdict_tags(verdict))
        self._client.log_text(run.run_id, verdict.model_dump_json(indent=2), "verdict.json")

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
        missing = {name: tags[name] for name in tags.keys() - run.tags}
        self._log(run, tags=missing, params={n: v for n, v in facts.params.items() if v})
        self._client.log_inputs(run.run_id, datasets=[_dataset(facts)])
        self._client.log_text(run.run_id, facts.config_yaml, "config.yaml")
        key = f"mlflow.sharedViewState.{facts.name}"
        self._client.set_experiment_tag(self.experiment_id, key, saved_view(facts))
        return run

    def _show_trial(self, trial: TrialRecord) -> None:
        run = self._children.get(trial.number)
        if run is not None and run.is_whole and trial.state.counts:
            return
        has_ended = trial.state.counts and (run is None or trial.state is not run.state)
        has_retried = len(trial.retries) > (run.num_retries if run else 0)
        tags = {
            **(retry_tags(trial) if has_retried else {}),
            **(outcome_tags(trial) if has_ended else {}),
        }
        if run is None:
            started_at = trial.started_at or self._facts.started_at
            tags |= {"kind": "trial", "trial": str(trial.number)}
            tags["mlflow.parentRunId"] = self._parent.run_id
            run = self._children[trial.number] = self._make_run(trial.name, started_at, tags)
            run.state = TrialState.RUNNING  # as MLflow begins a run
            tags = {}
        readings = itertools.chain(
            *map(evaluation_readings, trial.evaluations[run.num_evaluations :]),
            outcome_readings(trial, self._facts.metric) if has_ended else (),
        )
        self._log(run, readings, tags, trial_params(trial))
        run.num_evaluations = len(trial.evaluations)
        if has_retried:
            self._client.log_text(run.run_id, retries_text(trial), "retries.txt")
            run.num_retries = len(trial.retries)
        if trial.state is not run.state:
            self._show_state(trial, run)

    def _show_state(self, trial: TrialRecord, run: _ShownRun) -> None:
        if trial.state.counts:
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

    def _log(
        self,
        run: _ShownRun,
        readings: Iterable[Reading] = (),
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> None:
        """Put things on a run, in as few calls as MLflow takes."""
        metrics = [
            Metric(reading.name, reading.value, milliseconds(reading.time), reading.step)
            for reading in readings
        ]
        # A parameter cannot be changed, and another version may write it another way.
        missing = {name: value for name, value in (params or {}).items() if name not in run.params}
        calls = itertools.zip_longest(
            _parts(metrics, METRICS_PER_CALL),
            _parts([Param(n, v[:PARAM_CHARACTERS]) for n, v in missing.items()], PARAMS_PER_CALL),
            _parts([RunTag(*tag) for tag in _cut(tags or {}).items()], TAGS_PER_CALL),
            fillvalue=(),
        )
        for some in calls:
            self._client.log_batch(run.run_id, *some)
        run.params |= missing.keys()

    def _find_runs(self, known: Collection[str]) -> dict[str, Run]:
        """The runs of the study by trial number, and its parent run as `study`; each once.

        Runs that were made twice are deleted but for one: a `known` one, else one that has ended.
        """
        found: dict[str, Run] = {}
        wanted = f"tags.study_uid = '{self._facts.uid}'"
        search, place = self._client.search_runs, [self.experiment_id]
        for run in list(_pages(search, experiment_ids=place, filter_string=wanted)):
            key = run.data.tags.get("trial", "study")
            kept = found.setdefault(key, run)
            if run is not kept:
                # A server answered too late, or two processes wrote at a time.
                if _worth(run, known) > _worth(kept, known):
                    found[key], run = run, kept
                self._client.delete_run(run.info.run_id)
        return found


def connect(uri: str, experiment: str, facts: StudyFacts, is_verbose: bool) -> View:
    """Make the view of a search that begins or goes on."""
    set_verbosity(is_verbose)
    return View(uri, experiment, facts, trusts_ended_runs=True)


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
    *,
    trusts_ended_runs: bool = False,
) -> ShownStudy:
    """Bring a study's runs to what the record says.

    Raises:
        ViewError: where MLflow cannot be reached or refuses.
    """
    try:
        view = View(uri, experiment, facts, trusts_ended_runs=trusts_ended_runs)
        view.show_baselines(baselines)
        view.show_all(snapshot)
    except OUTAGES as error:
        raise ViewError(
            f"MLflow does not take study {facts.name}: {why(error)}; see that MLflow runs at "
            "MLFLOW_TRACKING_URI or tracking.uri, then sync again"
        ) from None
    return ShownStudy(view.experiment_id, view.run_id)


@dataclass(frozen=True)
class StoredRuns:
    """All that MLflow holds of one study, deleted runs included."""

    run_ids: tuple[str, ...]
    folders: tuple[Path, ...]
    """Where their artifacts lie, as far as that is in the folder of a local store."""
    models: tuple[str, ...]
    """Registered model versions that point to one of the runs, such as `load v2`."""
    is_local: bool
    """Whether the store can be freed of them here and now."""


def stored_runs(uri: str, uid: str, home: Path) -> StoredRuns:
    """Find a study's runs in all experiments of a store; makes no store.

    Only what lies below `home` is to be freed from here.

    Raises:
        ViewError: where MLflow cannot be reached or refuses.
    """
    path = _sqlite_path(uri)
    is_local = path is not None and path.resolve().is_relative_to(home.resolve())
    if path is not None and not path.exists():
        return StoredRuns((), (), (), is_local)
    try:
        client = open_store(uri)
        runs = _runs_of_study(client, uid)
        models = _models_of(client, runs) if runs else ()
    except OUTAGES as error:
        raise ViewError(
            f"MLflow must answer before a study is deleted, lest a registered model lose its run: "
            f"{why(error)}; start it, or put its address right"
        ) from None
    artifacts = path.parent.resolve() / "artifacts" if path and is_local else None
    folders = [_folder_in(artifacts, run) for run in runs]
    return StoredRuns(
        tuple(run.info.run_id for run in runs),
        tuple(folder for folder in folders if folder is not None),
        models,
        is_local,
    )


def delete_runs(uri: str, stored: StoredRuns, name: str, uid: str) -> None:
    """Delete a study's runs: for good from a local store, else as marks for `mlflow gc`.

    Raises:
        ViewError: where MLflow cannot be reached or refuses.
    """
    if not stored.run_ids:
        return
    try:
        client = open_store(uri)
        for run_id in stored.run_ids:
            if client.get_run(run_id).info.lifecycle_stage == "active":
                client.delete_run(run_id)
        for folder in stored.folders:
            shutil.rmtree(folder, ignore_errors=True)
        for run_id in stored.run_ids if stored.is_local else ():
            # As `mlflow gc` does it; MLflow's clients only mark.
            client._tracking_client.store._hard_delete_run(run_id)
        _forget_saved_view(client, name, uid)
    except OUTAGES as error:
        raise ViewError(f"MLflow does not delete study {name}: {why(error)}; try again") from None


def shrink_store(uri: str) -> bool:
    """Give back the room of deleted rows; return False where the store is in use just now."""
    path = _sqlite_path(uri)
    if path is None or not path.exists():
        return True
    connection = sqlite3.connect(path, timeout=5)
    try:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError:  # locked by a search or a server, or no room for the copy
        return False
    finally:
        connection.close()
    return True


def _runs_of_study(client: MlflowClient, uid: str) -> list[Run]:
    # The experiment may have been another one each time, named by the environment.
    ids = [e.experiment_id for e in _pages(client.search_experiments, view_type=ViewType.ALL)]
    wanted = f"tags.study_uid = '{uid}'"
    found = _pages(
        client.search_runs,
        experiment_ids=ids,
        filter_string=wanted,
        run_view_type=ViewType.ALL,
    )
    return list(found)


def _models_of(client: MlflowClient, runs: Iterable[Run]) -> tuple[str, ...]:
    places = {run.info.run_id: run.info.artifact_uri for run in runs}
    return tuple(
        f"{version.name} v{version.version}"
        for version in _pages(client.search_model_versions)
        if version.run_id in places
        or any(place and str(version.source).startswith(place) for place in places.values())
        or any(f"runs:/{run_id}" in str(version.source) for run_id in places)
    )


def _pages(search: Callable[..., Any], **arguments: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(**arguments, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _folder_in(artifacts: Path | None, run: Run) -> Path | None:
    """The folder of a run below the store's own; None for any other place, links included."""
    if artifacts is None or not str(run.info.artifact_uri).startswith("file://"):
        return None
    folder = Path(unquote(urlsplit(run.info.artifact_uri).path)).parent
    is_inside = folder.name == run.info.run_id and folder.resolve() == artifacts / folder.name
    return folder if is_inside and folder.is_dir() else None


def _forget_saved_view(client: MlflowClient, name: str, uid: str) -> None:
    key = f"mlflow.sharedViewState.{name}"
    for experiment in _pages(client.search_experiments):
        if uid in experiment.tags.get(key, ""):  # a younger study of the same name has another
            client.delete_experiment_tag(experiment.experiment_id, key)


def why(error: BaseException) -> str:
    """What is wrong with MLflow, in a few words, from whatever its client has raised."""
    causes = list(_causes(error))
    for cause in causes:
        match cause:
            case ConnectionRefusedError():
                return "connection refused"
            case TimeoutError():
                return "no answer in time"
            case socket.gaierror():
                return "its host is not known"
            case ConnectionError() | http.client.HTTPException():
                return "the connection broke"
            case sqlite3.Error():
                return str(cause)  # such as "database is locked"
    status = re.search(r"too many (\d{3}) error responses|error code (\d{3})", str(causes))
    if status:
        return f"it answers with error {status[1] or status[2]}"
    words = (str(error).splitlines() or [""])[0]
    return words[:REASON_CHARACTERS] or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        # urllib3 hands the cause of a broken connection on as an argument.
        yield from (argument for argument in error.args if isinstance(argument, BaseException))
        error = error.__cause__ or error.__context__


def set_verbosity(is_verbose: bool) -> None:
    """Let MLflow's own messages about its store through, or none: `why` tells what matters."""
    # At a locked database it would print a traceback of a hundred lines into a search's screen.
    level = logging.INFO if is_verbose else logging.CRITICAL
    logging.getLogger("mlflow.store.db.utils").setLevel(level)


set_verbosity(is_verbose=False)


def _cut(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:TAG_CHARACTERS] for name, value in tags.items()}


def _has_ended(run: Run) -> bool:
    return run.info.end_time is not None and "outcome" in run.data.tags


def _worth(run: Run, known: Collection[str]) -> tuple[bool, bool]:
    return run.info.run_id in known, _has_ended(run)


def _parts(things: Sequence[Thing], size: int) -> Iterator[Sequence[Thing]]:
    return (things[first : first + size] for first in range(0, len(things), size))


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
    try:
        return str(client.create_experiment(name, location, EXPERIMENT_TAGS))
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
