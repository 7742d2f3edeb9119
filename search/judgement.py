"""The sealed test opened for a winner: how it errs beside the baselines, and whether it passes."""

import math
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean

import pandas as pd

from models.forecaster import Forecaster
from pipelines.baselines import fit_baselines
from pipelines.comparison import block_length_of, compare
from pipelines.contenders import Contender, ensemble_contender, validation_errors
from pipelines.final_test import Measured, measure
from pipelines.gate import judge
from pipelines.inspection import inspect
from pipelines.leakage import audit
from pipelines.predictor import Predictor
from pipelines.scaling import Scaling
from pipelines.scores import TrainingDiverged
from pipelines.splits import SealedTest, SearchData, TestData
from pipelines.verdict import Comparison, ErrorRow, TestScore, Verdict
from pipelines.weights import forecaster_from_file
from search.config import Metric, SearchConfig
from search.finalists import Finalist, finalists_config
from search.kept_weights import KeptWeights
from search.openings import note_opening
from search.places import weights_folder
from search.record import TrialRecord, best_evaluation
from search.registry import Registered

MODEL = "model"

TRAINED_UNTIL = "trained_until"
"""Tag of a registered model: the last timestamp that its training or choice has seen."""


@dataclass(frozen=True)
class Ensemble:
    """The winner's models, trained on the training part with one seed each."""

    seeds: tuple[int, ...]
    forecasters: tuple[Forecaster, ...]
    best_steps: tuple[int, ...]
    """Optimiser steps after which each was best."""
    scaling: Scaling


def open_test(
    config: SearchConfig,
    winner: Finalist,
    ensemble: Ensemble,
    data: SearchData,
    sealed: SealedTest,
    champion: Registered | None,
) -> tuple[Verdict, TestData]:
    """Open the test part for a winner; return what it has shown, and the whole table.

    Args:
        config: of the search.
        winner: the best of its finalists.
        ensemble: the winner's models.
        data: what the search has seen.
        sealed: the test part.
        champion: the model that is in use today, if there is one.
    """
    assert config.study is not None
    contenders = _contenders(config, winner, ensemble, data)  # fitted while it is sealed
    num_openings = note_opening(config, sealed.test_fingerprint, winner.number)
    test = sealed.open()
    model, *others = measure(contenders, test, ensemble.scaling)
    num_seeds = len(ensemble.seeds)
    seeds, baselines = others[:num_seeds], others[num_seeds:]
    comparisons = tuple(_compare(model, other, config.search.metric, test) for other in baselines)
    against_champion, champion_note = _meet_champion(champion, model, config, test, ensemble)
    is_passed, reason = judge(comparisons, against_champion)
    best = min(baselines, key=lambda m: _error(m.score, config.search.metric))
    verdict = Verdict(
        study=config.study,
        metric=config.search.metric,
        targets=test.targets,
        horizon=test.horizon,
        season=test.season,
        frequency=test.frequency,
        num_windows=len(model.losses.count),
        first_timestamp=timestamp_of(test, test.first_test_row),
        last_timestamp=timestamp_of(test, test.num_rows - 1),
        model=model.score,
        seeds=tuple(seed.score for seed in seeds),
        baselines=tuple(baseline.score for baseline in baselines),
        comparisons=comparisons,
        champion=against_champion,
        champion_note=champion_note,
        validation_value=winner.searched_value,
        test_value=fmean(_error(seed.score, config.search.metric) for seed in seeds),
        num_openings=num_openings,
        is_passed=is_passed,
        reason=reason,
        warnings=audit(data, validation_errors(best.contender, data, ensemble.scaling).mae_scaled),
        inspection=inspect(model.contender, best.contender, test, ensemble.scaling),
    )
    return verdict, test


def load_ensemble(config: SearchConfig, winner: Finalist, data: SearchData, fold: int) -> Ensemble:
    """The winner's models of the last rolling origin, from the weights that are kept.

    Raises:
        RuntimeError: where no run of it has ended with weights.
    """
    own = finalists_config(config)
    assert own.study is not None
    folder = weights_folder(own, own.study)
    kept = KeptWeights(folder)
    runs = [trial for trial in winner.seeds_on(fold) if kept.path(trial.number).exists()]
    if not runs:
        raise RuntimeError(
            f"a model needs the weights of a complete run: study {own.study} has none of trial "
            f"{winner.number}; put them back into {folder}, or search again by another name"
        )
    return Ensemble(
        tuple(trial.seed for trial in runs),
        tuple(forecaster_from_file(kept.path(trial.number)) for trial in runs),
        tuple(_best_step(trial, config.search.metric) for trial in runs),
        Scaling.fit(data),
    )


