"""The page's section on a grid."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from models.config import LSTMConfig
from pipelines.training_config import TrainConfig
from search.record import TrialRecord, TrialState
from search.report.evidence import Evidence
from search.report.grid import grid
from search.report.page import page
from search.report.parts import Figure, Group, Section, Table, Text
from search.space import TrialConfig

MakeEvidence = Callable[..., Evidence]

IS_GRID = {"search": {"sampler": "grid"}}
# By widths, direction and seed; [8] in both directions has as many parameters as [4, 4] in both.
VALUES: dict[tuple[tuple[int, ...], bool], Sequence[float]] = {
    ((8,), False): (0.30, 0.50),
    ((8,), True): (0.20, 0.40),
    ((4, 4), False): (0.31, 0.52),
    ((4, 4), True): (0.21, 0.43),
}
COUNTS = {((8,), False): 500, ((8,), True): 1000, ((4, 4), False): 300, ((4, 4), True): 1100}


@pytest.fixture
def section_of(make_evidence: MakeEvidence) -> Callable[..., Section]:
    def draw(trials: Sequence[TrialRecord], **changes: Any) -> Section:
        section = grid(make_evidence(trials=trials, config=IS_GRID, **changes))
        assert section is not None
        return section

    return draw


@pytest.mark.parametrize(
    ("changes"),
    [
        {},
        {"config": {"search": {"sampler": "tpe"}}},
        {"config": IS_GRID, "name": "small.finalists"},
    ],
)
def test_a_study_that_is_no_grid_has_no_such_section(
    make_evidence: MakeEvidence, changes: dict[str, Any]
) -> None:
    assert grid(make_evidence(**changes)) is None


def test_combinations_are_listed_with_their_means_and_what_they_are_behind(
    section_of: Callable[..., Section],
) -> None:
    table = tables(section_of(runs()))[0]
    assert table.header == [
        "widths", "direction", "parameters", "MAE (standardised)", "behind the best"
    ]  # fmt: skip
    assert [row[:3] for row in table.rows] == [
        ["8", "both", "1,000"],
        ["4-4", "both", "1,100"],
        ["8", "one", "500"],
        ["4-4", "one", "300"],
    ]
    assert [row[3].split(" ± ")[0] for row in table.rows] == [
        "0.3000", "0.3200", "0.4000", "0.4150"
    ]  # fmt: skip
    assert table.rows[0][4] == ""
    assert table.rows[2][4] == "0.1000 ± 0.0000"  # the same with each seed


def test_it_says_how_many_lie_behind_by_more_than_the_seeds_explain(
    section_of: Callable[..., Section],
) -> None:
    words = texts(section_of(runs()))[0]
    assert words.startswith("4 combinations, each trained with 2 seeds, the same for all. ")
    assert "of widths 8, direction both. Of the other 3, 2 lie behind it" in words


def test_each_factor_is_drawn_and_listed(section_of: Callable[..., Section]) -> None:
    section = section_of(runs())
    [group] = [part for part in section.parts if isinstance(part, Group)]
    figures: dict[str, Figure] = {figure.title: figure for figure in group.figures}
    assert set(figures) == {"widths", "hidden size *", "depth *", "direction"}
    [direction] = figures["direction"].data
    assert direction["y"] == ["one", "both"]
    assert direction["x"] == pytest.approx([0.0975, 0.0])
    assert ["direction", "both", "2"] in [list(row[:3]) for row in tables(section)[1].rows]


def test_what_has_as_many_parameters_is_compared_apart(
    section_of: Callable[..., Section],
) -> None:
    rows = [row for row in tables(section_of(runs()))[2].rows if row[0] == "widths"]
    assert [list(row[:5]) for row in rows] == [["widths", "4-4", "8", "1", "1,000 to 1,100"]]
    assert rows[0][-1] == "-0.0200 ± 0.1271"


def test_a_grid_of_one_seed_has_means_without_intervals(
    section_of: Callable[..., Section],
) -> None:
    section = section_of(runs(num_seeds=1))
    assert "±" not in "".join(cell for row in tables(section)[0].rows for cell in row)
    assert "lie behind" not in texts(section)[0]


def test_a_single_combination_is_not_called_the_best_of_many(
    section_of: Callable[..., Section],
) -> None:
    section = section_of(runs()[:2])
    assert "partly lucky" not in texts(section)[0]
    assert len(tables(section)) == 1


def test_a_grid_that_has_no_result_yet_says_so(section_of: Callable[..., Section]) -> None:
    [text] = texts(section_of([]))
    assert text == "No seed has been trained with every combination yet."


def test_the_page_of_a_grid_holds_the_section(make_evidence: MakeEvidence) -> None:
    shown = page(make_evidence(trials=runs(), config=IS_GRID))
    assert '<section id="grid">' in shown
    assert "<td>4-4</td>" in shown


def tables(section: Section) -> list[Table]:
    return [part for part in section.parts if isinstance(part, Table)]


def texts(section: Section) -> list[str]:
    return [part.text for part in section.parts if isinstance(part, Text)]


def runs(num_seeds: int = 2) -> list[TrialRecord]:
    training = TrainConfig(
        lookback=12, calendar=False, learning_rate=1e-3, weight_decay=0.0, batch_size=32
    )
    found: list[TrialRecord] = []
    for (widths, both), by_seed in VALUES.items():
        model = LSTMConfig(widths=widths, bidirectional=both)
        for seed, value in enumerate(by_seed[:num_seeds]):
            found.append(
                TrialRecord(
                    number=len(found),
                    state=TrialState.COMPLETE,
                    config=TrialConfig(model=model, training=training),
                    seed=seed,
                    params={"bidirectional": both},
                    num_parameters=COUNTS[widths, both],
                    value=value,
                    started_at=1_790_000_000.0 + len(found),
                    ended_at=1_790_000_001.0 + len(found),
                )
            )
    return found
