"""Contracts of the comparison: the bootstrap against arch, the test against dieboldmariano."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from arch.bootstrap import MovingBlockBootstrap
from dieboldmariano import NegativeVarianceException, dm_test

from pipelines.comparison import (
    NUM_RESAMPLES,
    TOO_SHORT,
    Metric,
    block_length_of,
    compare,
    diebold_mariano,
    resampled_skills,
)
from pipelines.final_test import WindowLosses

METRICS: tuple[Metric, ...] = ("mae", "mse", "rmse", "mase")


def losses(
    seed: int, num_windows: int = 230, level: float = 1.0, gaps: bool = False
) -> WindowLosses:
    """Losses of overlapping windows of six steps and two targets."""
    generator = np.random.default_rng(seed)
    errors = level * np.abs(generator.normal(size=(num_windows + 5, 2))) + 0.1
    is_measured = np.random.default_rng(99).random(errors.shape) > (0.1 if gaps else -1)
    windows = np.arange(num_windows)[:, None] + np.arange(6)

    def total(values: np.ndarray) -> torch.Tensor:
        return torch.tensor((values * is_measured)[windows].sum(axis=1))

    return WindowLosses(
        total(errors),
        total(errors**2),
        total(np.ones_like(errors)),
        torch.tensor([0.5, 2.0]).double(),
    )


Windows = npt.NDArray[np.int64]


def skill_by_hand(
    model: WindowLosses, other: WindowLosses, metric: Metric
) -> Callable[[Windows], float]:
    """The skill over some windows, each error a mean over targets."""

    def error_of(losses: WindowLosses) -> Callable[[Windows], float]:
        squared = metric in ("mse", "rmse")
        sums = (losses.squared if squared else losses.absolute).numpy()
        counts, unit = losses.count.numpy(), losses.mase_unit.numpy()

        def error(chosen: Windows) -> float:
            by_target = sums[chosen].sum(axis=0) / counts[chosen].sum(axis=0)
            if metric == "rmse":
                by_target = np.sqrt(by_target)
            return float((by_target / unit if metric == "mase" else by_target).mean())

        return error

    own, others = error_of(model), error_of(other)
    return lambda chosen: 1 - own(chosen) / others(chosen)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("gaps", [False, True], ids=["whole", "gaps"])
def test_skill_and_bounds_are_those_of_archs_moving_block_bootstrap(
    metric: Metric, gaps: bool
) -> None:
    model, other = losses(0, gaps=gaps), losses(1, level=1.2, gaps=gaps)
    skill, windows = skill_by_hand(model, other, metric), np.arange(230)
    bootstrap = MovingBlockBootstrap(12, windows, seed=np.random.default_rng(0))
    expected = bootstrap.apply(skill, NUM_RESAMPLES)[:, 0]
    found = resampled_skills(model, other, metric, 12)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    comparison = compare("other", model, other, metric, 6, 12)
    assert comparison.skill == pytest.approx(skill(windows))
    centred = expected - expected.mean() + skill(windows)
    assert (comparison.lower, comparison.upper) == pytest.approx(
        tuple(np.quantile(centred, [0.025, 0.975]))
    )
    assert (comparison.num_blocks, comparison.block_length) == (19, 12)


def test_another_seed_of_arch_gives_the_same_bounds_within_chance() -> None:
    model, other = losses(0), losses(1, level=1.2)
    skill = skill_by_hand(model, other, "mae")
    draws = MovingBlockBootstrap(12, np.arange(230), seed=np.random.default_rng(7))
    drawn = draws.apply(skill, NUM_RESAMPLES)[:, 0]
    expected = np.quantile(drawn - drawn.mean() + skill(np.arange(230)), [0.025, 0.975])
    comparison = compare("other", model, other, "mae", 6, 12)
    width = expected[1] - expected[0]
    assert comparison.lower == pytest.approx(expected[0], abs=0.1 * width)
    assert comparison.upper == pytest.approx(expected[1], abs=0.1 * width)


def test_windows_that_are_alike_make_wider_intervals_in_blocks() -> None:
    model, other = losses(0, 1000), losses(1, 1000)
    single, blocks = compare("", model, other, "mae", 6, 1), compare("", model, other, "mae", 6, 24)
    assert single.lower is not None
    assert single.upper is not None
    assert blocks.lower is not None
    assert blocks.upper is not None
    assert blocks.upper - blocks.lower > 1.5 * (single.upper - single.lower)


def test_most_intervals_hold_the_truth() -> None:
    generator = np.random.default_rng(0)
    num_held = 0
    for _ in range(60):
        # Windows of one step: the true errors are 1 and 1.25, the true skill 0.2.
        sums = generator.exponential(size=(2, 200, 1)) * [[[1.0]], [[1.25]]]
        ones = torch.ones(200, 1).double()
        model, other = (
            WindowLosses(torch.tensor(each), torch.tensor(each), ones, ones[0]) for each in sums
        )
        found = compare("", model, other, "mae", 1, 5)
        assert found.lower is not None
        assert found.upper is not None
        num_held += found.lower < 0.2 < found.upper
    assert 53 <= num_held <= 59  # 57 of 60 are 95 %


def test_a_bad_last_block_that_is_seldom_drawn_still_lowers_the_bounds() -> None:
    model, other = losses(0, 400), losses(1, 400, level=1.2)
    model.absolute[-20:] *= 5
    found = compare("", model, other, "mae", 6, 40)
    drawn = resampled_skills(model, other, "mae", 40)
    assert found.skill is not None
    assert found.lower is not None
    assert found.upper is not None
    assert drawn.mean() > found.skill + 0.02
    assert found.lower < np.quantile(drawn, 0.025) - 0.02
    assert found.lower < found.skill < found.upper


@pytest.mark.parametrize(
    ("num_windows", "is_bounded"), [(79, False), (80, True)], ids=["seven blocks", "eight blocks"]
)
def test_fewer_than_eight_blocks_are_too_short_for_an_interval(
    num_windows: int, is_bounded: bool
) -> None:
    found = compare("", losses(0, num_windows), losses(1, num_windows), "mae", 6, 10)
    assert (found.lower is not None) == (found.upper is not None) == is_bounded
    assert (found.note == TOO_SHORT) != is_bounded
    assert found.diebold_mariano is not None


@pytest.mark.parametrize("horizon", [1, 2, 6, 24])
@pytest.mark.parametrize("num_windows", [60, 500])
def test_diebold_mariano_agrees_with_another_implementation(horizon: int, num_windows: int) -> None:
    generator = np.random.default_rng(horizon)
    shocks = generator.normal(size=num_windows + horizon)
    # Moving sums, correlated like the losses of overlapping windows.
    differences = np.convolve(shocks, np.ones(horizon), "valid")[:num_windows] + 0.2
    statistic, p_value, note = diebold_mariano(differences, horizon)
    settings: dict[str, Any] = {"loss": lambda truth, forecast: forecast, "h": horizon}
    series = ([0.0] * num_windows, differences.tolist(), [0.0] * num_windows)
    try:
        expected = dm_test(*series, **settings)
        assert note == ""
    except NegativeVarianceException:
        expected = dm_test(*series, **settings, variance_estimator="bartlett")
        assert note == "Bartlett kernel: the variance was not positive"
    assert (statistic, p_value) == pytest.approx(expected, rel=1e-9)


def test_a_variance_that_is_not_positive_is_replaced_by_bartletts_and_said() -> None:
    differences = 0.1 + np.resize([1.0, -1.0], 40)  # each opposes its neighbour
    series = ([0.0] * 40, differences.tolist(), [0.0] * 40)
    settings: dict[str, Any] = {"loss": lambda truth, forecast: forecast, "h": 2}
    with pytest.raises(NegativeVarianceException):
        dm_test(*series, **settings)
    statistic, p_value, note = diebold_mariano(differences, 2)
    expected = dm_test(*series, **settings, variance_estimator="bartlett")
    assert (statistic, p_value) == pytest.approx(expected, rel=1e-9)
    assert note == "Bartlett kernel: the variance was not positive"


def test_the_statistic_is_negative_where_the_model_errs_less() -> None:
    better = compare("", losses(0), losses(1, level=2), "mae", 6, 12)
    worse = compare("", losses(1, level=2), losses(0), "mae", 6, 12)
    assert better.diebold_mariano is not None
    assert better.diebold_mariano < 0
    assert better.diebold_mariano == pytest.approx(-(worse.diebold_mariano or 0))
    assert better.p_value == worse.p_value
    assert better.skill is not None
    assert better.skill > 0


def test_a_difference_is_the_mean_over_the_targets_measured_in_a_window() -> None:
    model, other = losses(0, gaps=True), losses(1, gaps=True)
    for of in (model, other):
        of.absolute[3], of.squared[3], of.count[3] = 0, 0, 0
    expected = []
    for window in range(230):
        each = [
            (model.absolute[window, target] - other.absolute[window, target]) / count
            for target, count in enumerate(model.count[window].tolist())
            if count > 0
        ]
        expected += [float(np.mean(each))] if each else []
    assert len(expected) == 229
    found = compare("", model, other, "mae", 6, 12)
    assert (found.diebold_mariano, found.p_value) == diebold_mariano(np.array(expected), 6)[:2]


@pytest.mark.parametrize("num_windows", [1, 2, 6])
def test_very_few_windows_give_no_test_and_no_interval(num_windows: int) -> None:
    found = compare("", losses(0, num_windows), losses(1, num_windows), "mse", 6, 168)
    assert found.skill is not None
    assert (found.lower, found.diebold_mariano, found.p_value) == (None, None, None)
    assert found.note == f"{TOO_SHORT}; too few windows for a Diebold–Mariano test"


def test_a_model_against_itself_has_no_skill_and_no_test() -> None:
    found = compare("itself", losses(0), losses(0), "mae", 6, 12)
    assert (found.skill, found.lower, found.upper) == (0, 0, 0)
    assert (found.diebold_mariano, found.p_value) == (None, None)
    assert found.note == "all differences are equal"


def test_an_opponent_without_error_leaves_the_skill_undefined() -> None:
    model, other = losses(0), losses(1, level=0)
    zero = torch.zeros_like(other.absolute)
    other = WindowLosses(zero, zero, other.count, other.mase_unit)
    found = compare("an oracle", model, other, "mae", 6, 12)
    assert (found.skill, found.lower, found.upper) == (None, None, None)
    assert "the opponent's error is 0" in found.note
    assert found.diebold_mariano is not None
    assert found.diebold_mariano > 0


def test_a_target_without_measurements_is_left_out() -> None:
    model, other = losses(0), losses(1)
    for of in (model, other):
        of.absolute[:, 1], of.squared[:, 1], of.count[:, 1] = 0, 0, 0
    found = compare("", model, other, "mae", 6, 12)
    only = float(1 - model.absolute[:, 0].sum() / other.absolute[:, 0].sum())
    assert found.skill == pytest.approx(only)
    assert found.lower is not None


def test_an_undefined_mase_is_no_comparison() -> None:
    model, other = losses(0), losses(1)
    unit = torch.full((2,), math.nan).double()
    model = WindowLosses(model.absolute, model.squared, model.count, unit)
    assert compare("", model, other, "mase", 6, 12).skill is None


def test_a_comparison_repeats_itself() -> None:
    assert compare("", losses(0), losses(1), "mae", 6, 12) == compare(
        "", losses(0), losses(1), "mae", 6, 12
    )


@pytest.mark.parametrize(
    ("frequency", "horizon", "expected"),
    [
        ("h", 24, 168),
        ("15min", 24, 672),
        ("D", 3, 7),
        ("D", 30, 30),
        ("B", 3, 5),
        ("W-TUE", 4, 4),
        ("W-TUE", 1, 1),
        ("MS", 12, 12),
        ("YE-DEC", 3, 3),
        (None, 24, 24),
    ],
)
def test_a_block_is_the_longer_of_the_horizon_and_a_week(
    frequency: str | None, horizon: int, expected: int
) -> None:
    assert block_length_of(horizon, frequency) == expected
