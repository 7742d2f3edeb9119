"""What Ray Tune is kept from."""

from types import SimpleNamespace
from typing import Any

import pytest

from search.tune_patches import TuneController, workers_start_side_by_side


@pytest.mark.parametrize(
    ("has_own", "has_more", "is_given"),
    [(True, True, False), (True, False, True), (False, True, True)],
    ids=["its own starts", "its own starts, no other trial is left", "it has none"],
)
def test_a_free_worker_is_given_to_whom_it_helps(
    has_own: bool, has_more: bool, is_given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    monkeypatch.setattr(
        TuneController, "_maybe_reuse_cached_actor", lambda _, trial: given.append(trial) or True
    )
    controller: Any = SimpleNamespace(
        _trial_to_actor={"trial": "worker"} if has_own else {},
        _actor_manager=SimpleNamespace(is_actor_started=lambda actor: actor == "worker"),
        _resetting_trials=set(),
    )
    with workers_start_side_by_side(4, lambda: has_more):
        is_reused = TuneController._maybe_reuse_cached_actor(controller, "trial")
    assert is_reused is is_given
    assert given == (["trial"] if is_given else [])
