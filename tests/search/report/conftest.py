"""Studies as the page meets them: made by seeded generators, none of it measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from pipelines.scores import BaselineScore, Evaluation
from pipelines.training_config import TrainingBudget
from pipelines.verdict import (
    Comparison,
    ErrorRow,
    ForecastExample,
    Inspection,
    TestScore,
    Verdict,
)
from search.dimensions import Choice, Dimension, Int, Value
from search.projection import StudyFacts
from search.record import RecordedEvaluation, TrialRecord, TrialState
from search.report.evidence import Evidence
from search.space import Space

MakeEvidence = Callable[..., Evidence]
MakeEvaluation = Callable[..., Evaluation]
Suggest = Callable[[str, Dimension], Value]

HOSTILE = '</script><img src=x onerror="document.title=1"> $\\frac{1$ %{y} `<b>` \u202e\n=1+1'
"""What a column may be called."""

HORIZON = 12


@pytest.fixture(scope="session")
def make_evidence(
    make_evaluation: MakeEvaluation,
    make_space: Callable[..., Space],
    make_facts: Callable[..., StudyFacts],
) -> MakeEvidence:
    """A study of so many trials, most of them stopped early as ASHA does, and any change to it."""

    def make(num_trials: int = 30, name: str = "small", **changes: Any) -> Evidence:
        generator = np.random.default_rng(7)
        space = make_space()
        trials = [
            random_trial(generator, space, make_evaluation, number) for number in range(num_trials)
        ]
        fields: dict[str, Any] = {
            "name": name,
            "metric": "mae",
            "trials": trials,
            "num_rejected": 3,
            "state": "done",
            "facts": asdict(make_facts()),
            "config": {"space": space.model_dump(mode="json")},
            "created_at": 1_790_000_000.0,
            "baselines": [
                BaselineScore("ridge", make_evaluation(0.3).errors, "lookback 12, penalty 1"),
                BaselineScore("linear twin", make_evaluation(0.31).errors, ""),
                BaselineScore("persistence", make_evaluation(1.4).errors, ""),
            ],
            "importance": {"learning_rate": 0.6, "hidden_size": 0.3, "head": 0.1},
            "data_notes": ["load: 2 values missing, interpolated"],
        }
        return Evidence(**(fields | changes))

    return make


def random_trial(
    generator: np.random.Generator, space: Space, make_evaluation: MakeEvaluation, number: int
) -> TrialRecord:
    """Every third is complete, one in twenty fails, the others are stopped early."""
    point = space.draw(random_suggest(generator))
    config = space.config_at(point, TrainingBudget(max_steps=200, evaluate_every_steps=50))
    state = TrialState.COMPLETE if number % 3 == 0 else TrialState.PRUNED
    state = TrialState.FAILED if number % 20 == 19 else state
    num_evaluations = 4 if state is TrialState.COMPLETE else 1 + number % 3
    started = 1_790_000_010.0 + 5.0 * (number // 2) + number % 2
    errors = (
        0.25 + 0.1 * generator.random(num_evaluations) + 0.4 / np.arange(1, 1 + num_evaluations)
    )
    evaluations = tuple(
        RecordedEvaluation(make_evaluation(float(error), step=50 * place), started + place)
        for place, error in enumerate(errors, start=1)
    )
    return TrialRecord(
        number=number,
        state=state,
        config=config,
        seed=number,
        params=point,
        num_parameters=int(generator.integers(1_000, 100_000)),
        evaluations=evaluations,
        final=evaluations[-1] if state is TrialState.COMPLETE else None,
        value=float(errors.min()),
        reason="" if state is TrialState.COMPLETE else "stopped early",
        started_at=started,
        ended_at=started + num_evaluations + 0.2,
    )


def random_suggest(generator: np.random.Generator) -> Suggest:
    def suggest(_: str, dimension: Dimension) -> Value:
        if isinstance(dimension, Choice):
            chosen: Value = dimension.choices[int(generator.integers(len(dimension.choices)))]
            return chosen
        low, high = dimension.low, dimension.high
        share = generator.random()
        value = low * (high / low) ** share if dimension.log else low + (high - low) * share
        return round(value) if isinstance(dimension, Int) else round(value, 6)

    return suggest


@pytest.fixture(scope="session")
def make_verdict() -> Callable[..., Verdict]:
    """A verdict of invented errors, and any change to it."""
    return random_verdict


def random_verdict(targets: Sequence[str] = ("load",), **changes: Any) -> Verdict:
    generator = np.random.default_rng(11)

    def score(name: str, level: float) -> TestScore:
        by_step = level * (0.6 + 0.8 * np.arange(HORIZON) / HORIZON)
        return TestScore(
            name=name,
            note="",
            errors=error_row(level),
            by_step=tuple(map(error_row, by_step)),
            by_target=tuple(error_row(level * (1 + place / 10)) for place in range(len(targets))),
        )

    fields: dict[str, Any] = {
        "study": "small",
        "metric": "mae",
        "targets": tuple(targets),
        "horizon": HORIZON,
        "season": 24,
        "frequency": "h",
        "num_windows": 400,
        "first_timestamp": "2014-11-01 00:00:00",
        "last_timestamp": "2014-12-31 23:00:00",
        "model": score("ensemble of 5 seeds", 0.28),
        "seeds": tuple(score(f"seed {seed}", 0.28 + seed / 100) for seed in range(3)),
        "baselines": (score("ridge", 0.31), score("persistence", 1.2)),
        "comparisons": (
            comparison("ridge", 0.1, 0.02, 0.17),
            comparison("persistence", 0.76, None, None),
        ),
        "champion_note": "no model is registered yet",
        "validation_value": 0.26,
        "test_value": 0.28,
        "num_openings": 1,
        "is_passed": True,
        "reason": "it errs less than every baseline",
        "warnings": ("column price, lead 1: correlated 0.999 with load",),
        "inspection": Inspection(
            examples=tuple(example(generator, kind) for kind in ("best", "typical", "worst")),
            by_hour={f"{hour:02d}": 0.2 + 0.1 * abs(hour - 12) / 12 for hour in range(24)},
            by_weekday=dict.fromkeys(("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"), 0.3),
            residual_autocorrelation=tuple(0.4**lag for lag in range(1, 25)),
            autocorrelation_bound=0.1,
        ),
    }
    return Verdict(**(fields | changes))


def error_row(level: float) -> ErrorRow:
    level = float(level)
    return ErrorRow(
        mae=1000 * level,
        mse=1e6 * level**2,
        rmse=1100 * level,
        mase=None,
        mae_scaled=level,
        mse_scaled=level**2,
        rmse_scaled=1.1 * level,
    )


def comparison(opponent: str, skill: float, lower: float | None, upper: float | None) -> Comparison:
    return Comparison(
        opponent=opponent,
        skill=skill,
        lower=lower,
        upper=upper,
        num_blocks=4,
        block_length=168,
        diebold_mariano=-2.5,
        p_value=0.012,
    )


def example(generator: np.random.Generator, kind: Any) -> ForecastExample:
    hours = np.arange(48 + HORIZON)
    series = 2000 + 500 * np.sin(2 * np.pi * hours / 24) + generator.normal(0, 40, len(hours))
    truth = series[48:]
    return ForecastExample(
        kind=kind,
        origin="2014-11-07 13:00:00",
        error=0.28,
        history=(None, *series[1:48].tolist()),
        truth=tuple(truth.tolist()),
        forecast=tuple((truth + generator.normal(0, 60, HORIZON)).tolist()),
        best_baseline=tuple((truth + generator.normal(0, 90, HORIZON)).tolist()),
    )


@pytest.fixture(scope="session")
def hostile_text() -> str:
    """Markup, mathematics, a template, an end of the script and a change of direction."""
    return HOSTILE


@pytest.fixture(scope="session")
def hostile_evidence(
    make_evidence: MakeEvidence,
    make_verdict: Callable[..., Verdict],
    make_facts: Callable[..., StudyFacts],
    make_evaluation: MakeEvaluation,
) -> Evidence:
    """A study in which every text from elsewhere is hostile."""
    verdict = make_verdict(targets=(HOSTILE, "load"), warnings=(HOSTILE,), reason=HOSTILE)
    baselines = [BaselineScore(HOSTILE, make_evaluation(0.3).errors, HOSTILE)]
    facts: Mapping[str, Any] = asdict(make_facts(data_name=HOSTILE, data_source=HOSTILE))
    return make_evidence(
        verdict=verdict, baselines=baselines, facts=facts, data_notes=[HOSTILE, HOSTILE]
    )
