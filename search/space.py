"""The search space: which configurations a search may propose.

A *point* is what the sampler draws, a flat `{name: value}` of the dimensions that apply:
`width_1` exists only where there are two layers with a width each. A `TrialConfig` is what a
trial trains. `Space.config_at` turns a point into its configuration, `Space.point_of` goes back.

Two points can be one configuration (uniform 64 × 2 and per-layer 64, 64), so equality is judged
on the configuration.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from models.config import MAX_LAYERS, Head, LSTMConfig, Normalisation, Settings, Skip
from pipelines.training_config import TrainConfig, TrainingBudget

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
TextChoice = Choice[str]  # held, lest pydantic make the class anew for each draw
Suggest = Callable[[str, Dimension], Value]


def _as_dimension(value: Any) -> Any:
    is_plain = isinstance(value, bool | int | float | str)
    return {"choices": (value,)} if is_plain else value


def _kind(value: Any) -> str:
    # Told by its key, a dimension is checked as what it is meant to be, not as either.
    has_choices = isinstance(value, Choice) or (isinstance(value, dict) and "choices" in value)
    return "a choice" if has_choices else "a range"


IntDimension = Annotated[
    Annotated[Int, Tag("a range")] | Annotated[Choice[int], Tag("a choice")],
    Discriminator(_kind),
    BeforeValidator(_as_dimension),
]
FloatDimension = Annotated[
    Annotated[Float, Tag("a range")] | Annotated[Choice[float], Tag("a choice")],
    Discriminator(_kind),
    BeforeValidator(_as_dimension),
]
BoolDimension = Annotated[Choice[bool], BeforeValidator(_as_dimension)]
ShapeDimension = Annotated[Choice[Shape], BeforeValidator(_as_dimension)]
NormalisationDimension = Annotated[Choice[Normalisation], BeforeValidator(_as_dimension)]
SkipDimension = Annotated[Choice[Skip], BeforeValidator(_as_dimension)]
HeadDimension = Annotated[Choice[Head], BeforeValidator(_as_dimension)]


Width = Annotated[int, Field(ge=1, le=65_536)]
WidthList = Annotated[tuple[Width, ...], Field(min_length=1, max_length=MAX_LAYERS, strict=False)]
WidthLists = Annotated[tuple[WidthList, ...], Field(min_length=1, max_length=1000, strict=False)]


class TrialConfig(Settings):
    """Everything that one trial trains: trials with equal configurations are one model."""

    model: LSTMConfig
    training: TrainConfig

    def describe(self) -> str:
        """In words: "2 layers 64→128, bidirectional, lookback 96"."""
        return f"{self.model.describe()}, lookback {self.training.lookback}"


_BOUNDS: dict[str, tuple[float, float]] = {
    "num_layers": (0, MAX_LAYERS),
    "hidden_size": (1, 65_536),
    "width": (1, 65_536),
    "dropout": (0.0, 0.99),
    "patch_length": (1, 100_000),
    "lookback": (1, 100_000),
    "learning_rate": (1e-10, 1e38),  # what float32 holds: a rate that is too high only diverges
    "batch_size": (1, 1_048_576),
    "weight_decay": (0.0, 100.0),
}
"""Beyond these no trial can run, or none is worth running, whatever the table."""


def _ends(dimension: Dimension) -> tuple[Any, ...]:
    if isinstance(dimension, Choice):
        return dimension.choices
    return dimension.low, dimension.high


class Space(Settings):
    """What a search may vary, and how far.

    Each dimension is `{low, high, log}`, `{low, high, step}`, `{choices}`, or a plain value, which
    fixes it; `null` is derived from the table.
    """

    widths: WidthLists | None = None
    """Whole lists of cells to choose from, as [[128], [64, 64], [64, 128]], instead of the next
    four; null: those four say which."""
    num_layers: IntDimension = Int(low=1, high=3)
    """LSTM layers, one on another."""
    shape: ShapeDimension = Choice[Shape](choices=("uniform", "per_layer"))
    """Where there are several layers: one width for all, or a width for each."""
    hidden_size: IntDimension = Int(low=16, high=256, log=True)
    """Cells in every layer, where the shape is uniform."""
    width: IntDimension = Int(low=16, high=256, log=True)
    """Cells in each layer (width_0, width_1, …), where the shape is per_layer."""
    bidirectional: BoolDimension = Choice[bool](choices=(False, True))
    """Whether each layer also reads the window backwards."""
    dropout: FloatDimension = Float(low=0.0, high=0.4, step=0.1)
    """Share of the states dropped between layers and before the head."""
    normalisation: NormalisationDimension | None = None
    """How each window is normalised; null: every way that the table's season allows."""
    linear_skip: SkipDimension | None = None
    """Linear maps from a target's window to its horizon beside the LSTM: none, one shared by all
    targets, or one per_target; null: all that differ for the table."""
    head: HeadDimension = Choice[Head](choices=("last_state", "aligned"))
    """Forecast every step from the last state, or each from a state of its own."""
    calendar: BoolDimension | None = None
    """Whether the model sees hour and day; null: with and without, where there are timestamps."""
    patch_length: IntDimension | None = None
    """Rows that the LSTM reads in one step; null: 1 and some divisors of the season."""
    lookback: IntDimension | None = None
    """Rows before the forecast that the model sees; null: multiples of the season that fit."""
    learning_rate: FloatDimension = Float(low=3e-4, high=2e-2, log=True)
    """Peak learning rate of AdamW."""
    batch_size: IntDimension = Choice[int](choices=(32, 64, 128))
    """Windows in one optimiser step."""
    weight_decay: FloatDimension = Float(low=1e-6, high=1e-1, log=True)
    """Decoupled weight decay of AdamW."""

    @model_validator(mode="after")
    def _layers_are_said_once(self) -> Self:
        fields = type(self).model_fields
        beside = [name for name in _LAYERS if getattr(self, name) != fields[name].default]
        if self.widths is not None and beside:
            raise ValueError(
                f"widths takes the place of {', '.join(_LAYERS)}: got {', '.join(beside)} beside "
                "it; drop one or the other"
            )
        return self

    @field_validator(*_BOUNDS)
    @classmethod
    def _is_within_its_bounds(cls, value: Dimension | None, info: ValidationInfo) -> Any:
        least, most = _BOUNDS[str(info.field_name)]
        given = () if value is None else _ends(value)
        for number in given:
            if not least <= number <= most:
                raise ValueError(
                    f"it must be from {least:,} to {most:,}: got {number:,}; correct it"
                )
        return value

    def draw(self, suggest: Suggest) -> Point:
        """Draw a point: ask `suggest` for each dimension that applies, in a fixed order."""
        point: Point = {}

        def ask(name: str, dimension: Dimension | None) -> Value:
            assert dimension is not None, f"{name} must be derived from the table first"
            point[name] = suggest(name, dimension)
            return point[name]

        if self.widths is not None:
            # A list as such would break samplers and what is read back of the record.
            ask("widths", TextChoice(choices=tuple(map(widths_text, self.widths))))
        else:
            num_layers = int(ask("num_layers", self.num_layers))
            if num_layers > 1 and ask("shape", self.shape) == "per_layer":
                for layer in range(num_layers):
                    ask(f"width_{layer}", self.width)
            elif num_layers > 0:
                ask("hidden_size", self.hidden_size)
        for name in _MODEL_DIMENSIONS + _TRAINING_DIMENSIONS:
            ask(name, getattr(self, name))
        return point

    def config_at(self, point: Mapping[str, Value], budget: TrainingBudget) -> TrialConfig:
        """Build the configuration of a point.

        Raises:
            ValueError: where the point's values contradict each other.
        """
        model = {name: point[name] for name in _MODEL_DIMENSIONS}
        training = {name: point[name] for name in _TRAINING_DIMENSIONS}
        try:
            return TrialConfig(
                model=LSTMConfig.model_validate({"widths": _widths_at(point), **model}),
                training=TrainConfig.model_validate(budget.model_dump() | training),
            )
        except ValidationError as error:  # on several lines
            raise ValueError(_first_reason(error)) from None

    def point_of(self, config: TrialConfig) -> Point:
        """Return the point at which this space holds a configuration.

        Raises:
            ValueError: where the configuration lies outside; names the dimension.
        """
        wanted = self._values_of(config)

        def place(name: str, dimension: Dimension) -> Value:
            if not dimension.contains(wanted[name]):
                raise ValueError(f"{name} is outside the space: got {wanted[name]}")
            return wanted[name]

        return self.draw(place)

    def _values_of(self, config: TrialConfig) -> Point:
        widths = config.model.widths
        # Equal widths are a point of either shape; that of the other where one cannot hold them.
        can_be_uniform = len(set(widths)) == 1 and self.shape.contains("uniform")
        is_uniform = can_be_uniform and (
            self.hidden_size.contains(widths[0]) or not self.shape.contains("per_layer")
        )
        values: Point = {"num_layers": len(widths), "widths": widths_text(widths)}
        values["shape"] = "uniform" if is_uniform else "per_layer"
        values |= {"hidden_size": widths[0]} if widths else {}
        values |= {f"width_{layer}": width for layer, width in enumerate(widths)}
        values |= {name: getattr(config.model, name) for name in _MODEL_DIMENSIONS}
        values |= {name: getattr(config.training, name) for name in _TRAINING_DIMENSIONS}
        return values


