"""What a grid found: means over its seeds, by combination, by factor, at equal parameters."""

from collections.abc import Sequence
from typing import Any

from search.factors import (
    CONFIDENCE,
    EQUAL_PARAMETERS,
    Combination,
    Contrast,
    Factor,
    Findings,
    Interval,
    findings_of,
    shown,
    title,
    varied,
)
from search.names import FINALISTS
from search.report.evidence import Evidence
from search.report.parts import (
    BLUE,
    Figure,
    Group,
    Part,
    Section,
    Table,
    Text,
    label,
    missing,
    plural,
    rounded,
)

MOST_COMBINATIONS = 50
MOST_CONTRASTS = 100


def grid(evidence: Evidence) -> Section | None:
    """The means and their differences; None of a study that is no grid."""
    is_grid = evidence.config.get("search", {}).get("sampler") == "grid"
    if not is_grid or evidence.name.endswith(FINALISTS):  # those differ in origins too
        return None
    anchor, heading = "grid", "The grid: means over seeds"
    findings = findings_of(evidence.trials)
    if not findings.combinations:
        why = "No seed has been trained with every combination yet."
        return Section(anchor, heading, [missing(why), *_left_out(findings)])
    parts: list[Part] = [Text(_in_words(evidence, findings)), *_combinations(evidence, findings)]
    if findings.factors:
        parts += [_factor_figures(evidence, findings.factors), _factor_table(findings.factors)]
    if findings.contrasts:
        parts.append(_contrast_table(findings.contrasts))
    return Section(anchor, heading, [*parts, *_left_out(findings)])


def _in_words(evidence: Evidence, findings: Findings) -> str:
    best, *others = findings.combinations
    names = varied(findings.combinations)
    count = plural(len(findings.combinations), "combination")
    text = f"{count}, each trained with {plural(findings.num_seeds, 'seed')}, the same for all. "
    text += f"The lowest mean {evidence.metric_name}: {best.interval}"
    text += f", of {_named(best, names)}. " if names else ". "
    if findings.num_seeds > 1 and others:
        behind = sum(findings.behind_best(other).excludes_zero for other in others)
        text += (
            f"Of the other {len(others)}, {behind or 'none'} lie behind it by more than the seeds "
            f"explain: with a {CONFIDENCE:.0%} interval of the difference that excludes zero. "
        )
    lead = "The best of many is partly lucky, so its lead over them is rather too large."
    return text + (lead if others else "")


def _named(combination: Combination, names: Sequence[str]) -> str:
    return ", ".join(f"{title(name)} {shown(name, combination.settings[name])}" for name in names)


def _combinations(evidence: Evidence, findings: Findings) -> list[Part]:
    best = findings.combinations[:MOST_COMBINATIONS]
    names = varied(findings.combinations)
    rows = [
        [
            *(shown(name, combination.settings[name]) for name in names),
            f"{combination.num_parameters:,}",
            str(combination.interval),
            "" if combination is best[0] else str(findings.behind_best(combination)),
        ]
        for combination in best
    ]
    which = "" if len(best) == len(findings.combinations) else f" The best {len(best)} are shown."
    caption = (
        f"Means over the seeds ± half of the {CONFIDENCE:.0%} t-interval. Behind the best: the "
        "difference seed by seed, from which what a seed does to both drops out, so its interval "
        f"can be much narrower.{which}"
    )
    header = [*map(title, names), "parameters", evidence.metric_name, "behind the best"]
    return [Table(caption, header, rows, frozenset({0}))]


def _factor_figures(evidence: Evidence, factors: Sequence[Factor]) -> Group:
    caption = (
        f"How far each value of a choice is behind its best one in {evidence.metric_name}, at "
        "equal steps and seeds, averaged over all combinations that have it: further left is "
        "better, and a line that reaches zero may be chance."
    )
    return Group(caption, [_factor_figure(factor) for factor in factors])


def _factor_figure(factor: Factor) -> Figure:
    behind = [level.behind_best for level in factor.levels]
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "marker": {"color": BLUE, "size": 9},
        "x": [rounded(interval.mean) for interval in behind],
        "y": [label(level.name) for level in factor.levels],
        "error_x": {"type": "data", "array": _half_widths(behind), "color": BLUE},
        "hovertemplate": "%{y}: %{x:.4f} behind<extra></extra>",
    }
    layout = {
        "xaxis": {"title": {"text": "behind the best"}, "zeroline": True},
        "yaxis": {"type": "category", "autorange": "reversed", "automargin": True},
        "showlegend": False,
    }
    mark = "" if factor.is_matched else " *"
    return Figure(f"{factor.name}{mark}", "", [trace], layout, 130 + 34 * len(behind))


def _half_widths(intervals: Sequence[Interval]) -> list[float]:
    """As a figure holds them: of a single seed there is no line."""
    return [rounded(i.half_width) if i.half_width >= 0 else 0.0 for i in intervals]


def _factor_table(factors: Sequence[Factor]) -> Table:
    rows = [
        [
            factor.name + ("" if factor.is_matched else " *"),
            level.name,
            str(level.num_combinations),
            str(level.interval),
            "" if level.behind_best.mean == 0 else str(level.behind_best),
        ]
        for factor in factors
        for level in factor.levels
    ]
    caption = "At equal steps: the mean over the combinations that have the value."
    if not all(factor.is_matched for factor in factors):
        caption += (
            " *: other settings differ too, since no two values of it were tried with all else "
            "equal."
        )
    header = ["choice", "value", "combinations", "mean", "behind the best"]
    return Table(caption, header, rows)


def _contrast_table(contrasts: Sequence[Contrast]) -> Table:
    rows = [
        [
            contrast.factor,
            *contrast.names,
            str(contrast.num_pairs),
            f"{contrast.num_parameters[0]:,} to {contrast.num_parameters[1]:,}",
            *map(str, contrast.intervals),
            str(contrast.difference),
        ]
        for contrast in contrasts[:MOST_CONTRASTS]
    ]
    more = len(contrasts) - len(rows)
    caption = (
        "At equal parameter counts: pairs of combinations whose counts lie within "
        f"{EQUAL_PARAMETERS - 1:.0%} of each other and that are equal in all but their layers."
        + (f" {more:,} more are left out." if more else "")
    )
    header = ["choice", "first", "second", "pairs", "parameters"]
    return Table(caption, [*header, "mean of first", "of second", "second − first"], rows)


def _left_out(findings: Findings) -> list[Part]:
    return [Text(f"Not averaged: {line}.", "warning") for line in findings.left_out]
