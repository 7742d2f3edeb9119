"""What the flags of `python -m search.run` set in motion.

torch, Ray and MLflow load only when a table is read or a search begins, so that a wrong flag is
answered at once.
"""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

from pipelines.printable import printable
from search.config import ConfigError, SearchConfig
from search.config_file import commented_yaml, merge, parse_config, read_yaml, to_yaml
from search.names import is_template
from search.outcome import (
    EXIT_BROKEN,
    EXIT_INTERRUPTED,
    EXIT_NOT_PASSED,
    EXIT_TERMINATED,
    Account,
)

if TYPE_CHECKING:
    from rich.console import Console

LOG_WIDTH = 140  # characters of a line where no terminal says how wide it is


def read_config(
    file: Path | None,
    overrides: list[str],
    flags: Mapping[str, Any],
    resume: str | None = None,
    add_trials: int | None = None,
) -> SearchConfig:
    """Merge the file, or the record of a study that goes on, with `--set` and the flags.

    Raises:
        ValueError: for settings that cannot be.
    """
    tree = read_yaml(file) if file else {}
    if resume is not None:
        if file is not None:
            raise ConfigError("--resume takes the configuration from the record: drop --config")
        from search.places import recorded_config

        given = merge({}, overrides, flags)
        # These alone: the rest may only go with what is recorded, as repeats do with a grid.
        sought = parse_config({name: given.get(name) for name in ("home", "storage")})
        # The folder and the storage may have moved since they were recorded.
        found_at = {"home": sought.home, "storage": sought.storage}
        tree = recorded_config(sought, resume) | found_at
        if tree["search"]["sampler"] == "grid" and add_trials is None:
            del tree["search"]["trials"]  # the size of the grid, which is laid out anew
    elif add_trials is not None:
        raise ConfigError("--add-trials goes on with a study: add --resume or --resume NAME")
    if add_trials is not None:
        flags = {**flags, "search.trials": tree["search"]["trials"] + add_trials}
    config = parse_config(merge(tree, overrides, flags))
    if config.search.sampler == "grid" and "search.trials" in flags:
        flag = "--trials" if add_trials is None else "--add-trials"
        raise ConfigError(
            f"a grid has as many trials as combinations and repeats: got {flag}; drop it, or "
            "change the space or --repeats"
        )
    return config


def search(
    config: SearchConfig, is_verbose: bool, is_quiet: bool, account: Account | None = None
) -> int:
    """Run a search to its verdict and print both; return the exit code.

    Args:
        config: the search.
        is_verbose: let Ray's, Optuna's and MLflow's own messages through.
        is_quiet: print the summary only.
        account: is kept of it, for whoever is told at the end.
    """
    account = account or Account()
    account.config = config

    def run(console: Console, caught: list[int]) -> int:
        from search.cluster import connect_meanwhile

        connect_meanwhile(config.resources, is_verbose)
        from search.record import Ending
        from search.search import run_search
        from search.summary import print_summary

        result = account.result = run_search(
            config,
            console=console,
            is_verbose=is_verbose,
            is_quiet=is_quiet,
            on_resolved=account.begin,
        )
        print_summary(result, console)
        if result.ending is Ending.INTERRUPTED:
            return EXIT_TERMINATED if caught else EXIT_INTERRUPTED
        if result.why_broken:
            return EXIT_BROKEN
        if not config.final.finalize:
            return 0
        if config.search.sampler == "grid":  # it compares, where a verdict is of one model
            return _explain_grid(result.config, console, account)
        return _conclude(result.config, console, is_verbose, is_quiet, account)

    account.exit_code = _with_signals(account, run)
    return account.exit_code


def finalize(config: SearchConfig, is_verbose: bool, is_quiet: bool) -> int:
    """Bring a finished search to its verdict and print it; return the exit code."""
    account = Account()
    account.begin(config)
    return _with_signals(
        account, lambda console, _: _conclude(config, console, is_verbose, is_quiet, account)
    )


