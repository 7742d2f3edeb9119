"""Studies as things: which there are, and what one of them holds."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from pipelines.printable import printable
from pipelines.verdict import Verdict
from search.config import Metric, SearchConfig
from search.lock import holder, is_locked
from search.places import (
    known_studies,
    lock_file,
    record_files,
    record_url,
    weights_folder,
)
from search.progress import METRIC_NAMES
from search.projection import last_time
from search.record import Ending, TrialRecord, TrialState, leaderboard, metric_value
from search.result import SearchResult, recorded_baselines
from search.screen import say, say_lines
from search.stored_studies import UnknownStudyError, read_study
from search.summary import print_summary

NO_VERDICT = "-"
"""Shown until a study has been tested against the baselines."""


@dataclass(frozen=True)
class Overview:
    """One study in a line."""

    name: str
    state: str
    num_bytes: int
    """Of record and weights."""
    began_at: float | None = None
    last_at: float | None = None
    """When the record was last written to."""
    data: str = ""
    metric: Metric = "mae"
    num_counted: int = 0
    num_asked: int | None = None
    best: float | None = None
    verdict: str = NO_VERDICT
    ray_sessions: tuple[str, ...] = ()
    """Folders of Ray's own, one a search that was begun or went on."""
    is_readable: bool = True


def overviews(config: SearchConfig) -> list[Overview]:
    """All studies of a folder or a database; one that cannot be read is listed as such."""
    return [overview(config, name) for name in known_studies(config)]


def overview(config: SearchConfig, name: str) -> Overview:
    """One study in a line."""
    num_bytes = num_bytes_of(config, name)
    try:
        notes, trials = read_study(record_url(config, name), name)
    except UnknownStudyError:
        return Overview(name, "unreadable", num_bytes, is_readable=False)
    facts, best = notes.get("facts", {}), leaderboard(trials, 1)
    settings = json.loads(notes.get("config", "{}")).get("search", {})
    return Overview(
        name,
        state_of(config, name, notes),
        num_bytes,
        began_at=notes.get("created_at"),
        last_at=_last_at(notes, trials),
        data=facts.get("data_name", ""),
        metric=facts.get("metric", "mae"),
        num_counted=sum(trial.state.counts for trial in trials),
        num_asked=settings.get("trials"),
        best=best[0].value if best else None,
        verdict=_verdict(notes)[0],
        ray_sessions=tuple(notes.get("ray_sessions", ())),
    )


def state_of(config: SearchConfig, name: str, notes: dict[str, Any]) -> str:
    """Whether a study is being searched, and how its last search ended."""
    if is_locked(lock_file(config, name), config.storage):
        return "searching"
    return str(notes.get("state", Ending.INTERRUPTED))


def num_bytes_of(config: SearchConfig, name: str) -> int:
    """What the record and the weights of a study take on this disk."""
    return num_bytes_in([*record_files(config, name), weights_folder(config, name)])


def num_bytes_in(paths: Iterable[Path]) -> int:
    """What files and folders take; a link counts as itself, what has just gone as nothing."""
    total = 0
    for path in paths:
        with suppress(OSError):
            is_folder = path.is_dir() and not path.is_symlink()
            total += num_bytes_in(list(path.iterdir())) if is_folder else path.lstat().st_size
    return total


def print_list(found: list[Overview], console: Console) -> None:
    """Print a table of studies, the one written to last at the end."""
    table = Table(box=None, pad_edge=False)
    for heading in ("study", "began", "data", "trials", "state", "best", "verdict", "bytes"):
        is_number = heading in ("trials", "best", "bytes")
        table.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    for study in found:
        best = "-" if study.best is None else f"{METRIC_NAMES[study.metric]} {study.best:.4f}"
        asked = "" if study.num_asked is None else f"/{study.num_asked}"
        row = [study.name, in_words(study.began_at), printable(study.data) or "-"]
        row += [f"{study.num_counted}{asked}", study.state, best, printable(study.verdict)]
        table.add_row(*row, size_in_words(study.num_bytes))
    console.print(table, markup=False, highlight=False)


