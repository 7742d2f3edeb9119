"""A trained LSTM forecaster in plain PyTorch: it needs torch and safetensors, nothing else.

    from model import load

    model = load(".")
    model.forecast(values, timestamps)  # [H, T] in the units of the table

`config.json` names the series and the parts of the model, `scaler.json` how numbers become
standardised ones, `model.safetensors` holds the weights. Shapes: B windows, L rows that a forecast
reads (lookback), H rows that it gives (horizon), F series of which the first T are forecast,
K calendar features.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from datetime import datetime, time
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import pad


def load(folder: str | Path, weights: str = "model.safetensors") -> Forecaster:
    """Return the model in a folder, with its weights, ready to forecast."""
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    scaler = json.loads((folder / "scaler.json").read_text(encoding="utf-8"))
    model = Forecaster(config, scaler)
    model.load_state_dict(load_file(folder / weights))
    return model.eval()


class Forecaster(nn.Module):
    """Normalise the window, sum what LSTM, linear skip and calendar say, undo the normalisation."""

    def __init__(self, config: dict[str, Any], scaler: dict[str, Any]) -> None:
        super().__init__()
        self.config, self.scaler, parts = config, scaler, config["model"]
        self.lookback, self.horizon = config["lookback"], config["horizon"]
        self.num_targets, num_known = len(config["targets"]), len(config["known"])
        widths, head = parts["widths"], parts["head"]
        self.lstm = (
            (AlignedLSTM if head == "aligned" else LastStateLSTM)(config) if widths else None
        )
        num_maps = {"none": 0, "shared": 1, "per_target": self.num_targets}[parts["linear_skip"]]
        sizes = self.num_targets, self.horizon, self.lookback
        self.skip = LinearSkip(num_maps, *sizes) if num_maps else None
        has_effect = num_known > 0 and (head == "last_state" or not widths)
        self.known_effect = (
            nn.Linear(num_known, self.num_targets, bias=False) if has_effect else None
        )

    def forecast(
        self,
        values: Sequence[Sequence[float]] | Tensor,
        timestamps: Sequence[datetime] | None = None,
    ) -> Tensor:
        """Forecast one window.

        Args:
            values: The last L rows of the F series, the newest last, in the units of the table;
                of differences and log returns L + 1 rows.
            timestamps: Of the last L rows and of the H rows to forecast; only where the model
                reads the calendar.

        Returns:
            [H, T], float64, in the units of the table.
        """
        rows = torch.as_tensor(values, dtype=torch.float64)
        window = self.standardise(rows)[-self.lookback :]
        stamps, num_steps = timestamps or (), self.lookback + self.horizon
        reads_calendar = len(self.config["known"]) > 0
        if len(rows) < self.lookback or (reads_calendar and len(stamps) != num_steps):
            raise ValueError(
                f"a forecast reads {self.lookback} rows and {num_steps} timestamps, those of the "
                f"forecast included: got {len(rows)} and {len(stamps)}; give the newest"
            )
        known = (
            calendar(stamps, self.config["known"]) if reads_calendar else torch.zeros(num_steps, 0)
        )
        with torch.no_grad():
            standardised = self(window.unsqueeze(0), known.unsqueeze(0))
        return self.in_units(standardised, level=rows[-1:, : self.num_targets])[0]

    def forward(self, window: Tensor, known: Tensor) -> Tensor:
        """Map windows [B, L, F] and calendar [B, L+H, K], standardised, to [B, H, T]."""
        inputs, offset, scale = self.normalise(window)
        forecast = torch.zeros_like(window[:, :1, : self.num_targets])
        if self.lstm is not None:
            forecast = forecast + self.lstm(inputs, known)
        if self.skip is not None:
            forecast = forecast + self.skip(inputs[:, :, : self.num_targets])
        if self.known_effect is not None:
            forecast = forecast + self.known_effect(known[:, self.lookback :])
        return forecast * scale + offset

    def normalise(self, window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the window in its own scale, and offset and scale to undo it."""
        kind, targets = self.config["model"]["normalisation"], slice(self.num_targets)
        zero, one = window.new_zeros(1, 1, 1), window.new_ones(1, 1, 1)
        if kind == "mean_std":
            mean = window.mean(dim=1, keepdim=True)
            std = window.std(dim=1, correction=0, keepdim=True) + 1e-5
            return (window - mean) / std, mean[..., targets], std[..., targets]
        if kind == "last":
            last = window[:, -1:]
            return window - last, last[..., targets], one
        if kind == "seasonal":
            season = self.config["season"]
            steps = torch.arange(self.horizon) % season
            return window - window[:, -1:], window[:, -season:, targets][:, steps], one
        return window, zero, one

    def standardise(self, rows: Tensor) -> Tensor:
        """Return rows [N, F] in the units of the table as the model reads them."""
        targets, others = rows[:, : self.num_targets], rows[:, self.num_targets :]
        if self.scaler["transform"] in ("log", "log_return"):
            targets = targets.log()
        if self.scaler["transform"] in ("diff", "log_return"):
            targets = torch.diff(targets, dim=0, prepend=targets[:1])
        mean, scale = (torch.tensor(self.scaler[key]).double() for key in ("mean", "scale"))
        return ((torch.cat([targets, others], dim=1) - mean) / scale).float()

    def in_units(self, forecast: Tensor, level: Tensor) -> Tensor:
        """Return a standardised forecast [B, H, T] in units; `level` [B, T] is the last row."""
        mean, scale = (
            torch.tensor(self.scaler[key][: self.num_targets]).double() for key in ("mean", "scale")
        )
        values = forecast.double() * scale + mean
        transform = self.scaler["transform"]
        if transform == "log":
            return values.exp()
        if transform == "diff":
            return level.unsqueeze(1) + values.cumsum(dim=1)
        if transform == "log_return":
            return level.unsqueeze(1) * values.cumsum(dim=1).exp()
        return values


