"""Variants of a search against each other: the same seeds, the same series, the same wall-clock.

    python -m benchmarks.quality FOLDER --series electricity --series demand.csv:48 \
        --variant tpe: --variant random:search.sampler=random --seeds 10 --seconds 40

Prints for each series the best validation value at some times, and by how much each variant differs
from the first one, seed by seed; draws FOLDER/quality.png. What FOLDER has already is kept, so an
interrupted comparison goes on. With `--peer` a peer (benchmarks/peers) is one more variant.
"""

import argparse
import itertools
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.driver import Driver
from benchmarks.floor import NUM_SLOTS, recorded
from benchmarks.peers.compare import task_of
from benchmarks.peers.task import PEERS
from benchmarks.peers.timed import peer_evaluations
from search.config import Metric
from search.config_file import parse_config
from search.record import TrialRecord, metric_value

Course = Sequence[tuple[float, float]]
"""Seconds since the command, and the best validation value from then on."""


def series_named(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the settings of the table that FILE[:HORIZON[:TARGET,…]] means."""
    path, horizon, targets = (*text.split(":"), "", "")[:3]
    settings: dict[str, Any] = {} if path == "electricity" else {"path": path}
    settings |= {"horizon": int(horizon)} if horizon else {}
    settings |= {"targets": targets.split(",")} if targets else {}
    return Path(path).stem, settings


def parser_of_series(description: str | None) -> argparse.ArgumentParser:
    """A command line that names the folder of what was found, and some series."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--series", action="append", required=True, metavar="FILE[:HORIZON[:TARGET,…]]"
    )
    return parser


def searched(data: Mapping[str, Any], seed: int, settings: Iterable[str], seconds: float) -> Course:
    """Search for that long, from the command on; return the course of the best value."""
    flags = ["--seed", str(seed), "--set", f"data={json.dumps(data)}"]
    for setting in settings:
        flags += ["--set", setting]
    with tempfile.TemporaryDirectory() as home:
        began_at = time.time()
        given = ["--study", "timed", "--home", home, "--no-finalize", "--trials", "10000"]
        given += ["--max-concurrent", str(NUM_SLOTS), "--time-budget", f"{seconds:g}s", *flags]
        driver = Driver(given, Path(home) / "log", {})
        if driver.wait(seconds=seconds + 300) != 0:
            raise SystemExit(driver.tail())
        driver.end_session()
        config, trials = recorded(home)
    return course_of(trials, config.search.metric, began_at)


def course_of(trials: Sequence[TrialRecord], metric: Metric, began_at: float) -> Course:
    """Each improvement of the best value, by the seconds since `began_at`.

    Of the evaluations on most windows, by which complete trials are ranked and which compare with
    those of a peer.
    """
    evaluated = [each for trial in trials for each in (*trial.evaluations, trial.final) if each]
    most = max((each.evaluation.num_windows for each in evaluated), default=0)
    return improvements(
        (each.time - began_at, metric_value(each.evaluation, metric))
        for each in evaluated
        if each.evaluation.num_windows == most
    )


def improvements(evaluated: Iterable[tuple[float, float]]) -> Course:
    """Each value that was better than all before it; the times may be in any order."""
    course: list[tuple[float, float]] = []
    for at, value in sorted(evaluated):
        if not course or value < course[-1][1]:
            course.append((at, value))
    return course


def value_at(course: Course, seconds: float) -> float:
    """The best value that a search had by then; infinite before the first."""
    return min((value for at, value in course if at <= seconds), default=math.inf)


def seconds_below(course: Course, threshold: float) -> float:
    """When it was first below a value; infinite where it never was."""
    return min((at for at, value in course if value < threshold), default=math.inf)


def p_of_no_difference(differences: Sequence[float]) -> float:
    """How often differences as large come about where each might as well have the other sign.

    The exact two-sided sign-flip test on their sum.
    """
    reached = abs(sum(differences)) * (1 - 1e-12)
    flipped = itertools.product((-1, 1), repeat=len(differences))
    sums = [
        abs(sum(sign * each for sign, each in zip(signs, differences, strict=True)))
        for signs in flipped
    ]
    return sum(each >= reached for each in sums) / len(sums)


