"""A trained forecaster as safetensors bytes, its configuration beside the weights.

Reading never unpickles, so a file cannot run code; bytes from a stranger are checked before
anything of their sizes is allocated. Format: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor

from models.config import LSTMConfig, WindowShape
from models.forecaster import Forecaster
from pipelines.printable import printable

CONFIG_KEY = "lstm_config"
SHAPE_KEY = "window_shape"

MAX_WINDOW_STEPS = 1_000_000
"""Largest lookback and horizon that are read. An aligned head has no weight for them, so the bytes
that are there do not bound them as they bound every other size."""

MAX_FILE_BYTES = 2**32
"""Largest file that is read: a thousand million weights."""

Settings = TypeVar("Settings", LSTMConfig, WindowShape)


def weights_to_bytes(forecaster: Forecaster, extra: dict[str, str] | None = None) -> bytes:
    """Return the weights as safetensors, with configuration, shape and `extra` as metadata.

    Raises:
        ValueError: `extra` has a key that the configuration or the shape uses.
    """
    extra = extra or {}
    own = {
        CONFIG_KEY: forecaster.config.model_dump_json(),
        SHAPE_KEY: forecaster.shape.model_dump_json(),
    }
    if taken := own.keys() & extra.keys():
        raise ValueError(
            f"metadata keys must differ from {CONFIG_KEY} and {SHAPE_KEY}: got "
            f"{', '.join(sorted(taken))}; choose other keys"
        )
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in forecaster.state_dict().items()
    }
    return safetensors.torch.save(tensors, metadata=own | extra)


def forecaster_from_file(path: Path) -> Forecaster:
    """Return the forecaster in a file, as `forecaster_from_bytes` does.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is a link, no file, too large, or none that `weights_to_bytes` made.
    """
    # Opened before it is looked at, so that nothing can take its place between the two.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(_refused_file(path, os.strerror(error.errno or 0))) from None
    try:
        _check_file(path, os.fstat(descriptor))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return forecaster_from_bytes(file.read())
    finally:
        os.close(descriptor)


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(_refused_file(path, "no regular file"))
    if status.st_size > MAX_FILE_BYTES:
        raise ValueError(_refused_file(path, f"{status.st_size:,} bytes"))


def _refused_file(path: Path, got: str) -> str:
    return (
        f"weights must be a regular file of at most {MAX_FILE_BYTES:,} bytes, and no link to one: "
        f"got {got} at {path}; give a file that a search saved"
    )


def forecaster_from_bytes(data: bytes) -> Forecaster:
    """Return the forecaster that `weights_to_bytes` saved, on the CPU, in evaluation mode.

    Raises:
        ValueError: The bytes are no safetensors, or lack the metadata, or the weights are not those
            of the configuration beside them.
    """
    tensors = _read_tensors(data)
    metadata = metadata_from_bytes(data)
    config = _read_settings(LSTMConfig, metadata, CONFIG_KEY)
    shape = _read_settings(WindowShape, metadata, SHAPE_KEY)
    _check_sizes(config, shape, tensors)
    forecaster = Forecaster(config, shape)
    _check_tensors(forecaster.state_dict(), tensors)
    forecaster.load_state_dict(tensors)
    return forecaster.eval()


def metadata_from_bytes(data: bytes) -> dict[str, str]:
    """Return the metadata of safetensors bytes, the caller's `extra` included.

    Raises:
        ValueError: The bytes are no safetensors.
    """
    _read_tensors(data)  # has the header checked, its length and nesting included
    # The library reads metadata from files only. A header is JSON after its length in 8 bytes.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata: dict[str, str] = header.get("__metadata__") or {}
    return metadata


def _read_tensors(data: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise ValueError(
            f"weights must be safetensors: got {len(data)} bytes that are not ({error}); "
            "give a file that a search saved"
        ) from error


def _read_settings(settings: type[Settings], metadata: dict[str, str], key: str) -> Settings:
    if key not in metadata:
        raise ValueError(
            f"the weights' metadata must hold {key}: got {_listed(metadata)}; "
            "give a file that a search saved"
        )
    try:
        return settings.model_validate_json(metadata[key])
    except ValidationError as error:
        first = error.errors()[0]
        where = _listed([".".join(map(str, first["loc"]))]) if first["loc"] else "the whole"
        raise ValueError(
            f"the weights' metadata must hold a valid {key}: got {first['msg']} ({where}); "
            "give a file that a search saved"
        ) from error


def _check_sizes(config: LSTMConfig, shape: WindowShape, tensors: dict[str, Tensor]) -> None:
    """Raise ValueError where the configuration would need more than the bytes that are there."""
    if shape.lookback + shape.horizon > MAX_WINDOW_STEPS:
        raise ValueError(
            f"lookback and horizon must be at most {MAX_WINDOW_STEPS:,} steps together: got "
            f"{shape.lookback:,} and {shape.horizon:,}; give a file that a search saved"
        )
    expected = config.num_parameters(shape)
    num_parameters = sum(tensor.numel() for tensor in tensors.values())
    if num_parameters != expected:
        raise ValueError(
            f"{config.describe()} must have {expected:,} weights: got {num_parameters:,}; "
            "give the weights that belong to this configuration"
        )


def _check_tensors(expected: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    """Raise ValueError where a name, shape or number type differs."""
    if expected.keys() != tensors.keys():
        missing, unknown = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
        raise ValueError(
            f"weights must be exactly those of the configuration: missing {_listed(missing)}, "
            f"unknown {_listed(unknown)}; give a file that a search saved"
        )
    for name, tensor in tensors.items():
        wanted = expected[name]
        if (tensor.shape, tensor.dtype) != (wanted.shape, wanted.dtype):
            raise ValueError(
                f"{name} must be {list(wanted.shape)} {wanted.dtype}: got {list(tensor.shape)} "
                f"{tensor.dtype}; give a file that a search saved"
            )
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} must be finite: got NaN or infinity; train it again")


def _listed(names: Iterable[str]) -> str:
    """The first few names of a file that may be anybody's."""
    shown = [printable(name)[:60] for name in sorted(names)]
    return ", ".join(shown[:5] + ["…"] * (len(shown) > 5)) or "none"
