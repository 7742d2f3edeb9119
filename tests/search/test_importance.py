"""Which dimensions mattered, as the record tells."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.dimensions import Float
from search.importance import MIN_TRIALS_FOR_IMPORTANCE, importance
from search.stored_studies import UnknownStudyError
from search.study import Study
from tests.search.conftest import RecordAt

pytestmark = pytest.mark.parametrize("record_at", ["sqlite", "postgresql"], indirect=True)

OpenStudy = Callable[..., Study]


@pytest.fixture
def play(
    open_small_study: OpenStudy, make_space: Callable[..., Any], make_evaluation: Callable[..., Any]
) -> Callable[[int], None]:
    """Trials whose error is the distance of the learning rate, two of three stopped early."""

    def run(count: int) -> None:
        space = make_space(learning_rate=Float(low=0.1, high=1.0), num_layers=1)
        study = open_small_study(space=space, sampler="random", pruner="none")
        for place in range(count):
            proposal = study.ask()
            assert proposal is not None
            error = abs(proposal.config.training.learning_rate - 0.5)
            study.started(proposal.number)
            study.report(proposal.number, make_evaluation(error, step=50))
            if place % 3:
                study.prune(proposal.number, "stopped early")
            else:
                study.complete(proposal.number)

    return run


def test_the_dimension_that_decides_is_the_most_important(
    play: Callable[[int], None], tmp_path: Path, record_at: RecordAt
) -> None:
    play(40)
    found = importance(record_at(tmp_path / "record.db"), "study")
    assert next(iter(found)) == "learning_rate"
    assert found["learning_rate"] > 2 * sorted(found.values())[-2]
    assert sum(found.values()) == pytest.approx(1)


def test_of_few_trials_nothing_is_said(
    play: Callable[[int], None], tmp_path: Path, record_at: RecordAt
) -> None:
    play(MIN_TRIALS_FOR_IMPORTANCE - 1)
    assert importance(record_at(tmp_path / "record.db"), "study") == {}


def test_of_an_unknown_study_nothing_can_be_said(tmp_path: Path, record_at: RecordAt) -> None:
    with pytest.raises(UnknownStudyError, match="no study is named none"):
        importance(record_at(tmp_path / "none.db"), "none")
