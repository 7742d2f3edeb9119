"""A search over several hosts, each with a disk of its own: real Ray nodes on a real network."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.hosts import Host, Network, processes
from benchmarks.invariants import check_count, check_weights, search_data
from search.config import SearchConfig
from search.places import config_of_study, record_url
from search.record import TrialRecord
from search.stored_studies import read_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 300
TINY = (
    "--no-finalize",
    "--device=cpu",
    "--precision=float32",
    "--pruner=none",
    "--set=search.use_default_starts=false",
    "--set=space.num_layers=1",
    "--set=space.hidden_size={low: 4, high: 8}",
    "--set=space.lookback=12",
    "--set=space.batch_size=16",
)
SHORT = ("--set=training.max_steps=6", "--set=training.evaluate_every_steps=2")
# A trial is met in the middle: its worker is stopped once it has evaluated.
LONG = ("--trials=4", "--set=training.max_steps=600", "--set=training.evaluate_every_steps=50")
# A node that is cut off is given up after some ten seconds instead of half a minute.
SOON_GIVEN_UP = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "2",
}
A_WHILE_SECONDS = 8
A_TORCH_OF_ITS_OWN = """
import importlib.metadata as metadata
version = metadata.version
metadata.version = lambda name: "2.11.0" if name == "torch" else version(name)
"""


@pytest.fixture
def table(hosts: Network, empty_view: Path) -> Path:
    """A table that only the host of the search has, beside the home that it searches into."""
    (hosts.folder / "home").mkdir()
    shutil.copy(empty_view, hosts.folder / "home" / "mlflow.db")
    rng = np.random.default_rng(0)
    hours = pd.date_range("2024-01-01", periods=480, freq="h")
    load = np.sin(2 * np.pi * np.arange(480) / 24) + 0.1 * rng.normal(size=480)
    file = hosts.folder / "table.csv"
    pd.DataFrame({"time": hours, "load": load}).to_csv(file, index=False)
    return file


def start_search(host: Host, table: Path, *flags: str) -> "subprocess.Popen[bytes]":
    folder = host.network.folder
    inside = host.command("env", f"-C{ROOT}", f"RAY_AUTH_TOKEN_PATH={host.network.token}")
    command = [sys.executable, "-m", "search.run", f"--data={table}", f"--home={folder / 'home'}"]
    with (folder / "search.log").open("ab") as log:
        search = subprocess.Popen(
            [*inside, *command, "--study=one", *TINY, *flags], stdout=log, stderr=log
        )
    host.network.started.append(search)
    return search


def trials_of(hosts: Network) -> list[TrialRecord]:
    config = SearchConfig(home=str(hosts.folder / "home"))
    return read_study(record_url(config, "one"), "one")[1]


def wait_until(is_so: Callable[[], bool], search: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert search.poll() is None, "the search has ended"
        assert time.monotonic() < until
        time.sleep(0.3)


def wait_for_trials_on(names: set[str], search: "subprocess.Popen[bytes]", hosts: Network) -> None:
    """Return once each host has evaluated a trial; the first of them wait for the last."""
    with contextlib.ExitStack() as held:
        waiting: set[str] = set()

        def is_so() -> bool:
            workers = workers_of(hosts)
            for name in workers.keys() - waiting:
                held.enter_context(stopped(workers[name]))
                waiting.add(name)
            return names <= waiting

        wait_until(is_so, search)


def workers_of(hosts: Network) -> dict[str, int]:
    """The process that evaluated trials last on each host, as far as the record says."""
    if not (hosts.folder / "home" / "studies" / "one.db").exists():
        return {}
    try:
        ran_on = [trial.ran_on for trial in trials_of(hosts) if trial.ran_on]
    except ValueError:  # a record that is being made
        return {}
    return {place["host"]: place["pid"] for place in ran_on}


@contextlib.contextmanager
def stopped(process: int) -> Iterator[None]:
    """Let a process do nothing meanwhile."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


def check(hosts: Network, num_trials: int) -> list[object]:
    config = config_of_study("one", str(hosts.folder / "home"), None)
    trials = trials_of(hosts)
    folder = config.studies_folder / "one"
    found = check_count(trials, num_trials, is_done=True)
    return [*found, *check_weights(folder, config, search_data(config), trials)]


def test_trials_run_on_every_node_with_the_table_and_the_code_of_the_first(
    hosts: Network, table: Path
) -> None:
    one, two = hosts.add_host(), hosts.add_host()
    one.start_ray()
    two.start_ray(one)
    search = start_search(one, table, f"--address={one.address}:6379", *LONG)
    wait_for_trials_on({"host1", "host2"}, search, hosts)
    check_that_it_completes(search, hosts)
    assert {trial.ran_on["host"] for trial in trials_of(hosts)} == {"host1", "host2"}


