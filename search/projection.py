"""What the view shows of a record: names, parameters and measured values, as plain types.

All of it follows from the record alone, times included: whoever shows it twice says the same.
MLflow sorts its charts by name, hence `val_mae_best` and not `best_val_mae`: so every curve has its
best value beside it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

from pipelines.scores import BaselineScore, Errors
from pipelines.verdict import Verdict
from search.config import Metric
from search.kept_weights import KeptWeights
from search.record import (
    RecordedEvaluation,
    TrialRecord,
    TrialState,
    best_evaluation,
    leaderboard,
)
from search.spreadsheet import csv_text


@dataclass(frozen=True)
class StudyFacts:
    """What the view shows of a study as a whole, fixed at its beginning."""

    name: str
    uid: str
    """Tells two studies of one name apart, the older one being deleted."""
    metric: Metric
    started_at: float
    data_name: str
    data_fingerprint: str
    data_source: str
    num_rows: int
    config_yaml: str
    params: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Snapshot:
    """A whole study as the record held it at one time."""

    trials: Sequence[TrialRecord]
    state: str
    """Why the search ended, such as `done`."""
    kept: KeptWeights
    verdict: Verdict | None = None
    pages: Sequence[Path] = ()
    """The report and its pictures, as files."""

    @property
    def leaderboard(self) -> list[TrialRecord]:
        """The complete trials, the best first."""
        return leaderboard(self.trials)

    @property
    def last_time(self) -> float | None:
        """When the record last heard of a trial."""
        times = [time for trial in self.trials if (time := last_time(trial)) is not None]
        return max(times, default=None)


class Reading(NamedTuple):
    """A measured value and when it was measured (seconds since 1970)."""

    name: str
    value: float
    time: float
    step: int = 0


def trial_params(trial: TrialRecord) -> dict[str, str]:
    """A trial's parameters, the same names for every trial: no column of a table is empty."""
    assert trial.config is not None
    model, training = trial.config.model, trial.config.training
    is_uniform = len(set(model.widths)) <= 1
    values = {
        "widths": "-".join(str(width) for width in model.widths) or "none",
        "num_layers": model.num_layers,
        "shape": "uniform" if is_uniform else "per_layer",
        "hidden_size": model.widths[-1] if model.widths else 0,
        "num_parameters": trial.num_parameters,
        "seed": trial.seed,
        **model.model_dump(exclude={"widths"}),
        **training.model_dump(),
    }
    return {name: str(value) for name, value in values.items()}


def evaluation_readings(recorded: RecordedEvaluation) -> list[Reading]:
    """One evaluation during the training: its errors and what it cost."""
    evaluation = recorded.evaluation
    values = _error_values(evaluation.errors) | {
        "train_loss": evaluation.train_loss,
        "learning_rate": evaluation.learning_rate,
        "steps_per_second": evaluation.steps_per_second,
        "peak_memory_mib": evaluation.peak_memory_bytes / 2**20,
    }
    return [Reading(name, value, recorded.time, evaluation.step) for name, value in values.items()]


def outcome_readings(trial: TrialRecord, metric: Metric) -> list[Reading]:
    """What an ended trial came to; its other readings are those of its last evaluation."""
    ended_at = last_time(trial)
    if ended_at is None:
        return []
    values = _best_values(trial, metric)
    if trial.started_at is not None:
        values["duration_seconds"] = ended_at - trial.started_at
    return [Reading(name, value, ended_at) for name, value in values.items()]


def outcome_tags(trial: TrialRecord) -> dict[str, str]:
    """How a trial ended, why and where it ran."""
    tags = {"outcome": str(trial.state), "reason": trial.reason}
    tags |= {name: str(value) for name, value in trial.ran_on.items()}
    return {name: value for name, value in tags.items() if value}


def retry_tags(trial: TrialRecord) -> dict[str, str]:
    """How often a trial was tried again, and why the last time."""
    return {"retries": str(len(trial.retries)), "retry_reason": trial.retries[-1]}


def retries_text(trial: TrialRecord) -> str:
    """Why each earlier try of a trial came to nothing, a line each."""
    return "".join(
        f"try {place}: {reason}\n" for place, reason in enumerate(trial.retries, start=1)
    )


def study_readings(trials: Iterable[TrialRecord], metric: Metric) -> Iterator[Reading]:
    """The best trial's errors and the counts after each trial that ended: step n is the n-th."""
    ended = [(time, trial) for trial in trials if trial.state.counts and (time := last_time(trial))]
    ended.sort(key=lambda pair: (pair[0], pair[1].number))
    counts = {f"num_{state}": 0 for state in TrialState if state.counts}
    best: list[TrialRecord] = []
    for step, (time, trial) in enumerate(ended, start=1):
        counts[f"num_{trial.state}"] += 1
        best = leaderboard([*best, trial], 1)
        values = counts | (_best_values(best[0], metric) if best else {})
        yield from (Reading(name, value, time, step) for name, value in values.items())


def baseline_readings(baselines: Iterable[BaselineScore], time: float) -> list[Reading]:
    """The errors of the forecasts to beat, dated with the study's beginning."""
    return [
        Reading(name, value, time)
        for baseline in baselines
        for name, value in _error_values(
            baseline.errors, f"_baseline_{_plain_name(baseline.name)}"
        ).items()
    ]


