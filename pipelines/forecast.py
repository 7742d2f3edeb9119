"""A new table in, the forecast of a saved model out: as a table, and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipelines.data_config import DataConfig
from pipelines.data_error import DataError
from pipelines.layout import nearest
from pipelines.reading import FILE_COLUMN, read_table
from pipelines.repairs import repair
from pipelines.series import Series, load

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pipelines.predictor import Predictor, PredictorSpec

TABLE_ENDINGS = (".csv", ".parquet")
PICTURE_ENDINGS = (".png", ".svg", ".pdf")

_SERIES_IDS = ("unique_id", "item_id", FILE_COLUMN)
_MAX_DRAWN_TARGETS = 8
_INCHES = 2.6  # height of one target in a picture


@dataclass(frozen=True, eq=False)
class NewForecast:
    """A forecast and what it was made from."""

    history: pd.DataFrame
    """Every row of the new table, repaired as in training; as the predictor reads it."""
    forecast: pd.DataFrame
    """[H] rows: the time, and the targets in original units."""
    notes: tuple[str, ...]
    """What was understood of the table and repaired in it."""


def forecast_table(predictor: Predictor, settings: DataConfig) -> NewForecast:
    """Read a table as the search read its own, and forecast what follows its last row.

    Args:
        predictor: Its columns are looked for by name; other columns are left out.
        settings: Where the table lies, and how it is read where that is not recognised; what the
            predictor knows already (columns, frequency, season) is not taken from here.

    Raises:
        DataError: The table cannot be used as it is; the message says how it can.
        ValueError: It has too few rows for this predictor.
    """
    spec = predictor.spec
    frame = read_table(str(settings.path), settings.max_file_bytes, settings.decimal is not None)
    table = load(_as_trained(spec, settings), frame[_known_columns(spec, frame)])
    series = table.series[0]
    end, is_hampel = len(series.values), spec.outliers == "hampel"
    _check_last_row(series, table.columns)
    repaired = repair(series.values, (end,), spec.season, replace_outliers=is_hampel)
    history = pd.DataFrame(repaired.values, columns=list(table.columns))[list(spec.columns)]
    if spec.timestamp is not None:
        history.insert(0, spec.timestamp, series.timestamps)
    notes = table.notes
    for what, mask in (
        ("interpolated", repaired.is_missing),
        ("outliers replaced", repaired.is_outlier),
    ):
        notes += (f"values {what}: {int(mask.sum())}",) if mask.any() else ()
    return NewForecast(history, predictor.forecast(history), notes)


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a forecast as CSV or Parquet, by the ending of the file.

    Raises:
        ValueError: It has another ending, or its folder is missing.
    """
    check_output(path, TABLE_ENDINGS)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)


def check_output(path: Path, endings: tuple[str, ...]) -> None:
    """Raise ValueError where no such file can be written."""
    if path.suffix.lower() not in endings:
        raise ValueError(f"the file must end in {', '.join(endings)}: got {path.name}; name it so")
    if not path.parent.is_dir():
        raise ValueError(f"the file must lie in a folder: there is no {path.parent}; make it")


def draw(new: NewForecast, predictor: Predictor, path: Path) -> None:
    """Draw the newest rows of each target and the forecast after them.

    Raises:
        ValueError: The file is no picture by its ending, or its folder is missing.
    """
    from matplotlib.figure import Figure  # takes half a second

    check_output(path, PICTURE_ENDINGS)
    spec = predictor.spec
    targets = spec.targets[:_MAX_DRAWN_TARGETS]
    num_shown = max(predictor.spec.lookback, 3 * spec.horizon)
    figure = Figure(figsize=(10, 1 + _INCHES * len(targets)), layout="constrained")
    axes = figure.subplots(len(targets), sharex=True, squeeze=False)[:, 0]
    for target, one in zip(targets, axes, strict=True):
        _draw_target(one, new, target, spec.timestamp, num_shown)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    left_out = len(spec.targets) - len(targets)
    more = f"; {left_out} further targets are in the table only" if left_out else ""
    figure.suptitle(f"{spec.name}: the next {spec.horizon} steps, {spec.model.describe()}{more}")
    figure.savefig(path, dpi=120)


def _draw_target(
    axes: Axes, new: NewForecast, target: str, timestamp: str | None, num_shown: int
) -> None:
    past, future = new.history[target].to_numpy(), new.forecast[target].to_numpy()
    if timestamp is None:
        past_times = np.arange(len(past)) + 1
        future_times = np.arange(len(future)) + len(past) + 1
    else:
        past_times = new.history[timestamp].to_numpy()
        future_times = new.forecast[timestamp].to_numpy()
    axes.plot(past_times[-num_shown:], past[-num_shown:], color="#444444", label="measured")
    # From the last measured value, lest there be a gap between the lines.
    axes.plot(
        np.append(past_times[-1:], future_times),
        np.append(past[-1:], future),
        color="#0072b2",
        label="forecast",
    )
    axes.axvline(past_times[-1], color="#bbbbbb", linewidth=0.8)
    axes.set_ylabel(target)
    axes.margins(x=0.01)


def _as_trained(spec: PredictorSpec, settings: DataConfig) -> DataConfig:
    known = {
        "path": None,
        "timestamp": spec.timestamp,
        "targets": spec.targets,
        "frequency": spec.frequency or "none",
        "season": spec.season,
        "horizon": 1,  # nothing is split off
        "missing": "interpolate" if "interpolate" in (spec.missing, settings.missing) else "error",
        "outliers": spec.outliers,
    }
    return settings.model_copy(update=known)


def _known_columns(spec: PredictorSpec, frame: pd.DataFrame) -> list[str]:
    """Return the columns to keep; a column without meaning here must not make the table invalid."""
    names = [str(name) for name in frame.columns]
    wanted = [*filter(None, [spec.timestamp]), *spec.columns]
    for name in wanted:
        if name not in names:
            raise DataError(
                f"the table must have the columns of the one trained on: there is no {name}; the "
                f"columns are {nearest(name, names)}"
            )
    return [name for name in names if name in (*wanted, *_SERIES_IDS)]


def _check_last_row(series: Series, columns: tuple[str, ...]) -> None:
    is_missing = np.isnan(series.values[-1])
    if is_missing.any():
        when = f"row {len(series.values)}"
        when = when if series.timestamps is None else str(series.timestamps[-1])
        raise DataError(
            "the last row must be measured, since the forecast starts from it: "
            f"{columns[int(is_missing.argmax())]} is missing at {when}; leave the row out, or "
            "measure it"
        )
