"""The command line, as a person, a script or a batch system meets it: real processes."""

import contextlib
import inspect
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from search import run as run_command
from search.config import SearchConfig
from search.config_file import parse_config, read_yaml, to_yaml
from search.record import TrialRecord, TrialState
from search.stored_studies import read_study

PYTHON = Path(sys.executable)
RUN = [str(PYTHON), "-m", "search.run"]
PATIENCE_SECONDS = 200

Record = Callable[[], list[TrialRecord]]

TINY = [
    "--max-concurrent=2",
    "--no-finalize",
    "--device=cpu",
    "--precision=float32",
    "--pruner=none",
    "--set=training.max_steps=6",
    "--set=training.evaluate_every_steps=2",
    "--set=training.warmup_steps=0",
    "--set=search.use_default_starts=false",
    "--set=space.num_layers=1",
    "--set=space.hidden_size={low: 4, high: 8}",
    "--set=space.lookback=12",
    "--set=space.batch_size=16",
]

# All that a search prints where there is no terminal, up to its summary.
LINES = (
    r"cpu \(\S+\), torch \S+: \d trials? at a time, 1 CPU and 0 GPU each",
    r"study [\w-]+",
    r"480 rows, .* frequency h, season 24",
    r"target: load",
    r"split: train 336 rows, validation 48 rows",
    r"to beat: (persistence|seasonal naive \(24\)|training mean|ridge|linear twin) MAE \d\.\d{4}",
    r"\[\d+/\d+\] \d{3} \d( bi)?: .* MAE (\d\.\d{4}|–)  1 layer \d(, bidirectional)?, "
    r"lookback 12(  best so far)?",
)


class Answer(SimpleNamespace):
    """How a process ended, what it said, and what is noted beside it."""

    returncode: int
    stdout: str
    stderr: str
    is_group_left: bool
    trials: list[TrialRecord]
    """Those of study `one`, as its record held them then."""


# Help and wrong usage


@pytest.mark.parametrize("command", [["-m", "search.run"], ["-m", "search", "run"]])
def test_help_lists_every_flag_in_groups_and_has_examples(command: list[str]) -> None:
    shown = run([str(PYTHON), *command, "--help"], columns=160).stdout
    flags = "--config --set --data --target --timestamp --freq --horizon --trials --add-trials"
    flags += (
        " --time-budget --study --resume --metric --sampler --repeats --pruner --max-concurrent"
    )
    flags += " --cpus-per-trial --gpus-per-trial --device --precision --seed --tracking-uri"
    flags += " --experiment --storage --home --address --init --dry-run --verbose --quiet"
    flags += " --finalize --require-champion --summary-json --on-finish"
    assert [flag for flag in flags.split() if f"{flag} " not in shown] == []
    groups = ("The table", "The search", "The machine", "Record and view")
    assert [group for group in groups if f" {group} " not in shown] == []
    assert "python -m search.run --trials 100" in shown


def test_help_of_the_package_and_of_the_console_script_lists_the_commands() -> None:
    script = run([str(PYTHON.parent / "lstm-search"), "--help"]).stdout
    package = run([str(PYTHON), "-m", "search", "--help"]).stdout
    for shown in (script, package):
        names = ("run", "sync", "ui", "replay", "doctor", "studies")
        assert [name for name in names if f"│ {name} " not in shown] == []


