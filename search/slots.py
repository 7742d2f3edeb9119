"""How many trials run at a time, and on what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search.config import ConfigError, Resources

MOST_ON_ONE_GPU = 32
"""Trials, however many cores there are: NVIDIA's Multi-Process Service takes 48 processes."""


@dataclass(frozen=True)
class Slots:
    """How many trials run at a time, and on what."""

    count: int
    cpus_per_trial: float
    gpus_per_trial: float
    device: str

    @property
    def threads_per_trial(self) -> int:
        """Threads of a trial, one for each whole core assigned to it."""
        return max(1, int(self.cpus_per_trial))


def plan_slots(resources: Resources, device: str, machines: Sequence[Mapping[str, float]]) -> Slots:
    """Count the trials that fit on the machines, each given by what it has of CPU and GPU.

    A trial gets a whole GPU where nothing, or `auto`, is said of it.

    Raises:
        ConfigError: where a trial asks for more than any machine has.
    """
    gpus = resources.gpus_per_trial
    if gpus is None or gpus == "auto":
        gpus = 1.0 if device == "cuda" else 0.0
    if device == "cuda" and gpus == 0:
        raise ConfigError(
            "a trial on cuda needs a GPU: got gpus_per_trial=0; raise --gpus-per-trial, or choose "
            "--device cpu"
        )
    count = sum(num_fitting(machine, resources.cpus_per_trial, gpus) for machine in machines)
    if count == 0:
        raise ConfigError(_why_none_fits(resources.cpus_per_trial, gpus, device, machines))
    count = min(count, resources.max_concurrent or count)
    return Slots(count, resources.cpus_per_trial, gpus, device)


def _why_none_fits(
    cpus: float, gpus: float, device: str, machines: Sequence[Mapping[str, float]]
) -> str:
    for kind, needed in (("GPU", gpus), ("CPU", cpus)):
        on_each = [machine.get(kind, 0) for machine in machines]
        if needed > max(on_each, default=0):
            there = f"the cluster has {sum(on_each):g}"
            there += (
                f", at most {max(on_each):g} on one machine" if sum(map(bool, on_each)) > 1 else ""
            )
            plural = "" if needed == 1 else "s"
            remedy = f"lower --{kind.lower()}s-per-trial"
            if kind == "GPU" and device == "cuda" and not any(on_each):
                remedy = "choose --device cpu, or a cluster with GPUs"
            return f"a trial needs {needed:g} {kind}{plural}: {there}; {remedy}"
    return (
        f"a trial needs {cpus:g} CPUs and {gpus:g} GPUs on one machine: no machine has both; lower "
        "--cpus-per-trial or --gpus-per-trial"
    )


def num_fitting(machine: Mapping[str, float], cpus: float, gpus: float) -> int:
    """How many trials a machine has room for."""
    # Not `//`, by which a tenth of a CPU fits nineteen times into two.
    by_cpu = int(machine.get("CPU", 0) / cpus + 1e-9)
    return min(by_cpu, int(machine.get("GPU", 0) / gpus + 1e-9)) if gpus else by_cpu
