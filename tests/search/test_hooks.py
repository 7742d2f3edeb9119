"""Who is told how `python -m search.run` ended: a file and a command, whatever the end."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from search import commands, finalize, hooks, search
from search import run as run_command
from search.config import SearchConfig
from search.mlflow_store import ViewError
from search.record import Ending, TrialRecord, TrialState
from search.result import SearchResult
from search.stored_studies import read_study

PATIENCE_SECONDS = 400

Run = Callable[..., Result]
"""The command with some flags, and what stands in for its search."""


@pytest.fixture(autouse=True)
def _signals_kept() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    # Where the suite runs in the background of a shell, SIGINT is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, searched: Callable[..., SearchResult]) -> Run:
    """Run the command; its search is `work`, by default one that ends in order."""

    def run(*flags: str, work: Callable[..., SearchResult] | None = None) -> Result:
        monkeypatch.setattr(search, "run_search", work or searched)
        given = ["--study", "one", "--quiet", "--no-finalize", *flags]
        return CliRunner().invoke(run_command.app, given)

    return run


@pytest.fixture
def searched(played_trials: list[TrialRecord]) -> Callable[..., SearchResult]:
    """In place of a search: one that ends in some way, its trials those of a small study."""

    def search(
        config: SearchConfig,
        *_: object,
        on_resolved: Callable[[SearchConfig], None],
        ending: Ending = Ending.DONE,
        num_trials: int | None = None,
        **__: object,
    ) -> SearchResult:
        on_resolved(config)
        return SearchResult(config, ending, tuple(played_trials[:num_trials]), (), None)

    return search


def test_the_file_and_the_command_get_the_same_outcome(run: Run) -> None:
    answer = run("--summary-json", "out.json", "--on-finish", "cat >told.json")
    assert (answer.exit_code, answer.stderr) == (0, "")
    told = json.loads(Path("out.json").read_text(encoding="utf-8"))
    assert (told["study"], told["state"], told["exit_code"]) == ("one", "done", 0)
    assert told["best"]["trial"] == 6
    assert Path("told.json").read_bytes() == Path("out.json").read_bytes()


def raising(error: BaseException) -> Callable[..., SearchResult]:
    def search(*_: object, **__: object) -> SearchResult:
        raise error

    return search


def signalled(number: signal.Signals) -> Callable[..., SearchResult]:
    def search(*_: object, **__: object) -> SearchResult:
        signal.raise_signal(number)
        raise AssertionError("the signal ends it")

    return search


@pytest.mark.parametrize(
    ("work", "code", "state", "error"),
    [
        (signalled(signal.SIGINT), 130, "interrupted", None),
        (signalled(signal.SIGTERM), 143, "interrupted", None),
        (raising(SystemExit(15)), 143, "interrupted", None),
        (raising(RuntimeError("the disk is full")), 1, "broken", "the disk is full"),
        (raising(ValueError("the file must exist")), 2, "refused", "the file must exist"),
        (raising(KeyError("a mistake of ours")), 1, "broken", "'a mistake of ours'"),
    ],
    ids=["SIGINT", "SIGTERM", "SIGTERM while Ray starts", "broken", "refused", "mistake"],
)
def test_a_search_that_does_not_end_in_order_tells_so_too(
    run: Run, work: Callable[..., SearchResult], code: int, state: str, error: str | None
) -> None:
    answer = run("--summary-json", "out.json", "--on-finish", "cat >told.json", work=work)
    assert answer.exit_code == code
    told = json.loads(Path("told.json").read_text(encoding="utf-8"))
    assert (told["state"], told["exit_code"], told["error"]) == (state, code, error)
    assert told == json.loads(Path("out.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("ending", "num_trials", "code", "state"),
    [
        (Ending.TIME_OVER, None, 0, "time over"),
        (Ending.EXHAUSTED, None, 0, "space exhausted"),
        (Ending.INTERRUPTED, None, 130, "interrupted"),
        (Ending.DONE, 0, 1, "broken"),
        (Ending.BROKEN, None, 1, "broken"),
    ],
)
def test_the_state_is_the_searchs_ending_and_broken_without_a_complete_trial(
    run: Run,
    searched: Callable[..., SearchResult],
    ending: Ending,
    num_trials: int | None,
    code: int,
    state: str,
) -> None:
    def search(*given: Any, **more: Any) -> SearchResult:
        return searched(*given, ending=ending, num_trials=num_trials, **more)

    answer = run("--summary-json", "out.json", work=search)
    told = json.loads(Path("out.json").read_text(encoding="utf-8"))
    assert (answer.exit_code, told["exit_code"], told["state"]) == (code, code, state)


@pytest.mark.parametrize(("is_passed", "code"), [(True, 0), (False, 4)])
def test_the_verdict_is_told_with_the_exit_code_that_it_leads_to(
    run: Run, monkeypatch: pytest.MonkeyPatch, is_passed: bool, code: int
) -> None:
    comparison = SimpleNamespace(opponent="ridge", skill=0.2 if is_passed else -0.2)
    verdict = SimpleNamespace(is_passed=is_passed, reason="so it is", comparisons=[comparison])
    conclusion = SimpleNamespace(verdict=verdict, model=None, report=Path("page.html"))
    monkeypatch.setattr(finalize, "finalize", lambda *_, **__: conclusion)
    monkeypatch.setattr("search.conclusion.print_conclusion", lambda *_: None)
    answer = run("--finalize", "--require-champion", "--summary-json", "out.json")
    told = json.loads(Path("out.json").read_text(encoding="utf-8"))
    assert (answer.exit_code, told["exit_code"], told["state"]) == (code, code, "done")
    outcome = "passed" if is_passed else "not passed"
    assert (told["verdict"]["outcome"], told["verdict"]["reason"]) == (outcome, "so it is")
    assert told["links"]["report"] == "page.html"


def test_where_mlflow_keeps_the_verdict_waiting_the_reason_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meet_no_server(*_: object, **__: object) -> None:
        raise ViewError("connection refused")

    monkeypatch.setattr(finalize, "finalize", meet_no_server)
    answer = run("--finalize", "--summary-json", "out.json")
    told = json.loads(Path("out.json").read_text(encoding="utf-8"))
    assert (answer.exit_code, told["state"], told["verdict"]) == (0, "done", None)
    assert told["error"] == "connection refused"


def test_a_command_that_fails_is_a_warning_and_changes_no_exit_code(run: Run) -> None:
    answer = run("--on-finish", "cat >told.json; exit 7")
    assert answer.exit_code == 0
    assert answer.stderr == "WARNING: --on-finish failed: its exit code is 7\n"
    assert json.loads(Path("told.json").read_text(encoding="utf-8"))["exit_code"] == 0


def test_a_command_that_reads_nothing_is_none_that_fails(run: Run) -> None:
    answer = run("--on-finish", "exec true")
    assert (answer.exit_code, answer.stderr) == (0, "")


def test_a_command_that_hangs_is_ended_with_all_that_it_started(
    run: Run, started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "COMMAND_SECONDS", 1.0)
    monkeypatch.setattr(hooks, "GRACE_SECONDS", 0.2)
    answer = run("--on-finish", "trap '' TERM; sleep 10000; sleep 10000")
    assert answer.exit_code == 0
    assert answer.stderr == "WARNING: --on-finish was ended: it took longer than 1 s\n"
    assert [is_group_gone(pid) for pid in started] == [True]


@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_a_signal_while_the_command_runs_ends_it_and_keeps_the_exit_code(
    run: Run, started: list[int], name: str
) -> None:
    answer = run("--on-finish", f"kill -{name} $PPID; sleep 10000")
    assert answer.exit_code == 0
    assert answer.stderr == "WARNING: --on-finish was ended by a signal\n"
    assert [is_group_gone(pid) for pid in started] == [True]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The process ids of the commands that were run at the end."""
    found: list[int] = []

    class Remembered(subprocess.Popen[str]):
        def __init__(self, *given: Any, **more: Any):
            super().__init__(*given, **more)
            found.append(self.pid)

    monkeypatch.setattr(subprocess, "Popen", Remembered)
    return found


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("absent/out.json", "got absent/out.json; make absent first"),
        ("folder", "got folder, which is no file; name a file"),
        ("/dev/null", "got /dev/null, which is no file; name a file"),
        ("folder/\x1b[2J/out.json", r"make folder/\x1b[2J first"),
    ],
)
def test_a_place_where_no_file_can_be_is_refused_before_the_search(
    run: Run, file: str, reason: str
) -> None:
    Path("folder").mkdir()
    begun: list[bool] = []

    def search(*_: object, **__: object) -> SearchResult:
        begun.append(True)
        raise AssertionError

    answer = run("--summary-json", file, "--on-finish", "touch told", work=search)
    assert answer.exit_code == 2
    rule = "error: --summary-json writes a file into a folder that is there: "
    assert answer.stderr.startswith(rule)
    assert reason in answer.stderr
    assert (begun, Path("told").exists()) == ([], False)