def test_help_loads_nothing_that_takes_long() -> None:
    heavy = "{'torch', 'ray', 'mlflow', 'optuna', 'pandas', 'numpy', 'sqlalchemy'}"
    code = f"import sys, search.__main__; print({heavy} & set(sys.modules))"
    assert run([str(PYTHON), "-c", code]).stdout == "set()\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--trails", "3"], "No such option: --trails"),
        (["--trials", "many"], "Invalid value for '--trials'"),
    ],
)
def test_a_flag_that_cannot_be_is_answered_with_the_usage_and_exit_code_2(
    tmp_path: Path, arguments: list[str], reason: str
) -> None:
    assert_refused(run([*RUN, *arguments], tmp_path), reason)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--trials", "0"], "search.trials: Input should be greater than or equal to 1: got 0"),
        (["--metric", "mape"], "search.metric: Input should be 'mae', 'mse', 'rmse' or 'mase'"),
        (["--time-budget", "soon"], "a duration reads like 90s, 30m, 2h or 1h30m: got 'soon'"),
        (["--set", "search.trails=3"], "unknown key search.trails; did you mean trials?"),
        (["--config", "absent.yaml"], "cannot read the configuration absent.yaml: No such file"),
        (["--add-trials", "3"], "--add-trials goes on with a study: add --resume"),
        (["--resume", "one", "--config", "a.yaml"], "--resume takes the configuration from"),
    ],
)
def test_a_setting_that_cannot_be_is_answered_with_the_reason_in_a_line_and_exit_code_2(
    tmp_path: Path, arguments: list[str], reason: str
) -> None:
    if "a.yaml" in arguments:
        (tmp_path / "a.yaml").write_text("study: one\n")
    answer = run([*RUN, *arguments], tmp_path)
    assert_refused(answer, reason)
    assert answer.stderr.startswith("error: ")
    assert len(answer.stderr.splitlines()) == 1
    assert list(tmp_path.glob("mlruns")) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--data", "absent.csv"], "the file must exist: there is no "),
        (["--data", "loads.csv", "--init", "loads.csv"], "--init writes a new file: loads.csv"),
        (["--resume"], "there is no study in "),
    ],
)
def test_what_cannot_be_searched_is_one_line_and_exit_code_2(
    tmp_path: Path, arguments: list[str], reason: str
) -> None:
    loads().to_csv(tmp_path / "loads.csv", index=False)
    answer = run([*RUN, *arguments], tmp_path)
    assert_refused(answer, reason)
    assert len(answer.stderr.splitlines()) == 1
    assert list(tmp_path.glob("mlruns")) == []


@pytest.mark.slow
def test_where_no_ray_cluster_answers_it_says_so_at_once(tmp_path: Path, free_port: int) -> None:
    address = f"127.0.0.1:{free_port}"
    answer = run([*RUN, *TINY], tmp_path, RAY_ADDRESS=address)
    assert_refused(answer, f"no Ray cluster answers at {address}")
    assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        (["--resume"], ["--resume", "latest"]),
        (["--resume", "--add-trials", "2"], ["--resume", "latest", "--add-trials", "2"]),
        (["-n", "3", "--resume"], ["-n", "3", "--resume", "latest"]),
        (["-n", "3", "--resume", "one"], ["-n", "3", "--resume", "one"]),
        (["--trials", "3"], ["--trials", "3"]),
    ],
)
def test_resume_alone_means_the_latest(given: list[str], understood: list[str]) -> None:
    assert run_command.with_latest(given) == understood


def test_every_flag_sets_a_setting_that_exists() -> None:
    parameters = inspect.signature(run_command.run).parameters
    for flag, path in run_command._SETTINGS.items():
        assert flag in parameters
        settings: Any = SearchConfig()
        for part in path.split("."):
            assert part in type(settings).model_fields, path
            settings = getattr(settings, part)


# The configuration that is written and the one that is shown


@pytest.mark.slow
def test_init_writes_what_was_understood_and_dry_run_shows_what_would_be_searched(
    folder: Path,
) -> None:
    written = parse_config(read_yaml(folder / "loads.yaml"))
    assert (written.data.path, written.data.targets) == ("loads.csv", ("load",))
    assert (written.data.horizon, written.data.season) == (6, 24)
    assert "# Training loss, on standardised values." in (folder / "loads.yaml").read_text()

    shown = run([*RUN, "-c", "loads.yaml", "--study", "shown", "-n", "7", "--dry-run"], folder)
    assert (shown.returncode, shown.stderr) == (0, "")
    resolved = parse_config(yaml.safe_load(shown.stdout))
    assert to_yaml(resolved) == shown.stdout
    assert (resolved.study, resolved.search.trials) == ("shown", 7)
    assert resolved.space == written.space
    assert list(folder.glob("mlruns/studies/shown*")) == []


