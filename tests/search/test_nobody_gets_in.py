"""What a search on one machine opens to the network, and whom it asks."""

import os
import shutil
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
CLOUD = {"169.254.169.254", "metadata.google.internal"}
"""Whom Ray asks, once and whatever it is told, in which cloud it runs (docs/security.md)."""
WATCH = """
import socket
packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
packets.bind(("eth0", 0))
print("watching", flush=True)
while True:
    frame = packets.recv(65535)
    if frame[12:14] != bytes([8, 0]):
        continue
    packet = frame[14:]
    header = 4 * (packet[0] & 15)
    protocol, to = packet[9], socket.inet_ntoa(packet[16:20])
    if protocol == 17 and packet[header + 2 : header + 4] == bytes([0, 53]):
        labels, rest = [], packet[header + 8 + 12 :]
        while rest[0]:
            labels.append(rest[1 : 1 + rest[0]].decode())
            rest = rest[1 + rest[0] :]
        to = ".".join(labels)
    if protocol in (6, 17):
        print(to, flush=True)
"""
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
    run("ip", "-n", made.space, "route", "add", "default", "via", hosts.gateway)
    way = ("lladdr", "02:00:00:00:00:01", "dev", "eth0", "nud", "permanent")
    run("ip", "-n", made.space, "neigh", "add", hosts.gateway, *way)
    log = hosts.folder / "asked"
    with log.open("wb") as output:
        watch = made.command(sys.executable, "-c", WATCH)
        hosts.started.append(subprocess.Popen(watch, stdout=output))
    until = time.monotonic() + PATIENCE_SECONDS
    while not log.read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
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


def asked(host: Host) -> set[str]:
    """Whom the host has sent packets, by address, or by name where it has asked for one."""
    return set((host.network.folder / "asked").read_text().splitlines()[1:])


def test_the_watch_sees_a_connection_and_a_name(host: Host) -> None:
    knock = (
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM);"
        r"s.sendto(bytes(12) + b'\x07example\x03org\x00', ('192.0.2.53', 53));"
        "socket.create_connection(('192.0.2.1', 80), timeout=0.2)"
    )
    subprocess.run(host.command(sys.executable, "-c", knock), capture_output=True)
    until = time.monotonic() + PATIENCE_SECONDS
    while asked(host) != {"192.0.2.1", "example.org"}:
        assert time.monotonic() < until, asked(host)
        time.sleep(0.05)


def test_a_search_asks_only_for_its_cloud_and_listens_to_this_machine_only(host: Host) -> None:
    home = host.network.folder / "home"
    seen: set[str] = set()
    with started(host, "search.run", f"--home={home}", *SMALL) as search:
        until = time.monotonic() + PATIENCE_SECONDS
        while search.poll() is None:
            assert time.monotonic() < until
            seen |= doors(host)
            time.sleep(0.2)
    assert search.returncode == 0, (host.network.folder / "log").read_text()
    assert seen == {"127.0.0.1"}
    assert asked(host) <= CLOUD


def test_the_pages_are_served_to_this_machine_only(host: Host, empty_view: Path) -> None:
    home = host.network.folder / "home"
    home.mkdir()
    shutil.copy(empty_view, home / "mlflow.db")
    with started(host, "search", "ui", f"--home={home}") as server:
        until = time.monotonic() + PATIENCE_SECONDS
        while not (seen := doors(host)):
            assert server.poll() is None
            assert time.monotonic() < until
            time.sleep(0.2)
    assert seen == {"127.0.0.1"}
    assert asked(host) == set()


def test_a_search_needs_no_network(hosts: Network) -> None:
    host = hosts.add_host()
    run("ip", "-n", host.space, "link", "delete", "eth0")
    with started(host, "search.run", f"--home={hosts.folder / 'home'}", *SMALL) as search:
        assert search.wait(PATIENCE_SECONDS) == 0, (hosts.folder / "log").read_text()