def _best_step(trial: TrialRecord, metric: Metric) -> int:
    best = best_evaluation(trial, metric)
    assert best is not None, "a complete trial has an evaluation"
    return best.step


def _contenders(
    config: SearchConfig, winner: Finalist, ensemble: Ensemble, data: SearchData
) -> list[Contender]:
    """The model, each of its seeds alone, and the baselines, in this order."""
    training = winner.config.training
    cut = training.lookback, training.calendar
    whole = ensemble_contender(
        MODEL,
        f"mean of {len(ensemble.seeds)} seeds of trial {winner.number}",
        ensemble.forecasters,
        ensemble.scaling,
        *cut,
    )
    alone = [
        ensemble_contender(f"seed {seed}", "", [forecaster], ensemble.scaling, *cut)
        for seed, forecaster in zip(ensemble.seeds, ensemble.forecasters, strict=True)
    ]
    baselines: list[Contender] = []
    with suppress(TrainingDiverged):  # of the linear twin, the last of them
        baselines.extend(fit_baselines(data, config.training, config.search.seed))
    return [whole, *alone, *baselines]


def _compare(model: Measured, other: Measured, metric: Metric, test: TestData) -> Comparison:
    block_length = block_length_of(test.horizon, test.frequency)
    name = other.contender.name
    return compare(name, model.losses, other.losses, metric, test.horizon, block_length)


def _meet_champion(
    champion: Registered | None,
    model: Measured,
    config: SearchConfig,
    test: TestData,
    ensemble: Ensemble,
) -> tuple[Comparison | None, str]:
    """The model against today's champion, or why they cannot be compared."""
    if champion is None:
        return None, "there is no champion yet"
    if reason := _why_incomparable(champion, test):
        return None, f"not compared with today's champion, version {champion.version}: {reason}"
    other = as_contender(f"champion (version {champion.version})", champion.predictor, test)
    (measured,) = measure([other], test, ensemble.scaling)
    return _compare(model, measured, config.search.metric, test), ""


def as_contender(name: str, predictor: Predictor, test: TestData) -> Contender:
    """A predictor, which reads a table by windows of its own scaling, beside the others."""
    forecast = predictor.forecasts_on(test)
    reads = predictor.spec.lookback
    return Contender(name, "", reads, False, lambda _, origins: forecast(origins))


def _why_incomparable(champion: Registered, test: TestData) -> str:
    """Why a champion's errors on these windows would say nothing; empty where they do."""
    spec = champion.predictor.spec
    if missing := [name for name in spec.columns if name not in test.columns]:
        return f"it reads {', '.join(missing)}, which this table lacks"
    if unknown := [name for name in spec.known if name not in test.known_names]:
        return f"it reads {', '.join(unknown)}, for which these training rows are too few"
    for what, its, ours in (
        ("target", ", ".join(spec.targets), ", ".join(test.targets)),
        ("horizon", spec.horizon, test.horizon),
        ("frequency", spec.frequency, test.frequency),
    ):
        if its != ours:
            return f"its {what} is {its}, here it is {ours}"
    trained_until, first = champion.tags.get(TRAINED_UNTIL), timestamp_of(test, test.first_test_row)
    if trained_until is None or first is None:
        return "it cannot be told whether its training reached into this test part"
    if pd.Timestamp(trained_until) >= pd.Timestamp(first):
        return f"its training reached to {trained_until}, into this test part"
    return ""


def timestamp_of(test: TestData, row: int) -> str | None:
    """When a row was measured; None where row order is time."""
    return None if test.timestamps is None else str(test.timestamps[row])


def _error(score: TestScore, metric: Metric) -> float:
    """The metric as the search minimises it; infinite where it is undefined."""
    value = metric_of_row(score.errors, metric)
    return math.inf if value is None else value


def metric_of_row(errors: ErrorRow, metric: Metric) -> float | None:
    """One of the errors: on standardised values, MASE being scaled already."""
    value: float | None = getattr(errors, metric if metric == "mase" else f"{metric}_scaled")
    return value
