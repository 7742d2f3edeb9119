"""The search for the LSTM that forecasts a table best.

In a notebook: `from search import SearchConfig, run_search`. Both load on first use, so that the
command line answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.config import SearchConfig
    from search.result import SearchResult, load_result
    from search.search import run_search

__all__ = ["SearchConfig", "SearchResult", "load_result", "run_search"]


_HOMES = {
    "SearchConfig": "search.config",
    "SearchResult": "search.result",
    "load_result": "search.result",
    "run_search": "search.search",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
