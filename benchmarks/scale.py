"""How many trials and workers one driver serves: its time for each event.

    python -m benchmarks.scale --trials 1000 --workers 256

Simulated workers in virtual time train recorded learning curves (`recorded_curves.py`); Ray is
left out. Record, sampler, pruner and kept weights are the real ones, driven as the executor drives
them; the view is the real one on a sample of the trials. Printed is the driver's own time for each
proposal, start, evaluation and end, its memory, and what record and view take. Linux only: it
reads /proc.
"""

import argparse
import heapq
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.recorded_curves import Curves
from benchmarks.stand_ins import WEIGHTS, make_evaluation
from pipelines.scores import Evaluation
from pipelines.series import load
from pipelines.splits import SearchData, split
from search.config import Sampler, SearchConfig
from search.config_file import parse_config
from search.facts import facts_of, identity_of
from search.kept_weights import Files, KeptWeights
from search.limits import Limits
from search.record import Proposal, TrialRecord, TrialState
from search.recorder import Recorder
from search.resolve import resolve
from search.space import TrialConfig
from search.study import SpaceExhaustedError, Study, open_study
from search.tracking import View

TARGET_MILLISECONDS = 50.0
"""Largest median time of an event."""
MACHINE = {"host": "simulated", "pid": 0, "device": "cpu", "hardware": "simulated"}


@dataclass
class Costs:
    """The driver's seconds for each event, by its name."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @contextmanager
    def of(self, event: str) -> Iterator[None]:
        """Take the time of one event."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[event].append(time.perf_counter() - began)

    def median_milliseconds(self, event: str, last: int | None = None) -> float:
        """The median of all times of an event, or of the last ones."""
        return 1000 * statistics.median(self.seconds[event][-(last or 0) :])


@dataclass
class Worker:
    """One simulated trial: what is left of its curve."""

    proposal: Proposal
    evaluations: list[Evaluation]
    seconds: list[float]
    best: float = float("inf")


class Simulation:
    """The driver of a search whose workers are an event queue."""

    def __init__(self, study: Study, kept: KeptWeights, curves: Curves, num_workers: int):
        """Make ready; `study` is open for writing."""
        self.costs = Costs()
        self.virtual_seconds = 0.0
        self._study = study
        self._recorder = Recorder(
            study, kept, [], max_step_seconds=1e9, max_retries=0, max_failures_in_a_row=1
        )
        self._curves = curves
        self._num_workers = num_workers
        self._queue: list[tuple[float, int, Worker]] = []
        self._is_over = False

    def run(self) -> Iterator[int]:
        """Run all trials; yields after each that ended how many have."""
        for _ in range(self._num_workers):
            self._begin_trial()
        num_ended = 0
        while self._queue:
            self.virtual_seconds, number, worker = heapq.heappop(self._queue)
            if self._is_ended(number, worker):
                num_ended += 1
                self._begin_trial()
                yield num_ended

    def _begin_trial(self) -> None:
        if self._is_over:
            return
        try:
            with self.costs.of("propose"):
                proposal = self._study.ask()
        except SpaceExhaustedError:
            proposal = None
        if proposal is None:
            self._is_over = True
            return
        with self.costs.of("start"):
            self._recorder.start(proposal.number)
        errors, seconds = self._curves.drawn(proposal.config, proposal.seed)
        evaluations = [
            make_evaluation(step, float(mae))
            for step, mae in zip(self._curves.steps, errors, strict=True)
        ]
        worker = Worker(proposal, evaluations, [float(each) for each in seconds])
        self._await(proposal.number, worker)

    def _is_ended(self, number: int, worker: Worker) -> bool:
        evaluation = worker.evaluations.pop(0)
        is_best = evaluation.errors.mae_scaled < worker.best
        worker.best = min(worker.best, evaluation.errors.mae_scaled)
        with self.costs.of("evaluate"):
            is_stopped = self._recorder.evaluate(number, _result(evaluation, is_best))
        if is_stopped:
            return True
        if worker.evaluations:
            self._await(number, worker)
            return False
        with self.costs.of("complete"):
            self._recorder.evaluate(number, _result(evaluation, False) | {"is_final": True})
            self._recorder.finish(number, None)
        return True

    def _await(self, number: int, worker: Worker) -> None:
        ready_at = self.virtual_seconds + worker.seconds.pop(0)
        heapq.heappush(self._queue, (ready_at, number, worker))


def _result(evaluation: Evaluation, is_best: bool) -> dict[str, Any]:
    return {
        "files": Files(WEIGHTS if is_best else None, None),
        "evaluation": json.dumps(evaluation.to_dict()),
        "is_final": False,
        "ran_on": json.dumps(MACHINE),
    }


@dataclass(frozen=True)
class Searched:
    """What a simulated search is about."""

    config: SearchConfig
    data: SearchData
    study: Study
    file: Path


def opened(
    folder: Path, num_trials: int, curves: Curves, seed: int = 0, sampler: str = "tpe"
) -> Searched:
    """Begin a study of the embedded table in `folder`, with the default space."""
    steps = curves.steps
    given = {
        "study": "scale",
        "home": str(folder),
        "training": {"max_steps": steps[-1], "evaluate_every_steps": steps[1] - steps[0]},
        "search": {"trials": num_trials, "seed": seed, "sampler": sampler},
    }
    config = parse_config(given)
    data, _ = split(load(config.data), config.split)
    config, _ = resolve(config, data)
    settings = config.search
    limits = Limits(data, settings.max_parameters, settings.max_training_teraflops)
    file = folder / "scale.db"
    identity = identity_of(config, data)
    url = f"sqlite:///{file}"
    study = open_study(url, "scale", identity, config.space, config.training, settings, limits)
    return Searched(config, data, study, file)


