import shlex
import subprocess
import sys

import pytest
from pydantic import ValidationError

from pipelines.data_config import DataConfig, SplitConfig, command_line


def test_a_recorded_configuration_rebuilds_the_same_object() -> None:
    config = DataConfig(path="a.csv", targets=("x", "y"), horizon=3, missing="interpolate")
    assert DataConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    "settings", ['{"target": "x"}', '{"horizon": "24"}', '{"horizon": 0}', '{"missing": "drop"}']
)
def test_an_unknown_key_or_value_is_refused(settings: str) -> None:
    with pytest.raises(ValidationError, match="1 validation error for DataConfig"):
        DataConfig.model_validate_json(settings)


def test_an_id_that_is_a_number_is_an_id() -> None:
    assert DataConfig.model_validate_json('{"series": 7}').series == "7"


@pytest.mark.parametrize("settings", [DataConfig, SplitConfig])
def test_every_field_says_what_it_means(settings: type[DataConfig] | type[SplitConfig]) -> None:
    assert all(field.description for field in settings.model_fields.values())


def test_the_command_repeats_what_was_given_and_adds_the_change() -> None:
    config = DataConfig(path="my table.csv", targets=("a", "b c"), frequency="h", season=12)
    words = shlex.split(command_line(config, missing="interpolate"))
    assert words[:5] == ["python", "-m", "search.run", "--data", "my table.csv"]
    assert words[5:] == [
        *("--target", "a", "--target", "b c", "--freq", "h"),
        *("--set", "data.season=12", "--set", "data.missing=interpolate"),
    ]


def test_settings_load_neither_pandas_nor_torch() -> None:
    code = "import sys, pipelines.data_config; sys.exit(bool({'pandas', 'torch'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