def test_a_file_that_cannot_be_written_at_the_end_is_a_warning(
    run: Run, searched: Callable[..., SearchResult]
) -> None:
    Path("folder").mkdir()

    def search(*given: Any, **more: Any) -> SearchResult:
        Path("folder").rmdir()
        return searched(*given, **more)

    told = ["--summary-json", "folder/out.json", "--on-finish", "cat >told.json"]
    answer = run(*told, work=search)
    assert answer.exit_code == 0
    warning = r"WARNING: --summary-json \S+/folder/out.json could not be written: No such file.*\n"
    assert re.fullmatch(warning, answer.stderr)
    assert json.loads(Path("told.json").read_text(encoding="utf-8"))["state"] == "done"


def test_an_older_file_is_replaced_whole_where_a_link_leads(run: Run) -> None:
    Path("folder").mkdir()
    Path("folder/real.json").write_text("x" * 100_000)
    Path("out.json").symlink_to("folder/real.json")
    assert run("--summary-json", "out.json").exit_code == 0
    assert Path("out.json").is_symlink()
    assert json.loads(Path("folder/real.json").read_text(encoding="utf-8"))["study"] == "one"
    assert [path.name for path in Path("folder").iterdir()] == ["real.json"]


def test_a_study_is_told_by_the_name_that_was_filled_in(
    run: Run, searched: Callable[..., SearchResult]
) -> None:
    def search(config: SearchConfig, **more: Any) -> SearchResult:
        return searched(config.model_copy(update={"study": "nightly-2026-11-23"}), **more)

    run("--study", "nightly-{date}", "--summary-json", "out.json", work=search)
    told = json.loads(Path("out.json").read_text(encoding="utf-8"))
    assert told["study"] == "nightly-2026-11-23"


