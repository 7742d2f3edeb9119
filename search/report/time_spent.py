"""How the time was spent: what the slots did, and when each trial ran."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from search.projection import last_time
from search.record import TrialRecord
from search.report.course import STATE_COLOURS
from search.report.evidence import Evidence, evaluate_seconds, train_seconds
from search.report.parts import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Figure,
    Part,
    Section,
    missing,
    plural,
    seconds_in_words,
)


@dataclass(frozen=True)
class TimeSpent:
    """Where the slots' time went, in seconds, from the first trial's start to the last one's end.

    A slot is room for one trial: as many as ran at once at most. What was spent on trials that
    were interrupted and begun again counts as waiting.
    """

    num_slots: int
    span: float
    start_up: float
    """From the study's beginning to its first trial, not multiplied by the slots."""
    training: float
    evaluating: float
    around: float
    """Of running trials, neither training nor evaluating: building, sending weights, waiting."""
    free: float
    """Slots without a trial while others had one."""
    idle: float
    """All slots while no trial ran at all: pauses between two searches among them."""


def intervals_of(evidence: Evidence) -> list[tuple[float, float, TrialRecord]]:
    """When each trial ran, by its start."""
    found = [
        (trial.started_at, ended, trial)
        for trial in evidence.trials
        if trial.started_at is not None
        and (ended := last_time(trial)) is not None
        and ended >= trial.started_at
    ]
    return sorted(found, key=lambda interval: (interval[0], interval[2].number))


def time_spent(evidence: Evidence) -> TimeSpent | None:
    """Where the time went; None before a trial has run."""
    intervals = intervals_of(evidence)
    if not intervals:
        return None
    lanes = _lanes(intervals)
    begin, end = intervals[0][0], max(ended for _, ended, _ in intervals)
    num_slots, span = max(lanes) + 1, end - begin
    inside = sum(ended - started for started, ended, _ in intervals)
    training = sum(train_seconds(trial) for *_, trial in intervals)
    evaluating = sum(evaluate_seconds(trial) for *_, trial in intervals)
    idle = _time_without_any(intervals)
    return TimeSpent(
        num_slots=num_slots,
        span=span,
        start_up=max(0.0, begin - (evidence.created_at or begin)),
        training=training,
        evaluating=evaluating,
        around=max(0.0, inside - training - evaluating),
        free=max(0.0, num_slots * (span - idle) - inside),
        idle=num_slots * idle,
    )


def _lanes(intervals: Sequence[tuple[float, float, TrialRecord]]) -> list[int]:
    """A slot for each trial such that no two share one at a time; as few slots as can be."""
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    lanes = []
    for started, ended, _ in intervals:
        while busy and busy[0][0] <= started:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (ended, lane))
        lanes.append(lane)
    return lanes


def _time_without_any(intervals: Sequence[tuple[float, float, TrialRecord]]) -> float:
    idle, reached = 0.0, intervals[0][0]
    for started, ended, _ in intervals:
        idle += max(0.0, started - reached)
        reached = max(reached, ended)
    return idle


def time(evidence: Evidence) -> Section:
    """How the time was spent."""
    anchor, title = "time", "How the time was spent"
    spent = time_spent(evidence)
    if spent is None:
        return Section(anchor, title, [missing("No trial has run.")])
    parts: list[Part] = [_shares(spent), _timeline(evidence)]
    return Section(anchor, title, parts)


def _shares(spent: TimeSpent) -> Figure:
    total = spent.num_slots * spent.span or 1.0
    pieces = (
        ("training", spent.training, BLUE),
        ("evaluating", spent.evaluating, GREEN),
        ("around it", spent.around, ORANGE),
        ("free slots", spent.free, GREY),
        ("no trial at all", spent.idle, RED),
    )
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": [""],
            "x": [round(seconds, 3)],
            "text": [f"{100 * seconds / total:.0f} %" if seconds / total > 0.04 else ""],
            "textposition": "inside",
            "insidetextanchor": "middle",
            "hovertemplate": f"{name}: {seconds_in_words(seconds)}<extra></extra>",
            "marker": {"color": colour},
        }
        for name, seconds, colour in pieces
    ]
    caption = (
        f"The time of {plural(spent.num_slots, 'slot')} over {seconds_in_words(spent.span)}: blue "
        "is what the search is for; 'around it' is building models, moving weights and waiting for "
        f"the record. Before its first trial the search took {seconds_in_words(spent.start_up)}."
    )
    layout = {
        "barmode": "stack",
        "xaxis": {"title": {"text": "slot-seconds"}, "range": [0, total]},
        "yaxis": {"showticklabels": False},
        "legend": {"traceorder": "normal"},
    }
    return Figure("", caption, data, layout, 220)


def _timeline(evidence: Evidence) -> Figure:
    intervals = intervals_of(evidence)
    lanes, begin = _lanes(intervals), intervals[0][0]
    data = []
    for state, colour in STATE_COLOURS.items():
        x: list[float | None] = []
        y: list[int | None] = []
        text: list[str] = []
        for (started, ended, trial), lane in zip(intervals, lanes, strict=True):
            if trial.state is state:
                x += [round(started - begin, 2), round(ended - begin, 2), None]
                y += [lane + 1, lane + 1, None]
                text += [trial.name, trial.name, ""]
        if x:
            trace: dict[str, Any] = {"type": "scatter", "mode": "lines", "name": str(state)}
            trace |= {"x": x, "y": y, "text": text, "line": {"color": colour, "width": 12}}
            trace["hovertemplate"] = "%{text}, at %{x:.1f} s<extra></extra>"
            data.append(trace)
    num_lanes = max(lanes) + 1
    caption = (
        "Each bar is a trial in the slot where it ran; gaps are times in which a slot had nothing "
        "to do."
    )
    layout = {
        "xaxis": {"title": {"text": "seconds since the first trial began"}},
        "yaxis": {
            "title": {"text": "slot"},
            "range": [0.4, num_lanes + 0.6],
            "dtick": max(1, num_lanes // 10),
        },
    }
    return Figure("", caption, data, layout, min(700, 200 + 28 * num_lanes))
