"""Which dimensions of a search mattered."""

import warnings

import optuna
from optuna.trial import TrialState

from search.bounded_tpe import rank_of_trial
from search.stored_studies import load_read_only, reading_explained

MIN_TRIALS_FOR_IMPORTANCE = 20
"""Trials below which an importance would be chance."""


def importance(url: str, name: str) -> dict[str, float]:
    """How much each dimension of the best trials differs from that of all, the most first.

    PED-ANOVA, in the form for conditional dimensions. Trials are ranked as TPE ranks them: the
    complete ones, then those that were stopped, the later the better, so that a search in which
    few trials are complete has an answer too. Empty where fewer than `MIN_TRIALS_FOR_IMPORTANCE`
    have a value.

    Raises:
        UnknownStudyError: where there is no such study, or its record cannot be read.
    """
    with reading_explained(url, name):
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        ended = load_read_only(url, name).get_trials(deepcopy=False, states=states)
    ranked = sorted((t for t in ended if t.intermediate_values), key=rank_of_trial)
    if len(ranked) < MIN_TRIALS_FOR_IMPORTANCE:
        return {}
    scratch = optuna.create_study()
    scratch.add_trials(
        optuna.trial.create_trial(params=t.params, distributions=t.distributions, value=place)
        for place, t in enumerate(ranked)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an experimental class
        # At least five trials are compared with the rest, as its documentation advises.
        share = max(0.1, 5 / len(ranked))
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share)
        found = optuna.importance.get_param_importances(scratch, evaluator=evaluator)
    return {dimension: float(value) for dimension, value in found.items() if value > 0}
