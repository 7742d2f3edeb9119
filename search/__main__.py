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
job = typer.Typer(no_args_is_help=True, help="Look after searches that were submitted.")
app.add_typer(job, name="job")

StudyArgument = Annotated[str, typer.Argument(help="Name of the study; default: the latest.")]
StudyName = Annotated[str, typer.Argument(help="Name of the study; `latest` is the newest.")]
TrialNumber = Annotated[int, typer.Argument(help="Number of the trial.")]
Home = Annotated[
    str | None,
    typer.Option(help="Folder of record and view (LSTM_SEARCH_HOME; default: mlruns)."),
]
Storage = Annotated[str | None, typer.Option(help="Database URL of the record, if elsewhere.")]
Cluster = Annotated[
    str,
    typer.Option(
        help="The dashboard of a Ray cluster, http://HOST:8265.", envvar="RAY_API_SERVER_ADDRESS"
    ),
]
SubmittedStudy = Annotated[str, typer.Argument(help="Name of the submitted study.")]
THIS_CLUSTER = "http://127.0.0.1:8265"
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Send the token over plain HTTP to another host.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command()
def sync(study: StudyArgument = "latest", home: Home = None, storage: Storage = None) -> None:
    """Rebuild a study's runs in MLflow from its record; twice changes nothing."""
    with run_command.usage_errors_shown():
        from search.sync import sync_study

        typer.echo(sync_study(study, home, storage))


@app.command()
def finalize(
    study: StudyArgument = "latest",
    finalists: run_command.NumFinalists = None,
    seeds: run_command.NumSeeds = None,
    refit: run_command.Refit = None,
    registered_model_name: run_command.RegisteredModelName = None,
    require_champion: run_command.RequireChampion = None,
    home: Home = None,
    storage: Storage = None,
    verbose: run_command.Verbose = False,
    quiet: run_command.Quiet = False,
) -> None:
    """Judge a finished search on the sealed test and register its model (docs/verdict.md)."""
    settings = run_command.FINAL_SETTINGS
    flags = {settings[name]: value for name, value in locals().items() if name in settings}
    given = {path: value for path, value in flags.items() if value is not None}
    with run_command.usage_errors_shown():
        from search import commands
        from search.config_file import merge, parse_config
        from search.places import config_of_study

        recorded = config_of_study(study, home, storage).model_dump(mode="json")
        merged = parse_config(merge(recorded, [], given))
        raise typer.Exit(commands.finalize(merged, verbose, quiet))


@app.command()
def ui(home: Home = None) -> None:
    """Serve MLflow on 127.0.0.1 with this folder's searches in it; Ctrl+C ends it."""
    with run_command.usage_errors_shown():
        from search.config import SearchConfig
        from search.ui import serve

        serve(SearchConfig(home=home))


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
def forecast(
    model: Annotated[
        str, typer.Option(help="models:/NAME@champion, models:/NAME/VERSION, or a folder.")
    ],
    data: Annotated[str, typer.Option(help="CSV or Parquet file with the newest rows.")],
    out: Annotated[Path, typer.Option(help="Forecast to write, .csv or .parquet.")],
    plot: Annotated[Path | None, typer.Option(help="Picture to draw, .png, .svg or .pdf.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="How the table is read: data.KEY=VALUE.")
    ] = None,
    home: Home = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow server or store (MLFLOW_TRACKING_URI).")
    ] = None,
) -> None:
    """Forecast what follows the last row of a table with a model that a search left."""
    with run_command.usage_errors_shown():
        from search import model_commands
        from search.config_file import merge, parse_config

        flags = {"data.path": data, "home": home, "tracking.uri": tracking_uri}
        config = parse_config(merge({}, overrides or [], flags))
        model_commands.forecast(config, model, out, plot)


@app.command("export")
def export_model(
    study: StudyName,
    out: Annotated[Path, typer.Option(help="New folder to write.")],
    trial: Annotated[int | None, typer.Option(help="Its number; default: the best.")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx too.")] = False,
    data: Annotated[str | None, typer.Option(help="Where the table lies now.")] = None,
    home: Home = None,
    storage: Storage = None,
) -> None:
    """Take a trial's model home, as files that need only torch and safetensors."""
    with run_command.usage_errors_shown():
        from search import model_commands

        model_commands.export(study, trial, out, home, storage, data=data, with_onnx=onnx)


@app.command()
def doctor(home: Home = None, storage: Storage = None) -> None:
    """Look at versions, devices, stores, paths, disk and rights; begin a bug report with it."""
    with run_command.usage_errors_shown():
        from search import study_commands

        raise typer.Exit(study_commands.doctor(home, storage))


@app.command()
def report(
    study: StudyArgument = "latest",
    out: Annotated[
        Path | None, typer.Option(help="The page's file; default: beside the study's weights.")
    ] = None,
    home: Home = None,
    storage: Storage = None,
) -> None:
    """Write the page that explains a study; without --out its pictures too."""
    with run_command.usage_errors_shown():
        from search import study_commands

        study_commands.report(study, out, home, storage)


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


@app.command()
def submit(
    study: Annotated[str, typer.Option(help="Name of the study, as nightly-{date}.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Flags of python -m search.run, behind a --.")
    ] = None,
    address: Cluster = THIS_CLUSTER,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow the search to its end.")
    ] = True,
    insecure: Insecure = False,
) -> None:
    """Search on a Ray cluster, as a job; safe to be tried again (docs/cluster.md).

    While a search of this name runs, its log is followed; after a crash it goes on; after its end
    it is reported. Example: python -m search submit --study load -- --trials 500 --data load.csv
    """
    with run_command.usage_errors_shown():
        from search import job_commands

        raise typer.Exit(job_commands.submit(study, arguments or [], address, wait, insecure))


@job.command()
def status(
    study: SubmittedStudy, address: Cluster = THIS_CLUSTER, insecure: Insecure = False
) -> None:
    """Tell how far a submitted search is; exit with its outcome once it is over."""
    with run_command.usage_errors_shown():
        from search import job_commands

        raise typer.Exit(job_commands.status(study, address, insecure))


@job.command()
def logs(
    study: SubmittedStudy, address: Cluster = THIS_CLUSTER, insecure: Insecure = False
) -> None:
    """Print what a submitted search has said so far."""
    with run_command.usage_errors_shown():
        from search import job_commands

        job_commands.logs(study, address, insecure)


@job.command()
def stop(
    study: SubmittedStudy, address: Cluster = THIS_CLUSTER, insecure: Insecure = False
) -> None:
    """End a submitted search in order; submitting it again goes on."""
    with run_command.usage_errors_shown():
        from search import job_commands

        job_commands.stop(study, address, insecure)


def main() -> None:
    """Run one of the commands."""
    app(run_command.with_latest(sys.argv[1:]))


if __name__ == "__main__":
    main()