def test_a_search_that_ends_before_its_name_is_filled_in_says_how_it_begins(run: Run) -> None:
    answer = run("--study", "nightly-{date}", work=raising(KeyboardInterrupt()))
    assert answer.exit_code == 130
    assert "python -m search.run --study 'nightly-{date}', with the other flags" in answer.stderr
    assert "--resume" not in answer.stderr


def test_a_wrong_configuration_is_told_too_and_a_dry_run_is_not(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = run("--trials", "0", "--on-finish", "cat >told.json")
    assert answer.exit_code == 2
    told = json.loads(Path("told.json").read_text(encoding="utf-8"))
    assert (told["state"], told["study"], told["exit_code"]) == ("refused", None, 2)
    assert told["error"].startswith("search.trials: ")
    Path("told.json").unlink()
    monkeypatch.setattr(commands, "print_resolved", lambda _: None)
    assert run("--dry-run", "--on-finish", "cat >told.json").exit_code == 0
    assert not Path("told.json").exists()


def is_group_gone(pid: int) -> bool:
    until = time.monotonic() + 90
    while time.monotonic() < until:
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


# Two nights of a scheduled search

NIGHTLY = [
    *("--study", "nightly-{date}", "--data", "loads.csv", "--target", "load", "--horizon", "6"),
    *("--max-concurrent", "2", "--quiet"),
    *("--device", "cpu", "--precision", "float32", "--pruner", "none"),
    *("--set", "training.max_steps=6", "--set", "training.evaluate_every_steps=2"),
    *("--set", "training.warmup_steps=0", "--set", "search.use_default_starts=false"),
    *("--set", "space.num_layers=1", "--set", "space.hidden_size={low: 4, high: 8}"),
    *("--set", "space.lookback=12", "--set", "space.batch_size=16"),
    *("--summary-json", "out.json", "--on-finish", 'cat >"told-$NIGHT.json"'),
]

FINAL = ["--finalists", "1", "--seeds", "1", "--refit", "none"]

# Clocks 26 hours apart show different days at any moment.
LAST_NIGHT, THIS_NIGHT = "<-12>+12", "<+14>-14"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_night_searches_the_grown_table_in_a_study_of_its_own(empty_view: Path) -> None:
    Path("mlruns").mkdir()
    shutil.copy(empty_view, "mlruns/mlflow.db")
    loads(480).to_csv("loads.csv", index=False)
    last = one_night("last", "--trials", "2", "--no-finalize", TZ=LAST_NIGHT)
    loads(504).to_csv("loads.csv", index=False)
    this = one_night("this", "--trials", "3", *FINAL, TZ=THIS_NIGHT)
    told, names = (last, this), [last["study"], this["study"]]
    assert all(re.fullmatch(r"nightly-\d{4}-\d\d-\d\d", name) for name in names)
    assert names[0] < names[1]
    assert [num_trained(name) for name in names] == [2, 3]
    assert [each["trials"]["complete"] for each in told] == [2, 3]
    assert [(each["state"], each["exit_code"], each["error"]) for each in told] == (
        [("done", 0, None)] * 2
    )
    for each in told:
        assert {"ridge", "persistence"} <= {baseline["name"] for baseline in each["baselines"]}
        assert each["links"]["mlflow"].startswith("http://127.0.0.1:5000/#/experiments/")
    assert (last["verdict"], last["links"]["model"]) == (None, None)
    assert this["verdict"]["outcome"] in ("passed", "not passed")
    assert Path(this["links"]["report"]).exists()
    assert this["links"]["model"].startswith("models:/loads-load-6@")


def one_night(night: str, *flags: str, **variables: str) -> dict[str, Any]:
    """Search as a scheduler would, and return what its command was told at the end."""
    ended = search_in_a_process([*NIGHTLY, *flags], NIGHT=night, **variables)
    assert (ended.returncode, ended.stderr) == (0, "")
    told: dict[str, Any] = json.loads(Path(f"told-{night}.json").read_text(encoding="utf-8"))
    assert told == json.loads(Path("out.json").read_text(encoding="utf-8"))
    return told


def num_trained(study: str) -> int:
    """How many trials of a study were trained to their end, by its record."""
    _, trials = read_study(f"sqlite:///{Path.cwd()}/mlruns/studies/{study}.db", study)
    return sum(bool(trial.evaluations) and trial.state is TrialState.COMPLETE for trial in trials)


def search_in_a_process(flags: Sequence[str], **variables: str) -> subprocess.CompletedProcess[str]:
    ours = {"RAY_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "LSTM_SEARCH_HOME"}
    own = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [sys.executable, "-m", "search.run", *flags],
        env=own | variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )


def loads(num_rows: int) -> pd.DataFrame:
    rows = np.arange(num_rows)
    daily = 50 + 10 * np.sin(2 * np.pi * rows / 24)
    noise = np.random.default_rng(1).normal(size=num_rows)
    when = pd.date_range("2024-01-01", periods=num_rows, freq="h")
    return pd.DataFrame({"when": when, "load": (daily + noise).round(3)})
