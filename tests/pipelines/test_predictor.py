"""The predictor: its forecast is that of the search, from the newest rows alone."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from models.config import LSTMConfig
from models.forecaster import Forecaster
from pipelines.data_config import DataConfig, SplitConfig
from pipelines.predictor import Predictor, example_of, load_predictor, predictor_of
from pipelines.scaling import Scaling
from pipelines.series import SeriesTable, load
from pipelines.splits import SearchData, TestData, split
from pipelines.training import build_forecaster
from pipelines.training_config import TrainConfig
from pipelines.windows import build_windows

TRAINING = TrainConfig(
    lookback=12, calendar=True, learning_rate=1e-3, weight_decay=0.0, batch_size=8
)
Cut = tuple[SeriesTable, SearchData]


def table_of(num_rows: int = 300, freq: str | None = "h", **settings: Any) -> Cut:
    """A table of two series, the first of them the target, and its rows up to the test part."""
    rows = np.arange(num_rows)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "load": 100 + 30 * np.sin(2 * np.pi * rows / 24) + rng.normal(size=num_rows),
            "heat": rng.normal(size=num_rows).cumsum(),
        }
    )
    if freq is not None:
        frame.insert(0, "when", pd.date_range("2026-01-05", periods=num_rows, freq=freq))
    given = {"targets": ("load",), "horizon": 5, "frequency": freq or "none"} | settings
    table = load(DataConfig(**given), frame)
    return table, split(table, SplitConfig())[0]


def forecaster_of(data: SearchData, training: TrainConfig, seed: int = 0) -> Forecaster:
    """A forecaster whose every weight matters."""
    forecaster = build_forecaster(LSTMConfig(widths=(6, 4)), training, data, "cpu", seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in forecaster.parameters():
            weights += 0.2 * torch.randn(weights.shape, generator=generator)
    return forecaster.eval()


def small_predictor(cut: Cut, num_seeds: int = 1, training: TrainConfig = TRAINING) -> Predictor:
    table, data = cut
    forecasters = [forecaster_of(data, training, seed) for seed in range(num_seeds)]
    return predictor_of(
        table, data, training, Scaling.fit(data), forecasters, data.num_train_rows, ("a note",)
    )


def forecast_in_the_search(cut: Cut, training: TrainConfig, origin: int) -> torch.Tensor:
    """The forecast as a trial's evaluation makes it, [H, T]."""
    data = cut[1]
    scaling = Scaling.fit(data)
    windows = build_windows(data, scaling, training.lookback, training.calendar, "cpu")
    forecaster = forecaster_of(data, training)
    origins = torch.tensor([origin])
    with torch.inference_mode():
        standardised = forecaster(*windows.inputs(origins))
        return scaling.decode(standardised, windows.last_level(origins))[0]


def rows_before(cut: Cut, origin: int, num_rows: int) -> pd.DataFrame:
    table, data = cut
    frame = pd.DataFrame(data.values[origin - num_rows : origin], columns=list(data.columns))
    timestamps = table.series[0].timestamps
    if timestamps is not None:
        frame["when"] = timestamps[origin - num_rows : origin]
    return frame


@pytest.mark.parametrize("has_calendar", [True, False])
@pytest.mark.parametrize("freq", ["h", "B", "W-SUN", "MS", None])
@pytest.mark.parametrize("transform", ["none", "log", "diff", "log_return"])
def test_a_forecast_from_the_newest_rows_is_that_of_the_search(
    transform: str, freq: str | None, has_calendar: bool
) -> None:
    cut = table_of(freq=freq, target_transform=transform)
    training = TRAINING.model_copy(update={"calendar": has_calendar})
    predictor = small_predictor(cut, training=training)
    origin = cut[1].num_train_rows + 3
    frame = predictor.forecast(rows_before(cut, origin, predictor.num_rows_needed))
    expected = forecast_in_the_search(cut, training, origin)
    assert torch.tensor(frame["load"]).tolist() == pytest.approx(expected[:, 0].tolist(), rel=1e-9)


def test_rows_before_the_newest_change_nothing() -> None:
    cut = table_of()
    predictor = small_predictor(cut)
    few, many = (rows_before(cut, 150, num_rows) for num_rows in (12, 150))
    assert predictor.forecast(many).equals(predictor.forecast(few))


@pytest.mark.parametrize(("freq", "first"), [("h", "2026-01-11 06:00"), ("B", "2026-08-03")])
def test_the_forecast_follows_the_last_row_in_time(freq: str, first: str) -> None:
    cut = table_of(freq=freq)
    frame = small_predictor(cut).forecast(rows_before(cut, 150, 12))
    assert list(frame.columns) == ["when", "load"]
    assert list(frame["when"]) == list(pd.date_range(first, periods=5, freq=freq))


def test_without_timestamps_the_steps_are_counted() -> None:
    cut = table_of(freq=None)
    frame = small_predictor(cut).forecast(rows_before(cut, 150, 12))
    assert frame["step"].tolist() == [1, 2, 3, 4, 5]


