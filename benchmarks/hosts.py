"""Hosts on one machine: network namespaces on one bridge, each with a disk and a name of its own.

They are made by iproute2 and need root. What runs on them dies with them.
"""

import contextlib
import itertools
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 120.0


@dataclass(frozen=True)
class Host:
    """A network namespace with a process that keeps its disk and its name."""

    name: str
    space: str
    address: str
    keeper: int
    network: "Network"

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs `arguments` on this host."""
        return ["nsenter", f"--target={self.keeper}", "--net", "--uts", "--mount", *arguments]

    def start_ray(
        self,
        head: "Host | None" = None,
        environment: Mapping[str, str] | None = None,
        dashboard_host: str | None = None,
    ) -> "subprocess.Popen[bytes]":
        """Start a node of a cluster, its head without a `head`; returns once it runs.

        Args:
            head: the cluster's.
            environment: variables of the node.
            dashboard_host: where the head's dashboard, and with it the jobs, listen; None: nowhere.
        """
        ray = [str(Path(sys.executable).with_name("ray")), "start", "--block"]
        ray += ["--num-cpus=1", "--num-gpus=0", f"--node-ip-address={self.address}"]
        ray += ["--disable-usage-stats", "--object-store-memory=100000000"]
        ray += ["--head", "--port=6379"] if head is None else []
        ray += [f"--include-dashboard={dashboard_host is not None}"] if head is None else []
        ray += [f"--dashboard-host={dashboard_host}"] if dashboard_host is not None else []
        ray += [f"--address={head.address}:6379"] if head is not None else []
        settings = ["env", "RAY_AUTH_MODE=token", f"RAY_AUTH_TOKEN_PATH={self.network.token}"]
        settings += [f"{name}={value}" for name, value in (environment or {}).items()]
        log = self.network.folder / f"{self.name}-ray.log"
        with log.open("wb") as output:
            node = subprocess.Popen(
                self.command(*settings, *ray), stdout=output, stderr=output, start_new_session=True
            )
        self.network.started.append(node)
        until = time.monotonic() + START_SECONDS
        while b"Ray runtime started" not in log.read_bytes():
            assert node.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        return node

    def end_ray(self, node: "subprocess.Popen[bytes]") -> None:
        """End all that runs on this host but its keeper, as a power cut would."""
        kill(set(processes(self.space)) - {self.keeper})
        node.wait()

    def cut_off(self) -> None:
        """Lose every packet from and to this host, without a word to anybody."""
        run("ip", "-n", self.network.switch, "link", "set", self.name, "down")

    def plug_in_again(self) -> None:
        """Let packets pass again after `cut_off`."""
        run("ip", "-n", self.network.switch, "link", "set", self.name, "up")


class Network:
    """A bridge, in a namespace of its own, and the hosts on it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.token = folder / "token"
        """A file with the token that every Ray cluster here wants."""
        self.token.touch(mode=0o600)
        self.token.write_text(secrets.token_hex(32))
        self.started: list[subprocess.Popen[bytes]] = []
        self._id = f"ls{os.getpid()}"
        self.switch = f"{self._id}s"
        # Ray finds nodes by looking through all processes, which the hosts do not hide from each
        # other: two networks at a time must not have the same addresses.
        self._addresses = f"10.77.{os.getpid() % 256}"
        self.gateway = f"{self._addresses}.254"
        """An address that no host has."""
        self._hosts: list[Host] = []
        run("ip", "netns", "add", self.switch)
        run("ip", "-n", self.switch, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", self.switch, "link", "set", "bridge", "up")

    def add_host(self) -> Host:
        """Plug one more host in."""
        number = len(self._hosts) + 1
        name, space = f"host{number}", f"{self._id}h{number}"
        run("ip", "netns", "add", space)
        run(
            *("ip", "-n", self.switch, "link", "add", name, "type", "veth"),
            *("peer", "name", "eth0", "netns", space),
        )
        run("ip", "-n", self.switch, "link", "set", name, "master", "bridge", "up")
        address = f"{self._addresses}.{number}"
        run("ip", "-n", space, "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            run("ip", "-n", space, "link", "set", device, "up")
        disks = (
            "mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray && mount -t tmpfs tmpfs /dev/shm"
        )
        setup = f"{disks} && hostname {name} && echo ready && exec sleep infinity"
        keeper = subprocess.Popen(
            ["ip", "netns", "exec", space, "unshare", "--mount", "--uts", "sh", "-c", setup],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.started.append(keeper)
        assert keeper.stdout is not None
        with keeper.stdout:
            assert keeper.stdout.readline() == b"ready\n"
        host = Host(name, space, address, keeper.pid, self)
        self._hosts.append(host)
        return host

    def end(self) -> None:
        """End all that runs on the hosts, then remove them."""
        spaces = [self.switch, *(host.space for host in self._hosts)]
        kill(itertools.chain(*map(processes, spaces)))
        for started in self.started:
            started.wait()
        for space in spaces:
            run("ip", "netns", "delete", space)


@contextlib.contextmanager
def network(folder: Path) -> Iterator[Network]:
    """A network without hosts, for as long as a block lasts; logs go into the folder."""
    made = Network(folder)
    try:
        yield made
    finally:
        made.end()


def why_no_namespaces() -> str:
    """What is missing for hosts of network namespaces; empty: nothing."""
    missing = [program for program in ("ip", "nsenter", "unshare") if not shutil.which(program)]
    if missing:
        return f"needs {', '.join(missing)}; tests/install-debian-packages.sh gets iproute2"
    trial = ["unshare", "--net", "--mount", "--uts", "true"]
    if os.geteuid() != 0 or subprocess.run(trial, capture_output=True).returncode != 0:
        return "needs the right to make network namespaces: run as root, in a container privileged"
    return ""


def processes(space: str) -> list[int]:
    """What runs in a namespace."""
    return [int(process) for process in run("ip", "netns", "pids", space).split()]


def kill(processes: Iterable[int]) -> None:
    """End processes as a power cut would."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def run(*command: str) -> str:
    """Run a command that must succeed; returns what it prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
