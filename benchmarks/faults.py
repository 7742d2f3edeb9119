"""Faults at random against running searches: what was tried, and what was lost.

    python -m benchmarks.faults --seed 1 --rounds 20

A round is one small study on a home of its own that meets several faults. Those that leave the
driver alive strike one after the other; those that end it are followed by a resume. What must hold
(`benchmarks/invariants.py`) is checked after each. The seed decides which faults come in which
order; when exactly they strike depends on the machine. The command is the real one, and so are
Ray, the files and the MLflow server; each round's folder stays where something was lost.

Linux only: it looks for processes in /proc.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks.faulty_proxy import FaultyProxy, Mode
from benchmarks.invariants import Kind, Violation
from benchmarks.mlflow_server import mlflow_server
from benchmarks.ordeal import Ordeal
from search.mlflow_store import open_store

INTERRUPTED = (130, -signal.SIGINT)  # the latter before the command has loaded
TERMINATED = (143, -signal.SIGTERM)
KILLED = (-signal.SIGKILL,)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong."""

    name: str
    strike: Callable[[Ordeal], bool]
    """Let it happen; False where the search ended before it could."""
    exit_codes: tuple[int, ...] = ()
    """With which the driver may end of it; none: it goes on."""
    weight: float = 1.0
    """How often it is picked, relative to the others."""
    needs: str = ""
    """`server` or `file`: what the view must be."""


@dataclass
class Tally:
    """What became of the faults of one kind."""

    num_tried: int = 0
    seconds: float = 0.0
    lost: Counter[Kind] = field(default_factory=Counter)


# Faults that the driver outlives


def kill_worker(ordeal: Ordeal) -> bool:
    """End a process that trains, as the kernel does when memory runs out."""
    if not ordeal.wait_until(lambda: bool(ordeal.workers())):
        return False
    with suppress(IndexError, ProcessLookupError):  # it has ended meanwhile
        os.kill(ordeal.rng.choice(ordeal.workers()), signal.SIGKILL)
        return True
    return False


def ordered(kind: str) -> Callable[[Ordeal], bool]:
    """Let a trial break from within."""
    return lambda ordeal: ordeal.order(kind)


def broken_view(mode: Mode) -> Callable[[Ordeal], bool]:
    """Let MLflow be broken for seconds, or until the driver has ended."""

    def strike(ordeal: Ordeal) -> bool:
        seconds = ordeal.rng.choice([1.0, 3.0, 8.0, 3600.0])
        ordeal.break_view(mode, seconds)
        ordeal.pause(ordeal.rng.uniform(1, 4))  # so that it is met before the next fault comes
        return True

    return strike


# Faults that end the driver


def at_random(ordeal: Ordeal) -> bool:
    """Wait for a random moment: of the start as well as of the trials."""
    if ordeal.rng.random() < 0.4:
        return ordeal.pause(ordeal.rng.uniform(0, 15))
    return ordeal.wait_until(ordeal.is_training) and ordeal.pause(ordeal.rng.uniform(0, 4))


def signalled(*numbers: signal.Signals) -> Callable[[Ordeal], bool]:
    """Send the driver these signals, a moment apart, at a random moment."""

    def strike(ordeal: Ordeal) -> bool:
        if not at_random(ordeal):
            return False
        ordeal.check_live()
        for number in numbers:
            ordeal.driver.send(number)
            time.sleep(ordeal.rng.uniform(0, 1) if len(numbers) > 1 else 0)
        return True

    return strike


def press_ctrl_c(ordeal: Ordeal) -> bool:
    """Interrupt the driver and all that it started, as a terminal does."""
    if not at_random(ordeal):
        return False
    ordeal.check_live()
    ordeal.driver.interrupt_group()
    return True


def kill_in_a_write(ordeal: Ordeal) -> bool:
    """Kill the driver within microseconds of a write to the record."""
    if not (ordeal.wait_until(ordeal.is_training) and ordeal.pause(ordeal.rng.uniform(0, 2))):
        return False
    if not ordeal.wait_for_a_write():
        return False
    time.sleep(ordeal.rng.choice([0, 0, ordeal.rng.uniform(0, 0.003)]))
    ordeal.driver.send(signal.SIGKILL)
    return True


def kill_while_it_ends(ordeal: Ordeal) -> bool:
    """Kill the driver after its last trial."""
    if not ordeal.wait_until(lambda: ordeal.num_counted() >= ordeal.num_wanted):
        return False
    ordeal.pause(ordeal.rng.uniform(0, 2))
    is_in_time = ordeal.driver.is_alive
    ordeal.driver.send(signal.SIGKILL)
    return is_in_time


