"""Contracts of saved weights: they come back exactly, and nothing else comes back."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from models.config import LSTMConfig, WindowShape
from models.forecaster import Forecaster
from pipelines.weights import forecaster_from_bytes, metadata_from_bytes, weights_to_bytes

SHAPE = WindowShape(lookback=12, horizon=4, num_features=2, num_targets=1, num_known=2, season=6)
Change = Callable[[dict[str, torch.Tensor], dict[str, str]], None]


def saved(**changes: Any) -> bytes:
    return weights_to_bytes(Forecaster(LSTMConfig(widths=(4, 4), **changes), SHAPE))


def altered(change: Change) -> bytes:
    """Saved weights after a change to the tensors or the metadata."""
    tensors, metadata = load(saved()), metadata_from_bytes(saved())
    change(tensors, metadata)
    return save(tensors, metadata=metadata)


def with_header(header: bytes, length: int | None = None, body: bytes = b"") -> bytes:
    size = len(header) if length is None else length
    return size.to_bytes(8, "little") + header + body


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dropout": 0.2, "bidirectional": True},
        {"head": "aligned", "patch_length": 3, "normalisation": "seasonal"},
    ],
    ids=["plain", "dropout, bidirectional", "aligned, patches, seasonal"],
)
def test_a_forecaster_comes_back_exactly(changes: dict[str, Any]) -> None:
    forecaster = Forecaster(LSTMConfig(widths=(4, 6), **changes), SHAPE).eval()
    for weights in forecaster.parameters():
        torch.nn.init.normal_(weights)
    again = forecaster_from_bytes(weights_to_bytes(forecaster))
    assert (again.config, again.shape, again.training) == (forecaster.config, SHAPE, False)
    window, known = torch.randn(3, 12, 2), torch.randn(3, 16, 2)
    assert torch.equal(again(window, known), forecaster(window, known))


def test_the_callers_metadata_comes_back() -> None:
    forecaster = Forecaster(LSTMConfig(widths=(4,)), SHAPE)
    metadata = metadata_from_bytes(weights_to_bytes(forecaster, {"study": "ä", "trial": "17"}))
    assert metadata["study"] == "ä"
    assert metadata["trial"] == "17"
    assert LSTMConfig.model_validate_json(metadata["lstm_config"]) == forecaster.config


def test_metadata_that_would_replace_the_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must differ from .* got window_shape; choose"):
        weights_to_bytes(Forecaster(LSTMConfig(widths=(4,)), SHAPE), {"window_shape": "{}"})


def drop_a_tensor(tensors: dict[str, torch.Tensor], _: dict[str, str]) -> None:
    del tensors["skip.bias"]


def rename_a_tensor(tensors: dict[str, torch.Tensor], _: dict[str, str]) -> None:
    tensors["other"] = tensors.pop("skip.bias")


def transpose_a_tensor(tensors: dict[str, torch.Tensor], _: dict[str, str]) -> None:
    tensors["skip.weight"] = tensors["skip.weight"].T.contiguous()


def halve_a_tensor(tensors: dict[str, torch.Tensor], _: dict[str, str]) -> None:
    tensors["skip.weight"] = tensors["skip.weight"].half()


def set_metadata(key: str, text: str | None) -> Change:
    def change(_: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
        if text is None:
            del metadata[key]
        else:
            metadata[key] = text

    return change


def huge_widths(_: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    metadata["lstm_config"] = '{"widths": [1000000000, 1000000000]}'


def huge_horizon(_: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    # Of an aligned head no weight depends on the horizon, so the counts still agree.
    metadata["window_shape"] = json.dumps(SHAPE.model_dump() | {"horizon": 10**15})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_a_tensor, "must have 394 weights: got 390"),
        (rename_a_tensor, r"missing \['skip\.bias'\], unknown \['other'\]"),
        (transpose_a_tensor, r"skip\.weight must be \[4, 12\] .* got \[12, 4\]"),
        (halve_a_tensor, r"must be .* torch\.float32: got .* torch\.float16"),
        (set_metadata("lstm_config", None), r"must hold lstm_config: got \['window_shape'\]"),
        (set_metadata("window_shape", None), r"must hold window_shape: got \['lstm_config'\]"),
        (set_metadata("lstm_config", "not JSON"), "must hold a valid lstm_config"),
        (set_metadata("lstm_config", '{"widths": [0]}'), r"greater than 0 \(widths\.0\)"),
        (set_metadata("lstm_config", '{"widths": [4], "x": 1}'), r"not permitted \(x\)"),
        (huge_widths, r"must have [\d,]+ weights: got 394"),
        (huge_horizon, "at most 1,000,000 steps together"),
    ],
)
def test_weights_that_are_not_those_of_the_configuration_are_refused(
    change: Change, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        forecaster_from_bytes(altered(change))


def test_weights_without_metadata_are_refused() -> None:
    with pytest.raises(ValueError, match="must hold lstm_config: got none"):
        forecaster_from_bytes(save(load(saved())))


def test_a_shape_that_the_configuration_cannot_read_is_refused() -> None:
    shape = SHAPE.model_dump_json().replace('"season":6', '"season":1')
    seasonal = json.dumps({"widths": [4, 4], "normalisation": "seasonal"})

    def change(_: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
        metadata.update(lstm_config=seasonal, window_shape=shape)

    with pytest.raises(ValueError, match="season"):
        forecaster_from_bytes(altered(change))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04\x95",
        saved()[:-1],
        saved() + b"\x00",
        with_header(b"{}", length=2**63),
        with_header(b"{}", length=3),
        with_header(b"[" * 100_000),
        with_header(
            b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}', body=b"0000"
        ),
        with_header(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4000000000]}}', body=b"0000"
        ),
        with_header(b'{"__metadata__":{"lstm_config":7}}'),
    ],
    ids=[
        "nothing",
        "a pickle",
        "cut off",
        "too long",
        "endless header",
        "header past the end",
        "nested header",
        "huge shape",
        "data past the end",
        "metadata that is no text",
    ],
)
def test_bytes_that_are_no_safetensors_are_refused(data: bytes) -> None:
    for read in (forecaster_from_bytes, metadata_from_bytes):
        with pytest.raises(ValueError, match="weights must be safetensors: got"):
            read(data)