@pytest.mark.slow
def test_dry_run_starts_nothing(tmp_path: Path) -> None:
    shown = run([*RUN, "--dry-run"], tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    resolved = parse_config(yaml.safe_load(shown.stdout))
    assert re.fullmatch(r"electricity\S*-\d{8}-[a-z]+-[0-9a-f]{4}", resolved.study or "")
    assert list(tmp_path.iterdir()) == []


# A study from its first trial to its last, by processes that are ended in every way


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, empty_view: Path) -> Path:
    """A user's folder: a table, a configuration written for it, and an MLflow store."""
    folder = tmp_path_factory.mktemp("user")
    loads().to_csv(folder / "loads.csv", index=False)
    shutil.copy(empty_view, folder / "own.db")
    table = ["--data", "loads.csv", "--horizon", "6", "--target", "load"]
    answer = run([*RUN, *table, *TINY, "--init", "loads.yaml"], folder)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[-1].endswith("python -m search.run --config loads.yaml")
    return folder


@pytest.fixture(scope="module")
def broken(folder: Path) -> Answer:
    """A search of one trial, whose first evaluation would come too late, tried twice."""
    hopeless = ["--set=resources.max_step_seconds=0.1", "--set=resources.max_retries=1", "-n", "1"]
    # Steps that take long in the trial, but not in the linear twin, which is waited for.
    hopeless += ["--set=space.batch_size=512", "--set=training.max_steps=2000"]
    hopeless += ["--set=training.evaluate_every_steps=2000"]
    return run([*RUN, "-c", "loads.yaml", "--study", "broken", *hopeless], folder)


@pytest.fixture(scope="module")
def record(
    folder: Path, closing_connections: Callable[[], contextlib.AbstractContextManager[None]]
) -> Record:
    """Read the trials of study `one`."""

    def read() -> list[TrialRecord]:
        with closing_connections():
            return read_study(f"sqlite:///{folder}/mlruns/studies/one.db", "one")[1]

    return read


@pytest.fixture(scope="module")
def first(folder: Path, broken: Answer, record: Record) -> Answer:
    """Three trials of study `one`, which is then the latest."""
    answer = run([*RUN, "-c", "loads.yaml", "--study", "one", "-n", "3"], folder)
    answer.trials = record()
    return answer


@pytest.fixture(scope="module")
def terminated(folder: Path, first: Answer, record: Record) -> Answer:
    """Study `one` goes on, refuses a second search, and is ended by SIGTERM."""
    with Search(["--resume", "--add-trials", "2000"], folder) as search:
        search.wait_for_line(r"\[4/2003\] ")
        second = run([*RUN, "--resume", "one", "--add-trials", "1"], folder)
        answer = search.end(signal.SIGTERM)
    answer.second, answer.pid, answer.trials = second, search.process.pid, record()
    return answer


@pytest.fixture(scope="module")
def interrupted(folder: Path, terminated: Answer, record: Record) -> Answer:
    """Study `one` goes on by the command that was printed, and is ended by Ctrl+C."""
    with Search(command_to_go_on(terminated), folder) as search:
        search.wait_for_line(r"\[\d+/2003\] ")
        answer = search.end(signal.SIGINT)
    answer.trials = record()
    return answer


@pytest.fixture(scope="module")
def interrupted_twice(folder: Path, interrupted: Answer, record: Record) -> Answer:
    """Study `one` goes on and is ended by two Ctrl+C, the second before it has ended in order."""
    with Search(["--resume", "one"], folder) as search:
        search.wait_for_line(r"\[\d+/2003\] ")
        answer = search.end(signal.SIGINT, times=2)
    answer.trials = record()
    return answer


@pytest.fixture(scope="module")
def completed(
    folder: Path, interrupted: Answer, interrupted_twice: Answer, record: Record
) -> Answer:
    """Study `one` goes on by the command that was printed, quietly, to its end."""
    total = str(num_counted(interrupted_twice.trials) + 2)
    command = [*command_to_go_on(interrupted), "--trials", total, "-q"]
    answer = run([*RUN, *command], folder)
    answer.trials = record()
    return answer


@pytest.mark.slow
def test_a_search_in_which_every_trial_fails_ends_with_1_and_says_why(broken: Answer) -> None:
    assert (broken.returncode, broken.stderr) == (1, "")
    lines = broken.stdout.splitlines()
    summary = lines.index("no trial is complete yet")
    tried_again = [line for line in lines if line.startswith("trial 000") and "tried again" in line]
    assert len(tried_again) == 1
    assert [line for line in lines[:summary] if not is_known(line)] == tried_again
    assert re.match(r"  trial 000 \d( bi)? failed: hung: its worker process", lines[summary + 1])


