"""What the choices did: importance, and a slice for each dimension."""

from collections.abc import Sequence
from typing import Any

from search.dimensions import Value
from search.record import TrialRecord
from search.report.evidence import Evidence
from search.report.parts import (
    BLUE,
    GREY,
    Figure,
    Group,
    Section,
    beyond,
    framed,
    label,
    log_axis,
    missing,
    plural,
    rounded,
)

MOST_SLICE_POINTS = 1000
MOST_SLICES = 24
MOST_LISTED = 6
"""Distinct numbers that are shown at equal distances."""


def importance(evidence: Evidence) -> Section:
    """Which dimensions told the best trials from the rest."""
    anchor, title = "importance", "Which choices mattered"
    num_ranked = len(evidence.complete) + len(evidence.stopped)
    if not evidence.importance:
        count = plural(num_ranked, "trial")
        why = f"{count} with a value: too few, or too alike, to tell which choice mattered."
        return Section(anchor, title, [missing(why)])
    ranked = list(evidence.importance.items())[:MOST_SLICES][::-1]  # the first bar is the lowest
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "y": [label(name) for name, _ in ranked],
            "x": [rounded(share) for _, share in ranked],
            "text": [f"{share:.2f}" for _, share in ranked],
            "textposition": "auto",
            "hovertemplate": "%{y}: %{x:.3f}<extra></extra>",
            "marker": {"color": BLUE},
        }
    ]
    caption = (
        "The longer the bar, the more the best trials' values of this choice differ from all "
        f"trials' (PED-ANOVA over {plural(num_ranked, 'trial')}, those stopped early ranked behind "
        "the complete ones); it does not say which value is good, and of few trials the order is "
        "loose."
    )
    layout = {"xaxis": {"title": {"text": "share"}, "rangemode": "tozero"}, "showlegend": False}
    return Section(anchor, title, [Figure("", caption, data, layout, 120 + 26 * len(ranked))])


def slices(evidence: Evidence) -> Section:
    """The error against each dimension alone."""
    anchor, title = "slices", "Each choice alone"
    complete = _evenly(evidence.complete, MOST_SLICE_POINTS)
    stopped = _evenly(evidence.stopped, MOST_SLICE_POINTS)
    trials = complete + stopped
    names = [name for name in _dimensions(trials) if len(_values(trials, name)) > 1]
    if not names:
        why = "No choice varied among the trials." if trials else evidence.why_no_complete_trial
        return Section(anchor, title, [missing(why)])
    names.sort(key=lambda name: -evidence.importance.get(name, 0.0))
    reach, num_beyond = framed([trial.value for trial in trials if trial.value is not None])
    figures = [_slice(evidence, complete, stopped, name, reach) for name in names[:MOST_SLICES]]
    caption = (
        f"Each point is a trial, its {evidence.metric_name} over one choice, the most important "
        "choice first: blue ones are complete, grey ones were stopped early and might have got "
        "lower; a choice that only some models have shows only those."
        f"{beyond(num_beyond)}"
    )
    return Section(anchor, title, [Group(caption, figures)])


def _evenly(best_first: Sequence[TrialRecord], most: int) -> list[TrialRecord]:
    stride = max(1, -(-len(best_first) // most))
    return list(best_first[::stride])


def _dimensions(trials: Sequence[TrialRecord]) -> list[str]:
    return list(dict.fromkeys(name for trial in trials for name in trial.params))


def _values(trials: Sequence[TrialRecord], name: str) -> set[Value]:
    return {trial.params[name] for trial in trials if name in trial.params}


def _slice(
    evidence: Evidence,
    complete: Sequence[TrialRecord],
    stopped: Sequence[TrialRecord],
    name: str,
    reach: Sequence[float],
) -> Figure:
    groups = [[t for t in trials if name in t.params] for trials in (stopped, complete)]
    values = [trial.params[name] for trials in groups for trial in trials]
    is_numeric = not any(isinstance(value, bool | str) for value in values)
    is_listed = not is_numeric or len(set(values)) <= MOST_LISTED
    axis: dict[str, Any] = {}
    if is_listed:
        ordered = sorted(set(values), key=lambda value: (isinstance(value, str), value))
        shown = [label(value_text(value)) for value in ordered]
        axis = {"type": "category", "categoryorder": "array", "categoryarray": shown}
    elif _is_log(evidence, name, values):
        axis = log_axis([float(value) for value in values])
    data = [
        _slice_trace(trials, name, is_listed, colour, opacity)
        for trials, colour, opacity in zip(groups, (GREY, BLUE), (0.5, 0.85), strict=True)
    ]
    layout = {"xaxis": axis, "yaxis": {"range": reach}, "showlegend": False}
    return Figure(name, "", data, layout, 220)


def _slice_trace(
    trials: Sequence[TrialRecord], name: str, is_listed: bool, colour: str, opacity: float
) -> dict[str, Any]:
    values = [trial.params[name] for trial in trials]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [label(value_text(value)) for value in values] if is_listed else values,
        "y": [rounded(trial.value or 0.0) for trial in trials],
        "text": [trial.name for trial in trials],
        "hovertemplate": "%{text}<br>%{x}: %{y:.4f}<extra></extra>",
        "marker": {"color": colour, "size": 6},
        "opacity": opacity,
    }


def value_text(value: Value) -> str:
    """A choice as an axis shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else f"{value:.4g}"


def _is_log(evidence: Evidence, name: str, values: Sequence[Value]) -> bool:
    dimension = evidence.config.get("space", {}).get(_dimension_of(name))
    is_log = isinstance(dimension, dict) and bool(dimension.get("log"))
    return is_log and all(not isinstance(value, str) and value > 0 for value in values)


def _dimension_of(name: str) -> str:
    return "width" if name.startswith("width_") else name
