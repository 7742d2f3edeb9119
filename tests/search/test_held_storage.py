"""The record held in memory: it says what the store says, and reads the store once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.bulk_store import BulkStore
from search.held_storage import HeldStorage
from tests.search.conftest import RecordAt

pytestmark = pytest.mark.parametrize("record_at", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def url(tmp_path: Path, record_at: RecordAt) -> str:
    """A record with one study, beside another whose trials shift the store's ids."""
    url = record_at(tmp_path / "record.db")
    other = optuna.create_study(study_name="other", storage=url)
    other.ask()
    optuna.create_study(study_name="study", storage=url)
    return url


def held_study(url: str) -> optuna.Study:
    return optuna.load_study(study_name="study", storage=HeldStorage(BulkStore(url), "study"))


def stored(url: str) -> list[dict[str, object]]:
    return [plain(t) for t in optuna.load_study(study_name="study", storage=url).get_trials()]


def plain(trial: FrozenTrial) -> dict[str, object]:
    """A trial without its id and the times at which each side wrote it."""
    return {
        "number": trial.number,
        "state": trial.state,
        "values": trial.values,
        "params": trial.params,
        "distributions": trial.distributions,
        "user_attrs": trial.user_attrs,
        "system_attrs": trial.system_attrs,
        "intermediate_values": trial.intermediate_values,
    }


def refuse(*_: object, **__: object) -> None:
    """Stands in for a store on a full disk."""
    raise OSError("disk full")


def live_through(study: optuna.Study) -> None:
    """Do to trials all that a search does."""
    study.set_user_attr("facts", {"rows": 3})
    study.enqueue_trial({"x": 0.25})
    for _ in range(3):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.suggest_int("n", 1, 8, log=True)
        trial.set_user_attr("config", "é")
        trial.report(0.5, 10)
        trial.report(float("inf"), 20)
        study._storage.set_trial_system_attr(trial._trial_id, "completed_rung_0", 0.5)
    study.tell(0, 0.125)
    study.tell(1, state=TrialState.PRUNED)
    study._storage.set_trial_state_values(2, TrialState.WAITING)


def test_what_is_held_and_what_is_stored_are_the_same_after_every_kind_of_write(url: str) -> None:
    study = held_study(url)
    live_through(study)
    held = [plain(trial) for trial in study.get_trials()]
    assert held == stored(url) == [plain(trial) for trial in held_study(url).get_trials()]
    assert [each["state"].name for each in held] == ["COMPLETE", "PRUNED", "WAITING"]
    assert held_study(url).user_attrs == study.user_attrs == {"facts": {"rows": 3}}


def test_a_trial_that_waits_again_is_asked_before_any_new_one(url: str) -> None:
    study = held_study(url)
    for _ in range(3):
        study.ask()
    study._storage.set_trial_state_values(1, TrialState.WAITING)
    assert [study.ask().number, study.ask().number] == [1, 3]


def test_reading_asks_the_store_nothing(url: str) -> None:
    study = held_study(url)
    live_through(study)
    statements: list[str] = []

    def note(_c: object, _k: object, statement: str, *_: object) -> None:
        statements.append(statement)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    try:
        study.get_trials(deepcopy=False)
        assert study.best_trial.number == 0
        assert statements == []
        study.set_user_attr("facts", {"rows": 4})
        assert statements
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)


def test_trials_that_begin_at_once_are_stored_whole_at_the_end(url: str) -> None:
    study = held_study(url)
    storage = study._storage
    assert isinstance(storage, HeldStorage)
    with storage.new_trials_at_once():
        trial = study.ask({"x": FloatDistribution(0, 1), "n": IntDistribution(1, 8)})
        trial.set_user_attr("config", "first")
        study.tell(trial, state=TrialState.FAIL)
        assert stored(url) == []
    assert stored(url) == [plain(each) for each in study.get_trials()]
    assert stored(url)[0]["state"] is TrialState.FAIL


def test_a_trial_whose_draw_was_broken_off_is_stored_as_far_as_it_came(url: str) -> None:
    study = held_study(url)
    storage = study._storage
    assert isinstance(storage, HeldStorage)

    def break_off(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), storage.new_trials_at_once():
        break_off(study.ask({"x": FloatDistribution(0, 1)}))
    study.ask()
    assert stored(url) == [plain(each) for each in study.get_trials()]
    assert [each["number"] for each in stored(url)] == [0, 1]


