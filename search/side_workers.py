"""Work beside the trials, each in a worker of its own: the baselines, and a verdict's refits.

The workers are actors, which Ray starts again elsewhere where their machine is lost. Of a task
whose machine was cut off it had told nothing after five minutes (2.60).
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import search.cluster  # noqa: F401 - says, before Ray is there, how quiet it is to be

# isort: split
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.scores import BaselineScore, TrainingDiverged
from pipelines.splits import TestData
from pipelines.training_config import TrainingBudget
from search.config import Resources
from search.recorder import Recorder
from search.slots import Slots
from search.space import TrialConfig
from search.trial_actor import TrialJob

BASELINES_SECONDS = 600.0  # for the baselines, once trials have ended


@ray.remote(max_restarts=2, max_task_retries=2)
class SideWorker:
    """A worker process that trains no trial."""

    def score_baselines(
        self, job: TrialJob, budget: TrainingBudget, seed: int
    ) -> list[BaselineScore]:
        """Compute the forecasts to beat; those that come before a diverging one, if any does."""
        from pipelines.baselines import baselines

        scores: list[BaselineScore] = []
        with suppress(TrainingDiverged):  # of the linear twin, the last of them
            scores.extend(baselines(job.folds[-1], budget, seed))
        return scores

    def refit(
        self, data: TestData, config: str, num_steps: int, device: str, num_threads: int, seed: int
    ) -> bytes:
        """Train a configuration on all rows; return the weights as safetensors."""
        import torch

        from pipelines.refit import refit
        from pipelines.weights import weights_to_bytes

        torch.set_num_threads(num_threads)
        chosen = TrialConfig.model_validate_json(config)
        forecaster = refit(chosen.model, chosen.training, data, seed, num_steps, device)
        return weights_to_bytes(forecaster)


class AwaitedBaselines:
    """The forecasts to beat, computed beside the trials once the first of these has begun."""

    def __init__(self, recorder: Recorder, compute: Callable[[Any], Any] | None):
        """Make ready.

        Args:
            recorder: is told of them.
            compute: asks a `SideWorker` for them and returns Ray's future; None: none are wanted.
        """
        self._recorder = recorder
        self._compute = compute
        self._worker: Any = None
        self._future: Any = None

    def begin(self) -> None:
        """Begin once; not before trials have, which torch loading in one more process would delay.

        On the driver's machine: only nodes that take trials were asked whether they can.
        """
        if self._compute is not None:
            here = NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=True
            )
            options = {"num_cpus": 0, "scheduling_strategy": here}
            self._worker = SideWorker.options(**options).remote()  # type: ignore[attr-defined]
            self._future, self._compute = self._compute(self._worker), None

    def look(self) -> None:
        """Record them where they have come."""
        if self._future is not None and ray.wait([self._future], timeout=0)[0]:
            self._receive()

    def end(self, is_patient: bool) -> None:
        """Wait for them, or give them up."""
        if is_patient:
            self.begin()
        if self._future is not None and is_patient:
            self._receive()
        elif self._future is not None:
            ray.kill(self._worker)

    def _receive(self) -> None:
        future, self._future = self._future, None
        try:
            scores = ray.get(future, timeout=BASELINES_SECONDS)
        except ray.exceptions.GetTimeoutError:
            self._recorder.miss_baselines(f"they did not come within {BASELINES_SECONDS:g} s")
        except ray.exceptions.RayError as error:  # the trials go on without them
            self._recorder.miss_baselines(str(error))
        else:
            self._recorder.score(scores)
        ray.kill(self._worker)


def refit_seeds(
    data: TestData,
    config: TrialConfig,
    seeds: Sequence[int],
    num_steps: int,
    resources: Resources,
    slots: Slots,
) -> list[bytes]:
    """Train a configuration on all rows, once a seed, and return the weights as safetensors.

    Raises:
        RuntimeError: where a training has broken, or took too long.
    """
    longest = resources.max_step_seconds * len(seeds)
    ends_at = time.monotonic() + longest
    shared = ray.put(data)
    same = config.model_dump_json(), num_steps, slots.device, slots.threads_per_trial
    waiting = list(seeds)
    running: dict[Any, tuple[int, Any]] = {}
    weights: dict[int, bytes] = {}

    def go_on(worker: Any) -> None:
        if waiting:
            seed = waiting.pop(0)
            running[worker.refit.remote(shared, *same, seed)] = seed, worker
        else:  # makes room for another, whose machine was lost perhaps
            ray.kill(worker)

    needs = {"num_cpus": slots.cpus_per_trial, "num_gpus": slots.gpus_per_trial}
    try:
        for _ in seeds[: slots.count]:
            go_on(SideWorker.options(**needs).remote())  # type: ignore[attr-defined]
        while running:
            ended, _ = ray.wait(list(running), timeout=max(0.0, ends_at - time.monotonic()))
            if not ended:
                raise RuntimeError(f"the refit has broken: it took longer than {longest:g} s")
            seed, worker = running[ended[0]]
            weights[seed] = ray.get(ended[0])
            del running[ended[0]]
            go_on(worker)
    except (ray.exceptions.RayError, TrainingDiverged) as error:
        raise RuntimeError(f"the refit has broken: {error}") from error
    finally:
        for _, worker in running.values():
            ray.kill(worker)
    return [weights[seed] for seed in seeds]
