"""Baselines and refits in workers of their own, through a real Ray."""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch

from models.config import LSTMConfig
from pipelines.refit import refit
from pipelines.splits import SearchData, TestData
from pipelines.training_config import TrainConfig
from pipelines.weights import weights_to_bytes
from search.config import Resources
from search.side_workers import AwaitedBaselines, ray, refit_seeds
from search.slots import Slots
from search.space import TrialConfig

pytestmark = pytest.mark.slow

# Workers cannot import a test module: what it defines travels along.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

NUM_STEPS = 20
TWO = Slots(2, 1, 0.0, "cpu")


@dataclass(frozen=True, eq=False)
class DeadlyData(TestData):
    """A table that kills the worker that gets it, once where a file says so."""

    marker: Path = Path()
    driver: int = 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if os.getpid() != self.driver and self.marker.exists():
            self.marker.unlink(missing_ok=True)
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def data(make_data: Callable[..., SearchData], tmp_path: Path) -> DeadlyData:
    small = make_data()
    rows = {item.name: getattr(small, item.name) for item in fields(SearchData)}
    return DeadlyData(**rows, first_test_row=100, marker=tmp_path / "kill", driver=os.getpid())


def config(learning_rate: float = 1e-2) -> TrialConfig:
    training = TrainConfig(
        lookback=12,
        calendar=True,
        learning_rate=learning_rate,
        weight_decay=0.0,
        batch_size=8,
        max_steps=NUM_STEPS,
        evaluate_every_steps=NUM_STEPS // 2,
        warmup_steps=0,
        precision="float32",
    )
    return TrialConfig(model=LSTMConfig(widths=(4,)), training=training)


def refit_here(data: TestData, seeds: list[int]) -> list[bytes]:
    chosen = config()
    made = [refit(chosen.model, chosen.training, data, seed, NUM_STEPS, "cpu") for seed in seeds]
    return [weights_to_bytes(forecaster) for forecaster in made]


def tensors(weights: list[bytes]) -> list[dict[str, Any]]:
    """What the files hold; the order of their headers differs from one process to another."""
    loaded = [safetensors.torch.load(each) for each in weights]
    return [{name: tensor.tolist() for name, tensor in each.items()} for each in loaded]


@pytest.mark.parametrize("is_killed", [False, True], ids=["undisturbed", "a worker is killed"])
def test_each_seed_has_its_weights_in_order(
    local_ray: None, data: DeadlyData, is_killed: bool
) -> None:
    seeds = [3, 1, 2]  # more than slots
    alone = tensors(refit_here(data, seeds))
    assert alone[0] != alone[1] != alone[2]
    if is_killed:
        data.marker.touch()
    assert tensors(refit_seeds(data, config(), seeds, NUM_STEPS, Resources(), TWO)) == alone
    assert not data.marker.exists()


def test_the_workers_make_room_when_they_are_done(local_ray: None, data: DeadlyData) -> None:
    for _ in range(2):
        refit_seeds(data, config(), [1, 2], NUM_STEPS, Resources(), TWO)
    until = time.monotonic() + 30
    while ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_refit_that_diverges_or_takes_too_long_has_broken(
    local_ray: None, data: DeadlyData
) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)the refit has broken: .*TrainingDiverged"):
        refit_seeds(data, config(1e38), [1, 2, 3], NUM_STEPS, Resources(), TWO)
    hurried = Resources(max_step_seconds=0.01)
    with pytest.raises(RuntimeError, match=r"the refit has broken: it took longer than 0\.01 s"):
        refit_seeds(data, config(), [1], NUM_STEPS, hurried, TWO)


def test_baselines_that_do_not_come_are_not_waited_for_without_end(
    local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.side_workers.BASELINES_SECONDS", 0.5)
    missed: list[str] = []
    recorder: Any = SimpleNamespace(miss_baselines=missed.append)

    workers: list[Any] = []

    def hang(worker: Any) -> Any:
        workers.append(worker)
        return worker.__ray_call__.remote(lambda _: time.sleep(3600))

    awaited = AwaitedBaselines(recorder, hang)
    awaited.end(is_patient=True)
    assert missed == ["they did not come within 0.5 s"]
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(workers[0].__ray_call__.remote(lambda _: None), timeout=60)
