"""How busy the first GPU is while a block lasts, by `nvidia-smi`."""

import statistics
import subprocess
import tempfile
from datetime import datetime
from typing import Self

READINGS_A_SECOND = 10


class GpuBusy:
    """Reads, within a block, in what share of the time a kernel ran; several times a second."""

    def __enter__(self) -> Self:
        query = ["--id=0", "--query-gpu=timestamp,utilization.gpu", "--format=csv,noheader,nounits"]
        self._output = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            ["nvidia-smi", *query, "-lms", str(1000 // READINGS_A_SECOND)], stdout=self._output
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._output.seek(0)
        lines = [line.split(",") for line in self._output.read().splitlines()]
        self._output.close()
        self._percents = {_seconds(cells[0]): int(cells[1]) for cells in lines if len(cells) == 2}

    def between(self, began_at: float, ended_at: float) -> float:
        """The mean of the readings between two times (seconds since 1970), in percent."""
        return statistics.fmean(
            percent for time, percent in self._percents.items() if began_at <= time <= ended_at
        )


def _seconds(timestamp: str) -> float:
    return datetime.strptime(timestamp.strip(), "%Y/%m/%d %H:%M:%S.%f").timestamp()
