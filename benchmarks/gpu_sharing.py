"""What several trials get done together on one GPU, by how they share it.

    python -m benchmarks.gpu_sharing --way plain --way graph --way graph,mps --number 1 --number 8

A way is `plain` or `graph` (training steps taken one by one, or as CUDA graphs), with `,mps` under
NVIDIA's Multi-Process Service. What is run is what `--gpus-per-trial auto` measures with: trials of
the middling configuration of the default space, one after another in each process.
"""

import argparse
import multiprocessing
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.gpu_busy import GpuBusy
from pipelines.series import load
from pipelines.splits import split
from search.config_file import parse_config
from search.gpu_probe import Course, Memory, Prober, evaluations_per_second
from search.gpu_share import drawn_configs, middling
from search.limits import Limits
from search.mps import mps_environment
from search.resolve import resolve
from search.slots import Slots
from search.space import TrialConfig
from search.trial_actor import TrialJob

LONGEST_SECONDS = 120.0


def middling_job(has_graph: bool) -> tuple[TrialJob, TrialConfig]:
    """What the workers of a search of the embedded table share, and the configuration."""
    config = parse_config({"resources": {"device": "cuda"}})
    data, _ = split(load(config.data), config.split)
    config, _ = resolve(config, data)
    limits = Limits(data, config.search.max_parameters, None)
    drawn = drawn_configs(config.space, config.training, limits)
    job = TrialJob((data,), "mae", Slots(1, 1, 1.0, "cuda"), 0.0, has_graph)
    return job, middling(drawn, limits)


def work(has_graph: bool, are_ready: Any, answers: Any) -> None:
    """One process."""
    job, middle = middling_job(has_graph)
    torch.set_num_threads(1)
    prober = Prober(job)
    memory = prober.begin(middle)
    are_ready.wait(LONGEST_SECONDS)
    answers.put((memory, prober.take_course(middle)))


def in_processes(number: int, has_graph: bool) -> list[tuple[Memory, Course]]:
    """What so many processes saw."""
    context = multiprocessing.get_context("spawn")
    are_ready, answers = context.Barrier(number), context.Queue()
    processes = [
        context.Process(target=work, args=(has_graph, are_ready, answers)) for _ in range(number)
    ]
    for process in processes:
        process.start()
    taken = [answers.get(timeout=LONGEST_SECONDS) for _ in processes]
    for process in processes:
        process.join()
    return taken


@contextmanager
def under(service: str) -> Iterator[None]:
    """Let processes that start within use a service: `mps`, or none; print what it found wrong."""
    variables = mps_environment() if service == "mps" else {}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
    if variables:
        log = Path(variables["CUDA_MPS_LOG_DIRECTORY"], "server.log")
        said = log.read_text(errors="replace").splitlines() if log.exists() else ["no log"]
        wrong = [line for line in said if re.search("error|fault|fail|refus|no log", line, re.I)]
        print(*wrong[-20:], sep="\n", flush=True)


def main() -> None:
    """Measure each way with each number."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--way", action="append", required=True)
    parser.add_argument("--number", action="append", type=int, required=True)
    given = parser.parse_args()
    _, middle = middling_job(has_graph=False)
    table = Table("way", "processes", "evaluations a second", "GPU busy", "its memory, MiB")
    console = Console(width=100)
    for way in given.way:
        kind, _, service = way.partition(",")
        for number in given.number:
            with under(service), GpuBusy() as busy:
                answers = in_processes(number, has_graph=kind == "graph")
            courses = [course for _, course in answers]
            together = max(each[0] for each in courses), min(each[-1] for each in courses)
            cells = [
                f"{evaluations_per_second(courses):.1f}",
                f"{busy.between(*together):.0f} %",
                f"{max(memory.used_bytes for memory, _ in answers) / 2**20:.0f}",
            ]
            console.print(way, number, *cells)
            table.add_row(way, str(number), *cells)
    console.print(table)
    console.print(f"{torch.cuda.get_device_name()}: {middle.describe()}")


if __name__ == "__main__":
    main()
