"""Ends with 130 while another thread collects garbage of Ray's; `test_executor.py` starts it.

As an interrupted search does: Tune is left in the middle, and MLflow's thread works on.
"""

import gc
import sys
import threading
import time

from search.cluster import connect, ray
from search.config import Resources

NUM_OBJECTS = 10_000  # so many that some are let go after Ray has ended


class Knot:
    """Garbage, once nobody else refers to it, that only a collection finds."""

    def __init__(self) -> None:
        self.itself = self
        self.object = ray.put(None)


def collect_while_ray_ends() -> None:
    while ray.is_initialized():
        time.sleep(0.001)
    gc.collect()


def main() -> None:
    connect(Resources(), is_verbose=False)
    gc.disable()  # else some would be found before
    for _ in range(NUM_OBJECTS):
        Knot()
    threading.Thread(target=collect_while_ray_ends, daemon=True).start()
    sys.exit(130)


if __name__ == "__main__":
    main()
