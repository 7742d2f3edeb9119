"""What the tests of the search start from: a small table, evaluations, studies in real files."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy
import torch

from pipelines.metrics import Errors
from pipelines.splits import SearchData
from pipelines.training import Evaluation
from pipelines.training_config import TrainingBudget
from search.config import SearchSettings
from search.limits import Limits
from search.space import Space, TrialConfig, derive
from search.study import Study, open_study

MakeData = Callable[..., SearchData]
MakeEvaluation = Callable[..., Evaluation]
MakeSpace = Callable[..., Space]
OpenStudy = Callable[..., Study]
LossOf = Callable[[TrialConfig, int], float]

BUDGET = TrainingBudget(max_steps=300, evaluate_every_steps=50, precision="float32")


@pytest.fixture(autouse=True)
def _on_one_thread() -> Iterator[None]:
    # The models are tiny: a second thread would only wait, and take a core from other processes.
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="session")
def make_data() -> MakeData:
    """120 rows of a season of 6, 80 of them to train on, horizon 4, and any change to it."""
    return small_data


@pytest.fixture(scope="session")
def make_evaluation() -> MakeEvaluation:
    """An evaluation of a given MAE (standardised) at a step, and any change to it."""
    return small_evaluation


@pytest.fixture(scope="session")
def make_space() -> MakeSpace:
    """The default space as the small table allows it, and any change to it."""
    return small_space


@pytest.fixture(scope="session")
def loss_of() -> LossOf:
    """A loss that a sampler can learn from, the same in every process."""
    return loss_at


@pytest.fixture
def open_small_study(tmp_path: Path) -> Iterator[OpenStudy]:
    """Open the study of this test, again and again, on one SQLite file."""
    connections: list[Any] = []

    def remember(connection: Any, _: Any) -> None:
        connections.append(connection)

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", remember)
    yield lambda **changes: small_study(tmp_path / "record.db", **changes)
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", remember)
    for connection in connections:
        connection.close()  # a study has no end of its own: it is left, or killed


def small_data(**changes: Any) -> SearchData:
    num_rows = changes.pop("num_rows", 120)
    rows = np.arange(num_rows)
    columns = [50 + 10 * np.sin(2 * np.pi * rows / 6), 5 + 3 * np.cos(2 * np.pi * rows / 6)]
    values = np.stack(columns, axis=1) + np.random.default_rng(1).normal(size=(num_rows, 2))
    fields: dict[str, Any] = {
        "name": "small",
        "series_id": "small",
        "columns": ("load", "heat"),
        "targets": ("load",),
        "frequency": "h",
        "season": 6,
        "horizon": 4,
        "target_transform": "none",
        "fingerprint": "0123456789abcdef",
        "values": values,
        "truth": values[:, :1].copy(),
        "is_observed": np.full(num_rows, True),
        "known": np.sin(np.stack([rows, rows + 1], axis=1)).astype(np.float32),
        "known_names": ("one", "two"),
        "num_train_rows": num_rows * 2 // 3,
        "notes": (),
    }
    return SearchData(**(fields | changes))


def small_evaluation(mae_scaled: float, step: int = 50, **changes: Any) -> Evaluation:
    errors = Errors(
        mae=10 * mae_scaled,
        mse=100 * mae_scaled**2,
        rmse=10 * mae_scaled,
        mase=2 * mae_scaled,
        mae_scaled=mae_scaled,
        mse_scaled=mae_scaled**2,
        rmse_scaled=mae_scaled,
    )
    fields: dict[str, Any] = {
        "step": step,
        "train_loss": mae_scaled / 2,
        "errors": errors,
        "learning_rate": 1e-3,
        "steps_per_second": 100.0,
        "peak_memory_bytes": 1 << 20,
        "num_windows": 20,
        "is_full": True,
        "train_seconds": 0.5,
        "evaluate_seconds": 0.1,
    }
    return Evaluation(**(fields | changes))


def small_space(**dimensions: Any) -> Space:
    space = Space.model_validate(dimensions)
    return derive(space, season=6, num_train_rows=80, horizon=4, has_calendar=True)[0]


def loss_at(config: TrialConfig, step: int) -> float:
    training, model = config.training, config.model
    distance = abs(math.log10(training.learning_rate / 3e-3)) + abs(math.log2(model.widths[0] / 64))
    return 0.1 + 0.02 * distance + 0.01 * model.bidirectional + 1 / (step + 50)


def small_study(
    file: Path,
    name: str = "study",
    space: Space | None = None,
    data: SearchData | None = None,
    identity: dict[str, Any] | None = None,
    budget: TrainingBudget = BUDGET,
    max_teraflops: float | None = None,
    **settings: Any,
) -> Study:
    space, data = space or small_space(), data or small_data()
    search = SearchSettings.model_validate({"num_startup_trials": 5, "trials": 1000} | settings)
    limits = Limits(data, search.max_parameters, max_teraflops)
    begun_with = {"data": data.fingerprint, "metric": search.metric} | (identity or {})
    return open_study(f"sqlite:///{file}", name, begun_with, space, budget, search, limits)[0]
