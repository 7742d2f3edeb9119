"""Optuna's database, but a trial that comes with its parameters is written by few statements."""

import json
from typing import Any, cast

from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial


class BulkStore(RDBStorage):
    """A database that takes whole trials quickly.

    Optuna's own way looks, for each parameter, up the trial, the study's earlier distribution and
    an earlier value, none of which there is: four statements each. A study's space is fixed.
    """

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Any
    ) -> models.TrialModel:
        if template_trial is None or template_trial.values or template_trial.intermediate_values:
            return super()._get_prepared_new_trial(study_id, template_trial, session)
        trial = models.TrialModel(
            study_id=study_id,
            number=None,
            state=template_trial.state,
            datetime_start=template_trial.datetime_start,
            datetime_complete=template_trial.datetime_complete,
        )
        session.add(trial)
        session.flush()  # gives it its id
        trial.number = trial.count_past_trials(session)
        session.add_all(_rows_of(template_trial, cast(int, trial.trial_id)))
        return trial


def _rows_of(trial: FrozenTrial, trial_id: int) -> list[Any]:
    parameters = [
        models.TrialParamModel(
            trial_id=trial_id,
            param_name=name,
            param_value=trial.distributions[name].to_internal_repr(value),
            distribution_json=distribution_to_json(trial.distributions[name]),
        )
        for name, value in trial.params.items()
    ]
    notes = [
        kind(trial_id=trial_id, key=key, value_json=json.dumps(value))
        for kind, attributes in (
            (models.TrialUserAttributeModel, trial.user_attrs),
            (models.TrialSystemAttributeModel, trial.system_attrs),
        )
        for key, value in attributes.items()
    ]
    return parameters + notes
