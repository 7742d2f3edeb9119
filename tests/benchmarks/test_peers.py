"""The peers get the project's own windows, and the project their very configurations."""

from pathlib import Path

import torch

from benchmarks.peers.compare import task_of
from benchmarks.peers.replay import search_config, stopped_as
from benchmarks.peers.task import (
    EVALUATE_EVERY_STEPS,
    MAX_STEPS,
    PlainTraining,
    Task,
    TrialRun,
    read_runs,
    write_run,
)
from models.forecaster import Forecaster
from pipelines.scaling import Scaling
from pipelines.scores import Errors, Evaluation
from pipelines.series import load
from pipelines.splits import split
from pipelines.windows import build_windows
from search.config import SearchConfig
from search.limits import Limits
from search.resolve import resolve, starts
from search.study import open_study


def evaluation_at(step: int) -> Evaluation:
    errors = Errors(1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5)
    return Evaluation(
        step=step,
        train_loss=0.5,
        errors=errors,
        learning_rate=1e-3,
        steps_per_second=1.0,
        peak_memory_bytes=1,
        num_windows=1,
        is_full=True,
        train_seconds=1.0,
        evaluate_seconds=1.0,
    )


RUNS = [TrialRun(16, 1, 1e-3, 32, steps=150), TrialRun(40, 2, 2e-2, 64, steps=MAX_STEPS)]


def test_a_peer_trains_and_validates_on_the_projects_windows(tmp_path: Path) -> None:
    config = SearchConfig()
    data, _ = split(load(config.data), config.split)
    task_of(config, lookback=96).save(tmp_path / "task.npz")
    task = Task.read(tmp_path / "task.npz")
    windows = build_windows(data, Scaling.fit(data), 96, False, "cpu")
    for theirs, origins in (
        (task.train_windows(), windows.train_origins),
        (task.validation_windows(), windows.validation_origins),
    ):
        inputs, _ = windows.inputs(origins)
        torch.testing.assert_close(theirs.tensors[0], inputs)
        torch.testing.assert_close(theirs.tensors[1], windows.future(origins)[:, :, 0])


def test_a_replay_tries_just_the_peers_configurations_in_their_order(tmp_path: Path) -> None:
    config = search_config(RUNS, tmp_path, lookback=96, data={})
    data, _ = split(load(config.data), config.split)
    config, _ = resolve(config, data)
    found, skipped = starts(config, data.season)
    assert skipped == ()
    assert [each.model.widths for each in found] == [(16,), (40, 40)]
    for each, run in zip(found, RUNS, strict=True):
        assert each.training.learning_rate == run.learning_rate
        assert each.training.batch_size == run.batch_size
        assert (each.training.lookback, each.training.calendar) == (96, False)
        ours = Forecaster(each.model, data.window_shape(96, False))
        theirs = PlainTraining(task_of(config, 96), run).model
        assert ours.lstm is not None
        assert sum(p.numel() for p in ours.parameters()) == sum(
            p.numel() for p in theirs.parameters()
        )


def test_a_replayed_trial_ends_where_the_peers_ended(tmp_path: Path) -> None:
    config = search_config(RUNS, tmp_path, lookback=96, data={})
    data, _ = split(load(config.data), config.split)
    config, _ = resolve(config, data)
    limits = Limits(data, config.search.max_parameters, config.search.max_training_teraflops)
    url = f"sqlite:///{tmp_path / 'record.db'}"
    study = open_study(url, "s", {}, config.space, config.training, config.search, limits)
    study.queue(starts(config, data.season)[0])
    with stopped_as(RUNS):
        for run in RUNS:
            proposal = study.ask()
            assert proposal is not None
            study.started(proposal.number)
            steps = range(EVALUATE_EVERY_STEPS, MAX_STEPS + 1, EVALUATE_EVERY_STEPS)
            stopped = [s for s in steps if study.report(proposal.number, evaluation_at(s))]
            assert stopped == list(range(run.steps, MAX_STEPS, EVALUATE_EVERY_STEPS))
            study.complete(proposal.number)


def test_the_runs_of_several_processes_are_read_in_the_order_of_their_starts(
    tmp_path: Path,
) -> None:
    late, early = TrialRun(1, 1, 0.1, 8, started_at=2.0), TrialRun(2, 1, 0.1, 8, started_at=1.0)
    late.evaluated(50, 0.5)
    late.evaluated(100, 0.7)
    for name, run in (("a", late), ("b", early)):
        write_run(tmp_path, name, run)
    assert read_runs(tmp_path) == [early, late]
    assert (late.steps, late.best_mae) == (100, 0.5)
