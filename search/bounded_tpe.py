"""TPE over a bounded part of a study, so that a proposal costs the same however long it grows."""

import heapq
import math
from collections.abc import Container, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe import _truncnorm
from optuna.samplers._tpe import sampler as optunas
from optuna.samplers._tpe.sampler import default_gamma
from optuna.trial import FrozenTrial, TrialState
from scipy.special import erf, log_ndtr

# The same functions; Optuna's own are Python loops over numbers, half the time of a proposal.
_truncnorm._log_ndtr = log_ndtr
_truncnorm.erf = erf  # type: ignore[attr-defined]

NUM_BEST = 25
"""Kept from all of the study: TPE takes at most so many trials for the good ones (Optuna 5.0)."""
NUM_LATEST = 175
"""Ended trials kept beside them, in TPE's eyes the others; studies of 200 are learnt from whole."""
NUM_RUNNING = 50
"""Running trials kept, the latest, so that a proposal keeps away from them."""


_ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


class BoundedTPESampler(TPESampler):
    """TPE that learns from the best trials, the latest ones and those that run.

    Made for one proposal: it looks at the study once.
    """

    _bounded: "_BoundedStudy | None" = None

    def _of(self, study: optuna.Study) -> "_BoundedStudy":
        if self._bounded is None:
            self._bounded = _BoundedStudy.of(study)
            num_good = default_gamma(self._bounded.num_ended)  # as many as of the whole study
            self._gamma = lambda _: num_good
        return self._bounded

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the dimensions that are drawn together."""
        return super().infer_relative_search_space(self._of(study).one_of_each_kind(), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw values for them."""
        return super().sample_relative(self._of(study), trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw a value for one dimension."""
        return super().sample_independent(self._of(study), trial, param_name, param_distribution)


class _BoundedStudy(optuna.Study):
    """A study in which a sampler finds only some trials."""

    kept: list[FrozenTrial]
    num_ended: int
    parts: tuple[list[FrozenTrial], list[FrozenTrial]] | None = None
    """The good and the other trials, once they have been told apart."""

    @classmethod
    def of(cls, study: optuna.Study) -> "_BoundedStudy":
        # Asked of the study itself: hyperband's shows the trials of one bracket.
        ended = study.get_trials(deepcopy=False, states=_ENDED)
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return cls._holding(learnt_from(ended, running), len(ended), study)

    @classmethod
    def _holding(
        cls, kept: list[FrozenTrial], num_ended: int, study: optuna.Study
    ) -> "_BoundedStudy":
        bounded = cls(study.study_name, study._storage, study.sampler, study.pruner)
        bounded.kept, bounded.num_ended = kept, num_ended
        return bounded

    def one_of_each_kind(self) -> "_BoundedStudy":
        """The first trial with each set of dimensions, from which Optuna groups them alike."""
        first: dict[tuple[TrialState, frozenset[str]], FrozenTrial] = {}
        for trial in self.kept:
            first.setdefault((trial.state, frozenset(trial.distributions)), trial)
        return self._holding(list(first.values()), self.num_ended, self)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        return [trial for trial in self.kept if states is None or trial.state in states]


_split_trials = optunas._split_trials


def _split_once(
    study: optuna.Study, trials: list[FrozenTrial], n_below: int
) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    """Tell good trials from the others; Optuna does it anew for each group of dimensions."""
    if not isinstance(study, _BoundedStudy):
        return _split_trials(study, trials, n_below)
    if study.parts is None:
        study.parts = _split_trials(study, trials, n_below)
    return study.parts


optunas._split_trials = _split_once


def learnt_from(ended: Sequence[FrozenTrial], running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those that a sampler learns from, by number: the best, the latest and what runs."""
    latest, older = ended[-NUM_LATEST:], ended[:-NUM_LATEST]
    complete = [t for t in older if t.state is TrialState.COMPLETE]  # which rank first
    candidates = complete if len(complete) >= NUM_BEST else older
    best = heapq.nsmallest(NUM_BEST, candidates, key=rank_of_trial)
    return sorted((*best, *latest, *running[-NUM_RUNNING:]), key=lambda trial: trial.number)


def rank_of_trial(frozen: FrozenTrial) -> tuple[float, float]:
    """TPE's own order: the complete ones, then those that were stopped, the later the better."""
    if frozen.state is TrialState.COMPLETE:
        assert frozen.value is not None
        return -math.inf, frozen.value
    if not frozen.intermediate_values:
        return 1.0, 0.0
    step, value = max(frozen.intermediate_values.items())
    return -step, math.inf if math.isnan(value) else value