def verdict_readings(verdict: Verdict, time: float) -> list[Reading]:
    """The errors on the test part: `test_mae` of the model, `test_mae_baseline_ridge` and so on."""
    scores = [
        (verdict.model, ""),
        *((s, f"_baseline_{_plain_name(s.name)}") for s in verdict.baselines),
    ]
    return [
        Reading(f"test_{name}{suffix}", value, time)
        for score, suffix in scores
        for name, value in score.errors.model_dump().items()
        if value is not None
    ]


def verdict_tags(verdict: Verdict) -> dict[str, str]:
    """Whether the model may be used, and why so."""
    return {
        "verdict": verdict.outcome,
        "verdict_reason": verdict.reason,
        "test_openings": str(verdict.num_openings),
    }


def leaderboard_csv(best: Iterable[TrialRecord]) -> str:
    """The complete trials as a table, the best first."""
    rows = [
        {"rank": rank, "trial": trial.number, "value": trial.value, **trial_params(trial)}
        for rank, trial in enumerate(best, start=1)
    ]
    columns = list(rows[0]) if rows else ["rank", "trial", "value"]
    return csv_text(columns, rows)


def last_time(trial: TrialRecord) -> float | None:
    """When the record last heard of a trial: of its end, an evaluation or its start."""
    evaluations = [recorded.time for recorded in trial.evaluations]
    times = [time for time in (trial.started_at, trial.ended_at, *evaluations) if time is not None]
    return max(times, default=None)


def description(facts: StudyFacts, experiment_id: str) -> str:
    """How to read the study's own page."""
    return (
        f"A search for the LSTM that forecasts **{facts.data_name}** best. Each nested run is a "
        f"trial: [all of them, the best first]({_trials_page(experiment_id, facts.name)}).\n\n"
        "- `val_…`: errors on validation windows over the training steps; `…_scaled` on "
        "standardised values, the others in the units of the table.\n"
        "- `val_…_best`: the errors of a trial's best weights; where it is complete, on more or "
        "all of the validation windows. The search minimises "
        f"`{best_metric(facts.metric)}`. On this page: of the best trial, after each trial.\n"
        "- `val_…_baseline_…`: the forecasts to beat, on the same windows.\n"
        "- A trial that was stopped early is finished here; its tag `outcome` says `pruned`.\n"
        "- `test_…`: the errors of the final model and of the forecasts to beat on the sealed test "
        "part, once the search has been finalized; the tag `verdict_reason` says what follows.\n"
        "- Artifacts: the leaderboard, the configuration and, at the end, `report.html`; with the "
        "best trials, their weights."
    )


def best_metric(metric: Metric) -> str:
    """The name under which a trial shows what the search minimises."""
    return "val_mase_best" if metric == "mase" else f"val_{metric}_scaled_best"


def trials_url(server: str, experiment_id: str, study: str) -> str:
    """The page that shows a study's trials flat, the best first."""
    parts = urlsplit(server)
    public = parts._replace(netloc=parts.netloc.rpartition("@")[2])  # without name and password
    return f"{urlunsplit(public).rstrip('/')}/{_trials_page(experiment_id, study)}"


def saved_view(facts: StudyFacts) -> str:
    """The page's filter, order and columns, as MLflow's page reads them from a tag."""
    value = f"metrics.`{best_metric(facts.metric)}`"
    widths = {"attributes.`Run Name`": 165, "runDateAndNestInfo": 145}
    shown = {"tags.`outcome`": 90, value: 150}
    shown |= {f"params.`{name}`": width for name, width in _SHOWN_PARAMS.items()}
    state = {
        "searchFilter": f"tags.study_uid = '{facts.uid}' and tags.kind = 'trial'",
        "orderByKey": value,
        "orderByAsc": True,
        "selectedColumns": list(shown),
        "columnOrder": [*widths, *shown, "duration"],
        "columnWidths": widths | shown | {"duration": 80},
    }
    when = milliseconds(facts.started_at)
    named = {"name": facts.name, "createdAt": when, "updatedAt": when, "state": json.dumps(state)}
    return json.dumps(named | state)  # the state itself, unwrapped, for older servers' pages


_SHOWN_PARAMS = {
    "widths": 90,
    "bidirectional": 100,
    "lookback": 80,
    "normalisation": 110,
    "head": 90,
    "learning_rate": 105,
    "num_parameters": 120,
}
"""The parameters that the saved view has a column for, and how wide, in pixels."""


def milliseconds(seconds: float) -> int:
    """A time as MLflow counts it."""
    return round(seconds * 1000)


def _error_values(errors: Errors, suffix: str = "") -> dict[str, float]:
    """`val_mae` in original units, `val_mae_scaled` on standardised values, and so on."""
    return {f"val_{name}{suffix}": value for name, value in errors.to_dict().items()}


def _best_values(trial: TrialRecord, metric: Metric) -> dict[str, float]:
    """The errors of a trial's best weights."""
    best = best_evaluation(trial, metric)
    if best is None:
        return {}
    return _error_values(best.errors, "_best") | {"step_of_best": best.step}


def _plain_name(text: str) -> str:
    return text.replace(" ", "_").replace("(", "").replace(")", "")


def _trials_page(experiment_id: str, study: str) -> str:
    # The saved view alone: MLflow ignores it where the address holds a filter or an order too.
    view = f"workflowType=machine_learning&viewStateShareKey={quote(study)}"
    return f"#/experiments/{experiment_id}/runs?{view}"
