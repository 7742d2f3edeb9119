"""A training step against what the machine can do: milliseconds, and the share of its peak.

    python -m benchmarks.step
    python -m benchmarks.step --device cuda

On a CPU: the peak is a large matrix product on one thread, measured in the same process. Operations
are counted by formula (`LSTMConfig.num_flops`; a step takes three times a forward pass). Run with
the environment that workers get, and with torch's own, and in bf16 where the CPU computes in it.
On CUDA: steps launched kernel by kernel and as a CUDA graph, in float32 and in bf16. Each figure is
a median of several stretches.
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
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pipelines.hardware import Precision

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


def time_steps(
    device: str = "cpu", precision: "Precision" = "float32", has_graph: bool = False
) -> list[Timed]:
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
            precision=precision,
            max_steps=10_000,
        )
        windows = build_windows(data, scaling, lookback, False, device)
        forecaster = build_forecaster(model, config, data, device, seed=0)
        training = Training(forecaster, windows, scaling, config, seed=0, has_graph=has_graph)
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


def time_steps_apart(
    environment: Mapping[str, str], precision: "Precision" = "float32"
) -> list[Timed]:
    """Time the steps on a CPU, in a process of its own."""
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.step", "--as-json", precision],
        check=True,
        stdout=subprocess.PIPE,
        env=os.environ | dict(environment),
    )
    return [Timed(**timed) for timed in json.loads(answer.stdout)]


def table_of_cpu() -> Table:
    """Steps by the environment of the process, and in bf16."""
    from pipelines.hardware import resolve_precision
    from search.cluster import WORKER_ENVIRONMENT

    plain, ours = time_steps_apart({}), time_steps_apart(WORKER_ENVIRONMENT)
    table = Table("step", "torch's own ms", "workers' ms", "ratio", "share of peak")
    columns = [
        [f"{each.milliseconds:.1f}" for each in plain],
        [f"{each.milliseconds:.1f}" for each in ours],
        [f"{b.milliseconds / a.milliseconds:.2f}" for a, b in zip(plain, ours, strict=True)],
        [f"{each.share_of_peak:.0%}" for each in ours],
    ]
    if resolve_precision("auto", "cpu") == "bf16":
        table.add_column("workers' in bf16 ms")
        halved = time_steps_apart(WORKER_ENVIRONMENT, "bf16")
        columns.append([f"{each.milliseconds:.1f}" for each in halved])
    for each, *cells in zip(ours, *columns, strict=True):
        table.add_row(each.name, *cells)
    return table


def table_of_cuda() -> Table:
    """Steps on a GPU, by precision and by how their kernels are launched."""
    table = Table("step, ms")
    columns = []
    for precision in ("float32", "bf16"):
        for has_graph in (False, True):
            table.add_column(f"{precision}, {'graph' if has_graph else 'plain'}")
            columns.append(time_steps("cuda", precision, has_graph))
    for row in zip(*columns, strict=True):
        table.add_row(row[0].name, *(f"{each.milliseconds:.2f}" for each in row))
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--as-json", metavar="PRECISION", help="time in this process, as it is")
    given = parser.parse_args()
    if given.as_json:
        timed = time_steps(precision=given.as_json)
        print(json.dumps([asdict(each) for each in timed]))
        return
    table = table_of_cuda() if given.device == "cuda" else table_of_cpu()
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