def widths_text(widths: Iterable[int]) -> str:
    """A list of widths as a value of the dimension `widths`: 64-128."""
    return "-".join(map(str, widths))


def _widths_at(point: Mapping[str, Value]) -> tuple[int, ...]:
    if "widths" in point:
        return tuple(int(width) for width in str(point["widths"]).split("-"))
    return tuple(
        int(point["hidden_size"] if "hidden_size" in point else point[f"width_{layer}"])
        for layer in range(int(point["num_layers"]))
    )


def _first_reason(error: ValidationError) -> str:
    first = error.errors()[0]
    where = "".join(f"{part}: " for part in first["loc"][:1])
    return f"{where}{first['msg'].removeprefix('Value error, ')}"


_LAYERS = ("num_layers", "shape", "hidden_size", "width")
_MODEL_DIMENSIONS = (
    "bidirectional",
    "dropout",
    "normalisation",
    "linear_skip",
    "head",
    "patch_length",
)
_TRAINING_DIMENSIONS = ("lookback", "calendar", "learning_rate", "batch_size", "weight_decay")


class Start(Settings):
    """A configuration to try first; what is left out takes a value that does well in general."""

    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1, max_length=MAX_LAYERS)
    """Cells in each layer, the lowest first."""
    bidirectional: bool | None = None
    dropout: float | None = None
    normalisation: Normalisation | None = None
    linear_skip: Skip | None = None
    head: Head | None = None
    calendar: bool | None = None
    patch_length: int | None = None
    lookback: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    weight_decay: float | None = None


