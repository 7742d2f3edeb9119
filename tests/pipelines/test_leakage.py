"""Contracts of the leakage audit: planted copies of the future are found, and nothing else."""

import dataclasses

import numpy as np
import pytest

from pipelines.leakage import audit
from pipelines.splits import SearchData

RIDGE_ERROR = 0.0794  # on the embedded table
Column = np.ndarray


def with_column(data: SearchData, column: Column) -> SearchData:
    """The table with a column beside its targets."""
    values = np.concatenate([data.values, column[:, None]], axis=1)
    return dataclasses.replace(data, values=values, columns=(*data.columns, "extra"))


def of_target(data: SearchData, target: Column) -> SearchData:
    """The table with another target and nothing else."""
    return dataclasses.replace(data, values=target[:, None], truth=target[:, None].copy())


def walk(num_rows: int, seed: int) -> Column:
    return np.random.default_rng(seed).normal(size=num_rows).cumsum()


def shifted(column: Column, lead: int) -> Column:
    """The column as it will be some rows later."""
    return np.concatenate([column[lead:], column[-lead:]])


@pytest.mark.parametrize("lead", [1, 12, 24])
def test_a_copy_from_the_future_is_found_with_its_lead(electricity: SearchData, lead: int) -> None:
    copy = shifted(electricity.truth[:, 0], lead)
    (warning,) = audit(with_column(electricity, 3 - 0.1 * copy), RIDGE_ERROR)
    steps = "1 step" if lead == 1 else f"{lead} steps"
    assert warning.startswith(
        f"extra may know the future: its latest value foretells load {steps} ahead with "
        "correlation -1.0000 and error "
    )
    assert warning.endswith("; leave extra out unless it is known that early")


@pytest.mark.parametrize("lead", [1, 12, 24])
def test_a_copy_of_a_random_walk_is_found_though_its_neighbours_are_alike(
    electricity: SearchData, lead: int
) -> None:
    slow = walk(electricity.num_rows, seed=0)
    (warning,) = audit(with_column(of_target(electricity, slow), shifted(slow, lead)), 0.1)
    assert f"foretells load {lead} step" in warning


def test_a_copy_with_gaps_and_noise_is_found(electricity: SearchData) -> None:
    generator = np.random.default_rng(0)
    load = electricity.values[:, 0]
    copy = shifted(load, 12) + generator.normal(scale=0.05 * load.std(), size=len(load))
    data = with_column(electricity, copy)
    is_gap = generator.random(len(load)) < 0.2
    truth = np.where(is_gap[:, None], np.nan, data.truth)
    data = dataclasses.replace(data, truth=truth, is_observed=~is_gap)
    (warning,) = audit(data, RIDGE_ERROR)
    assert "foretells load 12 steps ahead" in warning


def test_a_copy_whose_correlation_stray_values_hide_is_found_by_its_error(
    electricity: SearchData,
) -> None:
    noise = np.random.default_rng(0).normal(size=electricity.num_rows)
    copy = shifted(noise, 12)
    copy[: electricity.num_train_rows : 500] += 5  # the correlation falls to 0.98
    data = with_column(of_target(electricity, noise), copy)
    assert audit(data, best_baseline_error=0.08) == ()
    (warning,) = audit(data, best_baseline_error=0.8)
    assert "foretells load 12 steps ahead with correlation 0.97" in warning


def test_each_target_has_its_own_warning(electricity: SearchData) -> None:
    load = electricity.values[:, 0]
    other = walk(len(load), seed=1)
    targets = np.stack([load, other], axis=1)
    data = dataclasses.replace(
        electricity,
        values=np.column_stack([targets, shifted(other, 3), shifted(load, 5)]),
        truth=targets.copy(),
        targets=("load", "walk"),
        columns=("load", "walk", "from walk", "from load"),
    )
    warnings = audit(data, RIDGE_ERROR)
    assert [warning.partition(" with ")[0] for warning in warnings] == [
        "from load may know the future: its latest value foretells load 5 steps ahead",
        "from walk may know the future: its latest value foretells walk 3 steps ahead",
    ]


def honest(name: str, target: Column) -> Column:
    """A column that knows nothing of the future."""
    generator = np.random.default_rng(2)
    match name:
        case "the target itself":
            return target.copy()
        case "the target of a day ago":
            return np.roll(target, 24)
        case "the target with noise":
            return target + generator.normal(scale=0.01, size=len(target))
        case "another random walk":
            return walk(len(target), seed=3)
        case "a trend":
            return np.arange(len(target), dtype=float)
        case "a constant":
            return np.full(len(target), 0.1)
        case _:
            return generator.normal(size=len(target))


@pytest.mark.parametrize("kind", ["electricity", "random walk", "trend"])
@pytest.mark.parametrize(
    "name",
    [
        "the target itself",
        "the target of a day ago",
        "the target with noise",
        "another random walk",
        "a trend",
        "a constant",
        "noise",
    ],
)
def test_honest_columns_are_left_in_peace(electricity: SearchData, kind: str, name: str) -> None:
    num_rows = electricity.num_rows
    target = {
        "electricity": electricity.values[:, 0],
        "random walk": walk(num_rows, seed=0),
        "trend": np.arange(num_rows) + walk(num_rows, seed=0),
    }[kind]
    data = with_column(of_target(electricity, target), honest(name, target))
    assert audit(data, RIDGE_ERROR) == ()


def test_the_embedded_table_gives_no_warning(electricity: SearchData) -> None:
    assert audit(electricity, RIDGE_ERROR) == ()


def test_too_few_rows_give_no_warning(electricity: SearchData) -> None:
    copy = shifted(electricity.values[:, 0], 1)
    data = dataclasses.replace(with_column(electricity, copy), num_train_rows=40)
    assert audit(data, RIDGE_ERROR) == ()
