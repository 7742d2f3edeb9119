"""AdamW without the second of each process that torch's compiler takes to load.

torch's optimisers (2.13) import `torch._dynamo` to tell it what not to compile. Nothing is
compiled here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

_take_step: Any = inspect.unwrap(torch.optim.Adam.step)


class AdamW(torch.optim.AdamW):
    """torch's AdamW, to the bit."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        _leave_compiler_out()
        super().__init__(*arguments, **options)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step."""
        loss: float | None = _take_step(self, closure)
        return loss


def _leave_compiler_out() -> None:
    """Give the methods that are kept from it (`torch._compile._disable_dynamo`) what it would.

    Whoever compiles an optimiser later in the same process has these methods traced.
    """
    for method in vars(torch.optim.Optimizer).values():
        unmarked = getattr(method, "__wrapped__", None)
        if unmarked is not None and not hasattr(unmarked, "__dynamo_disable"):
            setattr(unmarked, "__dynamo_disable", unmarked)