def draw(courses: Mapping[str, Mapping[str, Sequence[Course]]], seconds: float, to: Path) -> None:
    """Draw median and range of each variant, a panel a series."""
    figure = Figure(figsize=(4 * len(courses), 3.2), layout="constrained")
    panels = figure.subplots(1, len(courses), squeeze=False)[0]
    times = [seconds * place / 200 for place in range(201)]
    for panel, (series, variants) in zip(panels, courses.items(), strict=True):
        for variant, runs in variants.items():
            by_time = [[value_at(course, at) for course in runs] for at in times]
            shown = [at for at, values in zip(times, by_time, strict=True) if max(values) < 1e9]
            by_time = by_time[len(times) - len(shown) :]
            lines = panel.plot(shown, [statistics.median(v) for v in by_time], label=variant)
            low, high = [min(v) for v in by_time], [max(v) for v in by_time]
            panel.fill_between(shown, low, high, alpha=0.2, color=lines[0].get_color())
        panel.set(title=series, xlabel="seconds since the command", xlim=(0, seconds))
        highest = max(line.get_ydata()[0] for line in panel.lines)
        panel.set_ylim(top=1.05 * float(highest))
    panels[0].set_ylabel("best validation MAE, standardised")
    panels[0].legend()
    figure.savefig(to, dpi=110)


def _compared(
    variants: Mapping[str, Sequence[Course]], times: Sequence[float], below: Sequence[float]
) -> Table:
    table = Table("variant", *(f"after {at:g} s" for at in times))
    for threshold in below:
        table.add_column(f"below {threshold:g}, s")
    table.add_column("worse than the first by (p)")
    first = next(iter(variants.values()))
    for variant, runs in variants.items():
        cells = [f"{statistics.median(value_at(run, at) for run in runs):.4f}" for at in times]
        for threshold in below:
            reached = [seconds_below(run, threshold) for run in runs]
            cells.append(
                f"{statistics.median(reached):.1f} ({min(reached):.1f} to {max(reached):.1f})"
            )
        ends = [[value_at(run, times[-1]) for run in each] for each in (runs, first)]
        pairs = list(zip(*ends, strict=False))
        differences = [one - other for one, other in pairs]
        p = f"{p_of_no_difference(differences):.3f}" if runs is not first else "1"
        cells.append(f"{statistics.mean(differences):+.5f} (p {p}, {len(pairs)} seeds)")
        table.add_row(variant, *cells)
    return table


def main() -> None:
    """Compare."""
    parser = parser_of_series(__doc__)
    parser.add_argument("--variant", action="append", required=True, metavar="NAME:[a.b=value,…]")
    parser.add_argument("--peer", action="append", default=[], choices=PEERS)
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH")
    parser.add_argument("--lookback", type=int, default=96, help="of the peers' windows")
    parser.add_argument("--below", action="append", default=[], metavar="SERIES=VALUE")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=40.0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    variants = dict(each.split(":", 1) for each in given.variant)
    pythons = dict(each.split("=", 1) for each in given.python)
    courses: dict[str, dict[str, list[Course]]] = {}

    def run(variant: str, data: Mapping[str, Any], seed: int) -> Course:
        if variant in variants:
            settings = filter(None, variants[variant].split(","))
            return searched(data, seed, settings, given.seconds)
        task = task_of(parse_config({"data": data}), given.lookback)
        python = pythons.get(variant, sys.executable)
        return improvements(peer_evaluations(variant, python, task, seed, given.seconds))

    for seed, series, variant in itertools.product(
        range(given.seeds), given.series, [*variants, *given.peer]
    ):
        name, data = series_named(series)
        kept = given.folder / f"{name}.{variant}.{seed}.json"
        if not kept.exists():
            kept.write_text(json.dumps(run(variant, data, seed)), encoding="utf-8")
        found = json.loads(kept.read_text(encoding="utf-8"))
        courses.setdefault(name, {}).setdefault(variant, []).append(found)
    thresholds = [each.rsplit("=", 1) for each in given.below]
    times = [given.seconds * share for share in (0.5, 0.75, 1.0)]
    for name, by_variant in courses.items():
        below = [float(value) for series, value in thresholds if series == name]
        console = Console(width=150)
        console.print(name)
        console.print(_compared(by_variant, times, below))
    draw(courses, given.seconds, given.folder / "quality.png")


if __name__ == "__main__":
    main()
