"""One trial: evaluations in order, weights with the best of them, the same for the same seed."""

import dataclasses
import gc
import weakref
from itertools import accumulate, count, islice
from typing import Any

import pytest
import safetensors.torch
import torch

from models.config import LSTMConfig
from pipelines.evaluation import evaluate
from pipelines.scaling import Scaling
from pipelines.scores import Errors, Evaluation, TrainingDiverged
from pipelines.splits import SearchData
from pipelines.training import Training
from pipelines.training_config import TrainConfig
from pipelines.weights import forecaster_from_bytes
from pipelines.windows import Windows, build_windows, evenly_spaced
from search.space import TrialConfig
from search.trial import (
    SecondTry,
    TrialOutOfMemory,
    TrialStep,
    begin_training,
    is_out_of_memory,
    run_trial,
)

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


@pytest.mark.parametrize("num_steps", [1, None])
def test_a_trial_that_is_over_or_left_frees_its_memory_at_once(
    data: SearchData, monkeypatch: pytest.MonkeyPatch, num_steps: int | None
) -> None:
    trainings: weakref.WeakSet[Training] = weakref.WeakSet()

    def begin(*arguments: Any) -> Training:
        begun = begin_training(*arguments)
        trainings.add(begun)
        return begun

    monkeypatch.setattr("search.trial.begin_training", begin)
    gc.disable()  # what needs it would stay on a device until it runs
    try:
        steps = run_trial(small_config(), data, 1, "mae")
        assert list(islice(steps, num_steps))
        steps.close()
        assert list(trainings) == []
    finally:
        gc.enable()


def test_a_trial_runs_on_as_many_threads_as_it_is_told(data: SearchData) -> None:
    steps = run_trial(small_config(), data, 1, "mae", num_threads=2)
    next(steps)
    assert torch.get_num_threads() == 2
    steps.close()


@pytest.mark.parametrize("num_steps", [1, 3, 6])
def test_a_trial_goes_on_from_its_state_as_if_it_had_not_been_interrupted(
    data: SearchData, num_steps: int
) -> None:
    config = restless_config(max_steps=6, max_validation_windows=15)
    undisturbed = list(run_trial(config, data, 7, "mae"))
    interrupted = run_trial(config, data, 7, "mae", save_every_seconds=0)
    step = [next(interrupted) for _ in range(num_steps)][-1]
    interrupted.close()
    assert isinstance(step, TrialStep)
    assert step.saved is not None
    resumed = list(run_trial(config, data, 7, "mae", saved=step.saved))
    assert numbers(resumed) == numbers(undisturbed[num_steps:])
    assert list(map(weights_in, resumed)) == list(map(weights_in, undisturbed[num_steps:]))


def test_a_state_is_saved_no_more_often_than_asked(data: SearchData) -> None:
    steps = list(run_trial(restless_config(), data, 7, "mae", save_every_seconds=3600))
    assert [step.saved for step in steps] == [None] * len(steps)


def test_what_is_no_saved_state_is_refused(data: SearchData) -> None:
    with pytest.raises(ValueError, match="goes on from a state that it saved: got 7 bytes"):
        next(run_trial(small_config(), data, 7, "mae", saved=b"nothing"))


@pytest.mark.parametrize("when", ["at once", "after two evaluations"])
def test_a_trial_out_of_memory_goes_on_with_halved_batches(
    data: SearchData, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    config = restless_config(max_steps=6)
    undisturbed = numbers(run_trial(config, data, 7, "mae"))
    needs_memory(monkeypatch, more_than=4, after={"at once": 0, "after two evaluations": 2}[when])
    steps = list(run_trial(config, data, 7, "mae", save_every_seconds=0))
    tries = [step for step in steps if isinstance(step, SecondTry)]
    assert tries == [SecondTry("out of memory at batch size 8, now halved")]
    halved = numbers(step for step in steps if isinstance(step, TrialStep))
    assert [e.step for e in halved] == [e.step for e in undisturbed]
    losses = [e.train_loss for e in undisturbed]
    assert [e.train_loss for e in halved] == pytest.approx(losses, rel=0.01)


def test_a_trial_out_of_memory_with_halved_batches_too_raises(
    data: SearchData, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_memory(monkeypatch, more_than=3)
    with pytest.raises(TrialOutOfMemory, match="with batches of 8 in halves too"):
        list(run_trial(small_config(), data, 7, "mae"))


def test_another_error_of_a_trial_is_not_taken_for_a_lack_of_memory(
    data: SearchData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Any, origins: Any) -> Any:
        raise RuntimeError("the window is broken")

    monkeypatch.setattr(Windows, "inputs", broken)
    with pytest.raises(RuntimeError, match="the window is broken"):
        list(run_trial(small_config(), data, 7, "mae"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("shape mismatch"), False),
        (OSError("no space left on device"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_a_lack_of_memory_shows_behind_the_end_of_a_capture_that_it_broke() -> None:
    broken = RuntimeError("CUDA error: operation failed due to a previous error during capture")
    broken.__context__ = torch.OutOfMemoryError("CUDA out of memory")
    assert is_out_of_memory(broken)
    broken.__context__ = ValueError("something else")
    assert not is_out_of_memory(broken)


def needs_memory(monkeypatch: pytest.MonkeyPatch, more_than: int, after: int = 0) -> None:
    """Make training on more windows at once ask the allocator for the impossible."""
    take_inputs, num_calls = Windows.inputs, count()

    def inputs(self: Windows, origins: torch.Tensor) -> Any:
        # Evaluations and the fit of the skip pass through here too, with more windows.
        if more_than < len(origins) <= 8 and next(num_calls) >= after:
            torch.empty(1 << 50)
        return take_inputs(self, origins)

    monkeypatch.setattr(Windows, "inputs", inputs)


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


def weights_in(step: Any) -> list[Any] | None:
    if step.weights is None:
        return None
    tensors = safetensors.torch.load(step.weights)
    return [(name, tensors[name].tolist()) for name in sorted(tensors)]


def numbers(steps: Any) -> list[Evaluation]:
    """The evaluations without what a clock or the rest of the process decides."""
    same = dict.fromkeys(UNREPEATABLE, 0)
    return [dataclasses.replace(step.evaluation, **same) for step in steps]
