"""The search space: which configurations a search may propose.

A *point* is what the sampler draws, a flat `{name: value}` of the dimensions that apply:
`width_1` exists only where there are two layers with a width each. A `TrialConfig` is what a
trial trains. `Space.config_at` turns a point into its configuration, `Space.point_of` goes back.

Two points can be one configuration (uniform 64 × 2 and per-layer 64, 64), so equality is judged
on the configuration.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from models.config import MAX_LAYERS, Head, LSTMConfig, Settings
from pipelines.training_config import TrainConfig, TrainingBudget
from search.dimensions import (
    BoolDimension,
    Choice,
    Dimension,
    Float,
    FloatDimension,
    HeadDimension,
    Int,
    IntDimension,
    NormalisationDimension,
    Point,
    Shape,
    ShapeDimension,
    SkipDimension,
    Suggest,
    TextChoice,
    Value,
)

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
        for name in MODEL_DIMENSIONS + TRAINING_DIMENSIONS:
            ask(name, getattr(self, name))
        return point

    def config_at(self, point: Mapping[str, Value], budget: TrainingBudget) -> TrialConfig:
        """Build the configuration of a point.

        Raises:
            ValueError: where the point's values contradict each other.
        """
        model = {name: point[name] for name in MODEL_DIMENSIONS}
        training = {name: point[name] for name in TRAINING_DIMENSIONS}
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
        values |= {name: getattr(config.model, name) for name in MODEL_DIMENSIONS}
        values |= {name: getattr(config.training, name) for name in TRAINING_DIMENSIONS}
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
MODEL_DIMENSIONS = (
    "bidirectional",
    "dropout",
    "normalisation",
    "linear_skip",
    "head",
    "patch_length",
)
TRAINING_DIMENSIONS = ("lookback", "calendar", "learning_rate", "batch_size", "weight_decay")
