"""The search for the LSTM that forecasts a table best.

In a notebook: `from search import SearchConfig, run_search`. Both load on first use, so that the
command line answers at once.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.config import SearchConfig
    from search.search import SearchResult, load_result, run_search

__all__ = ["SearchConfig", "SearchResult", "load_result", "run_search"]


def __getattr__(name: str) -> Any:
    if name == "SearchConfig":
        from search.config import SearchConfig

        return SearchConfig
    if name in __all__:
        from search import search

        return getattr(search, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
