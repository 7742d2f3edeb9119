"""The view: MLflow shows the record, and can be rebuilt from it at any time.

One parent run a study, one nested child run a trial. Times come from the record, and MLflow takes
an equal metric with an equal time only once, so that projecting twice changes nothing.
"""

import fcntl
import json
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    Metric,
    Param,
    Run,
    RunTag,
)

from pipelines.baselines import BaselineScore
from search.kept_weights import KeptWeights
from search.record import (
    RecordedEvaluation,
    TrialRecord,
    TrialState,
    leaderboard,
    metric_value,
)

FLUSH_SECONDS = 3.0
NUM_BATCHED_METRICS = 1000  # MLflow's limit for one call
LONGEST_VALUE = 6000  # MLflow cuts longer ones

_RUN_STATUS = {
    TrialState.WAITING: "SCHEDULED",
    TrialState.RUNNING: "RUNNING",
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "FINISHED",  # KILLED would show a red cross
    TrialState.FAILED: "FAILED",
}


@dataclass(frozen=True)
class StudyFacts:
    """What the parent run shows of a study."""

    name: str
    uid: str
    """Tells two studies of one name apart, the older one being deleted."""
    metric: str
    started_at: float
    data_name: str
    data_fingerprint: str
    data_source: str
    num_rows: int
    config_yaml: str
    params: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass
class _ChildRun:
    run_id: str
    state: TrialState | None = None
    num_evaluations: int = 0


@dataclass
class _Pending:
    trials: dict[int, TrialRecord] = field(default_factory=dict)
    baselines: list[BaselineScore] = field(default_factory=list)


@dataclass(frozen=True)
class Snapshot:
    """A whole study as the record held it at one time."""

    trials: Sequence[TrialRecord]
    state: str
    taken_at: float
    kept: KeptWeights


