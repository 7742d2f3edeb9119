"""`python -m search COMMAND`, also installed as `lstm-search`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from search import run as run_command

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Find the LSTM that forecasts a table of time series best.",
)
studies = typer.Typer(no_args_is_help=True, help="List, show, export and delete studies.")
app.command("run")(run_command.run)
app.add_typer(studies, name="studies")

StudyArgument = Annotated[str, typer.Argument(help="Name of the study; default: the latest.")]
StudyName = Annotated[str, typer.Argument(help="Name of the study; `latest` is the newest.")]
TrialNumber = Annotated[int, typer.Argument(help="Number of the trial.")]
Home = Annotated[
    str | None,
    typer.Option(help="Folder of record and view (LSTM_SEARCH_HOME; default: mlruns)."),
]
Storage = Annotated[str | None, typer.Option(help="Database URL of the record, if elsewhere.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command()
def sync(study: StudyArgument = "latest", home: Home = None, storage: Storage = None) -> None:
    """Rebuild a study's runs in MLflow from its record; twice changes nothing."""
    with run_command.usage_errors_shown():
        from search.sync import sync_study

        typer.echo(sync_study(study, home, storage))


@app.command()
def ui(home: Home = None) -> None:
    """Serve MLflow on 127.0.0.1 with this folder's searches in it; Ctrl+C ends it."""
    with run_command.usage_errors_shown():
        from search.config import SearchConfig
        from search.ui import serve

        serve(SearchConfig(home=home).home_folder)


@app.command()
def replay(
    study: StudyName,
    number: TrialNumber,
    seed: Annotated[int | None, typer.Option(help="Another seed than the recorded.")] = None,
    data: Annotated[str | None, typer.Option(help="Where the table lies now.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda, if not as recorded.")] = None,
    home: Home = None,
    storage: Storage = None,
) -> None:
    """Train a recorded trial again, here, and compare it with its record."""
    with run_command.usage_errors_shown():
        from search import study_commands

        raise typer.Exit(
            study_commands.replay(study, number, home, storage, seed=seed, data=data, device=device)
        )


@app.command()
def doctor(home: Home = None, storage: Storage = None) -> None:
    """Look at versions, devices, stores, paths, disk and rights; begin a bug report with it."""
    with run_command.usage_errors_shown():
        from search import study_commands

        raise typer.Exit(study_commands.doctor(home, storage))


@studies.command("list")
def list_studies(home: Home = None, storage: Storage = None) -> None:
    """List the studies, the one written to last at the end."""
    with run_command.usage_errors_shown():
        from search import study_commands

        study_commands.list_studies(home, storage)


@studies.command()
def show(
    study: StudyArgument = "latest",
    trial: Annotated[int | None, typer.Option(help="Show this trial instead.")] = None,
    home: Home = None,
    storage: Storage = None,
) -> None:
    """Show what a study holds, or all of one of its trials."""
    with run_command.usage_errors_shown():
        from search import study_commands

        study_commands.show(study, trial, home, storage)


@studies.command()
def delete(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    yes: Yes = False,
    home: Home = None,
    storage: Storage = None,
) -> None:
    """Delete a study for good: runs, artifacts, weights, record and Ray's temporary files."""
    with run_command.usage_errors_shown():
        from search import study_commands

        study_commands.delete(study, yes, home, storage)


@studies.command()
def clean(
    older_than: Annotated[
        str, typer.Option(help="Least time since a study was written to: 12h, 30d.")
    ] = "30d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Yes = False,
    home: Home = None,
    storage: Storage = None,
) -> None:
    """Delete all studies that were not written to for 30 days, and what Ray left behind.

    Studies that are being searched, that hold finalists, or that a registered model needs, are
    kept.
    """
    with run_command.usage_errors_shown():
        from search import study_commands

        study_commands.clean(older_than, dry_run, yes, home, storage)


@studies.command()
def export(
    study: StudyName,
    to: Annotated[
        Path | None, typer.Option(help="New folder, or .zip file; default: STUDY-export.")
    ] = None,
    home: Home = None,
    storage: Storage = None,
) -> None:
    """Write a study as tables, configuration and weights that anyone can read."""
    with run_command.usage_errors_shown():
        from search import study_commands

        study_commands.export(study, to, home, storage)


def main() -> None:
    """Run one of the commands."""
    app(run_command.with_latest(sys.argv[1:]))


if __name__ == "__main__":
    main()
