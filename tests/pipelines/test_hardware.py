"""What a machine computes with and in, as Linux or torch say."""

from pathlib import Path

import pytest
import torch

from pipelines import hardware
from pipelines.hardware import hardware_name, may_have_gpu, resolve_precision

PLAIN = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512f\n"
WITH_BF16 = "processor\t: 0\nmodel name\t: Intel Xeon\nflags\t\t: fpu avx2 {}\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16\n"


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(hardware, "CPUINFO", file)
    return file


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PLAIN, "float32"),
        (WITH_BF16.format("avx512_bf16"), "bf16"),
        (WITH_BF16.format("amx_bf16"), "bf16"),
    ],
)
def test_auto_is_bf16_where_linux_says_that_the_cpu_computes_in_it(
    cpuinfo: Path, text: str, expected: str
) -> None:
    cpuinfo.write_text(text)
    assert resolve_precision("auto", "cpu") == expected
    assert resolve_precision("auto", torch.device("cpu")) == expected
    assert resolve_precision("float32", "cpu") == "float32"


@pytest.mark.parametrize("text", [ARM, None])
@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True}, "float32"),
        ({"avx2": True, "avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True, "avx512_bf16": False}, "bf16"),
    ],
)
def test_torch_is_asked_where_linux_does_not_say(
    cpuinfo: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    capabilities: dict[str, bool],
    expected: str,
) -> None:
    if text is not None:
        cpuinfo.write_text(text)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve_precision("auto", "cpu") == expected


def test_linux_and_torch_say_the_same_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = resolve_precision("auto", "cpu")
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "none")
    assert resolve_precision("auto", "cpu") == said


def test_bf16_is_refused_where_the_cpu_does_not_compute_in_it(cpuinfo: Path) -> None:
    cpuinfo.write_text(PLAIN)
    with pytest.raises(ValueError, match="computes in it: got cpu without; choose float32"):
        resolve_precision("bf16", "cpu")


def test_a_cpu_has_the_name_that_linux_gives_it_or_its_kind(cpuinfo: Path) -> None:
    assert " " not in hardware_name("cpu")
    cpuinfo.write_text(PLAIN)
    assert hardware_name("cpu") == "AMD EPYC"


def test_a_gpu_is_ruled_out_only_on_a_linux_without_any_sign_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_nvidia_driver", lambda: False)
    monkeypatch.setattr(hardware, "GPU_DEVICES", (tmp_path / "kfd",))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    assert not may_have_gpu()
    (tmp_path / "kfd").touch()
    assert may_have_gpu()
    (tmp_path / "kfd").unlink()
    monkeypatch.setattr(hardware, "has_nvidia_driver", lambda: True)
    assert may_have_gpu()
    monkeypatch.setattr(hardware, "has_nvidia_driver", lambda: False)
    monkeypatch.setattr("platform.system", lambda: "Windows")
    assert may_have_gpu()
