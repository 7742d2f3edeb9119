"""What a search prints at its end: the best trials, where to look, how to go on."""

from rich.console import Console
from rich.table import Table

from search.commands import resume_command
from search.grid import left_out_in_words
from search.grid_tables import print_findings
from search.places import tracking_uri
from search.progress import METRIC_NAMES, baselines_in_words
from search.record import Ending, TrialState, leaderboard
from search.result import SearchResult
from search.screen import say
from search.space import TrialConfig
from search.ui import local_store_uri

NUM_SHOWN = 10


def print_summary(result: SearchResult, console: Console) -> None:
    """Print the ten best trials, the link to all of them and the command that goes on.

    Of a grid the means are printed instead of the best trials, of which the luckiest seeds are.
    """
    best = leaderboard(result.trials, NUM_SHOWN)
    is_grid = result.config.search.sampler == "grid"
    if best and is_grid:
        print_findings(result, console)
    elif best:
        console.print(_best_table(result))
    else:
        console.print("no trial is complete yet")
        _print_failures(result, console)
    to_beat = baselines_in_words(result.baselines, result.config.search.metric)
    say(console, f"to beat   {to_beat or 'unknown: no baseline was computed'}")
    say(console, f"study     {result.study} ({result.ending})")
    if result.ending is Ending.BROKEN:
        say(console, f"given up  {result.why_broken}")
    for line in left_out_in_words(result.left_out):
        say(console, f"          {line}")
    _print_view(result, console)
    if result.ending is Ending.EXHAUSTED:
        say(console, "go on     in a new --study with a wider space: this one holds nothing new")
    else:
        grows_by = (
            f" --repeats {result.config.search.repeats + 2}" if is_grid else " --add-trials 50"
        )
        more = grows_by if result.ending is Ending.DONE else ""
        say(console, f"go on     {resume_command(result.config)}{more}")


def _print_view(result: SearchResult, console: Console) -> None:
    config = result.config
    if result.mlflow_url is None:
        command = f"python -m search sync {result.study}{config.place}"
        say(console, f"browse    MLflow is behind: {command}")
        return
    say(console, f"browse    {result.mlflow_url}")
    if tracking_uri(config) == local_store_uri(config.home_folder):
        say(console, f"          served by: python -m search ui{config.home_option}")
        say(console, "          (a bare `mlflow ui` looks into another store)")
    elif not tracking_uri(config).startswith("http"):
        say(console, "          served by: mlflow server, with your store as --backend-store-uri")


def _best_table(result: SearchResult) -> Table:
    metric = result.config.search.metric
    best = leaderboard(result.trials, NUM_SHOWN)
    title = "The best trial" if len(best) == 1 else f"The best {len(best)} trials"
    table = Table(title=title, title_justify="left")
    unit = "" if metric == "mase" else " (standardised)"
    for heading in ("trial", f"{METRIC_NAMES[metric]}{unit}", "parameters", "model"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for trial in best:
        assert trial.config is not None
        value, words = f"{trial.value:.4f}", configuration_in_words(trial.config)
        table.add_row(f"{trial.number:03d}", value, f"{trial.num_parameters:,}", words)
    return table


def configuration_in_words(config: TrialConfig) -> str:
    """What a trial trains, such as `2 layers 64→128, lookback 96, last, aligned, skip shared`."""
    model, training = config.model, config.training
    parts = [config.describe(), model.normalisation, model.head, f"skip {model.linear_skip}"]
    parts += ["calendar"] if training.calendar else []
    parts += [f"patch {model.patch_length}", f"rate {training.learning_rate:.1e}"]
    return ", ".join(parts)


def _print_failures(result: SearchResult, console: Console) -> None:
    failed = [trial for trial in result.trials if trial.state is TrialState.FAILED]
    for trial in failed[:3]:
        say(console, f"  trial {trial.name} failed: {trial.reason}")
