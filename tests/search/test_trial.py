"""One trial: evaluations in order, weights with the best of them, the same for the same seed."""

import dataclasses
from itertools import accumulate
from typing import Any

import pytest
import torch

from models.config import LSTMConfig
from pipelines.evaluation import evaluate
from pipelines.metrics import Errors
from pipelines.scaling import Scaling
from pipelines.splits import SearchData
from pipelines.training import Evaluation, TrainingDiverged
from pipelines.training_config import TrainConfig
from pipelines.weights import forecaster_from_bytes
from pipelines.windows import build_windows, evenly_spaced
from search.space import TrialConfig
from search.trial import TrialStep, run_trial

UNREPEATABLE = ("steps_per_second", "peak_memory_bytes", "train_seconds", "evaluate_seconds")


@pytest.fixture
def data(make_data: Any) -> SearchData:
    small: SearchData = make_data()
    return small


def test_evaluations_come_in_order_up_to_the_last_step_of_the_budget(data: SearchData) -> None:
    steps = list(run_trial(small_config(max_steps=10, evaluate_every_steps=4), data, 1, "mae"))
    assert [step.evaluation.step for step in steps] == [4, 8, 10]


@pytest.mark.parametrize("metric", ["mae", "mse", "rmse", "mase"])
def test_weights_come_exactly_with_the_evaluations_that_improve(
    data: SearchData, metric: Any
) -> None:
    steps = list(run_trial(restless_config(), data, 1, metric))
    values = [value_of(step, metric) for step in steps]
    best_before = [float("inf"), *accumulate(values, min)]
    improves = [value < best for value, best in zip(values, best_before, strict=False)]
    assert [step.weights is not None for step in steps] == improves
    assert True in improves[1:]
    assert False in improves


def test_the_weights_reproduce_the_evaluation_that_they_came_with(data: SearchData) -> None:
    config = restless_config(max_validation_windows=15)
    for step in run_trial(config, data, 1, "mae"):
        if step.weights is not None:
            errors = errors_of(step.weights, data, num_windows=step.evaluation.num_windows)
            assert errors == step.evaluation.errors


def test_a_final_step_evaluates_the_best_weights_on_all_validation_windows(
    data: SearchData,
) -> None:
    *steps, final = run_trial(restless_config(max_validation_windows=15), data, 1, "mae")
    best = min(steps, key=lambda step: value_of(step, "mae"))
    assert best is not steps[-1]
    assert best.weights is not None
    assert [step.is_final for step in steps] == [False] * len(steps)
    assert {(s.evaluation.num_windows, s.evaluation.is_full) for s in steps} == {(15, False)}
    assert final.is_final
    assert final.weights is None
    assert (final.evaluation.num_windows, final.evaluation.is_full) == (37, True)
    assert final.evaluation.step == best.evaluation.step
    assert final.evaluation.errors == errors_of(best.weights, data, num_windows=37)


def test_no_final_step_where_every_evaluation_saw_all_validation_windows(
    data: SearchData,
) -> None:
    steps = list(run_trial(small_config(max_validation_windows=37), data, 1, "mae"))
    assert [step.is_final for step in steps] == [False] * len(steps)
    assert all(step.evaluation.is_full for step in steps)


@pytest.mark.parametrize("left_behind", ["random state", "threads", "a trial half done"])
def test_equal_seeds_give_equal_evaluations_whatever_ran_before(
    data: SearchData, left_behind: str
) -> None:
    config = small_config(widths=(6, 4), dropout=0.3)
    alone = numbers(run_trial(config, data, 7, "mae"))
    match left_behind:
        case "random state":
            torch.manual_seed(99)
            torch.rand(1000)
        case "threads":
            torch.set_num_threads(2)
        case "a trial half done":
            half_done = run_trial(small_config(dropout=0.3), data, 3, "mae")
            next(half_done)
            half_done.close()
    assert numbers(run_trial(config, data, 7, "mae")) == alone


def test_another_seed_gives_other_evaluations(data: SearchData) -> None:
    config = small_config()
    assert numbers(run_trial(config, data, 7, "mae")) != numbers(run_trial(config, data, 8, "mae"))


def test_a_trial_leaves_the_random_state_of_its_process_alone(data: SearchData) -> None:
    before = torch.get_rng_state()
    list(run_trial(small_config(dropout=0.3), data, 1, "mae"))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_trial_runs_on_as_many_threads_as_it_is_told(data: SearchData) -> None:
    steps = run_trial(small_config(), data, 1, "mae", num_threads=2)
    next(steps)
    assert torch.get_num_threads() == 2
    steps.close()


def test_a_diverging_learning_rate_raises(data: SearchData) -> None:
    with pytest.raises(TrainingDiverged, match="the loss must stay finite"):
        list(run_trial(small_config(learning_rate=1e38), data, 1, "mae"))


def small_config(widths: tuple[int, ...] = (5,), dropout: float = 0.0, **training: Any) -> Any:
    settings = {
        "max_steps": 6,
        "evaluate_every_steps": 2,
        "warmup_steps": 0,
        "precision": "float32",
        "lookback": 12,
        "calendar": True,
        "learning_rate": 1e-2,
        "weight_decay": 0.0,
        "batch_size": 8,
    }
    model = LSTMConfig(widths=widths, dropout=dropout)
    return TrialConfig(model=model, training=TrainConfig.model_validate(settings | training))


def restless_config(**training: Any) -> TrialConfig:
    """Of which some evaluations improve and others, the last among them, do not."""
    restless: dict[str, Any] = {"schedule": "constant", "learning_rate": 0.1, "max_steps": 12}
    config: TrialConfig = small_config(**(restless | {"evaluate_every_steps": 1} | training))
    return config


def value_of(step: TrialStep, metric: str) -> float:
    errors = step.evaluation.errors
    value: float = getattr(errors, metric if metric == "mase" else f"{metric}_scaled")
    return value


def errors_of(weights: bytes, data: SearchData, num_windows: int) -> Errors:
    forecaster = forecaster_from_bytes(weights)
    scaling = Scaling.fit(data)
    windows = build_windows(data, scaling, forecaster.shape.lookback, True, "cpu")
    origins = evenly_spaced(windows.validation_origins, num_windows)
    return evaluate(forecaster, windows, scaling, origins)


def numbers(steps: Any) -> list[Evaluation]:
    """The evaluations without what a clock or the rest of the process decides."""
    same = dict.fromkeys(UNREPEATABLE, 0)
    return [dataclasses.replace(step.evaluation, **same) for step in steps]