@pytest.mark.slow
def test_a_search_without_a_terminal_prints_a_line_a_trial_and_no_chatter(first: Answer) -> None:
    assert (first.returncode, first.stderr) == (0, "")
    lines = first.stdout.splitlines()
    progress = lines[: lines.index(next(line for line in lines if line.startswith("The best")))]
    assert [line for line in progress if not is_known(line)] == []
    assert re.fullmatch(LINES[0], progress[0])
    assert progress[1] == "study one"
    assert sum(line.startswith("to beat: ") for line in progress) == 5
    done = [line.split()[0] for line in progress if line.startswith("[")]
    assert done == ["[1/3]", "[2/3]", "[3/3]"]


@pytest.mark.slow
def test_a_search_ends_with_the_best_trials_the_page_and_the_command_to_go_on(
    first: Answer,
) -> None:
    summary = first.stdout[first.stdout.index("The best 3 trials") :]
    assert sum(line.startswith("│") for line in summary.splitlines()) == 3
    assert "\nstudy     one (done)\n" in summary
    assert re.search(r"\nbrowse    http://127\.0\.0\.1:5000/#/experiments/\d+/", summary)
    assert summary.endswith("go on     python -m search.run --resume one --add-trials 50\n")


@pytest.mark.slow
def test_resume_takes_the_latest_study_and_keeps_what_it_has(
    first: Answer, terminated: Answer
) -> None:
    assert "study one" in terminated.stdout.splitlines()
    assert terminated.trials[: len(first.trials)] == first.trials
    assert num_counted(terminated.trials) > 3


@pytest.mark.slow
def test_a_second_search_of_a_study_is_refused_and_told_who_searches_it(
    terminated: Answer,
) -> None:
    second = terminated.second
    assert (second.returncode, second.stdout) == (2, "")
    who = f"process {terminated.pid} on {socket.gethostname()} is searching one"
    assert second.stderr.startswith(f"error: a study has one search at a time: {who}; ")
    assert len(second.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("terminated", 143), ("interrupted", 130)])
def test_a_signal_ends_a_search_with_its_record_in_order(
    request: pytest.FixtureRequest, name: str, code: int
) -> None:
    answer: Answer = request.getfixturevalue(name)
    assert (answer.returncode, answer.stderr) == (code, "")
    assert TrialState.RUNNING not in {trial.state for trial in answer.trials}
    assert "study     one (interrupted)" in answer.stdout
    assert answer.stdout.endswith("go on     python -m search.run --resume one\n")
    assert not answer.is_group_left


@pytest.mark.slow
def test_a_second_interrupt_ends_it_at_once_and_loses_nothing(
    interrupted: Answer, interrupted_twice: Answer
) -> None:
    said = interrupted_twice.stdout + interrupted_twice.stderr
    assert interrupted_twice.returncode == 130, said
    assert "Traceback" not in said
    assert "python -m search.run --resume one" in said
    assert not interrupted_twice.is_group_left
    ended = [trial for trial in interrupted.trials if trial.state.counts]
    now = {trial.number: trial for trial in interrupted_twice.trials}
    assert all(now[trial.number] == trial for trial in ended)


@pytest.mark.slow
def test_the_printed_command_goes_on_with_the_trials_that_ran(
    terminated: Answer, interrupted: Answer, interrupted_twice: Answer, completed: Answer
) -> None:
    assert completed.returncode == 0
    assert num_counted(completed.trials) == num_counted(interrupted_twice.trials) + 2
    now = {trial.number: trial for trial in completed.trials}
    waiting = [t for t in interrupted.trials if t.state is TrialState.WAITING]
    assert 0 < len(waiting) <= 2
    for before in waiting:
        after = now[before.number]
        assert after.state.counts
        assert (after.seed, after.config) == (before.seed, before.config)
    ended = [trial for trial in terminated.trials if trial.state.counts]
    assert all(now[trial.number] == trial for trial in ended)


@pytest.mark.slow
def test_quiet_prints_the_summary_only(completed: Answer) -> None:
    assert completed.stderr == ""
    assert completed.stdout.startswith("The best 10 trials")


