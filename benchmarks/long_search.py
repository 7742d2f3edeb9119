"""A study of many quick trials: does the driver stay small and quick to the end?

    python -m benchmarks.long_search --trials 2000 --sampler tpe

Trials of two steps through the real executor, record and view. Printed for every hundred trials:
the driver's memory, open files and threads, and its time a trial without that of the proposals,
which grows with the history by nature and is given beside it. Linux only: it reads /proc.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from search.config import SearchConfig
from search.config_file import parse_config
from search.record import Proposal
from search.search import run_search
from search.study import Study

LARGEST_SLOWDOWN = 1.5
"""Time a trial at the end over that at the beginning."""


@dataclass(frozen=True)
class Moment:
    """The driver after some trials."""

    num_trials: int
    seconds: float
    """Since some moment before the first trial."""
    asking_seconds: float
    """Of them, spent on proposals."""
    memory_mib: float
    num_files: int
    num_threads: int


class Watch:
    """Takes the time of each proposal, and a look at this process every so many trials."""

    def __init__(self, every: int):
        self.moments: list[Moment] = []
        self._every = every
        self._asking_seconds = 0.0
        self._ask = Study.ask

    def ask(self, study: Study) -> Proposal | None:
        """Stands in for `Study.ask`."""
        started = time.perf_counter()
        num_trials = study.num_counted  # its time is none of the trials' either
        if num_trials >= self._every * len(self.moments):
            self.look(num_trials)
        try:
            return self._ask(study)
        finally:
            self._asking_seconds += time.perf_counter() - started

    def look(self, num_trials: int) -> None:
        """Note how the driver is now."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.moments.append(
            Moment(
                num_trials,
                time.perf_counter(),
                self._asking_seconds,
                pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
                _count("/proc/self/fd"),
                # Not threading's count, which leaves out those of Ray and torch.
                _count("/proc/self/task"),
            )
        )


def milliseconds_a_trial(moments: Sequence[Moment]) -> list[float]:
    """Time a trial between each two moments, the proposals' left out."""
    return [
        1000
        * (after.seconds - before.seconds - (after.asking_seconds - before.asking_seconds))
        / (after.num_trials - before.num_trials)
        for before, after in pairwise(moments)
    ]


def _count(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())


def as_table(moments: Sequence[Moment]) -> Table:
    """One line for every hundred trials."""
    table = Table(title="The driver over a long search")
    columns = "trials", "memory MiB", "open files", "threads", "ms a trial", "ms a proposal"
    for column in columns:
        table.add_column(column, justify="right")
    costs = milliseconds_a_trial(moments)
    for (before, after), cost in zip(pairwise(moments), costs, strict=True):
        asking = after.asking_seconds - before.asking_seconds
        table.add_row(
            str(after.num_trials),
            f"{after.memory_mib:.0f}",
            str(after.num_files),
            str(after.num_threads),
            f"{cost:.1f}",
            f"{1000 * asking / (after.num_trials - before.num_trials):.1f}",
        )
    return table


def search(num_trials: int, sampler: str, every: int, home: Path, console: Console) -> list[Moment]:
    """Search, and return how the driver was at the beginning, every so many trials and the end."""
    rows = np.arange(200)
    load = 50 + 10 * np.sin(2 * np.pi * rows / 6) + np.random.default_rng(0).normal(size=200)
    times = pd.date_range("2024-01-01", periods=200, freq="h")
    table = pd.DataFrame({"time": times, "load": load})
    watch = Watch(every)
    # A plain function, which becomes a method of each study.
    Study.ask = lambda study: watch.ask(study)  # type: ignore[method-assign, assignment]
    run_search(_configuration(num_trials, sampler, home), table, console=console, is_quiet=True)
    if watch.moments[-1].num_trials < num_trials:
        watch.look(num_trials)
    return watch.moments


def _configuration(num_trials: int, sampler: str, home: Path) -> SearchConfig:
    return parse_config(
        {
            "study": f"long-{sampler}",
            "home": str(home),
            "data": {"horizon": 4, "season": 6},
            "space": {
                "num_layers": 1,
                "hidden_size": {"low": 4, "high": 64},
                "lookback": 12,
                "head": "last_state",
            },
            "training": {"max_steps": 2, "evaluate_every_steps": 1, "precision": "float32"},
            "search": {
                "trials": num_trials,
                "sampler": sampler,
                "use_default_starts": False,
            },
        }
    )


def main() -> int:
    """Run the command; 1 where the driver grew slower than it may."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--sampler", choices=["tpe", "random"], default="tpe")
    parser.add_argument("--every", type=int, default=100, help="trials between two looks")
    given = parser.parse_args()
    if given.trials < 3 * given.every:
        parser.error(f"--trials must be at least three times --every: got {given.trials}")
    console = Console()
    with tempfile.TemporaryDirectory(prefix="lstm-search-long-") as folder:
        moments = search(given.trials, given.sampler, given.every, Path(folder), console)
    console.print(as_table(moments))
    costs = milliseconds_a_trial(moments)
    slowdown = costs[-1] / costs[1]  # in the first the workers start
    warm, last = moments[len(moments) // 4], moments[-1]
    console.print(
        f"time a trial, last {given.every} over second {given.every}: {slowdown:.2f} "
        f"(at most {LARGEST_SLOWDOWN})"
        f"\nmemory after a quarter of the trials: {warm.memory_mib:.0f} MiB, at the end: "
        f"{last.memory_mib:.0f} MiB"
    )
    return 0 if slowdown <= LARGEST_SLOWDOWN else 1


if __name__ == "__main__":
    raise SystemExit(main())
