"""Contracts of saved weights: they come back exactly, and nothing else comes back."""

import io
import json
import os
import pickle
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from models.config import LSTMConfig, WindowShape
from models.forecaster import Forecaster
from pipelines.weights import (
    forecaster_from_bytes,
    forecaster_from_file,
    metadata_from_bytes,
    weights_to_bytes,
)

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
    tensors["skip.weight"] = tensors["skip.weight"].mT.contiguous()


def halve_a_tensor(tensors: dict[str, torch.Tensor], _: dict[str, str]) -> None:
    tensors["skip.weight"] = tensors["skip.weight"].half()


def set_metadata(key: str, text: str | None) -> Change:
    def change(_: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
        if text is None:
            del metadata[key]
        else:
            metadata[key] = text

    return change


def spoil_a_weight(tensors: dict[str, torch.Tensor], _: dict[str, str]) -> None:
    tensors["skip.weight"][0, 1, 2] = torch.nan


def spoil_a_weight_infinitely(tensors: dict[str, torch.Tensor], _: dict[str, str]) -> None:
    tensors["skip.bias"][0] = -torch.inf


def add_tensors(tensors: dict[str, torch.Tensor], _: dict[str, str]) -> None:
    for number in range(1000):
        tensors[f"\x1b[2J{number:03d}"] = torch.zeros(0)


def huge(**sizes: int) -> Change:
    def change(_: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
        metadata["window_shape"] = json.dumps(SHAPE.model_dump() | sizes)

    return change


def many_layers(_: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    metadata["lstm_config"] = json.dumps({"widths": [1] * 100_000})


def huge_widths(_: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    metadata["lstm_config"] = '{"widths": [1000000000, 1000000000]}'


def huge_horizon(_: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    # Of an aligned head no weight depends on the horizon, so the counts still agree.
    metadata["window_shape"] = json.dumps(SHAPE.model_dump() | {"horizon": 10**15})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_a_tensor, "must have 394 weights: got 390"),
        (rename_a_tensor, r"missing skip\.bias, unknown other;"),
        (transpose_a_tensor, r"skip\.weight must be \[1, 4, 12\] .* got \[1, 12, 4\]"),
        (halve_a_tensor, r"must be .* torch\.float32: got .* torch\.float16"),
        (set_metadata("lstm_config", None), "must hold lstm_config: got window_shape;"),
        (set_metadata("window_shape", None), "must hold window_shape: got lstm_config;"),
        (set_metadata("lstm_config", "not JSON"), "must hold a valid lstm_config"),
        (set_metadata("lstm_config", '{"widths": [0]}'), r"greater than 0 \(widths\.0\)"),
        (set_metadata("lstm_config", '{"widths": [4], "x": 1}'), r"not permitted \(x\)"),
        (huge_widths, r"must have [\d,]+ weights: got 394"),
        (spoil_a_weight, r"skip\.weight must be finite: got NaN or infinity"),
        (spoil_a_weight_infinitely, r"skip\.bias must be finite"),
        (add_tensors, r"unknown \\x1b\[2J000, \\x1b\[2J001, .*, …; give"),
        (many_layers, "at most 64 items"),
        (huge(num_features=10**18), "must have [\\d,]+ weights: got 394"),
        (huge(num_features=10**12, num_targets=10**12), "must have [\\d,]+ weights: got 394"),
        (huge(num_known=10**12), "must have [\\d,]+ weights: got 394"),
        (huge(lookback=10**12), "at most 1,000,000 steps together"),
        (huge(horizon=10**30), "a whole number must be between"),
        (set_metadata("window_shape", "[" * 100_000), "must hold a valid window_shape"),
        (set_metadata("lstm_config", '{"widths": [4], "\\u001b[2J": 1}'), r"\(\\x1b\[2J\)"),
        (huge_horizon, "at most 1,000,000 steps together"),
    ],
)
def test_weights_that_are_not_those_of_the_configuration_are_refused(
    change: Change, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        forecaster_from_bytes(altered(change))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


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


# From a file


def test_a_forecaster_comes_back_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "000.safetensors"
    file.write_bytes(saved())
    assert forecaster_from_file(file).config == forecaster_from_bytes(saved()).config


def test_a_missing_file_of_weights_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"000\.safetensors"):
        forecaster_from_file(tmp_path / "000.safetensors")


def test_a_link_in_the_place_of_weights_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(saved())
    link = tmp_path / "000.safetensors"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"regular file of at most .* and no link to one: got Too"):
        forecaster_from_file(link)


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match="got no regular file at "):
            forecaster_from_file(path)


def test_a_file_larger_than_any_model_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "000.safetensors"
    with file.open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(ValueError, match="got 1,099,511,627,776 bytes at "):
        forecaster_from_file(file)


def test_a_pickle_in_the_place_of_weights_is_refused_unrun(tmp_path: Path) -> None:
    class Canary:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "canary",)

    for content in (pickle.dumps(Canary()), torch_saved(Canary())):
        file = tmp_path / "000.safetensors"
        file.write_bytes(content)
        with pytest.raises(ValueError, match="weights must be safetensors: got"):
            forecaster_from_file(file)
        assert not (tmp_path / "canary").exists()
    pickle.loads(pickle.dumps(Canary()))
    assert (tmp_path / "canary").exists(), "the canary sings where a pickle is loaded"


def torch_saved(value: object) -> bytes:
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


def test_a_header_that_claims_gigabytes_costs_no_memory() -> None:
    claims = [
        with_header(b"{}", length=2**40),
        with_header(b"", length=2**64 - 1),
        with_header(
            b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
        ),
        altered(huge_widths),
        altered(huge(num_known=10**12)),
    ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for data in claims:
        with pytest.raises(ValueError, match="weights"):
            forecaster_from_bytes(data)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 256 * 1024
