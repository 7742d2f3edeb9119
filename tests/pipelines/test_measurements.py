import numpy as np
import pandas as pd
import pytest

from pipelines.data_config import DataConfig
from pipelines.layout import Layout
from pipelines.measurements import measure
from pipelines.reading import DataError

HOURS = pd.date_range("2014-01-01", periods=5, freq="h")


def measured(
    config: DataConfig, load: list[object], **features: list[object]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    rows = pd.DataFrame({"load": load, **features})
    return measure(rows, HOURS, Layout("hour", None, ("load",), tuple(features), ()), config)


def test_numbers_written_as_text_are_numbers() -> None:
    numbers, _ = measured(DataConfig(), ["1", "2.5", "3", "-4", "1e3"])
    assert numbers["load"].tolist() == [1, 2.5, 3, -4, 1000]


def test_text_among_numbers_is_named_with_its_row() -> None:
    with pytest.raises(
        DataError, match=r"column load holds '\?' in row 2 \(2014-01-01 01:00:00\) \(such rows: 2\)"
    ):
        measured(DataConfig(), ["1", "?", "3", "?", "5"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_missing_and_infinite_values_are_named_with_their_row(bad: float) -> None:
    with pytest.raises(
        DataError,
        match=rf"there are 2 in column load, the first in row 3 \(2014-01-01 02:00:00\), {bad}; "
        r".*data\.missing=interpolate",
    ):
        measured(DataConfig(), [1.0, 2.0, bad, bad, 5.0])


def test_infinite_values_are_missing_where_those_are_interpolated() -> None:
    numbers, notes = measured(DataConfig(missing="interpolate"), [1.0, np.inf, 3.0, np.nan, 5.0])
    assert np.isnan(numbers["load"]).tolist() == [False, True, False, True, False]
    assert notes[0].startswith("missing values, to be interpolated: 2 in column load")


def test_a_constant_target_is_refused() -> None:
    with pytest.raises(DataError, match="a target must vary: column load is 7 in every row"):
        measured(DataConfig(), [7.0] * 5)


def test_a_target_without_values_is_refused() -> None:
    with pytest.raises(DataError, match="a target must vary: column load is nan in every row"):
        measured(DataConfig(missing="interpolate"), [np.nan] * 5)


def test_a_constant_input_is_left_out_and_said() -> None:
    numbers, notes = measured(DataConfig(), [1.0, 2.0, 3.0, 4.0, 5.0], flag=[1] * 5)
    assert list(numbers.columns) == ["load"]
    assert notes == ("constant columns are left out: flag",)


@pytest.mark.parametrize("transform", ["log", "log_return"])
def test_a_logarithm_needs_positive_values(transform: str) -> None:
    config = DataConfig.model_validate({"target_transform": transform})
    with pytest.raises(DataError, match=r"column load is 0 in row 2 .*target_transform=none"):
        measured(config, [1.0, 0.0, 3.0, 4.0, 5.0])
