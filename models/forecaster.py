"""`Forecaster`: a window of the past, and covariates known ahead, to a forecast.

The forecast is a sum of parts in the window's own normalised scale: an LSTM with one of two heads,
a linear skip, and a linear effect of the horizon's covariates. The legend of shapes is in
`models/__init__.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from models.config import LSTMConfig, WindowShape
from models.lstm import StackedLSTM

STD_FLOOR = 1e-5
"""Added to a window's standard deviation, so that a constant window divides by no zero. Inputs are
standardised series, where a typical deviation is near 1."""


class NormalisedWindow(NamedTuple):
    """A window in its own scale, and the way back: forecast = output * scale + offset."""

    inputs: Tensor
    """[B, L, F], normalised."""
    offset: Tensor
    """[B, H or 1, T], in the window's units."""
    scale: Tensor
    """[B or 1, 1, T or 1], window's units for one normalised unit."""


class LastStateLSTM(nn.Module):
    """An LSTM over the window whose state after the last step gives every step of the horizon."""

    def __init__(self, config: LSTMConfig, shape: WindowShape) -> None:
        super().__init__()
        self.patch_length = config.patch_length
        self.horizon_shape = (shape.horizon, shape.num_targets)
        self.lstm = _build_lstm(config, shape)
        self.dropout = nn.Dropout(config.dropout)
        self.readout = _zero_linear(self.lstm.output_size, config.num_outputs(shape))

    def forward(self, inputs: Tensor, known: Tensor) -> Tensor:
        """Map [B, L, F] normalised, and [B, L+H, K], to [B, H, T] normalised."""
        channels = torch.cat([inputs, known[:, : inputs.shape[1]]], dim=2)
        _, (h_n, _) = self.lstm(_patch(channels, self.patch_length))
        state = h_n[-1].transpose(0, 1).flatten(start_dim=1)  # [D, B, U] -> [B, D*U]
        forecast: Tensor = self.readout(self.dropout(state))
        return forecast.reshape(len(forecast), *self.horizon_shape)


class AlignedLSTM(nn.Module):
    """An LSTM that reads on through the horizon, where the state of each step gives that step.

    In the horizon only the covariates are known: values are zero there, and a mask channel, 1 in
    the window and 0 after it, tells this from a true zero. With patches each of the last ⌈H/P⌉
    states gives P steps; the surplus steps have zero covariates and are cut.
    """

    def __init__(self, config: LSTMConfig, shape: WindowShape) -> None:
        super().__init__()
        self.patch_length = config.patch_length
        self.horizon = shape.horizon
        self.num_targets = shape.num_targets
        self.num_horizon_patches = config.num_horizon_patches(shape)
        self.lstm = _build_lstm(config, shape)
        self.dropout = nn.Dropout(config.dropout)
        self.readout = _zero_linear(self.lstm.output_size, config.num_outputs(shape))

    def forward(self, inputs: Tensor, known: Tensor) -> Tensor:
        """Map [B, L, F] normalised, and [B, L+H, K], to [B, H, T] normalised."""
        states, _ = self.lstm(_patch(self._masked_channels(inputs, known), self.patch_length))
        steps: Tensor = self.readout(self.dropout(states[:, -self.num_horizon_patches :]))
        return steps.reshape(len(steps), -1, self.num_targets)[:, : self.horizon]

    def _masked_channels(self, inputs: Tensor, known: Tensor) -> Tensor:
        """Return values, covariates and mask over window and horizon, [B, L+⌈H/P⌉P, F+K+1]."""
        num_steps = self.num_horizon_patches * self.patch_length
        is_observed = torch.ones_like(inputs[:, :, :1])
        observed = pad(torch.cat([inputs, is_observed], dim=2), (0, 0, 0, num_steps))
        return torch.cat([observed, pad(known, (0, 0, 0, num_steps - self.horizon))], dim=2)


class LinearSkip(nn.Module):
    """Linear maps from window to horizon, zero until they are trained: one, or one a target."""

    def __init__(self, num_maps: int, shape: WindowShape) -> None:
        super().__init__()
        self.num_targets = shape.num_targets
        # [maps, H, L] and [maps, H].
        self.weight = nn.Parameter(torch.zeros(num_maps, shape.horizon, shape.lookback))
        self.bias = nn.Parameter(torch.zeros(num_maps, shape.horizon))

    def forward(self, targets: Tensor) -> Tensor:
        """Map [B, L, T] to [B, H, T]."""
        weight = self.weight.expand(self.num_targets, -1, -1)
        return torch.einsum("blt,thl->bht", targets, weight) + self.bias.T


