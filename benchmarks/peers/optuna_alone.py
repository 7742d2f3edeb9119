"""Optuna without Ray: two processes on one journal, each trial in MLflow.

python -m benchmarks.peers.optuna_alone TASK FOLDER --trials 30
"""

import multiprocessing
from collections.abc import Callable

import mlflow
import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

from benchmarks.peers.task import (
    BATCH_SIZES,
    EVALUATE_EVERY_STEPS,
    HIDDEN_SIZES,
    LEARNING_RATES,
    MAX_STEPS,
    NUM_LAYERS,
    NUM_SLOTS,
    Arguments,
    PlainTraining,
    TrialRun,
    read_arguments,
    write_run,
)

Train = Callable[[Arguments, TrialRun, Callable[[int, float], None]], None]
"""Trains a configuration; hands out each validation error, with the steps before it."""


def train_plainly(
    arguments: Arguments, run: TrialRun, evaluated: Callable[[int, float], None]
) -> None:
    """Train by the loop of torch's tutorials."""
    training = PlainTraining(arguments.task, run)
    for steps in range(EVALUATE_EVERY_STEPS, MAX_STEPS + 1, EVALUATE_EVERY_STEPS):
        training.train(EVALUATE_EVERY_STEPS)
        evaluated(steps, training.validate())


def objective(trial: optuna.Trial, arguments: Arguments, train: Train) -> float:
    """One trial: return the best validation error."""
    run = TrialRun(
        hidden_size=trial.suggest_int("hidden_size", *HIDDEN_SIZES, log=True),
        num_layers=trial.suggest_int("num_layers", *NUM_LAYERS),
        learning_rate=trial.suggest_float("learning_rate", *LEARNING_RATES, log=True),
        batch_size=trial.suggest_categorical("batch_size", BATCH_SIZES),
    )

    def evaluated(steps: int, mae: float) -> None:
        run.evaluated(steps, mae)
        write_run(arguments.folder, str(trial.number), run)
        mlflow.log_metric("val_mae", run.best_mae, step=steps)
        trial.report(run.best_mae, steps)
        if trial.should_prune():
            raise optuna.TrialPruned

    with mlflow.start_run(run_name=str(trial.number)):
        mlflow.log_params(trial.params)
        train(arguments, run, evaluated)
    return run.best_mae


def work(arguments: Arguments, train: Train, seed: int) -> None:
    """Run trials until there are enough, beside other processes."""
    torch.set_num_threads(1)
    _use_mlflow(arguments)
    study = _open_study(arguments, seed)
    enough = MaxTrialsCallback(
        arguments.num_trials, states=(TrialState.COMPLETE, TrialState.PRUNED)
    )
    study.optimize(lambda trial: objective(trial, arguments, train), callbacks=[enough])


def _use_mlflow(arguments: Arguments) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{arguments.folder / 'mlflow.db'}")
    mlflow.set_experiment("peer")


def _open_study(arguments: Arguments, seed: int) -> optuna.Study:
    return optuna.create_study(
        study_name="peer",
        storage=JournalStorage(JournalFileBackend(str(arguments.folder / "journal.log"))),
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(),
        load_if_exists=True,
    )


def search(train: Train) -> None:
    """Search as the command line says."""
    arguments = read_arguments()
    _use_mlflow(arguments)  # its store is made once: two processes at a time would race
    _open_study(arguments, arguments.seed)
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=work, args=(arguments, train, NUM_SLOTS * arguments.seed + place))
        for place in range(NUM_SLOTS)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    search(train_plainly)
