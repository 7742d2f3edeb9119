"""Contracts of the final test: errors against a slow loop, and against those of validation."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.baselines import fit_baselines, persistence, seasonal_naive
from pipelines.contenders import Contender
from pipelines.evaluation import evaluate_forecast
from pipelines.final_test import Measured, error_row, measure
from pipelines.metrics import naive_scale
from pipelines.scaling import Scaling
from pipelines.splits import SearchData, TestData
from pipelines.training_config import TrainingBudget
from pipelines.verdict import ErrorRow, TestScore
from pipelines.windows import Windows, build_test_windows

MakeData = Callable[..., SearchData]
MakeTestData = Callable[..., TestData]
NAIVE = Contender("persistence", "a note", 10, True, persistence)
SEASON = Contender("season", "", 30, False, seasonal_naive)
SHORT = TrainingBudget(max_steps=20, evaluate_every_steps=10, warmup_steps=2, precision="float32")


@pytest.fixture
def opened(make_test_data: MakeTestData) -> TestData:
    """Two targets, some of their measurements missing, in the test part too."""
    opened = make_test_data(targets=("load", "heat"))
    opened.truth[[20, 85, 90, 91, 110], 0] = np.nan
    opened.truth[100:104, 1] = np.nan
    opened.is_observed[[20, 85, 90, 91, 110, *range(100, 104)]] = False
    return opened


def measured(opened: TestData, *contenders: Contender) -> tuple[Measured, ...]:
    return measure(contenders, opened, Scaling.fit(opened))


def origins_of(opened: TestData) -> list[int]:
    """Every row of the test part that a forecast may start with."""
    return [t for t in range(80, 120 - 4 + 1) if opened.is_observed[t - 1]]


def errors_of_persistence(opened: TestData) -> Iterator[tuple[int, int, int, float]]:
    """Window, step, target and error, where there was a measurement."""
    for window, t in enumerate(origins_of(opened)):
        for step in range(4):
            for target in range(2):
                error = opened.values[t - 1, target] - opened.truth[t + step, target]
                if not math.isnan(error):
                    yield window, step, target, error


def row_of(opened: TestData, is_in: Callable[[int, int], bool]) -> ErrorRow:
    """The errors of persistence by a slow loop, over some steps and targets."""
    scaling = Scaling.fit(opened)
    units = naive_scale(torch.tensor(opened.truth[:60]), opened.season).tolist()
    rows = []
    for target in range(2):
        errors = [
            error
            for _, step, of, error in errors_of_persistence(opened)
            if of == target and is_in(step, target)
        ]
        if errors:
            mae, mse = float(np.mean(np.abs(errors))), float(np.mean(np.square(errors)))
            scale = scaling.target_scale[target]
            own = [mae, mse, mse**0.5, mae / units[target]]
            rows.append([*own, mae / scale, mse / scale**2, mse**0.5 / scale])
    return ErrorRow(**dict(zip(ErrorRow.model_fields, np.mean(rows, axis=0).tolist(), strict=True)))


def assert_alike(one: ErrorRow, other: ErrorRow) -> None:
    assert one.model_dump() == pytest.approx(other.model_dump(), rel=1e-12)


def test_errors_overall_by_step_and_by_target_are_those_of_a_loop(opened: TestData) -> None:
    (found,) = measured(opened, NAIVE)
    assert (found.score.name, found.score.note) == ("persistence", "a note")
    assert_alike(found.score.errors, row_of(opened, lambda step, target: True))
    assert (len(found.score.by_step), len(found.score.by_target)) == (4, 2)
    for place, row in enumerate(found.score.by_step):
        assert_alike(row, row_of(opened, lambda step, target, at=place: step == at))
    for place, row in enumerate(found.score.by_target):
        assert_alike(row, row_of(opened, lambda step, target, at=place: target == at))


def test_errors_overall_are_those_that_validation_would_give(opened: TestData) -> None:
    scaling = Scaling.fit(opened)
    for contender, found in zip((NAIVE, SEASON), measured(opened, NAIVE, SEASON), strict=True):
        windows, origins = build_test_windows(
            opened, scaling, contender.lookback, contender.use_calendar, "cpu"
        )
        errors = evaluate_forecast(partial(contender.forecast, windows), windows, scaling, origins)
        assert_alike(found.score.errors, error_row(errors))


def test_losses_of_a_window_are_sums_over_its_measured_steps(opened: TestData) -> None:
    (found,) = measured(opened, NAIVE)
    scale = Scaling.fit(opened).target_scale
    shape = len(origins_of(opened)), 2
    absolute, squared, count = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for window, _, target, error in errors_of_persistence(opened):
        absolute[window, target] += abs(error) / scale[target]
        squared[window, target] += (error / scale[target]) ** 2
        count[window, target] += 1
    np.testing.assert_allclose(found.losses.absolute, absolute, rtol=1e-12)
    np.testing.assert_allclose(found.losses.squared, squared, rtol=1e-12)
    np.testing.assert_array_equal(found.losses.count, count)
    assert (count == 0).any()


def test_every_contender_meets_the_same_windows_whatever_it_reads(opened: TestData) -> None:
    seen: dict[int, list[int]] = {}

    def noted(lookback: int) -> Contender:
        def forecast(windows: Windows, origins: Tensor) -> Tensor:
            assert windows.shape.lookback == lookback
            assert windows.inputs(origins)[0].shape[1] == lookback
            seen.setdefault(lookback, []).extend(origins.tolist())
            return persistence(windows, origins)

        return Contender(f"reads {lookback}", "", lookback, False, forecast)

    scores = [each.score.errors for each in measured(opened, noted(1), noted(10), noted(50))]
    assert seen == {lookback: origins_of(opened) for lookback in (1, 10, 50)}
    assert scores[0] == scores[1] == scores[2]


def test_batches_change_nothing(opened: TestData, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = measured(opened, NAIVE)
    monkeypatch.setattr("pipelines.final_test.EVALUATION_BATCH_SIZE", 7)
    (found,) = measured(opened, NAIVE)
    assert_alike(found.score.errors, whole.score.errors)
    assert torch.equal(found.losses.absolute, whole.losses.absolute)


def test_fitted_baselines_score_on_the_test_part_as_their_names_say(
    make_data: MakeData, make_test_data: MakeTestData
) -> None:
    opened = make_test_data()
    data = make_data(num_train_rows=60, values=opened.values[:80], truth=opened.truth[:80],
                     is_observed=opened.is_observed[:80], known=opened.known[:80])  # fmt: skip
    contenders = list(fit_baselines(data, SHORT, seed=0))
    found = {each.score.name: each.score.errors.mae for each in measured(opened, *contenders)}
    assert list(found) == [
        "persistence", "seasonal naive (6)", "training mean", "ridge", "linear twin",
    ]  # fmt: skip
    expected = [
        abs(opened.truth[t + step, 0] - opened.values[t + step - 6, 0])
        for t in range(80, 117)
        for step in range(4)
    ]
    assert found["seasonal naive (6)"] == pytest.approx(np.mean(expected))
    assert max(found, key=lambda name: found[name] or 0) in ("persistence", "training mean")


def test_a_target_without_measurements_has_no_errors_and_does_not_count(opened: TestData) -> None:
    opened.truth[80:, 1] = np.nan
    (found,) = measured(opened, NAIVE)
    assert set(found.score.by_target[1].model_dump().values()) == {None}
    assert found.score.errors == found.score.by_target[0]
    assert TestScore.model_validate_json(found.score.model_dump_json()) == found.score


def test_no_test_value_reaches_the_scaling_or_the_unit_of_mase(opened: TestData) -> None:
    (before,) = measured(opened, NAIVE)
    scaling = Scaling.fit(opened)
    opened.values[60:] *= 3
    opened.truth[60:] *= 3
    assert Scaling.fit(opened) == scaling
    (after,) = measured(opened, NAIVE)
    assert torch.equal(after.losses.mase_unit, before.losses.mase_unit)
    assert after.score.errors.mae_scaled == pytest.approx(3 * (before.score.errors.mae_scaled or 0))


def test_no_forecast_reads_a_row_from_its_origin_on(make_test_data: MakeTestData) -> None:
    opened = make_test_data()
    windows, origins = build_test_windows(opened, Scaling.fit(opened), 10, True, "cpu")
    altered = make_test_data()
    altered.values[100:], altered.truth[100:] = 1e6, -1e6
    others, _ = build_test_windows(altered, Scaling.fit(altered), 10, True, "cpu")
    early = origins[origins <= 100]
    assert len(early) == 21
    for one, other in zip(windows.inputs(early), others.inputs(early), strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)
    assert torch.equal(windows.last_level(early), others.last_level(early))


@pytest.mark.parametrize(
    ("changes", "contender", "message"),
    [
        ({"first_test_row": 117}, NAIVE, "lookback=10, horizon=4, 117 rows before it and 3 from"),
        ({"num_train_rows": 20}, SEASON, "training part: got lookback=30, horizon=4 and 20 rows"),
        (
            {"truth": np.where(np.arange(120)[:, None] < 80, 1.0, np.nan)},
            NAIVE,
            "measured values of a target: got none of load in its 40 rows; move the split",
        ),
    ],
    ids=["no test window", "no training window", "nothing measured"],
)
def test_a_test_part_without_windows_is_refused(
    make_test_data: MakeTestData, changes: dict[str, object], contender: Contender, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        measured(make_test_data(**changes), contender)
