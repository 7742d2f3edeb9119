"""What the sealed test has shown of a model: plain types, which the record keeps as JSON.

The legend of shapes is in `models/__init__.py`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.config import Settings


class ErrorRow(Settings):
    """Errors of one forecast, as `pipelines.metrics.Errors`; what is undefined is null."""

    mae: float | None
    mse: float | None
    rmse: float | None
    mase: float | None
    mae_scaled: float | None
    mse_scaled: float | None
    rmse_scaled: float | None


class TestScore(Settings):
    """One forecast on the test windows."""

    __test__ = False  # pytest takes classes named Test… for tests

    name: str
    note: str
    """What was chosen before the test, such as `lookback 168, penalty 10`; may be empty."""
    errors: ErrorRow
    by_step: tuple[ErrorRow, ...]
    """[H], each a mean over the targets."""
    by_target: tuple[ErrorRow, ...]
    """[T], each a mean over the steps."""


class Comparison(Settings):
    """The model against one other forecast, by the search's metric, on the same windows."""

    opponent: str
    skill: float | None
    """1 - the model's error / the opponent's: above 0 the model errs less; null where the
    opponent's error is 0."""
    lower: float | None
    """One-sided 97.5 % lower bound of the skill; null: too short for an interval."""
    upper: float | None
    """One-sided 97.5 % upper bound: the two bounds together hold 95 %."""
    num_blocks: int
    """Blocks that fit into the test windows."""
    block_length: int
    """Windows of a block of the bootstrap."""
    diebold_mariano: float | None
    """Statistic with the correction of Harvey, Leybourne & Newbold; below 0 the model errs less."""
    p_value: float | None
    """Two-sided."""
    note: str = ""
    """Such as `Bartlett kernel: the variance was not positive`."""


class ForecastExample(Settings):
    """One forecast of the test part, to be drawn: the first target, original units."""

    kind: Literal["best", "typical", "worst"]
    origin: str
    """Timestamp, or row, of the first step forecast."""
    error: float
    """Mean absolute error of the window, standardised."""
    history: tuple[float | None, ...]
    """Up to two seasons before the origin, or two horizons where there is no season."""
    truth: tuple[float | None, ...]
    """[H]"""
    forecast: tuple[float, ...]
    """[H]"""
    best_baseline: tuple[float, ...]
    """[H], of the baseline with the lowest test error."""


class Inspection(Settings):
    """Where the model errs."""

    examples: tuple[ForecastExample, ...]
    by_hour: dict[str, float]
    """Mean absolute error, standardised, by the forecast hour `00`…`23`; empty where rows are no
    part of a day."""
    by_weekday: dict[str, float]
    """Likewise by `Mon`…`Sun`; empty where rows are a week or longer, or without timestamps."""
    residual_autocorrelation: tuple[float, ...]
    """Of the first target's one-step errors, at lags 1…"""
    autocorrelation_bound: float | None
    """What 95 % of the correlations of white noise stay below."""


class Verdict(Settings):
    """The outcome of the sealed test: may the model be used?"""

    study: str
    metric: Literal["mae", "mse", "rmse", "mase"]
    targets: tuple[str, ...]
    horizon: int
    season: int
    frequency: str | None
    num_windows: int
    """Test windows, the same for every forecast."""
    first_timestamp: str | None
    last_timestamp: str | None
    """Of the test part."""
    model: TestScore
    """The ensemble: the mean forecast of the seeds."""
    seeds: tuple[TestScore, ...]
    """Each seed alone."""
    baselines: tuple[TestScore, ...]
    comparisons: tuple[Comparison, ...]
    """With every baseline, in their order."""
    champion: Comparison | None = None
    """With the model that is registered as champion today, where they are comparable."""
    champion_note: str = ""
    """Why there is no such comparison."""
    validation_value: float
    """The metric by which the search chose the winner: one training's, on the validation part."""
    test_value: float
    """Mean of the seeds alone on the test part; less the one above: the selection optimism."""
    num_openings: int = Field(ge=1)
    """How often this test part was opened, this time included, by any study of the storage."""
    is_passed: bool
    reason: str
    """In words, such as `no LSTM beat ridge here`."""
    warnings: tuple[str, ...] = ()
    """Of the leakage audit and the refit."""
    inspection: Inspection

    @property
    def outcome(self) -> str:
        """Whether it passed, in words."""
        return "passed" if self.is_passed else "not passed"
