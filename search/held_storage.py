"""A study's record held in memory: read there, written through to the store at once.

Optuna's own cache reads every trial that has not ended again at each proposal and each rung, since
others might have written it. The lock of a study says that nobody has.
"""

import copy
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.bulk_store import BulkStore, TrialEnd, TrialNotes


class HeldStorage(InMemoryStorage):
    """One study of a store, whose only writer this is.

    The ids of its trials are its own: their numbers.
    """

    def __init__(self, store: BulkStore, study_name: str):
        """Read the whole study once.

        Args:
            store: where it is kept; every write reaches it before the call returns.
            study_name: a study that is in the store.
        """
        super().__init__()
        self._store = store
        self._stored_study_id = store.get_study_id_from_name(study_name)
        self._stored_ids: list[int] = []
        self._drafts: dict[int, None] | None = None
        self._notes: tuple[int, TrialNotes] | None = None
        self._numbers: dict[TrialState, set[int]] = {state: set() for state in TrialState}
        study_id = super().create_new_study([StudyDirection.MINIMIZE], study_name)
        for key, value in store.get_study_user_attrs(self._stored_study_id).items():
            super().set_study_user_attr(study_id, key, value)
        for key, value in store.get_study_system_attrs(self._stored_study_id).items():
            super().set_study_system_attr(study_id, key, value)
        for trial in store.get_all_trials(self._stored_study_id, deepcopy=False):
            self._numbers[trial.state].add(super().create_new_trial(study_id, trial))
            self._stored_ids.append(trial._trial_id)

    @property
    def seconds_away(self) -> float:
        """How long the store was waited for."""
        return getattr(self._store, "seconds_away", 0.0)

    @contextmanager
    def new_trials_at_once(self) -> Iterator[None]:
        """Write each trial that begins in this block at its end, whole, in one transaction."""
        self._drafts = {}
        try:
            yield
        finally:
            drafts, self._drafts = self._drafts, None
            for number in drafts:
                self._store_new(self.get_trial(number))

    @contextmanager
    def notes_at_once(self, trial_id: int) -> Iterator[None]:
        """Write what is noted, reported and told of a trial in this block at its end.

        All of it or, where the store refuses, nothing.
        """
        if not self._is_stored(trial_id):  # it will be, whole
            yield
            return
        notes, before = TrialNotes(), _as_it_is(self._get_trial(trial_id))
        self._notes = trial_id, notes
        try:
            yield
        finally:
            self._notes = None
            try:
                self._store.set_trial_notes(self._stored_ids[trial_id], notes)
            except BaseException:
                self._move(trial_id, self.get_trial(trial_id).state, before.state)
                self._set_trial(trial_id, before)
                raise

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Begin a trial; its id is its number."""
        number = super().create_new_trial(study_id, template_trial)
        self._numbers[self.get_trial(number).state].add(number)
        if self._drafts is None:
            self._store_new(self.get_trial(number))
        else:
            self._drafts[number] = None
        return number

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Set a parameter of a trial."""
        value = param_name, param_value_internal, distribution
        if self._is_stored(trial_id):
            self._store.set_trial_param(self._stored_ids[trial_id], *value)
        super().set_trial_param(trial_id, *value)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Set where a trial stands; False where it cannot run because it does not wait."""
        before = self.get_trial(trial_id).state
        if state.is_finished() and self._noted_later(trial_id) is not None:
            self._write(trial_id, TrialNotes(end=TrialEnd(state, values or ())))
        elif self._is_stored(trial_id):
            stored_id = self._stored_ids[trial_id]
            if not self._store.set_trial_state_values(stored_id, state, values):
                return False
        is_set = super().set_trial_state_values(trial_id, state, values)
        self._move(trial_id, before, self.get_trial(trial_id).state)
        return is_set

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """Set what a trial reported at a step."""
        self._write(trial_id, TrialNotes(intermediate_values={step: intermediate_value}))
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Note something about a trial."""
        self._write(trial_id, TrialNotes(user_attrs={key: value}))
        super().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Note something that sampler or pruner wants to know of a trial."""
        self._write(trial_id, TrialNotes(system_attrs={key: value}))
        super().set_trial_system_attr(trial_id, key, value)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Note something about the study."""
        self._store.set_study_user_attr(self._stored_study_id, key, value)
        super().set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Note something that sampler or pruner wants to know of the study."""
        self._store.set_study_system_attr(self._stored_study_id, key, value)
        super().set_study_system_attr(study_id, key, value)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """The trials by number, those of some states or all."""
        trials = super().get_all_trials(study_id, deepcopy=False)
        if states is not None:
            # Not by a look at each trial: memory takes milliseconds to show thousands.
            asked = [numbers for state, numbers in self._numbers.items() if state in states]
            trials = [trials[number] for number in sorted(set().union(*asked))]
        return copy.deepcopy(trials) if deepcopy else trials

    def _write(self, number: int, notes: TrialNotes) -> None:
        """Write notes of a trial, at once or at the end of a block."""
        self.check_trial_is_updatable(number, self.get_trial(number).state)
        if (later := self._noted_later(number)) is not None:
            later.add(notes)
        elif self._is_stored(number):
            self._store.set_trial_notes(self._stored_ids[number], notes)

    def _noted_later(self, number: int) -> TrialNotes | None:
        of, notes = self._notes or (None, None)
        return notes if of == number else None

    def _move(self, number: int, before: TrialState, now: TrialState) -> None:
        self._numbers[before].remove(number)
        self._numbers[now].add(number)

    def _is_stored(self, number: int) -> bool:
        return self._drafts is None or number not in self._drafts

    def _store_new(self, trial: FrozenTrial) -> None:
        assert trial.number == len(self._stored_ids)
        self._stored_ids.append(self._store.add_trial(self._stored_study_id, trial))


def _as_it_is(trial: FrozenTrial) -> FrozenTrial:
    """A copy that stays so: Optuna's `Trial` writes into the one that it holds."""
    copied = copy.copy(trial)
    for name in ("user_attrs", "system_attrs", "intermediate_values"):
        setattr(copied, name, dict(getattr(trial, name)))
    return copied