THREE_ANSWERS = (Start(widths=(128,)), Start(widths=(64, 64)), Start(widths=(64, 128)))
"""One layer of many cells; equal layers, stacked; a width for each layer. One-directional."""


def start_config(start: Start, space: Space, budget: TrainingBudget, season: int) -> TrialConfig:
    """Complete a start with values of `space` that do well in general, not tuned on any series.

    Raises:
        ValueError: where a value that the start names is no possible one.
    """
    given = start.model_dump(exclude_none=True)
    widths = given.pop("widths")
    preferred = _PREFERRED | {"lookback": 7 * _base_period(season), "patch_length": 4}
    if space.linear_skip is not None and not space.linear_skip.contains("per_target"):
        preferred["linear_skip"] = "shared"
    values = {
        name: _nearest(getattr(space, name), preferred[name])
        for name in _MODEL_DIMENSIONS + _TRAINING_DIMENSIONS
    } | given
    point: Point = {"num_layers": len(widths), **values}
    point |= {f"width_{layer}": width for layer, width in enumerate(widths)}
    return space.config_at(point, budget)


_PREFERRED: Point = {
    "bidirectional": False,
    "dropout": 0.0,
    "normalisation": "last",
    "linear_skip": "per_target",
    "head": "last_state",
    "calendar": True,
    "learning_rate": 3e-3,
    "batch_size": 64,
    "weight_decay": 1e-3,
}


