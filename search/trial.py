"""One trial without Ray, Optuna or MLflow: configuration, data and seed in, evaluations out."""

from collections.abc import Generator
from dataclasses import dataclass

import safetensors.torch
import torch

from models.forecaster import Forecaster
from pipelines.scaling import Scaling
from pipelines.splits import SearchData
from pipelines.training import Evaluation, build_forecaster, evaluate_fully, train
from pipelines.weights import weights_to_bytes
from pipelines.windows import build_windows
from search.config import Metric
from search.record import metric_value
from search.space import TrialConfig


@dataclass(frozen=True)
class TrialStep:
    """What a trial hands out each time that it has evaluated itself."""

    evaluation: Evaluation
    is_final: bool
    """Whether this is the best weights' evaluation on the whole validation part."""
    weights: bytes | None
    """safetensors of the weights just evaluated, where they are the best so far."""


def run_trial(
    config: TrialConfig,
    data: SearchData,
    seed: int,
    metric: Metric,
    device: str = "cpu",
    num_threads: int = 1,
) -> Generator[TrialStep]:
    """Train one configuration, one evaluation after another; whoever consumes it may stop.

    Nothing that an earlier trial left in this process has an influence. Where the evaluations saw
    a part of the validation windows, a last step evaluates the best weights on all of them.

    Raises:
        TrainingDiverged: when loss or errors are not finite.
    """
    torch.set_num_threads(num_threads)
    scaling = Scaling.fit(data)
    training = config.training
    windows = build_windows(data, scaling, training.lookback, training.calendar, device)
    forecaster = build_forecaster(config.model, training, data, device, seed)
    best: tuple[Evaluation, bytes] | None = None
    for evaluation in train(forecaster, windows, scaling, training, seed):
        if best is None or metric_value(evaluation, metric) < metric_value(best[0], metric):
            best = evaluation, weights_to_bytes(forecaster)
            yield TrialStep(evaluation, is_final=False, weights=best[1])
        else:
            yield TrialStep(evaluation, is_final=False, weights=None)
    assert best is not None, "a budget has at least one evaluation"
    if not best[0].is_full:
        _restore(forecaster, best[1])
        final = evaluate_fully(forecaster, windows, scaling, best[0])
        yield TrialStep(final, is_final=True, weights=None)


def _restore(forecaster: Forecaster, weights: bytes) -> None:
    forecaster.load_state_dict(safetensors.torch.load(weights))
