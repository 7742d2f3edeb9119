"""The grid: which runs it holds, and a whole one from the command line."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.splits import SearchData
from search.config import ConfigError, SearchConfig
from search.config_file import parse_config, read_yaml
from search.derived_space import derive
from search.dimensions import Choice, Float, Int
from search.facts import identity_of
from search.grid import MAX_RUNS, Grid, paired_seeds, plan_grid
from search.record import TrialState
from search.resolve import resolve
from search.space import Space
from search.stored_studies import read_study
from search.studies import overview

MakeData = Callable[..., SearchData]

PATIENCE_SECONDS = 400

EXAMPLES = Path(__file__).parents[2] / "examples"

# All but the layers.
FIXED: dict[str, Any] = {
    "bidirectional": False,
    "dropout": 0.0,
    "normalisation": "last",
    "linear_skip": "shared",
    "head": "last_state",
    "calendar": False,
    "patch_length": 1,
    "lookback": 12,
    "learning_rate": 1e-3,
    "batch_size": 16,
    "weight_decay": 1e-3,
}
CELLS = [[8], [4, 4], [4, 8]]


@pytest.fixture
def grid_of(make_data: MakeData) -> Callable[..., Grid]:
    """The grid of a space in which all but what is named is fixed."""

    def plan(search: dict[str, Any] | None = None, **space: Any) -> Grid:
        named = FIXED | {"widths": CELLS} | space
        tree = {"space": named, "search": {"sampler": "grid"} | (search or {})}
        config, _ = resolve(parse_config(tree), make_data())
        return plan_grid(config, make_data())

    return plan


def widths_of(grid: Grid) -> list[tuple[tuple[int, ...], bool]]:
    return [(run.config.model.widths, run.config.model.bidirectional) for run in grid.runs]


# Which runs


def test_width_lists_and_directions_make_every_combination_once(
    grid_of: Callable[..., Grid],
) -> None:
    grid = grid_of(bidirectional={"choices": [False, True]})
    assert widths_of(grid) == [
        (widths, both) for widths in ((8,), (4, 4), (4, 8)) for both in (False, True)
    ]
    assert grid.notes == ("grid: 6 combinations (widths 3, bidirectional 2) × 1 seed = 6 runs",)


def test_every_combination_is_repeated_with_the_same_seeds(grid_of: Callable[..., Grid]) -> None:
    grid = grid_of({"repeats": 3, "seed": 5})
    seeds = paired_seeds(5, 3)
    assert len(set(seeds)) == 3
    assert [run.seed for run in grid.runs] == [seed for seed in seeds for _ in CELLS]
    assert Counter(run.config for run in grid.runs) == dict.fromkeys(
        (run.config for run in grid.runs), 3
    )
    assert "× 3 seeds = 9 runs" in grid.notes[0]


def test_more_repeats_keep_the_first_seeds_and_another_study_seed_changes_all() -> None:
    assert paired_seeds(0, 5)[:3] == paired_seeds(0, 3)
    assert not set(paired_seeds(0, 3)) & set(paired_seeds(1, 3))


def test_what_depends_on_the_number_of_layers_is_tried_only_where_it_applies(
    grid_of: Callable[..., Grid],
) -> None:
    grid = grid_of(
        widths=None,
        num_layers={"low": 1, "high": 2},
        hidden_size={"choices": [4, 8]},
        width={"low": 4, "high": 8, "step": 4},
    )
    # One layer: 4 and 8. Two: 4 × 4 and 8 × 8 in either shape, so once, then 4-8 and 8-4.
    assert sorted(widths for widths, _ in widths_of(grid)) == [
        (4,), (4, 4), (4, 8), (8,), (8, 4), (8, 8)
    ]  # fmt: skip


def test_a_step_a_short_range_and_a_choice_are_gone_through_to_the_end(
    grid_of: Callable[..., Grid],
) -> None:
    grid = grid_of(
        widths=[[4]],
        dropout={"low": 0.0, "high": 0.3, "step": 0.1},
        batch_size={"low": 14, "high": 16},
        learning_rate={"choices": [1e-3, 1e-2]},
    )
    assert len(grid.runs) == 4 * 3 * 2
    assert {run.config.model.dropout for run in grid.runs} == {0.0, 0.1, 0.2, 0.3}


def test_combinations_that_cannot_be_trained_are_left_out_with_the_reason(
    grid_of: Callable[..., Grid],
) -> None:
    grid = grid_of(lookback={"choices": [12, 14]}, patch_length={"choices": [1, 4]})
    assert len(grid.runs) == 3 * 3
    assert "9 combinations (widths 3, patch_length 2, lookback 2)" in grid.notes[0]
    assert grid.left_out == tuple(
        f"widths {widths}, patch_length 4, lookback 14: lookback must be a multiple of "
        "patch_length: got lookback=14 and patch_length=4; change one of them"
        for widths in ("8", "4-4", "4-8")
    )
    assert grid.notes[1:] == (
        "left out: 3 combinations cannot be trained",
        *(f"left out: {reason}" for reason in grid.left_out),
    )


def test_a_combination_beyond_a_limit_is_left_out_with_that_limit(
    grid_of: Callable[..., Grid],
) -> None:
    grid = grid_of({"max_parameters": 500}, widths=[[4], [16]])
    assert widths_of(grid) == [((4,), False)]
    [reason] = grid.left_out
    assert re.fullmatch(r"widths 16: [\d,]+ parameters exceed search\.max_parameters=500", reason)


def test_of_many_that_are_left_out_the_first_are_named(grid_of: Callable[..., Grid]) -> None:
    lookbacks = list(range(12, 28))  # of which 12, 16, 20 and 24 are multiples of 4
    grid = grid_of(widths=[[4]], lookback={"choices": lookbacks}, patch_length=4)
    assert len(grid.runs) == 4
    assert len(grid.left_out) == 12
    assert len(grid.notes) == 1 + 1 + 10 + 1
    assert grid.notes[-1] == "left out: 2 more, for such reasons"


def test_a_total_of_trials_is_said_not_to_apply(grid_of: Callable[..., Grid]) -> None:
    assert "search.trials=7 does not apply to a grid" in grid_of({"trials": 7}).notes


def test_a_pruner_is_dropped_and_that_is_said(make_data: MakeData) -> None:
    tree = {"space": FIXED | {"widths": CELLS}, "search": {"sampler": "grid", "pruner": "asha"}}
    config, notes = resolve(parse_config(tree), make_data())
    assert config.search.pruner == "none"
    assert "no run of a grid is stopped early: they compare at equal steps" in notes


# What is refused


def test_ranges_without_a_list_of_values_are_refused_all_at_once(
    grid_of: Callable[..., Grid],
) -> None:
    with pytest.raises(ConfigError, match="a grid needs a list of the values") as caught:
        grid_of(
            widths=None,
            num_layers=2,
            hidden_size={"low": 16, "high": 256, "log": True},
            width={"choices": [4, 8]},
            learning_rate={"low": 1e-4, "high": 1e-2, "log": True},
        )
    shown = str(caught.value)
    assert "got hidden_size from 16 to 256, learning_rate from 0.0001 to 0.01; " in shown
    assert "(space.hidden_size=16)" in shown
    assert "width from" not in shown


def test_a_dimension_that_never_applies_needs_no_list(grid_of: Callable[..., Grid]) -> None:
    grid = grid_of(widths=None, num_layers=1, hidden_size={"choices": [4, 8]})
    assert len(grid.runs) == 2  # the default range of the layers' own widths stays


def test_a_grid_of_just_as_many_runs_as_are_allowed_is_laid_out_and_one_more_is_not(
    grid_of: Callable[..., Grid],
) -> None:
    thousand = [[width] for width in range(1, 101)]
    repeats = {"repeats": MAX_RUNS // 100}
    assert len(grid_of(repeats, widths=thousand).runs) == MAX_RUNS
    with pytest.raises(ConfigError, match=r"at most 10,000 runs: got more than 100 combinations"):
        grid_of(repeats, widths=[*thousand, [101]])


def test_where_no_combination_can_be_trained_the_grid_is_refused(
    make_data: MakeData,
) -> None:
    named = FIXED | {"widths": CELLS, "lookback": {"choices": [13, 15]}, "patch_length": 4}
    space, _ = derive(Space.model_validate(named), 6, 80, 4, has_calendar=True)
    config = SearchConfig(space=space)
    with pytest.raises(ConfigError, match=r"got 6 of which none can; widths 8, lookback 13: look"):
        plan_grid(config, make_data())


def test_repeats_are_for_grids_alone() -> None:
    with pytest.raises(ConfigError, match="repeats needs sampler grid: got repeats=3 and sampler"):
        parse_config({"search": {"repeats": 3}})


def test_a_grid_and_a_search_are_never_one_study(make_data: MakeData) -> None:
    search = {"space": FIXED | {"widths": CELLS}, "search": {"pruner": "none"}}
    grid = search | {"search": {"pruner": "none", "sampler": "grid"}}
    more = search | {"search": {"pruner": "none", "sampler": "grid", "repeats": 5}}
    as_search, as_grid, with_more = (
        identity_of(parse_config(tree), make_data()) for tree in (search, grid, more)
    )
    assert as_search != as_grid
    assert as_grid == with_more


# Against a slow way to enumerate


listed = st.sampled_from([{"choices": [4, 8]}, {"choices": [4]}, {"low": 4, "high": 8, "step": 2}])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    num_layers=st.sampled_from([1, 2, {"low": 1, "high": 3}, {"choices": [3, 1]}]),
    shape=st.sampled_from(["uniform", "per_layer", {"choices": ["per_layer", "uniform"]}]),
    hidden_size=listed,
    width=listed,
    bidirectional=st.sampled_from([True, {"choices": [True, False]}]),
)
def test_it_holds_what_drawing_everything_in_nested_loops_finds(
    make_data: MakeData, **dimensions: Any
) -> None:
    tree = {"space": FIXED | dimensions, "search": {"sampler": "grid"}}
    config, _ = resolve(parse_config(tree), make_data())
    runs = plan_grid(config, make_data()).runs
    found = [(run.config.model.widths, run.config.model.bidirectional) for run in runs]
    assert len(set(found)) == len(found)
    assert set(found) == in_nested_loops(config.space)


def in_nested_loops(space: Space) -> set[tuple[tuple[int, ...], bool]]:
    stacks: set[tuple[int, ...]] = set()
    for depth in values(space.num_layers):
        if depth == 1 or "uniform" in values(space.shape):
            stacks |= {(width,) * depth for width in values(space.hidden_size)}
        if depth > 1 and "per_layer" in values(space.shape):
            longer: set[tuple[int, ...]] = {()}
            for _ in range(depth):
                longer = {(*stack, width) for stack in longer for width in values(space.width)}
            stacks |= longer
    return {(stack, both) for stack in stacks for both in values(space.bidirectional)}


def values(dimension: Int | Float | Choice[Any]) -> list[Any]:
    if isinstance(dimension, Choice):
        return list(dimension.choices)
    assert isinstance(dimension, Int)
    return list(range(dimension.low, dimension.high + 1, dimension.step or 1))


# The example


def test_the_example_compares_the_three_answers_in_both_directions(make_data: MakeData) -> None:
    config = parse_config(read_yaml(EXAMPLES / "cells.yaml"))
    data = make_data(num_rows=900, season=24, horizon=24)
    grid = plan_grid(resolve(config, data)[0], data)
    assert len(grid.runs) == 18
    assert Counter(widths_of(grid)) == {
        (widths, both): 3 for widths in ((128,), (64, 64), (64, 128)) for both in (False, True)
    }
    settings_of_all = {
        run.config.model_copy(
            update={
                "model": run.config.model.model_copy(
                    update={"widths": (1,), "bidirectional": False}
                )
            }
        )
        for run in grid.runs
    }
    assert len(settings_of_all) == 1


# A whole grid, by the command line


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, empty_view: Path) -> Path:
    """The example made short, a table, and an MLflow store."""
    folder = tmp_path_factory.mktemp("grid")
    (folder / "mlruns").mkdir()
    shutil.copy(empty_view, folder / "mlruns" / "mlflow.db")
    tree = yaml.safe_load((EXAMPLES / "cells.yaml").read_text())
    tree["space"] |= {"widths": CELLS, "lookback": 24, "batch_size": 16}
    tree["search"]["repeats"] = 2
    tree["training"] = {"max_steps": 4, "evaluate_every_steps": 2, "warmup_steps": 0}
    tree["resources"] = {"device": "cpu", "max_concurrent": 2}
    tree["data"] = {"path": "loads.csv", "horizon": 6}
    (folder / "cells.yaml").write_text(yaml.safe_dump(tree))
    rows = np.arange(480)
    when = pd.date_range("2024-01-01", periods=len(rows), freq="h")
    noise = np.random.default_rng(1).normal(size=len(rows))
    load = 50 + 10 * np.sin(2 * np.pi * rows / 24) + noise
    pd.DataFrame({"when": when, "load": load.round(3)}).to_csv(folder / "loads.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def first(folder: Path) -> str:
    """What the grid prints, with two seeds."""
    return search(folder, "-c", "cells.yaml", "--study", "cells")


@pytest.fixture(scope="module")
def resumed(folder: Path, first: str) -> str:
    """What it prints when it goes on with a third seed, without the page."""
    return search(folder, "--resume", "cells", "--repeats", "3", "--no-finalize")


def search(folder: Path, *arguments: str) -> str:
    ours = {"RAY_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"}
    answer = subprocess.run(
        [sys.executable, "-m", "search.run", *arguments],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in ours}
        | {"COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE_SECONDS)
def test_a_grid_says_its_size_first_and_ends_with_means_and_the_page(first: str) -> None:
    lines = first.splitlines()
    said = lines.index("grid: 6 combinations (widths 3, bidirectional 2) × 2 seeds = 12 runs")
    assert said < next(place for place, line in enumerate(lines) if line.startswith("[1/12]"))
    assert sum(line.startswith("to beat: ") for line in lines) == 5
    assert "The grid, means over 2 seeds ± 95% t-intervals" in first
    assert "What each choice bought, at equal steps and seeds" in first
    assert lines[-2] == "go on     python -m search.run --resume cells --repeats 4"
    page = Path(lines[-1].removeprefix("report    "))
    assert "The grid: means over seeds" in page.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE_SECONDS)
def test_mlflow_shows_the_page_and_the_seed_of_every_run(
    folder: Path, first: str, dump_view: Callable[..., dict[str, dict[str, Any]]]
) -> None:
    runs = dump_view(f"sqlite:///{folder}/mlruns/mlflow.db")
    assert "report.html" in runs["cells"]["artifacts"]
    trials = [run["params"] for run in runs.values() if "seed" in run.get("params", {})]
    seeds = Counter(params["seed"] for params in trials)
    assert seeds == {str(seed): 6 for seed in paired_seeds(0, 2)}


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE_SECONDS)
def test_a_grid_goes_on_with_the_seeds_that_are_new(
    folder: Path,
    resumed: str,
    closing_connections: Callable[[], Any],
) -> None:
    assert "× 3 seeds = 18 runs" in resumed
    assert "means over 3 seeds" in resumed
    assert "report    " not in resumed
    with closing_connections():
        notes, trials = read_study(f"sqlite:///{folder}/mlruns/studies/cells.db", "cells")
        listed = overview(SearchConfig(home=str(folder / "mlruns")), "cells")
    assert (listed.num_counted, listed.num_asked) == (18, 18)
    assert "does not apply" not in resumed
    assert [trial.number for trial in trials] == list(range(18))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert {len(trial.evaluations) for trial in trials} == {2}  # none was stopped early
    by_seed = Counter(trial.seed for trial in trials)
    assert by_seed == dict.fromkeys(paired_seeds(0, 3), 6)
    assert {trial.seed for trial in trials[:12]} == set(paired_seeds(0, 2))
    assert len(notes["baselines"]) == 5
