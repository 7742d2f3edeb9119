"""What a proposal from a bounded history costs in quality, on recorded learning curves.

    python -m benchmarks.bounded_quality --trials 800 --workers 64 --seeds 5 --bounds 175,75

Each seed is searched in virtual time (`scale.py`) by TPE over the whole study, over each bounded
part of it (how many of the latest trials and how many of those that run, `search/bounded_tpe.py`),
and at random. Compared is the expected error of the configuration that each search chooses,
without luck.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from unittest import mock

from rich.console import Console

from benchmarks.recorded_curves import Curves
from benchmarks.scale import Simulation, chosen_config, opened
from search import bounded_tpe
from search.kept_weights import KeptWeights

WHOLE = f"{10**9},{10**9}"
RANDOM = "random"


def error_found(way: str, seed: int, num_trials: int, num_workers: int, curves: Curves) -> float:
    """The expected MAE of what one search chooses; a way is a bound, or at random."""
    sampler, bound = (RANDOM, WHOLE) if way == RANDOM else ("tpe", way)
    num_latest, num_running = map(int, bound.split(","))
    with (
        tempfile.TemporaryDirectory(prefix="lstm-search-quality-") as folder,
        mock.patch.multiple(bounded_tpe, NUM_LATEST=num_latest, NUM_RUNNING=num_running),
    ):
        study = opened(Path(folder), num_trials, curves, seed, sampler).study
        kept = KeptWeights(Path(folder) / "weights")
        for _ in Simulation(study, kept, curves, num_workers).run():
            pass
        return float(curves.expected(chosen_config(study))[-1])


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=600)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=5)
    bounded = f"{bounded_tpe.NUM_LATEST},{bounded_tpe.NUM_RUNNING}"
    parser.add_argument("--bounds", nargs="+", default=[bounded], metavar="LATEST,RUNNING")
    given = parser.parse_args()
    console, curves = Console(), Curves.read()
    ways = {"whole": WHOLE, RANDOM: RANDOM} | {bound: bound for bound in given.bounds}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for seed in range(given.seeds):
        for name, way in ways.items():
            found[name].append(error_found(way, seed, given.trials, given.workers, curves))
        console.print(f"seed {seed}: " + ", ".join(f"{n} {found[n][-1]:.5f}" for n in ways))
    for name, errors in found.items():
        lost = [error - whole for error, whole in zip(errors, found["whole"], strict=True)]
        console.print(
            f"{name}: mean {statistics.mean(errors):.5f}, worse than whole by "
            f"{statistics.mean(lost):+.5f}, from {min(lost):+.5f} to {max(lost):+.5f}"
        )


if __name__ == "__main__":
    main()
