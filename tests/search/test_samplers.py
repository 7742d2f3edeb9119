"""Who proposes and who stops, by studies that ask them."""

import math
import random
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.scores import Evaluation
from pipelines.training_config import TrainingBudget
from search.record import Proposal
from search.space import Space
from search.study import Study

MakeEvaluation = Callable[..., Evaluation]
MakeSpace = Callable[..., Space]
OpenStudy = Callable[..., Study]

BUDGET = TrainingBudget(max_steps=300, evaluate_every_steps=50, precision="float32")  # as opened


def ask(study: Study) -> Proposal:
    proposal = study.ask()
    assert proposal is not None
    return proposal


def test_steps_that_end_below_the_range_and_single_values_are_drawn_in_silence(
    open_small_study: OpenStudy, make_space: MakeSpace
) -> None:
    space = make_space(
        num_layers=1,
        hidden_size={"low": 1, "high": 9, "step": 3},
        dropout={"low": 0.1, "high": 0.5, "step": 0.3},
        batch_size={"low": 8, "high": 8},
    )
    study = open_small_study(space=space, sampler="random")
    configs = [ask(study).config for _ in range(5)]  # a warning would be an error here
    assert {config.model.widths[0] for config in configs} <= {1, 4, 7}
    assert {config.model.dropout for config in configs} == {0.1, 0.4}
    assert {config.training.batch_size for config in configs} == {8}
    for config in configs:
        assert space.config_at(space.point_of(config), BUDGET) == config


def test_two_seeds_propose_different_configurations(
    tmp_path: Path, open_small_study: OpenStudy
) -> None:
    one, two = (
        open_small_study(tmp_path / f"{seed}", sampler="random", seed=seed) for seed in (0, 1)
    )
    assert ask(one).config != ask(two).config


@pytest.fixture
def costs_asked(
    tmp_path: Path, open_small_study: OpenStudy, make_evaluation: MakeEvaluation
) -> Callable[..., list[float]]:
    """What is asked for costs, trial by trial, each complete before the next; all else equal."""

    def costs(sampler: str, startup_draws: int, **changes: Any) -> list[float]:
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        settings = {"sampler": sampler, "startup_draws": startup_draws, "trials": 8} | changes
        study = open_small_study(file, **settings)
        asked = []
        while proposal := study.ask():
            asked.append(study.training_teraflops(proposal.config))
            study.report(proposal.number, make_evaluation(0.5))
            study.complete(proposal.number)
        return asked

    return costs


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("gp", marks=pytest.mark.slow)])
def test_until_a_sampler_learns_the_cheapest_of_some_random_draws_is_tried(
    sampler: str, costs_asked: Callable[..., list[float]]
) -> None:
    plain = costs_asked(sampler, 1, num_startup_trials=5)
    cheapest = costs_asked(sampler, 6, num_startup_trials=5)
    # The first draw of each trial is the same, and one of the six.
    assert all(one <= other for one, other in zip(cheapest[:5], plain[:5], strict=True))
    assert statistics.mean(cheapest[:5]) < statistics.mean(plain[:5])
    no_startup = {"num_startup_trials": 0}
    assert costs_asked(sampler, 6, **no_startup) == costs_asked(sampler, 1, **no_startup)


def test_a_random_search_draws_once(costs_asked: Callable[..., list[float]]) -> None:
    assert costs_asked("random", 6) == costs_asked("random", 1)


class ObviousHalving:
    """Successive halving as one would tell it: a list of values a rung."""

    def __init__(self, first_rung_steps: int, factor: int):
        self.first, self.factor = first_rung_steps, factor
        self.rungs: dict[int, list[float]] = defaultdict(list)
        self.climbed: Counter[int] = Counter()

    def stops(self, number: int, step: int, best: float) -> bool:
        while step >= self.first * self.factor ** self.climbed[number]:
            rivals = self.rungs[self.climbed[number]]
            self.climbed[number] += 1
            rivals.append(best)
            num_promoted = max(1, len(rivals) // self.factor)
            if best not in sorted(rivals)[:num_promoted]:
                return True
        return False


@pytest.mark.parametrize(
    ("factor", "first_rung_steps", "first_rung", "num_turns"),
    [(3, None, 50, 24), pytest.param(2, 40, 40, 80, marks=pytest.mark.slow)],
)
def test_asha_stops_at_its_rungs_exactly_whom_the_obvious_rule_stops(
    factor: int,
    first_rung_steps: int | None,
    first_rung: int,
    num_turns: int,
    open_small_study: OpenStudy,
    make_evaluation: MakeEvaluation,
) -> None:
    study = open_small_study(
        sampler="random",
        reduction_factor=factor,
        first_rung_steps=first_rung_steps,
    )
    rule, rng = ObviousHalving(first_rung, factor), random.Random(factor)
    steps: dict[int, int] = {}
    best: dict[int, float] = {}
    decisions: Counter[bool] = Counter()
    for _ in range(num_turns):  # three trials side by side, each turn one of them goes on
        while len(steps) < 3:
            number = ask(study).number
            steps[number], best[number] = 0, math.inf
        number = rng.choice(list(steps))
        steps[number] += 50
        mae = rng.uniform(0.1, 1)
        best[number] = min(best[number], mae)
        is_last = steps[number] == 300
        expected = not is_last and rule.stops(number, steps[number], best[number])
        assert study.report(number, make_evaluation(mae, steps[number])) == expected
        decisions[expected] += 1
        if expected:
            study.prune(number, f"stopped early at step {steps[number]}")
        elif is_last:
            study.complete(number)
        if expected or is_last:
            del steps[number]
    assert min(decisions[True], decisions[False]) > num_turns / 8


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["hyperband", "median"])
def test_the_other_pruners_stop_what_is_far_behind(
    pruner: str, open_small_study: OpenStudy, make_evaluation: MakeEvaluation
) -> None:
    settings = {"sampler": "random", "pruner": pruner, "first_rung_steps": 50}
    study = open_small_study(**settings, reduction_factor=2)
    for mae in (0.1, 0.11, 0.12, 0.13, 0.14, 0.15):
        number = ask(study).number
        for step in (50, 100, 150, 200, 250, 300):
            if study.report(number, make_evaluation(mae, step)):
                study.prune(number, "stopped early")
                break
        else:
            study.complete(number)
    study = open_small_study(**settings, reduction_factor=2)  # nor does a resume change that
    number = ask(study).number
    steps = (50, 100, 150, 200, 250)
    assert any(study.report(number, make_evaluation(0.9, step)) for step in steps)


def test_without_a_pruner_nobody_is_stopped(
    open_small_study: OpenStudy, make_evaluation: MakeEvaluation
) -> None:
    study = open_small_study(sampler="random", pruner="none", first_rung_steps=50)
    for mae in (0.1, 0.9):
        number = ask(study).number
        assert not any(study.report(number, make_evaluation(mae, step)) for step in (50, 100, 150))
