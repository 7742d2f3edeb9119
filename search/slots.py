"""How many trials run at a time, and on what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search.config import ConfigError, Resources


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

    Raises:
        ConfigError: where a trial asks for more than any machine has.
    """
    gpus = resources.gpus_per_trial
    if gpus is None:
        gpus = 1.0 if device == "cuda" else 0.0
    count = sum(_fitting(machine, resources.cpus_per_trial, gpus) for machine in machines)
    if count == 0:
        cpus_there = max((machine.get("CPU", 0) for machine in machines), default=0)
        gpus_there = max((machine.get("GPU", 0) for machine in machines), default=0)
        raise ConfigError(
            f"a trial needs {resources.cpus_per_trial:g} CPUs and {gpus:g} GPUs on one machine: "
            f"the largest has {cpus_there:g} and {gpus_there:g}; "
            "lower --cpus-per-trial or --gpus-per-trial"
        )
    count = min(count, resources.max_concurrent or count)
    return Slots(count, resources.cpus_per_trial, gpus, device)


def _fitting(machine: Mapping[str, float], cpus: float, gpus: float) -> int:
    # Not `//`, by which a tenth of a CPU fits nineteen times into two.
    by_cpu = int(machine.get("CPU", 0) / cpus + 1e-9)
    return min(by_cpu, int(machine.get("GPU", 0) / gpus + 1e-9)) if gpus else by_cpu
