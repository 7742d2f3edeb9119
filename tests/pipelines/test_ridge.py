"""Contracts of ridge regression: the minimum it claims to be."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pipelines.ridge import fit_ridge, solve_ridge
from pipelines.scaling import Scaling
from pipelines.splits import SearchData
from pipelines.windows import build_windows

MakeData = Callable[..., SearchData]


@pytest.mark.parametrize("num_rows", [200, 5], ids=["many rows", "fewer rows than weights"])
@pytest.mark.parametrize("penalty", [1e-3, 1.0, 100.0])
def test_the_gradient_of_the_penalised_error_is_zero(num_rows: int, penalty: float) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = 3 + torch.randn(num_rows, 8, generator=generator, dtype=torch.float64)
    outputs = torch.randn(num_rows, 2, generator=generator, dtype=torch.float64)
    weights, bias = (each[0] for each in solve_ridge(inputs, outputs, (penalty,)))
    weights.requires_grad_()
    bias.requires_grad_()
    error = (inputs @ weights + bias - outputs).square().sum() + penalty * weights.square().sum()
    for gradient in torch.autograd.grad(error, (weights, bias)):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-8)


def test_penalties_solved_together_are_those_solved_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(50, 8, generator=generator, dtype=torch.float64)
    outputs = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    together = solve_ridge(inputs, outputs, (1.0, 10.0))
    for place, penalty in enumerate((1.0, 10.0)):
        for all_solutions, alone in zip(
            together, solve_ridge(inputs, outputs, (penalty,)), strict=True
        ):
            torch.testing.assert_close(all_solutions[place], alone[0])


def test_a_row_of_importance_three_is_three_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(50, 8, generator=generator, dtype=torch.float64)
    outputs = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    importance = torch.ones(50, dtype=torch.float64)
    importance[7] = 3
    weighted = solve_ridge(inputs, outputs, (1.0,), importance)
    places = [*range(50), 7, 7]
    repeated = solve_ridge(inputs[places], outputs[places], (1.0,))
    for one, other in zip(weighted, repeated, strict=True):
        torch.testing.assert_close(one, other)


def test_each_target_has_its_own_map_and_a_forecast_is_that_map_applied(
    make_data: MakeData,
) -> None:
    data = make_data(targets=("load", "heat"))
    scaling = Scaling.fit(data)
    windows = build_windows(data, scaling, 10, False, "cpu")
    (ridge,) = fit_ridge(windows, (1.0,))
    encoded = scaling.encode(data.values).astype(np.float64)
    forecast = ridge.forecast(windows, torch.tensor([30, 90]))
    for place, t in enumerate((30, 90)):
        for target in range(2):
            past, last = encoded[t - 10 : t, target], encoded[t - 1, target]
            weights, bias = ridge.weights[target].numpy(), ridge.bias[target].numpy()
            expected = last + (past - last) @ weights + bias
            np.testing.assert_allclose(forecast[place, :, target], expected)


def test_when_every_value_after_the_cut_changes_then_the_fit_does_not(make_data: MakeData) -> None:
    data = make_data()
    altered = data.values.copy()
    altered[data.num_train_rows :] = 1e6
    one, other = (
        fit_ridge(build_windows(table, Scaling.fit(table), 10, False, "cpu"), (1.0,))[0]
        for table in (data, make_data(values=altered))
    )
    assert torch.equal(one.weights, other.weights)
    assert torch.equal(one.bias, other.bias)