class View:
    """One study's runs in MLflow."""

    def __init__(self, uri: str, experiment: str, facts: StudyFacts):
        """Connect to the store and find the study's runs, or make its parent run."""
        self._facts = facts
        self._client = open_store(uri)
        self.experiment_id = _experiment_id(self._client, uri, experiment)
        self._children: dict[int, _ChildRun] = {}
        parent_id = None
        for run in self._find_runs():
            if run.data.tags["kind"] == "study":
                parent_id = run.info.run_id
            else:
                self._children[int(run.data.tags["trial"])] = _ChildRun(run.info.run_id)
        self.parent_id = parent_id or self._make_parent()

    def show_trials(self, trials: Iterable[TrialRecord]) -> None:
        """Bring the child runs to what the record says."""
        for trial in trials:
            if trial.state is not TrialState.REJECTED and trial.config is not None:
                self._show_trial(trial)

    def show_baselines(self, baselines: Iterable[BaselineScore]) -> None:
        """Put the forecasts to beat on the parent run."""
        started = _milliseconds(self._facts.started_at)
        metrics = [
            Metric(f"baseline_{_metric_name(baseline.name)}_{name}", value, started, 0)
            for baseline in baselines
            for name, value in _error_metrics(asdict(baseline.errors)).items()
        ]
        self._client.log_batch(self.parent_id, metrics=metrics)

    def show_all(self, snapshot: Snapshot) -> None:
        """Show every trial, and on the parent run best values, leaderboard and state."""
        self.show_trials(snapshot.trials)
        best, when = leaderboard(snapshot.trials), _milliseconds(snapshot.taken_at)
        values = {
            f"num_{state}": float(sum(trial.state is state for trial in snapshot.trials))
            for state in TrialState
            if state.counts
        }
        values |= _best_metrics(best[0], self._facts.metric) if best else {}
        self._client.log_batch(
            self.parent_id,
            metrics=[Metric(name, value, when, 0) for name, value in values.items()],
            tags=[
                RunTag("state", snapshot.state),
                RunTag("best_trial", best[0].name if best else "none"),
            ],
        )
        self._client.log_text(self.parent_id, leaderboard_csv(best), "leaderboard.csv")
        for trial in best:
            if snapshot.kept.path(trial.number).exists():
                self._show_weights(trial, snapshot.kept.path(trial.number))
        is_over = snapshot.state in ("done", "space exhausted")
        status = "FINISHED" if is_over else "SCHEDULED"
        self._client.set_terminated(self.parent_id, status, end_time=when)

    def _show_trial(self, trial: TrialRecord) -> None:
        child = self._children.get(trial.number) or self._make_child(trial)
        evaluations = trial.evaluations[child.num_evaluations :]
        metrics = [m for recorded in evaluations for m in _evaluation_metrics(recorded)]
        for first in range(0, len(metrics), NUM_BATCHED_METRICS):
            self._client.log_batch(child.run_id, metrics[first : first + NUM_BATCHED_METRICS])
        child.num_evaluations = len(trial.evaluations)
        if trial.state is not child.state:
            self._show_state(trial, child)

    def _show_state(self, trial: TrialRecord, child: _ChildRun) -> None:
        has_ended = trial.state.counts
        ended_at = _milliseconds(trial.ended_at) if has_ended and trial.ended_at else None
        if ended_at is not None:
            values = _best_metrics(trial, self._facts.metric)
            if trial.started_at is not None and trial.ended_at is not None:
                values["duration_seconds"] = trial.ended_at - trial.started_at
            tags = {"outcome": str(trial.state), "reason": trial.reason, **_place(trial)}
            self._client.log_batch(
                child.run_id,
                metrics=[Metric(name, value, ended_at, 0) for name, value in values.items()],
                tags=[RunTag(name, value) for name, value in tags.items() if value],
            )
        if trial.traceback:
            self._client.log_text(child.run_id, trial.traceback, "traceback.txt")
        status = _RUN_STATUS[trial.state]
        if has_ended:
            self._client.set_terminated(child.run_id, status, end_time=ended_at)
        else:
            self._client.update_run(child.run_id, status)
        child.state = trial.state

    def _show_weights(self, trial: TrialRecord, path: Path) -> None:
        assert trial.config is not None
        run_id = self._children[trial.number].run_id
        self._client.log_artifact(run_id, str(path), "model")
        config = trial.config.model_dump_json(indent=2)
        self._client.log_text(run_id, config, "model/config.json")

    def _make_child(self, trial: TrialRecord) -> _ChildRun:
        started_at = trial.started_at or self._facts.started_at
        run = self._client.create_run(
            self.experiment_id,
            start_time=_milliseconds(started_at),
            run_name=trial.name,
            tags={
                "mlflow.parentRunId": self.parent_id,
                "kind": "trial",
                "study": self._facts.name,
                "study_uid": self._facts.uid,
                "trial": str(trial.number),
            },
        )
        params = [Param(name, value) for name, value in trial_params(trial).items()]
        self._client.log_batch(run.info.run_id, params=params)
        child = _ChildRun(run.info.run_id)
        self._children[trial.number] = child
        return child

    def _make_parent(self) -> str:
        facts = self._facts
        run = self._client.create_run(
            self.experiment_id,
            start_time=_milliseconds(facts.started_at),
            run_name=facts.name,
            tags={
                "kind": "study",
                "study": facts.name,
                "study_uid": facts.uid,
                "data_fingerprint": facts.data_fingerprint,
                "mlflow.note.content": _description(facts),
                **facts.tags,
            },
        )
        run_id: str = run.info.run_id
        params = [Param(name, value[:LONGEST_VALUE]) for name, value in facts.params.items()]
        for first in range(0, len(params), 100):  # MLflow's limit for one call
            self._client.log_batch(run_id, params=params[first : first + 100])
        self._client.log_inputs(run_id, datasets=[_dataset(facts)])
        self._client.log_text(run_id, facts.config_yaml, "config.yaml")
        return run_id

    def _find_runs(self) -> Iterator[Run]:
        wanted = f"tags.study_uid = '{self._facts.uid}'"
        token = None
        while True:
            page = self._client.search_runs([self.experiment_id], wanted, page_token=token)
            yield from page
            token = page.token
            if not token:
                return


