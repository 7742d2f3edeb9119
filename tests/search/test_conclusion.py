"""The commands that are printed with a verdict."""

from pathlib import Path
from typing import Any, cast

import pytest

from pipelines.verdict import Verdict
from search.conclusion import Conclusion, Named, forecast_command
from search.config import SearchConfig
from search.config_file import parse_config


@pytest.mark.parametrize(
    ("place", "options"),
    [
        ({}, ""),
        ({"home": "my runs"}, " --home 'my runs'"),
        ({"tracking": {"uri": "http://me:secret@host:5000"}}, " --tracking-uri URI"),
    ],
)
def test_a_registered_model_is_forecast_with_from_where_it_is_registered(
    place: dict[str, Any], options: str
) -> None:
    named = Named("load-h6", "3", "champion")
    command = forecast_command(parse_config({"study": "one"} | place), concluded(named))
    start = "python -m search forecast --model models:/load-h6@champion --data new.csv"
    assert command == f"{start} --out forecast.csv{options}"


def test_a_model_that_mlflow_does_not_have_is_forecast_with_from_its_folder() -> None:
    config = SearchConfig.model_validate({"tracking": {"uri": "http://host:5000"}})
    command = forecast_command(config, concluded(None))
    assert "--model 'my runs/model' " in command
    assert "--tracking-uri" not in command


def concluded(model: Named | None) -> Conclusion:
    # The command tells nothing of the verdict.
    return Conclusion(
        cast(Verdict, None),
        is_new=True,
        model=model,
        folder=Path("my runs/model"),
        report=Path("report.html"),
    )
