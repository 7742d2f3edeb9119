"""What memory a device has held, and waiting for it."""

import resource
import sys

import torch


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
