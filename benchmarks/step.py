"""A training step against what the machine can do: milliseconds, and the share of its peak.

    python -m benchmarks.step

The peak is a large matrix product on one thread, measured in the same process. Operations are
counted by formula (`LSTMConfig.num_flops`; a step takes three times a forward pass). Run with the
environment that workers get, and with torch's own; each figure is a median of several stretches.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

STRETCH_STEPS = 10
NUM_STRETCHES = 7
SHAPES = (
    # widths, batch, lookback, patch length
    ((32,), 64, 96, 1),
    ((64,), 64, 96, 1),
    ((128,), 64, 96, 1),
    ((128,), 128, 96, 1),
    ((64, 64), 64, 96, 1),
    ((128,), 64, 168, 4),
    ((64, 128), 64, 168, 4),
    ((256, 256), 128, 168, 4),
)


@dataclass(frozen=True)
class Timed:
    """One configuration's step."""

    name: str
    milliseconds: float
    share_of_peak: float


def time_steps() -> list[Timed]:
    """Time the steps in this process."""
    import torch

    from models.config import LSTMConfig
    from pipelines.scaling import Scaling
    from pipelines.series import load
    from pipelines.splits import split
    from pipelines.training import Training, build_forecaster
    from pipelines.training_config import TrainConfig
    from pipelines.windows import build_windows
    from search.config import SearchConfig

    torch.set_num_threads(1)
    peak = peak_flops()
    search = SearchConfig()
    data, _ = split(load(search.data), search.split)
    scaling = Scaling.fit(data)
    timed = []
    for widths, batch_size, lookback, patch_length in SHAPES:
        model = LSTMConfig(widths=widths, patch_length=patch_length)
        config = TrainConfig(
            lookback=lookback,
            calendar=False,
            learning_rate=1e-3,
            weight_decay=0.0,
            batch_size=batch_size,
            precision="float32",
            max_steps=10_000,
        )
        windows = build_windows(data, scaling, lookback, False, "cpu")
        forecaster = build_forecaster(model, config, data, "cpu", seed=0)
        training = Training(forecaster, windows, scaling, config, seed=0)
        training.take_steps(0, STRETCH_STEPS)
        seconds = []
        for place in range(1, NUM_STRETCHES + 1):
            began = time.perf_counter()
            training.take_steps(place * STRETCH_STEPS, (place + 1) * STRETCH_STEPS)
            seconds.append((time.perf_counter() - began) / STRETCH_STEPS)
        median = statistics.median(seconds)
        flops = 3 * model.num_flops(windows.shape) * batch_size
        name = (
            f"{'-'.join(map(str, widths))}, batch {batch_size}, {lookback} rows by {patch_length}"
        )
        timed.append(Timed(name, 1e3 * median, flops / median / peak))
    return timed


def peak_flops() -> float:
    """Floating-point operations a second of a product of two 1,024 × 1,024 matrices, at best."""
    import torch

    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - began)
    return 2 * 1024**3 / min(seconds)


def time_steps_apart(environment: Mapping[str, str]) -> list[Timed]:
    """Time the steps in a process of its own."""
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.step", "--as-json"],
        check=True,
        stdout=subprocess.PIPE,
        env=os.environ | dict(environment),
    )
    return [Timed(**timed) for timed in json.loads(answer.stdout)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--as-json", action="store_true", help="time in this process, as it is")
    if parser.parse_args().as_json:
        print(json.dumps([asdict(timed) for timed in time_steps()]))
        return
    from search.cluster import WORKER_ENVIRONMENT

    plain, ours = time_steps_apart({}), time_steps_apart(WORKER_ENVIRONMENT)
    table = Table("step", "torch's own ms", "workers' ms", "ratio", "share of peak")
    for before, after in zip(plain, ours, strict=True):
        table.add_row(
            after.name,
            f"{before.milliseconds:.1f}",
            f"{after.milliseconds:.1f}",
            f"{after.milliseconds / before.milliseconds:.2f}",
            f"{after.share_of_peak:.0%}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
