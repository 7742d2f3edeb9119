"""What a search prints at its end: the best trials, where to look, how to go on."""

from rich.console import Console
from rich.table import Table

from search.executor import Ending
from search.progress import METRIC_NAMES, baselines_in_words
from search.record import TrialState, leaderboard
from search.search import SearchResult

NUM_SHOWN = 10


def print_summary(result: SearchResult, console: Console) -> None:
    """Print the ten best trials, the link to all of them and the command that goes on."""
    best = leaderboard(result.trials, NUM_SHOWN)
    if best:
        console.print(_best_table(result))
    else:
        console.print("no trial is complete yet")
        _print_failures(result, console)
    _say(console, f"to beat   {baselines_in_words(result.baselines, result.config.search.metric)}")
    _say(console, f"study     {result.study} ({result.ending})")
    if result.mlflow_url:
        _say(console, f"browse    {result.mlflow_url}")
        _say(console, "          served by: python -m search ui")
        _say(console, "          (a bare `mlflow ui` looks into another store)")
    else:
        _say(console, f"browse    MLflow is behind: python -m search sync {result.study}")
    more = "" if result.ending is not Ending.DONE else " --add-trials 50"
    _say(console, f"go on     python -m search.run --resume {result.study}{more}")


def _best_table(result: SearchResult) -> Table:
    metric = result.config.search.metric
    best = leaderboard(result.trials, NUM_SHOWN)
    table = Table(title=f"The best {len(best)} trials", title_justify="left")
    for heading in ("trial", f"{METRIC_NAMES[metric]} (standardised)", "parameters", "model"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for trial in best:
        assert trial.config is not None
        model, training = trial.config.model, trial.config.training
        parts = [trial.config.describe(), model.normalisation, model.head]
        parts += ["linear skip"] if model.linear_skip else []
        parts += ["calendar"] if training.calendar else []
        parts += [f"patch {model.patch_length}", f"rate {training.learning_rate:.1e}"]
        value = f"{trial.value:.4f}"
        table.add_row(f"{trial.number:03d}", value, f"{trial.num_parameters:,}", ", ".join(parts))
    return table


def _print_failures(result: SearchResult, console: Console) -> None:
    failed = [trial for trial in result.trials if trial.state is TrialState.FAILED]
    for trial in failed[:3]:
        _say(console, f"  trial {trial.name} failed: {trial.reason}")


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
