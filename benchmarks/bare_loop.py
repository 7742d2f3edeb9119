"""The floor: what a finished search trained, in plain processes from one queue, nothing else.

Started by `benchmarks/floor.py`. Each recorded configuration is trained with its seed for as many
steps as the search gave it, and evaluated as often, by the search's own training step. There are
no proposals, no record, no view, no weights kept and no screen. The starts of the processes and
their imports count.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.config import SearchConfig
    from search.record import TrialRecord


@dataclass(frozen=True)
class Run:
    """A trial to be repeated."""

    config: str
    """As JSON."""
    seed: int
    steps: int
    """Optimiser steps that it took."""


def runs_of(trials: "list[TrialRecord]") -> list[Run]:
    """What trials of a record trained, in the order in which they started."""
    ran = [trial for trial in trials if trial.evaluations and trial.config is not None]
    return [
        Run(trial.config.model_dump_json(), trial.seed, trial.evaluations[-1].evaluation.step)
        for trial in sorted(ran, key=lambda trial: trial.started_at or 0.0)
        if trial.config is not None
    ]


def time_bare_loop(config: "SearchConfig", runs: list[Run], num_workers: int) -> float:
    """Return the seconds that the loop takes in a process of its own, with what that starts."""
    from search.cluster import WORKER_ENVIRONMENT

    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "plan.json"
        plan.write_text(
            json.dumps({"config": config.model_dump_json(), "runs": [asdict(run) for run in runs]}),
            encoding="utf-8",
        )
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "benchmarks.bare_loop", str(plan), f"--workers={num_workers}"],
            check=True,
            env=os.environ | WORKER_ENVIRONMENT,
        )
        return time.perf_counter() - began


def work(config: str, left: "multiprocessing.Queue[Run | None]") -> None:
    """Train what the queue holds."""
    import torch

    from pipelines.series import load
    from pipelines.splits import split
    from search.config import SearchConfig
    from search.space import TrialConfig
    from search.trial import TrialStep, run_trial

    torch.set_num_threads(1)
    search = SearchConfig.model_validate_json(config)
    data, _ = split(load(search.data), search.split)
    while (run := left.get()) is not None:
        chosen = TrialConfig.model_validate_json(run.config)
        for step in run_trial(chosen, data, run.seed, search.search.metric):
            assert isinstance(step, TrialStep)
            if step.evaluation.step >= run.steps and run.steps < chosen.training.max_steps:
                break


def main() -> None:
    """Train a plan's runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("plan", type=Path, help="what `time_bare_loop` wrote")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    content = json.loads(given.plan.read_text(encoding="utf-8"))
    context = multiprocessing.get_context("spawn")
    left: multiprocessing.Queue[Run | None] = context.Queue()
    for run in [Run(**run) for run in content["runs"]] + [None] * given.workers:
        left.put(run)
    workers = [
        context.Process(target=work, args=(content["config"], left)) for _ in range(given.workers)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a worker has broken")


if __name__ == "__main__":
    main()
