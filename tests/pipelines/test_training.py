"""Contracts of training: an iterator that learns, repeats itself, and says when it fails."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from models.config import LSTMConfig, Skip
from models.forecaster import Forecaster
from pipelines.baselines import persistence
from pipelines.evaluation import evaluate, evaluate_forecast
from pipelines.hardware import resolve_precision
from pipelines.scaling import Scaling
from pipelines.scores import Errors, Evaluation, TrainingDiverged
from pipelines.splits import SearchData
from pipelines.training import Training, build_forecaster, learning_rate_at
from pipelines.training_config import TrainConfig
from pipelines.windows import Windows, build_windows, evenly_spaced

MakeData = Callable[..., SearchData]
TINY = LSTMConfig(widths=(4, 4), dropout=0.3, linear_skip="none")


def config(**changes: Any) -> TrainConfig:
    fields: dict[str, Any] = {
        "max_steps": 6,
        "evaluate_every_steps": 2,
        "warmup_steps": 1,
        "precision": "float32",
        "lookback": 12,
        "calendar": True,
        "learning_rate": 1e-2,
        "weight_decay": 1e-3,
        "batch_size": 8,
        **changes,
    }
    return TrainConfig(**fields)


class Prepared:
    """What a training needs, made of one table, one configuration and seed 0."""

    def __init__(
        self,
        data: SearchData,
        training: TrainConfig,
        model: LSTMConfig = TINY,
        seed: int = 0,
        num_parts: int = 1,
    ) -> None:
        self.training, self.seed, self.num_parts = training, seed, num_parts
        self.scaling = Scaling.fit(data)
        self.windows: Windows = build_windows(
            data, self.scaling, training.lookback, training.calendar, "cpu"
        )
        self.forecaster: Forecaster = build_forecaster(model, training, data, "cpu", seed)

    def train(self) -> Any:
        made = (self.forecaster, self.windows, self.scaling)
        return Training(*made, self.training, self.seed, self.num_parts)


def weights_of(forecaster: Forecaster) -> Tensor:
    return torch.cat([weights.flatten().clone() for weights in forecaster.state_dict().values()])


def outcome(evaluations: list[Evaluation]) -> list[tuple[float, Errors]]:
    return [(evaluation.train_loss, evaluation.errors) for evaluation in evaluations]


def test_evaluations_come_at_every_interval_and_at_the_end(make_data: MakeData) -> None:
    training = config(max_steps=5)
    evaluations = list(Prepared(make_data(), training).train())
    assert [evaluation.step for evaluation in evaluations] == [2, 4, 5]
    assert [evaluation.learning_rate for evaluation in evaluations] == [
        learning_rate_at(step, training) for step in (1, 3, 4)
    ]
    for evaluation in evaluations:
        assert evaluation.is_full
        assert evaluation.num_windows == 37
        assert evaluation.steps_per_second > 0
        assert evaluation.peak_memory_bytes > 1e7
        assert evaluation.train_seconds > 0 < evaluation.evaluate_seconds


def test_at_each_yield_the_forecaster_holds_the_weights_just_evaluated(
    make_data: MakeData,
) -> None:
    run = Prepared(make_data(), config())
    seen = []
    for evaluation in run.train():
        again = evaluate(run.forecaster, run.windows, run.scaling, run.windows.validation_origins)
        assert again == evaluation.errors
        seen.append(weights_of(run.forecaster))
    assert not torch.equal(seen[0], seen[-1])


def test_two_runs_with_one_seed_agree_to_the_bit_whatever_happens_in_between(
    make_data: MakeData,
) -> None:
    torch.manual_seed(1)
    first = Prepared(make_data(), config())
    expected = outcome(list(first.train()))

    torch.manual_seed(2)
    torch.randn(1000)
    second = Prepared(make_data(), config())
    actual = []
    for evaluation in second.train():
        actual.append((evaluation.train_loss, evaluation.errors))
        torch.randn(17)  # another trial in the same process draws, too
        list(Prepared(make_data(), config(max_steps=2), seed=9).train())
    assert actual == expected
    assert torch.equal(weights_of(second.forecaster), weights_of(first.forecaster))


def test_another_seed_gives_another_run(make_data: MakeData) -> None:
    one, other = (Prepared(make_data(), config(), seed=seed) for seed in (0, 1))
    assert not torch.equal(weights_of(one.forecaster), weights_of(other.forecaster))
    assert outcome(list(one.train())) != outcome(list(other.train()))


def test_training_leaves_the_random_state_of_the_process_as_it_was(make_data: MakeData) -> None:
    torch.manual_seed(3)
    expected = torch.randn(5)
    torch.manual_seed(3)
    list(Prepared(make_data(), config()).train())
    assert torch.equal(torch.randn(5), expected)


def test_when_every_value_after_the_cut_changes_then_the_same_weights_are_trained(
    make_data: MakeData,
) -> None:
    data = make_data()
    altered = data.values.copy()
    altered[data.num_train_rows :] *= -3
    model = LSTMConfig(widths=(4,))
    one, other = (Prepared(table, config(), model) for table in (data, make_data(values=altered)))
    errors = [outcome(list(run.train())) for run in (one, other)]
    assert errors[0] != errors[1]
    assert torch.equal(weights_of(one.forecaster), weights_of(other.forecaster))


def test_a_training_left_early_leaves_nothing_running(make_data: MakeData) -> None:
    threads = threading.active_count()
    run = Prepared(make_data(), config())
    evaluations = run.train()
    next(evaluations)
    before = weights_of(run.forecaster)
    del evaluations
    assert threading.active_count() == threads
    assert torch.equal(weights_of(run.forecaster), before)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("num_evaluations", [1, 2])
def test_a_training_goes_on_from_a_state_as_if_it_had_not_been_left(
    make_data: MakeData, num_evaluations: int
) -> None:
    undisturbed = outcome(list(Prepared(make_data(), config()).train()))
    left = Prepared(make_data(), config()).train()
    for _ in range(num_evaluations):
        next(left)
    resumed = Prepared(make_data(), config()).train()
    resumed.restore(left.state())
    assert resumed.step == 2 * num_evaluations
    assert outcome(list(resumed)) == undisturbed[num_evaluations:]


def test_a_state_of_the_last_step_leaves_nothing_to_train(make_data: MakeData) -> None:
    ended = Prepared(make_data(), config()).train()
    list(ended)
    resumed = Prepared(make_data(), config()).train()
    resumed.restore(ended.state())
    assert list(resumed) == []


def test_a_state_of_another_model_is_refused(make_data: MakeData) -> None:
    other = Prepared(make_data(), config(), LSTMConfig(widths=(5,))).train()
    next(other)
    with pytest.raises(RuntimeError, match="state_dict"):
        Prepared(make_data(), config()).train().restore(other.state())


@pytest.mark.parametrize("num_parts", [2, 3])
def test_batches_in_parts_take_the_same_steps_but_for_rounding(
    make_data: MakeData, num_parts: int
) -> None:
    without_dropout = LSTMConfig(widths=(4, 4), linear_skip="none")
    whole = Prepared(make_data(), config(), without_dropout)
    parted = Prepared(make_data(), config(), without_dropout, num_parts=num_parts)
    for one, other in zip(whole.train(), parted.train(), strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-3)
        assert other.errors.mae == pytest.approx(one.errors.mae, rel=1e-3)


@pytest.mark.parametrize("linear_skip", ["shared", "none"])
def test_a_tiny_model_beats_persistence_on_electricity_within_100_steps(
    electricity: SearchData, linear_skip: Skip
) -> None:
    training = config(
        max_steps=100,
        evaluate_every_steps=100,
        warmup_steps=10,
        lookback=24,
        batch_size=32,
        max_validation_windows=200,
    )
    model = LSTMConfig(widths=(16,), linear_skip=linear_skip)
    run = Prepared(electricity, training, model)
    (evaluation,) = run.train()
    origins = run.windows.validation_origins
    naive = evaluate_forecast(
        lambda batch: persistence(run.windows, batch), run.windows, run.scaling, origins
    )
    assert evaluation.errors.mae < 0.5 * naive.mae


@pytest.mark.parametrize(("most", "num_windows", "is_full"), [(8192, 37, True), (20, 20, False)])
def test_few_validation_windows_are_spread_and_the_last_evaluation_uses_more(
    make_data: MakeData, most: int, num_windows: int, is_full: bool
) -> None:
    run = Prepared(make_data(), config(max_validation_windows=5, max_final_windows=most))
    training = run.train()
    last = list(training)[-1]
    assert (last.num_windows, last.is_full) == (5, False)
    final = training.evaluate_finally(last)
    assert training.num_final_windows == num_windows
    assert (final.num_windows, final.is_full) == (num_windows, is_full)
    assert (final.step, final.train_loss) == (last.step, last.train_loss)
    origins = evenly_spaced(run.windows.validation_origins, num_windows)
    assert final.errors == evaluate(run.forecaster, run.windows, run.scaling, origins)


@pytest.mark.parametrize("loss", ["huber", "mae", "mse"])
def test_every_loss_that_is_not_finite_ends_the_training(make_data: MakeData, loss: str) -> None:
    run = Prepared(make_data(), config(loss=loss))
    with torch.no_grad():
        next(run.forecaster.parameters()).fill_(torch.nan)
    with pytest.raises(TrainingDiverged, match="within 2 steps; lower the learning rate") as caught:
        list(run.train())
    assert caught.value.step == 2


def test_an_error_that_overflows_ends_the_training_though_the_loss_is_finite(
    make_data: MakeData,
) -> None:
    run = Prepared(make_data(target_transform="log"), config(loss="mae"))
    evaluations = run.train()
    next(evaluations)
    with torch.no_grad():
        run.forecaster.lstm.readout.bias.fill_(1e6)  # type: ignore[union-attr]
    with pytest.raises(TrainingDiverged, match="within 4 steps"):
        next(evaluations)


# mkldnn.flags itself sets off this warning where torch has no build for Intel's GPUs.
@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
def test_bf16_steps_learn_about_what_float32_steps_learn(
    make_data: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_bf16 = resolve_precision("auto", "cpu") == "bf16"
    monkeypatch.setattr("pipelines.hardware._cpu_has_bf16", lambda: True)
    errors = {}
    for precision in ("float32", "bf16"):
        training = config(precision=precision, max_steps=20, evaluate_every_steps=20)
        run = Prepared(make_data(), training, LSTMConfig(widths=(4, 8)))
        # Without the instructions only torch's own kernels, not oneDNN's, compute in bf16.
        with torch.backends.mkldnn.flags(enabled=has_bf16):
            (evaluation,) = run.train()
        errors[precision] = evaluation.errors.mae_scaled
        assert all(weights.dtype == torch.float32 for weights in run.forecaster.parameters())
    assert errors["bf16"] != errors["float32"]
    assert errors["bf16"] == pytest.approx(errors["float32"], rel=0.1)


def test_training_refuses_bf16_where_the_cpu_does_not_compute_in_it(
    make_data: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.hardware._cpu_has_bf16", lambda: False)
    with pytest.raises(ValueError, match="computes in it"):
        list(Prepared(make_data(), config(precision="bf16")).train())


def test_the_learning_rate_rises_then_falls_along_a_cosine() -> None:
    training = config(max_steps=110, warmup_steps=10, learning_rate=1.0)
    rates = [learning_rate_at(step, training) for step in range(110)]
    assert rates[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 1e-3


def test_a_constant_schedule_stays_and_a_warm_up_may_outlast_the_budget() -> None:
    constant = config(schedule="constant", warmup_steps=0)
    assert {learning_rate_at(step, constant) for step in range(6)} == {1e-2}
    assert learning_rate_at(5, config(max_steps=6, warmup_steps=6)) < 1e-2


def test_an_evaluation_survives_json(make_data: MakeData) -> None:
    for evaluation in Prepared(make_data(), config()).train():
        text = json.dumps(evaluation.to_dict(), allow_nan=False)
        assert Evaluation.from_dict(json.loads(text)) == evaluation


def test_a_training_configuration_survives_json_and_refuses_unknown_fields() -> None:
    training = config()
    assert TrainConfig.model_validate_json(training.model_dump_json()) == training
    with pytest.raises(ValueError, match="momentum"):
        config(momentum=0.9)
