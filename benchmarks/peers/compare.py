"""This project against what a user would pick instead: the same task, one machine, one run.

    python -m benchmarks.peers.compare FOLDER --repeats 3 \
        --python neuralforecast_auto=.peers/neuralforecast/bin/python

For each peer: its own search, then its configurations and steps through this project's search
(`replay.py`), in processes of their own, one after the other. What FOLDER has already is kept, so
an interrupted comparison goes on. README.md here says how each peer is installed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.floor import first_step_at
from benchmarks.peers.task import PEERS, Task, TrialRun, read_runs
from pipelines.scaling import Scaling
from pipelines.series import load
from pipelines.splits import split
from search.config import SearchConfig
from search.config_file import parse_config
from search.places import known_studies, record_url
from search.stored_studies import read_study

LONGEST_SECONDS = 7200.0


@dataclass(frozen=True)
class Took:
    """One process from its start to its end."""

    began_at: float
    """Seconds since 1970."""
    seconds: float


@dataclass(frozen=True)
class Replay:
    """A peer's trials in this project."""

    took: Took
    first_step_at: float


@dataclass(frozen=True)
class Compared:
    """A peer's own search, and its replay unless only peers are run."""

    peer: Took
    runs: Sequence[TrialRun]
    replay: Replay | None


def task_of(config: SearchConfig, lookback: int) -> Task:
    """A table's only series, as a search would train and validate on it; without its test part.

    Raises `ValueError` where the table has more series.
    """
    data, _ = split(load(config.data), config.split)
    if data.values.shape[1] != 1:
        raise ValueError(
            f"a peer reads one series: got {', '.join(data.columns)}; give a table of one"
        )
    values = Scaling.fit(data).encode(data.values)[:, 0]
    return Task(values, data.num_train_rows, data.horizon, lookback)


def take_time(command: Sequence[str], folder: Path) -> Took:
    """Run a command, unless its folder says that it has been run; return how long it took."""
    noted = folder / "took.json"
    if not noted.exists():
        folder.mkdir(parents=True, exist_ok=True)
        began_at, began = time.time(), time.perf_counter()
        with (folder / "output.log").open("wb") as output:
            subprocess.run(
                command, check=True, stdout=output, stderr=output, timeout=LONGEST_SECONDS
            )
        took = {"began_at": began_at, "seconds": time.perf_counter() - began}
        noted.write_text(json.dumps(took), encoding="utf-8")
    return Took(**json.loads(noted.read_text(encoding="utf-8")))


def run_peer(peer: str, python: str, folder: Path, arguments: Sequence[str]) -> Took:
    """Let a peer search."""
    task, own = folder.parent / "task.npz", folder / peer
    module = f"benchmarks.peers.{peer}"
    return take_time([python, "-m", module, str(task), str(own), *arguments], own)


def replay(peer: str, folder: Path) -> Replay:
    """Let this project train what the peer has trained."""
    theirs, ours = folder / peer, folder / f"{peer}.replay"
    lookback = Task.read(folder.parent / "task.npz").lookback
    command = [sys.executable, "-m", "benchmarks.peers.replay", str(theirs), str(ours)]
    command += ["--lookback", str(lookback)]
    command += ["--data", (folder.parent / "data.json").read_text(encoding="utf-8")]
    took = take_time(command, ours)
    place = parse_config({"home": str(ours)})
    study = known_studies(place)[0]
    _, trials = read_study(record_url(place, study), study)
    return Replay(took, first_step_at(list(trials)))


def table_of(compared: Mapping[str, Sequence[Compared]]) -> Table:
    """Medians over the repeats, the range of the ratio."""
    table = Table("peer", "s", "first step s", "steps", "best", "replay s", "first step s")
    table.add_column("replay / peer (range)")
    for peer, repeats in compared.items():
        if not repeats:
            continue

        def median(values: Iterable[float]) -> float:
            return statistics.median(values)

        cells = [
            f"{median(each.peer.seconds for each in repeats):.0f}",
            f"{median(each.runs[0].started_at - each.peer.began_at for each in repeats):.1f}",
            f"{median(sum(run.steps for run in each.runs) for each in repeats):.0f}",
            f"{median(min(run.best_mae for run in each.runs) for each in repeats):.4f}",
        ]
        replayed = [(each.peer, each.replay) for each in repeats if each.replay is not None]
        if replayed:
            ratios = [ours.took.seconds / theirs.seconds for theirs, ours in replayed]
            cells += [
                f"{median(ours.took.seconds for _, ours in replayed):.0f}",
                f"{median(ours.first_step_at - ours.took.began_at for _, ours in replayed):.1f}",
                f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            ]
        table.add_row(peer, *cells)
    return table


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peer", action="append", choices=PEERS, help="default: all")
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH")
    parser.add_argument("--repeats", type=int, default=3, help="each with another seed")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--lookback", type=int, default=96)
    parser.add_argument("--data", default="{}", help="section `data` of a configuration, as JSON")
    parser.add_argument("--only-peers", action="store_true", help="without replays")
    given = parser.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    task_of(parse_config({"data": json.loads(given.data)}), given.lookback).save(
        folder / "task.npz"
    )
    (folder / "data.json").write_text(given.data, encoding="utf-8")
    pythons = dict(each.split("=", 1) for each in given.python)
    compared: dict[str, list[Compared]] = {peer: [] for peer in given.peer or PEERS}
    for seed in range(given.repeats):
        arguments = ["--trials", str(given.trials), "--seed", str(seed)]
        for peer, repeats in compared.items():
            python, here = pythons.get(peer, sys.executable), folder / f"seed-{seed}"
            took = run_peer(peer, python, here, arguments)
            again = None if given.only_peers else replay(peer, here)
            repeats.append(Compared(took, read_runs(here / peer), again))
            Console(width=140).print(table_of(compared))


if __name__ == "__main__":
    main()
