"""`python -m search COMMAND`, also installed as `lstm-search`."""

import sys
from typing import Annotated

import typer

from search import run as run_command

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Find the LSTM that forecasts a table of time series best.",
)
app.command("run")(run_command.run)

StudyArgument = Annotated[str, typer.Argument(help="Name of the study; default: the latest.")]
Home = Annotated[str, typer.Option(help="Folder that searches leave their results in.")]
Storage = Annotated[str | None, typer.Option(help="Database URL of the record, if elsewhere.")]


@app.command()
def sync(study: StudyArgument = "latest", home: Home = "mlruns", storage: Storage = None) -> None:
    """Rebuild a study's runs in MLflow from its record; twice changes nothing."""
    from search.sync import sync_study

    with run_command.usage_errors_shown():
        typer.echo(sync_study(study, home, storage))


@app.command()
def ui(home: Home = "mlruns") -> None:
    """Serve MLflow on 127.0.0.1 with this folder's searches in it; Ctrl+C ends it."""
    from search.ui import serve

    with run_command.usage_errors_shown():
        serve(home)


def main() -> None:
    """Run one of the commands."""
    app(run_command.with_latest(sys.argv[1:]))


if __name__ == "__main__":
    main()
