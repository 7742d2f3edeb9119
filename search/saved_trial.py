"""A trial between two evaluations as bytes: what an interrupted one goes on from.

safetensors, as the weights are: reading never unpickles. The tensors are `weights.NAME`,
`moments.AVERAGE.NAME`, and in `best` the bytes of the best weights' own file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pipelines.scores import Evaluation
from pipelines.training import TrainingState
from pipelines.weights import metadata_from_bytes

WEIGHTS, MOMENTS, BEST = "weights.", "moments.", "best"


@dataclass(frozen=True)
class SavedTrial:
    """The state of a trial's training, and its best evaluation so far with its weights."""

    state: TrainingState
    best: Evaluation
    best_weights: bytes

    def to_bytes(self) -> bytes:
        """Return one safetensors file with all of it."""
        tensors = _prefixed(WEIGHTS, self.state.weights) | _prefixed(MOMENTS, self.state.moments)
        tensors[BEST] = torch.frombuffer(bytearray(self.best_weights), dtype=torch.uint8)
        metadata = {"step": str(self.state.step), BEST: json.dumps(self.best.to_dict())}
        return safetensors.torch.save(tensors, metadata)

    @classmethod
    def from_bytes(cls, data: bytes) -> SavedTrial:
        """Return what `to_bytes` made these of, on the CPU.

        Raises:
            ValueError: The bytes are none of these.
        """
        try:
            tensors, metadata = safetensors.torch.load(data), metadata_from_bytes(data)
            return cls(
                TrainingState(
                    int(metadata["step"]), _under(WEIGHTS, tensors), _under(MOMENTS, tensors)
                ),
                Evaluation.from_dict(json.loads(metadata[BEST])),
                tensors[BEST].numpy().tobytes(),
            )
        except (SafetensorError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"a trial goes on from a state that it saved: got {len(data)} bytes that are none "
                f"({error!r}); delete the file, and the trial begins again"
            ) from None


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
