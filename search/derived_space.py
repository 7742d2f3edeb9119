"""The dimensions that the table decides: lookback, patches, normalisation, skips, calendar."""

import math

from models.config import Normalisation, Skip
from search.dimensions import Choice, Int
from search.space import Space


def derive(
    space: Space,
    season: int,
    num_train_rows: int,
    horizon: int,
    has_calendar: bool,
    num_targets: int = 1,
) -> tuple[Space, tuple[str, ...]]:
    """Fill the dimensions that depend on the table.

    Returns:
        The space without any `null`, and what was narrowed, for the person who searches.
    """
    lookback, notes = space.lookback, []
    if lookback is None:
        lookbacks = _lookbacks(season, num_train_rows, horizon)
        lookback = Choice[int](choices=lookbacks)
        if len(lookbacks) < len(_LOOKBACK_PERIODS):
            shown = ", ".join(str(rows) for rows in lookbacks)
            has_few_rows = _longest_lookback(num_train_rows, horizon) < _LONGEST_DEFAULT_LOOKBACK
            why = f"{num_train_rows} rows to train on" if has_few_rows else "longer ones cost much"
            notes.append(f"lookback narrowed to {shown} rows: {why}")
    period = base_period(season)
    grid = _common_divisor(lookback)
    patches = {1, *(p for p in (period // 6, period // 2, period) if p > 0 and grid % p == 0)}
    normalisations: tuple[Normalisation, ...] = ("last", "mean_std", "none")
    if season > 1 and _smallest(lookback) >= season:
        normalisations += ("seasonal",)
    skips: tuple[Skip, ...] = ("shared", "none")
    if num_targets > 1:
        skips = ("per_target", *skips)
    derived = {
        "linear_skip": space.linear_skip or Choice[Skip](choices=skips),
        "lookback": lookback,
        "patch_length": space.patch_length or Choice[int](choices=tuple(sorted(patches))),
        "normalisation": space.normalisation or Choice[Normalisation](choices=normalisations),
        "calendar": space.calendar or Choice[bool](choices=(True, False)),
    }
    if not has_calendar:
        derived["calendar"] = Choice[bool](choices=(False,))
        if space.calendar is not None and space.calendar.contains(True):
            notes.append("calendar narrowed to false: the table has no calendar features")
    return space.model_copy(update=derived), tuple(notes)


_LOOKBACK_PERIODS = (2, 4, 7, 14)
_LONGEST_DEFAULT_LOOKBACK = 400  # an LSTM's cost grows with every row it reads


def base_period(season: int) -> int:
    """Rows by which lookbacks and patches are measured: the season, or 8 where there is none."""
    return season if season > 1 else 8


def _lookbacks(season: int, num_train_rows: int, horizon: int) -> tuple[int, ...]:
    period = base_period(season)
    longest = _longest_lookback(num_train_rows, horizon)
    fitting = [periods * period for periods in _LOOKBACK_PERIODS]
    fitting = [rows for rows in fitting if rows <= min(longest, _LONGEST_DEFAULT_LOOKBACK)]
    return tuple(fitting) or (min(period, longest),)


def _longest_lookback(num_train_rows: int, horizon: int) -> int:
    return max(1, (num_train_rows - horizon) // 3)  # leaves two thirds for training windows


def _common_divisor(lookback: Int | Choice[int]) -> int:
    if isinstance(lookback, Choice):
        return math.gcd(*lookback.choices)
    return math.gcd(lookback.low, lookback.step or 1)


def _smallest(lookback: Int | Choice[int]) -> int:
    return min(lookback.choices) if isinstance(lookback, Choice) else lookback.low
