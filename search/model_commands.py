"""What the flags of `python -m search forecast` and `export` set in motion."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pipelines.printable import printable
from search.config import ConfigError, SearchConfig
from search.places import config_of_study, tracking_uri

if TYPE_CHECKING:
    from pipelines.predictor import Predictor


def forecast(config: SearchConfig, model: str, out: Path, plot: Path | None) -> None:
    """Forecast what follows the last row of a table.

    Args:
        config: Names the table and the MLflow server or store.
        model: models:/NAME@ALIAS, models:/NAME/VERSION or a folder.
        out: Where the forecast is written, a CSV or Parquet file.
        plot: Where it is drawn.

    Raises:
        ValueError: There is no such model, or it cannot read the table.
    """
    from pipelines import forecast as forecasting

    forecasting.check_output(out, forecasting.TABLE_ENDINGS)
    if plot is not None:
        forecasting.check_output(plot, forecasting.PICTURE_ENDINGS)
    predictor = _predictor(config, model)
    new = forecasting.forecast_table(predictor, config.data)
    for note in new.notes:
        typer.echo(f"  {printable(note)}")
    forecasting.write_table(new.forecast, out)
    first, last = (str(new.forecast[predictor.time_column].iloc[row]) for row in (0, -1))
    typer.echo(f"wrote {out}: {len(new.forecast)} rows, {first} to {last}")
    if plot is not None:
        forecasting.draw(new, predictor, plot)
        typer.echo(f"wrote {plot}")


def export(
    study: str,
    trial: int | None,
    out: Path,
    home: str | None,
    storage: str | None,
    *,
    data: str | None,
    with_onnx: bool,
) -> None:
    """Write a trial's model as files that need only torch and safetensors.

    Raises:
        ValueError: There is no such trial, or its weights or its table are gone.
    """
    from search.take_home.writing import take_home

    config = config_of_study(study, home, storage)
    written = take_home(config, trial, out, data, with_onnx)
    typer.echo(f"wrote {out}: {', '.join(path.name for path in written)}")
    typer.echo(f"try it: cd {out} && python example.py")


def _predictor(config: SearchConfig, model: str) -> "Predictor":
    if model.startswith("models:"):
        from search.registry import fetch_predictor

        return fetch_predictor(tracking_uri(config), model)
    from pipelines.predictor import load_predictor

    # A folder of `search export`, or an MLflow model that was copied or downloaded.
    for folder in (Path(model), Path(model) / "data" / "predictor"):
        if (folder / "config.json").is_file():
            try:
                return load_predictor(folder)
            except FileNotFoundError as error:
                raise ConfigError(
                    f"a saved model must be whole: {error.filename} is missing; save it again"
                ) from None
    raise ConfigError(
        f"--model takes models:/NAME@ALIAS, models:/NAME/VERSION or the folder of a saved model: "
        f"{model} holds no config.json; name another"
    )
