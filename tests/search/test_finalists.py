"""The best configurations are trained again, each with every seed on every rolling origin."""

import math

import pytest

from search.config import SearchConfig, SearchSettings
from search.finalists import Finalist, admitting, finalist_seeds, finalists_config
from search.record import TrialRecord, TrialState


def run_of(
    value: float | None, fold: int = 0, seed: int = 0, state: str = "complete"
) -> TrialRecord:
    return TrialRecord(0, TrialState(state), None, seed, {}, value=value, fold=fold)


def finalist(*runs: TrialRecord) -> Finalist:
    return Finalist(7, 0.1, None, runs)  # type: ignore[arg-type]


def test_finalists_are_ranked_by_the_mean_of_all_their_runs() -> None:
    assert finalist(run_of(0.1), run_of(0.2), run_of(0.6)).mean == pytest.approx(0.3)


def test_a_value_of_zero_counts() -> None:
    assert finalist(run_of(0.0), run_of(0.2)).mean == pytest.approx(0.1)


def test_a_configuration_that_diverges_with_one_seed_is_ranked_last() -> None:
    assert finalist(run_of(0.1), run_of(None, state="pruned")).mean == math.inf


def test_a_run_that_the_machine_broke_is_left_out() -> None:
    assert finalist(run_of(0.1), run_of(None, state="failed")).mean == pytest.approx(0.1)


def test_the_seeds_of_one_origin_are_those_that_are_complete() -> None:
    runs = (run_of(0.1, 0, 1), run_of(0.2, 1, 1), run_of(0.2, 1, 2), run_of(None, 1, 3, "failed"))
    assert [run.seed for run in finalist(*runs).seeds_on(1)] == [1, 2]


def test_more_seeds_keep_those_that_were_there() -> None:
    assert finalist_seeds(3, 5)[:2] == finalist_seeds(3, 2)
    assert len(set(finalist_seeds(3, 5))) == 5
    assert finalist_seeds(3, 2) != finalist_seeds(4, 2)


def test_finalists_are_never_stopped_early_and_all_their_weights_stay() -> None:
    own = finalists_config(SearchConfig(study="one"))
    assert own.study == "one.finalists"
    assert (own.search.pruner, own.search.sampler) == ("none", "grid")
    assert own.search.num_kept_weights >= own.final.finalists * own.final.seeds * 3


def test_a_finalist_is_trained_also_where_the_limits_of_the_search_were_lowered_since() -> None:
    searched = TrialRecord(0, TrialState.COMPLETE, None, 0, {}, num_parameters=900, value=0.1)
    lowered = SearchSettings(max_parameters=500, max_training_teraflops=0.1)
    assert admitting(lowered, [searched]).max_parameters == 900
    assert admitting(lowered, [searched]).max_training_teraflops is None
    assert admitting(SearchSettings(max_parameters=1000), [searched]).max_parameters == 1000
