"""The page: its sections in their order, drawn from the record and written as one file."""

import os
from collections.abc import Callable
from pathlib import Path

from search.config import SearchConfig
from search.places import weights_folder
from search.report import (
    basis,
    choices,
    costs,
    course,
    errors,
    grid,
    layers,
    outcome,
    parallel,
    time_spent,
)
from search.report.evidence import Evidence, read_evidence
from search.report.markup import document
from search.report.parts import Section

PAGE = "report.html"

SECTIONS: tuple[Callable[[Evidence], Section | None], ...] = (
    outcome.verdict,
    outcome.leaders,
    grid.grid,
    course.history,
    course.curves,
    layers.layers,
    choices.importance,
    choices.slices,
    parallel.parallel,
    costs.costs,
    errors.forecasts,
    errors.steps,
    errors.residuals,
    basis.data,
    time_spent.time,
    basis.settings,
)
"""One that has no place in this study returns None; one without data says why it is empty."""


def write_report(config: SearchConfig, study: str, out: Path | None = None) -> Path:
    """Write the page of a study, in place of an older one, and return its path.

    Args:
        config: where the record lies.
        study: its name.
        out: the file; None: `report.html` beside the study's weights.

    Raises:
        UnknownStudyError: where there is no such study, or its record cannot be read.
        OSError: where the file cannot be written.
    """
    evidence = read_evidence(config, study)
    out = out or weights_folder(config, study) / PAGE
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        unfinished.write_text(page(evidence), encoding="utf-8")
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
    return out


def page(evidence: Evidence) -> str:
    """The page as HTML."""
    sections = [found for section in SECTIONS if (found := section(evidence)) is not None]
    return document(f"Study {evidence.name}", basis.in_a_line(evidence), sections)
