"""Optuna's trials, as the record holds them, read as this project's."""

import json
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from pipelines.scores import Evaluation
from search.config import Metric
from search.record import RecordedEvaluation, TrialRecord, TrialState, metric_value
from search.space import TrialConfig

EVALUATION_PREFIX = "evaluation/"
FINAL_EVALUATION = "final_evaluation"


def trial_record(frozen: FrozenTrial, metric: Metric) -> TrialRecord:
    """One trial."""
    attributes = frozen.user_attrs
    config = attributes.get("config")
    outcome = json.loads(attributes.get("outcome", "{}"))
    evaluations = evaluations_in(attributes)
    retries = attributes.get("retries", [])
    value = frozen.value if frozen.state is OptunaState.COMPLETE else None
    if value is None and evaluations:
        value = min(metric_value(e.evaluation, metric) for e in evaluations)
    return TrialRecord(
        number=frozen.number,
        state=state_of(frozen),
        config=TrialConfig.model_validate_json(config) if config else None,
        seed=attributes.get("seed", 0),
        params=dict(frozen.params),
        num_parameters=attributes.get("num_parameters", 0),
        evaluations=evaluations,
        final=final_evaluation_in(attributes),
        value=value,
        reason=outcome.get("reason", ""),
        traceback=outcome.get("traceback") or (retries[-1]["traceback"] if retries else ""),
        retries=tuple(retry["reason"] for retry in retries),
        started_at=attributes.get("started_at"),
        ended_at=outcome.get("time"),
        ran_on=attributes.get("ran_on", {}),
        fold=attributes.get("planned", {}).get("fold", 0),
    )


def state_of(frozen: FrozenTrial) -> TrialState:
    """Where a trial is; a rejected one has failed in Optuna's eyes."""
    match frozen.state:
        case OptunaState.RUNNING:
            return TrialState.RUNNING
        case OptunaState.WAITING:
            return TrialState.WAITING
        case OptunaState.COMPLETE:
            return TrialState.COMPLETE
        case OptunaState.PRUNED:
            return TrialState.PRUNED
    reason = json.loads(frozen.user_attrs.get("outcome", "{}")).get("reason", "")
    return TrialState.REJECTED if reason.startswith("rejected: ") else TrialState.FAILED


def evaluations_in(attributes: Mapping[str, Any]) -> tuple[RecordedEvaluation, ...]:
    """The evaluations during the training, by step."""
    texts = [text for key, text in attributes.items() if key.startswith(EVALUATION_PREFIX)]
    return tuple(sorted(map(_recorded_evaluation, texts), key=lambda r: r.evaluation.step))


def final_evaluation_in(attributes: Mapping[str, Any]) -> RecordedEvaluation | None:
    """The evaluation of the best weights on more validation windows, if there was one."""
    text = attributes.get(FINAL_EVALUATION)
    return None if text is None else _recorded_evaluation(text)


def _recorded_evaluation(text: str) -> RecordedEvaluation:
    fields = json.loads(text)
    when = fields.pop("time")
    return RecordedEvaluation(Evaluation.from_dict(fields), when)


def num_rejected_last(frozen_trials: Sequence[FrozenTrial]) -> int:
    """How many in a row were rejected at the end."""
    last = takewhile(lambda t: state_of(t) is TrialState.REJECTED, reversed(frozen_trials))
    return sum(1 for _ in last)