FAULTS = (
    Fault("worker killed", kill_worker),
    Fault("worker raises", ordered("raise")),
    Fault("worker hangs", ordered("hang"), weight=0.5),
    Fault("out of memory on the device", ordered("exhaust")),
    Fault("loss diverges", ordered("diverge"), weight=0.5),
    Fault("MLflow down", broken_view("refuse"), needs="server"),
    Fault("MLflow answers 500", broken_view("500"), needs="server"),
    Fault("MLflow hangs", broken_view("hang"), needs="server"),
    Fault("MLflow's answers are cut", broken_view("cut_answer"), needs="server"),
    Fault("MLflow's file locked", broken_view("refuse"), weight=2, needs="file"),
    Fault("SIGINT", signalled(signal.SIGINT), INTERRUPTED, weight=0.7),
    Fault("SIGINT twice", signalled(signal.SIGINT, signal.SIGINT), INTERRUPTED, weight=0.7),
    Fault("Ctrl-C in the terminal", press_ctrl_c, INTERRUPTED, weight=0.7),
    Fault("SIGTERM", signalled(signal.SIGTERM), TERMINATED, weight=0.7),
    Fault("SIGKILL at a random moment", signalled(signal.SIGKILL), KILLED, weight=1.0),
    Fault("SIGKILL in the middle of a write", kill_in_a_write, KILLED, weight=1.0),
    Fault("SIGKILL while it ends", kill_while_it_ends, KILLED, weight=0.4),
)


NUM_ATTEMPTS = 4
"""At a fault that comes too late: the study goes on with more trials each time."""


def plan_round(rng: random.Random, num_faults: int, view: str) -> list[Fault]:
    """Pick faults at random that a study with such a view can meet."""
    possible = [fault for fault in FAULTS if fault.needs in ("", view)]
    return rng.choices(possible, [fault.weight for fault in possible], k=num_faults)


def run_round(
    ordeal: Ordeal, plan: Sequence[Fault], tallies: dict[str, Tally], say: Callable[[str], None]
) -> None:
    """Let a study meet the faults and come to its end; the tallies say what was lost."""
    is_searching = True
    for number, fault in enumerate(plan, start=1):
        for _ in range(NUM_ATTEMPTS):
            started = time.monotonic()
            is_struck = fault.strike(ordeal)
            found = ordeal.check_live() if ordeal.driver.is_alive else []
            if (is_struck and fault.exit_codes) or not ordeal.driver.is_alive:
                exit_codes = fault.exit_codes if is_struck else ()
                found += ordeal.check_at_rest(exit_codes, syncs=ordeal.rng.random() < 0.3)
                wants_more = not is_struck or number < len(plan)
                is_searching = ordeal.resume(wants_more=wants_more)
            outcome = Outcome(fault.name, is_struck, time.monotonic() - started, found)
            outcome.note(tallies, say)
            if is_struck:
                break
    if is_searching:
        started = time.monotonic()
        found = ordeal.check_at_rest((), syncs=False)
        Outcome(UNDISTURBED_END, True, time.monotonic() - started, found).note(tallies, say)


Plan = tuple[str, Sequence[Fault]]
"""Of a round: whether the view is a `server` or a `file`, and which faults come."""

UNDISTURBED_END = "(a round's undisturbed end)"


@dataclass(frozen=True)
class Outcome:
    """What became of one fault."""

    name: str
    is_struck: bool
    seconds: float
    found: list[Violation]

    def note(self, tallies: dict[str, Tally], say: Callable[[str], None]) -> None:
        """Count it and say it."""
        tally = tallies[self.name]
        tally.num_tried += self.is_struck
        tally.seconds += self.seconds
        tally.lost.update(violation.kind for violation in self.found)
        say(f"  {self.seconds:6.1f} s  {self.name}{'' if self.is_struck else ' (too late)'}")
        for violation in self.found:
            say(f"    LOST {violation.kind}: {violation.what}")


def run_rounds(
    seed: int, plans: Iterable[Plan], folder: Path, console: Console
) -> dict[str, Tally]:
    """Run the rounds; the folders of those in which nothing was lost are deleted."""
    tallies = {name: Tally() for name in (*(fault.name for fault in FAULTS), UNDISTURBED_END)}

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    with _places(folder) as (table, empty_view, server_uri), suppress(KeyboardInterrupt):
        for number, (view, faults) in enumerate(plans):
            place = folder / f"round-{seed}-{number}"
            proxy = FaultyProxy(server_uri) if view == "server" else None
            rng = random.Random(f"{seed}/{number}")
            with _ordeal(place, table, rng, empty_view, proxy) as ordeal:
                say(f"round {number}: MLflow's {view}, {place}")
                run_round(ordeal, faults, tallies, say)
            if not ordeal.violations:
                shutil.rmtree(place)
    return tallies


