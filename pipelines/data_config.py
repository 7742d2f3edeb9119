"""What the user says about the table and its parts; loads neither pandas nor torch."""

from __future__ import annotations

import shlex
from typing import Literal, Self

from pydantic import PositiveInt, field_validator, model_validator

from models.config import Settings

TargetTransform = Literal["none", "log", "diff", "log_return"]
Missing = Literal["error", "interpolate"]
Outliers = Literal["none", "hampel"]
DecimalMark = Literal["point", "comma"]
Part = float | int | str

DEFAULT_MAX_FILE_BYTES = 2_000_000_000


class DataConfig(Settings):
    """Which table is searched and how it is read; what is not given is recognised."""

    path: str | None = None
    """A CSV or Parquet file, a glob of them (one series each) or an fsspec URL; null: the embedded
    electricity table."""
    timestamp: str | None = None
    """The column of timestamps; null: the one column that reads as timestamps."""
    targets: tuple[str, ...] = ()
    """The columns to forecast; empty: the target of a known layout or the one numeric column. Other
    numeric columns are inputs."""
    series: str | None = None
    """The id of the series to take from a table that holds several."""
    frequency: str | None = None
    """A pandas offset alias (h, 15min, D, B, W-SUN, MS); null: inferred from the timestamps; none:
    the order of the rows is time, without gaps, calendar or season."""
    horizon: PositiveInt | None = None
    """H, rows to forecast; null: one season."""
    season: PositiveInt | None = None
    """Rows after which the series repeats, 1 for no season; null: from the frequency (h: 24)."""
    target_transform: TargetTransform = "none"
    """Applied to the targets before they are standardised, and inverted before any metric."""
    missing: Missing = "error"
    """What a missing value or row is: an error, or interpolated between its neighbours in time."""
    decimal: DecimalMark | None = None
    """The mark before the decimals of a number, the other one being between its thousands; null:
    recognised."""
    outliers: Outliers | None = None
    """Whether outliers are replaced before training (hampel) or only noticed (none); null: hampel
    for the embedded table, none for any other."""
    max_file_bytes: PositiveInt = DEFAULT_MAX_FILE_BYTES
    """The most bytes that are read, unpacked and over all files of a glob."""

    @field_validator("series", mode="before")
    @classmethod
    def _read_number_as_id(cls, value: object) -> object:
        # YAML and --set data.series=7 read the id 7 as a number.
        return str(value) if isinstance(value, int) else value


class SplitConfig(Settings):
    """Where the table is cut, in time; what lies behind the test part is unused."""

    train: Part = 0.7
    """A share of the rows, a number of rows, or the last timestamp of the part (2014-08-31 is the
    whole day); the three are of one kind."""
    validation: Part = 0.1
    """The part that trials are compared on, given like `train`."""
    test: Part = 0.2
    """The sealed part, given like `train`."""

    @property
    def parts(self) -> tuple[Part, Part, Part]:
        """Train, validation and test, in the order of time."""
        return self.train, self.validation, self.test

    @model_validator(mode="after")
    def _parts_are_of_one_kind(self) -> Self:
        kinds = {type(part) for part in self.parts}
        if len(kinds) > 1:
            raise ValueError(
                "train, validation and test must all be shares (0.7), row counts (8640) or dates "
                f"(2014-08-31): got {self.train!r}, {self.validation!r} and {self.test!r}; write "
                "all three alike"
            )
        if kinds != {str}:
            self._check_numbers()
        return self

    def _check_numbers(self) -> None:
        numbers = [float(part) for part in self.parts]
        if min(numbers) <= 0:
            raise ValueError(
                f"train, validation and test must be positive: got {self.parts}; give every part "
                "rows"
            )
        # 0.7 + 0.1 + 0.2 is a little less than 1 in binary, other such sums are a little more.
        if isinstance(self.train, float) and sum(numbers) > 1 + 1e-9:
            raise ValueError(
                f"train, validation and test must sum to at most 1: got {self.parts}, together "
                f"{sum(numbers):g}; lower one of them"
            )


def command_line(config: DataConfig, **changes: object) -> str:
    """Return the command that searches the same table with some settings changed, to be copied."""
    changed = config.model_copy(update=changes)
    words = ["python", "-m", "search.run", "--data", changed.path or "FILE"]
    for target in changed.targets:
        words += ["--target", target]
    flags = {
        "--timestamp": changed.timestamp,
        "--freq": changed.frequency,
        "--horizon": changed.horizon,
    }
    for flag, value in flags.items():
        words += [flag, str(value)] if value is not None else []
    keys = ("series", "season", "target_transform", "missing", "decimal", "outliers")
    for key in (*keys, "max_file_bytes"):
        value = getattr(changed, key)
        is_default = value == DataConfig.model_fields[key].default
        words += [] if is_default else ["--set", f"data.{key}={value}"]
    return shlex.join(words)
