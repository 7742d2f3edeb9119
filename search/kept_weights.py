"""What a study keeps on disk beside its record: the best weights, and where to go on from.

Each file is replaced as a whole and has reached the disk before it gets its name, so that neither
a killed process nor a power cut leaves a part of one.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

WEIGHTS, SAVED = ".safetensors", ".state"


@dataclass(frozen=True, repr=False)  # megabytes, which Tune would format for its debug log
class Files:
    """What comes home with an evaluation."""

    weights: bytes | None
    """Where they are the trial's best so far."""
    saved: bytes | None
    """What the trial goes on from (`search.saved_trial`), now and then."""


@dataclass(frozen=True)
class KeptWeights:
    """Files `017.safetensors` in the folder of a study, each holding its configuration too.

    Beside them `017.state`, from which a trial that was interrupted goes on.
    """

    folder: Path
    """Made when the first weights arrive."""

    def path(self, number: int) -> Path:
        """Where the weights of a trial lie, if they are kept."""
        return self._path(number, WEIGHTS)

    def write(self, number: int, weights: bytes) -> None:
        """Replace a trial's weights."""
        self._write(number, WEIGHTS, weights)

    def keep_only(self, numbers: Collection[int]) -> None:
        """Delete the weights of every trial but these."""
        self._keep_only(WEIGHTS, numbers)

    def save_state(self, number: int, state: bytes) -> None:
        """Replace what an interrupted trial goes on from."""
        self._write(number, SAVED, state)

    def state_path(self, number: int) -> Path:
        """Where lies what a trial goes on from, if anything does."""
        return self._path(number, SAVED)

    def drop_state(self, number: int) -> None:
        """Let a trial begin again."""
        self.state_path(number).unlink(missing_ok=True)

    def keep_only_states(self, numbers: Collection[int]) -> None:
        """Delete the state of every trial but these."""
        self._keep_only(SAVED, numbers)

    def _path(self, number: int, suffix: str) -> Path:
        return self.folder / f"{number:03d}{suffix}"

    def _write(self, number: int, suffix: str, content: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self._path(number, f"{suffix}.part")
        try:
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            # Python names the file only where it could not be opened.
            raise OSError(error.errno, error.strerror, str(unfinished)) from error
        unfinished.replace(self._path(number, suffix))

    def _keep_only(self, suffix: str, numbers: Collection[int]) -> None:
        for path in self.folder.glob(f"*{suffix}"):
            if int(path.stem) not in numbers:
                path.unlink(missing_ok=True)
