"""What each layer's width bought: by depth, shape and direction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from search.record import TrialRecord
from search.report.evidence import Evidence
from search.report.parts import Figure, Group, Part, Section, Text, missing, number

MOST_COLUMNS = 8
MOST_ROWS = 15
COLOURS = ((0.0, "#1f5f9e"), (0.35, "#6fa3d0"), (1.0, "#dde6ee"))
"""From the lowest error to the highest."""


@dataclass(frozen=True)
class LayerMap:
    """The lowest error by layer and width, of one kind of model."""

    is_uniform: bool
    is_bidirectional: bool
    rows: Sequence[str]
    """Depths of uniform models; layers of each depth of others."""
    columns: Sequence[str]
    """Ranges of widths."""
    values: Sequence[Sequence[float | None]]
    """By row and column; None where no trial lies."""
    counts: Sequence[Sequence[int]]
    best: Sequence[Sequence[str]]
    """The best trial of each cell."""

    @property
    def title(self) -> str:
        """Which kind of model."""
        shape = "one width for all layers" if self.is_uniform else "a width for each layer"
        return f"{shape}, {'both directions' if self.is_bidirectional else 'one direction'}"


def layer_maps(evidence: Evidence) -> list[LayerMap]:
    """The four maps, those without a trial left out."""
    trials = [trial for trial in _ranked(evidence) if _widths(trial)]
    edges = _edges([width for trial in trials for width in _widths(trial)])
    maps = []
    for is_uniform in (True, False):
        for is_bidirectional in (False, True):
            chosen = [
                trial
                for trial in trials
                if (len(set(_widths(trial))) == 1) is is_uniform
                and _is_bidirectional(trial) is is_bidirectional
            ]
            if chosen:
                maps.append(_map(chosen, edges, is_uniform, is_bidirectional))
    return maps


def _ranked(evidence: Evidence) -> list[TrialRecord]:
    """The trials that have a value, the lowest first."""
    return sorted(evidence.complete + evidence.stopped, key=lambda t: (t.value or 0.0, t.number))


def _widths(trial: TrialRecord) -> tuple[int, ...]:
    assert trial.config is not None
    return trial.config.model.widths


def _is_bidirectional(trial: TrialRecord) -> bool:
    assert trial.config is not None
    return trial.config.model.bidirectional


def _edges(widths: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges of widths, ends included: each value alone where they are few, else doublings."""
    distinct = sorted(set(widths))
    if len(distinct) <= MOST_COLUMNS:
        return [(width, width) for width in distinct]
    low, high = math.log2(distinct[0]), math.log2(distinct[-1] + 1)
    count = min(MOST_COLUMNS, max(2, round(high - low)))
    cuts = [round(2 ** (low + (high - low) * place / count)) for place in range(count + 1)]
    return [(cut, after - 1) for cut, after in pairwise(cuts) if after > cut]


def _map(
    trials: Sequence[TrialRecord],
    edges: Sequence[tuple[int, int]],
    is_uniform: bool,
    is_bidirectional: bool,
) -> LayerMap:
    cells: dict[tuple[int, int], dict[int, list[TrialRecord]]] = {}
    for trial in trials:
        widths = _widths(trial)
        for layer in range(1 if is_uniform else len(widths)):
            column = next(c for c, (low, high) in enumerate(edges) if low <= widths[layer] <= high)
            row = cells.setdefault((len(widths), layer), {})
            row.setdefault(column, []).append(trial)
    rows = sorted(cells)[:MOST_ROWS]
    table = [[cells[row].get(column, []) for column in range(len(edges))] for row in rows]
    return LayerMap(
        is_uniform,
        is_bidirectional,
        [_row_name(depth, layer, is_uniform) for depth, layer in rows],
        [str(low) if low == high else f"{low}–{high}" for low, high in edges],
        [[cell[0].value if cell else None for cell in row] for row in table],
        [[len(cell) for cell in row] for row in table],
        [[cell[0].name if cell else "" for cell in row] for row in table],
    )