class Forecaster(nn.Module):
    """Normalise the window, sum what LSTM, skip and covariates say, undo the normalisation.

    Every linear layer starts at zero, so that training starts from the forecast of the
    normalisation itself, such as the value one season ago, and no random weight is left over where
    the data say nothing.

    Raises:
        ValueError: The configuration cannot read windows of this shape (`LSTMConfig.check`).
    """

    season_index: Tensor

    def __init__(self, config: LSTMConfig, shape: WindowShape) -> None:
        super().__init__()
        config.check(shape)
        self.config = config
        self.shape = shape
        self.lstm = _build_head(config, shape) if config.widths else None
        num_maps = config.num_skip_maps(shape)
        self.skip = LinearSkip(num_maps, shape) if num_maps else None
        self.known_effect = (
            # Without bias: the readout and the skip have one for each step already.
            _zero_linear(shape.num_known, shape.num_targets, bias=False)
            if config.adds_known_effect and shape.num_known
            else None
        )
        # Step h = 1…H repeats step ((h - 1) mod season) + 1 of the window's last season.
        season_index = torch.arange(shape.horizon) % shape.season
        self.register_buffer("season_index", season_index, persistent=False)

    def forward(self, window: Tensor, known: Tensor | None = None) -> Tensor:
        """Forecast the H steps after the window.

        Args:
            window: [B, L, F], standardised; the first T features are the targets.
            known: [B, L+H, K], covariates of window and horizon; may be left out when K = 0.

        Returns:
            [B, H, T] in the window's units and number type.

        Raises:
            ValueError: An array has another shape than the forecaster was built for.
        """
        known = self._check_arrays(window, known)
        inputs, offset, scale = self.normalise(window)
        forecast = self._sum_parts(inputs, known) * scale + offset
        return forecast.to(window.dtype)  # under autocast the parts are less precise

    def _sum_parts(self, inputs: Tensor, known: Tensor) -> Tensor:
        """Map [B, L, F] normalised, and [B, L+H, K], to [B, H, T] normalised."""
        parts: list[Tensor] = []
        if self.lstm is not None:
            parts.append(self.lstm(inputs, known))
        if self.skip is not None:
            parts.append(self.skip(inputs[:, :, : self.shape.num_targets]))
        if self.known_effect is not None:
            parts.append(self.known_effect(known[:, self.shape.lookback :]))
        return torch.stack(parts).sum(dim=0)

    def normalise(self, window: Tensor) -> NormalisedWindow:
        """Measure every feature [B, L, F] against its own window."""
        zero, one = window.new_zeros(1, 1, 1), window.new_ones(1, 1, 1)
        num_targets = self.shape.num_targets
        match self.config.normalisation:
            case "none":
                return NormalisedWindow(window, offset=zero, scale=one)
            case "mean_std":
                std, mean = torch.std_mean(window, dim=1, correction=0, keepdim=True)
                std = std + STD_FLOOR
                inputs = (window - mean) / std
                return NormalisedWindow(inputs, mean[..., :num_targets], std[..., :num_targets])
            case "last":
                last = window[:, -1:]
                return NormalisedWindow(window - last, offset=last[..., :num_targets], scale=one)
            case "seasonal":
                last_season = window[:, -self.shape.season :, :num_targets]
                one_season_ago = last_season[:, self.season_index]
                return NormalisedWindow(window - window[:, -1:], offset=one_season_ago, scale=one)

    def _check_arrays(self, window: Tensor, known: Tensor | None) -> Tensor:
        """Return `known`, empty where there is none, once both shapes are right."""
        shape, num_windows = self.shape, len(window)
        if window.shape[1:] != (shape.lookback, shape.num_features):
            raise ValueError(
                f"window must be [B, {shape.lookback}, {shape.num_features}]: got "
                f"{list(window.shape)}; cut windows of this forecaster's lookback and features"
            )
        expected = (num_windows, shape.lookback + shape.horizon, shape.num_known)
        if known is None and shape.num_known == 0:
            return window.new_zeros(expected)
        if known is None or known.shape != expected:
            raise ValueError(
                f"known must be {list(expected)}: got "
                f"{'none' if known is None else list(known.shape)}; give the covariates of the "
                "window and of the horizon"
            )
        return known


def _build_head(config: LSTMConfig, shape: WindowShape) -> LastStateLSTM | AlignedLSTM:
    if config.head == "aligned":
        return AlignedLSTM(config, shape)
    return LastStateLSTM(config, shape)


def _build_lstm(config: LSTMConfig, shape: WindowShape) -> StackedLSTM:
    input_size = config.num_channels(shape)
    return StackedLSTM(input_size, config.widths, config.bidirectional, config.dropout)


def _zero_linear(input_size: int, output_size: int, bias: bool = True) -> nn.Linear:
    """Return a linear layer that gives zeros until it is trained."""
    layer = nn.Linear(input_size, output_size, bias=bias)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _patch(channels: Tensor, patch_length: int) -> Tensor:
    """Flatten every P consecutive steps into one position: [B, P*n, C] -> [B, n, P*C]."""
    num_positions = channels.shape[1] // patch_length
    return channels.reshape(len(channels), num_positions, -1)
