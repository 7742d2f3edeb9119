"""What this machine computes with, and in; loads torch only where nobody else can tell."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bf16"]

CPUINFO = Path("/proc/cpuinfo")

GPU_DEVICES = tuple(map(Path, ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/dxg", "/dev/kfd")))
"""NVIDIA's driver, its boards with a GPU inside, Windows' below a Linux, AMD's."""

BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
"""Of x86 processors that compute in it."""


def has_nvidia_driver() -> bool:
    """Return whether this machine has an NVIDIA GPU, whatever torch is built for."""
    return bool(Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"))


def may_have_gpu() -> bool:
    """Return whether torch might find a GPU: NVIDIA's, or AMD's, which it calls CUDA too."""
    if platform.system() != "Linux":
        return True
    return has_nvidia_driver() or any(device.exists() for device in GPU_DEVICES)


def torch_finds_gpu() -> bool:
    """Return whether torch finds a GPU; it is loaded only where there may be one."""
    if not may_have_gpu():
        return False
    import torch

    return torch.cuda.is_available()


def hardware_name(device: str) -> str:
    """Return the make of the GPU or the CPU that a trial runs on here."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return _of_first_core("model name") or platform.machine()


def resolve_precision(
    precision: Literal["auto", "float32", "bf16"], device: torch.device | str
) -> Precision:
    """Return the precision on a device: `auto` is bf16 where the hardware computes in it.

    A study calls this once and records the answer, so that mixed machines do not mix numerics.

    Raises:
        ValueError: bf16 is asked of a device that does not compute in it.
    """
    if precision == "float32":
        return precision
    has_bf16 = _gpu_has_bf16() if str(device).startswith("cuda") else _cpu_has_bf16()
    if precision == "auto":
        return "bf16" if has_bf16 else "float32"
    if not has_bf16:
        # Emulated, an LSTM step takes six times as long on a CPU, and oneDNN refuses it.
        raise ValueError(
            f"precision bf16 needs a device that computes in it: got {device} without; "
            "choose float32 or auto"
        )
    return precision


def _gpu_has_bf16() -> bool:
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _cpu_has_bf16() -> bool:
    flags = _of_first_core("flags").split()
    if flags:
        return not BF16_FLAGS.isdisjoint(flags)
    import torch

    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in BF16_FLAGS)


def _of_first_core(key: str) -> str:
    """Return what Linux says of a core; empty where it says nothing."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
