"""`Predictor`: all that a forecast needs, apart from the newest rows of the table.

It knows no search and no tracker, and is saved without a pickle: two JSON files and safetensors.
The legend of shapes is in `models/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pandas as pd
import torch
from pydantic import NonNegativeInt, PositiveInt, ValidationError
from torch import Tensor

from models.config import LSTMConfig, Settings, WindowShape
from models.forecaster import Forecaster
from pipelines.covariates import calendar_features, future_timestamps
from pipelines.data_config import Missing, Outliers
from pipelines.printable import printable
from pipelines.recent_rows import recent_rows
from pipelines.scaling import Scaling
from pipelines.weights import forecaster_from_file, weights_to_bytes
from pipelines.windows import Windows

if TYPE_CHECKING:
    from pipelines.evaluation import Forecast
    from pipelines.series import SeriesTable
    from pipelines.splits import SearchData, TestData
    from pipelines.training_config import TrainConfig

CONFIG_FILE, SCALER_FILE = "config.json", "scaler.json"
STEP = "step"
"""The column of a forecast that counts its rows, where the table has no timestamps."""

Read = TypeVar("Read", bound=Settings)


class PredictorSpec(Settings):
    """What a predictor reads and writes, and where it comes from."""

    name: str
    """Of the table that it was trained on."""
    timestamp: str | None
    """The column of timestamps; null where row order is time."""
    columns: tuple[str, ...]
    """[F], the series that a forecast reads, the targets first."""
    targets: tuple[str, ...]
    """[T], the series that are forecast."""
    frequency: str | None
    """A pandas offset alias; null where row order is time."""
    season: PositiveInt
    """Rows after which the series repeats, 1 for none."""
    horizon: PositiveInt
    """H, rows of a forecast."""
    lookback: PositiveInt
    """L, rows that a forecast reads."""
    known: tuple[str, ...]
    """[K], the calendar features that it also reads, such as `hour_of_day_sin`; may be none."""
    missing: Missing
    """What a missing value was in training: an error, or interpolated."""
    outliers: Outliers
    """Whether outliers were replaced in training. A predictor itself repairs nothing."""
    model: LSTMConfig
    """Of every forecaster of the ensemble."""
    num_forecasters: PositiveInt
    """Members of the ensemble: the same configuration, trained from several seeds."""
    fingerprint: str
    """SHA-256 of the table that it was trained on, its split and its repairs."""
    num_rows: NonNegativeInt
    """Rows that the weights and the scaling were fitted on, the first of the table."""
    notes: tuple[str, ...] = ()
    """What else there is to say, a line each."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """An ensemble of forecasters: their mean, in original units, is the forecast.

    Raises:
        ValueError: The forecasters are not those of the specification.
    """

    spec: PredictorSpec
    scaling: Scaling
    forecasters: tuple[Forecaster, ...]
    """On the CPU, in evaluation mode."""

    def __post_init__(self) -> None:
        _check_parts(self.spec, self.scaling, self.forecasters)

    @property
    def num_rows_needed(self) -> int:
        """Rows before a forecast that it reads: the lookback, and one more to differ from."""
        is_difference = self.scaling.transform in ("diff", "log_return")
        return self.spec.lookback + (1 if is_difference else 0)

    @property
    def time_column(self) -> str:
        """The first column of a forecast: that of the timestamps, or `step`."""
        if self.spec.timestamp is not None:
            return self.spec.timestamp
        return STEP if STEP not in self.spec.targets else f"{STEP}_ahead"

    def forecast(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Forecast the H steps after the last row of a table.

        Args:
            frame: The timestamps and every series, at least `num_rows_needed` rows in order of
                time; the last of them are read.

        Returns:
            H rows: the timestamps, or `step` from 1 where row order is time, and the targets in
            original units.

        Raises:
            ValueError: The table cannot be read; the message says why and what to do.
        """
        spec = self.spec
        rows = recent_rows(
            frame, spec.columns, spec.timestamp, spec.frequency, self.num_rows_needed
        )
        window = torch.from_numpy(self.scaling.encode(rows.values)[-spec.lookback :])
        level = torch.from_numpy(rows.values[-1:, : len(spec.targets)])
        future = None
        if rows.timestamps is not None and spec.frequency is not None:
            future = future_timestamps(rows.timestamps[-1], spec.frequency, spec.horizon)
        known = self._known(rows.timestamps, future)
        values = self._mean_forecast(window.unsqueeze(0), known, level)[0]
        forecast = pd.DataFrame(values.numpy(), columns=list(spec.targets))
        steps = range(1, spec.horizon + 1) if future is None else future
        forecast.insert(0, self.time_column, steps)
        return forecast

    def forecasts_on(self, data: SearchData | TestData) -> Forecast:
        """Return the forecast from any origin of a table.

        Raises:
            ValueError: A series is missing, or a calendar feature that the training had.
        """
        windows = self._windows(data)

        def forecast(origins: Tensor) -> Tensor:
            here = origins.cpu()
            level = windows.last_level(here)
            return self._mean_forecast(*windows.inputs(here), level).to(origins.device)

        return forecast

    def save(self, folder: Path) -> None:
        """Write the predictor into a folder, which is made where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        for file, settings in ((CONFIG_FILE, self.spec), (SCALER_FILE, self.scaling)):
            text = settings.model_dump_json(indent=2)
            (folder / file).write_text(f"{text}\n", encoding="utf-8")
        names = _weights_files(len(self.forecasters))
        for file, forecaster in zip(names, self.forecasters, strict=True):
            (folder / file).write_bytes(weights_to_bytes(forecaster))

    def _mean_forecast(self, window: Tensor, known: Tensor | None, level: Tensor) -> Tensor:
        """Return the mean of the forecasters' forecasts, [B, H, T] in original units."""
        with torch.inference_mode():
            forecasts = [
                self.scaling.decode(forecaster(window, known), level)
                for forecaster in self.forecasters
            ]
        return torch.stack(forecasts).mean(dim=0)

    def _known(
        self, past: pd.DatetimeIndex | None, future: pd.DatetimeIndex | None
    ) -> Tensor | None:
        """Return the covariates of window and horizon, [1, L+H, K]."""
        if not self.spec.known or past is None or future is None:
            return None
        timestamps = pd.DatetimeIndex(past[-self.spec.lookback :].append(future))
        known = calendar_features(timestamps, self.spec.known)
        return torch.from_numpy(known).unsqueeze(0)

    def _windows(self, data: SearchData | TestData) -> Windows:
        missing = [name for name in self.spec.columns if name not in data.columns]
        if missing:
            raise ValueError(
                f"the predictor reads the series {', '.join(self.spec.columns)}: the table lacks "
                f"{', '.join(missing)}; give a table with them"
            )
        values = data.values[:, [data.columns.index(name) for name in self.spec.columns]]
        if unknown := [name for name in self.spec.known if name not in data.known_names]:
            raise ValueError(
                f"the predictor reads the calendar as it was in training: the table lacks "
                f"{', '.join(unknown)}; give one whose training rows span as many years"
            )
        known = data.known[:, [data.known_names.index(name) for name in self.spec.known]]
        shape = self.forecasters[0].shape
        level = torch.from_numpy(values[:, : shape.num_targets].copy())
        none = torch.empty(0, dtype=torch.int64)
        return Windows(
            shape=shape,
            values=torch.from_numpy(self.scaling.encode(values)),
            known=torch.from_numpy(known),
            truth=level,
            level=level,
            num_train_rows=data.num_train_rows,
            train_origins=none,
            validation_origins=none,
        )


