"""The configuration of a forecaster, checked, counted and described without loading torch.

The legend of shapes is in `models/__init__.py`.
"""

from __future__ import annotations

from math import ceil
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

MAX_LAYERS = 64
"""Most LSTM layers of a forecaster: however narrow, each costs kilobytes of memory."""

Normalisation = Literal["none", "last", "mean_std", "seasonal"]
Head = Literal["last_state", "aligned"]
Skip = Literal["none", "shared", "per_target"]


class Settings(BaseModel):
    """Base of every configuration: frozen, and strict about names, types and finite numbers."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @field_validator("*")
    @classmethod
    def _has_64_bits(cls, value: Any) -> Any:
        # Where databases, tensors and generators of random numbers end.
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and not -(2**63) <= number < 2**63:
                raise ValueError("a whole number must be between -2⁶³ and 2⁶³; lower it")
        return value


class WindowShape(Settings):
    """The sizes of what a forecaster reads and writes; the data decide them, not the model."""

    lookback: PositiveInt
    """L, steps of the window."""
    horizon: PositiveInt
    """H, steps to forecast."""
    num_features: PositiveInt
    """F, series in the window; the first `num_targets` of them are the targets."""
    num_targets: PositiveInt
    """T, series to forecast, at most `num_features`."""
    num_known: NonNegativeInt = 0
    """K, covariates known ahead, over the window and the horizon."""
    season: PositiveInt = 1
    """Steps after which the series repeats; 1 means no season."""

    @model_validator(mode="after")
    def _targets_are_features(self) -> Self:
        if self.num_targets > self.num_features:
            raise ValueError(
                "num_targets must be at most num_features, since the targets are the first "
                f"features: got num_targets={self.num_targets} and "
                f"num_features={self.num_features}; give every target as a feature"
            )
        return self


class LSTMConfig(Settings):
    """What a forecaster is made of: LSTM layers, and the normalisation, skip and head around them.

    Without widths no LSTM is left: the linear twin, the same model's other parts alone. `head`,
    `patch_length`, `bidirectional` and `dropout` then change nothing.
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(max_length=MAX_LAYERS)]
    """Hidden units of each layer, the first layer first; () for the linear twin."""
    bidirectional: bool = False
    """Whether each layer also reads the window backwards; it never reads past the window's end."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the units dropped in training, between the layers and before the head."""
    normalisation: Normalisation = "last"
    """What each window is measured against, and the forecast with it: `none`; the `last` value,
    subtracted; the window's own `mean_std`; `seasonal`: as `last`, but each forecast step is a
    difference from the value one season ago."""
    linear_skip: Skip = "shared"
    """Linear maps from a target's window to its horizon that are added to the LSTM: `none`, one
    `shared` by all targets, or one `per_target`."""
    head: Head = "last_state"
    """From states to forecast: `last_state` maps the state after the window to all steps at once;
    `aligned` lets the LSTM run on through the horizon and maps the state of each step to it."""
    patch_length: PositiveInt = 1
    """P, consecutive steps that the LSTM reads as one; the lookback is a multiple of it."""

    @model_validator(mode="after")
    def _something_forecasts(self) -> Self:
        if not self.widths and self.linear_skip == "none":
            raise ValueError(
                "widths may be empty only with a linear_skip: got widths=() and "
                "linear_skip=none, a model of no parts; give a width or keep the skip"
            )
        return self

    @property
    def num_layers(self) -> int:
        """Number of LSTM layers, 0 for the linear twin."""
        return len(self.widths)

    @property
    def num_directions(self) -> int:
        """D: 2 when bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def adds_known_effect(self) -> bool:
        """Whether K > 0 covariates of the horizon enter by a linear map instead of the LSTM."""
        return self.head == "last_state" or not self.widths

    def describe(self) -> str:
        """Return the layers in words, such as `2 layers 64→128, bidirectional`."""
        if not self.widths:
            return "linear (no LSTM)"
        layers = "1 layer" if self.num_layers == 1 else f"{self.num_layers} layers"
        directions = ", bidirectional" if self.bidirectional else ""
        return f"{layers} {'→'.join(map(str, self.widths))}{directions}"

    def check(self, shape: WindowShape) -> None:
        """Raise ValueError where no such forecaster exists for windows of this shape."""
        if shape.lookback % self.patch_length:
            raise ValueError(
                f"lookback must be a multiple of patch_length: got lookback={shape.lookback} and "
                f"patch_length={self.patch_length}; change one of them"
            )
        if self.normalisation != "seasonal":
            return
        if shape.season == 1:
            raise ValueError(
                "seasonal normalisation needs a season longer than one step: got season=1; "
                "give the season or choose another normalisation"
            )
        if shape.lookback < shape.season:
            raise ValueError(
                "seasonal normalisation needs a lookback of at least one season: got "
                f"lookback={shape.lookback} and season={shape.season}; raise the lookback or "
                "choose another normalisation"
            )

    def num_skip_maps(self, shape: WindowShape) -> int:
        """Return how many linear maps the skip has: 0, 1 or one for each target."""
        return {"none": 0, "shared": 1, "per_target": shape.num_targets}[self.linear_skip]

    def num_horizon_patches(self, shape: WindowShape) -> int:
        """Return ⌈H/P⌉, the positions of the horizon that an aligned LSTM reads."""
        return ceil(shape.horizon / self.patch_length)

    def num_channels(self, shape: WindowShape) -> int:
        """Return the numbers that the LSTM reads at one position, P steps of every channel."""
        num_masks = 1 if self.head == "aligned" else 0
        return self.patch_length * (shape.num_features + shape.num_known + num_masks)

    def num_outputs(self, shape: WindowShape) -> int:
        """Return the numbers that the head makes of one state: P steps, or all H, of T targets."""
        num_steps = self.patch_length if self.head == "aligned" else shape.horizon
        return num_steps * shape.num_targets

    def num_parameters(self, shape: WindowShape) -> int:
        """Return the exact parameter count of the forecaster, without building it.

        Raises:
            ValueError: As `check` does.
        """
        self.check(shape)
        total = 0
        if self.widths:
            total += self._num_lstm_parameters(shape)
        total += self.num_skip_maps(shape) * (shape.lookback + 1) * shape.horizon
        if self.adds_known_effect:
            total += shape.num_known * shape.num_targets
        return total

    def num_flops(self, shape: WindowShape) -> int:
        """Return the floating-point operations of one window's forecast, multiply-adds as two.

        Only matrix products are counted: a gate's arithmetic is linear in U where they are
        quadratic.
        """
        has_skip = self.linear_skip != "none"
        total = 2 * shape.lookback * shape.horizon * shape.num_targets if has_skip else 0
        if self.widths:
            num_states = self.num_horizon_patches(shape) if self.head == "aligned" else 0
            num_positions = shape.lookback // self.patch_length + num_states
            # Every weight of a layer is used once at each position.
            layers = num_layer_parameters(
                self.num_channels(shape), self.widths, self.num_directions
            )
            total += 2 * sum(layers) * num_positions
            state_size = self.num_directions * self.widths[-1]
            total += 2 * state_size * self.num_outputs(shape) * max(num_states, 1)
        return total

    def _num_lstm_parameters(self, shape: WindowShape) -> int:
        """Return the count of the LSTM layers and of the head on their last state."""
        layers = num_layer_parameters(self.num_channels(shape), self.widths, self.num_directions)
        state_size = self.num_directions * self.widths[-1]
        return sum(layers) + (state_size + 1) * self.num_outputs(shape)


def num_layer_parameters(
    input_size: int, widths: tuple[int, ...], num_directions: int
) -> tuple[int, ...]:
    """Return the parameter count of each LSTM layer.

    A layer has 4 U (I + U + 2) parameters in each direction: four gates, each with weights for
    the I inputs and the U units and, as torch has it, two biases. Every layer after the first
    reads both directions of the one below: I = D U.
    """
    input_sizes = (input_size, *(num_directions * width for width in widths[:-1]))
    return tuple(
        num_directions * 4 * width * (size + width + 2)
        for size, width in zip(input_sizes, widths, strict=True)
    )
