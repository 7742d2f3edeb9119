"""The model that a search hands over: chosen after the verdict, then registered under its alias."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median_low

import pandas as pd

from pipelines.contenders import validation_errors
from pipelines.predictor import Predictor, predictor_of
from pipelines.refit import whole_scaling
from pipelines.series import SeriesTable
from pipelines.splits import SearchData, TestData
from pipelines.verdict import Verdict
from pipelines.weights import forecaster_from_bytes
from search.conclusion import Named
from search.config import SearchConfig
from search.finalists import Finalist
from search.judgement import TRAINED_UNTIL, Ensemble, as_contender, metric_of_row, timestamp_of
from search.record import metric_of_errors
from search.registry import CHAMPION, register, set_alias
from search.side_workers import refit_seeds
from search.slots import Slots

CHALLENGER = "challenger"


@dataclass(frozen=True)
class FinalModel:
    """What is handed over."""

    predictor: Predictor
    tags: Mapping[str, str]
    """What the registry says of it."""
    warnings: tuple[str, ...] = ()


def model_name(config: SearchConfig, data: SearchData) -> str:
    """The registered model's name: configured, or made of table, target and horizon."""
    if config.final.registered_model_name:
        return config.final.registered_model_name
    target = data.targets[0] if len(data.targets) == 1 else f"{len(data.targets)}-targets"
    # A slash or colon would end the name in an address.
    return re.sub(r"[^\w.-]+", "-", f"{data.name}-{target}-{data.horizon}").strip("-")


def choose_model(
    config: SearchConfig,
    winner: Finalist,
    ensemble: Ensemble,
    table: SeriesTable,
    data: SearchData,
    test: TestData,
    slots: Slots,
) -> FinalModel:
    """Return the winner trained again on all rows, or the tested models themselves.

    Args:
        config: of the search; `final.refit` decides.
        winner: what is handed over.
        ensemble: its models, as they were tested.
        table: as it was loaded.
        data: what the search has seen.
        test: the table with its test part opened.
        slots: how many trainings run at a time.

    Raises:
        RuntimeError: where a training has broken.
    """
    training = winner.config.training
    of = partial(predictor_of, table, training=training)
    twin = of(
        data=data,
        scaling=ensemble.scaling,
        forecasters=ensemble.forecasters,
        num_rows=data.num_train_rows,
        notes=("trained on the training part, stopped by the validation part",),
    )
    own = {"trial": str(winner.number), "seeds": " ".join(map(str, ensemble.seeds))}
    seen = {TRAINED_UNTIL: timestamp_of(test, data.num_rows - 1) or ""}
    as_tested = FinalModel(twin, own | seen | {"rows": f"1 to {data.num_train_rows}"})
    if config.final.refit == "none":
        return as_tested
    num_steps = median_low(ensemble.best_steps)
    weights = refit_seeds(test, winner.config, ensemble.seeds, num_steps, config.resources, slots)
    refitted = of(
        data=test,
        scaling=whole_scaling(test),
        forecasters=[forecaster_from_bytes(each) for each in weights],
        num_rows=test.num_rows,
        notes=(f"trained on all rows for {num_steps} steps, the test part among them",),
    )
    before, after = (
        metric_of_errors(
            validation_errors(as_contender("", each, test), data, ensemble.scaling),
            config.search.metric,
        )
        for each in (twin, refitted)
    )
    if not after <= before:
        warning = (
            f"the refit was discarded: on the validation part, which it has seen, its error is "
            f"{after:.4f}, its unrefitted twin's {before:.4f}"
        )
        return FinalModel(as_tested.predictor, as_tested.tags, (warning,))
    tags = own | {
        TRAINED_UNTIL: timestamp_of(test, test.num_rows - 1) or "",
        "rows": f"1 to {test.num_rows}",
        "refit": f"all rows, {num_steps} steps; the verdict is its unrefitted twin's",
    }
    return FinalModel(refitted, tags)


def register_model(
    uri: str,
    run_id: str,
    name: str,
    predictor: Predictor,
    tags: Mapping[str, str],
    example: pd.DataFrame,
    verdict: Verdict,
) -> Named:
    """Register a model, as champion where it passed, else as challenger.

    Args:
        uri: MLflow's server or store.
        run_id: the study's own run.
        name: of the registered model.
        predictor: the model.
        tags: of the version, beside the verdict's.
        example: a table that the model can read.
        verdict: of the model.

    Raises:
        ViewError: where MLflow cannot be reached or refuses.
    """
    alias = CHAMPION if verdict.is_passed else CHALLENGER
    error = metric_of_row(verdict.model.errors, verdict.metric)
    said = {
        "study": verdict.study,
        "verdict": verdict.outcome,
        "reason": verdict.reason,
        f"test_{verdict.metric}": "nan" if error is None else f"{error:.6g}",
    }
    version = register(uri, run_id, predictor, name, example, {**tags, **said})
    set_alias(uri, name, alias, version)
    return Named(name, version, alias)
