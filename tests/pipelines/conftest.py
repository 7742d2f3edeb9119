"""Tables that the tests of the pipelines start from."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipelines.data_config import DataConfig, SplitConfig
from pipelines.series import load
from pipelines.splits import SearchData, TestData, split

MakeData = Callable[..., SearchData]
MakeTestData = Callable[..., TestData]


@pytest.fixture(autouse=True)
def _on_one_thread() -> Iterator[None]:
    # The tensors are tiny: a second thread would only wait, and take a core from other processes.
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="session")
def electricity() -> SearchData:
    """The embedded table without its test part."""
    return split(load(DataConfig()), SplitConfig())[0]


@pytest.fixture
def make_data() -> MakeData:
    """A small table: two columns of a noisy season, the first the target, and any change to it."""
    return small_data


@pytest.fixture
def make_test_data() -> MakeTestData:
    """The same table opened: 60 rows to train on, 20 of validation, 40 of test, and any change."""
    return small_test_data


def small_test_data(**changes: Any) -> TestData:
    opened: dict[str, Any] = {
        "first_test_row": 80,
        "timestamps": pd.date_range("2024-01-01", periods=120, freq="h"),  # a Monday
    }
    opened |= {name: changes.pop(name) for name in tuple(opened) if name in changes}
    data = small_data(**{"num_train_rows": 60, **changes})
    shared = {item.name: getattr(data, item.name) for item in dataclasses.fields(data)}
    return TestData(**shared, **opened)


def small_data(**changes: Any) -> SearchData:
    rng = np.random.default_rng(1)
    rows = np.arange(120)
    columns = [50 + 10 * np.sin(2 * np.pi * rows / 6), 5 + 3 * np.cos(2 * np.pi * rows / 6)]
    values = np.stack(columns, axis=1) + rng.normal(size=(120, 2))
    fields: dict[str, Any] = {
        "name": "small",
        "series_id": "small",
        "columns": ("load", "heat"),
        "targets": ("load",),
        "frequency": "h",
        "season": 6,
        "horizon": 4,
        "target_transform": "none",
        "fingerprint": "",
        "values": values,
        "is_observed": np.full(120, True),
        "known": np.sin(np.stack([rows, rows + 1], axis=1)).astype(np.float32),
        "known_names": ("one", "two"),
        "num_train_rows": 80,
        "notes": (),
        **changes,
    }
    num_targets = len(fields["targets"])
    fields.setdefault("truth", fields["values"][:, :num_targets].copy())
    return SearchData(**fields)