def predictor_of(
    table: SeriesTable,
    data: SearchData | TestData,
    training: TrainConfig,
    scaling: Scaling,
    forecasters: Sequence[Forecaster],
    num_rows: int,
    notes: tuple[str, ...] = (),
) -> Predictor:
    """Return the predictor of forecasters that were trained on a table.

    Args:
        table: As it was loaded: it knows the column of the timestamps.
        data: The same, cut.
        training: How the forecasters were trained.
        scaling: The one that they were trained with.
        forecasters: One configuration, trained from one or several seeds.
        num_rows: Rows that they were trained on.
        notes: What else there is to say.

    Raises:
        ValueError: The forecasters do not fit to each other or to the table.
    """
    spec = PredictorSpec(
        name=data.name,
        timestamp=None if data.frequency is None else table.timestamp,
        columns=data.columns,
        targets=data.targets,
        frequency=data.frequency,
        season=data.season,
        horizon=data.horizon,
        lookback=training.lookback,
        known=data.known_names[: forecasters[0].shape.num_known],
        missing=table.missing,
        outliers=table.outliers,
        model=forecasters[0].config,
        num_forecasters=len(forecasters),
        fingerprint=data.fingerprint,
        num_rows=num_rows,
        notes=notes,
    )
    return Predictor(spec, scaling, tuple(forecaster.cpu().eval() for forecaster in forecasters))


