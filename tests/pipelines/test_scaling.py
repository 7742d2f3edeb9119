"""Contracts of `Scaling`: fitted on train alone, and inverted exactly."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pipelines.scaling import Scaling
from pipelines.splits import SearchData

MakeData = Callable[..., SearchData]
every_transform = pytest.mark.parametrize("transform", ["none", "log", "diff", "log_return"])


@every_transform
def test_training_rows_have_mean_zero_and_deviation_one(
    make_data: MakeData, transform: str
) -> None:
    data = make_data(target_transform=transform)
    # The first difference has no predecessor: it is no part of the fit.
    first = 1 if transform in ("diff", "log_return") else 0
    train = Scaling.fit(data).encode(data.values)[first : data.num_train_rows, 0]
    assert train.mean() == pytest.approx(0, abs=1e-5)
    assert train.std() == pytest.approx(1, abs=1e-5)


@every_transform
def test_decoding_the_encoded_future_gives_it_back(make_data: MakeData, transform: str) -> None:
    data = make_data(target_transform=transform, targets=("load", "heat"))
    scaling = Scaling.fit(data)
    encoded = torch.from_numpy(scaling.encode(data.values))
    origins = [20, 90]
    forecast = torch.stack([encoded[t : t + 4] for t in origins])
    level = torch.stack([torch.from_numpy(data.values[t - 1]) for t in origins])
    decoded = scaling.decode(forecast, level)
    truth = torch.stack([torch.from_numpy(data.values[t : t + 4]) for t in origins])
    assert decoded.dtype == torch.float64
    torch.testing.assert_close(decoded, truth, rtol=1e-5, atol=1e-5)


@every_transform
def test_a_transform_is_the_textbook_one(make_data: MakeData, transform: str) -> None:
    values = np.array([[1.0, 7.0], [2.0, 7.5], [8.0, 6.0], [4.0, 9.0]])
    expected = {
        "none": np.array([1, 2, 8, 4]),
        "log": np.log([1, 2, 8, 4]),
        "diff": np.array([0, 1, 6, -4]),
        "log_return": np.log([1, 2, 4, 0.5]),
    }[transform]
    scaling = Scaling(
        transform=transform,  # type: ignore[arg-type]
        mean=(0.0, 7.0),
        scale=(1.0, 2.0),
        target_mean=(0.0,),
        target_scale=(1.0,),
    )
    encoded = scaling.encode(values)
    np.testing.assert_allclose(encoded[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(encoded[:, 1], [0, 0.25, -0.5, 1], rtol=1e-6)


@every_transform
def test_when_every_value_after_the_cut_changes_then_the_scaling_does_not(
    make_data: MakeData, transform: str
) -> None:
    data = make_data(target_transform=transform)
    altered = data.values.copy()
    altered[data.num_train_rows :] = 1e6
    assert Scaling.fit(make_data(target_transform=transform, values=altered)) == Scaling.fit(data)


def test_a_scaling_survives_json(make_data: MakeData) -> None:
    scaling = Scaling.fit(make_data(target_transform="log"))
    assert Scaling.model_validate_json(scaling.model_dump_json()) == scaling


def test_a_constant_column_is_only_shifted(make_data: MakeData) -> None:
    values = make_data().values.copy()
    values[:, 1] = 0.1  # its computed deviation is rounding noise, not 0
    data = make_data(values=values)
    scaling = Scaling.fit(data)
    assert scaling.scale[1] == 1.0
    np.testing.assert_allclose(scaling.encode(values)[:, 1], 0, atol=1e-6)


def test_a_small_change_of_a_large_level_is_not_lost(make_data: MakeData) -> None:
    values = 1e9 + np.cumsum(np.full((120, 2), 0.25), axis=0)
    values[1::2] += 0.125
    data = make_data(values=values, target_transform="diff")
    scaling = Scaling.fit(data)
    encoded = torch.from_numpy(scaling.encode(values))[None, 50:54, :1]
    decoded = scaling.decode(encoded, torch.from_numpy(values[49:50, :1]))
    torch.testing.assert_close(decoded[0], torch.from_numpy(values[50:54, :1]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("transform", ["log", "log_return"])
def test_a_logarithm_of_a_value_that_is_not_positive_is_refused(
    make_data: MakeData, transform: str
) -> None:
    values = make_data().values.copy()
    values[7, 0] = 0.0
    with pytest.raises(ValueError, match=r"positive targets: got 0\.0 in row 7 of target 0; use"):
        Scaling.fit(make_data(values=values, target_transform=transform))