def test_a_node_of_another_torch_is_refused_by_its_name(hosts: Network, table: Path) -> None:
    one, two = hosts.add_host(), hosts.add_host()
    one.start_ray()
    (hosts.folder / "sitecustomize.py").write_text(A_TORCH_OF_ITS_OWN)
    two.start_ray(one, environment={"PYTHONPATH": str(hosts.folder)})
    search = start_search(one, table, f"--address={one.address}:6379", "--trials=2", *SHORT)
    assert search.wait(PATIENCE_SECONDS) == 2
    said = (hosts.folder / "search.log").read_text()
    assert f"on host2 ({two.address}) torch is 2.11.0 there and" in said


def test_a_cluster_that_wants_its_token_lets_nobody_in_without(hosts: Network, table: Path) -> None:
    one = hosts.add_host()
    one.start_ray()
    hosts.token.write_text("0" * 64)
    search = start_search(one, table, f"--address={one.address}:6379", "--trials=2", *SHORT)
    assert search.wait(PATIENCE_SECONDS) == 2
    assert "a cluster wants its token" in (hosts.folder / "search.log").read_text()


@pytest.mark.parametrize("fault", ["killed", "cut off", "cut off for a while"])
def test_a_search_outlives_a_node_that_is_lost(hosts: Network, table: Path, fault: str) -> None:
    one, two = hosts.add_host(), hosts.add_host()
    one.start_ray(environment=SOON_GIVEN_UP if fault == "cut off" else None)
    node = two.start_ray(one)
    search = start_search(one, table, f"--address={one.address}:6379", *LONG)
    wait_for_trials_on({"host1", "host2"}, search, hosts)
    if fault == "killed":
        two.end_ray(node)
    else:
        two.cut_off()
    if fault == "cut off for a while":
        time.sleep(A_WHILE_SECONDS)
        two.plug_in_again()
    check_that_it_completes(search, hosts)


def test_a_search_outlives_two_of_three_nodes(hosts: Network, table: Path) -> None:
    one, two, three = hosts.add_host(), hosts.add_host(), hosts.add_host()
    one.start_ray()
    node = two.start_ray(one)
    three.start_ray(one)
    search = start_search(one, table, f"--address={one.address}:6379", *LONG)
    wait_for_trials_on({"host1", "host2", "host3"}, search, hosts)
    three.cut_off()
    two.end_ray(node)
    time.sleep(A_WHILE_SECONDS)
    three.plug_in_again()
    check_that_it_completes(search, hosts)


def test_a_node_that_joins_takes_the_place_of_one_that_is_lost(hosts: Network, table: Path) -> None:
    one, two = hosts.add_host(), hosts.add_host()
    one.start_ray()
    node = two.start_ray(one)
    search = start_search(one, table, f"--address={one.address}:6379", *LONG)
    wait_for_trials_on({"host1", "host2"}, search, hosts)
    workers = workers_of(hosts)
    with stopped(workers["host1"]), stopped(workers["host2"]):  # neither ends the search meanwhile
        hosts.add_host().start_ray(one)
        two.end_ray(node)
        wait_until(lambda: "host3" in workers_of(hosts), search)
    check_that_it_completes(search, hosts)


def test_refits_outlive_a_node_that_is_cut_off(hosts: Network) -> None:
    one, two = hosts.add_host(), hosts.add_host()
    one.start_ray(environment=SOON_GIVEN_UP)
    two.start_ray(one)
    settings = [f"RAY_AUTH_TOKEN_PATH={hosts.token}", f"PYTHONPATH={ROOT}"]
    script = [sys.executable, Path(__file__).with_name("refit_on_hosts.py")]
    command = [*settings, *map(str, script), f"{one.address}:6379"]
    refits = subprocess.Popen(one.command("env", *command))
    hosts.started.append(refits)
    wait_until(lambda: any(map(is_refitting, processes(two.space))), refits)
    two.cut_off()
    assert refits.wait(PATIENCE_SECONDS) == 0


def is_refitting(process: int) -> bool:
    with contextlib.suppress(OSError):
        return b"SideWorker.refit" in Path(f"/proc/{process}/cmdline").read_bytes()
    return False


def check_that_it_completes(search: "subprocess.Popen[bytes]", hosts: Network) -> None:
    assert search.wait(PATIENCE_SECONDS) == 0, (hosts.folder / "search.log").read_text()
    assert "to beat: " in (hosts.folder / "search.log").read_text()
    assert {str(trial.state) for trial in trials_of(hosts)} == {"complete"}
    assert check(hosts, num_trials=4) == []
