"""Recorded trials under a rule: what each costs of the slots, and whom the rule stops."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.spending import (
    BESIDE_SECONDS,
    EVERY_STEPS,
    Recorded,
    Rule,
    Simulation,
    cheapest_of,
    rising,
    up_to,
)

NUM_EVALUATIONS = 200 // EVERY_STEPS


def trial(value: float, num_evaluations: int = NUM_EVALUATIONS) -> Recorded:
    """A trial of this value, which takes a second for ten steps and a tenth for an evaluation."""
    seconds = [1.0] * num_evaluations, [0.1] * num_evaluations
    return Recorded([value] * num_evaluations, *seconds, final_seconds=0.4, teraflops=0.1)


def test_without_a_rule_a_trial_takes_all_its_steps_and_the_evaluations_asked_for() -> None:
    trials = [trial(0.5), trial(0.4), trial(0.3), *itertools.repeat(trial(0.9), 500)]
    course = Simulation(iter(trials), Rule(50, {"pruner": "none"})).run(60.0)
    first, whole = BESIDE_SECONDS + 5.1, BESIDE_SECONDS + 20.4 + 0.4
    assert [value for _, value in course] == [0.5, 0.4, 0.3]
    assert [at for at, _ in course] == pytest.approx([first, first, whole + first])


def test_what_is_worse_is_stopped_at_the_first_rung_so_that_others_begin_sooner() -> None:
    worse = [trial(0.5 + number / 100) for number in range(10)]
    trials = [trial(0.4), *worse, trial(0.3), *itertools.repeat(trial(0.9), 500)]
    (found_late,) = (at for at, value in seen(trials, {"pruner": "none"}) if value == 0.3)
    (found_soon,) = (at for at, value in seen(trials, {}) if value == 0.3)
    assert found_soon < found_late / 2


def test_a_diverged_trial_costs_the_stretch_in_which_it_did_and_makes_room() -> None:
    diverges = trial(0.6, num_evaluations=7)
    trials = [diverges, trial(0.7), trial(0.5), *itertools.repeat(trial(0.9), 500)]
    course = Simulation(iter(trials), Rule(50, {"pruner": "none"})).run(40.0)
    ended = BESIDE_SECONDS + 5.1 + 5.0
    assert course == [
        (pytest.approx(BESIDE_SECONDS + 5.1), 0.6),
        (pytest.approx(ended + BESIDE_SECONDS + 5.1), 0.5),
    ]


def costs_of(admitted: Iterator[Recorded], count: int) -> list[float]:
    return [trial.teraflops for trial in itertools.islice(admitted, count)]


def test_who_is_tried_follows_from_what_training_costs() -> None:
    def drawn() -> Iterator[Recorded]:
        return (replace(trial(0.5), teraflops=cost) for cost in (0.4, 0.1, 0.3, 0.5, 0.2, 0.1))

    assert costs_of(up_to(0.2)(drawn()), 3) == [0.1, 0.2, 0.1]
    assert costs_of(cheapest_of(2)(drawn()), 3) == [0.1, 0.3, 0.1]
    assert costs_of(cheapest_of(2, 1)(drawn()), 3) == [0.1, 0.3, 0.5]
    assert costs_of(rising(0.125, 2)(drawn()), 3) == [0.1, 0.2, 0.1]


def seen(trials: list[Recorded], settings: dict[str, str]) -> list[tuple[float, float]]:
    return list(Simulation(iter(trials), Rule(50, settings)).run(300.0))
