"""How much of a GPU's memory a training takes, by formula.

It ranks configurations without a GPU; `python -m benchmarks.gpu_memory` compares it with what torch
allocates on one. What cuDNN sets aside is nowhere documented: its numbers here were fitted to 51
trainings on an H200 (cuDNN 9.19), cuBLAS's was noticed on others (docs/gpu.md). The legend of
shapes is in `models/__init__.py`.
"""

from models.config import LSTMConfig, WindowShape
from pipelines.training_config import EVALUATION_BATCH_SIZE, TrainConfig

_MIB = 2**20
_INDEX_BYTES = 8
_CUBLAS_BYTES = 64 * _MIB
"""Workspaces of the forward and of the backward pass, by `CUBLAS_WORKSPACE_CONFIG`; a stream."""
_CUDNN_BYTES = 8.1 * _MIB
"""Whatever the size, for each direction."""
_COPIES_OF_WEIGHTS = 4
"""Weights, their gradients, and AdamW's two averages."""
_COPIES_OF_INPUTS = 4.3
"""As cut from the table, normalised, joined, and in the order in which cuDNN reads them."""
_KEPT_PER_UNIT = 6.8
"""What cuDNN keeps of a unit for the backward pass: four gates, the cell, its tanh, the state."""
_WIDEST_SMALL = 192
"""cuDNN runs layers up to about this width in another way, which needs more memory."""
_WORKSPACE_PER_UNIT = {(True, 1): 22.5, (True, 2): 16.3, (False, 1): 7.2, (False, 2): 9.2}
"""In use while a layer runs, by whether it is small and by its directions."""
_PASSED_PER_UNIT = 1.7
"""What a layer above the first reads."""


def predicted_peak_bytes(
    model: LSTMConfig,
    training: TrainConfig,
    shape: WindowShape,
    num_rows: int,
) -> int:
    """Return the most bytes of tensors at a time: `torch.cuda.max_memory_allocated`.

    What CUDA itself takes in each process comes on top, and with CUDA graphs cuBLAS's workspaces
    once more.

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
    libraries: float = _CUBLAS_BYTES
    if model.widths:
        libraries += _CUDNN_BYTES * model.num_directions
    peak = libraries + _table_bytes(shape, num_rows) + weights + drawn + max(trained, evaluated)
    return int(peak)


def _table_bytes(shape: WindowShape, num_rows: int) -> int:
    """Values and covariates as float32, truth and level as float64, the origins."""
    numbers = 4 * (shape.num_features + shape.num_known) + 2 * 8 * shape.num_targets
    return num_rows * (numbers + _INDEX_BYTES)


def _bytes_of_window(
    model: LSTMConfig, shape: WindowShape, size: int, *, is_trained: bool
) -> float:
    num_rows = shape.lookback + shape.horizon
    cut = num_rows * 4 * (shape.num_features + shape.num_known)
    forecast = 4 * 4 * shape.horizon * shape.num_targets  # and truth, difference, its gradient
    if not model.widths:
        return cut + forecast
    num_states = model.num_horizon_patches(shape) if model.head == "aligned" else 0
    num_positions = shape.lookback // model.patch_length + num_states
    inputs = _COPIES_OF_INPUTS * size * num_positions * model.num_channels(shape)
    # A layer's states, [L, D*U] of one window.
    states = [size * num_positions * model.num_directions * width for width in model.widths]
    while_run = max(
        state * (_workspace(model, width) + (_PASSED_PER_UNIT if place else 0))
        for place, (state, width) in enumerate(zip(states, model.widths, strict=True))
    )
    kept = _KEPT_PER_UNIT * sum(states) if is_trained else 0
    return cut + forecast + inputs + kept + while_run


def _workspace(model: LSTMConfig, width: int) -> float:
    return _WORKSPACE_PER_UNIT[width <= _WIDEST_SMALL, model.num_directions]
