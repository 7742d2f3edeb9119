"""A training step as a CUDA graph: its hundreds of small kernels are launched as one.

Launching the kernels of a small LSTM's step one by one may take longer than computing them.
Captured once, they are replayed with other windows and another learning rate (torch's notes on
CUDA graphs).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

Step = Callable[[], Tensor]
"""Takes a step and returns its loss, on the device."""

NUM_EAGER_STEPS = 3
"""Steps before the capture, in which cuDNN and the optimiser set aside what they need."""


def capture(step: Step) -> Step:
    """Record the kernels of a step, without running them; return what runs them."""
    graph = torch.cuda.CUDAGraph()
    # Other threads of the process may speak to the device meanwhile.
    captured = torch.cuda.graph(graph, stream=_own_stream(), capture_error_mode="thread_local")
    # The outer block puts the stream back where the end of a broken capture raises.
    with torch.cuda.stream(torch.cuda.current_stream()), captured:
        loss = step()

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


@cache
def _own_stream() -> torch.cuda.Stream:
    """The stream of this process for all steps before a capture, and for all captures.

    torch keeps what it sets aside by stream, cuBLAS's 64 MiB among it: with a new stream for each
    trial these would add up to 2 GiB.
    """
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


TrainStep = Callable[[Tensor, Tensor], Tensor]
"""Takes a step from origins [B] and a learning rate [], both on the device, for which it never
waits; returns the loss."""


class StepGraph:
    """Takes training steps: the first few as they come, the others by replaying one of them.

    Between two steps the weights may be read and written in place, but not replaced.
    """

    def __init__(self, device: torch.device, capture: Callable[[Step], Step] = capture) -> None:
        """Prepare to take steps.

        Args:
            device: where.
            capture: makes a step that is fast of one that was taken a few times.
        """
        self._capture = capture
        self._learning_rate = torch.zeros((), device=device)
        self._origins: Tensor | None = None
        self._replay: Step | None = None
        self._num_eager = 0

    def __call__(self, train_step: TrainStep, origins: Tensor, learning_rate: float) -> Tensor:
        """Take a step, the same each time; return the loss, which the next step overwrites."""
        # The step is not held: it is mostly of whoever holds this, and a circle of the two would
        # keep the device's memory until Python next looks for circles.
        if self._origins is None:
            self._origins = torch.empty_like(origins)
        self._origins.copy_(origins)
        self._learning_rate.fill_(learning_rate)
        step = partial(train_step, self._origins, self._learning_rate)
        if self._replay is None and self._num_eager < NUM_EAGER_STEPS:
            self._num_eager += 1
            return self._take_eagerly(step)
        if self._replay is None:
            self._replay = self._capture(step)
        return self._replay()

    def _take_eagerly(self, step: Step) -> Tensor:
        if self._learning_rate.device.type != "cuda":
            return step()
        stream, current = _own_stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            loss = step()
        current.wait_stream(stream)
        return loss
