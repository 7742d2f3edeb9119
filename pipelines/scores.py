"""What trainings and baselines came to, in plain numbers, to read which nobody loads torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self


@dataclass(frozen=True)
class Errors:
    """A forecast's errors, each a mean over the targets that were measured."""

    mae: float
    """Original units."""
    mse: float
    """Original units squared."""
    rmse: float
    """Original units."""
    mase: float
    """The MAE in units of the seasonal naive forecast's on the training rows; NaN if undefined."""
    mae_scaled: float
    """The MAE in units of the target's standard deviation over the training rows."""
    mse_scaled: float
    """The MSE in units of its variance."""
    rmse_scaled: float
    """The RMSE in units of its standard deviation."""

    def to_dict(self) -> dict[str, float]:
        """Return a dictionary for JSON, which has no NaN: an undefined MASE is left out."""
        return {name: value for name, value in asdict(self).items() if not math.isnan(value)}

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> Self:
        """Return the errors that `to_dict` made this of.

        Raises:
            TypeError: A name is missing or unknown.
        """
        return cls(**{"mase": math.nan, **values})


@dataclass(frozen=True)
class Evaluation:
    """A forecaster's validation errors after some steps, and what the steps cost."""

    step: int
    """Optimiser steps done."""
    train_loss: float
    """Mean loss of the steps since the last evaluation, standardised."""
    errors: Errors
    """On validation windows."""
    learning_rate: float
    """Of the last step."""
    steps_per_second: float
    """Of the steps since the last evaluation, evaluating left out."""
    peak_memory_bytes: int
    """The device's since training began; on a CPU the process's since it began."""
    num_windows: int
    """Validation windows that the errors are measured on."""
    is_full: bool
    """Whether these were all there are."""
    train_seconds: float
    """Spent on steps since the last evaluation."""
    evaluate_seconds: float
    """Spent on this evaluation."""

    def to_dict(self) -> dict[str, float | int | bool]:
        """Return a flat dictionary for JSON, which has no NaN: an undefined MASE is left out."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        del own["errors"]
        return own | self.errors.to_dict()

    @classmethod
    def from_dict(cls, flat: Mapping[str, Any]) -> Self:
        """Return the evaluation that `to_dict` made this of.

        Raises:
            TypeError: A name is missing or unknown.
        """
        names = {field.name for field in fields(Errors)}
        errors = Errors.from_dict({name: flat[name] for name in names & flat.keys()})
        return cls(errors=errors, **{name: flat[name] for name in flat.keys() - names})


@dataclass(frozen=True)
class BaselineScore:
    """A baseline's name and its validation errors."""

    name: str
    errors: Errors
    note: str
    """What was chosen on the validation part, such as `lookback 168, penalty 10`; may be empty."""

    def to_dict(self) -> dict[str, str | float]:
        """Return a flat dictionary for JSON, which has no NaN: an undefined MASE is left out."""
        return {"name": self.name, "note": self.note, **self.errors.to_dict()}


class TrainingDiverged(RuntimeError):  # noqa: N818 - a trial's outcome rather than a fault
    """A loss or an error is not finite: the weights are lost.

    Attributes:
        step: Optimiser steps done when it was noticed.
    """

    def __init__(self, step: int) -> None:
        super().__init__(
            f"the loss must stay finite: got NaN or infinity within {step} steps; "
            "lower the learning rate"
        )
        self.step = step

    def __reduce__(self) -> tuple[type[TrainingDiverged], tuple[int]]:
        return type(self), (self.step,)  # pickle would call the class with the message
