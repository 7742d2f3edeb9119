"""What a grid has found, as tables in the terminal."""

from rich.console import Console
from rich.table import Table

from search.config import Metric
from search.factors import (
    CONFIDENCE,
    EQUAL_PARAMETERS,
    Combination,
    Factor,
    Findings,
    findings_of,
    shown,
    title,
    varied,
)
from search.progress import METRIC_NAMES
from search.result import SearchResult
from search.screen import say

NUM_SHOWN = 20


def print_findings(result: SearchResult, console: Console) -> None:
    """Print the means of a grid: by combination, by factor, and at equal parameter counts."""
    findings = findings_of(result.trials)
    metric = result.config.search.metric
    if findings.combinations:
        console.print(_combinations_table(findings, metric))
    else:
        say(console, "no seed has been trained with every combination yet")
    if findings.factors:
        console.print(_factors_table(findings.factors))
        if not all(factor.is_matched for factor in findings.factors):
            say(
                console,
                "*  other settings differ too: no two values were tried with all else equal",
            )
    if findings.contrasts:
        console.print(_contrasts_table(findings))
    for line in findings.left_out:
        say(console, f"not averaged: {line}")


def _combinations_table(findings: Findings, metric: Metric) -> Table:
    best = findings.combinations[:NUM_SHOWN]
    num = len(findings.combinations)
    heading = f"The best {len(best)} of {num} combinations" if len(best) < num else "The grid"
    seeds = (
        "of one seed"
        if findings.num_seeds == 1
        else (f"means over {findings.num_seeds} seeds ± {CONFIDENCE:.0%} t-intervals")
    )
    names = varied(findings.combinations)
    unit = "" if metric == "mase" else " (standardised)"
    table = _table(f"{heading}, {seeds}")
    for name in names:
        table.add_column(title(name))
    table.add_column("parameters", justify="right")
    table.add_column(f"{METRIC_NAMES[metric]}{unit}")
    table.add_column("behind the best")
    for combination in best:
        table.add_row(
            *_settings_shown(combination, names),
            f"{combination.num_parameters:,}",
            str(combination.interval),
            "" if combination is best[0] else str(findings.behind_best(combination)),
        )
    return table


def _settings_shown(combination: Combination, names: list[str]) -> list[str]:
    return [shown(name, combination.settings[name]) for name in names]


def _factors_table(factors: tuple[Factor, ...]) -> Table:
    table = _table("What each choice bought, at equal steps and seeds")
    for heading in ("factor", "value", "combinations", "mean", "behind the best"):
        table.add_column(heading, justify="right" if heading == "combinations" else "left")
    for factor in factors:
        mark = "" if factor.is_matched else " *"
        for level in factor.levels:
            behind = "" if level.behind_best.mean == 0 else str(level.behind_best)
            cells = level.name, str(level.num_combinations), str(level.interval), behind
            table.add_row(f"{factor.name}{mark}", *cells)
        table.add_section()
    return table


def _contrasts_table(findings: Findings) -> Table:
    shown_contrasts = findings.contrasts[:NUM_SHOWN]
    more = len(findings.contrasts) - len(shown_contrasts)
    heading = f"At equal parameter counts (within {EQUAL_PARAMETERS - 1:.0%})"
    table = _table(heading + (f"; {more} more are not shown" if more else ""))
    headings = "factor", "first", "second", "pairs", "parameters", "first", "second"
    for column in (*headings, "second − first"):
        table.add_column(column, justify="right" if column == "pairs" else "left")
    for contrast in shown_contrasts:
        fewest, most = contrast.num_parameters
        table.add_row(
            contrast.factor,
            *contrast.names,
            str(contrast.num_pairs),
            f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}",
            *map(str, contrast.intervals),
            str(contrast.difference),
        )
    return table


def _table(heading: str) -> Table:
    return Table(title=heading, title_justify="left")