def print_study(config: SearchConfig, console: Console) -> None:
    """Print what one study holds: where it stands, its best trials, and where everything is."""
    name = config.study
    assert name is not None
    notes, trials = read_study(record_url(config, name), name)
    facts = notes.get("facts", {})
    state = state_of(config, name, notes)
    if state == "searching":
        state += f" ({holder(lock_file(config, name), config.storage)})"
    counts = Counter(str(trial.state) for trial in trials)
    source, fingerprint = facts.get("data_source", "?"), facts.get("data_fingerprint", "?")
    lines = {
        "state": state,
        "trials": ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "none",
        "began": f"{in_words(notes.get('created_at'))}, last heard of "
        f"{in_words(_last_at(notes, trials))}",
        "data": f"{facts.get('data_name', '?')}, {facts.get('num_rows', '?')} rows to search on",
        "": f"from {source}, fingerprint {fingerprint[:12]}",
        "verdict": ": ".join(_verdict(notes)),
        "model": _model_in_words(notes),
        "record": _record_in_words(config, name),
        "weights": _folder_in_words(weights_folder(config, name)),
    }
    for heading, text in lines.items():
        say(console, f"{heading:<9} {text}")
    ending = Ending(notes.get("state", Ending.INTERRUPTED))
    baselines, url = recorded_baselines(notes), notes.get("mlflow_url")
    print_summary(SearchResult(config, ending, tuple(trials), baselines, url), console)


def print_trial(config: SearchConfig, number: int, console: Console) -> None:
    """Print one trial: configuration, evaluations, outcome, traceback, how to replay it.

    Raises:
        UnknownTrialError: where the study has no such trial.
    """
    from search.replay import recorded_trial, replay_command

    _, trial = recorded_trial(config, number)
    metric = config.search.metric
    value = "" if trial.value is None else f", {METRIC_NAMES[metric]} {trial.value:.6g}"
    say(console, f"trial {trial.name}: {trial.state}{value}")
    if trial.reason:
        say(console, f"reason    {trial.reason}")
    for reason in trial.retries:
        say(console, f"retried   {reason}")
    say(console, f"ran       {in_words(trial.started_at)} to {in_words(trial.ended_at)}")
    ran_on = ", ".join(f"{name} {value}" for name, value in trial.ran_on.items())
    say(console, f"ran on    {ran_on or '-'}")
    say(console, f"seed      {trial.seed}")
    if trial.config is not None:
        say(console, f"model     {trial.num_parameters:,} parameters")
        plain = trial.config.model_dump(mode="json")
        say_lines(console, yaml.safe_dump(plain, sort_keys=False, default_flow_style=None))
    if trial.evaluations:
        console.print(_evaluations_table(trial, metric), markup=False)
    if trial.traceback:
        say_lines(console, trial.traceback)
    if trial.state is not TrialState.REJECTED:
        say(console, f"replay    {replay_command(config, number)}")


def _verdict(notes: Mapping[str, Any]) -> tuple[str, ...]:
    """Whether the model passed, and why so."""
    if "verdict" not in notes:
        return (NO_VERDICT,)
    verdict = Verdict.model_validate_json(notes["verdict"])
    return verdict.outcome, verdict.reason


def _model_in_words(notes: Mapping[str, Any]) -> str:
    model = notes.get("registered")
    return f"{model['name']} version {model['version']}, {model['alias']}" if model else "-"


def in_words(seconds: float | None) -> str:
    """A time as this machine's clock shows it."""
    return "-" if seconds is None else datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def size_in_words(num_bytes: float) -> str:
    """A number of bytes, such as `12.3 MB`."""
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"


def _last_at(notes: dict[str, Any], trials: Iterable[TrialRecord]) -> float | None:
    times = [notes.get("created_at"), *map(last_time, trials)]
    return max((time for time in times if time is not None), default=None)


def _record_in_words(config: SearchConfig, name: str) -> str:
    if config.storage:
        return "in the database given by --storage"
    files = record_files(config, name)
    return f"{files[0]}, {size_in_words(num_bytes_in(files))}"


def _folder_in_words(folder: Path) -> str:
    if not folder.is_dir():
        return "none"
    num_files = sum(1 for _ in folder.iterdir())
    return f"{folder}, {num_files} files, {size_in_words(num_bytes_in([folder]))}"


def _evaluations_table(trial: TrialRecord, metric: Metric) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("step", METRIC_NAMES[metric], "training loss", "learning rate", "windows"):
        table.add_column(heading, justify="right")
    final = [] if trial.final is None else [trial.final]
    for recorded in (*trial.evaluations, *final):
        evaluation = recorded.evaluation
        row = [f"{metric_value(evaluation, metric):.6g}", f"{evaluation.train_loss:.6g}"]
        row += [f"{evaluation.learning_rate:.3g}", str(evaluation.num_windows)]
        step = f"{evaluation.step}" + (" whole" if recorded is trial.final else "")
        table.add_row(step, *row)
    return table
