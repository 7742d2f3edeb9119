"""A simulated search ends as a real one does, and its curves are those that were recorded."""

from pathlib import Path

import numpy as np

from benchmarks.recorded_curves import NUM_NEAREST, Curves
from benchmarks.scale import Simulation, opened
from search.kept_weights import KeptWeights
from search.record import TrialState


def test_every_simulated_trial_ends_and_stands_in_the_record(tmp_path: Path) -> None:
    curves = Curves.read()
    study = opened(tmp_path, 30, curves).study
    simulation = Simulation(study, KeptWeights(tmp_path / "weights"), curves, num_workers=8)
    assert list(simulation.run()) == list(range(1, 31))
    states = [t.state for t in study.trials() if t.state is not TrialState.REJECTED]
    assert study.is_full
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
    assert len(states) == len(simulation.costs.seconds["start"]) == 30
    evaluations = sum(len(trial.evaluations) for trial in study.trials())
    assert len(simulation.costs.seconds["evaluate"]) == evaluations


def test_a_recorded_configuration_has_its_own_curve_and_others_a_mean() -> None:
    curves = Curves.read()
    best = int(np.argmin(curves.errors[:, -1]))
    np.testing.assert_allclose(curves.expected(curves.configs[best]), curves.errors[best], 1e-3)
    training = curves.configs[best].training
    changed = training.model_copy(update={"learning_rate": training.learning_rate * 2})
    between = curves.configs[best].model_copy(update={"training": changed})
    weights = curves._weights(between)
    assert np.count_nonzero(weights) == NUM_NEAREST
    assert not np.allclose(curves.expected(between), curves.errors[best])


def test_a_trial_of_one_seed_is_drawn_alike_and_of_another_otherwise() -> None:
    curves = Curves.read()
    config = curves.configs[0]
    np.testing.assert_array_equal(curves.drawn(config, 1)[0], curves.drawn(config, 1)[0])
    assert not np.allclose(curves.drawn(config, 1)[0], curves.drawn(config, 2)[0])
