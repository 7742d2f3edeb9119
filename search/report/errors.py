"""Where the model errs on the test part: forecasts, steps, hours, residuals."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.verdict import ForecastExample, TestScore, Verdict
from search.report.evidence import Evidence
from search.report.outcome import best_test_baseline
from search.report.parts import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    Figure,
    Group,
    Part,
    Section,
    framed,
    label,
    missing,
    number,
    shortened,
)

SEALED = "The test is still sealed, so there is no forecast of it to look at."
KINDS = ("typical", "best", "worst")


def forecasts(evidence: Evidence) -> Section:
    """Forecasts against the truth of typical, best and worst windows."""
    anchor, title = "forecasts", "Forecasts against the truth"
    if evidence.verdict is None:
        return Section(anchor, title, [missing(SEALED)])
    examples = ordered_examples(evidence.verdict)
    if not examples:
        return Section(anchor, title, [missing("The verdict holds no forecast to show.")])
    target = shortened(evidence.verdict.targets[0])
    caption = (
        f"Grey is what the model saw last of {target}, the line in the colour of this text what "
        "came, blue the forecast, dashed the best baseline; windows of the test part, by error."
    )
    return Section(anchor, title, [Group(caption, [_example(e) for e in examples])])


def ordered_examples(found: Verdict) -> list[ForecastExample]:
    """The examples, the typical ones first."""
    return sorted(found.inspection.examples, key=lambda example: KINDS.index(example.kind))


def _example(example: ForecastExample) -> Figure:
    num_seen, horizon = len(example.history), len(example.truth)
    seen = list(range(-num_seen + 1, 1))
    ahead = list(range(1, horizon + 1))
    data = [
        _line("seen", seen, example.history, GREY, 1.5),
        _line("truth", ahead, example.truth, "ink", 2.2),
        _line("forecast", ahead, example.forecast, BLUE, 2.2),
        _line("best baseline", ahead, example.best_baseline, ORANGE, 1.5, "dash"),
    ]
    layout = {
        "xaxis": {"title": {"text": "steps from the forecast's origin"}},
        "legend": {"orientation": "h"},
    }
    title = f"{example.kind}: {example.origin}, mean absolute error {number(example.error, 3)}"
    return Figure(title, "", data, layout, 300)


def _line(
    name: str,
    x: Sequence[int],
    y: Sequence[float | None],
    colour: str,
    width: float,
    dash: str = "solid",
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines" if len(y) > 1 else "markers",
        "name": label(name),
        "x": list(x),
        "y": [None if value is None else float(f"{value:.6g}") for value in y],
        "line": {"color": colour, "width": width, "dash": dash},
    }


def steps(evidence: Evidence) -> Section:
    """The error by step of the horizon, by hour, by weekday."""
    anchor, title = "steps", "When it errs"
    found = evidence.verdict
    if found is None:
        return Section(anchor, title, [missing(SEALED)])
    parts: list[Part] = [_by_step(evidence, found)]
    times = [
        _bars(heading, unit, values)
        for heading, unit, values in (
            ("By hour of the day", "hour", found.inspection.by_hour),
            ("By day of the week", "day", found.inspection.by_weekday),
        )
        if values
    ]
    if times:
        caption = "The mean absolute error (standardised) of what was forecast for such times."
        parts.append(Group(caption, times))
    else:
        parts.append(missing("Rows are no part of a day or a week here, or have no timestamps."))
    return Section(anchor, title, parts)


def _by_step(evidence: Evidence, found: Verdict) -> Figure:
    best = best_test_baseline(evidence, found)
    data = [
        _step_trace(evidence, score, colour, 1.2, "dot")
        for score, colour in zip(found.baselines, (GREY, PURPLE, GREEN, RED, GREY), strict=False)
        if score is not best
    ]
    if best is not None:
        data.append(_step_trace(evidence, best, ORANGE, 1.8, "dash"))
    data.append(_step_trace(evidence, found.model, BLUE, 2.6, "solid"))
    caption = (
        "How the error grows with the distance of the step that is forecast; where the blue line "
        "meets a baseline's, the model adds nothing at that distance; a double click shows the "
        "baselines far above."
    )
    layout = {
        "xaxis": {"title": {"text": "step of the horizon"}},
        "yaxis": {"title": {"text": evidence.metric_name}, "range": _step_reach(data)},
    }
    return Figure("By step of the horizon", caption, data, layout, 380)


def _step_trace(
    evidence: Evidence, score: TestScore, colour: str, width: float, dash: str
) -> dict[str, Any]:
    values = [evidence.metric_of_row(row) for row in score.by_step]
    return _line(score.name, range(1, len(values) + 1), values, colour, width, dash)


def _step_reach(traces: Sequence[Mapping[str, Any]]) -> list[float]:
    """From zero to the model and what lies near it: the last trace is the model's."""
    *others, model = ([value for value in trace["y"] if value is not None] for trace in traces)
    reach, _ = framed(model or [1.0], [max(other) for other in others if other])
    return [0.0, reach[1]]


def _bars(heading: str, unit: str, values: Mapping[str, float]) -> Figure:
    data = [
        {
            "type": "bar",
            "x": [label(name) for name in values],
            "y": [float(f"{value:.6g}") for value in values.values()],
            "hovertemplate": "%{x}: %{y:.4f}<extra></extra>",
            "marker": {"color": BLUE},
        }
    ]
    layout = {
        "xaxis": {"type": "category", "title": {"text": unit}},
        "yaxis": {"rangemode": "tozero"},
        "showlegend": False,
    }
    return Figure(heading, "", data, layout, 280)


def residuals(evidence: Evidence) -> Section:
    """Whether the errors still hold something to be forecast."""
    anchor, title = "residuals", "What the errors still hold"
    found = evidence.verdict
    if found is None:
        return Section(anchor, title, [missing(SEALED)])
    correlations = found.inspection.residual_autocorrelation
    if not correlations:
        return Section(anchor, title, [missing("Too few windows for an autocorrelation.")])
    bound = found.inspection.autocorrelation_bound
    limits = [] if bound is None else [bound, -bound]
    data = [
        {
            "type": "bar",
            "x": list(range(1, len(correlations) + 1)),
            "y": [float(f"{value:.4g}") for value in correlations],
            "hovertemplate": "lag %{x}: %{y:.3f}<extra></extra>",
            "marker": {"color": BLUE},
        }
    ]
    caption = (
        "The correlation of one-step errors with those some steps before; bars beyond the dashed "
        "lines (95 % of white noise stays within) are patterns that the model has missed."
    )
    dashed = {"type": "line", "xref": "paper", "x0": 0, "x1": 1}
    dashed |= {"line": {"color": ORANGE, "width": 1.5, "dash": "dash"}}
    layout = {
        "xaxis": {"title": {"text": "lag in steps"}},
        "yaxis": {"title": {"text": "autocorrelation"}},
        "shapes": [dashed | {"y0": limit, "y1": limit} for limit in limits],
        "showlegend": False,
    }
    return Section(anchor, title, [Figure("", caption, data, layout, 300)])
