"""A worker that waits where others train, for `dispatch.py`; Ray's processes import it."""

import time
from collections.abc import Generator

import numpy as np

from benchmarks.stand_ins import WEIGHTS, make_evaluation
from search.trial import SecondTry, TrialStep
from search.trial_actor import TrialActor

STEPS = (40, 80, 120, 160, 200)
"""At which it is evaluated."""
SECONDS = 0.1
"""Between two evaluations."""


class IdleActor(TrialActor):
    """A worker that waits, and says that its trials become better by some luck."""

    def _begin(self, config: dict[str, int]) -> None:
        self._steps = idle_steps(config["seed"])


def idle_steps(seed: int) -> Generator[TrialStep | SecondTry]:
    """What a trial hands out, a while apart."""
    luck = np.random.default_rng(seed).normal(scale=0.1)
    for step in STEPS:
        time.sleep(SECONDS)
        mae = float(0.08 * np.exp(luck) * (1 + np.exp(-step / 50)))
        yield TrialStep(make_evaluation(step, mae), is_final=False, weights=WEIGHTS)
    yield TrialStep(make_evaluation(STEPS[-1], mae), is_final=True, weights=None)
