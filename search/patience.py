"""A record on a server that goes away and comes back: the search waits, and then goes on."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from search.bulk_store import BulkStore, TrialNotes
from search.database import HeldStudy, LostStudyError, StillHeldError

PATIENCE_SECONDS = 600.0
"""How long a search waits for the database of its record."""
PAUSE_SECONDS = 1.0

OPENED_AT = "opened_at"
"""The note of when a study was last opened for writing, which tells its openings apart."""

# SQLSTATE: connections; a server that is ended, has crashed, or starts.
_AWAY = ("08", "57P01", "57P02", "57P03")


class PatientStorage(BulkStore):
    """Optuna's storage, for one writer that waits while the database is away.

    An answer may be lost after the database has done what it was told. So a call that is made
    again must not do it twice, and what another search has written meanwhile must be noticed.
    """

    def __init__(self, url: str, held: HeldStudy, say: Callable[[str], None], **engine: Any):
        """Connect; `held` is the study's lock, `say` is told once that the database is away."""
        super().__init__(url, **engine)
        self._held, self._say = held, say
        self._opened: tuple[int, float] | None = None
        self._end: LostStudyError | KeyboardInterrupt | None = None
        self._is_retaken = False
        self._failed_at: float | None = None
        self.seconds_away = 0.0

    def opened(self, study_id: int, when: float) -> None:
        """Learn the study's opening, by which another one shows."""
        self._opened = study_id, when

    def _patiently(self, call: Callable[[bool], Any]) -> Any:
        """Make a call until it is answered; it is told whether it was made before."""
        is_again = False
        with ExitStack() as outage:
            while True:
                try:
                    if self._end is not None:
                        raise self._end
                    if self._failed_at is not None:
                        self._hold()
                    answer = call(is_again)
                    self._is_back()
                    return answer
                except LostStudyError as error:
                    self._end = error  # nothing more is written, in the search's last words either
                    raise
                except (
                    StorageInternalError,
                    sqlalchemy.exc.SQLAlchemyError,
                    StillHeldError,
                ) as error:
                    if not is_again:  # before the wait is said: Ctrl+C may be the answer
                        outage.enter_context(self._interrupt_ends_wait())
                    is_again = True
                    self._wait_for(error)
                    time.sleep(PAUSE_SECONDS)

    def _is_back(self) -> None:
        if self._failed_at is not None:
            self.seconds_away += time.monotonic() - self._failed_at
            self._failed_at = None

    def _hold(self) -> None:
        if not self._held.is_held():
            self._held.retake()
            self._is_retaken = True
        if self._is_retaken and self._opened is not None:
            study_id, when = self._opened
            if super().get_study_user_attrs(study_id)[OPENED_AT] != when:
                raise LostStudyError("another search has gone on with it meanwhile")
        self._is_retaken = False

    def _wait_for(self, error: Exception) -> None:
        if not is_away(error):
            raise error
        if self._failed_at is None:
            self._failed_at = time.monotonic()
            since = time.strftime("%H:%M:%S")
            self._say(
                f"the record's database is away since {since}: the search waits for it, "
                f"{PATIENCE_SECONDS / 60:g} minutes at most"
            )
        if time.monotonic() - self._failed_at >= PATIENCE_SECONDS:
            raise error

    @contextmanager
    def _interrupt_ends_wait(self) -> Iterator[None]:
        # Ray Tune would only note the signal, and look at it after the call that waits.
        def end(number: int, frame: FrameType | None) -> None:
            self._end = KeyboardInterrupt()
            raise self._end

        before = signal.getsignal(signal.SIGINT)
        if not callable(before) or threading.current_thread() is not threading.main_thread():
            yield
            return
        signal.signal(signal.SIGINT, end)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    # What must not be done twice, or by two

    def add_trial(self, study_id: int, trial: FrozenTrial) -> int:
        """Add a trial under its number, as long as the study is this search's."""
        add = super().add_trial

        def call(is_again: bool) -> int:
            self._hold()
            added = self._id_of(study_id, trial.number) if is_again else None
            return add(study_id, trial) if added is None else added

        trial_id: int = self._patiently(call)
        return trial_id

    def _id_of(self, study_id: int, number: int) -> int | None:
        try:
            return super().get_trial_id_from_study_id_trial_number(study_id, number)
        except KeyError:
            return None

    def set_trial_notes(self, trial_id: int, notes: TrialNotes) -> None:
        """Set what is noted of a trial, as long as the study is this search's."""
        write = super().set_trial_notes

        def call(_: bool) -> None:
            self._hold()
            write(trial_id, notes)

        self._patiently(call)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As in Optuna; a change that was made although its answer was lost is one."""
        change = super().set_trial_state_values
        read = super().get_trial

        def call(is_again: bool) -> bool:
            self._hold()
            try:
                is_done = change(trial_id, state, values)
            except UpdateFinishedTrialError:
                if not is_again or read(trial_id).state != state:
                    raise
                return True
            return is_done or (is_again and read(trial_id).state == state)

        answer: bool = self._patiently(call)
        return answer


def _made_patient(name: str) -> Callable[..., Any]:
    """A call that may be made twice: it reads, or sets what it has set."""
    plain = getattr(BulkStore, name)

    def call(self: PatientStorage, *arguments: Any, **named: Any) -> Any:
        return self._patiently(lambda _: plain(self, *arguments, **named))

    return call


for _name in (
    "set_study_user_attr",
    "set_study_system_attr",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "_set_trial_param",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "get_trial_id_from_study_id_trial_number",
    "get_trial",
    "_get_trials",
    "_get_best_trial_id",
):
    setattr(PatientStorage, _name, _made_patient(_name))


def is_away(error: BaseException | None) -> bool:
    """Whether an error says that the database cannot be reached, and not that it refuses."""
    while error is not None:
        if isinstance(error, StillHeldError):
            return True
        if isinstance(error, sqlalchemy.exc.DBAPIError):
            state = getattr(error.orig, "sqlstate", None)
            is_lost = isinstance(error, sqlalchemy.exc.OperationalError) and state is None
            return is_lost or error.connection_invalidated or str(state).startswith(_AWAY)
        error = error.__cause__ or error.__context__
    return False
