"""What a device computes in, what it has held, and waiting for it."""

import resource
import sys
from typing import Literal

import torch

Precision = Literal["float32", "bf16"]


def resolve_precision(
    precision: Literal["auto", "float32", "bf16"], device: torch.device | str
) -> Precision:
    """Return the precision on a device: `auto` is bf16 where the hardware computes in it.

    A study calls this once and records the answer, so that mixed machines do not mix numerics.

    Raises:
        ValueError: bf16 is asked of a device that does not compute in it.
    """
    has_bf16 = _has_bf16(torch.device(device))
    if precision == "auto":
        return "bf16" if has_bf16 else "float32"
    if precision == "bf16" and not has_bf16:
        # Emulated, an LSTM step takes six times as long on a CPU, and oneDNN refuses it.
        raise ValueError(
            f"precision bf16 needs a device that computes in it: got {device} without; "
            "choose float32 or auto"
        )
    return precision


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was given, and leave the core to others meanwhile.

    Reading a result keeps a core busy as long, which trials that share a GPU need for their driver.
    """
    if device.type == "cuda":
        end = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        end.record(torch.cuda.current_stream(device))
        end.synchronize()


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most that a GPU has held since its peak was reset, or this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