def _conclude(
    config: SearchConfig, console: Console, is_verbose: bool, is_quiet: bool, account: Account
) -> int:
    from search.conclusion import print_conclusion
    from search.finalize import finalize as reach_verdict
    from search.mlflow_store import ViewError

    try:
        conclusion = account.conclusion = reach_verdict(
            config, console=console, is_verbose=is_verbose, is_quiet=is_quiet
        )
    except ViewError as error:
        account.regret(error)
        typer.echo(f"no verdict yet, and the test part is sealed: {error}", err=True)
        typer.echo(f"then: python -m search finalize {config.study}{config.place}", err=True)
        return EXIT_NOT_PASSED if config.final.require_champion else 0
    print_conclusion(config, conclusion, console)
    is_refused = config.final.require_champion and not conclusion.verdict.is_passed
    return EXIT_NOT_PASSED if is_refused else 0


def _explain_grid(config: SearchConfig, console: Console, account: Account) -> int:
    """Write the page of a grid and show it in MLflow."""
    from search.mlflow_store import ViewError
    from search.places import study_locked
    from search.report.page import write_report
    from search.report.pictures import write_pictures
    from search.screen import say
    from search.sync import show_study

    assert config.study is not None
    with study_locked(config, config.study):
        report = write_report(config, config.study)
        write_pictures(config, config.study)
        with suppress(ViewError):  # that MLflow is behind, and how it catches up, was said
            show_study(config, trusts_ended_runs=True)
    account.report = str(report)
    say(console, f"report    {report}")
    return 0


def _with_signals(account: Account, work: Callable[[Console, list[int]], int]) -> int:
    """Do some work with signals handled; return its exit code, or that of what ended it.

    Args:
        account: of the study, for the command that goes on.
        work: is given a console, and the signals caught so far.
    """
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    caught: list[int] = []

    def end_like_interrupt(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        # While trials run it is Ray Tune's, which ends them in order. Asked for, not signalled:
        # a command in the background of a script ignores SIGINT.
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)

    from search.unwritable import UnwritableError

    signal.signal(signal.SIGTERM, end_like_interrupt)
    try:
        return work(console, caught)
    except (KeyboardInterrupt, SystemExit) as end:
        account.fail("interrupted")
        typer.echo(f"interrupted; the record is safe: {_way_on(account)}", err=True)
        # While Ray starts, SIGTERM meets a handler of its own, which exits.
        is_terminated = caught or isinstance(end, SystemExit)
        return EXIT_TERMINATED if is_terminated else EXIT_INTERRUPTED
    except UnwritableError as error:
        account.fail("broken", error)
        typer.echo(f"error: {error}: {_way_on(account)}", err=True)
        return EXIT_BROKEN
    except RuntimeError as error:
        account.fail("broken", error)
        typer.echo(f"error: {error}", err=True)
        return EXIT_BROKEN


def _way_on(account: Account) -> str:
    assert account.config is not None
    name = account.config.study
    if name is not None and is_template(name):  # not filled in yet: there is nothing to resume
        return f"python -m search.run --study {shlex.quote(name)}, with the other flags as before"
    return resume_command(account.config)


def resume_command(config: SearchConfig) -> str:
    """The command that goes on with a study; without a name it takes the latest."""
    study = f" {config.study}" if config.study else ""
    return f"python -m search.run --resume{study}{config.place}"


def write_configuration(config: SearchConfig, file: Path) -> None:
    """Write a commented configuration for the table of `config`.

    Raises:
        ValueError: where the file is there already or the table cannot be searched.
    """
    from search.resolve import understood_config

    if file.exists():
        raise ConfigError(f"--init writes a new file: {file} exists; choose another name")
    file.write_text(commented_yaml(understood_config(config)), encoding="utf-8")
    typer.echo(f"wrote {file}; search with: python -m search.run --config {file}")


def print_resolved(config: SearchConfig) -> None:
    """Print the configuration as a search would resolve it, as YAML."""
    from search.facts import without_passwords
    from search.resolve import resolved_config, runs_in_words

    resolved = resolved_config(config)
    for line in runs_in_words(resolved):
        typer.echo(f"# {printable(line)}")
    typer.echo(to_yaml(without_passwords(resolved)), nl=False)