@contextmanager
def _places(folder: Path) -> Iterator[tuple[Path, Path, str]]:
    """A table, an empty view to be copied, and a server's address."""
    table, served, empty = folder / "tiny.csv", folder / "served", folder / "empty" / "mlflow.db"
    served.mkdir(parents=True, exist_ok=True)
    rows = np.arange(300)
    load = 50 + 10 * np.sin(2 * np.pi * rows / 24) + np.random.default_rng(0).normal(size=300)
    times = pd.date_range("2024-01-01", periods=300, freq="h")
    pd.DataFrame({"time": times, "load": load}).to_csv(table, index=False)
    open_store(f"sqlite:///{empty}")
    with mlflow_server(served) as uri:
        yield table, empty, uri


@contextmanager
def _ordeal(
    place: Path, table: Path, rng: random.Random, empty_view: Path, proxy: FaultyProxy | None
) -> Iterator[Ordeal]:
    if proxy is None:
        view = place / "home" / "mlflow.db"
        shutil.copytree(empty_view.parent, view.parent)
    else:
        view = table.parent / "served" / "mlflow.db"
    ordeal = Ordeal(place, table, rng, view, proxy)
    try:
        yield ordeal
    finally:
        ordeal.close()
        if proxy is not None:
            proxy.close()


NAMES_OF_LOSSES: dict[Kind, str] = {
    "trial": "trials",
    "value": "values",
    "view": "runs",
    "weights": "weights",
    "proposal": "proposals",
    "ending": "endings",
}


def as_table(tallies: dict[str, Tally]) -> Table:
    """The faults tried and the violations found after each."""
    kinds = (NAMES_OF_LOSSES[kind] for kind in get_args(Kind))
    table = Table("fault", title="What was tried, and what was lost")
    for name in ("tried", "seconds each", *kinds):
        table.add_column(name, justify="right")
    total = Tally()
    for name, tally in tallies.items():
        table.add_row(name, *_cells(tally))
        total.seconds += tally.seconds
        total.lost.update(tally.lost)
        total.num_tried += tally.num_tried * (name != UNDISTURBED_END)
    table.add_section()
    table.add_row("all faults", *_cells(total))
    return table


def _cells(tally: Tally) -> list[str]:
    mean = f"{tally.seconds / tally.num_tried:.1f}" if tally.num_tried else ""
    return [str(tally.num_tried), mean, *(str(tally.lost[kind]) for kind in get_args(Kind))]


def main() -> int:
    """Run the command; 1 where anything was lost."""
    whole_text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=whole_text)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--min-faults", type=int, default=6, help="faults of a round, at least")
    parser.add_argument("--max-faults", type=int, default=10, help="faults of a round, at most")
    parser.add_argument("--folder", type=Path, help="where it works (default: a temporary folder)")
    by_name = {fault.name: fault for fault in FAULTS}
    parser.add_argument(
        "--fault", action="append", choices=by_name, help="in place of random ones; repeatable"
    )
    given = parser.parse_args()
    # In the background of a script it is ignored, and would be in the searches too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # So that the searches and the server of a round end with a program that is asked to end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    named = [by_name[name] for name in given.fault or ()]
    num_faults = given.min_faults, given.max_faults
    plans = [_plan(f"{given.seed}/{n}/plan", named, num_faults) for n in range(given.rounds)]
    folder = given.folder or Path(tempfile.mkdtemp(prefix="lstm-search-faults-"))
    console = Console(width=None if sys.stdout.isatty() else 160)
    tallies = run_rounds(given.seed, plans, folder.resolve(), console)
    console.print(as_table(tallies))
    return 1 if any(tally.lost for tally in tallies.values()) else 0


def _plan(seed: str, named: Sequence[Fault], num_faults: tuple[int, int]) -> Plan:
    rng = random.Random(seed)
    view = "server" if rng.random() < 0.65 else "file"
    if named:
        return next((fault.needs for fault in named if fault.needs), view), named
    return view, plan_round(rng, rng.randint(*num_faults), view)


if __name__ == "__main__":
    raise SystemExit(main())
