"""What a configuration leaves open, settled by the table."""

from collections.abc import Callable

import pytest

from pipelines.splits import SearchData
from search.config_file import parse_config
from search.resolve import num_validation_windows, resolve, resolve_device

MakeData = Callable[..., SearchData]


@pytest.mark.parametrize(
    ("horizon", "expected"), [(1, 2048), (3, 2048), (5, 1229), (24, 256), (48, 256)]
)
def test_short_forecasts_need_more_validation_windows(horizon: int, expected: int) -> None:
    assert num_validation_windows(horizon) == expected


@pytest.mark.parametrize(
    ("given", "expected"), [({}, 1536), ({"max_validation_windows": 300}, 300)]
)
def test_a_search_says_how_many_validation_windows_it_takes(
    make_data: MakeData, given: dict[str, int], expected: int
) -> None:
    resolved, _ = resolve(parse_config({"training": given}), make_data())  # horizon 4
    assert resolved.training.max_validation_windows == expected


@pytest.mark.parametrize(
    ("asked", "may", "finds_gpu", "expected"),
    [
        ("auto", False, True, "cpu"),
        ("auto", True, True, "cuda"),
        ("auto", True, False, "cpu"),
        ("cpu", True, True, "cpu"),
        ("cuda", True, True, "cuda"),
    ],
)
def test_torch_is_asked_for_a_gpu_where_there_may_be_one(
    monkeypatch: pytest.MonkeyPatch, asked: str, may: bool, finds_gpu: bool, expected: str
) -> None:
    monkeypatch.setattr("pipelines.hardware.may_have_gpu", lambda: may)
    monkeypatch.setattr("torch.cuda.is_available", lambda: finds_gpu)
    assert resolve_device(asked) == expected
