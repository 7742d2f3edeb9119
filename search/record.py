"""What the record holds of each trial: plain types that every other part reads."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from pipelines.scores import BaselineScore, Errors, Evaluation
from search.config import Metric
from search.dimensions import Value
from search.space import TrialConfig


class TrialState(StrEnum):
    """Where a trial stands. A rejected one never ran and does not count."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    REJECTED = "rejected"

    @property
    def counts(self) -> bool:
        """Whether such a trial counts towards the study's total."""
        return self in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)


class Ending(StrEnum):
    """Why a search ended."""

    DONE = "done"
    TIME_OVER = "time over"
    EXHAUSTED = "space exhausted"
    INTERRUPTED = "interrupted"
    BROKEN = "broken"
    """Trials failed one after another."""


@dataclass(frozen=True)
class RecordedEvaluation:
    """An evaluation and when the record got it (seconds since 1970)."""

    evaluation: Evaluation
    time: float


@dataclass(frozen=True)
class TrialRecord:
    """One trial as the record holds it.

    Raises:
        ValueError: for a complete trial without a finite value.
    """

    number: int
    state: TrialState
    config: TrialConfig | None
    """None where no configuration could be built: such a trial is rejected or still waiting."""
    seed: int
    params: dict[str, Value]
    num_parameters: int = 0
    evaluations: tuple[RecordedEvaluation, ...] = ()
    """During the training, by step."""
    final: RecordedEvaluation | None = None
    """Of the best weights on more validation windows, where the others saw few."""
    value: float | None = None
    """The minimised metric: of a complete trial its result, of another the best so far."""
    reason: str = ""
    """Why it was stopped, rejected or failed."""
    traceback: str = ""
    """Of its last failure, one that was tried again among them."""
    retries: tuple[str, ...] = ()
    """Why earlier tries of it came to nothing."""
    started_at: float | None = None
    ended_at: float | None = None
    ran_on: dict[str, Any] = field(default_factory=dict)
    """Host, process and device of the run."""
    fold: int = 0
    """Which of the study's rolling origins it is trained on; most studies have one."""

    def __post_init__(self) -> None:
        is_finite = self.value is not None and math.isfinite(self.value)
        if self.state is TrialState.COMPLETE and not is_finite:
            raise ValueError(f"a complete trial has a finite value: got {self.value}")

    @property
    def name(self) -> str:
        """A short name, such as `017 64-128 bi`."""
        if self.config is None:
            return f"{self.number:03d}"
        model = self.config.model
        widths = "-".join(str(width) for width in model.widths)
        return f"{self.number:03d} {widths}" + (" bi" if model.bidirectional else "")


@dataclass(frozen=True)
class Proposal:
    """A configuration to train, with the number and seed under which it is recorded."""

    number: int
    config: TrialConfig
    seed: int
    fold: int = 0
    """Which of the study's rolling origins it is trained on."""


@dataclass(frozen=True)
class PlannedRun:
    """A configuration that a study trains by plan, however often with other seeds and folds."""

    config: TrialConfig
    seed: int
    fold: int = 0
    """Which of the study's rolling origins it is trained on."""


def metric_value(evaluation: Evaluation, metric: Metric) -> float:
    """The number that a search minimises."""
    return metric_of_errors(evaluation.errors, metric)


def metric_of_errors(errors: Errors, metric: Metric) -> float:
    """One of the errors: on standardised values, MASE being scaled already."""
    return {
        "mae": errors.mae_scaled,
        "mse": errors.mse_scaled,
        "rmse": errors.rmse_scaled,
        "mase": errors.mase,
    }[metric]


def best_evaluation(trial: TrialRecord, metric: Metric) -> Evaluation | None:
    """The evaluation of a trial's best weights, the last one where there is one."""

    def judged(recorded: RecordedEvaluation) -> float:
        value = metric_value(recorded.evaluation, metric)
        return math.inf if math.isnan(value) else value

    best = trial.final or min(trial.evaluations, key=judged, default=None)
    return best.evaluation if best else None


def baseline_to_plain(baseline: BaselineScore) -> dict[str, Any]:
    """A baseline's score as plain JSON."""
    return asdict(baseline)


def baseline_from_plain(plain: dict[str, Any]) -> BaselineScore:
    """The score that `baseline_to_plain` wrote."""
    return BaselineScore(**(plain | {"errors": Errors(**plain["errors"])}))


def trial_seed(study_seed: int, number: int) -> int:
    """The seed of a trial, from the study's seed and the trial's number alone."""
    return int(np.random.SeedSequence([study_seed, number]).generate_state(1)[0])


def proposal_seed(study_seed: int, number: int) -> int:
    """The seed of the sampler that proposes a trial's configuration."""
    return int(np.random.SeedSequence([study_seed, number, 1]).generate_state(1)[0])


def best_of_each_configuration(
    trials: Iterable[TrialRecord], count: int | None = None
) -> list[TrialRecord]:
    """The best trial of each configuration, the best first; a grid tries one with many seeds."""
    best: dict[TrialConfig | None, TrialRecord] = {}
    for trial in leaderboard(trials):
        best.setdefault(trial.config, trial)
    return list(best.values())[:count]


def leaderboard(trials: Iterable[TrialRecord], count: int | None = None) -> list[TrialRecord]:
    """The complete trials, the best first."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    return sorted(complete, key=lambda trial: (trial.value, trial.number))[:count]
