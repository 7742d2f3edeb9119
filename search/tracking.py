"""The view: MLflow shows the record, and can be rebuilt from it at any time.

Here, in `stored_runs.py` and in `registry.py` is the search's door to MLflow.

One parent run a study, one nested child run a trial. MLflow takes an equal metric of an equal time
only once, so that showing a record twice changes nothing.
"""

import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipelines.scores import BaselineScore
from pipelines.verdict import Verdict
from search.mlflow_store import (
    OUTAGES,
    TAG_CHARACTERS,
    ViewError,
    experiment_id,
    open_store,
    pages,
    set_verbosity,
    why,
)
from search.projection import (
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
from search.record import TrialRecord, TrialState

from mlflow.entities import (  # isort: skip - search.mlflow_store says first how MLflow behaves
    Dataset,
    DatasetInput,
    InputTag,
    Metric,
    Param,
    Run,
    RunStatus,
    RunTag,
)

# MLflow's limits; of all kinds together a call takes 1,000.
METRICS_PER_CALL = 800
PARAMS_PER_CALL = 100
TAGS_PER_CALL = 100
PARAM_CHARACTERS = 6000

_RUN_STATUS = {
    TrialState.WAITING: "SCHEDULED",
    TrialState.RUNNING: "RUNNING",
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "FINISHED",  # KILLED would show a red cross
    TrialState.FAILED: "FAILED",
}

Thing = TypeVar("Thing")


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
        self.experiment_id = experiment_id(self._client, uri, experiment)
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
        for run in list(pages(search, experiment_ids=place, filter_string=wanted)):
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


def _dataset(facts: StudyFacts) -> DatasetInput:
    dataset = Dataset(
        name=facts.data_name,
        digest=facts.data_fingerprint[:32],
        source_type="local",
        source=json.dumps({"uri": facts.data_source}),
        profile=json.dumps({"num_rows": facts.num_rows}),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "train and validation")])