class BackgroundView:
    """Keeps the view up to date in a thread of its own; never touches the record.

    It is told what happens (`search.executor.Listener`) and passes frozen trials on. An MLflow
    that fails is tried again at the next turn: it delays the view, never the search.
    """

    def __init__(self, uri: str, experiment: str, facts: StudyFacts):
        """Start the thread; it connects by itself."""
        self._arguments = (uri, experiment, facts)
        self._view: View | None = None
        self._news: queue.SimpleQueue[TrialRecord | BaselineScore | None] = queue.SimpleQueue()
        self._pending = _Pending()
        self._snapshot: Snapshot | None = None
        self.error: Exception | None = None
        """Why the view is behind, where it is."""
        self.seconds = 0.0
        """Time that the thread has spent on MLflow."""
        self._thread = threading.Thread(target=self._run, name="mlflow-view", daemon=True)
        self._thread.start()

    def on_start(self, trial: TrialRecord) -> None:
        """Show a running trial."""
        self._news.put(trial)

    def on_evaluation(self, trial: TrialRecord) -> None:
        """Show an evaluation more."""
        self._news.put(trial)

    def on_end(self, trial: TrialRecord) -> None:
        """Show how a trial ended."""
        self._news.put(trial)

    def on_baseline(self, baseline: BaselineScore) -> None:
        """Show one of the forecasts to beat."""
        self._news.put(baseline)

    def close(
        self, trials: Sequence[TrialRecord], state: str, kept: KeptWeights, timeout_seconds: float
    ) -> str | None:
        """Show what is left and the summary.

        Returns:
            The experiment's id; None where MLflow did not take everything in time.
        """
        self._snapshot = Snapshot(trials, state, time.time(), kept)
        self._news.put(None)
        self._thread.join(timeout_seconds)
        if self._thread.is_alive() or self.error is not None or self._view is None:
            return None
        return self._view.experiment_id

    def _run(self) -> None:
        is_open = True
        while is_open:
            is_open = self._gather(until=time.monotonic() + FLUSH_SECONDS)
            started = time.monotonic()
            try:
                self._flush()
                self.error = None
            except Exception as error:  # whatever MLflow raises, the search must not notice
                self.error = error
            self.seconds += time.monotonic() - started

    def _gather(self, until: float) -> bool:
        """Collect news for a while, the latest of each trial; return whether more may come."""
        while (left := until - time.monotonic()) > 0:
            try:
                news = self._news.get(timeout=left)
            except queue.Empty:
                break
            if news is None:
                return False
            if isinstance(news, BaselineScore):
                self._pending.baselines.append(news)
            else:
                self._pending.trials[news.number] = news
        return True

    def _flush(self) -> None:
        view = self._view = self._view or View(*self._arguments)
        for number, trial in list(self._pending.trials.items()):
            view.show_trials([trial])
            del self._pending.trials[number]
        if self._pending.baselines:
            view.show_baselines(self._pending.baselines)
            self._pending.baselines.clear()
        if self._snapshot is not None:
            view.show_all(self._snapshot)


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
    """Bring a study's runs to what the record says; return the experiment's id."""
    view = View(uri, experiment, facts)
    view.show_baselines(baselines)
    view.show_all(snapshot)
    return view.experiment_id


def local_store_uri(home: Path) -> str:
    """The store beside the studies of this folder."""
    return f"sqlite:///{home.resolve() / 'mlflow.db'}"


def trials_url(server: str, experiment_id: str, study: str, metric: str) -> str:
    """The page that shows a study's trials flat, the best first."""
    wanted = quote(f"tags.study = '{study}' and tags.kind = 'trial'")
    order = quote(f"metrics.`best_val_{_metric_key(metric)}`")
    return (
        f"{server}/#/experiments/{experiment_id}/runs"
        f"?searchFilter={wanted}&orderByKey={order}&orderByAsc=true"
    )


