"""What runs in a worker process of trials.

Apart from `search/executor.py`, so that a worker imports nothing of the record and the view. What
trains, and torch with it, loads in the worker alone: the driver takes seconds to load it.
"""

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from pipelines.hardware import hardware_name
from pipelines.scores import TrainingDiverged
from pipelines.splits import SearchData
from search.config import Metric
from search.kept_weights import Files
from search.slots import Slots
from search.space import TrialConfig

if TYPE_CHECKING:
    from search.trial import TrialStep

# Tune would have the worker work in the trial's temporary folder.
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")


@dataclass(frozen=True)
class TrialJob:
    """What every trial of a search shares; it crosses to each node once."""

    folds: tuple[SearchData, ...]
    """The rolling origins, one of which a trial is trained on; a search has one."""
    metric: Metric
    slots: Slots
    save_every_seconds: float
    has_graph: bool = False
    """Whether steps on CUDA are captured once and replayed."""


class TrialActor(tune.Trainable):  # type: ignore[misc]
    """A worker process: trains one trial after another, one evaluation a `step`."""

    def setup(self, config: dict[str, Any], job: TrialJob) -> None:
        """Begin the first trial."""
        self._job = job
        self._hardware = hardware_name(job.slots.device)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Leave the last trial and begin another in the same process."""
        self.cleanup()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train up to the next evaluation; the end is a result of its own, without one."""
        from search.trial import SecondTry, TrialOutOfMemory

        try:
            step = next(self._steps, None)
        except TrainingDiverged as diverged:
            return {"done": True, "pruned": f"diverged by step {diverged.step}"}
        except TrialOutOfMemory as too_large:
            return {"done": True, "pruned": str(too_large)}
        if step is None:
            return {"done": True}
        return {"retry": step.reason} if isinstance(step, SecondTry) else self._result(step)

    def cleanup(self) -> None:
        """Leave the trial wherever it is."""
        self._steps.close()

    def _begin(self, config: dict[str, Any]) -> None:
        from search.trial import run_trial

        self._steps = run_trial(
            TrialConfig.model_validate_json(config["config"]),
            self._job.folds[config["fold"]],
            config["seed"],
            self._job.metric,
            self._job.slots.device,
            self._job.slots.threads_per_trial,
            _fetch(*config["saved_at"]) if config["saved_at"] else None,
            self._job.save_every_seconds,
            self._job.has_graph,
        )

    def _result(self, step: "TrialStep") -> dict[str, Any]:
        return {
            "files": Files(step.weights, step.saved),
            "evaluation": json.dumps(step.evaluation.to_dict()),
            "is_final": step.is_final,
            "ran_on": json.dumps(
                {
                    "host": socket.gethostname(),
                    "pid": os.getpid(),
                    "device": self._job.slots.device,
                    "hardware": self._hardware,
                }
            ),
        }


def _fetch(node_id: str, path: str) -> bytes:
    """Read a file of another machine. Passed by Ray's own ways it would stay in its memory."""
    there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)
    content: bytes = ray.get(_read.options(scheduling_strategy=there).remote(path))
    return content


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
def _read(path: str) -> bytes:
    return Path(path).read_bytes()
