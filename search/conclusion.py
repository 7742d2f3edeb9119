"""What a search comes to: a verdict and a model, and how both are told."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipelines.verdict import Comparison, Verdict
from search.config import SearchConfig
from search.screen import say


@dataclass(frozen=True)
class Named:
    """A model in MLflow's registry."""

    name: str
    version: str
    alias: str

    @property
    def uri(self) -> str:
        """The address by which MLflow and `search forecast` find it."""
        return f"models:/{self.name}@{self.alias}"


@dataclass(frozen=True)
class Conclusion:
    """What a search comes to."""

    verdict: Verdict
    is_new: bool
    """Whether the test part was opened just now."""
    model: Named | None
    """Where MLflow has the model; None where MLflow is behind."""
    folder: Path
    """Where the model lies as files, for `search forecast --model FOLDER`."""
    report: Path
    why_not_shown: str = ""
    """What MLflow said where it is behind."""


def print_conclusion(config: SearchConfig, conclusion: Conclusion, console: Console) -> None:
    """Print the verdict, the test errors it rests on, and where model and report are."""
    verdict = conclusion.verdict
    console.print(_test_table(verdict))
    say(console, f"verdict   {verdict.outcome}: {verdict.reason}")
    optimism = verdict.test_value - verdict.validation_value
    say(
        console,
        f"          the search chose it by {verdict.validation_value:.4f} on the validation part; "
        f"its seeds alone err by {verdict.test_value:.4f} on the test part ({optimism:+.4f})",
    )
    if verdict.num_openings > 1:
        say(
            console,
            f"          this test part was opened {verdict.num_openings} times: the more looks, "
            "the less a verdict says",
        )
    if not conclusion.is_new:
        say(console, "          known from before: the test part was not opened again")
    for warning in verdict.warnings:
        say(console, f"WARNING   {warning}")
    _print_model(config, conclusion, console)
    say(console, f"report    {conclusion.report}")


def _print_model(config: SearchConfig, conclusion: Conclusion, console: Console) -> None:
    place = conclusion.model.uri if conclusion.model else str(conclusion.folder)
    if conclusion.model is None:
        say(console, f"model     {place}; MLflow is behind: {conclusion.why_not_shown}")
        say(console, f"          python -m search finalize {config.study}{config.place}")
    else:
        say(console, f"model     {place} (version {conclusion.model.version})")
    say(console, f"forecast  {forecast_command(config, conclusion)}")


def forecast_command(config: SearchConfig, conclusion: Conclusion) -> str:
    """The command that forecasts with the model, where that lies."""
    place = conclusion.model.uri if conclusion.model else str(conclusion.folder)
    command = f"python -m search forecast --model {shlex.quote(place)} --data new.csv"
    # Not the URI itself, which may hold a password.
    is_elsewhere = conclusion.model is not None and config.tracking.uri is not None
    store = " --tracking-uri URI" if is_elsewhere else ""
    return f"{command} --out forecast.csv{config.home_option}{store}"


def _test_table(verdict: Verdict) -> Table:
    title = f"The sealed test: {verdict.num_windows:,} windows of {verdict.horizon} steps"
    table = Table(title=title, title_justify="left")
    table.add_column("forecast")
    for heading in ("MAE", "MSE", "RMSE"):
        table.add_column(f"{heading} (standardised)", justify="right")
    table.add_column("MASE", justify="right")
    table.add_column("the model's skill against it", justify="right")
    against = {c.opponent: c for c in (*verdict.comparisons, verdict.champion) if c is not None}
    for score in (verdict.model, *verdict.baselines):
        errors = score.errors
        row = (errors.mae_scaled, errors.mse_scaled, errors.rmse_scaled, errors.mase)
        name = f"{score.name} ({score.note})" if score.note else score.name
        table.add_row(name, *map(_number, row), _skill_in_words(against.get(score.name)))
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _skill_in_words(comparison: Comparison | None) -> str:
    if comparison is None or comparison.skill is None:
        return ""
    skill = f"{100 * comparison.skill:+.1f} %"
    if comparison.lower is None or comparison.upper is None:
        return skill
    return f"{skill} ({100 * comparison.lower:+.1f} to {100 * comparison.upper:+.1f})"
