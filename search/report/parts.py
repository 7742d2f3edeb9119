"""What the page is made of: sections of texts, tables and figures, as plain data.

Texts and cells are as they were given; who writes the page escapes them. Plotly alone reads its
labels as a kind of HTML: text from elsewhere goes through `label` before it enters a figure.
"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Any, Literal

from pipelines.printable import printable

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = (
    "#3f7fc1",
    "#d9822b",
    "#3a9d6e",
    "#cf5050",
    "#8f6cc4",
    "#8b9098",
)
"""Colours that can be told apart on white and on black."""

LONGEST_LABEL = 60
MOST_TICKS = 6


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: Literal["plain", "lead", "warning", "missing"] = "plain"
    command: str = ""
    """A line for a terminal that it ends with."""


@dataclass(frozen=True)
class Table:
    """Cells as text, the first column to the left and the others by what they hold."""

    caption: str
    """How it is read."""
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[int] = frozenset()
    """Rows that stand out."""


@dataclass(frozen=True)
class Figure:
    """A figure as plotly.js takes it."""

    title: str
    """May be empty where the section's says it."""
    caption: str
    """How it is read, in one sentence; empty where it shares that of a group."""
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    height: int = 380
    """Pixels."""


@dataclass(frozen=True)
class Group:
    """Small figures side by side that are read alike."""

    caption: str
    figures: Sequence[Figure]


Part = Text | Table | Figure | Group


@dataclass(frozen=True)
class Section:
    """A part of the page with its own line in the table of contents."""

    anchor: str
    title: str
    parts: Sequence[Part]


def missing(why: str) -> Text:
    """The line that stands where a section has nothing to show."""
    return Text(why, "missing")


def label(text: str) -> str:
    """Text from elsewhere as a figure may hold it: short, on one line, no markup."""
    return html.escape(shortened(text)).replace("$", "&#36;")  # else it is taken for TeX


def shortened(text: str) -> str:
    """Text from elsewhere on one line and no longer than a label."""
    shown = printable(text)
    return shown if len(shown) <= LONGEST_LABEL else f"{shown[: LONGEST_LABEL - 1]}…"


def number(value: float | None, digits: int = 4) -> str:
    """A number as a table shows it."""
    if value is None or not math.isfinite(value):
        return "–"
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}g}"
    decimals = digits - max(0, len(str(int(abs(value)))) - 1)
    return f"{value:,.{max(0, decimals)}f}"


def rounded(value: float) -> float:
    """A value as a figure holds it: more digits would only make the page larger."""
    return float(f"{value:.6g}")


def log_axis(values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis over values above zero, with few ticks that are read at once."""
    low, high = math.log10(min(values)), math.log10(max(values))
    decades = range(math.floor(low), math.ceil(high) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low - 0.05 <= math.log10(tick) <= high + 0.05]
        if len(ticks) <= MOST_TICKS:
            break
    stride = max(1, -(-len(ticks) // MOST_TICKS))
    ticks = ticks[::stride]
    texts = [f"{tick:,.0f}" if tick >= 1 else f"{tick:.0e}".replace("e-0", "e-") for tick in ticks]
    axis: dict[str, Any] = {"type": "log"}
    return axis | {"tickvals": ticks, "ticktext": texts} if len(ticks) > 1 else axis


def percent(share: float | None) -> str:
    """A share as a table shows it, with its sign."""
    return "–" if share is None else f"{100 * share:+.1f} %"


def seconds_in_words(seconds: float) -> str:
    """A duration such as `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def plural(count: int, thing: str) -> str:
    """A count and what is counted, such as `2 trials`."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def framed(values: Sequence[float], shown: Sequence[float] = ()) -> tuple[list[float], int]:
    """The range of an axis in which the bulk of `values` fills the frame, and how many lie beyond.

    A trial that diverged would else press all others onto one line.

    Args:
        values: at least one.
        shown: values to be seen where they are not far above.
    """
    low, high = min(values), max(values)
    if len(values) >= 4:
        first, _, third = quantiles(values, n=4, method="inclusive")
        high = min(high, third + 2 * (third - first))
    reach = high + (high - low or abs(high) or 1.0)
    inside = [value for value in shown if value <= reach]
    low, high = min([low, *inside]), max([high, *inside])
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return [low - margin, high + margin], sum(value > high + margin for value in values)


def beyond(count: int) -> str:
    """What a caption adds where points lie outside the frame."""
    return f" {plural(count, 'point')} beyond the frame: a double click shows all." if count else ""
