"""The cluster file: by Ray's own schema, and brought up by a real `ray up` on three hosts."""

import json
import re
import secrets
import shlex
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from benchmarks.hosts import Host, Network

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "ray-cluster.yaml"
ACTIVATE = "/opt/lstm-search/.venv/bin/activate"
PATIENCE_SECONDS = 240
NUM_NODES = """
import sys
import ray
ray.init(sys.argv[1], log_to_driver=False, logging_level="error")
print(sorted(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]))
"""

# Namespaces share their users' folders and processes: each host gets a home of its own, and `ray
# stop`, which would end the nodes of all of them, does nothing.
SSH = """#!/usr/bin/env bash
while [[ $1 == -* ]]; do
    [[ $1 == -[io] ]] && shift
    shift
done
address=${1##*@}
shift
exec nsenter --target="$(cat FOLDER/keeper-$address)" --net --uts --mount \\
    env HOME=FOLDER/home-$address sh -c "$*" </dev/null
"""
RSYNC = """#!/usr/bin/env bash
source=${*: -2:1} target=${*: -1}
address=${target%%:*}
home=FOLDER/home-${address##*@}
place=${target#*:}
exec cp --preserve=mode "${source/#\\~/$HOME}" "${place/#\\~/$home}"
"""
RAY = """#!/usr/bin/env bash
[[ $1 == stop ]] || exec REAL "$@"
"""


def configuration() -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return tree


def commands(tree: dict[str, Any]) -> list[str]:
    return [*tree["head_start_ray_commands"], *tree["worker_start_ray_commands"]]


def test_the_file_is_valid_by_rays_schema() -> None:
    ray = find_spec("ray")  # not imported: what it reads then is said by `search.cluster`
    assert ray is not None
    assert ray.origin is not None
    schema = Path(ray.origin).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(configuration(), json.loads(schema.read_text(encoding="utf-8")))


def test_every_node_starts_with_the_token() -> None:
    tree = configuration()
    starts = [each for each in commands(tree) if re.search(r"\bray start\b", each)]
    assert len(starts) == 2
    assert [start for start in starts if "&& RAY_AUTH_MODE=token " not in start] == []
    assert all(f"source {ACTIVATE} && " in command for command in commands(tree))


def prepare(network: Network, hosts: list[Host]) -> Path:
    """Homes, and the programs that play ssh; returns the cluster's file for these hosts."""
    folder = network.folder
    programs = folder / "programs"
    programs.mkdir()
    real = str(Path(sys.executable).with_name("ray"))
    for name, text in {"ssh": SSH, "rsync": RSYNC, "ray": RAY}.items():
        program = programs / name
        program.write_text(text.replace("FOLDER", str(folder)).replace("REAL", real))
        program.chmod(0o755)
    for host in hosts:
        (folder / f"home-{host.address}").mkdir()
        (folder / f"keeper-{host.address}").write_text(str(host.keeper))
    path = f"{programs}:{Path(sys.executable).parent}"
    (folder / "activate").write_text(f'export PATH={shlex.quote(path)}:"$PATH"\n')

    tree = configuration()
    head, *workers = [host.address for host in hosts]
    tree["provider"] |= {"head_ip": head, "worker_ips": workers}
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        tree[key] = [each.replace(ACTIVATE, str(folder / "activate")) for each in tree[key]]
    (folder / "cluster.yaml").write_text(yaml.safe_dump(tree))
    return folder / "cluster.yaml"


def on_head(host: Host, home: Path, *command: str) -> list[str]:
    activated = f"source {host.network.folder}/activate && {shlex.join(command)}"
    settings = [f"HOME={home}", "RAY_AUTH_MODE=token", "RAY_USAGE_STATS_ENABLED=0"]
    return host.command("env", *settings, "bash", "-c", activated)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_up_makes_one_cluster_of_all_hosts_each_with_a_token_of_its_owners_only(
    hosts: Network,
) -> None:
    three = [hosts.add_host() for _ in range(3)]
    file = prepare(hosts, three)
    # Ray asks which way leads out, to know its own address.
    for host in three:
        subprocess.run(host.command("ip", "route", "add", "default", "dev", "eth0"), check=True)
    home = hosts.folder / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ssh").mkdir()
    (home / ".ssh" / "id_ed25519").write_text("what the ssh of this test does not read\n")
    token = home / ".ray" / "auth_token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))

    log = hosts.folder / "up.log"
    with log.open("wb") as output:
        up = subprocess.run(
            on_head(three[0], home, "ray", "up", "--yes", "--no-config-cache", str(file)),
            stdout=output,
            stderr=output,
            timeout=PATIENCE_SECONDS,
        )
    assert up.returncode == 0, log.read_text()

    until = time.monotonic() + PATIENCE_SECONDS
    addresses = [host.address for host in three]
    found = ""
    while found.strip() != str(addresses):
        assert time.monotonic() < until, found
        asked = subprocess.run(
            on_head(three[0], home, "python", "-c", NUM_NODES, f"{addresses[0]}:6379"),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        assert asked.returncode == 0, asked.stderr
        found = asked.stdout
    for address in addresses:
        copy = hosts.folder / f"home-{address}" / ".ray" / "auth_token"
        assert copy.read_text() == token.read_text()
        assert copy.stat().st_mode & 0o777 == 0o600
