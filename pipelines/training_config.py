"""How a forecaster is trained; loads no torch, so that a command line can be read quickly.

The legend of shapes is in `models/__init__.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from models.config import Settings

EVALUATION_BATCH_SIZE = 256
"""Windows of a forward pass that evaluates: it changes the memory needed, not the errors. 256 is
the fastest on the CPUs measured."""


class TrainingBudget(Settings):
    """What every trial of a search is trained by, so that trials compare."""

    max_steps: PositiveInt = 200
    """Optimiser steps, each on one batch of sampled windows."""
    evaluate_every_steps: PositiveInt = 40
    """Steps between evaluations, where a search may stop a trial."""
    max_validation_windows: PositiveInt | None = None
    """Evenly spaced validation windows of an evaluation during training, so that its cost does
    not grow with the table. None: all there are; a search then takes as many as tell trials apart
    (`search/resolve.py`)."""
    max_final_windows: PositiveInt = 8192
    """The same for the last evaluation, of the best weights, by which trials are ranked."""
    loss: Literal["huber", "mae", "mse"] = "huber"
    """Training loss, on standardised values."""
    huber_delta: PositiveFloat = 0.05
    """Error beyond which the Huber loss grows linearly, standardised."""
    gradient_clip_norm: PositiveFloat = 1.0
    """Largest norm of all gradients together; larger ones are scaled down to it."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: falling to 0 at max_steps along a cosine, or constant."""
    warmup_steps: NonNegativeInt = 20
    """Steps in which the learning rate rises linearly from near 0."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Arithmetic of the training steps; auto: bf16 where the hardware computes in it. Weights and
    evaluations are float32 in any case."""


class TrainConfig(TrainingBudget):
    """The budget, and what a search may choose anew for each trial."""

    lookback: PositiveInt
    """L, steps of the window."""
    calendar: bool
    """Whether the forecaster reads the calendar features of the timestamps."""
    learning_rate: PositiveFloat
    """The highest of the schedule."""
    weight_decay: Annotated[float, Field(ge=0)]
    """AdamW's decoupled decay: the share of every weight lost in a step is this times the learning
    rate."""
    batch_size: PositiveInt
    """B, windows an optimiser step."""
