"""A few seconds of training in several processes, to see what they take of a GPU together."""

import time
from dataclasses import dataclass

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.windows import evenly_spaced
from search.space import TrialConfig
from search.trial import begin_training
from search.trial_actor import TrialJob

STEPS_AT_A_TIME = 10
"""Steps between two times of a course."""
PROBE_SECONDS = 3.0
"""Of training, in which processes are compared."""
PATIENCE_SECONDS = 120.0
"""For as many processes to import torch."""
_HARMLESS_LEARNING_RATE = 1e-6


@dataclass(frozen=True)
class Course:
    """Steps that one process took, maybe beside others."""

    times: tuple[float, ...]
    """Seconds since 1970: of the beginning, and after each `STEPS_AT_A_TIME` further steps."""
    used_bytes: int
    """Of the GPU's memory, by whatever process, at the end."""
    total_bytes: int
    """Of the GPU's memory; 0 where there is none."""


def take_courses(job: TrialJob, config: TrialConfig, number: int) -> list[Course]:
    """Train a configuration for some seconds in so many processes at a time on one GPU.

    Returns:
        What each saw; nothing where one of them broke, for lack of memory for instance.
    """
    gpu = next(node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU"))
    needs = _remote_prober.options(
        num_cpus=job.slots.cpus_per_trial,
        num_gpus=1 / number,
        scheduling_strategy=NodeAffinitySchedulingStrategy(gpu["NodeID"], soft=False),
    )
    shared = ray.put(job)
    actors = [needs.remote(shared, config) for _ in range(number)]
    try:
        ray.get([actor.is_ready.remote() for actor in actors], timeout=PATIENCE_SECONDS)
        taken = [actor.take_course.remote(PROBE_SECONDS) for actor in actors]
        courses: list[Course] = ray.get(taken, timeout=PATIENCE_SECONDS)
    except ray.exceptions.RayError:
        return []
    finally:
        for actor in actors:
            ray.kill(actor)
    return courses


def calmed(config: TrialConfig) -> TrialConfig:
    """The configuration with a learning rate at which its loss stays finite, whatever was drawn."""
    rate = {"learning_rate": _HARMLESS_LEARNING_RATE}
    return config.model_copy(update={"training": config.training.model_copy(update=rate)})


class _Prober:
    """A worker process that trains a configuration for some seconds."""

    def __init__(self, job: TrialJob, config: TrialConfig) -> None:
        """Train and evaluate once, so that nothing has to be set aside any more."""
        torch.set_num_threads(job.slots.threads_per_trial)
        device, data = job.slots.device, job.folds[-1]
        self._training = begin_training(calmed(config), data, 0, device, has_graph=job.has_graph)
        self._training.take_steps(0, STEPS_AT_A_TIME)
        every_origin = self._training.windows.validation_origins
        limit = config.training.max_validation_windows
        self._training.validate(evenly_spaced(every_origin, limit))

    def is_ready(self) -> bool:
        """Answer, once it can begin."""
        return True

    def take_course(self, seconds: float) -> Course:
        """Train for that long."""
        times = [time.time()]
        while times[-1] - times[0] < seconds:
            self._training.take_steps(0, STEPS_AT_A_TIME)  # waits for the device
            times.append(time.time())
        free, total = 0, 0
        if self._training.device.type == "cuda":
            free, total = torch.cuda.mem_get_info()
        return Course(tuple(times), used_bytes=total - free, total_bytes=total)


_remote_prober = ray.remote(max_restarts=0)(_Prober)
