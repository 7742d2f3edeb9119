"""How the search went: validation curves and the best so far."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from search.projection import last_time
from search.record import TrialRecord, TrialState
from search.report.evidence import Evidence
from search.report.parts import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    Figure,
    Section,
    beyond,
    framed,
    label,
    missing,
    rounded,
)

MOST_CURVES = 1000
MOST_CURVE_POINTS = 40_000
NUM_BEST_CURVES = 3
STATE_COLOURS = {
    TrialState.COMPLETE: BLUE,
    TrialState.PRUNED: GREY,
    TrialState.FAILED: RED,
    TrialState.RUNNING: GREEN,
}


def curves(evidence: Evidence) -> Section:
    """The validation error of every trial over its training steps."""
    anchor, title = "curves", "Validation curves"
    drawn = [trial for trial in evidence.trials if evidence.curve(trial)]
    if not drawn:
        return Section(anchor, title, [missing("No trial was evaluated.")])
    best = [trial for trial in evidence.complete[:NUM_BEST_CURVES] if trial in drawn]
    shown = _thinned(drawn, evidence.complete)
    pruned = [trial for trial in shown if trial.state is not TrialState.COMPLETE]
    complete = [t for t in shown if t.state is TrialState.COMPLETE and t not in best]
    most_points, few = max(8, MOST_CURVE_POINTS // len(shown)), len(shown) < 100
    data = [
        _curve_trace(evidence, "stopped early or failed", pruned, GREY, 0.45, 1.0, most_points),
        _curve_trace(evidence, "complete", complete, BLUE, 0.55 if few else 0.3, 1.2, most_points),
    ]
    for trial, colour in zip(best, (ORANGE, GREEN, PURPLE), strict=False):
        data.append(_curve_trace(evidence, trial.name, [trial], colour, 1.0, 2.5, most_points))
    values = [value for trial in drawn for _, value in evidence.curve(trial)]
    reach, num_beyond = framed(values, tuple(evidence.baseline_values().values()))
    left_out = f" {len(shown)} of {len(drawn)} are drawn." if len(shown) < len(drawn) else ""
    caption = (
        "Each line is a trial: its error after so many training steps; a line that ends early was "
        f"stopped, and the dashed lines are the baselines to get below.{left_out}"
        f"{beyond(num_beyond)}"
    )
    layout = {
        "xaxis": {"title": {"text": "training steps"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": evidence.metric_name}, "range": reach},
        **baseline_lines(evidence, reach),
    }
    traces = [trace for trace in data if trace["x"]]
    return Section(anchor, title, [Figure("", caption, traces, layout, 460)])


def _thinned(trials: Sequence[TrialRecord], best: Sequence[TrialRecord]) -> list[TrialRecord]:
    """As many trials as a browser draws swiftly: the best, and of the others every n-th."""
    if len(trials) <= MOST_CURVES:
        return list(trials)
    kept = {trial.number for trial in best[: MOST_CURVES // 2]}
    others = [trial for trial in trials if trial.number not in kept]
    stride = -(-len(others) // (MOST_CURVES - len(kept)))
    kept |= {trial.number for trial in others[::stride]}
    return [trial for trial in trials if trial.number in kept]


def _curve_trace(
    evidence: Evidence,
    name: str,
    trials: Iterable[TrialRecord],
    colour: str,
    opacity: float,
    width: float,
    most_points: int,
) -> dict[str, Any]:
    # One trace for all, with gaps: a thousand traces would take a browser minutes.
    x: list[int | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for trial in trials:
        points = evidence.curve(trial)
        stride = -(-len(points) // most_points)
        points = [*points[:-1:stride], points[-1]]
        x += [*(step for step, _ in points), None]
        y += [*(rounded(value) for _, value in points), None]
        text += [trial.name] * len(points) + [""]
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(x) < 400 else "lines",
        "name": label(name),
        "x": x,
        "y": y,
        "text": text,
        "hovertemplate": "%{text}<br>step %{x}: %{y:.4f}<extra></extra>",
        "line": {"color": colour, "width": width},
        "marker": {"color": colour, "size": 4},
        "opacity": opacity,
        "connectgaps": False,
    }


def baseline_lines(evidence: Evidence, reach: Sequence[float]) -> dict[str, Any]:
    """A dashed line and a name for each baseline within an axis' reach, as parts of a layout."""
    inside = sorted(
        (value, name)
        for name, value in evidence.baseline_values().items()
        if reach[0] <= value <= reach[1]
    )
    dashed: dict[str, Any] = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "layer": "below"}
    dashed["line"] = {"color": ORANGE, "width": 1.2, "dash": "dash"}
    names = [
        {
            "xref": "paper",
            "x": 1,
            "xanchor": "right",
            "y": value,
            "yanchor": "top" if is_below else "bottom",
            "text": label(name),
            "showarrow": False,
            "font": {"size": 11, "color": ORANGE},
        }
        for (value, name), is_below in zip(inside, named_below(inside, reach), strict=True)
    ]
    shapes = [dashed | {"y0": value, "y1": value} for value, _ in inside]
    return {"shapes": shapes, "annotations": names}


