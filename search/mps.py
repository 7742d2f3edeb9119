"""NVIDIA's Multi-Process Service: processes that share a GPU run their kernels side by side.

Without it they take turns, and small kernels leave most of the GPU idle in each turn.
"""

import atexit
import os
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

from search.config import ConfigError

CONTROL = "nvidia-cuda-mps-control"
PATIENCE_SECONDS = 10.0

# Ends the service with whoever holds the other end of its input, however that process ends.
_KEEP = f'{CONTROL} -d && read -r _; echo quit | {CONTROL}; rm -rf "$CUDA_MPS_PIPE_DIRECTORY"'

_keepers: list[subprocess.Popen[bytes]] = []
"""Held, for the service would end with them."""


@cache
def mps_environment() -> dict[str, str]:
    """Start the service for this process and its children; return what lets children use it.

    It runs in a folder of this user only and ends with this process. A service that the environment
    names already is used instead.

    Raises:
        ConfigError: where there is no such service, or it does not start.
    """
    if os.environ.get("CUDA_MPS_PIPE_DIRECTORY"):
        return {}  # inherited
    if shutil.which(CONTROL) is None:
        raise ConfigError(
            f"resources.mps needs NVIDIA's Multi-Process Service on this machine: got no {CONTROL} "
            "on the PATH; install it with the driver, or drop resources.mps"
        )
    folder = tempfile.mkdtemp(prefix="lstm-search-mps-")
    variables = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
    # With some devices alone the service would number them anew, where Ray's workers are told the
    # old numbers.
    every_device = {n: v for n, v in os.environ.items() if n != "CUDA_VISIBLE_DEVICES"}
    # In a session of its own: Ctrl+C in the terminal is not for it.
    keeper = subprocess.Popen(
        ["/bin/sh", "-c", _KEEP],
        env=every_device | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _keepers.append(keeper)
    assert keeper.stdin is not None
    atexit.register(keeper.stdin.close)
    _wait_for_control(keeper, Path(folder))
    return variables


def _wait_for_control(keeper: subprocess.Popen[bytes], folder: Path) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not (folder / "control").exists():
        if keeper.poll() is not None or time.monotonic() > until:
            raise ConfigError(
                f"resources.mps needs NVIDIA's Multi-Process Service to start: `{CONTROL} -d` "
                "did not; try it by hand, or drop resources.mps"
            )
        time.sleep(0.05)