def test_differences_need_one_row_more_to_differ_from() -> None:
    cut = table_of(target_transform="diff")
    predictor = small_predictor(cut)
    assert predictor.num_rows_needed == TRAINING.lookback + 1
    with pytest.raises(ValueError, match="a forecast reads 13 rows: got 12"):
        predictor.forecast(rows_before(cut, 150, 12))


def test_the_forecast_of_an_ensemble_is_the_mean_in_original_units() -> None:
    cut = table_of(target_transform="log")
    whole = small_predictor(cut, num_seeds=3)
    frame = rows_before(cut, 150, 12)
    alone = [
        dataclasses.replace(
            whole, spec=whole.spec.model_copy(update={"num_forecasters": 1}), forecasters=(one,)
        ).forecast(frame)["load"]
        for one in whole.forecasters
    ]
    assert whole.forecast(frame)["load"].tolist() == pytest.approx(np.mean(alone, axis=0).tolist())


def test_from_many_origins_each_forecast_is_that_from_the_rows_before_it() -> None:
    cut = table_of(target_transform="log_return")
    predictor = small_predictor(cut, num_seeds=2)
    origins = torch.tensor([100, 150, 223])
    many = predictor.forecasts_on(cut[1])(origins)
    for origin, forecast in zip(origins.tolist(), many, strict=True):
        one = predictor.forecast(rows_before(cut, origin, 13))["load"]
        # Another batch size is another order of summation.
        assert forecast[:, 0].tolist() == pytest.approx(one.tolist(), rel=1e-5)


def test_on_a_table_with_other_columns_its_own_are_found_by_name() -> None:
    cut = table_of()
    data = cut[1]
    swapped = dataclasses.replace(
        data,
        columns=("load", "new", "heat"),
        values=np.insert(data.values, 1, 7.0, axis=1),
    )
    predictor, origins = small_predictor(cut), torch.tensor([100])
    assert predictor.forecasts_on(swapped)(origins).equal(predictor.forecasts_on(data)(origins))
    with pytest.raises(ValueError, match="the table lacks heat; give a table with them"):
        predictor.forecasts_on(dataclasses.replace(data, columns=("load", "cold")))


def test_the_opened_test_part_is_read_as_well() -> None:
    table, data = table_of()
    opened = split(table, SplitConfig())[1].open()
    assert isinstance(opened, TestData)
    forecasts = small_predictor((table, data)).forecasts_on(opened)
    assert forecasts(torch.tensor([opened.num_rows - 5])).shape == (1, 5, 1)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_a_saved_predictor_forecasts_the_same(tmp_path: Path, num_seeds: int) -> None:
    cut = table_of()
    predictor = small_predictor(cut, num_seeds)
    predictor.save(tmp_path / "saved")
    again = load_predictor(tmp_path / "saved")
    frame = rows_before(cut, 150, 12)
    assert again.spec == predictor.spec
    assert again.scaling == predictor.scaling
    assert again.forecast(frame).equals(predictor.forecast(frame))
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    weights = {f"model-{seed}.safetensors" for seed in range(3)}
    assert names == {"config.json", "scaler.json"} | (
        weights if num_seeds == 3 else {"model.safetensors"}
    )


def test_the_example_is_the_last_rows_and_can_be_read() -> None:
    cut = table_of()
    table, data = cut
    predictor = small_predictor(cut)
    example = example_of(table, data, predictor)
    assert list(example.columns) == ["when", "load", "heat"]
    assert example[["load", "heat"]].to_numpy().tolist() == data.values[-12:].tolist()
    forecast = predictor.forecast(example)
    assert table.series[0].timestamps is not None
    assert forecast["when"][0] == table.series[0].timestamps[data.num_rows]


def replace_in(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))

    return change


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (replace_in("config.json", '"lookback": 12', '"lookback": 13'), "must be as the predictor"),
        (replace_in("config.json", '"num_forecasters": 1', '"num_forecasters": 2'), "model-0"),
        (replace_in("config.json", '"name"', '"nom"'), r"config.json must be as it was saved"),
        (replace_in("config.json", '"heat"\n', '"heat", "c"\n'), "must be as the predictor says"),
        (replace_in("config.json", '"load"\n  ],\n  "freq', '"x"\n  ],\n  "freq'), "first series"),
        (replace_in("scaler.json", '"mean"', '"means"'), "scaler.json must be as it was saved"),
        (replace_in("scaler.json", '"scale": [', '"scale": [ 1.0,'), "a scaling of 2 series"),
        (remove_weights, "model.safetensors"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    small_predictor(table_of()).save(tmp_path)
    spoil(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_predictor(tmp_path)


def test_a_level_without_a_logarithm_is_refused() -> None:
    cut = table_of(target_transform="log")
    frame = rows_before(cut, 150, 12)
    frame.loc[3, "load"] = -1.0
    with pytest.raises(ValueError, match="needs positive targets: got -1"):
        small_predictor(cut).forecast(frame)