def _nearest(dimension: Dimension, wanted: Value) -> Value:
    """The value of `dimension` that is nearest to `wanted`; the first listed where none is near."""
    if dimension.contains(wanted):
        return wanted
    if isinstance(dimension, Choice):
        numbers = [v for v in dimension.choices if not isinstance(v, bool | str)]
        if numbers and not isinstance(wanted, bool | str):
            nearest: Value = min(numbers, key=lambda value: abs(value - wanted))
            return nearest
        first: Value = dimension.choices[0]
        return first
    assert not isinstance(wanted, bool | str)
    clipped = min(max(wanted, dimension.low), dimension.high)
    if dimension.step is not None:
        num_steps = math.floor((dimension.high - dimension.low) / dimension.step + 1e-9)
        nearest_step = round((clipped - dimension.low) / dimension.step)
        clipped = dimension.low + dimension.step * min(nearest_step, num_steps)
    return round(clipped) if isinstance(dimension, Int) else clipped


def derive(
    space: Space,
    season: int,
    num_train_rows: int,
    horizon: int,
    has_calendar: bool,
    num_targets: int = 1,
) -> tuple[Space, tuple[str, ...]]:
    """Fill the dimensions that depend on the table.

    Returns:
        The space without any `null`, and what was narrowed, for the person who searches.
    """
    lookback, notes = space.lookback, []
    if lookback is None:
        lookbacks = _lookbacks(season, num_train_rows, horizon)
        lookback = Choice[int](choices=lookbacks)
        if len(lookbacks) < len(_LOOKBACK_PERIODS):
            shown = ", ".join(str(rows) for rows in lookbacks)
            has_few_rows = _longest_lookback(num_train_rows, horizon) < _LONGEST_DEFAULT_LOOKBACK
            why = f"{num_train_rows} rows to train on" if has_few_rows else "longer ones cost much"
            notes.append(f"lookback narrowed to {shown} rows: {why}")
    period = _base_period(season)
    grid = _common_divisor(lookback)
    patches = {1, *(p for p in (period // 6, period // 2, period) if p > 0 and grid % p == 0)}
    normalisations: tuple[Normalisation, ...] = ("last", "mean_std", "none")
    if season > 1 and _smallest(lookback) >= season:
        normalisations += ("seasonal",)
    skips: tuple[Skip, ...] = ("shared", "none")
    if num_targets > 1:
        skips = ("per_target", *skips)
    derived = {
        "linear_skip": space.linear_skip or Choice[Skip](choices=skips),
        "lookback": lookback,
        "patch_length": space.patch_length or Choice[int](choices=tuple(sorted(patches))),
        "normalisation": space.normalisation or Choice[Normalisation](choices=normalisations),
        "calendar": space.calendar or Choice[bool](choices=(True, False)),
    }
    if not has_calendar:
        derived["calendar"] = Choice[bool](choices=(False,))
        if space.calendar is not None and space.calendar.contains(True):
            notes.append("calendar narrowed to false: the table has no calendar features")
    return space.model_copy(update=derived), tuple(notes)


_LOOKBACK_PERIODS = (2, 4, 7, 14)
_LONGEST_DEFAULT_LOOKBACK = 400  # an LSTM's cost grows with every row it reads


def _base_period(season: int) -> int:
    return season if season > 1 else 8


def _lookbacks(season: int, num_train_rows: int, horizon: int) -> tuple[int, ...]:
    period = _base_period(season)
    longest = _longest_lookback(num_train_rows, horizon)
    fitting = [periods * period for periods in _LOOKBACK_PERIODS]
    fitting = [rows for rows in fitting if rows <= min(longest, _LONGEST_DEFAULT_LOOKBACK)]
    return tuple(fitting) or (min(period, longest),)


def _longest_lookback(num_train_rows: int, horizon: int) -> int:
    return max(1, (num_train_rows - horizon) // 3)  # leaves two thirds for training windows


def _common_divisor(lookback: Int | Choice[int]) -> int:
    if isinstance(lookback, Choice):
        return math.gcd(*lookback.choices)
    return math.gcd(lookback.low, lookback.step or 1)


def _smallest(lookback: Int | Choice[int]) -> int:
    return min(lookback.choices) if isinstance(lookback, Choice) else lookback.low
