"""What a proposal from a bounded history costs in quality, on recorded learning curves.

    python -m benchmarks.bounded_quality --trials 600 --workers 16 --seeds 5

Each seed is searched twice in virtual time (`scale.py`), by TPE over the whole study and over its
bounded part (`search/sampling.py`), and once at random. Compared is the expected error of the
configuration that each search chooses, without luck.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from unittest import mock

from rich.console import Console

from benchmarks.recorded_curves import Curves
from benchmarks.scale import Simulation, chosen_config, opened
from search import sampling
from search.kept_weights import KeptWeights

WAYS = "whole", "bounded", "random"


def error_found(way: str, seed: int, num_trials: int, num_workers: int, curves: Curves) -> float:
    """The expected MAE of what one search chooses."""
    bound = 10**9 if way == "whole" else None
    with (
        tempfile.TemporaryDirectory(prefix="lstm-search-quality-") as folder,
        mock.patch.multiple(
            sampling,
            NUM_LATEST=bound or sampling.NUM_LATEST,
            NUM_RUNNING=bound or sampling.NUM_RUNNING,
        ),
    ):
        sampler = "random" if way == "random" else "tpe"
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
    given = parser.parse_args()
    console, curves = Console(), Curves.read()
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(given.seeds):
        for way in WAYS:
            found[way].append(error_found(way, seed, given.trials, given.workers, curves))
        console.print(f"seed {seed}: " + ", ".join(f"{w} {found[w][-1]:.5f}" for w in WAYS))
    for way in WAYS:
        console.print(f"{way}: mean {statistics.mean(found[way]):.5f}")
    lost = [b - w for b, w in zip(found["bounded"], found["whole"], strict=True)]
    console.print(
        f"lost by the bound: mean {statistics.mean(lost):+.5f}, from {min(lost):+.5f} to "
        f"{max(lost):+.5f}"
    )


if __name__ == "__main__":
    main()