def trial_params(trial: TrialRecord) -> dict[str, str]:
    """A trial's parameters, the same names for every trial: no column of a table is empty."""
    assert trial.config is not None
    model, training = trial.config.model, trial.config.training
    values = {
        "widths": "-".join(str(width) for width in model.widths),
        "num_layers": model.num_layers,
        "shape": "uniform" if len(set(model.widths)) == 1 else "per_layer",
        "hidden_size": model.widths[-1],
        "num_parameters": trial.num_parameters,
        "seed": trial.seed,
        **model.model_dump(exclude={"widths"}),
        **training.model_dump(),
    }
    return {name: str(value) for name, value in values.items()}


def leaderboard_csv(best: Iterable[TrialRecord]) -> str:
    """The complete trials as a table, the best first."""
    rows = []
    for rank, trial in enumerate(best, start=1):
        row = {"rank": str(rank), "trial": str(trial.number), "value": repr(trial.value)}
        rows.append(row | trial_params(trial))
    lines = [",".join(rows[0])] if rows else ["rank,trial,value"]
    return "\n".join([*lines, *(",".join(row.values()) for row in rows)]) + "\n"


def _experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    path = _sqlite_path(uri)
    # An absolute place serves a direct client and a server alike.
    location = None if path is None else (path.parent / "artifacts").absolute().as_uri()
    # So marked, the page opens on runs and metrics instead of on traces of chats.
    tags = {"mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(name, artifact_location=location, tags=tags))


def _sqlite_path(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


@contextmanager
def _held(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _evaluation_metrics(recorded: RecordedEvaluation) -> list[Metric]:
    evaluation, when = recorded.evaluation, _milliseconds(recorded.time)
    values = _error_metrics(evaluation.to_dict()) | {
        "train_loss": evaluation.train_loss,
        "learning_rate": evaluation.learning_rate,
        "steps_per_second": evaluation.steps_per_second,
        "peak_memory_mib": evaluation.peak_memory_bytes / 2**20,
    }
    return [Metric(name, value, when, evaluation.step) for name, value in values.items()]


def _error_metrics(flat: Mapping[str, object]) -> dict[str, float]:
    """`val_mae` in original units, `val_mae_scaled` on standardised values, and so on."""
    names = ("mae", "mse", "rmse", "mase", "mae_scaled", "mse_scaled", "rmse_scaled")
    return {f"val_{name}": float(str(flat[name])) for name in names if name in flat}


def _best_metrics(trial: TrialRecord, metric: str) -> dict[str, float]:
    """The errors of a trial's best weights: MLflow's own column is the last evaluation's."""
    if not trial.evaluations:
        return {}
    best = trial.final or min(
        trial.evaluations,
        key=lambda recorded: metric_value(recorded.evaluation, metric),  # type: ignore[arg-type]
    )
    metrics = _error_metrics(best.evaluation.to_dict())
    return {f"best_{name}": value for name, value in metrics.items()} | {
        "best_step": best.evaluation.step
    }


def _metric_key(metric: str) -> str:
    return metric if metric == "mase" else f"{metric}_scaled"


def _metric_name(text: str) -> str:
    return text.replace(" ", "_").replace("(", "").replace(")", "")


def _place(trial: TrialRecord) -> dict[str, str]:
    return {name: str(value) for name, value in trial.ran_on.items()}


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _dataset(facts: StudyFacts) -> DatasetInput:
    dataset = Dataset(
        name=facts.data_name,
        digest=facts.data_fingerprint[:32],
        source_type="local",
        source=json.dumps({"uri": facts.data_source}),
        profile=json.dumps({"num_rows": facts.num_rows}),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "train and validation")])


def _description(facts: StudyFacts) -> str:
    return (
        f"A search for the LSTM that forecasts **{facts.data_name}** best. "
        "Each nested run is a trial; `best_val_…` are the errors of its best weights on the "
        "validation part, `val_…` their course over the training steps; `…_scaled` are on "
        "standardised values, the others in the units of the table. The search minimises "
        f"`best_val_{_metric_key(facts.metric)}`. `baseline_…` on this run are the forecasts to "
        "beat, on the same windows. A trial that was stopped early is finished here and says so "
        "in its tag `outcome`."
    )
