"""Searches three trials, the second of which takes all memory once; `test_executor.py` starts it.

In a process of its own, for Ray watches the memory as it was told when it began.
"""

import os
import sys
from pathlib import Path

import numpy as np

os.environ["RAY_memory_monitor_refresh_ms"] = "100"  # noqa: SIM112 - so Ray spells it
MIB = 1 << 20


def memory(name: str) -> int:
    """A line of /proc/meminfo, in bytes."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


# Wide enough that other processes do not fill it, and far from what the machine has.
FREE_BYTES = min(4096 * MIB, memory("MemAvailable") // 3)
THRESHOLD = str(1 - (memory("MemAvailable") - FREE_BYTES) / memory("MemTotal"))
os.environ["RAY_memory_usage_threshold"] = THRESHOLD  # noqa: SIM112

import test_executor as tests  # noqa: E402
from conftest import small_data, small_space  # noqa: E402

from search.cluster import connect, machines  # noqa: E402
from search.config import Resources  # noqa: E402
from search.executor import ray, run_trials  # noqa: E402
from search.kept_weights import KeptWeights  # noqa: E402
from search.record import TrialRecord  # noqa: E402
from search.slots import plan_slots  # noqa: E402

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
ray.cloudpickle.register_pickle_by_value(tests)


class HungryData(tests.WatchedData):
    """A table whose worker takes more and more memory, where it is due."""

    def meet_trouble(self) -> None:
        if tests.takes(self.folder / "hunger"):
            eaten = [np.ones(64 * MIB, dtype=np.uint8) for _ in range(3 * FREE_BYTES // (64 * MIB))]
            raise AssertionError(f"nobody minded {len(eaten)} pieces of 64 MiB")


class Tempter(tests.Diary):
    """Makes trial 1 hungry once."""

    def on_start(self, trial: TrialRecord) -> None:
        if trial.number == 1 and not trial.retries:
            (self.folder / "hunger").touch()


def main(folder: Path) -> None:
    connect(Resources(), is_verbose=False)
    resources = Resources(max_concurrent=1, max_retries=1)
    watched = tests.watched(small_data(), folder)
    data = HungryData(**watched.__dict__)
    space = small_space(**tests.NARROW | {"learning_rate": tests.GOOD})
    study = tests.open_study_of(folder / "record.db", data, space, trials=3, pruner="none")
    run_trials(
        study,
        tests.job(data, plan_slots(resources, "cpu", machines())),
        resources,
        tests.BUDGET,
        KeptWeights(folder / "kept"),
        [Tempter(folder)],
        has_baselines=False,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
