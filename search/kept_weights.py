"""The weights that a study keeps on disk: those of its best trials."""

from collections.abc import Collection
from pathlib import Path


class KeptWeights:
    """Files `017.safetensors` in the folder of a study, each holding its configuration too."""

    def __init__(self, folder: Path):
        """Use `folder`, which is made when the first weights arrive."""
        self._folder = folder

    def path(self, number: int) -> Path:
        """Where the weights of a trial lie, if they are kept."""
        return self._folder / f"{number:03d}.safetensors"

    def write(self, number: int, weights: bytes) -> None:
        """Replace a trial's weights: a reader sees the old or the new ones, never a part."""
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.path(number).with_suffix(".part")
        unfinished.write_bytes(weights)
        unfinished.replace(self.path(number))

    def keep_only(self, numbers: Collection[int]) -> None:
        """Delete the weights of every trial but these."""
        for path in self._folder.glob("*.safetensors"):
            if int(path.stem) not in numbers:
                path.unlink(missing_ok=True)
