"""What the page is drawn from: all of it follows from the record."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.scores import BaselineScore
from pipelines.verdict import ErrorRow, Verdict
from search.config import Metric, SearchConfig
from search.importance import importance
from search.names import FINALISTS
from search.places import record_url
from search.progress import METRIC_NAMES
from search.record import TrialRecord, TrialState, leaderboard, metric_of_errors, metric_value
from search.result import recorded_baselines
from search.stored_studies import UnknownStudyError, read_study


@dataclass(frozen=True)
class Evidence:
    """A study as its record holds it."""

    name: str
    metric: Metric
    trials: Sequence[TrialRecord]
    """All that ran or run; rejected and waiting ones are only counted."""
    num_rejected: int = 0
    state: str = "interrupted"
    """How its last search ended."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """As `search.projection.StudyFacts`; empty where the study was ended before it began."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The recorded configuration, as plain JSON."""
    created_at: float | None = None
    baselines: Sequence[BaselineScore] = ()
    importance: Mapping[str, float] = field(default_factory=dict)
    """Share of each dimension, empty where too few trials are complete."""
    data_notes: Sequence[str] | None = None
    """What was understood and repaired of the table; None where the record does not hold it."""
    finalists: Sequence[TrialRecord] = ()
    """The runs of the study of finalists."""
    verdict: Verdict | None = None
    place: str = ""
    """What leads a printed command to the study, where that does not lie in the usual folder."""

    @property
    def metric_name(self) -> str:
        """What is minimised, as an axis is named."""
        unit = "" if self.metric == "mase" else " (standardised)"
        return f"{METRIC_NAMES[self.metric]}{unit}"

    @property
    def complete(self) -> list[TrialRecord]:
        """The complete trials, the best first."""
        return leaderboard(self.trials)

    @property
    def stopped(self) -> list[TrialRecord]:
        """The trials that were stopped early, by their best value; those without one left out."""
        stopped = [t for t in self.trials if t.state is TrialState.PRUNED]
        return sorted((t for t in stopped if _is_defined(t.value)), key=lambda t: t.value or 0.0)

    @property
    def why_no_complete_trial(self) -> str:
        """The line of a section that needs one."""
        if not self.trials:
            return "No trial has begun yet."
        return f"None of the {len(self.trials)} trials is complete."

    def baseline_values(self) -> dict[str, float]:
        """The metric of each baseline on the validation part, where it is defined."""
        values = {b.name: metric_of_errors(b.errors, self.metric) for b in self.baselines}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def curve(self, trial: TrialRecord) -> list[tuple[int, float]]:
        """Step and metric of each evaluation of a trial, where it is defined."""
        points = [
            (recorded.evaluation.step, metric_value(recorded.evaluation, self.metric))
            for recorded in trial.evaluations
        ]
        return [(step, value) for step, value in points if math.isfinite(value)]

    def metric_of_row(self, row: ErrorRow) -> float | None:
        """The metric among the errors of a test."""
        name = "mase" if self.metric == "mase" else f"{self.metric}_scaled"
        value: float | None = getattr(row, name)
        return value


def read_evidence(config: SearchConfig, study: str) -> Evidence:
    """Read all that the page shows of a study.

    Raises:
        UnknownStudyError: where there is no such study, or its record cannot be read.
    """
    url = record_url(config, study)
    notes, trials = read_study(url, study)
    return Evidence(
        name=study,
        metric=notes["identity"]["metric"],
        trials=tuple(trial for trial in trials if _has_begun(trial)),
        num_rejected=sum(trial.state is TrialState.REJECTED for trial in trials),
        state=notes.get("state", "interrupted"),
        facts=notes.get("facts", {}),
        config=json.loads(notes.get("config", "{}")),
        created_at=notes.get("created_at"),
        baselines=recorded_baselines(notes),
        importance=importance(url, study),
        data_notes=notes.get("data_notes"),
        finalists=_finalists(config, study),
        verdict=_verdict(notes.get("verdict")),
        place=config.place,
    )


def _is_defined(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _has_begun(trial: TrialRecord) -> bool:
    return trial.config is not None and (trial.state.counts or trial.state is TrialState.RUNNING)


def _finalists(config: SearchConfig, study: str) -> tuple[TrialRecord, ...]:
    name = f"{study}{FINALISTS}"
    try:
        _, runs = read_study(record_url(config, name), name)
    except UnknownStudyError:
        return ()
    return tuple(run for run in runs if _has_begun(run))


def _verdict(note: Any) -> Verdict | None:
    # By way of JSON, where strict validation takes an array for a tuple.
    text = note if isinstance(note, str) else json.dumps(note)
    return None if note is None else Verdict.model_validate_json(text)


def num_cells(trial: TrialRecord) -> int:
    """LSTM cells of a trial's model, all layers and directions together."""
    assert trial.config is not None
    return sum(trial.config.model.widths) * trial.config.model.num_directions


def train_seconds(trial: TrialRecord) -> float:
    """What a trial spent on optimiser steps."""
    return math.fsum(recorded.evaluation.train_seconds for recorded in trial.evaluations)


def evaluate_seconds(trial: TrialRecord) -> float:
    """What a trial spent on evaluations, that of its best weights among them."""
    final = () if trial.final is None else (trial.final,)
    every = (*trial.evaluations, *final)
    return math.fsum(recorded.evaluation.evaluate_seconds for recorded in every)
