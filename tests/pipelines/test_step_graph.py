"""A replayed step is the step itself; what is captured is taken, without a GPU, as it comes."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from models.config import LSTMConfig
from pipelines.scaling import Scaling
from pipelines.splits import SearchData
from pipelines.step_graph import NUM_EAGER_STEPS, Step, StepGraph
from pipelines.training import Training, build_forecaster
from pipelines.training_config import TrainConfig
from pipelines.windows import build_windows

MakeData = Callable[..., SearchData]
CONFIG = TrainConfig(
    max_steps=12,
    evaluate_every_steps=4,
    warmup_steps=1,
    precision="float32",
    lookback=12,
    calendar=True,
    learning_rate=1e-2,
    weight_decay=1e-3,
    batch_size=8,
)


MODEL = LSTMConfig(widths=(4, 4), dropout=0.3, linear_skip="none")


def training(
    data: SearchData,
    device: str = "cpu",
    model: LSTMConfig = MODEL,
    config: TrainConfig = CONFIG,
    **more: Any,
) -> Training:
    scaling = Scaling.fit(data)
    windows = build_windows(data, scaling, config.lookback, config.calendar, device)
    forecaster = build_forecaster(model, config, data, device, seed=0)
    return Training(forecaster, windows, scaling, config, seed=0, **more)


class Capture:
    """Counts what it captures, and runs it as it is."""

    def __init__(self) -> None:
        self.num_captures = 0
        self.num_replays = 0

    def __call__(self, step: Step) -> Step:
        self.num_captures += 1

        def replay() -> torch.Tensor:
            self.num_replays += 1
            return step()

        return replay


@pytest.mark.parametrize("num_parts", [1, 2])
def test_a_training_of_replayed_steps_is_the_same_training(
    make_data: MakeData, num_parts: int
) -> None:
    data, capture = make_data(), Capture()
    plain, replayed = (training(data, num_parts=num_parts) for _ in range(2))
    replayed._step_graph = StepGraph(replayed.device, capture)

    losses = [each.train_loss for each in plain], [each.train_loss for each in replayed]

    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    weights = [
        torch.cat([w.flatten() for w in each.forecaster.parameters()])
        for each in (
            plain,
            replayed,
        )
    ]
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-6)
    assert capture.num_captures == 1
    assert capture.num_replays == CONFIG.max_steps - NUM_EAGER_STEPS


def test_a_replay_reads_windows_and_learning_rate_where_the_capture_did() -> None:
    seen = []

    def train_step(origins: torch.Tensor, learning_rate: torch.Tensor) -> torch.Tensor:
        seen.append((origins.data_ptr(), learning_rate.data_ptr()))
        return origins.sum() * learning_rate

    graph = StepGraph(torch.device("cpu"), Capture())
    for step in range(6):
        loss = graph(train_step, torch.tensor([step, 1]), learning_rate=0.5)
        assert loss == 0.5 * (step + 1)
    assert len(set(seen)) == 1


def test_a_training_and_its_graph_are_freed_without_a_search_for_circles(
    make_data: MakeData,
) -> None:
    def capture(step: Step) -> Step:
        loss = step()
        return lambda: loss

    held = training(make_data())
    held._step_graph = StepGraph(held.device, capture)
    assert len(list(held)) == 3
    seen = weakref.ref(held)
    gc.disable()
    try:
        del held
        assert seen() is None
    finally:
        gc.enable()


def test_on_a_cpu_nothing_is_captured(make_data: MakeData) -> None:
    asked = training(make_data(), has_graph=True)
    assert asked._step_graph is None


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@needs_cuda
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("num_parts", [1, 2])
@pytest.mark.parametrize(
    "model",
    [
        MODEL,
        LSTMConfig(widths=(8, 8), bidirectional=True, normalisation="mean_std"),
        LSTMConfig(widths=(4, 16), head="aligned", patch_length=4, dropout=0.1),
        LSTMConfig(widths=(8,), normalisation="seasonal", linear_skip="none"),
    ],
)
def test_a_cuda_graph_trains_as_plain_steps_do(
    make_data: MakeData, model: LSTMConfig, num_parts: int, precision: str
) -> None:
    config = CONFIG.model_copy(update={"precision": precision})
    data, more = make_data(), {"num_parts": num_parts}
    plain = training(data, "cuda", model, config, **more)
    replayed = training(data, "cuda", model, config, **more, has_graph=True)
    assert replayed._step_graph is not None
    for one, other in zip(plain, replayed, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-3)
        assert other.errors.mae == pytest.approx(one.errors.mae, rel=1e-3)


@needs_cuda
def test_a_training_goes_on_from_a_state_with_a_graph_of_its_own(make_data: MakeData) -> None:
    data = make_data()
    whole, first, second = (training(data, "cuda", has_graph=True) for _ in range(3))
    expected = list(whole)
    assert next(first).train_loss == pytest.approx(expected[0].train_loss, rel=1e-3)
    second.restore(first.state())
    assert [each.train_loss for each in second] == pytest.approx(
        [each.train_loss for each in expected[1:]], rel=1e-3
    )
