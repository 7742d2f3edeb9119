"""`python -m search.run`: flags to configuration, one search, a summary.

What a flag means is in `search/config.py`. Heavy imports wait until a search begins, so that
`--help` answers at once.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.printable import printable

if TYPE_CHECKING:
    from search.config import SearchConfig

EXIT_WRONG_USAGE = 2

_DATA, _SEARCH, _MACHINE, _RECORD = "The table", "The search", "The machine", "Record and view"
_END = "The end"


def _option(flag: str, help_text: str, panel: str, **more: Any) -> Any:
    return typer.Option(*flag.split(), help=help_text, rich_help_panel=panel, **more)


def _number_or_word(text: str) -> float | str:
    with suppress(ValueError):
        return float(text)
    return text


ConfigFile = Annotated[
    Path | None, _option("--config -c", "YAML file; flags override it.", _SEARCH)
]
Overrides = Annotated[
    list[str] | None, _option("--set", "Any setting, as a.b=value; repeatable.", _SEARCH)
]
Data = Annotated[
    str | None,
    _option("--data", "CSV or Parquet file, glob or URL (default: electricity 2014).", _DATA),
]
Target = Annotated[list[str] | None, _option("--target", "Column to forecast; repeatable.", _DATA)]
Timestamp = Annotated[str | None, _option("--timestamp", "Column of the timestamps.", _DATA)]
Freq = Annotated[
    str | None,
    _option("--freq", "pandas offset such as h or D; none: row order is time.", _DATA),
]
Horizon = Annotated[
    int | None, _option("--horizon", "Steps to forecast (default: one season).", _DATA)
]
Trials = Annotated[
    int | None, _option("--trials -n", "The study's total of trials (default: 100).", _SEARCH)
]
AddTrials = Annotated[
    int | None, _option("--add-trials", "Trials beyond the study's total so far.", _SEARCH)
]
TimeBudget = Annotated[
    str | None, _option("--time-budget", "Stop after this long: 30m, 2h.", _SEARCH)
]
StudyName = Annotated[
    str | None,
    _option("--study", "Name of the study, as nightly-{date}; a known one goes on.", _RECORD),
]
Resume = Annotated[
    str | None,
    _option("--resume", "Go on with a study as it was configured; alone: the latest.", _RECORD),
]
MetricName = Annotated[
    str | None, _option("--metric", "mae, mse, rmse or mase (default: mae).", _SEARCH)
]
SamplerName = Annotated[
    str | None, _option("--sampler", "tpe, gp, random or grid (default: tpe).", _SEARCH)
]
Repeats = Annotated[
    int | None, _option("--repeats", "Seeds of each combination of a grid (default: 1).", _SEARCH)
]
PrunerName = Annotated[
    str | None, _option("--pruner", "asha, hyperband, median or none (default: asha).", _SEARCH)
]
Seed = Annotated[int | None, _option("--seed", "Seed of proposals and trials.", _SEARCH)]
MaxConcurrent = Annotated[int | None, _option("--max-concurrent", "Trials at a time.", _MACHINE)]
CpusPerTrial = Annotated[
    float | None, _option("--cpus-per-trial", "CPU cores of a trial (default: 1).", _MACHINE)
]
GpusPerTrial = Annotated[
    Any,
    _option(
        "--gpus-per-trial",
        "GPUs of a trial, fractions too; auto: as it pays.",
        _MACHINE,
        parser=_number_or_word,
        metavar="FLOAT|auto",
    ),
]
DeviceName = Annotated[
    str | None, _option("--device", "auto, cpu or cuda (default: auto).", _MACHINE)
]
PrecisionName = Annotated[
    str | None, _option("--precision", "auto, float32 or bf16 (default: auto).", _MACHINE)
]
Address = Annotated[
    str | None, _option("--address", "Ray cluster to join (RAY_ADDRESS).", _MACHINE)
]
TrackingUri = Annotated[
    str | None,
    _option("--tracking-uri", "MLflow server or store (MLFLOW_TRACKING_URI).", _RECORD),
]
Experiment = Annotated[
    str | None, _option("--experiment", "MLflow experiment (MLFLOW_EXPERIMENT_NAME).", _RECORD)
]
Storage = Annotated[str | None, _option("--storage", "Database URL of the record.", _RECORD)]
Home = Annotated[
    str | None,
    _option("--home", "Folder for record and view (LSTM_SEARCH_HOME; default: mlruns).", _RECORD),
]
Finalize = Annotated[
    bool | None,
    _option(
        "--finalize/--no-finalize",
        "End with finalists, the sealed test and a registered model (default: so).",
        _END,
    ),
]
NumFinalists = Annotated[
    int | None, _option("--finalists", "Best configurations to train again (default: 3).", _END)
]
NumSeeds = Annotated[int | None, _option("--seeds", "Seeds of each finalist (default: 5).", _END)]
Refit = Annotated[
    str | None,
    _option("--refit", "all: the final model is trained again on all rows; none: not.", _END),
]
RegisteredModelName = Annotated[
    str | None, _option("--registered-model-name", "Name in MLflow's model registry.", _END)
]
RequireChampion = Annotated[
    bool | None, _option("--require-champion", "Exit with 4 unless the model passes.", _END)
]
SummaryJson = Annotated[
    Path | None, _option("--summary-json", "File for what came of it, as JSON.", _END)
]
OnFinish = Annotated[
    str | None,
    _option("--on-finish", "Shell command that gets that JSON, whatever the end.", _END),
]
Init = Annotated[
    Path | None, _option("--init", "Write a commented configuration for the table.", _SEARCH)
]
DryRun = Annotated[
    bool, _option("--dry-run", "Print the resolved configuration, start nothing.", _SEARCH)
]
Verbose = Annotated[
    bool, _option("--verbose -v", "Let Ray, Optuna and MLflow speak too.", _MACHINE)
]
Quiet = Annotated[bool, _option("--quiet -q", "Print the summary only.", _MACHINE)]

FINAL_SETTINGS = {
    "finalize": "final.finalize",
    "finalists": "final.finalists",
    "seeds": "final.seeds",
    "refit": "final.refit",
    "registered_model_name": "final.registered_model_name",
    "require_champion": "final.require_champion",
}
_SETTINGS = {
    "data": "data.path",
    "target": "data.targets",
    "timestamp": "data.timestamp",
    "freq": "data.frequency",
    "horizon": "data.horizon",
    "trials": "search.trials",
    "time_budget": "search.time_budget",
    "study": "study",
    "metric": "search.metric",
    "sampler": "search.sampler",
    "repeats": "search.repeats",
    "pruner": "search.pruner",
    "seed": "search.seed",
    "max_concurrent": "resources.max_concurrent",
    "cpus_per_trial": "resources.cpus_per_trial",
    "gpus_per_trial": "resources.gpus_per_trial",
    "device": "resources.device",
    "precision": "training.precision",
    "address": "resources.address",
    "tracking_uri": "tracking.uri",
    "experiment": "tracking.experiment",
    "storage": "storage",
    "home": "home",
    **FINAL_SETTINGS,
}


def run(
    data: Data = None,
    target: Target = None,
    timestamp: Timestamp = None,
    freq: Freq = None,
    horizon: Horizon = None,
    trials: Trials = None,
    add_trials: AddTrials = None,
    time_budget: TimeBudget = None,
    metric: MetricName = None,
    sampler: SamplerName = None,
    repeats: Repeats = None,
    pruner: PrunerName = None,
    seed: Seed = None,
    finalize: Finalize = None,
    finalists: NumFinalists = None,
    seeds: NumSeeds = None,
    refit: Refit = None,
    registered_model_name: RegisteredModelName = None,
    require_champion: RequireChampion = None,
    summary_json: SummaryJson = None,
    on_finish: OnFinish = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    init: Init = None,
    dry_run: DryRun = False,
    study: StudyName = None,
    resume: Resume = None,
    storage: Storage = None,
    home: Home = None,
    tracking_uri: TrackingUri = None,
    experiment: Experiment = None,
    max_concurrent: MaxConcurrent = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    device: DeviceName = None,
    precision: PrecisionName = None,
    address: Address = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Find the LSTM that forecasts a table of time series best.

    Examples:
      python -m search.run --trials 100

      python -m search.run --data sales.csv --target sold --horizon 28

      python -m search.run --resume --add-trials 50

      python -m search.run --data sales.csv --init sales.yaml
    """
    read = partial(read_config, locals())
    from search import commands
    from search.hooks import Hooks, account_told

    with usage_errors_shown():
        if init is not None:
            commands.write_configuration(read(), init)
        elif dry_run:
            commands.print_resolved(read())
        else:
            with account_told(Hooks(summary_json, on_finish)) as account:
                exit_code = commands.search(read(), verbose, quiet, account)
            raise typer.Exit(exit_code)