def named_below(levels: Sequence[tuple[float, str]], reach: Sequence[float]) -> list[bool]:
    """Which levels, in rising order, have their name below: the lower one of two that are close."""
    close = 0.07 * (reach[1] - reach[0])
    following = [*(value for value, _ in levels), math.inf][1:]
    below: list[bool] = []
    for (value, _), after in zip(levels, following, strict=True):
        below.append(after - value < close and not any(below[-1:]))
    return below


@dataclass(frozen=True)
class History:
    """Trials in the order in which they ended."""

    trials: Sequence[TrialRecord]
    """Those with a value; a pruned one's is its best so far."""
    values: Sequence[float]
    best_so_far: Sequence[float | None]
    """After each; None until one is complete."""


def history_of(evidence: Evidence) -> History:
    """The values in the order in which trials ended."""
    ended = [t for t in evidence.trials if t.state.counts and t.value is not None]
    ended = [t for t in ended if t.value == t.value]  # not a number: diverged at once
    ended.sort(key=lambda trial: (last_time(trial) or 0.0, trial.number))
    best: float | None = None
    so_far = []
    for trial in ended:
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            best = trial.value if best is None else min(best, trial.value)
        so_far.append(best)
    return History(ended, [trial.value for trial in ended if trial.value is not None], so_far)


def history(evidence: Evidence) -> Section:
    """What each trial reached, and the best so far."""
    anchor, title = "history", "History"
    found = history_of(evidence)
    if not found.trials:
        return Section(anchor, title, [missing("No trial has ended with a value.")])
    reach, num_beyond = framed(found.values, tuple(evidence.baseline_values().values()))
    data = []
    for state, name in (
        (TrialState.PRUNED, "stopped early"),
        (TrialState.FAILED, "failed"),
        (TrialState.COMPLETE, "complete"),
    ):
        points = [
            (place, trial)
            for place, trial in enumerate(found.trials, start=1)
            if trial.state is state
        ]
        if points:
            data.append(_points_trace(name, points, STATE_COLOURS[state], state))
    steps = [
        (place, best) for place, best in enumerate(found.best_so_far, start=1) if best is not None
    ]
    if steps:
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "best so far",
                "x": [place for place, _ in steps],
                "y": [rounded(best) for _, best in steps],
                "line": {"color": GREEN, "width": 2.5, "shape": "hv"},
                "hovertemplate": "after %{x} trials: %{y:.4f}<extra>best so far</extra>",
            }
        )
    caption = (
        "Each point is a trial in the order in which they ended; where the green line has long "
        f"been level, more trials of this kind promise little.{beyond(num_beyond)}"
    )
    layout = {
        "xaxis": {"title": {"text": "trials ended"}},
        "yaxis": {"title": {"text": evidence.metric_name}, "range": reach},
        **baseline_lines(evidence, reach),
    }
    return Section(anchor, title, [Figure("", caption, data, layout, 420)])


def _points_trace(
    name: str, points: Sequence[tuple[int, TrialRecord]], colour: str, state: TrialState
) -> dict[str, Any]:
    is_complete = state is TrialState.COMPLETE
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [place for place, _ in points],
        "y": [trial.value and rounded(trial.value) for _, trial in points],
        "text": [trial.name for _, trial in points],
        "hovertemplate": "%{text}: %{y:.4f}<extra>" + name + "</extra>",
        "marker": {"color": colour, "size": 7 if is_complete else 5},
        "opacity": 0.9 if is_complete else 0.45,
    }
