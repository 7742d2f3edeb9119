"""What the table decides of a search space."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.splits import SearchData
from pipelines.training_config import TrainingBudget
from search.derived_space import derive
from search.dimensions import Choice, Dimension, Value
from search.limits import Limits
from search.space import Space

MakeData = Callable[..., SearchData]

TABLES = {
    "hourly": (24, 6000, 24, True),
    "daily": (7, 1000, 7, True),
    "300 monthly rows": (12, 210, 12, True),
    "business days": (5, 1750, 5, True),
    "no season": (1, 500, 10, True),
    "row order": (1, 500, 10, False),
    "minutes": (1440, 40000, 60, True),
    "tiny": (24, 40, 10, True),
    "one window": (24, 11, 10, False),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_combination_that_is_derived_fits_the_table(
    table: tuple[int, int, int, bool], make_data: MakeData
) -> None:
    season, num_train_rows, horizon, has_calendar = table
    space, _ = derive(Space(), season, num_train_rows, horizon, has_calendar)
    data = make_data(
        num_rows=num_train_rows * 3 // 2 + 1,
        num_train_rows=num_train_rows,
        season=season,
        horizon=horizon,
    )
    limits = Limits(data, 10**9, None)
    names = ("lookback", "patch_length", "normalisation", "calendar")
    for values in product(*(getattr(space, name).choices for name in names)):
        chosen = zip(names, values, strict=True)
        one = space.model_copy(update={name: Choice[Any](choices=(v,)) for name, v in chosen})
        config = one.config_at(one.draw(first_value), TrainingBudget())
        assert limits.why_refused(config) is None


def first_value(_: str, dimension: Dimension) -> Value:
    value: Value = dimension.choices[0] if isinstance(dimension, Choice) else dimension.low
    return value


@given(
    season=st.integers(1, 2000),
    horizon=st.integers(1, 300),
    num_windows=st.integers(1, 20000),
    has_calendar=st.booleans(),
)
def test_what_is_derived_fits_any_table(
    season: int, horizon: int, num_windows: int, has_calendar: bool
) -> None:
    num_train_rows = horizon + num_windows
    space, notes = derive(Space(), season, num_train_rows, horizon, has_calendar)
    lookbacks, patches = space.lookback.choices, space.patch_length.choices
    assert max(lookbacks) + horizon <= num_train_rows
    assert all(lookback % patch == 0 for lookback, patch in product(lookbacks, patches))
    assert 1 in patches
    if "seasonal" in space.normalisation.choices:
        assert season > 1
        assert min(lookbacks) >= season
    assert space.calendar.choices == ((True, False) if has_calendar else (False,))
    assert (len(lookbacks) < 4) == any(note.startswith("lookback narrowed") for note in notes)


@pytest.mark.parametrize(
    ("table", "lookbacks", "patches", "is_seasonal"),
    [
        ("hourly", (48, 96, 168, 336), (1, 4, 12, 24), True),
        ("daily", (14, 28, 49, 98), (1, 7), True),
        ("300 monthly rows", (24, 48), (1, 2, 6, 12), True),
        ("business days", (10, 20, 35, 70), (1, 5), True),
        ("no season", (16, 32, 56, 112), (1, 4, 8), False),
        ("minutes", (1440,), (1, 240, 720, 1440), True),
        ("tiny", (10,), (1,), False),
        ("one window", (1,), (1,), False),
    ],
)
def test_the_defaults_derive_from_season_and_rows(
    table: str, lookbacks: tuple[int, ...], patches: tuple[int, ...], is_seasonal: bool
) -> None:
    space, _ = derive(Space(), *TABLES[table])
    assert space.lookback == Choice[int](choices=lookbacks)
    assert space.patch_length == Choice[int](choices=patches)
    assert space.normalisation is not None
    assert space.normalisation.contains("seasonal") == is_seasonal


def test_a_map_for_each_target_is_open_where_there_are_several() -> None:
    one, _ = derive(Space(), *TABLES["hourly"])
    several, _ = derive(Space(), *TABLES["hourly"], num_targets=3)
    assert one.linear_skip == Choice[Any](choices=("shared", "none"))
    assert several.linear_skip == Choice[Any](choices=("per_target", "shared", "none"))


def test_what_was_narrowed_is_said_with_its_reason() -> None:
    _, notes = derive(Space(), *TABLES["hourly"])
    assert notes == ()
    _, notes = derive(Space(), *TABLES["300 monthly rows"])
    assert notes == ("lookback narrowed to 24, 48 rows: 210 rows to train on",)
    _, notes = derive(Space(), season=96, num_train_rows=20000, horizon=96, has_calendar=True)
    assert notes == ("lookback narrowed to 192, 384 rows: longer ones cost much",)
    wants_calendar = Space(calendar=Choice[bool](choices=(True,)))
    _, notes = derive(wants_calendar, *TABLES["row order"])
    assert notes == ("calendar narrowed to false: the table has no calendar features",)


def test_what_the_user_gave_is_not_derived_anew() -> None:
    chosen = Space.model_validate(
        {
            "lookback": {"low": 20, "high": 60, "step": 4},
            "patch_length": 2,
            "normalisation": "mean_std",
            "linear_skip": "none",
            "calendar": False,
        }
    )
    assert derive(chosen, *TABLES["hourly"]) == (chosen, ())


@pytest.mark.parametrize(
    ("lookback", "patches"),
    [
        ({"low": 24, "high": 96, "step": 12}, (1, 4, 12)),
        ({"low": 24, "high": 96}, (1,)),
        ({"low": 24, "high": 96, "log": True}, (1,)),
        (48, (1, 4, 12, 24)),
    ],
)
def test_the_patches_divide_every_lookback_of_the_users_range(
    lookback: Any, patches: tuple[int, ...]
) -> None:
    space, _ = derive(Space.model_validate({"lookback": lookback}), *TABLES["hourly"])
    assert space.patch_length == Choice[int](choices=patches)


def test_a_lookback_of_less_than_a_season_leaves_the_seasonal_normalisation_out() -> None:
    short = Space.model_validate({"lookback": {"choices": [48, 12]}})
    space, _ = derive(short, *TABLES["hourly"])
    assert space.normalisation == Choice(choices=("last", "mean_std", "none"))
