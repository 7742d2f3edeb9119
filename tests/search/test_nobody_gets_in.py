"""What a search on one machine opens to the network, and what it asks of it: nothing."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.hosts import Host, Network, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
GATEWAY = "10.77.0.254"
PATIENCE_SECONDS = 300
SMALL = (
    "--trials=3",
    "--set=training.max_steps=20",
    "--set=training.evaluate_every_steps=10",
    "--set=final.finalists=1",
    "--set=final.seeds=2",
    "--set=search.use_default_starts=false",
    "--set=space.hidden_size={low: 4, high: 8}",
    "--set=space.num_layers=1",
)


@pytest.fixture
def host(hosts: Network) -> Host:
    """A host that believes in a way to the world."""
    made = hosts.add_host()
    run("ip", "-n", made.space, "route", "add", "default", "via", GATEWAY)
    return made


@contextmanager
def started(host: Host, *command: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A command of this project in the environment of a new user: nothing is switched off."""
    folder = host.network.folder
    inside = host.command("env", "-i", f"-C{ROOT}", f"PATH={os.environ['PATH']}", f"HOME={folder}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*inside, sys.executable, "-m", *command], stdout=log, stderr=log
        )
    host.network.started.append(process)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def doors(host: Host) -> set[str]:
    """The addresses on which something listens."""
    listening = run(*host.command("ss", "--listening", "--tcp", "--udp", "--numeric", "-H"))
    addresses = {line.split()[4].rpartition(":")[0] for line in listening.splitlines()}
    return {address.strip("[]").removeprefix("::ffff:") for address in addresses}


def has_asked_the_world(host: Host) -> bool:
    """Whether the host has looked for its gateway, as it must before it sends a packet there."""
    return bool(run("ip", "-n", host.space, "neigh", "show", GATEWAY))


def test_the_check_sees_a_connection_to_the_world(host: Host) -> None:
    knock = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=0.2)"
    subprocess.run(host.command(sys.executable, "-c", knock), capture_output=True)
    assert has_asked_the_world(host)


def test_a_search_asks_nobody_and_listens_to_this_machine_only(host: Host) -> None:
    home = host.network.folder / "home"
    seen: set[str] = set()
    with started(host, "search.run", f"--home={home}", *SMALL) as search:
        until = time.monotonic() + PATIENCE_SECONDS
        while search.poll() is None:
            assert time.monotonic() < until
            seen |= doors(host)
            assert not has_asked_the_world(host)
            time.sleep(0.2)
    assert search.returncode == 0, (host.network.folder / "log").read_text()
    assert seen == {"127.0.0.1"}


def test_the_pages_are_served_to_this_machine_only(host: Host) -> None:
    home = host.network.folder / "home"
    command = ("search.run", f"--home={home}", "--trials=1", "--no-finalize", *SMALL[1:])
    with started(host, *command) as search:
        assert search.wait(PATIENCE_SECONDS) == 0
    with started(host, "search", "ui", f"--home={home}") as server:
        until = time.monotonic() + PATIENCE_SECONDS
        while not (seen := doors(host)):
            assert server.poll() is None
            assert time.monotonic() < until
            time.sleep(0.2)
    assert seen == {"127.0.0.1"}
    assert not has_asked_the_world(host)


def test_a_search_needs_no_network(hosts: Network) -> None:
    host = hosts.add_host()
    run("ip", "-n", host.space, "link", "delete", "eth0")
    with started(host, "search.run", f"--home={hosts.folder / 'home'}", *SMALL) as search:
        assert search.wait(PATIENCE_SECONDS) == 0, (hosts.folder / "log").read_text()
