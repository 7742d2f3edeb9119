"""How a search spends its time: who is tried, who is stopped early, on the courses of real trials.

    python -m benchmarks.spending record FOLDER --series electricity --series demand.csv:48
    python -m benchmarks.spending compare FOLDER

`record` trains configurations drawn at random from the default space, all to their end and
evaluated often. `compare` lets simulated slots train them in many orders under each rule: what a
rule would have done to a recorded trial is known, as long as nothing learns from it. So it says
nothing of the sampler, and nothing of configurations that were not recorded: the standard errors
are those of the orders. A trial may come again in an order, and none is a queued start.
"""

import argparse
import heapq
import json
import math
import multiprocessing
import os
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import optuna
from rich.console import Console
from rich.table import Table

from benchmarks.floor import NUM_SLOTS
from benchmarks.quality import Course, series_named, value_at
from pipelines.scores import TrainingDiverged
from pipelines.series import load
from pipelines.splits import split
from search.cluster import WORKER_ENVIRONMENT
from search.config import SearchConfig
from search.config_file import parse_config
from search.facts import identity_of
from search.limits import Limits
from search.record import Proposal, metric_value
from search.resolve import CPU_TERAFLOPS_PER_TRIAL, resolve
from search.samplers import pruner_of
from search.study import open_study
from search.trial import TrialStep, run_trial

EVERY_STEPS = 10
"""Optimiser steps between two recorded evaluations."""
BESIDE_SECONDS = 0.2
"""What a trial takes of a slot beside its steps and evaluations (docs/performance.md)."""
MOST_DRAWN = 5000
"""More than any simulated search draws."""
TIMES = (30.0, 60.0, 120.0, 240.0)
"""Seconds of searching, the start left out, at which rules are compared."""


@dataclass(frozen=True)
class Recorded:
    """A trial that nothing stopped; S evaluations, `EVERY_STEPS` apart, fewer where it diverged."""

    values: list[float]
    """[S]: what a search minimises."""
    train_seconds: list[float]
    """[S]: from the evaluation before to this one, without either."""
    evaluate_seconds: list[float]
    """[S]"""
    final_seconds: float
    """Of the last evaluation, of the best weights on more windows; 0 where there was none."""
    teraflops: float
    """Floating-point operations of its whole training, in 10¹²."""


Stream = Iterator[Recorded]


@dataclass(frozen=True)
class Rule:
    """One way to spend."""

    every_steps: int
    """Optimiser steps between two evaluations; they must divide a trial's."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the search; they say who is stopped."""
    admit: Callable[[Stream], Stream] = iter
    """Who is tried, of those that are drawn."""


def up_to(teraflops: float) -> Callable[[Stream], Stream]:
    """Refuse what costs more."""
    return partial(filter, lambda trial: trial.teraflops <= teraflops)


def cheapest_of(num_drawn: int, num_trials: float = math.inf) -> Callable[[Stream], Stream]:
    """Of so many that are drawn try the one that costs least; after so many trials try each."""

    def admit(drawn: Stream) -> Stream:
        for place in count():
            num_seen = num_drawn if place < num_trials else 1
            yield min(islice(drawn, num_seen), key=lambda trial: trial.teraflops)

    return admit


def rising(first: float, num_trials: int) -> Callable[[Stream], Stream]:
    """Refuse what costs more than a limit that rises, over so many trials, to the default one."""

    def admit(drawn: Stream) -> Stream:
        for place in count():
            share = min(place / num_trials, 1.0)
            limit = first * (CPU_TERAFLOPS_PER_TRIAL / first) ** share
            yield next(trial for trial in drawn if trial.teraflops <= limit)

    return admit


