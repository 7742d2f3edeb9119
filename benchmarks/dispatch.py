"""How many trials an hour one driver serves: whole searches whose workers train nothing.

    python -m benchmarks.dispatch --workers 16 --trials 800

Ray, record, sampler, pruner, kept weights and view are the real ones. A worker sleeps instead of
training (`idle_actor.py`). So what bounds the rate is the driver, which is what many trials that
share fast GPUs wait for; on few cores Ray's own processes and the workers' take part in it. Only
the second half of the time between the first trial's start and the last one's end counts: before
it, workers start.
"""

import argparse
import os
import tempfile
from pathlib import Path
from time import process_time
from unittest.mock import patch

from rich.console import Console

from search import executor  # says, before Ray is there, how quiet it is to be

# isort: split
from benchmarks.floor import second_half
from benchmarks.idle_actor import SECONDS, STEPS, IdleActor
from search.config import SearchConfig
from search.config_file import parse_config
from search.search import run_search


def configuration(num_trials: int, num_workers: int, home: Path) -> SearchConfig:
    """The default search of the embedded table, evaluated where idle workers are."""
    return parse_config(
        {
            "study": "idle",
            "home": str(home),
            "training": {"max_steps": STEPS[-1], "evaluate_every_steps": STEPS[0]},
            "search": {"trials": num_trials},
            "resources": {
                "device": "cpu",
                "cpus_per_trial": (os.cpu_count() or 1) / num_workers,
                "max_concurrent": num_workers,
            },
        }
    )


def main() -> None:
    """Search once, and print the rate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--trials", type=int, default=800)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as home,
        patch.object(executor, "TrialActor", IdleActor),
    ):
        began = process_time()
        found = run_search(configuration(given.trials, given.workers, Path(home)), is_quiet=True)
        cpu_seconds = process_time() - began
    _, _, trials_an_hour = second_half(found.trials)
    num_run = sum(trial.ended_at is not None and bool(trial.evaluations) for trial in found.trials)
    Console(width=110).print(
        f"{num_run} trials, {given.workers} workers that sleep {SECONDS:g} s an evaluation: "
        f"{trials_an_hour:,.0f} trials an hour; the driver's processor time: "
        f"{1000 * cpu_seconds / num_run:.0f} ms a trial, its start included"
    )


if __name__ == "__main__":
    main()
