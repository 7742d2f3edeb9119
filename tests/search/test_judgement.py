"""The test part is opened once the opening is recorded, for a winner that is then fixed."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.config import LSTMConfig
from pipelines.data_config import DataConfig, SplitConfig
from pipelines.predictor import predictor_of
from pipelines.scaling import Scaling
from pipelines.series import SeriesTable, load
from pipelines.splits import SealedTest, SearchData, TestData, split
from pipelines.training import build_forecaster
from pipelines.training_config import TrainConfig
from search import judgement, registration
from search.config import SearchConfig
from search.config_file import parse_config
from search.finalists import Finalist
from search.judgement import TRAINED_UNTIL, Ensemble, open_test
from search.registration import choose_model, model_name
from search.registry import Registered
from search.slots import Slots
from search.space import TrialConfig

TRAINING = TrainConfig(
    lookback=12,
    calendar=False,
    learning_rate=1e-3,
    weight_decay=0.0,
    batch_size=8,
    max_steps=4,
    evaluate_every_steps=2,
    warmup_steps=1,
    precision="float32",
)
MODEL = LSTMConfig(widths=(4,))
WINNER = Finalist(7, 0.2, TrialConfig(model=MODEL, training=TRAINING), ())
LONG_AGO = "2020-01-01 00:00:00"


class Opened(Exception):  # noqa: N818 - thrown to be caught
    """Somebody has opened the test part."""


@dataclasses.dataclass(frozen=True)
class Cut:
    """A table of 480 hours in its parts, and a winner's two models of it."""

    table: SeriesTable
    data: SearchData
    sealed: SealedTest
    ensemble: Ensemble

    def champion(self, trained_until: str | None, **changes: Any) -> Registered:
        """The winner's own models as today's champion."""
        own = predictor_of(
            self.table, self.data, TRAINING, self.ensemble.scaling, self.ensemble.forecasters, 1
        )
        spec = own.spec.model_copy(update=changes)
        object.__setattr__(own, "spec", spec)  # which as a whole would not fit its weights
        tags = {} if trained_until is None else {TRAINED_UNTIL: trained_until}
        return Registered("3", tags, own)


@pytest.fixture(scope="module")
def cut() -> Cut:
    rows = np.arange(480)
    noise = np.random.default_rng(0).normal(size=480)
    frame = pd.DataFrame(
        {
            "time": pd.date_range("2024-01-01", periods=480, freq="h"),
            "load": 50 + 10 * np.sin(2 * np.pi * rows / 24) + noise,
        }
    )
    table = load(DataConfig(horizon=6), frame)
    data, sealed = split(table, SplitConfig())
    forecasters = tuple(build_forecaster(MODEL, TRAINING, data, "cpu", seed) for seed in (1, 2))
    return Cut(table, data, sealed, Ensemble((1, 2), forecasters, (4, 2), Scaling.fit(data)))


@pytest.fixture
def config() -> SearchConfig:
    budget = TRAINING.model_dump(
        include={"max_steps", "evaluate_every_steps", "warmup_steps", "precision"}
    )
    return parse_config({"study": "one", "training": budget})


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    openings: list[tuple[str, int]] = []

    def note(config: SearchConfig, fingerprint: str, winner: int) -> int:
        openings.append((fingerprint, winner))
        return len(openings)

    monkeypatch.setattr(judgement, "note_opening", note)
    return openings


def test_an_opening_is_recorded_before_the_test_part_is_opened(
    cut: Cut, config: SearchConfig, noted: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(sealed: SealedTest) -> TestData:
        assert noted == [(sealed.test_fingerprint, 7)]
        raise Opened

    monkeypatch.setattr(SealedTest, "open", opened)
    with pytest.raises(Opened):
        open_test(config, WINNER, cut.ensemble, cut.data, cut.sealed, None)


def test_what_cannot_be_recorded_is_not_opened(
    cut: Cut, config: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: Any) -> int:
        raise OSError("no space left")

    def opened(_: SealedTest) -> TestData:
        raise Opened

    monkeypatch.setattr(judgement, "note_opening", full_disk)
    monkeypatch.setattr(SealedTest, "open", opened)
    with pytest.raises(OSError, match="no space left"):
        open_test(config, WINNER, cut.ensemble, cut.data, cut.sealed, None)


def test_the_verdict_rests_on_the_ensemble_and_names_seeds_and_openings(
    cut: Cut, config: SearchConfig, noted: list[tuple[str, int]]
) -> None:
    open_test(config, WINNER, cut.ensemble, cut.data, cut.sealed, None)
    verdict, test = open_test(config, WINNER, cut.ensemble, cut.data, cut.sealed, None)
    assert verdict.num_openings == 2
    assert verdict.model.note == "mean of 2 seeds of trial 7"
    assert [seed.name for seed in verdict.seeds] == ["seed 1", "seed 2"]
    alone = [seed.errors.mae_scaled for seed in verdict.seeds if seed.errors.mae_scaled]
    assert (verdict.validation_value, verdict.test_value) == (0.2, pytest.approx(np.mean(alone)))
    assert verdict.first_timestamp == "2024-01-17 00:00:00"
    assert verdict.last_timestamp == "2024-01-20 23:00:00"
    assert test.num_rows == 480
    assert verdict.champion_note == "there is no champion yet"


def test_a_champion_that_has_seen_no_test_row_is_met_on_the_same_windows(
    cut: Cut, config: SearchConfig, noted: list[tuple[str, int]]
) -> None:
    champion = cut.champion(LONG_AGO)
    verdict, _ = open_test(config, WINNER, cut.ensemble, cut.data, cut.sealed, champion)
    assert verdict.champion is not None
    assert verdict.champion.opponent == "champion (version 3)"
    assert verdict.champion.skill == pytest.approx(0, abs=1e-9)  # it is the very model
    assert verdict.champion_note == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"horizon": 5}, "its horizon is 5, here it is 6"),
        ({"targets": ("heat",)}, "its target is heat, here it is load"),
        ({"frequency": "D"}, "its frequency is D, here it is h"),
        ({"columns": ("load", "heat")}, "it reads heat, which this table lacks"),
        (
            {"known": ("hour_of_day_sin", "day_of_year_sin")},
            "it reads day_of_year_sin, for which these training rows are too few",
        ),
    ],
)
def test_another_kind_of_champion_is_not_compared_and_that_is_said(
    cut: Cut,
    config: SearchConfig,
    noted: list[tuple[str, int]],
    changes: dict[str, Any],
    reason: str,
) -> None:
    champion = cut.champion(LONG_AGO, **changes)
    verdict, _ = open_test(config, WINNER, cut.ensemble, cut.data, cut.sealed, champion)
    assert verdict.champion is None
    assert reason in verdict.champion_note


