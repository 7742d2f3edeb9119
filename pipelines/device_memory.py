"""How much of a GPU's memory a training takes, by formula.

It ranks configurations without a GPU; `python -m benchmarks.gpu_memory` compares it with what torch
allocates on one. The legend of shapes is in `models/__init__.py`.
"""

from models.config import LSTMConfig, WindowShape
from pipelines.evaluation import EVALUATION_BATCH_SIZE
from pipelines.training_config import TrainConfig

_INDEX_BYTES = 8
_COPIES_OF_WEIGHTS = 4
"""Weights, their gradients, and AdamW's two averages."""
_COPIES_OF_INPUTS = 3
"""As cut from the table, normalised, and in the order in which cuDNN reads them."""
_KEPT_PER_UNIT = 6
"""What cuDNN keeps of a unit for the backward pass: four gates, the cell, the cell's tanh."""
_GATES = 4


def predicted_peak_bytes(
    model: LSTMConfig, training: TrainConfig, shape: WindowShape, num_rows: int
) -> int:
    """Return the most bytes of tensors at a time: `torch.cuda.max_memory_allocated`.

    What CUDA itself takes in each process comes on top.

    Args:
        model: what is trained.
        training: how; its precision is resolved.
        shape: of the windows.
        num_rows: rows of the table, N.

    Raises:
        ValueError: the model cannot read such windows.
    """
    num_weights = model.num_parameters(shape)
    size = 2 if training.precision == "bf16" else 4
    trained = training.batch_size * _bytes_of_window(model, shape, size, is_trained=True)
    evaluated = EVALUATION_BATCH_SIZE * _bytes_of_window(model, shape, 4, is_trained=False)
    drawn = 2 * _INDEX_BYTES * training.evaluate_every_steps * training.batch_size
    weights = 4 * _COPIES_OF_WEIGHTS * num_weights
    if size == 2:
        weights += size * num_weights  # cast for the arithmetic
    return _table_bytes(shape, num_rows) + weights + drawn + max(trained, evaluated)


def _table_bytes(shape: WindowShape, num_rows: int) -> int:
    """Values and covariates as float32, truth and level as float64, the origins."""
    numbers = 4 * (shape.num_features + shape.num_known) + 2 * 8 * shape.num_targets
    return num_rows * (numbers + _INDEX_BYTES)


def _bytes_of_window(model: LSTMConfig, shape: WindowShape, size: int, *, is_trained: bool) -> int:
    num_rows = shape.lookback + shape.horizon
    cut = num_rows * (_INDEX_BYTES + 4 * (shape.num_features + shape.num_known))
    forecast = 4 * 4 * shape.horizon * shape.num_targets  # and truth, difference, its gradient
    if not model.widths:
        return cut + forecast
    num_states = model.num_horizon_patches(shape) if model.head == "aligned" else 0
    num_positions = shape.lookback // model.patch_length + num_states
    inputs = _COPIES_OF_INPUTS * size * num_positions * model.num_channels(shape)
    units = [model.num_directions * width for width in model.widths]
    outputs = [size * num_positions * width for width in units]
    if not is_trained:
        return cut + forecast + inputs + 2 * max(outputs) * _GATES
    # Of one layer at a time: the gradients of its gates and of what it read and put out.
    backward = max((_GATES + 2) * out for out in outputs)
    return cut + forecast + inputs + sum((_KEPT_PER_UNIT + 1) * out for out in outputs) + backward
