"""A new table to a file of forecasts: read as in training, repaired as in training."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.config import LSTMConfig
from pipelines.data_config import DataConfig, SplitConfig
from pipelines.data_error import DataError
from pipelines.forecast import NewForecast, draw, forecast_table, write_table
from pipelines.predictor import Predictor, predictor_of
from pipelines.scaling import Scaling
from pipelines.series import load
from pipelines.splits import split
from pipelines.training import build_forecaster
from pipelines.training_config import TrainConfig


def frame_of(num_rows: int, start: str = "2026-01-05", **columns: Any) -> pd.DataFrame:
    rows = np.arange(num_rows)
    frame = pd.DataFrame(
        {
            "when": pd.date_range(start, periods=num_rows, freq="h"),
            "load": 100 + 30 * np.sin(2 * np.pi * rows / 24),
            "heat": np.cos(rows),
        }
    )
    return frame.assign(**columns)


def trained(frame: pd.DataFrame, **settings: Any) -> Predictor:
    given = {"targets": ("load",), "horizon": 5} | settings
    table = load(DataConfig(**given), frame)
    data, _ = split(table, SplitConfig())
    training = TrainConfig(
        lookback=12, calendar=True, learning_rate=1e-3, weight_decay=0.0, batch_size=8
    )
    forecaster = build_forecaster(LSTMConfig(widths=(4,)), training, data, "cpu", 0)
    return predictor_of(table, data, training, Scaling.fit(data), [forecaster], data.num_train_rows)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return trained(frame_of(300))


def forecast_file(
    predictor: Predictor, frame: pd.DataFrame, folder: Path, **settings: Any
) -> NewForecast:
    path = folder / "new.csv"
    frame.to_csv(path, index=False)
    return forecast_table(predictor, DataConfig(path=str(path), **settings))


def test_what_follows_the_last_row_is_forecast(predictor: Predictor, tmp_path: Path) -> None:
    frame = frame_of(40, "2026-03-01")
    new = forecast_file(predictor, frame, tmp_path)
    assert new.forecast["when"][0] == pd.Timestamp("2026-03-02 16:00")
    assert new.forecast.equals(predictor.forecast(frame))
    assert "frequency h" in new.notes[0]


def test_columns_are_found_by_name_and_others_left_out(
    predictor: Predictor, tmp_path: Path
) -> None:
    frame = frame_of(40)
    other = frame.assign(note="text", more=np.nan)[["note", "heat", "more", "when", "load"]]
    assert forecast_file(predictor, other, tmp_path).forecast.equals(predictor.forecast(frame))


def test_a_gap_is_refused_or_filled_as_it_is_asked(predictor: Predictor, tmp_path: Path) -> None:
    frame = frame_of(40).drop(index=30)
    with pytest.raises(DataError, match=r"at frequency h 1 are missing, .* data.missing=interpol"):
        forecast_file(predictor, frame, tmp_path)
    new = forecast_file(predictor, frame, tmp_path, missing="interpolate")
    assert "values interpolated: 2" in new.notes
    between = frame_of(40)["load"][[29, 31]].mean()
    assert new.history["load"][30] == pytest.approx(between)


def test_a_table_is_repaired_as_in_training(tmp_path: Path) -> None:
    wild = frame_of(300)
    wild["load"] += np.random.default_rng(0).normal(size=300)
    predictor = trained(wild, outliers="hampel", missing="interpolate")
    new = wild[:200].copy()
    new.loc[190, "load"] = 9_999.0
    new.loc[195, "load"] = np.nan
    repaired = forecast_file(predictor, new, tmp_path)
    assert "values interpolated: 1" in repaired.notes
    assert "values outliers replaced: 1" in repaired.notes
    assert repaired.history["load"][190] < 200
    assert np.isfinite(repaired.forecast["load"]).all()


def test_a_last_row_that_was_not_measured_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    frame = frame_of(40)
    frame.loc[39, "heat"] = np.nan
    with pytest.raises(DataError, match="heat is missing at 2026-01-06 15:00:00; leave the row ou"):
        forecast_file(predictor, frame, tmp_path, missing="interpolate")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (frame_of(40).drop(columns="heat"), "there is no heat; the columns are when, load"),
        (frame_of(40).rename(columns={"when": "time"}), "there is no when; the columns are"),
        (frame_of(8), "a forecast reads 12 rows: got 8"),
        (frame_of(40, when=pd.date_range("2026", periods=40, freq="17min")), "keep the frequency"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    predictor: Predictor, tmp_path: Path, frame: pd.DataFrame, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        forecast_file(predictor, frame, tmp_path)


def test_one_of_several_series_is_chosen_by_its_id(predictor: Predictor, tmp_path: Path) -> None:
    one, other = frame_of(40, unique_id="a"), frame_of(40, load=7.0, unique_id="b")
    both = pd.concat([one, other])
    with pytest.raises(DataError, match=r"one series must be chosen: column unique_id holds 2"):
        forecast_file(predictor, both, tmp_path)
    new = forecast_file(predictor, both, tmp_path, series="a")
    assert new.forecast.equals(predictor.forecast(one))


def test_without_timestamps_the_order_of_the_rows_is_time(tmp_path: Path) -> None:
    frame = frame_of(300).drop(columns="when")
    predictor = trained(frame, frequency="none")
    new = forecast_file(predictor, frame[:50], tmp_path)
    assert new.forecast.equals(predictor.forecast(frame[:50]))
    draw(new, predictor, tmp_path / "plot.png")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_forecast_is_written_as_its_ending_says(
    predictor: Predictor, tmp_path: Path, ending: str
) -> None:
    forecast = predictor.forecast(frame_of(40))
    path = tmp_path / f"forecast.{ending}"
    write_table(forecast, path)
    if ending == "csv":
        again = pd.read_csv(path, parse_dates=["when"])
        assert again["load"].tolist() == pytest.approx(forecast["load"].tolist(), rel=1e-12)
        assert list(again["when"]) == list(forecast["when"])
    else:
        assert pd.read_parquet(path).equals(forecast)


def test_where_no_forecast_can_be_written_is_said_before(tmp_path: Path) -> None:
    frame = pd.DataFrame({"load": [1.0]})
    with pytest.raises(ValueError, match=r"must end in \.csv, \.parquet: got forecast\.xlsx"):
        write_table(frame, tmp_path / "forecast.xlsx")
    with pytest.raises(ValueError, match=r"there is no .*nowhere; make it"):
        write_table(frame, tmp_path / "nowhere" / "forecast.csv")


def test_a_picture_shows_every_target(tmp_path: Path) -> None:
    predictor = trained(frame_of(300), targets=("load", "heat"))
    new = forecast_file(predictor, frame_of(60), tmp_path)
    path = tmp_path / "plot.svg"
    draw(new, predictor, path)
    # The names are drawn as outlines; the file says them in its comments.
    drawn = path.read_text()
    assert all(f"<!-- {text} -->" in drawn for text in ("load", "heat", "measured", "forecast"))
