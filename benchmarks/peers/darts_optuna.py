"""Darts' LSTM under Optuna, in two processes as `optuna_alone`; loss and training are its own.

python -m benchmarks.peers.darts_optuna TASK FOLDER --trials 30
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from darts import TimeSeries
from darts.models import BlockRNNModel
from pytorch_lightning.callbacks import Callback
from torchmetrics import MeanAbsoluteError

from benchmarks.peers.optuna_alone import search
from benchmarks.peers.task import EVALUATE_EVERY_STEPS, MAX_STEPS, Arguments, TrialRun

METRIC = "val_MeanAbsoluteError"  # Darts names it after torchmetrics' class


class _HandsOut(Callback):  # type: ignore[misc]
    """Passes each validation error on."""

    def __init__(self, evaluated: Callable[[int, float], None]) -> None:
        self._evaluated = evaluated

    def on_validation_end(self, trainer: Any, _: Any) -> None:
        if not trainer.sanity_checking:
            self._evaluated(trainer.global_step, float(trainer.callback_metrics[METRIC]))


def train_darts(
    arguments: Arguments, run: TrialRun, evaluated: Callable[[int, float], None]
) -> None:
    """Train Darts' block model of LSTM cells."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    task = arguments.task
    values = task.values.astype(np.float32)
    model = BlockRNNModel(
        input_chunk_length=task.lookback,
        output_chunk_length=task.horizon,
        model="LSTM",
        hidden_dim=run.hidden_size,
        n_rnn_layers=run.num_layers,
        batch_size=run.batch_size,
        n_epochs=MAX_STEPS,
        optimizer_kwargs={"lr": run.learning_rate},
        torch_metrics=MeanAbsoluteError(),
        random_state=arguments.seed,
        pl_trainer_kwargs={
            "accelerator": "cpu",
            "max_steps": MAX_STEPS,
            "val_check_interval": EVALUATE_EVERY_STEPS,
            "check_val_every_n_epoch": None,
            "callbacks": [_HandsOut(evaluated)],
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "logger": False,
        },
    )
    model.fit(
        TimeSeries.from_values(values[: task.num_train_rows]),
        val_series=TimeSeries.from_values(values[task.num_train_rows - task.lookback :]),
    )


if __name__ == "__main__":
    search(train_darts)
