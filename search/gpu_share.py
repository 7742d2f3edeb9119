"""How many trials run at a time, and how many share a GPU: `--gpus-per-trial auto`.

A small LSTM leaves most of a GPU idle. The share is one for the whole search: no more trials than
its memory holds of the largest configuration that may be proposed, and than its machine has cores
for; and of such numbers the least that gets nearly as much done as any.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from pipelines.device_memory import predicted_peak_bytes
from pipelines.hardware import hardware_name
from pipelines.splits import SearchData
from pipelines.training_config import TrainingBudget
from search.cluster import machines
from search.config import Resources, SearchConfig
from search.dimensions import Choice, Dimension, Float, Value
from search.limits import Limits
from search.places import record_url
from search.slots import MOST_ON_ONE_GPU, Slots, num_fitting, plan_slots
from search.space import Space, TrialConfig
from search.stored_studies import UnknownStudyError, read_notes
from search.study import GPU_SHARE
from search.trial_actor import TrialJob

if TYPE_CHECKING:
    from search.gpu_probe import Memory

NEARLY = 0.9
"""Of the most that any number gets done; more trials at a time know less of each other."""
USABLE_MEMORY = 0.9
"""Of a GPU: torch's allocator keeps more than its tensors take."""
NUM_DRAWN = 1000
"""Random configurations among which the largest is looked for."""


class Probe(Protocol):
    """Tries configurations on one GPU (`GpuProbe`)."""

    def memory_of(self, config: TrialConfig) -> "Memory | None":
        """What is taken of the GPU once one process has trained this; None where that broke."""

    def rate(self, config: TrialConfig, number: int) -> float:
        """What so many processes get done a second together; 0 where one of them broke."""


def slots_for(config: SearchConfig, data: SearchData, say: Callable[[str], None]) -> Slots:
    """Plan a search's slots on the connected machines.

    Where trials are to share GPUs as `auto` has it, their number is the one that the study has
    recorded for such a GPU, or it is measured.

    Args:
        config: as it was resolved.
        data: the table.
        say: is told what was measured.

    Raises:
        ConfigError: where a trial asks for more than any machine has.
    """
    resources = config.resources
    whole = plan_slots(resources, resources.device, machines())
    if resources.gpus_per_trial != "auto" or whole.device != "cuda":
        return whole
    number = _recorded_number(config)
    if number is None:
        from search.gpu_probe import GpuProbe  # loads torch

        job = TrialJob((data,), config.search.metric, whole, 0.0, resources.cuda_graph)
        most = num_tried(machines(), resources)
        with GpuProbe(job, most, say) as probe:
            rates = rates_together(config, data, most, probe)
        number = fastest_number(rates)
        say(_measured_line(rates, number))
    shared = resources.model_copy(update={"gpus_per_trial": 1 / number})
    return plan_slots(shared, resources.device, machines())


def _recorded_number(config: SearchConfig) -> int | None:
    assert config.study is not None
    try:
        notes = read_notes(record_url(config, config.study), config.study)
    except UnknownStudyError:
        return None
    recorded = notes.get(GPU_SHARE, {})
    if recorded.get("hardware") != hardware_name("cuda"):
        return None
    return int(recorded["trials_per_gpu"])


def num_tried(machines: Sequence[Mapping[str, float]], resources: Resources) -> int:
    """The most trials that may share a GPU, on whatever machine, by its cores; a power of two."""
    cores = min(each["CPU"] / each["GPU"] for each in machines if num_fitting(each, 0.01, 1))
    by_cores = max(1, int(cores / resources.cpus_per_trial))
    most = min(MOST_ON_ONE_GPU, by_cores, resources.max_concurrent or by_cores)
    return 1 << (most.bit_length() - 1)


def rates_together(
    config: SearchConfig, data: SearchData, most: int, probe: Probe
) -> dict[int, float]:
    """Measure what 1, 2, 4, … trials that share a GPU get done; nothing where they cannot share it.

    Args:
        config: as it was resolved.
        data: the table.
        most: the highest number.
        probe: measures.

    Returns:
        Evaluations a second, up to the number that memory allows or that broke.
    """
    settings = config.search
    limits = Limits(data, settings.max_parameters, settings.max_training_teraflops)
    drawn = drawn_configs(config.space, config.training, limits)
    memory = probe.memory_of(max(drawn, key=lambda each: peak_bytes(each, data))) if drawn else None
    if memory is None:
        return {}
    middle, most = middling(drawn, limits), min(most, that_fit(memory))
    rates, number = dict[int, float](), 1
    while number <= most > 1:
        rates[number] = probe.rate(middle, number)
        if not rates[number]:
            break
        number *= 2
    return rates


def middling(drawn: Sequence[TrialConfig], limits: Limits) -> TrialConfig:
    """Of some configurations the one of median arithmetic, by which numbers are compared."""
    return sorted(drawn, key=limits.training_teraflops)[len(drawn) // 2]


def that_fit(memory: "Memory") -> int:
    """How many processes like one that had the GPU to itself its memory holds; at least one."""
    if not memory.total_bytes:
        return 1
    return max(1, int(USABLE_MEMORY * memory.total_bytes / memory.used_bytes))


def fastest_number(rates: Mapping[int, float]) -> int:
    """Of how many trials share a GPU the least that gets nearly as much done as any; 1 of none."""
    enough = NEARLY * max(rates.values(), default=0.0)
    return min((number for number, rate in rates.items() if rate >= enough and rate), default=1)


def _measured_line(rates: Mapping[int, float], chosen: int) -> str:
    measured = ", ".join(f"{number}: {rate:.1f}" for number, rate in rates.items())
    return (
        f"sharing a GPU: {chosen} at a time; evaluations a second by how many: "
        f"{measured or 'not measured'}"
    )


def drawn_configs(space: Space, budget: TrainingBudget, limits: Limits) -> list[TrialConfig]:
    """Random configurations that would not be refused, the same ones each time.

    Args:
        space: the derived space.
        budget: of every trial.
        limits: what is refused.
    """
    generator = random.Random(0)  # nosec B311
    found = []
    for _ in range(NUM_DRAWN):
        point = space.draw(lambda _, dimension: _any_value(dimension, generator))
        try:
            config = space.config_at(point, budget)
        except ValueError:
            continue  # its values contradict each other
        if limits.why_refused(config) is None:
            found.append(config)
    return found


def _any_value(dimension: Dimension, generator: random.Random) -> Value:
    if isinstance(dimension, Choice):
        value: Value = generator.choice(dimension.choices)
        return value
    if isinstance(dimension, Float):
        return generator.uniform(dimension.low, dimension.high)
    values = range(dimension.low, dimension.high + 1, dimension.step or 1)
    # Either end as often as half of all: the largest are what is looked for.
    return generator.choice((values[0], values[-1], generator.choice(values)))


def peak_bytes(config: TrialConfig, data: SearchData) -> int:
    """How much of a GPU's memory a trial on a table takes; see `predicted_peak_bytes`."""
    shape = data.window_shape(config.training.lookback, config.training.calendar)
    return predicted_peak_bytes(config.model, config.training, shape, data.num_rows)