def flags_of(arguments: list[str]) -> Mapping[str, Any]:
    """A command line's flags, by the names that they have in `run`."""
    mine = list(with_latest(arguments))  # parsing empties it
    return typer.main.get_command(app).make_context("search.run", mine).params


def read_config(flags: Mapping[str, Any]) -> "SearchConfig":
    """The configuration that flags ask for.

    Raises:
        ValueError: for settings that cannot be.
    """
    from search.commands import read_config

    given = {path: flags[name] for name, path in _SETTINGS.items() if flags[name] is not None}
    overrides = flags["overrides"] or []
    return read_config(flags["config"], overrides, given, flags["resume"], flags["add_trials"])


@contextmanager
def usage_errors_shown() -> Iterator[None]:
    """Turn a ValueError, which the user can mend, into one line and exit code 2."""
    try:
        yield
    except ValueError as error:
        typer.echo(f"error: {printable(str(error))}", err=True)
        raise typer.Exit(EXIT_WRONG_USAGE) from None


def with_latest(arguments: list[str]) -> list[str]:
    """Give `--resume` its name where it stands alone: the latest study."""
    if "--resume" not in arguments:
        return arguments
    place = arguments.index("--resume") + 1
    stands_alone = place == len(arguments) or arguments[place].startswith("-")
    return [*arguments[:place], *(["latest"] if stands_alone else []), *arguments[place:]]


def main() -> None:
    """Run the command."""
    app(with_latest(sys.argv[1:]))


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
app.command(epilog="See docs/tutorial.md for a first search on your own table.")(run)

if __name__ == "__main__":
    main()
