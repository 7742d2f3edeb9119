"""`python -m search ui` as a process, and its page in a browser."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from search.config import ConfigError, SearchConfig
from search.kept_weights import KeptWeights
from search.projection import Snapshot, StudyFacts, trials_url
from search.record import TrialRecord
from search.tracking import rebuild
from search.ui import PREFERRED_PORT, free_port, local_store_uri, serve

MakeFacts = Callable[..., StudyFacts]
WaitFor = Callable[[str], None]

ROOT = Path(__file__).parents[2]

QUIET = "--disable-background-networking --disable-component-update --disable-sync --disable-quic"


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory,
    empty_view: Path,
    played_trials: list[TrialRecord],
    make_facts: MakeFacts,
    closing_connections: Callable[[], AbstractContextManager[None]],
) -> Path:
    """A folder with a finished study, and an older one of the same name, in its store."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copy(empty_view, folder / "mlflow.db")
    snapshot = Snapshot(played_trials, "done", KeptWeights(folder / "kept"))
    with closing_connections():
        for uid in ("0" * 32, "1" * 32):
            rebuild(local_store_uri(folder), "lstm-search", make_facts(uid=uid), snapshot, [])
    return folder


class Ui:
    """The process and what it printed."""

    def __init__(self, home: Path):
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "search", "ui", "--home", str(home)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.first_line)
        assert found, self.first_line
        self.server, self.port = found[0], int(found[1])

    def end(self) -> str:
        """Send SIGTERM to the process alone; return what else was printed."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stdout is not None
        with self.process.stdout as output:
            rest = output.read()
        self.process.wait(30)
        return rest


@contextmanager
def running_ui(home: Path, wait_for: WaitFor) -> Iterator[Ui]:
    ui = Ui(home)
    try:
        wait_for(f"{ui.server}/health")
        yield ui
    finally:
        if ui.process.poll() is None:
            ui.end()


@pytest.fixture(scope="module")
def ui(home: Path, wait_for: WaitFor) -> Iterator[Ui]:
    with running_ui(home, wait_for) as ui:
        yield ui


def processes_of_group(group: int) -> list[str]:
    """Command lines of the processes that belong to a process group."""
    listing = subprocess.run(["ps", "-eo", "pgid=,args="], capture_output=True, text=True).stdout
    lines = (line.strip().split(maxsplit=1) for line in listing.splitlines())
    return [arguments for number, arguments in lines if int(number) == group]


def listening_addresses(port: int) -> set[str]:
    """The addresses on which somebody listens on a port, as the kernel writes them."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    lines += Path("/proc/net/tcp6").read_text().splitlines()[1:]
    sockets = [line.split() for line in lines]
    ends = [fields[1].split(":") for fields in sockets if fields[3] == "0A"]
    return {address for address, number in ends if int(number, 16) == port}


def test_a_folder_without_a_search_is_told_how_to_begin_one(tmp_path: Path) -> None:
    command = rf"begin one: python -m search\.run --home {re.escape(str(tmp_path))}$"
    with pytest.raises(ConfigError, match=rf"no search in .* yet; {command}"):
        serve(SearchConfig(home=str(tmp_path)))


def test_the_port_of_the_printed_links_is_taken_unless_somebody_listens_there() -> None:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", PREFERRED_PORT))
        except OSError:
            pytest.skip(f"port {PREFERRED_PORT} is in use on this machine")
        listener.listen()
        assert free_port() != PREFERRED_PORT
    assert free_port() == PREFERRED_PORT


def test_the_store_of_a_relative_folder_is_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_store_uri(Path("mlruns")) == f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}"


@pytest.mark.slow
def test_the_page_is_served_on_this_machine_alone(ui: Ui) -> None:
    with urllib.request.urlopen(ui.server, timeout=10) as answer:
        assert "MLflow" in answer.read().decode()
    assert listening_addresses(ui.port) == {"0100007F"}


@pytest.mark.slow
def test_where_the_port_is_taken_another_serves_and_sigterm_leaves_no_process(
    home: Path, wait_for: WaitFor
) -> None:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", PREFERRED_PORT))
            listener.listen()
        except OSError:
            pass  # somebody listens there already, which serves as well
        with running_ui(home, wait_for) as ui:
            assert ui.port != PREFERRED_PORT
            assert len(processes_of_group(ui.process.pid)) >= 2
            rest = ui.end()
    assert f"port {PREFERRED_PORT} is taken: put {ui.port} in its place" in rest
    assert processes_of_group(ui.process.pid) == []


@pytest.mark.slow
def test_the_printed_link_shows_the_trials_flat_and_sorted_the_best_first(
    ui: Ui, chromium: Path, tmp_path: Path, played_trials: list[TrialRecord]
) -> None:
    url = trials_url(ui.server, "1", "small")
    page = dom_of(url, chromium, tmp_path)
    rows = re.findall(r'row-index="(\d+)"(?:(?!row-index).)*?>(\d{3} [^<>]+)</', page, re.DOTALL)
    shown = {int(row): name for row, name in rows}
    best_first = [played_trials[number].name for number in (6, 1, 0, 2, 3, 4)]
    assert [shown[row] for row in sorted(shown)] == best_first
    for column in ("val_mae_scaled_best", "widths", "outcome", "learning_rate", "Duration"):
        assert f">{column}<" in page


def dom_of(url: str, chromium: Path, folder: Path) -> str:
    """The page as it is after half a minute of the browser's own time."""
    command = [str(chromium), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += [*QUIET.split(), f"--user-data-dir={folder / 'browser'}"]
    command += ["--window-size=2400,900", "--virtual-time-budget=30000", "--dump-dom", url]
    environment = os.environ | {"HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    return done.stdout