RULES = {
    "asha at 50, 150; a third survive": Rule(50),
    "none": Rule(50, {"pruner": "none"}),
    "median from 50": Rule(50, {"pruner": "median"}),
    "hyperband from 50": Rule(50, {"pruner": "hyperband"}),
    "asha at 50, 100; half": Rule(50, {"reduction_factor": 2}),
    "asha at 50; a quarter": Rule(50, {"reduction_factor": 4}),
    "asha at 100; a third": Rule(50, {"first_rung_steps": 100}),
    "asha at 40, 120; a third": Rule(40),
    "asha at 20, 60, 180; a third": Rule(20),
    "asha at 20, 40, 80, 160; half": Rule(20, {"reduction_factor": 2}),
    "asha at 20, 80; a quarter": Rule(20, {"reduction_factor": 4}),
    "asha at 10, 30, 90; a third": Rule(10),
    "median from 20": Rule(20, {"pruner": "median"}),
    "up to 0.2 teraflops": Rule(50, admit=up_to(0.2)),
    "up to 0.1": Rule(50, admit=up_to(0.1)),
    "up to 0.05": Rule(50, admit=up_to(0.05)),
    "up to 0.05, rising for 50 trials": Rule(50, admit=rising(0.05, 50)),
    "up to 0.05, rising for 100 trials": Rule(50, admit=rising(0.05, 100)),
    "the cheaper of two": Rule(50, admit=cheapest_of(2)),
    "the cheapest of three": Rule(50, admit=cheapest_of(3)),
    "the cheaper of two, 12 trials": Rule(50, admit=cheapest_of(2, 12)),
    "the cheapest of three, 12 trials": Rule(50, admit=cheapest_of(3, 12)),
    "the cheaper of two, 24 trials": Rule(50, admit=cheapest_of(2, 24)),
    "asha at 40, 120; the cheaper of two": Rule(40, admit=cheapest_of(2)),
    "asha at 40, 120; the same, 12 trials": Rule(40, admit=cheapest_of(2, 12)),
}
"""What they are compared with comes first; the last one is nearest to what a search does."""


def record(data: dict[str, Any], num_trials: int) -> list[Recorded]:
    """Train what a random search of a table proposes, as many trials at a time as slots."""
    config, proposals = drawn(data, num_trials, evaluate_every_steps=EVERY_STEPS)
    os.environ.update(WORKER_ENVIRONMENT)
    context = multiprocessing.get_context("spawn")
    with context.Pool(NUM_SLOTS) as pool:
        return pool.map(partial(trained, config), proposals, chunksize=1)


def drawn(
    data: dict[str, Any], num_trials: int, **training: Any
) -> tuple[SearchConfig, list[Proposal]]:
    """What a random search of a table proposes, and how it is trained."""
    settings = {"sampler": "random", "use_default_starts": False, "trials": num_trials}
    given = {"study": "drawn", "data": data, "training": training, "search": settings}
    config = parse_config(given)
    table, _ = split(load(config.data), config.split)
    config, _ = resolve(config, table)
    limits = Limits(table, config.search.max_parameters, config.search.max_training_teraflops)
    identity, given_space = identity_of(config, table), (config.space, config.training)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/drawn.db"
        study = open_study(url, "drawn", identity, *given_space, config.search, limits)
        return config, [proposal for _ in range(num_trials) if (proposal := study.ask())]


def trained(config: SearchConfig, proposal: Proposal) -> Recorded:
    """Train a proposal to its end."""
    data, _ = split(load(config.data), config.split)
    teraflops = Limits(data, config.search.max_parameters, None).training_teraflops(proposal.config)
    values, train_seconds, evaluate_seconds, final_seconds = [], [], [], 0.0
    metric = config.search.metric
    try:
        for step in run_trial(proposal.config, data, proposal.seed, metric):
            assert isinstance(step, TrialStep)
            evaluation = step.evaluation
            if step.is_final:
                final_seconds = evaluation.evaluate_seconds
            else:
                values.append(metric_value(evaluation, metric))
                train_seconds.append(evaluation.train_seconds)
                evaluate_seconds.append(evaluation.evaluate_seconds)
    except TrainingDiverged:
        pass
    return Recorded(values, train_seconds, evaluate_seconds, final_seconds, teraflops)


@dataclass(order=True)
class _Running:
    """A trial until its next evaluation is there."""

    evaluated_at: float
    number: int
    trial: optuna.Trial
    recorded: Recorded
    num_evaluated: int = 0
    best: float = math.inf