def test_a_write_that_the_store_refuses_is_not_held_either(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = held_study(url)
    trial = study.ask()

    monkeypatch.setattr(BulkStore, "set_trial_notes", refuse)
    with pytest.raises(OSError, match="disk full"):
        trial.set_user_attr("config", "lost")
    assert study.trials[0].user_attrs == {}


def test_notes_that_the_store_refuses_at_the_end_of_a_block_are_not_held_either(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = held_study(url)
    storage, trial = study._storage, study.ask()
    assert isinstance(storage, HeldStorage)

    monkeypatch.setattr(BulkStore, "set_trial_notes", refuse)

    def note() -> None:
        with storage.notes_at_once(0):
            trial.set_user_attr("evaluation/50", "lost")
            trial.report(0.5, 50)

    with pytest.raises(OSError, match="disk full"):
        note()
    assert [plain(each) for each in study.get_trials()] == stored(url)
    assert study.trials[0].user_attrs == study.trials[0].intermediate_values == {}


def test_a_trial_that_has_ended_takes_no_note_and_keeps_what_is_stored(url: str) -> None:
    study = held_study(url)
    trial = study.ask()
    trial.set_user_attr("outcome", "told")
    study.tell(trial, 0.5)
    before = stored(url)
    with pytest.raises(UpdateFinishedTrialError):
        study._storage.set_trial_user_attr(0, "outcome", "anew")
    assert stored(url) == before


def test_a_trial_taken_whole_is_stored_as_optuna_itself_would(url: str) -> None:
    whole = create_trial(
        state=TrialState.FAIL,
        params={"x": 0.1, "n": 3, "head": "b"},
        distributions={
            "x": FloatDistribution(0.01, 1, log=True),
            "n": IntDistribution(1, 8),
            "head": CategoricalDistribution(("a", "b")),
        },
        user_attrs={"config": "é", "planned": {"seed": 1}},
        system_attrs={"tpe:relative_params:0": "{}"},
        intermediate_values={50: 0.25, 100: float("nan"), 150: float("inf")},
    )
    complete = create_trial(value=float("inf"))
    whole.number, complete.number = 1, 2
    bulk, optunas = BulkStore(url), RDBStorage(url)
    taken = []
    for name, take in (("bulk", bulk.add_trial), ("plain", optunas.create_new_trial)):
        study = optuna.create_study(study_name=name, storage=url)
        study.enqueue_trial({"x": 0.5}, user_attrs={"planned": {"seed": 2}})
        take(study._study_id, whole)
        take(study._study_id, complete)
        trials = optuna.load_study(study_name=name, storage=url).get_trials()
        taken.append([plain(trial) for trial in trials])
    assert str(taken[0]) == str(taken[1])  # as text NaN is equal to itself
    assert str(taken[0][1:]) == str([plain(whole), plain(complete)])


@contextmanager
def commits_counted() -> Iterator[list[object]]:
    """Every transaction of any database in this block."""
    commits: list[object] = []

    def count(connection: object) -> None:
        commits.append(connection)

    sqlalchemy.event.listen(sqlalchemy.Engine, "commit", count)
    try:
        yield commits
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "commit", count)


def test_what_is_noted_at_once_is_stored_in_one_transaction(url: str) -> None:
    study = held_study(url)
    storage, trial = study._storage, study.ask()
    assert isinstance(storage, HeldStorage)
    trial.set_user_attr("ran_on", "host1")
    with commits_counted() as commits, storage.notes_at_once(0):
        trial.set_user_attr("evaluation/50", "é")
        trial.set_user_attr("ran_on", "host2")  # anew
        trial.report(float("inf"), 50)
        storage.set_trial_system_attr(0, "completed_rung_0", 0.5)
        assert stored(url)[0]["user_attrs"] == {"ran_on": "host1"}
        commits.clear()
    assert len(commits) == 1
    assert stored(url) == [plain(each) for each in study.get_trials()]
    assert stored(url)[0]["user_attrs"] == {"ran_on": "host2", "evaluation/50": "é"}


@pytest.mark.parametrize(
    ("state", "value"), [(TrialState.COMPLETE, float("inf")), (TrialState.PRUNED, None)]
)
def test_an_end_is_stored_with_what_is_noted_beside_it(
    url: str, state: TrialState, value: float | None
) -> None:
    study = held_study(url)
    storage, trial = study._storage, study.ask()
    assert isinstance(storage, HeldStorage)
    trial.report(0.5, 50)
    with commits_counted() as commits, storage.notes_at_once(0):
        trial.set_user_attr("outcome", "told")
        study.tell(trial, value, state=state)
        assert stored(url)[0]["state"] is TrialState.RUNNING
        commits.clear()
    assert len(commits) == 1
    assert stored(url) == [plain(each) for each in study.get_trials()]
    ended = optuna.load_study(study_name="study", storage=url).trials[0]
    assert (ended.state, ended.user_attrs) == (state, {"outcome": "told"})
    assert ended.datetime_complete is not None
    with pytest.raises(UpdateFinishedTrialError):
        trial.set_user_attr("outcome", "anew")


def test_a_trial_whose_end_the_store_refuses_still_runs(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = held_study(url)
    storage, trial = study._storage, study.ask()
    assert isinstance(storage, HeldStorage)

    def end() -> None:
        with storage.notes_at_once(0):
            trial.set_user_attr("outcome", "lost")
            study.tell(0, 0.25)

    with monkeypatch.context() as patched:
        patched.setattr(BulkStore, "set_trial_notes", refuse)
        with pytest.raises(OSError, match="disk full"):
            end()
    assert [each.number for each in study.get_trials(states=(TrialState.RUNNING,))] == [0]
    assert [plain(each) for each in study.get_trials()] == stored(url)
    end()
    assert stored(url)[0]["state"] is TrialState.COMPLETE


def test_of_a_block_that_is_broken_off_what_was_noted_is_stored(url: str) -> None:
    study = held_study(url)
    storage, trial = study._storage, study.ask()
    assert isinstance(storage, HeldStorage)

    def break_off() -> None:
        trial.set_user_attr("evaluation/50", "here")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), storage.notes_at_once(0):
        break_off()
    trial.set_user_attr("outcome", "told")
    assert stored(url)[0]["user_attrs"] == {"evaluation/50": "here", "outcome": "told"}
