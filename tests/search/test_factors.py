"""What a grid has found: means, intervals and what they are matched by."""

import math
from collections.abc import Callable, Iterable
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import scipy.stats

from models.config import LSTMConfig
from pipelines.training_config import TrainConfig
from search.factors import Factor, Findings, Interval, findings_of
from search.record import TrialRecord, TrialState
from search.space import TrialConfig

SEEDS = (11, 12, 13)
TRAINING = TrainConfig(
    lookback=96, calendar=True, learning_rate=1e-3, weight_decay=0.0, batch_size=32
)

Runs = list[TrialRecord]


@pytest.mark.parametrize("count", [2, 3, 10])
def test_an_interval_is_that_of_scipys_t_distribution(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count).tolist()
    low, high = scipy.stats.t.interval(
        0.95, count - 1, loc=np.mean(values), scale=scipy.stats.sem(values)
    )
    interval = Interval.of(values)
    assert interval.mean - interval.half_width == pytest.approx(low)
    assert interval.mean + interval.half_width == pytest.approx(high)


def test_one_seed_has_a_mean_and_no_interval() -> None:
    assert str(Interval.of([0.25])) == "0.2500"
    assert math.isnan(Interval.of([0.25]).half_width)
    assert str(Interval(0.25, 0.01)) == "0.2500 ± 0.0100"


def test_each_combination_has_its_mean_over_the_seeds_the_best_first() -> None:
    findings = findings_of(runs({(8,): (0.3, 0.4, 0.5), (4, 4): (0.2, 0.1, 0.3)}))
    assert findings.num_seeds == 3
    assert [c.config.model.widths for c in findings.combinations] == [(4, 4), (8,)]
    assert [c.interval.mean for c in findings.combinations] == pytest.approx([0.2, 0.4])


def test_a_difference_is_taken_seed_by_seed() -> None:
    # The seeds move both by far more than what lies between them.
    findings = findings_of(runs({(8,): (0.1, 0.5, 0.9), (16,): (0.11, 0.51, 0.91)}))
    [widths] = findings.factors
    best, other = widths.levels
    assert (best.name, other.name) == ("8", "16")
    assert best.interval.half_width > 0.5
    assert (best.behind_best.mean, best.behind_best.half_width) == (0.0, 0.0)
    assert other.behind_best.mean == pytest.approx(0.01)
    assert other.behind_best.half_width == pytest.approx(0.0, abs=1e-9)


def test_the_mean_of_a_level_is_over_all_that_have_it() -> None:
    values = {
        ((8,), False): 0.1,
        ((8,), True): 0.3,
        ((4, 8), False): 0.2,
        ((4, 8), True): 0.6,
    }
    findings = findings_of(runs({key: (value,) * 3 for key, value in values.items()}))
    direction = factor(findings, "direction")
    assert {level.name: level.interval.mean for level in direction.levels} == pytest.approx(
        {"one": 0.15, "both": 0.45}
    )
    assert [level.num_combinations for level in direction.levels] == [2, 2]
    widths = factor(findings, "widths")
    assert {level.name: level.interval.mean for level in widths.levels} == pytest.approx(
        {"8": 0.2, "4-8": 0.4}
    )
    assert direction.is_matched
    assert widths.is_matched


def test_hidden_size_and_depth_are_told_apart_where_the_grid_has_both() -> None:
    stacks = {(4,): 0.4, (8,): 0.2, (4, 4): 0.5, (8, 8): 0.3}
    findings = findings_of(runs({widths: (value,) * 2 for widths, value in stacks.items()}))
    depth, size = factor(findings, "depth"), factor(findings, "hidden size")
    assert depth.is_matched
    assert size.is_matched
    assert [(x.name, x.interval.mean) for x in depth.levels] == [
        ("1", pytest.approx(0.3)),
        ("2", pytest.approx(0.4)),
    ]
    assert [(x.name, x.interval.mean) for x in size.levels] == [
        ("4", pytest.approx(0.45)),
        ("8", pytest.approx(0.25)),
    ]


def test_levels_that_were_never_tried_with_all_else_equal_are_marked() -> None:
    findings = findings_of(runs({(8,): (0.1, 0.1), (4, 4): (0.2, 0.2), (4, 8): (0.3, 0.3)}))
    assert factor(findings, "widths").is_matched
    assert not factor(findings, "depth").is_matched
    assert not factor(findings, "hidden size").is_matched


def test_a_level_that_lacks_a_combination_is_compared_on_those_that_all_have() -> None:
    values = {((8,), False): 0.1, ((8,), True): 0.9, ((16,), False): 0.2}  # 16, both: left out
    findings = findings_of(runs({key: (value,) * 2 for key, value in values.items()}))
    widths = factor(findings, "widths")
    assert widths.is_matched
    assert [(x.name, x.interval.mean, x.num_combinations) for x in widths.levels] == [
        ("8", pytest.approx(0.1), 1),
        ("16", pytest.approx(0.2), 1),
    ]


def test_a_factor_that_is_no_layer_is_averaged_too() -> None:
    trials = [
        trial(number, (8,), value, dropout=dropout)
        for number, (dropout, value) in enumerate([(0.0, 0.1), (0.2, 0.3)])
    ]
    [dropout] = findings_of(trials).factors
    assert (dropout.name, [x.name for x in dropout.levels]) == ("dropout", ["0.0", "0.2"])


