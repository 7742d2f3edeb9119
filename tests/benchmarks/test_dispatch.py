"""Workers that wait say what those that train would; the rate is that of the second half."""

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import dispatch, idle_actor  # the first prepares what Ray reads at its import
from benchmarks.floor import second_half
from search.trial import TrialStep


def test_an_idle_trial_hands_out_what_one_that_trains_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_actor, "SECONDS", 0.0)
    steps = list(idle_actor.idle_steps(seed=1))
    assert all(isinstance(step, TrialStep) for step in steps)
    *during, final = [step for step in steps if isinstance(step, TrialStep)]
    assert [step.evaluation.step for step in during] == list(idle_actor.STEPS)
    assert [step.is_final for step in steps if isinstance(step, TrialStep)] == [False] * 5 + [True]
    assert final.evaluation.errors == during[-1].evaluation.errors
    assert list(idle_actor.idle_steps(seed=1)) == steps != list(idle_actor.idle_steps(seed=2))


def test_workers_wait_where_others_train() -> None:
    assert dispatch.IdleActor is idle_actor.IdleActor


def test_of_a_search_only_the_second_half_is_counted() -> None:
    def trial(started_at: float | None, ended_at: float | None) -> Any:
        return SimpleNamespace(started_at=started_at, ended_at=ended_at)

    ends = [10.0, 60.0, 70.0, 80.0, 110.0]
    trials = [trial(10.0, end) for end in ends] + [trial(100.0, None), trial(None, None)]
    assert second_half(trials) == (60.0, 110.0, 3600 * 3 / 50)
