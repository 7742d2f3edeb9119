"""The view in a process of its own, where the driver has many workers to serve.

MLflow takes some 20 ms a trial and seconds to load, and a thread of the driver's would take them
from whoever waits for the next trial. Calls and answers are lines of JSON, in turn. The process
ends with its standard input, in the middle of a call too: so it outlives no search, however that
ends, and whoever goes on with the study is alone.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from pipelines.scores import BaselineScore
from search.projection import Snapshot, StudyFacts
from search.record import TrialRecord
from search.source import python_path

if TYPE_CHECKING:
    from search.tracking import View

END_SECONDS = 5.0
"""How long it may take to end by itself."""


class ViewProcessError(Exception):
    """What a call came to in the other process, in a few words."""


@dataclass(frozen=True)
class _Connection:
    """The arguments of `search.tracking.connect`."""

    uri: str
    experiment: str
    facts: StudyFacts
    is_verbose: bool


class _Call(BaseModel):
    """A method of `search.tracking.View`, or `connect`, which makes one; and its argument."""

    model_config = ConfigDict(ser_json_inf_nan="constants", extra="forbid")

    method: Literal["connect", "mark_running", "show_trials", "show_baselines", "show_all"]
    connection: _Connection | None = None
    trials: tuple[TrialRecord, ...] | None = None
    baselines: tuple[BaselineScore, ...] | None = None
    snapshot: Snapshot | None = None

    @property
    def arguments(self) -> list[Any]:
        return [value for name, value in self if name != "method" and value is not None]


class _Answer(BaseModel):
    value: str | None = None
    problem: str | None = None


class ViewProcess:
    """The process, started by the first connection, and by a later one where it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ended = False
        self._lock = threading.Lock()

    def connect(
        self, uri: str, experiment: str, facts: StudyFacts, is_verbose: bool
    ) -> "RemoteView":
        """Make a view there, as `search.tracking.connect` does here.

        Raises:
            ViewProcessError: where MLflow cannot be reached, or the process cannot start or ends.
        """
        self._start_unless_alive()
        connection = _Connection(uri, experiment, facts, is_verbose)
        experiment_id = self.call(_Call(method="connect", connection=connection))
        assert experiment_id is not None
        return RemoteView(experiment_id, self.call)

    def call(self, call: _Call) -> str | None:
        """Have a method called and return its answer.

        Raises:
            ViewProcessError: where MLflow fails, or the process ends.
        """
        request = call.model_dump_json().encode() + b"\n"
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request)
            process.stdin.flush()
            line = process.stdout.readline()
        except (OSError, ValueError):  # it has died, or was ended
            line = b""
        if not line:
            _kill(process)
            raise ViewProcessError(f"its process has ended with exit code {process.returncode}")
        answer = _Answer.model_validate_json(line)
        if answer.problem is not None:
            raise ViewProcessError(answer.problem)
        return answer.value

    def end(self, *, is_patient: bool) -> None:
        """End the process for good: at once, or once it has ended by itself within seconds.

        A thread that waits for an answer gets an error. One that is patient must not wait.
        """
        with self._lock:
            self._is_ended = True
            process = self._process
        if process is None:
            return
        if is_patient:
            assert process.stdin is not None
            with suppress(OSError):
                process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
        _kill(process)

    def _start_unless_alive(self) -> None:
        with self._lock:
            if self._is_ended:
                raise ViewProcessError("its process was ended")
            if self._process is None or self._process.poll() is not None:
                try:
                    self._process = _start()
                except OSError as error:
                    raise ViewProcessError(f"its process does not start: {error}") from error


def _start() -> "subprocess.Popen[bytes]":
    # -P: not what is called `search` in the folder that one is in
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "search.view_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": python_path()},
        start_new_session=True,  # Ctrl+C is for the search, which then ends the view
    )


def _kill(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:  # it waits for a disk that is away
        return
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with suppress(OSError):  # what was still to be written
            pipe.close()


class RemoteView:
    """What a search uses of `search.tracking.View`, which is in the other process."""

    def __init__(self, experiment_id: str, call: Callable[[_Call], str | None]):
        self.experiment_id = experiment_id
        self._call = call

    def mark_running(self) -> None:
        """Show that the search goes on."""
        self._call(_Call(method="mark_running"))

    def show_trials(self, trials: Sequence[TrialRecord]) -> None:
        """Bring the child runs to what the record says."""
        self._call(_Call(method="show_trials", trials=tuple(trials)))

    def show_baselines(self, baselines: Sequence[BaselineScore]) -> None:
        """Put the forecasts to beat on the parent run."""
        self._call(_Call(method="show_baselines", baselines=tuple(baselines)))

    def show_all(self, snapshot: Snapshot) -> None:
        """Show every trial, and on the parent run best values, leaderboard and state."""
        self._call(_Call(method="show_all", snapshot=snapshot))


class _Server:
    """Answers calls, one after the other."""

    def __init__(self) -> None:
        self._view: View | None = None

    def answer(self, line: bytes) -> _Answer:
        call = _Call.model_validate_json(line)
        try:
            from search.mlflow_store import why
            from search.tracking import connect
        except Exception as error:  # such as a package that MLflow lacks
            return _Answer(problem=f"MLflow does not load: {error}")
        try:
            if call.connection is not None:
                given = call.connection
                where = given.uri, given.experiment
                self._view = connect(*where, given.facts, given.is_verbose)
                return _Answer(value=self._view.experiment_id)
            getattr(self._view, call.method)(*call.arguments)
        except Exception as error:  # whatever MLflow raises
            return _Answer(problem=why(error))
        return _Answer()


def main() -> None:
    """Answer calls on standard input until that ends."""
    # A signal to all processes of a search is for the search, which has things to show at its end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what MLflow prints is no answer
    calls: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_read, args=(calls,), daemon=True).start()
    server = _Server()
    while True:
        answers.write(server.answer(calls.get()).model_dump_json().encode() + b"\n")
        answers.flush()


def _read(calls: "SimpleQueue[bytes]") -> None:
    for line in sys.stdin.buffer:
        calls.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
