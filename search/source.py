"""The code of this project: where other processes find it, and as it is sent to a cluster."""

import os
import shutil
import sysconfig
from pathlib import Path

PROJECT = Path(__file__).parents[1]
FLOORS = ("models", "pipelines", "search")


def python_path() -> str:
    """PYTHONPATH for another process: this code, wherever another is installed."""
    paths = [path for path in [os.environ.get("PYTHONPATH")] if path]
    if Path(sysconfig.get_path("purelib")) != PROJECT:  # which Python looks into by itself
        paths = [str(PROJECT), *paths]
    return os.pathsep.join(paths)


def copy_source(folder: Path) -> None:
    """Put a copy of the code into a folder, from which `python -m search.run` then runs."""
    for floor in FLOORS:
        without = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / floor, folder / floor, ignore=without)
