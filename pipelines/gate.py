"""Whether a model may be used: it has to beat every baseline surely, and today's champion."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.comparison import LEAST_BLOCKS
from pipelines.verdict import Comparison


def judge(
    comparisons: Sequence[Comparison], champion: Comparison | None = None
) -> tuple[bool, str]:
    """Return whether the model passes, and why so in words.

    Args:
        comparisons: With every baseline, at least one.
        champion: With the model in use; None where there is none to compare with.
    """
    # The hardest to beat decides what is said.
    beaten_by = [c for c in comparisons if c.skill is None or c.skill <= 0]
    if beaten_by:
        hardest = min(beaten_by, key=_skill)
        if hardest.skill is None:
            return False, f"no LSTM beat {hardest.opponent} here: its error is 0"
        more = f"the model's error is {_percent(abs(hardest.skill))} higher"
        return False, f"no LSTM beat {hardest.opponent} here: {more}"
    hardest = min(comparisons, key=_skill)
    margin = f"{hardest.opponent}, the best of them, by {_percent(_skill(hardest))}"
    if any(c.num_blocks < LEAST_BLOCKS for c in comparisons):
        return False, (
            f"the test part is too short for an interval: {hardest.num_blocks} blocks of "
            f"{hardest.block_length} windows, {LEAST_BLOCKS} are needed; the model beats every "
            f"baseline, {margin}, but that may be chance"
        )
    least_sure = min(comparisons, key=_lower)
    if least_sure.lower is None:
        return False, f"not surely better than {least_sure.opponent}: {least_sure.note}"
    if least_sure.lower <= 0:
        return False, (
            f"not surely better than {least_sure.opponent}: better by "
            f"{_percent(_skill(least_sure))}, but the interval begins at "
            f"{_percent(least_sure.lower)}"
        )
    if champion is not None and (champion.skill is None or champion.skill < 0):
        return False, f"it beats every baseline, {margin}, but not today's champion"
    sure = f"surely by {_percent(least_sure.lower)} against {least_sure.opponent}"
    return True, f"it beats every baseline: {margin}; {sure}"


def _skill(comparison: Comparison) -> float:
    return float("-inf") if comparison.skill is None else comparison.skill


def _lower(comparison: Comparison) -> float:
    return float("-inf") if comparison.lower is None else comparison.lower


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
