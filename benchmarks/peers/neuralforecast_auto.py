"""NeuralForecast's AutoLSTM on its Ray backend with ASHA; model, loss and scaling are its own.

python -m benchmarks.peers.neuralforecast_auto TASK FOLDER --trials 30
"""

import time
from pathlib import Path
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


class TrialsLeft(tune.Callback):  # type: ignore[misc]
    """Leaves each trial as it is evaluated; its loss is the mean absolute error, as elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._runs: dict[str, TrialRun] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Note a validation error."""
        config = trial.config
        run = self._runs.setdefault(
            trial.trial_id,
            TrialRun(
                hidden_size=config["encoder_hidden_size"],
                num_layers=config["encoder_n_layers"],
                learning_rate=config["learning_rate"],
                batch_size=config["windows_batch_size"],
                started_at=time.time() - result["time_total_s"],
            ),
        )
        run.evaluated(run.steps + EVALUATE_EVERY_STEPS, float(result["loss"]))
        write_run(self.folder, trial.trial_id, run)


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
        callbacks=[TrialsLeft(arguments.folder)],
        ray_options=RayOptions(
            cpus=1,
            gpus=0,
            scheduler=ASHAScheduler(max_t=MAX_STEPS // EVALUATE_EVERY_STEPS, reduction_factor=3),
        ),
    )
    forecasts = NeuralForecast(models=[model], freq="h")
    forecasts.fit(table, val_size=len(task.values) - task.num_train_rows)


if __name__ == "__main__":
    main()
