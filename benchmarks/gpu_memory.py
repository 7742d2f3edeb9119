"""What a training is predicted to take of a GPU, against what torch allocates on one.

python -m benchmarks.gpu_memory --configs 20
"""

import argparse

import torch
from rich.console import Console
from rich.table import Table

from pipelines.series import load
from pipelines.splits import split
from search.config_file import parse_config
from search.gpu_probe import calmed
from search.gpu_share import drawn_configs, peak_bytes
from search.limits import Limits
from search.resolve import resolve
from search.trial import begin_training


def main() -> None:
    """Train configurations of the default space for a moment, the smallest to the largest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configs", type=int, default=20)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("torch must see a CUDA GPU: it sees none")
    config = parse_config({"resources": {"device": "cuda"}})
    data, _ = split(load(config.data), config.split)
    config, _ = resolve(config, data)
    limits = Limits(data, config.search.max_parameters, None)

    drawn = drawn_configs(config.space, config.training, limits)
    ordered = sorted(drawn, key=lambda tried: peak_bytes(tried, data))
    table = Table(
        "configuration", "batch", "predicted MiB", "allocated MiB", "predicted / allocated"
    )
    for place in range(given.configs):
        tried = ordered[place * (len(ordered) - 1) // max(1, given.configs - 1)]
        next(begin_training(calmed(tried), data, 0, "cuda"))
        predicted, allocated = peak_bytes(tried, data), torch.cuda.max_memory_allocated()
        table.add_row(
            tried.describe(),
            str(tried.training.batch_size),
            f"{predicted / 2**20:.1f}",
            f"{allocated / 2**20:.1f}",
            f"{predicted / allocated:.2f}",
        )
    console = Console(width=120)
    console.print(table)
    console.print(torch.cuda.get_device_name())


if __name__ == "__main__":
    main()
