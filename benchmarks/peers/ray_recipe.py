"""The recipe of Ray Tune's documentation: a function trainable, OptunaSearch, ASHA, MLflow.

python -m benchmarks.peers.ray_recipe TASK FOLDER --trials 30
"""

from typing import Any

import torch
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

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


def train(config: dict[str, Any], arguments: Arguments) -> None:
    """One trial."""
    torch.set_num_threads(1)
    name = tune.get_context().get_trial_id()
    run = TrialRun(**config)
    training = PlainTraining(arguments.task, run)
    for steps in range(EVALUATE_EVERY_STEPS, MAX_STEPS + 1, EVALUATE_EVERY_STEPS):
        training.train(EVALUATE_EVERY_STEPS)
        run.evaluated(steps, training.validate())
        write_run(arguments.folder, name, run)
        tune.report({"val_mae": run.best_mae, "steps": steps})


def main() -> None:
    """Search."""
    arguments = read_arguments()
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train, arguments=arguments), {"cpu": 1}),
        param_space={
            "hidden_size": tune.lograndint(HIDDEN_SIZES[0], HIDDEN_SIZES[1] + 1),
            "num_layers": tune.randint(NUM_LAYERS[0], NUM_LAYERS[1] + 1),
            "learning_rate": tune.loguniform(*LEARNING_RATES),
            "batch_size": tune.choice(list(BATCH_SIZES)),
        },
        tune_config=tune.TuneConfig(
            metric="val_mae",
            mode="min",
            search_alg=OptunaSearch(seed=arguments.seed),
            scheduler=ASHAScheduler(max_t=MAX_STEPS // EVALUATE_EVERY_STEPS, reduction_factor=3),
            num_samples=arguments.num_trials,
            max_concurrent_trials=NUM_SLOTS,
        ),
        run_config=tune.RunConfig(
            storage_path=str(arguments.folder / "ray"),
            callbacks=[
                MLflowLoggerCallback(
                    tracking_uri=f"sqlite:///{arguments.folder / 'mlflow.db'}",
                    experiment_name="peer",
                )
            ],
        ),
    )
    tuner.fit()


if __name__ == "__main__":
    main()
