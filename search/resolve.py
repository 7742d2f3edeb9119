"""What a configuration leaves open, settled by the table and the machine."""

import math
import platform
import uuid
from datetime import date
from importlib.metadata import version
from random import SystemRandom

from pipelines.hardware import (
    hardware_name,
    has_nvidia_driver,
    resolve_precision,
    torch_finds_gpu,
)
from pipelines.series import load
from pipelines.splits import SearchData, split
from search.config import ConfigError, SearchConfig
from search.derived_space import derive
from search.grid import plan_grid
from search.limits import Limits, check_space
from search.names import filled_in
from search.slots import Slots
from search.space import TrialConfig
from search.starts import THREE_ANSWERS, start_config

CPU_TERAFLOPS_PER_TRIAL = 0.5
"""About ten seconds of one core."""

VALIDATION_STEPS = 6144
"""Forecast steps that tell trials apart while they train: 256 windows of 24. Windows that overlap
say little more (docs/log.md, 2026-11-28), and evaluating costs up to a fifth of a trial."""


def resolve(config: SearchConfig, data: SearchData) -> tuple[SearchConfig, tuple[str, ...]]:
    """Fill in what depends on the table and the machine.

    Returns:
        The configuration without open questions, and what was narrowed.

    Raises:
        ConfigError: where a GPU is asked for that is not there, MASE where it is undefined, or a
            space of which nothing can be tried.
    """
    if config.search.metric == "mase":
        _check_mase(data)
    device = resolve_device(config.resources.device)
    space, notes = derive(
        config.space,
        season=data.season,
        num_train_rows=data.num_train_rows,
        horizon=data.horizon,
        has_calendar=data.known.shape[1] > 0,
        num_targets=data.num_targets,
    )
    teraflops = config.search.max_training_teraflops
    if teraflops is None and device == "cpu":
        teraflops = CPU_TERAFLOPS_PER_TRIAL
    # On a GPU the time of a step hardly grows with its arithmetic.
    draws = config.search.startup_draws or (2 if device == "cpu" else 1)
    limits = Limits(data, config.search.max_parameters, teraflops)
    check_space(space, config.training, limits)
    pruner = config.search.pruner
    if config.search.sampler == "grid" and pruner != "none":
        pruner = "none"
        notes += ("no run of a grid is stopped early: they compare at equal steps",)
    study = fresh_name(data.name)
    if config.study is not None:
        study = filled_in(config.study, data.fingerprint, date.today())
    precision = resolve_precision(config.training.precision, device)
    num_windows = config.training.max_validation_windows or num_validation_windows(data.horizon)
    training = {"precision": precision, "max_validation_windows": num_windows}
    resolved = config.model_copy(
        update={
            "study": study,
            "space": space,
            "training": config.training.model_copy(update=training),
            "search": config.search.model_copy(
                update={
                    "max_training_teraflops": teraflops,
                    "startup_draws": draws,
                    "pruner": pruner,
                }
            ),
            "resources": config.resources.model_copy(update={"device": device}),
        }
    )
    return resolved, notes


def num_validation_windows(horizon: int) -> int:
    """Windows of an evaluation during training, where nobody says how many."""
    return min(max(math.ceil(VALIDATION_STEPS / horizon), 256), 2048)


def _check_mase(data: SearchData) -> None:
    import torch

    from pipelines.metrics import naive_scale

    scale = naive_scale(torch.from_numpy(data.truth[: data.num_train_rows]), data.season)
    if scale.isnan().all():
        raise ConfigError(
            "MASE needs a target that does not repeat itself exactly from season to season: got "
            f"none among {', '.join(data.targets)} with season={data.season}; use --metric mae"
        )


def resolve_device(device: str) -> str:
    """Return cpu or cuda.

    Raises:
        ConfigError: where CUDA is asked for and torch has none.
    """
    has_cuda = device != "cpu" and torch_finds_gpu()
    if device == "cuda" and not has_cuda:
        raise ConfigError(
            f"--device cuda needs a CUDA GPU and a CUDA build of torch: got torch "
            f"{version('torch')} without one; see docs/install.md, or use --device cpu"
        )
    return "cuda" if has_cuda else "cpu"


def device_line(slots: Slots) -> str:
    """The first line of a search: device, torch build, slots, and a warning where it is due."""
    name = hardware_name("cuda") if slots.device == "cuda" else platform.machine()
    plural = "" if slots.count == 1 else "s"
    line = (
        f"{slots.device} ({name}), torch {version('torch')}: {slots.count} trial{plural} at a "
        f"time, {slots.cpus_per_trial:g} CPU and {slots.gpus_per_trial:g} GPU each"
    )
    if has_unused_gpu():
        line += (
            "\nWARNING: this machine has an NVIDIA GPU, but this torch is a CPU-only build, so the "
            "GPU stays unused; install a CUDA build (docs/install.md)"
        )
    return line


def has_unused_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU that this build of torch cannot use."""
    return has_nvidia_driver() and not _torch_is_for_cuda()


def _torch_is_for_cuda() -> bool:
    import torch

    return torch.version.cuda is not None


def fresh_name(data_name: str) -> str:
    """A new study's name: data, date and a word."""
    stem = "".join(c if c.isalnum() or c in "._-" else "-" for c in data_name).strip("._-")
    words = "amber birch cedar delta ember fjord grove heron indigo juniper kelp lark maple north"
    words += " opal pine quartz raven slate thyme umber violet willow xenon yarrow zephyr"
    word = SystemRandom().choice(words.split())
    return f"{stem[:60] or 'table'}-{date.today():%Y%m%d}-{word}-{uuid.uuid4().hex[:4]}"


def starts(config: SearchConfig, season: int) -> tuple[list[TrialConfig], tuple[str, ...]]:
    """The configurations to try first, and the reasons of those that cannot be."""
    space, found, skipped = config.space, [], []
    default = THREE_ANSWERS if config.search.use_default_starts else ()
    for start in (*default, *config.search.start_with):
        try:
            found.append(start_config(start, space, config.training, season))
        except ValueError as error:
            skipped.append(f"{'-'.join(map(str, start.widths))}: {error}")
    return found, tuple(skipped)


def resolved_config(config: SearchConfig) -> SearchConfig:
    """The configuration as a search would use it; reads the table and starts nothing."""
    search_data, _ = split(load(config.data), config.split)
    return resolve(config, search_data)[0]


def runs_in_words(config: SearchConfig) -> tuple[str, ...]:
    """Of a grid, what a search would say of its runs; reads the table and starts nothing."""
    if config.search.sampler != "grid":
        return ()
    search_data, _ = split(load(config.data), config.split)
    return plan_grid(config, search_data).notes


def understood_config(config: SearchConfig) -> SearchConfig:
    """The configuration with what was understood of the table written out."""
    table = load(config.data)
    data = config.data.model_copy(
        update={
            "targets": table.targets,
            "horizon": table.horizon,
            "season": table.season,
            "frequency": table.frequency or "none",
            "outliers": table.outliers,
        }
    )
    resolved = resolved_config(config.model_copy(update={"data": data}))
    return config.model_copy(update={"data": data, "space": resolved.space})
