"""Contracts of `Windows`: which rows a window reads, which it is scored on, and none else."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.scaling import Scaling
from pipelines.splits import SearchData
from pipelines.windows import Windows, build_windows, evenly_spaced

MakeData = Callable[..., SearchData]


def windows_of(data: SearchData, lookback: int = 10, use_calendar: bool = True) -> Windows:
    return build_windows(data, Scaling.fit(data), lookback, use_calendar, "cpu")


def test_a_window_holds_the_rows_before_its_origin_and_the_future_those_after(
    make_data: MakeData,
) -> None:
    data = make_data()
    windows = windows_of(data)
    encoded = Scaling.fit(data).encode(data.values)
    origins = torch.tensor([10, 33, 120 - 4])  # the first one, and the last one
    window, known = windows.inputs(origins)
    assert known is not None
    for place, t in enumerate(origins.tolist()):
        np.testing.assert_array_equal(window[place], encoded[t - 10 : t])
        np.testing.assert_array_equal(known[place], data.known[t - 10 : t + 4])
        np.testing.assert_array_equal(windows.spans(origins, 1)[place], encoded[t - 10 : t + 4, 1])
        np.testing.assert_array_equal(windows.future(origins)[place], encoded[t : t + 4, :1])
        np.testing.assert_array_equal(windows.true_future(origins)[place], data.truth[t : t + 4])
        np.testing.assert_array_equal(windows.last_level(origins)[place], data.values[t - 1, :1])


def test_without_calendar_nothing_is_known_ahead(make_data: MakeData) -> None:
    windows = windows_of(make_data(), use_calendar=False)
    assert windows.shape.num_known == 0
    assert windows.inputs(windows.train_origins)[1] is None


def test_every_training_window_that_fits_is_there_and_none_touches_a_row_after_the_cut(
    make_data: MakeData,
) -> None:
    data = make_data()
    windows = windows_of(data)
    assert windows.train_origins.tolist() == list(range(10, 80 - 4 + 1))
    assert int(windows.train_origins.max()) + data.horizon - 1 < data.num_train_rows


def test_training_batches_hold_no_value_from_after_the_cut(make_data: MakeData) -> None:
    data = make_data()
    marked = np.where(np.arange(120)[:, None] < data.num_train_rows, data.values, np.nan)
    windows = build_windows(
        dataclasses.replace(data, values=marked), Scaling.fit(data), 10, True, "cpu"
    )
    window, _ = windows.inputs(windows.train_origins)
    assert not window.isnan().any()
    assert not windows.future(windows.train_origins).isnan().any()


def test_when_every_value_after_the_cut_changes_then_the_training_tensors_do_not(
    make_data: MakeData,
) -> None:
    data = make_data()
    is_train = np.arange(data.num_rows)[:, None] < data.num_train_rows
    altered = dataclasses.replace(
        data,
        values=np.where(is_train, data.values, 1e6),
        truth=np.where(is_train, data.truth, -1e6),
    )
    before, after = windows_of(data), windows_of(altered)
    origins = before.train_origins
    torch.testing.assert_close(after.train_origins, origins, rtol=0, atol=0)
    for read in (Windows.future, Windows.true_future, Windows.last_level):
        torch.testing.assert_close(read(after, origins), read(before, origins), rtol=0, atol=0)
    for one, other in zip(after.inputs(origins), before.inputs(origins), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("lookback", [1, 10, 70])
def test_validation_origins_are_the_same_for_every_lookback(
    make_data: MakeData, lookback: int
) -> None:
    windows = windows_of(make_data(), lookback)
    assert windows.validation_origins.tolist() == list(range(80, 120 - 4 + 1))
    assert windows.inputs(windows.validation_origins)[0].shape == (37, lookback, 2)


def test_no_forecast_starts_after_a_row_that_was_not_measured(make_data: MakeData) -> None:
    is_observed = np.full(120, True)
    is_observed[[40, 90]] = False
    windows = windows_of(make_data(is_observed=is_observed))
    assert 41 not in windows.train_origins
    assert 91 not in windows.validation_origins
    assert {40, 42} <= set(windows.train_origins.tolist())


@pytest.mark.parametrize(
    ("changes", "lookback", "message"),
    [
        ({}, 77, r"fit into the training part: got lookback=77, horizon=4 and 80 rows; lower"),
        ({"horizon": 41}, 10, r"fit into the validation part: got horizon=41 and 40 rows; lower"),
        (
            {"truth": np.where(np.arange(120)[:, None] < 80, 1.0, np.nan)},
            10,
            r"measured values of each target: got none of load in its 40 rows; drop",
        ),
    ],
    ids=["no training window", "no validation window", "nothing to score"],
)
def test_a_table_without_windows_is_refused(
    make_data: MakeData, changes: dict[str, Any], lookback: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        windows_of(make_data(**changes), lookback)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(3, [5, 9, 14]), (10, list(range(5, 15))), (None, list(range(5, 15)))],
)
def test_origins_are_thinned_evenly(limit: int | None, expected: list[int]) -> None:
    assert evenly_spaced(torch.arange(5, 15), limit).tolist() == expected


@pytest.mark.parametrize("count", [2049, 5000, 1_000_000])
def test_thinned_origins_are_distinct_and_keep_both_ends(count: int) -> None:
    thinned = evenly_spaced(torch.arange(count), 2048)
    assert len(set(thinned.tolist())) == 2048
    assert (int(thinned[0]), int(thinned[-1])) == (0, count - 1)
