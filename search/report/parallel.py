"""All choices side by side: every good trial as a line through parallel coordinates.

Drawn from plain lines: plotly's own kind needs WebGL, which not every viewer of a file has.
"""

import math
from collections.abc import Sequence
from typing import Any

from search.dimensions import Value
from search.record import TrialRecord
from search.report.choices import value_text
from search.report.evidence import Evidence, num_cells
from search.report.parts import GREY, Figure, Section, label, missing, number

MOST_LINES = 300
LINE_COLOURS = ("#2c6fb8", "#4f9fa8", "#8fae6b", "#c9a24b", "#b9b0a8")
"""Of fifths of the trials, the best fifth first."""


def parallel(evidence: Evidence) -> Section:
    """Every choice of every good trial as a line."""
    anchor, title = "parallel", "All choices side by side"
    trials = evidence.complete[:MOST_LINES]
    columns = {name: values for name, values in _columns(trials).items() if len(set(values)) > 1}
    if len(trials) < 2 or not columns:
        why = "Two complete trials that differ are needed." if trials else None
        return Section(anchor, title, [missing(why or evidence.why_no_complete_trial)])
    columns[evidence.metric_name] = [trial.value or 0.0 for trial in trials]
    axes = {name: _Axis(values) for name, values in columns.items()}
    data = [_frame_trace(len(axes)), *_line_traces(trials, columns, axes)]
    layout = {
        "xaxis": {
            "tickmode": "array",
            "tickvals": list(range(len(axes))),
            "ticktext": [label(name) for name in axes],
            "tickangle": -35,
            "range": [-0.5, len(axes) - 0.5],
            "showgrid": False,
        },
        "yaxis": {"visible": False, "range": [-0.06, 1.06]},
        "annotations": [
            note for place, axis in enumerate(axes.values()) for note in axis.marks(place)
        ],
    }
    whose = "" if len(trials) == len(evidence.complete) else f" best {len(trials)}"
    caption = (
        f"Each line is one of the{whose} complete trials, on its way through all choices to its "
        "error on the right; where the blue lines meet, the best fifth agrees."
    )
    return Section(anchor, title, [Figure("", caption, data, layout, 480)])


def _columns(trials: Sequence[TrialRecord]) -> dict[str, list[Value]]:
    """What every trial has, conditional dimensions put into words that hold for all."""
    columns: dict[str, list[Value]] = {}
    for trial in trials:
        assert trial.config is not None
        model, training = trial.config.model, trial.config.training
        own: dict[str, Value] = {
            "layers": model.num_layers,
            "cells": num_cells(trial),
            "widths": "uniform" if len(set(model.widths)) <= 1 else "per layer",
            "directions": model.num_directions,
            "dropout": model.dropout,
            "normalisation": model.normalisation,
            "linear skip": model.linear_skip,
            "head": model.head,
            "calendar": training.calendar,
            "patch": model.patch_length,
            "lookback": training.lookback,
            "rate": training.learning_rate,
            "batch": training.batch_size,
            "weight decay": training.weight_decay,
        }
        for name, value in own.items():
            columns.setdefault(name, []).append(value)
    return columns


class _Axis:
    """One vertical axis: where a value lies between 0 and 1."""

    def __init__(self, values: Sequence[Value]):
        """Lay out the values of all trials, numbers by size, others at equal distances."""
        self._texts = sorted({value_text(v) for v in values if isinstance(v, bool | str)})
        numbers = [v for v in values if not isinstance(v, bool | str)]
        low, high = min(numbers, default=0.0), max(numbers, default=1.0)
        self._is_log = low > 0 and high / low >= 50
        self._low, self._high = low, high

    def place(self, value: Value) -> float:
        """Where a value lies."""
        if isinstance(value, bool | str):
            return self._texts.index(value_text(value)) / max(1, len(self._texts) - 1)
        low, high, at = self._low, self._high, float(value)
        if self._is_log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low) if high > low else 0.5

    def marks(self, place: int) -> list[dict[str, Any]]:
        """What is written beside the axis."""
        ends = ((self._low, 0.0), (self._high, 1.0))
        texts = [(text, self.place(text)) for text in self._texts]
        shown = texts or [(number(value, 3).rstrip("0").rstrip("."), at) for value, at in ends]
        return [
            {
                "x": place,
                "y": at,
                "text": label(text),
                "showarrow": False,
                "font": {"size": 10},
                "yshift": 9 if at > 0.5 else -9,
            }
            for text, at in shown
        ]


def _frame_trace(num_axes: int) -> dict[str, Any]:
    x: list[int | None] = []
    y: list[int | None] = []
    for place in range(num_axes):
        x += [place, place, None]
        y += [0, 1, None]
    line = {"color": GREY, "width": 1}
    trace: dict[str, Any] = {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line}
    return trace | {"showlegend": False, "hoverinfo": "skip"}


def _line_traces(
    trials: Sequence[TrialRecord],
    columns: dict[str, list[Value]],
    axes: dict[str, _Axis],
) -> list[dict[str, Any]]:
    num_groups = min(len(LINE_COLOURS), len(trials))
    traces = []
    for group in reversed(range(num_groups)):  # the best are drawn last, above the others
        first, end = (len(trials) * g // num_groups for g in (group, group + 1))
        x: list[int | None] = []
        y: list[float | None] = []
        text: list[str] = []
        for row in range(first, end):
            x += [*range(len(axes)), None]
            y += [*(round(axes[name].place(columns[name][row]), 4) for name in axes), None]
            text += [
                f"{trials[row].name}<br>{label(name)}: {label(value_text(columns[name][row]))}"
                for name in axes
            ] + [""]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": _group_name(group, num_groups),
                "x": x,
                "y": y,
                "text": text,
                "hovertemplate": "%{text}<extra></extra>",
                "line": {"color": LINE_COLOURS[group], "width": 2.2 if group == 0 else 1.0},
                "opacity": 0.9 if group == 0 else 0.5,
            }
        )
    return traces


def _group_name(group: int, num_groups: int) -> str:
    if group == 0:
        return "the best"
    return "the last" if group == num_groups - 1 else f"part {group + 1} of {num_groups}"
