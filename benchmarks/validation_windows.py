"""What a search loses where trials are evaluated on fewer validation windows, and what it saves.

    python -m benchmarks.validation_windows FOLDER --series electricity --series demand.csv:48

Configurations drawn at random from the default space are trained to their end; each time that a
search would evaluate them they are evaluated on all validation windows and on evenly spaced fewer
ones. For each number of windows, against all:

- pairs: of the pairs of trials that are among the better half at a step, the share that it puts in
  the other order;
- stopped: of the third that are best at a step, whom a search would go on with, the share that it
  puts elsewhere;
- regret: by how much the trial whose value it finds best is above the best one, in percent, in
  100 draws of half the trials;
- share: evaluations, of the time of trials that nothing stops.

What FOLDER has already is kept.
"""

import itertools
import json
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.floor import NUM_SLOTS
from benchmarks.quality import parser_of_series, series_named
from benchmarks.spending import drawn
from pipelines.scores import TrainingDiverged
from pipelines.series import load
from pipelines.splits import split
from pipelines.windows import evenly_spaced
from search.cluster import WORKER_ENVIRONMENT
from search.config import SearchConfig
from search.record import Proposal, metric_of_errors
from search.trial import begin_training

NUMBERS = (64, 128, 256, 512, 1024, 2048)
NUM_DRAWS = 100


@dataclass(frozen=True)
class Evaluated:
    """A trial that nothing stopped: S evaluations of the same weights, each in N ways."""

    values: Mapping[str, Sequence[float]]
    """By number of windows, `all` among them: [S] of what a search minimises."""
    evaluate_seconds: Mapping[str, float]
    """By number of windows: of all S."""
    train_seconds: float


def evaluated(config: SearchConfig, proposal: Proposal) -> Evaluated | None:
    """Train a proposal to its end; None where it diverges."""
    torch.set_num_threads(1)
    data, _ = split(load(config.data), config.split)
    training = begin_training(proposal.config, data, proposal.seed, "cpu")
    origins = training.windows.validation_origins
    fewer = [number for number in NUMBERS if number < len(origins)]
    ways = {str(number): evenly_spaced(origins, number) for number in fewer} | {"all": origins}
    values: dict[str, list[float]] = {way: [] for way in ways}
    evaluate_seconds = dict.fromkeys(ways, 0.0)
    train_seconds = 0.0
    every = proposal.config.training.evaluate_every_steps
    try:
        for first in range(0, proposal.config.training.max_steps, every):
            began = time.perf_counter()
            training.take_steps(first, first + every)
            train_seconds += time.perf_counter() - began
            for way, chosen in ways.items():
                began = time.perf_counter()
                errors = training.validate(chosen)
                evaluate_seconds[way] += time.perf_counter() - began
                values[way].append(metric_of_errors(errors, config.search.metric))
    except TrainingDiverged:
        return None
    return Evaluated(values, evaluate_seconds, train_seconds)


def record(series: str, num_trials: int) -> list[Evaluated]:
    """Evaluate what a random search of a table proposes."""
    config, proposals = drawn(series_named(series)[1], num_trials)
    os.environ.update(WORKER_ENVIRONMENT)
    with multiprocessing.get_context("spawn").Pool(NUM_SLOTS) as pool:
        found = pool.map(partial(evaluated, config), proposals, chunksize=1)
    return [trial for trial in found if trial is not None]


def share_of_pairs_reversed(few: Sequence[float], every: Sequence[float]) -> float:
    """Of the pairs of the better half by `every`, the share that `few` has the other way round."""
    better = sorted(range(len(every)), key=every.__getitem__)[: len(every) // 2]
    pairs = list(itertools.combinations(better, 2))
    return statistics.mean(few[one] > few[other] for one, other in pairs)


def share_stopped(few: Sequence[float], every: Sequence[float]) -> float:
    """Of the third that is best by `every`, the share that is not so by `few`."""
    count = len(every) // 3
    best, kept = (
        set(sorted(range(len(values)), key=values.__getitem__)[:count]) for values in (every, few)
    )
    return len(best - kept) / count


def regret(few: Sequence[float], every: Sequence[float]) -> float:
    """By how much the one that is best by `few` is above the best; mean over draws of half."""
    above = []
    for draw in range(NUM_DRAWS):
        some = random.Random(draw).sample(range(len(every)), len(every) // 2)
        chosen, best = min(some, key=few.__getitem__), min(every[place] for place in some)
        above.append(every[chosen] / best - 1)
    return statistics.mean(above)


def compared(trials: Sequence[Evaluated]) -> Table:
    """Each number of windows against all."""
    table = Table("windows", "pairs, %", "stopped, %", "regret, %", "share, %")
    num_steps = len(trials[0].values["all"])
    for way in trials[0].values:
        by_step = [
            tuple([trial.values[kind][step] for trial in trials] for kind in (way, "all"))
            for step in range(num_steps)
        ]
        evaluating = sum(trial.evaluate_seconds[way] for trial in trials)
        training = sum(trial.train_seconds for trial in trials)
        # By the last evaluation: it is the end of the cosine, the best one of nearly all.
        measures = (
            statistics.mean(share_of_pairs_reversed(*values) for values in by_step),
            statistics.mean(share_stopped(*values) for values in by_step),
            regret(*by_step[-1]),
            evaluating / (evaluating + training),
        )
        table.add_row(way, *(f"{100 * measure:.2f}" for measure in measures))
    return table


def main() -> None:
    """Evaluate and compare."""
    parser = parser_of_series(__doc__)
    parser.add_argument("--trials", type=int, default=40)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for series in given.series:
        kept = given.folder / f"{series_named(series)[0]}.json"
        if not kept.exists():
            content = [asdict(trial) for trial in record(series, given.trials)]
            kept.write_text(json.dumps(content), encoding="utf-8")
        trials = [Evaluated(**trial) for trial in json.loads(kept.read_text(encoding="utf-8"))]
        console = Console()
        console.print(f"{kept.stem}, {len(trials)} trials")
        console.print(compared(trials))


if __name__ == "__main__":
    main()
