"""Optuna's database, but what belongs together is written by few statements."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple, Self, cast

import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.dialects import postgresql, sqlite


class TrialEnd(NamedTuple):
    """How a trial ended, in Optuna's words."""

    state: TrialState
    values: Sequence[float]


@dataclass
class TrialNotes:
    """What is noted of a trial that has not ended, in Optuna's words."""

    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)
    intermediate_values: dict[int, float] = field(default_factory=dict)
    end: TrialEnd | None = None
    """Where it ends with them."""

    def add(self, later: Self) -> None:
        """Take over what was noted later."""
        self.user_attrs.update(later.user_attrs)
        self.system_attrs.update(later.system_attrs)
        self.intermediate_values.update(later.intermediate_values)
        self.end = later.end or self.end


class BulkStore(RDBStorage):
    """A database that takes whole trials and evaluations quickly, of whoever alone writes a study.

    Optuna's own way looks, for each parameter, up the trial, the study's earlier distribution and
    an earlier value, none of which there is: four statements each. A study's space is fixed. And
    it takes a transaction for each value, in which it looks the trial up again.
    """

    def add_trial(self, study_id: int, trial: FrozenTrial) -> int:
        """Add a trial of any state under its own number, in one transaction; return its id.

        That the number is the study's next one is not looked up: the only writer knows.
        """
        with _create_scoped_session(self.scoped_session) as session:
            connection = session.connection()
            added = sqlalchemy.insert(_TRIALS).values(
                study_id=study_id,
                number=trial.number,
                state=trial.state,
                datetime_start=trial.datetime_start,
                datetime_complete=trial.datetime_complete,
            )
            (trial_id,) = cast(tuple[int], connection.execute(added).inserted_primary_key)
            if parameters := _parameter_rows(trial, trial_id):
                connection.execute(sqlalchemy.insert(models.TrialParamModel.__table__), parameters)
            notes = TrialNotes(trial.user_attrs, trial.system_attrs, trial.intermediate_values)
            _write_notes(connection, trial_id, notes)
            _write_values(connection, trial_id, trial.values or ())
        return trial_id

    def set_trial_notes(self, trial_id: int, notes: TrialNotes) -> None:
        """Set all that is noted of a trial that has not ended, in one transaction.

        Whether it has ended is not looked up: the only writer of a study knows.
        """
        with _create_scoped_session(self.scoped_session) as session:
            connection = session.connection()
            _write_notes(connection, trial_id, notes)
            if notes.end is not None:
                _write_values(connection, trial_id, notes.end.values)
                ended = {"state": notes.end.state, "datetime_complete": datetime.now()}
                this = _TRIALS.c.trial_id == trial_id
                connection.execute(sqlalchemy.update(_TRIALS).where(this).values(**ended))


_TRIALS: Any = models.TrialModel.__table__


def _parameter_rows(trial: FrozenTrial, trial_id: int) -> list[dict[str, Any]]:
    return [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": trial.distributions[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(trial.distributions[name]),
        }
        for name, value in trial.params.items()
    ]


def _write_notes(connection: sqlalchemy.Connection, trial_id: int, notes: TrialNotes) -> None:
    dialect = connection.dialect.name
    for model, attributes in (
        (models.TrialUserAttributeModel, notes.user_attrs),
        (models.TrialSystemAttributeModel, notes.system_attrs),
    ):
        if attributes:
            connection.execute(_upsert(dialect, model, "key"), _note_rows(attributes, trial_id))
    if notes.intermediate_values:
        model = models.TrialIntermediateValueModel
        rows = _intermediate_rows(notes.intermediate_values, trial_id)
        connection.execute(_upsert(dialect, model, "step"), rows)


def _write_values(
    connection: sqlalchemy.Connection, trial_id: int, values: Sequence[float]
) -> None:
    if values:
        model = models.TrialValueModel
        rows = _value_rows(values, trial_id)
        connection.execute(_upsert(connection.dialect.name, model, "objective"), rows)


def _note_rows(attributes: Mapping[str, Any], trial_id: int) -> list[dict[str, Any]]:
    return [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        for key, value in attributes.items()
    ]


def _value_rows(values: Sequence[float], trial_id: int) -> list[dict[str, Any]]:
    rows = []
    for objective, value in enumerate(values):
        stored, kind = models.TrialValueModel.value_to_stored_repr(value)
        rows.append(
            {"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind}
        )
    return rows


def _intermediate_rows(values: Mapping[int, float], trial_id: int) -> list[dict[str, Any]]:
    rows = []
    for step, value in values.items():
        stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        rows.append(
            {
                "trial_id": trial_id,
                "step": step,
                "intermediate_value": stored,
                "intermediate_value_type": kind,
            }
        )
    return rows


@cache
def _upsert(dialect: str, model: Any, key: str) -> sqlalchemy.Insert:
    """The statement that sets rows of a trial, told apart by `key`, whether or not they exist."""
    insert = (postgresql if dialect == "postgresql" else sqlite).insert(model.__table__)
    found = ("trial_id", key)
    others = [
        column for column in insert.table.c if column.name not in found and not column.primary_key
    ]
    excluded = {column.name: insert.excluded[column.name] for column in others}
    upsert: sqlalchemy.Insert = insert.on_conflict_do_update(index_elements=found, set_=excluded)
    return upsert
