"""A few seconds of trials in several processes, to see what they get done on a GPU together."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.cluster import living_nodes
from search.space import TrialConfig
from search.trial import SecondTry, TrialOutOfMemory, run_trial
from search.trial_actor import TrialJob

PROBE_SECONDS = 2.0
"""Of trials, in which numbers of processes are compared."""
PATIENCE_SECONDS = 120.0
"""For as many processes to import torch, or to run a trial."""
END_SECONDS = 10.0
"""For processes to end a trial and themselves."""
MOST_STEPS = 200
"""Of a trial that is probed: a long one has no evaluation to be counted in so short a time."""
EVALUATE_EVERY_STEPS = 50
"""Likewise."""
_HARMLESS_LEARNING_RATE = 1e-6


@dataclass(frozen=True)
class Memory:
    """Of a GPU, whatever process holds it."""

    used_bytes: int
    total_bytes: int
    """0 where there is none."""


Course = tuple[float, ...]
"""When one process began, and when it had done each evaluation of trials: seconds since 1970."""


class GpuProbe:
    """Processes on one GPU, for as long as a block lasts.

    They import when the block begins, and take memory of the GPU when they first train.
    """

    def __init__(self, job: TrialJob, number: int, say: Callable[[str], None]):
        """Prepare to ask so many processes at a time, at most; `say` is told what broke."""
        self._job, self._number, self._say = job, number, say

    def __enter__(self) -> Self:
        gpu = next(node for node in living_nodes() if node["Resources"].get("GPU"))
        needs = _remote_prober.options(
            num_cpus=self._job.slots.cpus_per_trial,
            num_gpus=1 / self._number,
            scheduling_strategy=NodeAffinitySchedulingStrategy(gpu["NodeID"], soft=False),
        )
        shared = ray.put(self._job)
        self._probers = [needs.remote(shared) for _ in range(self._number)]
        # What some were still importing would slow what others are measured by.
        imported = [prober.__ray_ready__.remote() for prober in self._probers]
        _, late = ray.wait(imported, num_returns=self._number, timeout=PATIENCE_SECONDS)
        if late:
            self._say(f"sharing a GPU: {len(late)} of {self._number} processes did not start")
        self._have_imported = not late
        return self

    def __exit__(self, *_: object) -> None:
        # Each ends first what it was asked: under NVIDIA's Multi-Process Service a process that is
        # killed while it uses the GPU may break those that use it later.
        ended = [prober.__ray_terminate__.remote() for prober in self._probers]
        ray.wait(ended, num_returns=self._number, timeout=END_SECONDS)
        for prober in self._probers:
            ray.kill(prober)

    def memory_of(self, config: TrialConfig) -> Memory | None:
        """What is taken of the GPU once one process has trained this; None where that broke."""
        answers: list[Memory] = self._ask("begin", config, 1)
        return answers[0] if answers else None

    def rate(self, config: TrialConfig, number: int) -> float:
        """Evaluations a second of so many processes together; 0 where one of them broke."""
        if not self._ask("begin", config, number):
            return 0.0
        return evaluations_per_second(self._ask("take_course", config, number))

    def _ask(self, question: str, config: TrialConfig, number: int) -> list[Any]:
        if not self._have_imported:
            return []
        asked = [getattr(prober, question).remote(config) for prober in self._probers[:number]]
        try:
            answers: list[Any] = ray.get(asked, timeout=PATIENCE_SECONDS)
        except ray.exceptions.RayError as error:
            self._say(f"sharing a GPU: {number} at a time broke ({_reason(error)})")
            return []
        return answers


def _reason(error: Exception) -> str:
    """What was raised in a process, or what Ray says of its end; one line."""
    raised = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
    lines = str(raised).splitlines()
    return f"{type(raised).__name__}: {lines[0] if lines else 'no reason given'}"


def evaluations_per_second(courses: Sequence[Course]) -> float:
    """Of all processes together; 0 where they never trained at a time."""
    if not courses or min(c[-1] for c in courses) <= max(c[0] for c in courses):
        return 0.0
    # Each by its own clock: within what all have in common few evaluations would lie.
    return sum((len(course) - 1) / (course[-1] - course[0]) for course in courses)


def calmed(config: TrialConfig) -> TrialConfig:
    """The configuration with a learning rate at which its loss stays finite, whatever was drawn."""
    rate = {"learning_rate": _HARMLESS_LEARNING_RATE}
    return config.model_copy(update={"training": config.training.model_copy(update=rate)})


def shortened(config: TrialConfig) -> TrialConfig:
    """The configuration with no more steps than are probed."""
    training = config.training
    steps = {
        "max_steps": min(training.max_steps, MOST_STEPS),
        "evaluate_every_steps": min(training.evaluate_every_steps, EVALUATE_EVERY_STEPS),
        "warmup_steps": 0,
    }
    return config.model_copy(update={"training": training.model_copy(update=steps)})


class Prober:
    """A worker process that runs trials of a configuration for some seconds."""

    def __init__(self, job: TrialJob) -> None:
        """Wait to be asked."""
        self._job = job

    def begin(self, config: TrialConfig) -> Memory:
        """Run a trial to its end, so that nothing has to be set aside any more."""
        self._evaluate(config, until=float("inf"))
        if self._job.slots.device != "cuda":
            return Memory(0, 0)
        free, total = torch.cuda.mem_get_info()
        return Memory(total - free, total)

    def take_course(self, config: TrialConfig) -> Course:
        """Run trials for as long as is probed, the last one to its next evaluation."""
        times = [time.time()]
        while times[-1] - times[0] < PROBE_SECONDS:
            times += self._evaluate(config, until=times[0] + PROBE_SECONDS)
        return tuple(times)

    def _evaluate(self, config: TrialConfig, until: float) -> list[float]:
        times = []
        trial = run_trial(
            calmed(shortened(config)),
            self._job.folds[-1],
            0,
            self._job.metric,
            self._job.slots.device,
            self._job.slots.threads_per_trial,
            has_graph=self._job.has_graph,
        )
        for step in trial:
            if isinstance(step, SecondTry):
                raise TrialOutOfMemory(step.reason)
            times.append(time.time())
            if times[-1] >= until:
                trial.close()
        return times


_remote_prober = ray.remote(max_restarts=0)(Prober)
