"""Whole searches on one GPU: trials an hour, by how the trials use it.

    python -m benchmarks.gpu_search --trials plain=40 --trials graph=60 --trials shared,mps=300

`plain` is one trial at a time, training steps taken one by one; `graph` the same with steps as CUDA
graphs; `shared` lets `--gpus-per-trial auto` say how many share the GPU; `,mps` runs under NVIDIA's
Multi-Process Service. All else is the default search of the embedded table; more flags of
`search.run` may follow, such as `--time-budget 60s`.

Seconds count from the first trial's start to the last one's end. Trials an hour, and the share of
the time in which the GPU was busy, are those of the second half of these: before it, processes
start.
"""

import argparse
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.driver import Driver
from benchmarks.floor import recorded, second_half
from benchmarks.gpu_busy import GpuBusy
from benchmarks.gpu_sharing import under
from search.record import TrialRecord

FLAGS = {
    "plain": ["--set", "resources.cuda_graph=false"],
    "graph": [],
    "shared": ["--gpus-per-trial", "auto"],
}


@dataclass(frozen=True)
class Searched:
    """What one search did."""

    seconds: float
    """From its first trial's start to its last one's end."""
    num_trials: int
    num_failed: int
    num_retries: int
    num_steps: int
    num_at_a_time: int
    trials_an_hour: float
    """That ended in the second half, with whatever outcome."""
    busy_percent: float
    """Of the second half."""
    best: float


def search(way: str, num_trials: int, more: list[str]) -> Searched:
    """Search without finalists."""
    kind, _, service = way.partition(",")
    flags = [*FLAGS[kind], *more]
    with tempfile.TemporaryDirectory() as home, under(service):
        arguments = ["--study", "timed", "--home", home, "--no-finalize", "--trials"]
        with GpuBusy() as busy:
            driver = Driver([*arguments, str(num_trials), *flags], Path(home) / "log", {})
            exit_code = driver.wait(seconds=3600)
        driver.end_session()
        if exit_code != 0:
            raise SystemExit(driver.tail(40))
        measured = [line for line in driver.tail(10_000).splitlines() if "sharing a GPU" in line]
        print(*measured, sep="\n", flush=True)
        _, trials = recorded(home)
        ran = [trial for trial in trials if trial.started_at and trial.ended_at]
        middle, last, trials_an_hour = second_half(ran)
        retries = Counter(reason for trial in trials for reason in trial.retries)
        for reason, number in retries.items():
            print(f"tried again, {number} times: {reason}", flush=True)
        return Searched(
            2 * (last - middle),
            len(ran),
            sum(trial.value is None and not trial.evaluations for trial in ran),
            retries.total(),
            sum(trial.evaluations[-1].evaluation.step for trial in ran if trial.evaluations),
            most_at_a_time(ran),
            trials_an_hour,
            busy.between(middle, last),
            min(trial.value for trial in ran if trial.value is not None),
        )


def most_at_a_time(trials: list[TrialRecord]) -> int:
    """How many trials ran at a time, at most."""
    changes = [(trial.started_at or 0, 1) for trial in trials]
    changes += [(trial.ended_at or 0, -1) for trial in trials]
    running = most = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most


def main() -> None:
    """Search each way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", action="append", required=True, metavar="WAY=NUMBER")
    given, more = parser.parse_known_args()
    names = ("way", "at a time", "trials", "without evaluation", "retries", "steps", "s")
    table, console = Table(*names, "trials an hour", "GPU busy", "best"), Console(width=120)
    for each in given.trials:
        way, _, number = each.partition("=")
        found = search(way, int(number), more)
        cells = [
            way,
            str(found.num_at_a_time),
            str(found.num_trials),
            str(found.num_failed),
            str(found.num_retries),
            str(found.num_steps),
            f"{found.seconds:.1f}",
            f"{found.trials_an_hour:.0f}",
            f"{found.busy_percent:.0f} %",
            f"{found.best:.4f}",
        ]
        console.print(*cells)
        table.add_row(*cells)
    console.print(table)


if __name__ == "__main__":
    main()