@pytest.mark.slow
def test_mlflows_own_environment_variables_are_honoured(folder: Path, completed: Answer) -> None:
    with contextlib.closing(sqlite3.connect(folder / "own.db")) as store:
        query = "select e.name, count(*) from runs r join experiments e using (experiment_id)"
        runs_of = dict(store.execute(f"{query} group by e.name"))
    shown = [trial for trial in completed.trials if trial.state is not TrialState.REJECTED]
    # A parent run each for `broken` and `one`, and their trials.
    assert runs_of == {"mine": 2 + 1 + len(shown)}
    assert not (folder / "mlruns" / "mlflow.db").exists()


@pytest.mark.slow
def test_sigterm_while_it_starts_ends_a_background_command_too(
    folder: Path, completed: Answer
) -> None:
    # A script's background commands ignore SIGINT from the start.
    command = ["-c", "loads.yaml", "--study", "early", "-v"]
    with Search(command, folder, ignores_interrupt=True) as search:
        search.wait_for_line("study early")
        answer = search.end(signal.SIGTERM)
    assert answer.returncode == 143
    assert "--resume early" in answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr
    assert "Started a local Ray instance" in answer.stderr  # which -v lets through


# Processes


class Search:
    """`python -m search.run`, in a group of its own as a terminal would have it."""

    def __init__(self, arguments: Sequence[str], folder: Path, ignores_interrupt: bool = False):
        self._errors = (folder / "errors.txt").open("w+", encoding="utf-8")
        self._said: list[str] = []
        self.process = subprocess.Popen(
            [*RUN, *arguments],
            cwd=folder,
            env=environment(folder),
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
            preexec_fn=ignore_interrupt if ignores_interrupt else None,
        )

    def __enter__(self) -> "Search":
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()

    def wait_for_line(self, pattern: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.append(line)
            if re.match(pattern, line):
                return
        raise AssertionError(f"no line {pattern} in {self._said}, {self.errors()}")

    def end(self, number: signal.Signals, times: int = 1) -> Answer:
        """Send a signal, Ctrl+C to the whole group, and wait for the end."""
        for _ in range(times):
            if number is signal.SIGINT:
                os.killpg(self.process.pid, number)
            else:
                self.process.send_signal(number)
            time.sleep(0.1)  # two that come together are one
        said, _ = self.process.communicate(timeout=PATIENCE_SECONDS)
        return Answer(
            returncode=self.process.returncode,
            stdout="".join(self._said) + said,
            stderr=self.errors(),
            is_group_left=is_group_left(self.process.pid, time.monotonic() + 90),
        )

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()


def run(
    command: Sequence[str], folder: Path | None = None, columns: int = 100, **variables: str
) -> Answer:
    process = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder) | {"COLUMNS": str(columns)} | variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    return Answer(returncode=process.returncode, stdout=process.stdout, stderr=process.stderr)


def environment(folder: Path | None) -> dict[str, str]:
    ours = {"RAY_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "COLUMNS"}
    own = {name: value for name, value in os.environ.items() if name not in ours}
    if folder is not None and (folder / "own.db").exists():
        own["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'own.db'}"
        own["MLFLOW_EXPERIMENT_NAME"] = "mine"
    return own


def ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def is_group_left(group: int, until: float) -> bool:
    """Whether processes of a group, Ray's among them, outlive it."""
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.2)
    return True


def assert_refused(answer: Answer, reason: str) -> None:
    assert (answer.returncode, answer.stdout) == (2, "")
    assert reason in " ".join(answer.stderr.split())
    assert "Traceback" not in answer.stderr


def command_to_go_on(answer: Answer) -> list[str]:
    _, _, command = answer.stdout.splitlines()[-1].partition("go on     ")
    python, *arguments = shlex.split(command)
    assert [python, *arguments[:2]] == ["python", "-m", "search.run"]
    return arguments[2:]


def is_known(line: str) -> bool:
    return any(re.fullmatch(pattern, line) for pattern in LINES)


def num_counted(trials: Sequence[TrialRecord]) -> int:
    return sum(trial.state.counts for trial in trials)


def loads() -> pd.DataFrame:
    rows = np.arange(480)
    daily = 50 + 10 * np.sin(2 * np.pi * rows / 24)
    noise = np.random.default_rng(1).normal(size=len(rows))
    when = pd.date_range("2024-01-01", periods=len(rows), freq="h")
    return pd.DataFrame({"when": when, "load": (daily + noise).round(3)})