class LinearSkip(nn.Module):
    """Linear maps from window to horizon: one for all targets, or one a target."""

    def __init__(self, num_maps: int, num_targets: int, horizon: int, lookback: int) -> None:
        super().__init__()
        self.num_targets = num_targets
        self.weight = nn.Parameter(torch.zeros(num_maps, horizon, lookback))
        self.bias = nn.Parameter(torch.zeros(num_maps, horizon))

    def forward(self, targets: Tensor) -> Tensor:
        """Map [B, L, T] to [B, H, T]."""
        weight = self.weight.expand(self.num_targets, -1, -1)
        return torch.einsum("blt,thl->bht", targets, weight) + self.bias.T


class LastStateLSTM(nn.Module):
    """The state after the window's last row gives every step of the forecast."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.patch_length = config["model"]["patch_length"]
        self.shape = (config["horizon"], len(config["targets"]))
        num_channels = self.patch_length * (len(config["columns"]) + len(config["known"]))
        self.lstm = StackedLSTM(num_channels, config["model"])
        self.readout = nn.Linear(self.lstm.output_size, math.prod(self.shape))

    def forward(self, inputs: Tensor, known: Tensor) -> Tensor:
        """Map [B, L, F] and [B, L+H, K] to [B, H, T]."""
        channels = torch.cat([inputs, known[:, : inputs.shape[1]]], dim=2)
        _, state = self.lstm(patches(channels, self.patch_length))
        forecast: Tensor = self.readout(state)
        return forecast.reshape(-1, *self.shape)


class AlignedLSTM(nn.Module):
    """The LSTM reads on through the horizon, where the state of each step gives that step.

    There the values are zero and a mask channel says so; the calendar is known.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.patch_length, self.horizon = config["model"]["patch_length"], config["horizon"]
        self.num_targets = len(config["targets"])
        self.num_patches = math.ceil(self.horizon / self.patch_length)
        num_channels = self.patch_length * (len(config["columns"]) + len(config["known"]) + 1)
        self.lstm = StackedLSTM(num_channels, config["model"])
        self.readout = nn.Linear(self.lstm.output_size, self.patch_length * self.num_targets)

    def forward(self, inputs: Tensor, known: Tensor) -> Tensor:
        """Map [B, L, F] and [B, L+H, K] to [B, H, T]."""
        num_steps = self.num_patches * self.patch_length
        mask = torch.ones_like(inputs[:, :, :1])
        observed = pad(torch.cat([inputs, mask], dim=2), (0, 0, 0, num_steps))
        calendar_too = pad(known, (0, 0, 0, num_steps - self.horizon))
        channels = torch.cat([observed, calendar_too], dim=2)
        states, _ = self.lstm(patches(channels, self.patch_length))
        steps: Tensor = self.readout(states[:, -self.num_patches :])
        return steps.reshape(-1, num_steps, self.num_targets)[:, : self.horizon]


class StackedLSTM(nn.Module):
    """LSTM layers of any widths; neighbours of equal width are one `nn.LSTM`."""

    def __init__(self, input_size: int, parts: dict[str, Any]) -> None:
        super().__init__()
        num_directions = 2 if parts["bidirectional"] else 1
        self.output_size = num_directions * parts["widths"][-1]
        runs = []
        for width, length in equal_runs(parts["widths"], is_single=parts["dropout"] > 0):
            both = {"batch_first": True, "bidirectional": parts["bidirectional"]}
            runs.append(nn.LSTM(input_size, width, length, **both))
            input_size = num_directions * width
        self.runs = nn.ModuleList(runs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map [B, L, C] to all outputs [B, L, D*U] and the last layer's final state [B, D*U]."""
        for run in self.runs:
            x, (hidden, _) = run(x)
        num_directions = 2 if self.runs[-1].bidirectional else 1
        return x, hidden[-num_directions:].transpose(0, 1).flatten(start_dim=1)


def equal_runs(widths: Sequence[int], is_single: bool) -> Iterator[tuple[int, int]]:
    """Yield width and number of layers of each `nn.LSTM`, as the weights are stored."""
    for width, run in groupby(widths):
        length = len(list(run))
        yield from [(width, 1)] * length if is_single else [(width, length)]


def patches(channels: Tensor, length: int) -> Tensor:
    """Let the LSTM read `length` rows at once: [B, length*n, C] to [B, n, length*C]."""
    num_channels = channels.shape[2] * length
    return channels.reshape(-1, channels.shape[1] // length, num_channels)


def calendar(timestamps: Sequence[datetime], names: Sequence[str]) -> Tensor:
    """Return where each timestamp stands in the cycles of the calendar, [N, K]."""
    rows = []
    for stamp in timestamps:
        midnight = datetime.combine(stamp.date(), time())
        day = (stamp - midnight).total_seconds() / 86_400
        week = (stamp.weekday() + day) / 7
        first = datetime(stamp.year, 1, 1)
        days_in_year = (datetime(stamp.year + 1, 1, 1) - first).days
        year = ((midnight - first).days + day) / days_in_year
        phases = {
            "hour_of_day": day,
            "hour_of_week": week,
            "day_of_week": week,
            "day_of_year": year,
        }
        row = []
        for name in names:  # such as hour_of_week_cos3, the third harmonic
            cycle, _, wave = name.rpartition("_")
            angle = 2 * math.pi * int(wave[3:] or 1) * phases[cycle]
            row.append(math.sin(angle) if wave.startswith("sin") else math.cos(angle))
        rows.append(row)
    return torch.tensor(rows)
