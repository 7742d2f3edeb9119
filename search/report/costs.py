"""What accuracy costs: the error against parameters and against training time."""

from collections.abc import Callable, Sequence
from typing import Any

from search.record import TrialRecord
from search.report.evidence import Evidence, train_seconds
from search.report.parts import (
    BLUE,
    ORANGE,
    Figure,
    Group,
    Section,
    beyond,
    framed,
    log_axis,
    missing,
    rounded,
)

MOST_POINTS = 2000


def costs(evidence: Evidence) -> Section:
    """The error against each cost, with the trials that none beats in both."""
    anchor, title = "costs", "What accuracy costs"
    trials = evidence.complete
    if not trials:
        return Section(anchor, title, [missing(evidence.why_no_complete_trial)])
    reach, num_beyond = framed([trial.value for trial in trials if trial.value is not None])
    figures = [
        _figure(evidence, trials, "Parameters", "parameters", lambda t: t.num_parameters, reach),
        _figure(evidence, trials, "Training time", "seconds of training", train_seconds, reach),
    ]
    caption = (
        "The orange line is the Pareto front, the trials that no other beats in both: along it, "
        f"less error costs more.{beyond(num_beyond)}"
    )
    return Section(anchor, title, [Group(caption, figures)])


def pareto_front(
    trials: Sequence[TrialRecord], cost: Callable[[TrialRecord], float]
) -> list[TrialRecord]:
    """The trials than which no other has both a lower cost and a lower value, by cost."""
    front: list[TrialRecord] = []
    by_cost = sorted(trials, key=lambda t: (cost(t), t.value or 0.0, t.number))
    for trial in by_cost:
        if not front or (trial.value or 0.0) < (front[-1].value or 0.0):
            front.append(trial)
    return front


def _figure(
    evidence: Evidence,
    trials: Sequence[TrialRecord],
    title: str,
    unit: str,
    cost: Callable[[TrialRecord], float],
    reach: Sequence[float],
) -> Figure:
    priced = [trial for trial in trials if cost(trial) > 0]  # else no logarithm has a place for it
    front = pareto_front(priced, cost)
    stride = max(1, -(-len(priced) // MOST_POINTS))
    hover = "%{text}<br>%{x:,} " + unit + ": %{y:.4f}<extra></extra>"
    dots = _trace("complete trials", priced[::stride], cost, hover)
    line = _trace("Pareto front", front, cost, hover)
    dots |= {"mode": "markers", "marker": {"color": BLUE, "size": 6}, "opacity": 0.55}
    line |= {"mode": "lines+markers", "line": {"color": ORANGE, "width": 2, "shape": "hv"}}
    line["marker"] = {"color": ORANGE, "size": 8}
    axis = log_axis([cost(trial) for trial in priced]) if priced else {}
    layout = {
        "xaxis": axis | {"title": {"text": unit}},
        "yaxis": {"title": {"text": evidence.metric_name}, "range": reach},
        "showlegend": False,
    }
    return Figure(title, "", [dots, line], layout, 340)


def _trace(
    name: str,
    trials: Sequence[TrialRecord],
    cost: Callable[[TrialRecord], float],
    hover: str,
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "name": name,
        "x": [round(cost(trial), 3) for trial in trials],
        "y": [rounded(trial.value or 0.0) for trial in trials],
        "text": [trial.name for trial in trials],
        "hovertemplate": hover,
    }
