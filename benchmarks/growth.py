"""What a search costs as its work grows: more rows, more trials, more workers.

    python -m benchmarks.growth docs/img/growth.png

Trials are never stopped early and differ by their seed only, so that what is compared is the same
training. The time of a search is that between the start of its first trial and the end of its last
one, by the record. What a second worker gains at most on this machine, the same trainings in plain
processes tell (`bare_loop.py`), the start of the processes left out. Linux only: it reads /proc.
"""

import argparse
import json
import math
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.bare_loop import Run, runs_of, time_bare_loop
from benchmarks.driver import Driver
from benchmarks.floor import recorded
from pipelines.series import EMBEDDED_TABLE
from search.config import SearchConfig

ROW_FACTORS = (1, 10, 100)
TRIAL_COUNTS = (20, 100, 400)
WORKER_COUNTS = (1, 2)


@dataclass(frozen=True)
class Cost:
    """One search, or its trainings without it."""

    size: float
    """Rows, trials or workers."""
    seconds: float
    num_trials: int
    worker_mib: float
    """The largest memory of a worker."""
    driver_mib: float
    config: SearchConfig
    """Of the search."""
    runs: list[Run]
    """What it trained."""


def cost(size: float, widths: Sequence[int], repeats: int, flags: Sequence[str]) -> Cost:
    """Train one configuration with as many seeds as `repeats`."""
    with tempfile.TemporaryDirectory() as home:
        fixed = {
            "widths": [list(widths)],
            "bidirectional": False,
            "dropout": 0.0,
            "normalisation": "last",
            "linear_skip": "none",
            "head": "last_state",
            "calendar": False,
            "patch_length": 4,
            "lookback": 96,
            "learning_rate": 1e-3,
            "batch_size": 64,
            "weight_decay": 0.0,
        }
        arguments = ["--study", "timed", "--home", home, "--no-finalize", "--sampler", "grid"]
        arguments += ["--repeats", str(repeats), "--set", f"space={json.dumps(fixed)}"]
        driver = Driver([*arguments, *flags], Path(home) / "log", {})
        driver_mib = 0.0
        while driver.is_alive:
            driver_mib = max(driver_mib, peak_mib(driver.pid))
            time.sleep(0.5)
        if driver.wait() != 0:
            raise SystemExit(driver.tail())
        driver.end_session()
        config, trials = recorded(home)
        ran = [trial for trial in trials if trial.evaluations]
        started = min(trial.started_at or 0.0 for trial in ran)
        ended = max(trial.ended_at or 0.0 for trial in ran)
        worker = max(t.evaluations[-1].evaluation.peak_memory_bytes for t in ran)
        memory = worker / 2**20, driver_mib
        return Cost(size, ended - started, len(ran), *memory, config, runs_of(trials))


def peak_mib(pid: int) -> float:
    """The most memory that a process has had so far; 0 where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 2**10 if found else 0.0


def with_rows(factor: int, folder: Path) -> Cost:
    """Ten trials on a table of so many times the embedded one's rows."""
    table = pd.read_csv(EMBEDDED_TABLE)
    load = np.tile(table["load"].to_numpy(), factor)
    noise = np.random.default_rng(0).normal(scale=0.01 * load.std(), size=len(load))
    hours = pd.date_range("1900-01-01", periods=len(load), freq="h")
    path = folder / f"{factor}.csv"
    pd.DataFrame({"timestamp": hours, "load": (load + noise).round(2)}).to_csv(path, index=False)
    return cost(len(load), [64], 10, ["--data", str(path)])


def with_trials(count: int) -> Cost:
    """So many trials of ten steps."""
    quick = ["--set", "training.max_steps=10", "--set", "training.evaluate_every_steps=5"]
    return cost(count, [16], count, quick)


def with_workers(count: int) -> Cost:
    """Sixty trials on so many slots: of fewer, MLflow and the baselines are most."""
    return cost(count, [64], 60, ["--max-concurrent", str(count)])


def in_plain_processes(searched: Cost, count: int) -> Cost:
    """The trainings of a search in so many processes; their memory is not looked at."""
    config, runs = searched.config, searched.runs
    seconds = time_bare_loop(config, runs, count) - time_bare_loop(config, [], count)
    return replace(searched, size=count, seconds=seconds, worker_mib=math.nan, driver_mib=math.nan)


def draw(costs: dict[str, list[Cost]], path: Path) -> None:
    """Draw one picture for each way to grow."""
    figure = Figure(figsize=(13, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (name, points) in enumerate(costs.items(), start=1):
        axes = figure.add_subplot(1, len(costs), place)
        sizes = [point.size for point in points]
        axes.plot(sizes, [point.seconds / point.num_trials for point in points], marker="o")
        axes.set_xscale("log", base=10 if name in ("rows", "trials") else 2)
        axes.set_xticks(sizes, [f"{size:,.0f}" for size in sizes], minor=False)
        axes.minorticks_off()  # their labels would lie over those of the sizes
        axes.set_ylim(bottom=0)
        axes.set_xlabel(name)
        axes.set_ylabel("seconds a trial")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        costs = {
            "rows": [with_rows(factor, Path(folder)) for factor in ROW_FACTORS],
            "trials": [with_trials(count) for count in TRIAL_COUNTS],
            "workers": [with_workers(count) for count in WORKER_COUNTS],
        }
        alone = costs["workers"][0]
        costs["plain processes"] = [in_plain_processes(alone, count) for count in WORKER_COUNTS]
    table = Table("grows", "size", "trials", "seconds", "seconds a trial", "against the first")
    table.add_column("worker MiB")
    table.add_column("driver MiB")
    for name, points in costs.items():
        for point in points:
            each = point.seconds / point.num_trials
            first = points[0].seconds / points[0].num_trials
            memory = point.worker_mib, point.driver_mib
            table.add_row(
                name,
                f"{point.size:,.0f}",
                str(point.num_trials),
                f"{point.seconds:.1f}",
                f"{each:.2f}",
                f"{each / first:.2f}",
                *("-" if math.isnan(mib) else f"{mib:.0f}" for mib in memory),
            )
    Console(width=110).print(table)
    print(f"{time.perf_counter() - began:.0f} s in all")
    draw(costs, given.picture)


if __name__ == "__main__":
    main()
