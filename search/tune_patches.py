"""What Ray Tune does by itself and should not: patched by name, in the pinned version."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import search.cluster  # noqa: F401 - says, before Ray is there, how quiet it is to be

# isort: split
from ray.air._internal import usage as air_usage
from ray.tune.execution import class_cache
from ray.tune.execution.tune_controller import TuneController

from search.environment import variables_set


@contextmanager
def quick_start() -> Iterator[None]:
    """Keep Tune from what delays the first trial.

    It would ask for an environment of its own, for Lightning and for storage, so that Ray starts
    other workers than those that wait and have imported what trials need. And it would import
    MLflow, to see whether a callback of Tune's for it is there, and count it.
    """
    with (
        patch.object(air_usage, "tag_callbacks", lambda _: None),
        patch.object(class_cache, "DEFAULT_ENV_VARS", {}),
        patch.object(class_cache, "ENV_VARS_TO_PROPAGATE", frozenset()),
    ):
        yield


@contextmanager
def workers_start_side_by_side(
    num_slots: int, is_more_to_come: Callable[[], bool]
) -> Iterator[None]:
    """Keep Tune from starting one worker after the other, and from ending those that start.

    By itself it asks for a trial only once the one before runs. And it gives a worker that is free
    to a trial whose own worker still starts, which it ends: where trials are shorter than that
    start, one worker alone would ever train. Here a free worker gets the next trial.

    Args:
        num_slots: how many workers start at once.
        is_more_to_come: whether a free worker will find a trial of its own.
    """
    reuse = TuneController._maybe_reuse_cached_actor

    def reuse_unless_own_starts(self: TuneController, trial: Any) -> bool:
        own = self._trial_to_actor.get(trial)
        has_own = own is not None and self._actor_manager.is_actor_started(own)
        if has_own and trial not in self._resetting_trials and is_more_to_come():
            return False
        is_reused: bool = reuse(self, trial)
        return is_reused

    with (
        patch.object(TuneController, "_maybe_reuse_cached_actor", reuse_unless_own_starts),
        variables_set({"TUNE_MAX_PENDING_TRIALS_PG": str(num_slots)}),
    ):
        yield
