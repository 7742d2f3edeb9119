"""NeuralForecast's AutoLSTM on its Ray backend with ASHA; model, loss and scaling are its own.

python -m benchmarks.peers.neuralforecast_auto TASK FOLDER --trials 30
"""

from typing import Any

import pandas as pd
from neuralforecast import NeuralForecast
from neuralforecast.auto import AutoLSTM, RayOptions
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.peers.task import (
    BATCH_SIZES,
    EVALUATE_EVERY_STEPS,
    HIDDEN_SIZES,
    LEARNING_RATES,
    MAX_STEPS,
    NUM_LAYERS,
    TrialRun,
    read_arguments,
    write_run,
)


def trial_run(result: Any) -> TrialRun:
    """What Tune tells of a trial, whose loss is the mean absolute error, as every peer has it."""
    config, course = result.config, result.metrics_dataframe
    return TrialRun(
        hidden_size=config["encoder_hidden_size"],
        num_layers=config["encoder_n_layers"],
        learning_rate=config["learning_rate"],
        batch_size=config["windows_batch_size"],
        steps=EVALUATE_EVERY_STEPS * len(course),
        best_mae=float(course["loss"].min()),
        started_at=float(course["timestamp"].iloc[0] - course["time_total_s"].iloc[0]),
        ended_at=float(course["timestamp"].iloc[-1]),
    )


def main() -> None:
    """Search; it ends with the best configuration trained once more."""
    arguments = read_arguments()
    task = arguments.task
    hours = pd.date_range("2014-01-01", periods=len(task.values), freq="h")
    table = pd.DataFrame({"unique_id": "series", "ds": hours, "y": task.values})
    config = {
        "h": None,
        "input_size": task.lookback,
        "encoder_hidden_size": tune.lograndint(HIDDEN_SIZES[0], HIDDEN_SIZES[1] + 1),
        "encoder_n_layers": tune.randint(NUM_LAYERS[0], NUM_LAYERS[1] + 1),
        "learning_rate": tune.loguniform(*LEARNING_RATES),
        "windows_batch_size": tune.choice(list(BATCH_SIZES)),
        "max_steps": MAX_STEPS,
        "val_check_steps": EVALUATE_EVERY_STEPS,
        "random_seed": arguments.seed,
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
    }
    model = AutoLSTM(
        h=task.horizon,
        config=config,
        search_alg=OptunaSearch(seed=arguments.seed),
        num_samples=arguments.num_trials,
        ray_options=RayOptions(
            cpus=1,
            gpus=0,
            scheduler=ASHAScheduler(max_t=MAX_STEPS // EVALUATE_EVERY_STEPS, reduction_factor=3),
        ),
    )
    forecasts = NeuralForecast(models=[model], freq="h")
    forecasts.fit(table, val_size=len(task.values) - task.num_train_rows)
    for place, result in enumerate(forecasts.models[0].results):
        write_run(arguments.folder, str(place), trial_run(result))


if __name__ == "__main__":
    main()