def example_of(
    table: SeriesTable, data: SearchData | TestData, predictor: Predictor
) -> pd.DataFrame:
    """Return the last rows of a table, as many as the predictor reads, as it reads them."""
    end = data.num_rows
    first = end - predictor.num_rows_needed
    frame = pd.DataFrame(data.values[first:end], columns=list(data.columns))
    timestamps = table.series[0].timestamps
    if predictor.spec.timestamp is not None and timestamps is not None:
        frame.insert(0, predictor.spec.timestamp, timestamps[first:end])
    return frame


def load_predictor(folder: Path) -> Predictor:
    """Return the predictor that was saved in a folder; nothing in it is run.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is not what `Predictor.save` writes, or they do not fit to each other.
    """
    spec = _read_settings(PredictorSpec, folder / CONFIG_FILE)
    scaling = _read_settings(Scaling, folder / SCALER_FILE)
    names = _weights_files(spec.num_forecasters)
    return Predictor(spec, scaling, tuple(forecaster_from_file(folder / name) for name in names))


def _weights_files(num_forecasters: int) -> list[str]:
    if num_forecasters == 1:
        return ["model.safetensors"]
    return [f"model-{number}.safetensors" for number in range(num_forecasters)]


def _read_settings(settings: type[Read], path: Path) -> Read:
    try:
        return settings.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        words = str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else "no text"
        raise ValueError(
            f"{path} must be as it was saved: {printable(words)}; give the folder of a saved model"
        ) from None


def _check_parts(
    spec: PredictorSpec, scaling: Scaling, forecasters: tuple[Forecaster, ...]
) -> None:
    """Raise ValueError where weights, scaling and specification are not of one model."""
    shape = WindowShape(
        lookback=spec.lookback,
        horizon=spec.horizon,
        num_features=len(spec.columns),
        num_targets=len(spec.targets),
        num_known=len(spec.known),
        season=spec.season,
    )
    for forecaster in forecasters:
        if (forecaster.config, forecaster.shape) != (spec.model, shape):
            raise ValueError(
                f"every forecaster must be as the predictor says, {spec.model.describe()} for "
                f"{shape!r}: got {forecaster.config.describe()} for {forecaster.shape!r}; give "
                "the weights of one model"
            )
    is_fitting = len(scaling.mean) == len(scaling.scale) == len(spec.columns)
    if len(forecasters) != spec.num_forecasters or not is_fitting:
        raise ValueError(
            f"a predictor of {spec.num_forecasters} forecasters and {len(spec.columns)} series "
            f"must have as many: got {len(forecasters)} forecasters and a scaling of "
            f"{len(scaling.mean)} series; give the files of one model"
        )
    if spec.columns[: len(spec.targets)] != spec.targets or scaling.num_targets != len(
        spec.targets
    ):
        raise ValueError(
            f"the targets must be the first series: got {', '.join(spec.targets)} of "
            f"{', '.join(spec.columns)}; give the files of one model"
        )
