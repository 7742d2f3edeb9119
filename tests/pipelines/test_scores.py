"""What trainings came to survives the ways on which it travels."""

import json
import math
import pickle

import pytest

from pipelines.scores import Errors, Evaluation, TrainingDiverged


def test_errors_survive_json_also_where_mase_is_undefined() -> None:
    errors = Errors(1.0, 2.0, 3.0, math.nan, 4.0, 5.0, 6.0)
    assert "mase" not in errors.to_dict()
    assert math.isnan(Errors.from_dict(errors.to_dict()).mase)
    with pytest.raises(TypeError, match="mse"):
        Errors.from_dict({"mae": 1.0})


def test_an_evaluation_without_mase_survives_json() -> None:
    errors = Errors(1.0, 2.0, 3.0, math.nan, 4.0, 5.0, 6.0)
    evaluation = Evaluation(50, 0.1, errors, 1e-3, 20.0, 10**8, 37, True, 2.5, 0.1)
    text = json.dumps(evaluation.to_dict(), allow_nan=False)
    assert repr(Evaluation.from_dict(json.loads(text))) == repr(evaluation)


def test_a_divergence_crosses_to_another_process_with_its_step() -> None:
    again = pickle.loads(pickle.dumps(TrainingDiverged(150)))
    assert again.step == 150
    assert str(again) == str(TrainingDiverged(150))
