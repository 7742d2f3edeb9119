"""A search as a user starts it, against the floor: the same training in plain processes.

    python -m benchmarks.floor --trials 130 --repeats 3

Prints the wall-clock of the command and of the bare loop (`bare_loop.py`) with what it recorded,
their ratio, when the first trial took its first step, and how long a slot was idle while another
one trained its last trial.
"""

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.bare_loop import runs_of, time_bare_loop
from benchmarks.driver import Driver
from search.config import SearchConfig
from search.config_file import parse_config
from search.places import record_url, recorded_config
from search.record import TrialRecord
from search.stored_studies import read_study

NUM_SLOTS = 2


@dataclass(frozen=True)
class Timed:
    """A search and its floor."""

    seconds: float
    """From the command to its end."""
    first_step_seconds: float
    """From the command to the first step of the first trial, by the record's clock."""
    idle_seconds: float
    """The longest time that a slot had nothing to do before the last trial ended."""
    num_trials: int
    num_steps: int
    bare_seconds: float
    best: float
    """The best validation value."""


def time_search(flags: Sequence[str], num_slots: int = NUM_SLOTS) -> Timed:
    """Search without finalists, then train the same in the bare loop."""
    with tempfile.TemporaryDirectory() as home:
        began, clock = time.time(), time.perf_counter()
        arguments = ["--study", "timed", "--home", home, "--no-finalize", *flags]
        driver = Driver([*arguments, "--max-concurrent", str(num_slots)], Path(home) / "log", {})
        if driver.wait(seconds=3600) != 0:
            raise SystemExit(driver.tail())
        seconds = time.perf_counter() - clock
        driver.end_session()
        config, trials = recorded(home)
        runs = runs_of(trials)
        return Timed(
            seconds,
            first_step_at(trials) - began,
            idle_seconds(trials),
            len(runs),
            sum(run.steps for run in runs),
            time_bare_loop(config, runs, num_slots),
            min(trial.value for trial in trials if trial.value is not None),
        )


def recorded(home: str) -> tuple[SearchConfig, list[TrialRecord]]:
    """What a search has left in a home."""
    place = parse_config({"home": home})
    config = parse_config(recorded_config(place, "timed"))
    _, trials = read_study(record_url(place, "timed"), "timed")
    return config, list(trials)


def first_step_at(trials: Sequence[TrialRecord]) -> float:
    """When the first trial took its first step (seconds since 1970)."""
    first = min((t for t in trials if t.evaluations), key=lambda t: t.evaluations[0].time)
    came = first.evaluations[0]
    return came.time - came.evaluation.train_seconds - came.evaluation.evaluate_seconds


def idle_seconds(trials: Sequence[TrialRecord]) -> float:
    """How long the worker that ended first waited for the one that ended last."""
    ends: dict[int, float] = defaultdict(float)
    for trial in trials:
        if trial.evaluations and trial.ended_at is not None:
            worker = trial.ran_on["pid"]
            ends[worker] = max(ends[worker], trial.ended_at)
    return max(ends.values()) - min(ends.values())


def second_half(trials: Sequence[TrialRecord]) -> tuple[float, float, float]:
    """The second half of the time in which trials ran: its two ends, and its trials an hour.

    All that ended in it count, with whatever outcome (seconds since 1970).
    """
    ran = [trial for trial in trials if trial.started_at and trial.ended_at]
    first, last = min(t.started_at or 0 for t in ran), max(t.ended_at or 0 for t in ran)
    middle = (first + last) / 2
    num_ended = sum((trial.ended_at or 0) > middle for trial in ran)
    return middle, last, 3600 * num_ended / (last - middle)


def main() -> None:
    """Time some searches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=130)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the first; then the next ones")
    given, more = parser.parse_known_args()
    table = Table("seed", "search s", "bare s", "ratio", "first step s", "idle s", "trials")
    table.add_column("steps")
    table.add_column("best")
    for seed in range(given.seed, given.seed + given.repeats):
        timed = time_search(["--trials", str(given.trials), "--seed", str(seed), *more])
        table.add_row(
            str(seed),
            f"{timed.seconds:.1f}",
            f"{timed.bare_seconds:.1f}",
            f"{timed.seconds / timed.bare_seconds:.3f}",
            f"{timed.first_step_seconds:.1f}",
            f"{timed.idle_seconds:.1f}",
            str(timed.num_trials),
            str(timed.num_steps),
            f"{timed.best:.4f}",
        )
    console = Console(width=120)
    console.print(table)
    console.print(f"{os.cpu_count()} cores, {NUM_SLOTS} slots")


if __name__ == "__main__":
    main()
