"""What the flags of `python -m search studies`, `replay` and `doctor` set in motion."""

import sys
from collections.abc import Iterable
from pathlib import Path

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from search.commands import LOG_WIDTH
from search.config import ConfigError, Duration, SearchConfig, duration_seconds
from search.outcome import EXIT_BROKEN
from search.places import config_of_study, name_of_study
from search.studies import in_words, num_bytes_in, size_in_words


def list_studies(home: str | None, storage: str | None) -> None:
    """Print the studies of a folder or a database."""
    from search.studies import overviews, print_list

    config = SearchConfig(home=home, storage=storage)
    found = overviews(config)
    if not found:
        command = f"python -m search.run{config.place}"
        typer.echo(f"no study in {config.studies_folder} yet; begin one: {command}")
        return
    print_list(found, _console())


def show(study: str, trial: int | None, home: str | None, storage: str | None) -> None:
    """Print what a study holds, or one of its trials."""
    from search.studies import print_study, print_trial

    config = config_of_study(study, home, storage)
    if trial is None:
        print_study(config, _console())
    else:
        print_trial(config, trial, _console())


def delete(study: str, is_sure: bool, home: str | None, storage: str | None) -> None:
    """Delete one study, after a question."""
    from search.leftovers import unused_leftovers
    from search.removal import delete_leftovers, remove_study, why_kept
    from search.studies import overview

    config = SearchConfig(home=home, storage=storage)
    name = name_of_study(config, study)
    found = overview(config, name)
    if reason := why_kept(config, name):
        raise ConfigError(f"study {name} is kept: {reason}")
    _ask(f"delete study {name} with {found.num_counted} trials for good?", is_sure)
    removed = remove_study(config, name)
    freed = removed.num_bytes + delete_leftovers(unused_leftovers(found.ray_sessions))
    _say_removed(name, removed.num_runs, removed.num_bytes, removed.notes)
    typer.echo(f"freed {size_in_words(freed)}")


def clean(
    older_than: str, is_dry: bool, is_sure: bool, home: str | None, storage: str | None
) -> None:
    """Delete the studies that are old, after a question, and what Ray left."""
    from search.removal import delete_leftovers, plan_cleaning, remove_study

    config = SearchConfig(home=home, storage=storage)
    plan = plan_cleaning(config, _seconds(older_than))
    for name, reason in plan.kept:
        typer.echo(f"kept      {name}: {reason}")
    for found in plan.studies:
        size = size_in_words(found.num_bytes)
        typer.echo(f"to delete {found.name}, last heard of {in_words(found.last_at)}, {size}")
    for path in plan.leftovers:
        typer.echo(f"to delete {path}, {size_in_words(num_bytes_in([path]))}")
    if not plan.studies and not plan.leftovers:
        typer.echo(f"nothing to delete: no study is older than {older_than}, and Ray left nothing")
        return
    if is_dry:
        return
    _ask(f"delete these {len(plan.studies)} studies and {len(plan.leftovers)} folders?", is_sure)
    freed = delete_leftovers(plan.leftovers)
    for found in plan.studies:
        removed = remove_study(config, found.name)
        freed += removed.num_bytes
        _say_removed(found.name, removed.num_runs, removed.num_bytes, removed.notes)
    typer.echo(f"freed {size_in_words(freed)}")


def export(study: str, to: Path | None, home: str | None, storage: str | None) -> None:
    """Write a study as files that anyone can read."""
    from search.export import export_study

    config = config_of_study(study, home, storage)
    place = to or Path(f"{config.study}-export")
    written = export_study(config, place)
    typer.echo(f"wrote {place}: {len(written)} files, {size_in_words(num_bytes_in([place]))}")


def report(study: str, out: Path | None, home: str | None, storage: str | None) -> None:
    """Write the page of a study, and its pictures where it goes beside the weights."""
    from search.report.page import write_report
    from search.report.pictures import write_pictures

    config = SearchConfig(home=home, storage=storage)
    name = name_of_study(config, study)
    try:
        written = [write_report(config, name, out)]
        written += write_pictures(config, name) if out is None else []
    except OSError as error:
        raise ConfigError(
            f"the page needs a file that can be written: {error.filename}: {error.strerror}; "
            "name another with --out"
        ) from None
    for path in written:
        typer.echo(f"wrote {path}, {size_in_words(num_bytes_in([path]))}")


def replay(
    study: str,
    number: int,
    home: str | None,
    storage: str | None,
    *,
    seed: int | None,
    data: str | None,
    device: str | None,
) -> int:
    """Train a recorded trial again; return the exit code, 1 where it broke."""
    from search import replay as replaying

    config = config_of_study(study, home, storage)
    try:
        replaying.replay(config, number, _console(), seed=seed, data=data, device=device)
    except replaying.ReplayFailed as error:
        typer.echo(f"error: {error}", err=True)
        return EXIT_BROKEN
    return 0


def doctor(home: str | None, storage: str | None) -> int:
    """Print what a search needs and whether it is there; return 1 where something is broken."""
    from search.doctor import print_findings

    is_well = print_findings(SearchConfig(home=home, storage=storage), _console())
    return 0 if is_well else EXIT_BROKEN


def _say_removed(name: str, num_runs: int, num_bytes: int, notes: Iterable[str]) -> None:
    typer.echo(f"deleted   {name}: {num_runs} runs in MLflow, {size_in_words(num_bytes)}")
    for note in notes:
        typer.echo(f"          {note}")


def _seconds(older_than: str) -> float:
    try:
        return duration_seconds(TypeAdapter(Duration).validate_python(older_than))
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"--older-than: {reason}") from None


def _ask(question: str, is_sure: bool) -> None:
    if is_sure:
        return
    if not sys.stdin.isatty():
        raise ConfigError("what is deleted does not come back: add --yes where nobody can answer")
    typer.confirm(question, abort=True)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
