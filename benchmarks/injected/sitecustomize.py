"""Breaks a trial from within, on order; Python runs this file in every process that finds it.

An order is an empty file `KIND.ANYTHING` in the folder `LSTM_SEARCH_FAULT_ORDERS`. The first
training that reads a batch takes it away and obeys. The project itself knows nothing of this.
"""

from __future__ import annotations

import os
import sys
import time
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

ORDERS = os.environ.get("LSTM_SEARCH_FAULT_ORDERS")
BROKEN_IN = "pipelines.windows"


class _Finder:
    """Lets `pipelines.windows` load as ever, then wraps the reading of a batch."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != BROKEN_IN:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_wrap(module: Any) -> None:
            load(module)
            _wrap(module.Windows)

        spec.loader.exec_module = load_and_wrap  # type: ignore[method-assign]
        return spec


def _wrap(windows: Any) -> None:
    read = windows.inputs

    def inputs(self: Any, origins: Any) -> Any:
        window, known = read(self, origins)
        order = _take_order()
        return (window, known) if order is None else (_obey(order, window), known)

    windows.inputs = inputs


def _take_order() -> str | None:
    assert ORDERS is not None
    for path in Path(ORDERS).iterdir():
        if not _is_in_a_trial():
            return None
        try:
            path.unlink()
        except FileNotFoundError:  # another process was quicker
            continue
        return path.name.partition(".")[0]
    return None


def _is_in_a_trial() -> bool:
    """Whether a trial reads, and not a baseline."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_globals.get("__name__") == "search.trial":
            return True
    return False


def _obey(order: str, window: Any) -> Any:
    if order == "raise":
        raise RuntimeError("this fault was ordered")
    if order == "hang":
        time.sleep(24 * 3600)
    if order == "exhaust":
        window.new_empty(1 << 50)
    assert order == "diverge", order
    return window * float("nan")


if ORDERS is not None:
    sys.meta_path.insert(0, _Finder())
