"""How long a search takes to be better than something.

    python -m benchmarks.time_to_quality --below 0.0794 --below 0.0846 --seeds 5 --time-budget 40s

Prints for each seed after how many seconds, from the command, the best validation value was below
each threshold, and the median. Further flags go to the search: without the queued starts with
`--set search.use_default_starts=false`.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.driver import Driver
from benchmarks.floor import NUM_SLOTS, recorded
from search.config import Metric
from search.record import TrialRecord, metric_value


def seconds_until(
    trials: Sequence[TrialRecord], below: float, metric: Metric, began_at: float
) -> float:
    """When an evaluation was first below a value, after `began_at`; infinite where none was."""
    times = [
        recorded.time
        for trial in trials
        for recorded in trial.evaluations
        if metric_value(recorded.evaluation, metric) < below
    ]
    return min(times, default=math.inf) - began_at


def main() -> None:
    """Search with each seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--below", type=float, action="append", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    given, more = parser.parse_known_args()
    table = Table("seed", *(f"below {below:g}, s" for below in given.below), "best")
    found: list[list[float]] = []
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as home:
            began_at = time.time()
            flags = ["--study", "timed", "--home", home, "--no-finalize", "--seed", str(seed)]
            flags += ["--trials", "10000", "--max-concurrent", str(NUM_SLOTS), *more]
            driver = Driver(flags, Path(home) / "log", {})
            if driver.wait(seconds=3600) != 0:
                raise SystemExit(driver.tail())
            driver.end_session()
            config, trials = recorded(home)
        metric = config.search.metric
        found.append([seconds_until(trials, below, metric, began_at) for below in given.below])
        best = min(
            metric_value(recorded.evaluation, metric)
            for trial in trials
            for recorded in trial.evaluations
        )
        table.add_row(str(seed), *(f"{seconds:.1f}" for seconds in found[-1]), f"{best:.4f}")
    medians = [statistics.median(column) for column in zip(*found, strict=True)]
    table.add_row("median", *(f"{seconds:.1f}" for seconds in medians), "")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
