"""Contracts of `Forecaster`: what reaches a forecast, what it starts from, what it promises."""

from collections.abc import Callable
from math import ceil
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from models.config import LSTMConfig, WindowShape
from models.forecaster import Forecaster

SHAPE = WindowShape(lookback=24, horizon=10, num_features=3, num_targets=2, num_known=2, season=7)

# name -> what is changed in a forecaster of two unequal layers
STRUCTURES: dict[str, dict[str, Any]] = {
    "last state": {},
    "last state, bidirectional": {"bidirectional": True},
    "last state, patches": {"patch_length": 4},
    "aligned": {"head": "aligned"},
    "aligned, bidirectional": {"head": "aligned", "bidirectional": True},
    "aligned, patches": {"head": "aligned", "patch_length": 4},
    "aligned, bidirectional, patches": {
        "head": "aligned",
        "bidirectional": True,
        "patch_length": 4,
    },
    "linear twin": {"widths": ()},
}
every_structure = pytest.mark.parametrize("changes", STRUCTURES.values(), ids=STRUCTURES.keys())
every_normalisation = pytest.mark.parametrize(
    "normalisation", ["none", "last", "mean_std", "seasonal"]
)
with_and_without_known = pytest.mark.parametrize("num_known", [0, 2], ids=["K=0", "K=2"])


def untrained(shape: WindowShape = SHAPE, **changes: Any) -> Forecaster:
    config = LSTMConfig.model_validate({"widths": (4, 6), **changes})
    return Forecaster(config, shape).eval()


def trained(shape: WindowShape = SHAPE, **changes: Any) -> Forecaster:
    """Return a forecaster whose parts all say something: no parameter is zero."""
    forecaster = untrained(shape, **changes)
    for parameter in forecaster.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return forecaster