def set_sampler(study: Study, sampler: Sampler) -> None:
    """Let the next configurations be proposed so; a search has one to its end."""
    study._settings = study.settings.model_copy(update={"sampler": sampler})


def memory_mib() -> float:
    """What this process has in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def size_mib(file: Path) -> float:
    """What a SQLite database holds, be it in the file or still in its journal."""
    with closing(sqlite3.connect(file)) as connection:
        (num_pages,) = connection.execute("PRAGMA page_count").fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    return float(num_pages * page_bytes / 2**20)


EVENTS = "propose", "start", "evaluate", "complete"


def show_progress(console: Console, num_ended: int, simulation: Simulation, file: Path) -> None:
    """One line: medians of the latest events, memory, record."""
    costs = simulation.costs
    medians = (f"{e} {costs.median_milliseconds(e, 500):.1f}" for e in EVENTS if costs.seconds[e])
    console.print(
        f"{num_ended} ended; ms: {', '.join(medians)}; memory {memory_mib():.0f} MiB, "
        f"record {size_mib(file):.1f} MiB",
        soft_wrap=True,
    )


def view_costs(searched: Searched, sample: Sequence[TrialRecord]) -> tuple[float, float]:
    """Milliseconds and KiB of the view for each trial of a sample."""
    file = searched.file.with_name("view.db")
    view = View(f"sqlite:///{file}", "scale", facts_of(searched.config, searched.data))
    empty, began = size_mib(file), time.perf_counter()
    view.show_trials(sample)
    seconds = time.perf_counter() - began
    return 1000 * seconds / len(sample), 1024 * (size_mib(file) - empty) / len(sample)


def as_table(simulation: Simulation) -> Table:
    """One line for each event: all of them, and the last thousand."""
    table = Table(title="The driver's time for each event, ms")
    for column in ("event", "times", "median", "95 %", "largest", "median of the last 1,000"):
        table.add_column(column, justify="left" if column == "event" else "right")
    for event in EVENTS:
        taken = sorted(simulation.costs.seconds[event])
        if not taken:
            continue
        table.add_row(
            event,
            str(len(taken)),
            f"{1000 * statistics.median(taken):.1f}",
            f"{1000 * taken[int(0.95 * (len(taken) - 1))]:.1f}",
            f"{1000 * taken[-1]:.1f}",
            f"{simulation.costs.median_milliseconds(event, 1000):.1f}",
        )
    return table


def run(
    folder: Path,
    num_trials: int,
    num_workers: int,
    num_shown: int,
    every: int,
    learn_after: int,
    console: Console,
) -> Simulation:
    """Run one simulated search, and print what it cost."""
    curves = Curves.read()
    searched = opened(folder, num_trials, curves)
    if learn_after:
        set_sampler(searched.study, "random")
    memory_before = memory_mib()
    kept = KeptWeights(folder / "weights")
    simulation = Simulation(searched.study, kept, curves, num_workers)
    for num_ended in simulation.run():
        if num_ended == learn_after:
            set_sampler(searched.study, "tpe")
            simulation.costs.seconds.clear()
        if num_ended % every == 0:
            show_progress(console, num_ended, simulation, searched.file)
    console.print(as_table(simulation))
    trials = searched.study.trials()
    num_rejected = sum(trial.state is TrialState.REJECTED for trial in trials)
    busy = sum(map(sum, simulation.costs.seconds.values()))
    num_run = len(trials) - num_rejected
    each = busy / (num_run - learn_after)
    console.print(
        f"{num_run} trials and {num_rejected} rejected proposals; the driver was busy for "
        f"{1000 * each:.0f} ms a timed trial: {num_workers} workers never wait for it where a "
        f"trial lasts {num_workers * each:.0f} s or longer",
        soft_wrap=True,
    )
    grown = 1024 * (memory_mib() - memory_before) / num_run
    console.print(
        f"memory: {memory_mib():.0f} MiB, {grown:.0f} KiB a trial; record: "
        f"{size_mib(searched.file):.0f} MiB, {1024 * size_mib(searched.file) / num_run:.0f} KiB "
        "a trial",
        soft_wrap=True,
    )
    ran = [trial for trial in trials if trial.state is not TrialState.REJECTED]
    sample = ran[:: max(1, len(ran) // num_shown)][:num_shown]
    if sample:
        milliseconds, kib = view_costs(searched, sample)
        console.print(
            f"view, of {len(sample)} trials: {milliseconds:.0f} ms and {kib:.0f} KiB a trial"
        )
    return simulation


def chosen_config(study: Study) -> TrialConfig:
    """The configuration that the study would choose."""
    config = study.trial(study.best_numbers(1)[0]).config
    assert config is not None
    return config


def main() -> int:
    """Run the command; 1 where the median of an event is above the target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=256)
    parser.add_argument("--shown", type=int, default=100, help="trials that the view is timed on")
    parser.add_argument("--every", type=int, default=500, help="trials between two lines")
    parser.add_argument(
        "--learn-after",
        type=int,
        default=0,
        help="trials that are proposed at random and not timed, to come to a long record sooner",
    )
    given = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="lstm-search-scale-") as folder:
        numbers = given.trials, given.workers, given.shown, given.every, given.learn_after
        simulation = run(Path(folder), *numbers, console)
    medians = [simulation.costs.median_milliseconds(e) for e in simulation.costs.seconds]
    return 0 if max(medians) <= TARGET_MILLISECONDS else 1


if __name__ == "__main__":
    raise SystemExit(main())
