"""What happens at the end of `python -m search.run`, whatever that end: a file, a command.

Both get the outcome as JSON: docs/cluster.md.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGTERM
from types import FrameType

import typer

from pipelines.printable import printable
from search.config import ConfigError
from search.outcome import EXIT_INTERRUPTED, EXIT_REFUSED, Account

COMMAND_SECONDS = 60.0
"""How long the command at the end may take."""

GRACE_SECONDS = 5.0
"""What it then has to end by itself."""


@dataclass(frozen=True)
class Hooks:
    """Who is told what a search came to."""

    summary_file: Path | None = None
    """Gets the outcome as JSON."""
    command: str | None = None
    """Run by the shell with that JSON on standard input."""

    def check(self) -> None:
        """Refuse what could not be written at the end.

        Raises:
            ConfigError: where it is no place for a file.
        """
        if self.summary_file is None:
            return
        rule = "--summary-json writes a file into a folder that is there"
        folder, file = self.summary_file.parent, self.summary_file
        if not folder.is_dir():
            raise ConfigError(f"{rule}: got {_shown(file)}; make {_shown(folder)} first")
        if file.exists() and not file.is_file():
            raise ConfigError(f"{rule}: got {_shown(file)}, which is no file; name a file")
        unfinished = _unfinished(file)
        try:
            unfinished.touch()
            unfinished.unlink()
        except OSError as error:
            raise ConfigError(
                f"{rule}, where you may write: got {_shown(file)} ({error.strerror}); choose "
                "another"
            ) from None

    def tell(self, account: Account) -> None:
        """Write the file and run the command; what goes wrong is a warning."""
        if self.summary_file is None and self.command is None:
            return
        text = account.outcome().model_dump_json(indent=2) + "\n"
        if self.summary_file is not None:
            _write(self.summary_file, text)
        if self.command is not None:
            _run(self.command, text)


@contextmanager
def account_told(hooks: Hooks) -> Iterator[Account]:
    """Keep an account of a search, and tell how it ended; whoever is within notes its exit code.

    Raises:
        ConfigError: before anything else, where the outcome could not be written.
    """
    hooks.check()
    account = Account()
    try:
        yield account
    except KeyboardInterrupt:
        account.fail("interrupted")
        account.exit_code = EXIT_INTERRUPTED
        raise
    except ValueError as error:
        account.fail("refused", error)
        account.exit_code = EXIT_REFUSED
        raise
    except BaseException as error:
        account.fail("broken", error)
        raise
    finally:
        hooks.tell(account)


def _write(file: Path, text: str) -> None:
    file = file.resolve()  # a link stays one
    unfinished = _unfinished(file)
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(file)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        _warn(f"--summary-json {_shown(file)} could not be written: {error.strerror}")


def _unfinished(file: Path) -> Path:
    return file.with_name(f".{file.name}.{os.getpid()}.part")


def _run(command: str, text: str) -> None:
    """Run a command of the user's, for a while."""
    # A group of its own: Ctrl+C in the terminal leaves it alone, and it is ended as a whole.
    with (
        _signals_held() as held,
        subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        ) as process,
    ):
        try:
            held.let_through()
            process.communicate(text, timeout=COMMAND_SECONDS)
            held.hold()
        except subprocess.TimeoutExpired:
            held.hold()
            _end(process)
            _warn(f"--on-finish was ended: it took longer than {COMMAND_SECONDS:g} s")
        except KeyboardInterrupt:
            held.hold()
            _end(process)
            _warn("--on-finish was ended by a signal")
        else:
            if process.returncode:
                _warn(f"--on-finish failed: its exit code is {process.returncode}")


class _HeldSignals:
    """SIGINT and SIGTERM, which interrupt only where a process is there to be ended."""

    def __init__(self) -> None:
        self._is_held, self._has_come = True, False

    def come(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self._has_come = True
        if not self._is_held:
            raise KeyboardInterrupt

    def let_through(self) -> None:
        """Interrupt from now on, at once where a signal has come already."""
        self._is_held = False
        if self._has_come:
            raise KeyboardInterrupt

    def hold(self) -> None:
        """Interrupt no more."""
        self._is_held = True


@contextmanager
def _signals_held() -> Iterator[_HeldSignals]:
    held = _HeldSignals()
    before = {number: signal.signal(number, held.come) for number in (SIGINT, SIGTERM)}
    try:
        yield held
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: one that is not Python's
                signal.signal(number, handler)


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _warn(text: str) -> None:
    typer.echo(f"WARNING: {text}", err=True)


def _shown(path: Path) -> str:
    return printable(str(path))