@pytest.mark.parametrize("until", ["2024-01-17 00:00:00", "2025-01-01 00:00:00", None])
def test_a_champion_whose_training_may_reach_into_this_test_part_is_not_compared(
    cut: Cut, config: SearchConfig, noted: list[tuple[str, int]], until: str | None
) -> None:
    champion = cut.champion(until)
    verdict, _ = open_test(config, WINNER, cut.ensemble, cut.data, cut.sealed, champion)
    assert verdict.champion is None
    assert "into this test part" in verdict.champion_note


def test_a_model_is_called_after_table_target_and_horizon(cut: Cut, config: SearchConfig) -> None:
    data = dataclasses.replace(cut.data, name="load: 2024/25")
    assert model_name(config, data) == "load-2024-25-load-6"
    named = parse_config({"final": {"registered_model_name": "mine"}})
    assert model_name(named, data) == "mine"


def test_a_refit_that_is_worse_than_its_twin_is_discarded_with_a_warning(
    cut: Cut, config: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    refitted = refits(monkeypatch, spoilt=True)
    model = choose_model(
        config, WINNER, cut.ensemble, cut.table, cut.data, cut.sealed.open(), Slots(1, 1, 0, "cpu")
    )
    assert refitted == [((1, 2), 2)]  # the lower of the two steps in the middle
    [warning] = model.warnings
    assert "the refit was discarded" in warning
    assert model.predictor.spec.num_rows == cut.data.num_train_rows
    assert model.tags[TRAINED_UNTIL] == "2024-01-16 23:00:00"  # the validation part stopped it


def test_a_refit_is_handed_over_with_the_rows_that_it_has_seen(
    cut: Cut, config: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    refits(monkeypatch, spoilt=False)
    model = choose_model(
        config, WINNER, cut.ensemble, cut.table, cut.data, cut.sealed.open(), Slots(1, 1, 0, "cpu")
    )
    if model.warnings:
        pytest.fail(model.warnings[0])
    assert model.predictor.spec.num_rows == 480
    assert model.tags[TRAINED_UNTIL] == "2024-01-20 23:00:00"
    assert "unrefitted twin" in model.tags["refit"]


def test_without_a_refit_the_tested_models_are_handed_over(cut: Cut, config: SearchConfig) -> None:
    as_tested = config.model_copy(
        update={"final": config.final.model_copy(update={"refit": "none"})}
    )
    model = choose_model(
        as_tested,
        WINNER,
        cut.ensemble,
        cut.table,
        cut.data,
        cut.sealed.open(),
        Slots(1, 1, 0, "cpu"),
    )
    assert model.predictor.forecasters == cut.ensemble.forecasters
    assert "refit" not in model.tags


def refits(monkeypatch: pytest.MonkeyPatch, *, spoilt: bool) -> list[tuple[tuple[int, ...], int]]:
    """Let a refit be done here: well, or with weights that forecast nonsense."""
    from pipelines.refit import refit
    from pipelines.weights import weights_to_bytes

    asked: list[tuple[tuple[int, ...], int]] = []

    def refit_here(
        data: TestData, config: TrialConfig, seeds: tuple[int, ...], num_steps: int, *_: Any
    ) -> list[bytes]:
        asked.append((seeds, num_steps))
        # Many steps of all rows err less on rows that they have seen.
        training = config.training.model_copy(update={"max_steps": 200})
        made = [refit(config.model, training, data, seed, 200, "cpu") for seed in seeds]
        for forecaster in made if spoilt else []:
            for weights in forecaster.parameters():
                weights.data += 1
        return [weights_to_bytes(forecaster) for forecaster in made]

    monkeypatch.setattr(registration, "refit_seeds", refit_here)
    return asked
