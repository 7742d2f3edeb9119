"""Whether trials run at full speed while MLflow is down: python -m benchmarks.outages --rounds 5.

The same seeded search runs again and again, its MLflow server answering, refusing or hanging in
turns. Printed are medians, and the fastest and slowest, of the seconds from the first trial's start
to the last one's end, and of those that the search's end then takes for MLflow.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.faulty_proxy import FaultyProxy, Mode
from benchmarks.mlflow_server import mlflow_server
from search import SearchConfig, run_search
from search.config_file import parse_config
from search.record import Ending

MODES: tuple[Mode, ...] = ("pass", "refuse", "hang")


@dataclass(frozen=True)
class Timing:
    """What one search took."""

    trials_seconds: float
    end_seconds: float
    is_shown: bool


def main() -> None:
    """Run the searches and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="searches of each kind")
    parser.add_argument("--trials", type=int, default=12, help="of each search")
    parser.add_argument("--steps", type=int, default=300, help="of each trial")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="outages-") as folder:
        timings = _measure(Path(folder), options.rounds, options.trials, options.steps)
    _print_table(timings)


def _measure(
    folder: Path, num_rounds: int, num_trials: int, steps: int
) -> dict[Mode, list[Timing]]:
    timings: dict[Mode, list[Timing]] = {mode: [] for mode in MODES}
    with mlflow_server(folder) as server:
        proxy = FaultyProxy(server)
        # Ray starts, and every process warms up, in a search that does not count.
        time_search(_config(folder, "warm-up", proxy.uri, 2, steps))
        for place in range(num_rounds):
            # Whoever is first in one round is last in another.
            for mode in MODES[place % len(MODES) :] + MODES[: place % len(MODES)]:
                config = _config(folder, f"{mode}-{place}", proxy.uri, num_trials, steps)
                with proxy.behaving(mode):
                    timings[mode].append(time_search(config))
                print(f"{config.study:10} {timings[mode][-1]}", flush=True)
        proxy.close()
    return timings


def time_search(config: SearchConfig) -> Timing:
    """Run a search quietly; return what its trials and its end took."""
    result = run_search(config, data=_table(), is_quiet=True)
    ended_at = time.time()
    assert result.ending is Ending.DONE
    ends = [trial.ended_at for trial in result.trials if trial.ended_at is not None]
    starts = [trial.started_at for trial in result.trials if trial.started_at is not None]
    return Timing(max(ends) - min(starts), ended_at - max(ends), result.mlflow_url is not None)


def _print_table(timings: dict[Mode, list[Timing]]) -> None:
    print("\n| server | trials, s: median (range) | against `pass` | end, s: median | shown |")
    print("| --- | --- | --- | --- | --- |")
    undisturbed = statistics.median(timing.trials_seconds for timing in timings["pass"])
    for mode, of_mode in timings.items():
        seconds = [timing.trials_seconds for timing in of_mode]
        median = statistics.median(seconds)
        end = statistics.median(timing.end_seconds for timing in of_mode)
        num_shown = sum(timing.is_shown for timing in of_mode)
        print(
            f"| {mode} | {median:.2f} ({min(seconds):.2f}-{max(seconds):.2f}) "
            f"| {median / undisturbed:.3f} | {end:.1f} | {num_shown} of {len(of_mode)} |"
        )


def _config(folder: Path, study: str, uri: str, num_trials: int, steps: int) -> SearchConfig:
    narrow = {
        "num_layers": 1,
        "hidden_size": {"low": 8, "high": 32},
        "bidirectional": False,
        "lookback": 24,
        "batch_size": 32,
    }
    return parse_config(
        {
            "study": study,
            "home": str(folder),
            "data": {"horizon": 6},
            "space": narrow,
            "training": {"max_steps": steps, "evaluate_every_steps": 20, "precision": "float32"},
            # The same trials each time, whatever ends first.
            "search": {"trials": num_trials, "sampler": "random", "pruner": "none", "seed": 1},
            "resources": {"device": "cpu", "max_concurrent": 2},
            "tracking": {"uri": uri},
        }
    )


def _table() -> pd.DataFrame:
    rows = np.arange(2000)
    daily = 50 + 10 * np.sin(2 * np.pi * rows / 24)
    noise = np.random.default_rng(1).normal(size=len(rows))
    when = pd.date_range("2024-01-01", periods=len(rows), freq="h")
    return pd.DataFrame({"when": when, "load": (daily + noise).round(3)})


if __name__ == "__main__":
    main()