def random_arrays(
    shape: WindowShape = SHAPE, num_windows: int = 5, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    window = torch.randn(num_windows, shape.lookback, shape.num_features, dtype=dtype)
    num_steps = shape.lookback + shape.horizon
    return window, torch.randn(num_windows, num_steps, shape.num_known, dtype=dtype)


def consecutive_windows(series: Tensor, num_windows: int) -> Tensor:
    """Return the first windows of a series [N, F], each one step after the last, [B, L, F]."""
    return torch.stack([series[start : start + SHAPE.lookback] for start in range(num_windows)])


# What reaches a forecast


@with_and_without_known
@every_normalisation
@every_structure
def test_a_forecast_has_the_horizon_and_the_targets(
    changes: dict[str, Any], normalisation: str, num_known: int
) -> None:
    shape = SHAPE.model_copy(update={"num_known": num_known})
    window, known = random_arrays(shape)
    forecaster = trained(shape, normalisation=normalisation, **changes)
    forecast = forecaster(window, known)
    assert forecast.shape == (5, 10, 2)
    assert forecast.isfinite().all()


@every_normalisation
@every_structure
def test_altered_values_after_the_windows_end_change_no_forecast(
    changes: dict[str, Any], normalisation: str
) -> None:
    forecaster = trained(normalisation=normalisation, **changes)
    series, (_, known) = torch.randn(60, 3), random_arrays()
    altered = series.clone()
    altered[SHAPE.lookback :] += 1000 * torch.randn(60 - SHAPE.lookback, 3)
    # The later windows of the batch hold the first one's future: it must not come that way either.
    before = forecaster(consecutive_windows(series, 5), known)
    after = forecaster(consecutive_windows(altered, 5), known)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


@every_normalisation
@every_structure
def test_no_gradient_of_a_forecast_reaches_a_value_after_the_windows_end(
    changes: dict[str, Any], normalisation: str
) -> None:
    forecaster = trained(normalisation=normalisation, **changes)
    series, (_, known) = torch.randn(60, 3, requires_grad=True), random_arrays()
    forecast = forecaster(consecutive_windows(series, 5), known)
    (gradient,) = torch.autograd.grad(forecast[0].square().sum(), series)
    assert (gradient[SHAPE.lookback :] == 0).all()
    assert (gradient[: SHAPE.lookback, : SHAPE.num_targets] != 0).all()


@pytest.mark.parametrize(
    ("changes", "reached_by_step_3"),
    [
        ({}, {3}),
        ({"widths": ()}, {3}),
        ({"widths": (), "head": "aligned"}, {3}),
        ({"head": "aligned"}, set(range(3, 10))),
        ({"head": "aligned", "bidirectional": True}, set(range(10))),
    ],
    ids=["last state", "linear twin", "linear twin, aligned", "aligned", "aligned, bidirectional"],
)
def test_a_covariate_of_the_horizon_reaches_the_steps_that_may_know_it(
    changes: dict[str, Any], reached_by_step_3: set[int]
) -> None:
    forecaster = trained(**changes)
    window, known = random_arrays()
    altered = known.clone()
    altered[:, SHAPE.lookback + 3] += 10
    difference = forecaster(window, altered) - forecaster(window, known)
    steps = difference.abs().amax(dim=(0, 2)).nonzero().flatten()
    assert set(steps.tolist()) == reached_by_step_3


@pytest.mark.parametrize("head", ["last_state", "aligned"])
def test_a_covariate_of_the_window_reaches_the_forecast(head: str) -> None:
    forecaster = trained(head=head)
    window, known = random_arrays()
    altered = known.clone()
    altered[:, 20] += 10
    assert not torch.equal(forecaster(window, altered), forecaster(window, known))


# The parts, by hand


@pytest.mark.parametrize("patch_length", [1, 4])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both"])
def test_the_last_state_gives_all_steps_and_covariates_add_to_each(
    bidirectional: bool, patch_length: int
) -> None:
    forecaster = trained(
        normalisation="none",
        linear_skip="none",
        bidirectional=bidirectional,
        patch_length=patch_length,
    )
    window, known = random_arrays(num_windows=1)
    rows = [torch.cat([window[0, step], known[0, step]]) for step in range(24)]
    positions = [torch.cat(rows[i : i + patch_length]) for i in range(0, 24, patch_length)]
    lstm, effect = forecaster.lstm, forecaster.known_effect
    assert lstm is not None
    assert effect is not None
    _, (h_n, _) = lstm.lstm(torch.stack(positions)[None])
    outputs = lstm.readout(torch.cat([direction[0] for direction in h_n[-1]]))
    by_hand = [
        outputs[2 * step : 2 * step + 2] + effect.weight @ known[0, 24 + step] for step in range(10)
    ]
    assert_close(forecaster(window, known)[0], torch.stack(by_hand))


@pytest.mark.parametrize("patch_length", [1, 4])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both"])
def test_an_aligned_head_maps_each_state_of_the_horizon_to_its_own_steps(
    bidirectional: bool, patch_length: int
) -> None:
    forecaster = trained(
        normalisation="none",
        linear_skip="none",
        head="aligned",
        bidirectional=bidirectional,
        patch_length=patch_length,
    )
    window, known = random_arrays(num_windows=1)
    num_patches = ceil(10 / patch_length)
    rows = []
    for step in range(24 + num_patches * patch_length):
        is_past = step < 24
        values = window[0, step] if is_past else torch.zeros(3)
        covariates = known[0, step] if step < 34 else torch.zeros(2)
        rows.append(torch.cat([values, torch.tensor([float(is_past)]), covariates]))
    positions = [torch.cat(rows[i : i + patch_length]) for i in range(0, len(rows), patch_length)]
    lstm = forecaster.lstm
    assert lstm is not None
    states, _ = lstm.lstm(torch.stack(positions)[None])
    by_hand = []
    for state in states[0, -num_patches:]:
        by_hand.extend(lstm.readout(state).split(SHAPE.num_targets))
    assert_close(forecaster(window, known)[0], torch.stack(by_hand[:10]))


@pytest.mark.parametrize("linear_skip", ["shared", "per_target"])
def test_the_linear_twin_is_its_maps_and_the_covariates_effect(linear_skip: str) -> None:
    forecaster = trained(widths=(), linear_skip=linear_skip)
    window, known = random_arrays(num_windows=1)
    skip, effect = forecaster.skip, forecaster.known_effect
    assert skip is not None
    assert effect is not None
    for step in range(10):
        for target in range(2):
            own = 0 if linear_skip == "shared" else target
            last = window[0, -1, target]
            expected = last + skip.bias[own, step] + effect.weight[target] @ known[0, 24 + step]
            for past in range(24):
                change = window[0, past, target] - last
                expected = expected + skip.weight[own, step, past] * change
            assert_close(forecaster(window, known)[0, step, target], expected)


def test_surplus_steps_of_the_last_patch_are_cut() -> None:
    whole_patches = SHAPE.model_copy(update={"horizon": 12})
    changes: dict[str, Any] = {"head": "aligned", "patch_length": 4, "linear_skip": "none"}
    longer, shorter = trained(whole_patches, **changes), untrained(**changes)
    shorter.load_state_dict(longer.state_dict())
    window, known = random_arrays()
    known_longer = torch.cat([known, torch.zeros(5, 2, 2)], dim=1)
    assert_close(shorter(window, known), longer(window, known_longer)[:, :10])


def test_dropout_acts_before_the_head_in_training_only() -> None:
    for head in ("last_state", "aligned"):
        forecaster = trained(widths=(8,), dropout=0.5, head=head)
        arrays = random_arrays()
        in_evaluation = forecaster(*arrays)
        assert torch.equal(in_evaluation, forecaster(*arrays))
        assert not torch.equal(in_evaluation, forecaster.train()(*arrays))


# What training starts from


def seasonal_naive(window: Tensor, shape: WindowShape) -> Tensor:
    """Return x at L + h - m ⌈h/m⌉ for each step h = 1…H, where x at 1…L is the window."""
    steps = []
    for h in range(1, shape.horizon + 1):
        position = shape.lookback + h - shape.season * ceil(h / shape.season)
        steps.append(window[:, position - 1, : shape.num_targets])
    return torch.stack(steps, dim=1)


NAIVE_FORECASTS: dict[str, Callable[[Tensor, WindowShape], Tensor]] = {
    "none": lambda window, shape: torch.zeros(len(window), shape.horizon, shape.num_targets),
    "last": lambda window, shape: window[:, -1:, : shape.num_targets].expand(-1, shape.horizon, -1),
    "mean_std": lambda window, shape: (
        window[:, :, : shape.num_targets].mean(dim=1, keepdim=True).expand(-1, shape.horizon, -1)
    ),
    "seasonal": seasonal_naive,
}


@with_and_without_known
@every_normalisation
@every_structure
def test_an_untrained_forecaster_gives_the_forecast_of_its_normalisation(
    changes: dict[str, Any], normalisation: str, num_known: int
) -> None:
    shape = SHAPE.model_copy(update={"num_known": num_known})
    window, known = random_arrays(shape)
    forecast = untrained(shape, normalisation=normalisation, **changes)(window, known)
    assert_close(forecast, NAIVE_FORECASTS[normalisation](window, shape), rtol=0, atol=1e-6)


@pytest.mark.parametrize("season", [2, 3, 10, 24])
def test_an_untrained_seasonal_forecaster_without_skip_is_exactly_the_seasonal_naive(
    season: int,
) -> None:
    shape = SHAPE.model_copy(update={"season": season})
    window, known = random_arrays(shape)
    forecaster = untrained(shape, normalisation="seasonal", linear_skip="none")
    assert torch.equal(forecaster(window, known), seasonal_naive(window, shape))


@every_structure
def test_training_from_the_zero_start_reaches_every_parameter(changes: dict[str, Any]) -> None:
    forecaster = untrained(**changes).train()
    before = {name: value.clone() for name, value in forecaster.state_dict().items()}
    optimiser = torch.optim.SGD(forecaster.parameters(), lr=0.1)
    arrays, future = random_arrays(), torch.randn(5, 10, 2)
    for _ in range(3):
        optimiser.zero_grad()
        (forecaster(*arrays) - future).square().mean().backward()
        optimiser.step()
    for name, value in forecaster.state_dict().items():
        assert not torch.equal(value, before[name]), name


# What a normalisation promises


@pytest.mark.parametrize("normalisation", ["last", "mean_std", "seasonal"])
@every_structure
def test_a_shifted_window_gives_the_shifted_forecast(
    changes: dict[str, Any], normalisation: str
) -> None:
    forecaster = trained(normalisation=normalisation, **changes).double()
    window, known = random_arrays(dtype=torch.float64)
    shift = torch.tensor([100.0, -20.0, 3.0], dtype=torch.float64)
    assert_close(forecaster(window + shift, known), forecaster(window, known) + shift[:2])


@every_structure
def test_under_mean_std_a_stretched_window_gives_the_stretched_forecast(
    changes: dict[str, Any],
) -> None:
    forecaster = trained(normalisation="mean_std", **changes).double()
    window, known = random_arrays(dtype=torch.float64)
    stretch = torch.tensor([7.0, 0.5, 3.0], dtype=torch.float64)
    # Up to the small number that keeps a constant window's deviation from zero.
    expected = forecaster(window, known) * stretch[:2]
    assert_close(forecaster(window * stretch, known), expected, rtol=1e-3, atol=1e-3)


def test_without_normalisation_the_level_of_the_window_matters() -> None:
    forecaster = trained(normalisation="none")
    window, known = random_arrays()
    assert not torch.allclose(forecaster(window + 1, known), forecaster(window, known) + 1)


@every_normalisation
def test_a_constant_window_gives_a_finite_forecast_and_finite_gradients(normalisation: str) -> None:
    forecaster = trained(normalisation=normalisation)
    _, known = random_arrays()
    forecast = forecaster(torch.full((5, 24, 3), 0.7), known)
    forecast.sum().backward()
    assert forecast.isfinite().all()
    for parameter in forecaster.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_under_autocast_the_forecast_keeps_the_windows_number_type() -> None:
    # The linear twin: oneDNN has an LSTM in bfloat16 only on CPUs with AVX-512.
    forecaster = trained(widths=(), normalisation="none")
    with torch.autocast("cpu", torch.bfloat16):
        assert forecaster(*random_arrays()).dtype == torch.float32


# Arrays that do not fit


def test_a_window_of_another_shape_is_refused() -> None:
    window, known = random_arrays()
    with pytest.raises(ValueError, match=r"window must be \[B, 24, 3\]: got \[5, 23, 3\]; cut"):
        untrained()(window[:, 1:], known)
    with pytest.raises(ValueError, match=r"window must be \[B, 24, 3\]: got \[5, 24, 2\]; cut"):
        untrained()(window[..., 1:], known)


def test_covariates_of_the_window_alone_are_refused() -> None:
    window, known = random_arrays()
    with pytest.raises(ValueError, match=r"known must be \[5, 34, 2\]: got \[5, 24, 2\]; give"):
        untrained()(window, known[:, :24])


def test_missing_covariates_are_refused() -> None:
    window, _ = random_arrays()
    with pytest.raises(ValueError, match=r"known must be \[5, 34, 2\]: got none; give"):
        untrained()(window)


def test_without_covariates_known_may_be_left_out() -> None:
    shape = SHAPE.model_copy(update={"num_known": 0})
    window, known = random_arrays(shape)
    for head in ("last_state", "aligned"):
        forecaster = trained(shape, head=head)
        assert torch.equal(forecaster(window), forecaster(window, known))
