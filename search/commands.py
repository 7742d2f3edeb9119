"""What the flags of `python -m search.run` set in motion.

torch, Ray and MLflow load only when a table is read or a search begins, so that a wrong flag is
answered at once.
"""

import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from search.config import (
    ConfigError,
    SearchConfig,
    commented_yaml,
    merge,
    parse_config,
    read_yaml,
    to_yaml,
)

EXIT_BROKEN = 1
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

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

        sought = parse_config(merge({}, overrides, flags))
        # The folder and the storage may have moved since they were recorded.
        found_at = {"home": sought.home, "storage": sought.storage}
        tree = recorded_config(sought, resume) | found_at
    elif add_trials is not None:
        raise ConfigError("--add-trials goes on with a study: add --resume or --resume NAME")
    if add_trials is not None:
        flags = {**flags, "search.trials": tree["search"]["trials"] + add_trials}
    return parse_config(merge(tree, overrides, flags))


def search(config: SearchConfig, is_verbose: bool, is_quiet: bool) -> int:
    """Run a search with signals handled and print its summary; return the exit code."""
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
        from search.record import Ending
        from search.search import run_search
        from search.summary import print_summary

        result = run_search(config, console=console, is_verbose=is_verbose, is_quiet=is_quiet)
    except (KeyboardInterrupt, SystemExit) as end:
        typer.echo(f"interrupted; the record is safe: {resume_command(config)}", err=True)
        # While Ray starts, SIGTERM meets a handler of its own, which exits.
        is_terminated = caught or isinstance(end, SystemExit)
        return EXIT_TERMINATED if is_terminated else EXIT_INTERRUPTED
    except UnwritableError as error:
        typer.echo(f"error: {error}: {resume_command(config)}", err=True)
        return EXIT_BROKEN
    except RuntimeError as error:
        typer.echo(f"error: {error}", err=True)
        return EXIT_BROKEN
    print_summary(result, console)
    if result.ending is Ending.INTERRUPTED:
        return EXIT_TERMINATED if caught else EXIT_INTERRUPTED
    return 0 if result.best_trial is not None else EXIT_BROKEN


def resume_command(config: SearchConfig) -> str:
    """The command that goes on with a study; without a name it takes the latest."""
    words = ["python", "-m", "search.run", "--resume", *([config.study] if config.study else [])]
    words += ["--home", config.home] if config.home else []
    # Not the URL itself, which may hold a password.
    return shlex.join(words) + (" --storage URL" if config.storage else "")


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
    from search.resolve import resolved_config

    typer.echo(to_yaml(resolved_config(config)), nl=False)
