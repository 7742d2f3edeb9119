"""Whether the project has become slower: a short version of the benchmarks, as ratios.

    python -m benchmarks.regress
    python -m benchmarks.regress --keep

Each figure is a ratio to something measured on the same machine in the same run, so that it holds
elsewhere, and lower is better. They are compared with those kept in `regress.json`; what is more
than a fifth above is named. It always ends with 0: it informs. `--keep` keeps the new figures.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.floor import time_search
from benchmarks.step import time_steps_apart
from search.cluster import WORKER_ENVIRONMENT

KEPT = Path(__file__).with_name("regress.json")
TOLERANCE = 0.2
NUM_TRIALS = 12


def seconds_of(*arguments: str, repeats: int = 3) -> float:
    """The median time of a Python command."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def measure() -> dict[str, float]:
    """The ratios, by name."""
    importing = seconds_of("-c", "import torch")
    steps = time_steps_apart(WORKER_ENVIRONMENT)
    timed = time_search(["--trials", str(NUM_TRIALS), "--pruner", "none"])
    return {
        "--help / import torch": seconds_of("-m", "search.run", "--help") / importing,
        "first step of the first trial / import torch": timed.first_step_seconds / importing,
        "a search of 12 trials / the bare loop": timed.seconds / timed.bare_seconds,
        "training step / matrix products at peak": statistics.median(
            1 / step.share_of_peak for step in steps
        ),
    }


def main() -> None:
    """Measure and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="keep the new figures")
    given = parser.parse_args()
    now = measure()
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    table = Table("ratio, lower is better", "kept", "now", "")
    for name, ratio in now.items():
        before = float(kept.get(name, math.nan))
        change = ratio / before - 1
        is_slower = change > TOLERANCE
        table.add_row(
            name, f"{before:.2f}", f"{ratio:.2f}", f"{change:+.0%}: slower" if is_slower else ""
        )
    Console(width=110).print(table)
    if given.keep:
        rounded = {name: round(ratio, 3) for name, ratio in now.items()}
        KEPT.write_text(json.dumps(rounded, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