class Simulation:
    """Slots that train recorded trials, in virtual time, under one rule."""

    def __init__(self, drawn: Stream, rule: Rule):
        """Make ready to train what is drawn, in this order."""
        budget = {"evaluate_every_steps": rule.every_steps}
        config = parse_config({"search": dict(rule.settings), "training": budget})
        self._study = optuna.create_study(
            study_name="simulated", pruner=pruner_of(config.search, config.training)
        )
        self._max_steps = config.training.max_steps
        self._every_steps = rule.every_steps
        self._left = enumerate(rule.admit(drawn))
        self._running: list[_Running] = []

    def run(self, seconds: float) -> Course:
        """The best value by time, for so long."""
        for _ in range(NUM_SLOTS):
            self._begin(at=0.0)
        course: list[tuple[float, float]] = []
        while True:
            running = heapq.heappop(self._running)
            at = running.evaluated_at
            if at > seconds:
                return course
            value = self._evaluated(running)
            if not course or value < course[-1][1]:
                course.append((at, value))

    def _begin(self, at: float) -> None:
        number, recorded = next(self._left)
        self._await(_Running(at + BESIDE_SECONDS, number, self._study.ask(), recorded))

    def _await(self, running: _Running) -> None:
        stride = self._every_steps // EVERY_STEPS
        begin = running.num_evaluated * stride
        running.num_evaluated += 1
        recorded = running.recorded
        taken = recorded.train_seconds[begin : begin + stride]
        running.evaluated_at += sum(taken)
        if len(taken) < stride:  # diverged, which is noticed at the end of the stretch
            each = statistics.mean(recorded.train_seconds or [0.0])
            running.evaluated_at += each * (stride - len(taken))
        running.evaluated_at += sum(recorded.evaluate_seconds[begin + stride - 1 : begin + stride])
        heapq.heappush(self._running, running)

    def _evaluated(self, running: _Running) -> float:
        """Judge a trial by its next evaluation; return its best value so far."""
        step = running.num_evaluated * self._every_steps
        values = running.recorded.values[: step // EVERY_STEPS]
        if len(values) == step // EVERY_STEPS:
            running.best = min(running.best, values[-1])
            running.trial.report(running.best, step)
            if step < self._max_steps and not running.trial.should_prune():
                self._await(running)
                return running.best
        is_complete = len(values) * EVERY_STEPS >= self._max_steps
        if is_complete:
            self._study.tell(running.trial, running.best)
        else:  # stopped, or diverged
            self._study.tell(running.trial, state=optuna.trial.TrialState.PRUNED)
        final_seconds = running.recorded.final_seconds if is_complete else 0.0
        self._begin(running.evaluated_at + final_seconds)
        return running.best


def compared(trials: Sequence[Recorded], num_orders: int) -> Table:
    """Each rule on the same orders, in which a trial may come again.

    Shown is by how much the best value found is above the best that was recorded, in percent: the
    mean over the orders, and the difference to the first rule with its standard error.
    """
    best = min(min(trial.values, default=math.inf) for trial in trials)
    table = Table("rule")
    for at in TIMES:
        table.add_column(f"after {at:g} s, %", justify="right")
        table.add_column("against the first", justify="right")
    first: dict[float, list[float]] = {}
    for name, rule in RULES.items():
        draws = (random.Random(order).choices(trials, k=MOST_DRAWN) for order in range(num_orders))
        courses = [Simulation(iter(trials_drawn), rule).run(max(TIMES)) for trials_drawn in draws]
        cells = []
        for at in TIMES:
            above = [100 * (min(value_at(course, at), 2 * best) / best - 1) for course in courses]
            differences = [a - b for a, b in zip(above, first.setdefault(at, above), strict=True)]
            error = statistics.stdev(differences) / math.sqrt(num_orders)
            cells += [f"{statistics.mean(above):.2f}"]
            cells += [f"{statistics.mean(differences):+.2f} ± {error:.2f}"]
        table.add_row(name, *cells)
    return table


def main() -> None:
    """Record or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("record", "compare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--series", action="append", default=[], metavar="FILE[:HORIZON[:TARGET,…]]"
    )
    parser.add_argument("--trials", type=int, default=150)
    parser.add_argument("--orders", type=int, default=200)
    given = parser.parse_args()
    if given.what == "record":
        given.folder.mkdir(parents=True, exist_ok=True)
        for name, data in map(series_named, given.series):
            content = [asdict(trial) for trial in record(data, given.trials)]
            (given.folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    else:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        console = Console(width=170)
        for file in sorted(given.folder.glob("*.json")):
            trials = [Recorded(**trial) for trial in json.loads(file.read_text(encoding="utf-8"))]
            console.print(file.stem, f"{len(trials)} trials")
            console.print(compared(trials, given.orders))


if __name__ == "__main__":
    main()
