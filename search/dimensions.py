"""What one dimension of a search space may be: a range, a choice, or one value that is fixed."""

from collections.abc import Callable
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from models.config import Head, Normalisation, Settings, Skip

Value = bool | int | float | str
Point = dict[str, Value]
Shape = Literal["uniform", "per_layer"]
V = TypeVar("V", bound=Value)


class _Range(Settings):
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        low, high, step = self._bounds()
        if low > high:
            raise ValueError(f"low must not exceed high: got low={low} and high={high}; swap them")
        if self.log and step is not None:
            raise ValueError(f"log and step exclude each other: got step={step}; drop one of them")
        if self.log and low <= 0:
            raise ValueError(f"a log range must be positive: got low={low}; raise it or drop log")
        return self

    def contains(self, value: Value) -> bool:
        """Whether the sampler could draw `value`."""
        if isinstance(value, bool | str):
            return False
        low, high, step = self._bounds()
        steps = 0.0 if step is None else (value - low) / step
        return low <= value <= high and abs(steps - round(steps)) < 1e-9

    def _bounds(self) -> tuple[float, float, float | None]:
        raise NotImplementedError


class Int(_Range):
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int
    step: int | None = Field(default=None, ge=1)

    def contains(self, value: Value) -> bool:
        """Whether the sampler could draw `value`."""
        return isinstance(value, int) and super().contains(value)

    def _bounds(self) -> tuple[float, float, float | None]:
        return self.low, self.high, self.step


class Float(_Range):
    """Real numbers from `low` to `high`, both included."""

    low: float
    high: float
    step: float | None = Field(default=None, gt=0)

    def _bounds(self) -> tuple[float, float, float | None]:
        return self.low, self.high, self.step


class Choice(Settings, Generic[V]):
    """One of a list of values; a fixed dimension is a list of one."""

    choices: tuple[V, ...] = Field(min_length=1, strict=False)  # a list will do, its items not

    def contains(self, value: Value) -> bool:
        """Whether `value` is listed; True is not 1 here."""
        return any(value == known and type(value) is type(known) for known in self.choices)


Dimension = Int | Float | Choice[Any]
# Held, lest pydantic make the classes anew; whole statements, since it reads the source of each.
TextChoice = Choice[str]
IntChoice = Choice[int]
FloatChoice = Choice[float]
Suggest = Callable[[str, Dimension], Value]


def _as_dimension(value: Any) -> Any:
    is_plain = isinstance(value, bool | int | float | str)
    return {"choices": (value,)} if is_plain else value


def _kind(value: Any) -> str:
    # Told by its key, a dimension is checked as what it is meant to be, not as either.
    has_choices = isinstance(value, Choice) or (isinstance(value, dict) and "choices" in value)
    return "a choice" if has_choices else "a range"


IntDimension = Annotated[
    Annotated[Int, Tag("a range")] | Annotated[IntChoice, Tag("a choice")],
    Discriminator(_kind),
    BeforeValidator(_as_dimension),
]
FloatDimension = Annotated[
    Annotated[Float, Tag("a range")] | Annotated[FloatChoice, Tag("a choice")],
    Discriminator(_kind),
    BeforeValidator(_as_dimension),
]
BoolDimension = Annotated[Choice[bool], BeforeValidator(_as_dimension)]
ShapeDimension = Annotated[Choice[Shape], BeforeValidator(_as_dimension)]
NormalisationDimension = Annotated[Choice[Normalisation], BeforeValidator(_as_dimension)]
SkipDimension = Annotated[Choice[Skip], BeforeValidator(_as_dimension)]
HeadDimension = Annotated[Choice[Head], BeforeValidator(_as_dimension)]