def test_a_single_combination_has_no_factor() -> None:
    findings = findings_of(runs({(8,): (0.1, 0.2)}))
    assert (len(findings.combinations), findings.factors, findings.contrasts) == (1, (), ())


def test_only_what_has_about_as_many_parameters_is_compared_at_equal_counts() -> None:
    counts = {(8,): 1000, (4, 4): 1150, (4, 8): 1151}
    values = {(8,): (0.1, 0.3), (4, 4): (0.2, 0.5), (4, 8): (0.9, 0.9)}
    findings = findings_of(runs(values, counts))
    pairs = {c.names: c for c in findings.contrasts if c.factor == "widths"}
    assert set(pairs) == {("4-4", "8"), ("4-4", "4-8")}
    contrast = pairs["4-4", "8"]
    assert contrast.num_parameters == (1000, 1150)
    assert contrast.num_pairs == 1
    assert contrast.difference.mean == pytest.approx(-0.15)
    assert [side.mean for side in contrast.intervals] == pytest.approx([0.35, 0.2])


def test_at_equal_counts_all_but_the_layers_is_equal() -> None:
    trials = [
        trial(0, (8,), 0.1, num_parameters=1000),
        trial(1, (4, 4), 0.2, num_parameters=1000, dropout=0.2),
    ]
    assert findings_of(trials).contrasts == ()


def test_only_seeds_that_all_have_been_trained_with_count() -> None:
    trials = runs({(8,): (0.1, 0.2, 0.3), (16,): (0.3, 0.4, 0.5)})
    findings = findings_of(trials[:-1])  # the last run of (16,) has not come yet
    assert findings.num_seeds == 2
    assert [c.values for c in findings.combinations] == [(0.1, 0.2), (0.3, 0.4)]


@pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.FAILED])
def test_a_combination_with_a_run_without_a_result_is_left_out_and_named(
    state: TrialState,
) -> None:
    broken = trial(9, (16,), None, seed=SEEDS[0], state=state, reason="diverged at step 50")
    whole = runs({(8,): (0.1, 0.2), (16,): (0.0, 0.0)})
    findings = findings_of([broken, *(t for t in whole if t.number != 2)])
    assert [c.config.model.widths for c in findings.combinations] == [(8,)]
    assert findings.num_seeds == 2
    assert findings.left_out == (
        "1 layer 16, lookback 96: 1 of 2 runs ended without a result, the first so: "
        "diverged at step 50",
    )


def test_what_still_runs_or_waits_is_no_result() -> None:
    waiting = trial(9, (16,), None, state=TrialState.RUNNING)
    assert len(findings_of([*runs({(8,): (0.1, 0.2)}), waiting]).combinations) == 1


def test_of_no_trials_there_is_nothing_to_find() -> None:
    assert findings_of([]) == Findings((), 0, (), (), ())


def test_means_agree_with_an_obvious_loop_over_a_full_factorial() -> None:
    generator = np.random.default_rng(3)
    trials = [
        trial(0, (width,) * depth, generator.random(), seed=seed, bidirectional=both)
        for width in (4, 8, 16)
        for depth in (1, 2)
        for both in (False, True)
        for seed in SEEDS
    ]
    findings = findings_of(trials)
    assert {f.name for f in findings.factors} == {"widths", "hidden size", "depth", "direction"}
    levels: dict[str, Callable[[LSTMConfig], Any]] = {
        "widths": lambda model: "-".join(map(str, model.widths)),
        "hidden size": lambda model: str(model.widths[0]),
        "depth": lambda model: str(len(model.widths)),
        "direction": lambda model: "both" if model.bidirectional else "one",
    }
    for name, level_of in levels.items():
        for level in factor(findings, name).levels:
            by_seed = [
                mean_of(t for t in trials if t.seed == seed and level_of(model(t)) == level.name)
                for seed in SEEDS
            ]
            assert level.interval.mean == pytest.approx(fmean(by_seed))
            assert level.interval.half_width == pytest.approx(Interval.of(by_seed).half_width)


def mean_of(trials: Iterable[TrialRecord]) -> float:
    return fmean(t.value for t in trials if t.value is not None)


def model(trial: TrialRecord) -> LSTMConfig:
    assert trial.config is not None
    return trial.config.model


def factor(findings: Findings, name: str) -> Factor:
    [found] = [factor for factor in findings.factors if factor.name == name]
    return found


def runs(values: dict[Any, tuple[float, ...]], counts: dict[Any, int] | None = None) -> Runs:
    """The trials of widths, or of widths and direction, with a value for each seed."""
    trials: Runs = []
    for key, by_seed in values.items():
        widths, both = key if isinstance(key[0], tuple) else (key, False)
        for seed, value in zip(SEEDS, by_seed, strict=False):
            num_parameters = counts[key] if counts else 4 ** len(widths) * sum(widths) * (1 + both)
            more = {"seed": seed, "bidirectional": both, "num_parameters": num_parameters}
            trials.append(trial(len(trials), widths, value, **more))
    return trials


def trial(
    number: int,
    widths: tuple[int, ...],
    value: float | None,
    seed: int = SEEDS[0],
    num_parameters: int = 1000,
    state: TrialState = TrialState.COMPLETE,
    reason: str = "",
    **model: Any,
) -> TrialRecord:
    config = TrialConfig(model=LSTMConfig(widths=widths, **model), training=TRAINING)
    return TrialRecord(
        number=number,
        state=state,
        config=config,
        seed=seed,
        params={},
        num_parameters=num_parameters,
        value=value,
        reason=reason,
    )