def _row_name(depth: int, layer: int, is_uniform: bool) -> str:
    if is_uniform:
        return "1 layer" if depth == 1 else f"{depth} layers"
    return f"layer {layer + 1} of {depth}"


def layers(evidence: Evidence) -> Section:
    """The maps, and in words which kind did best."""
    anchor, title = "layers", "What each layer's width bought"
    maps = layer_maps(evidence)
    if not maps:
        why = "No model has layers." if evidence.complete else evidence.why_no_complete_trial
        return Section(anchor, title, [missing(why)])
    low, high = colour_range(maps)
    caption = (
        f"Each cell has the lowest {evidence.metric_name} of the trials with such a layer (×: how "
        "many), the darker the lower; a trial stopped early counts with the best it had reached, "
        "all other settings differ too, and more tries find lower values by chance."
    )
    parts: list[Part] = [Group(caption, [_heatmap(found, low, high) for found in maps])]
    kinds = ((True, False), (True, True), (False, False), (False, True))
    shown = {(found.is_uniform, found.is_bidirectional) for found in maps}
    left_out = [
        LayerMap(uniform, both, (), (), (), (), ()).title
        for uniform, both in kinds
        if (uniform, both) not in shown
    ]
    if left_out:
        parts.append(missing(f"No trial has {', nor '.join(left_out)}."))
    return Section(anchor, title, [Text(_contest(evidence)), *parts])


def colour_range(maps: Sequence[LayerMap]) -> tuple[float, float]:
    """The same colours for all maps, a few bad cells not deciding them."""
    values = sorted(v for found in maps for row in found.values for v in row if v is not None)
    low, high = values[0], values[max(0, math.ceil(0.75 * len(values)) - 1)]
    return low, high if high > low else low + 1e-9


def _contest(evidence: Evidence) -> str:
    """The best of each kind, in words."""
    best: dict[str, TrialRecord] = {}
    for trial in _ranked(evidence):  # the best first
        widths = _widths(trial)
        if not widths:
            continue
        shape = "a single layer" if len(widths) == 1 else "a width for each layer"
        shape = "equal layers" if len(widths) > 1 and len(set(widths)) == 1 else shape
        best.setdefault(shape, trial)
        best.setdefault("both directions" if _is_bidirectional(trial) else "one direction", trial)
    shown = (f"{kind} {number(t.value)} (trial {t.name})" for kind, t in best.items())
    return f"The best {evidence.metric_name} of each kind: {', '.join(shown)}."


def _heatmap(found: LayerMap, low: float, high: float) -> Figure:
    texts = [
        [
            "" if value is None else f"{number(value)}<br>×{count}"
            for value, count in zip(row, counts, strict=True)
        ]
        for row, counts in zip(found.values, found.counts, strict=True)
    ]
    hover = [
        [
            f"{count} trial{'' if count == 1 else 's'}, the best {name}" if count else "no trial"
            for count, name in zip(counts, names, strict=True)
        ]
        for counts, names in zip(found.counts, found.best, strict=True)
    ]
    trace: dict[str, Any] = {
        "type": "heatmap",
        "x": list(found.columns),
        "y": list(found.rows),
        "z": [list(row) for row in found.values],
        "text": texts,
        "texttemplate": "%{text}",
        "customdata": hover,
        "hovertemplate": "%{y}, width %{x}: %{z:.4f}<br>%{customdata}<extra></extra>",
        "hoverongaps": False,
        "zmin": low,
        "zmax": high,
        "colorscale": [[place, colour] for place, colour in COLOURS],
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }
    layout = {
        "xaxis": {"type": "category", "title": {"text": "cells in the layer"}, "showgrid": False},
        "yaxis": {"type": "category", "autorange": "reversed", "showgrid": False},
    }
    return Figure(found.title, "", [trace], layout, 110 + 42 * max(2, len(found.rows)))
