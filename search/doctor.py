"""`python -m search doctor`: what a search needs, looked at one by one, with a verdict each.

What it prints are the first lines of every bug report, so it names no password and changes nothing
but a probe file, and a probe run on an MLflow server, that it deletes again.
"""

import fcntl
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import torch
from packaging.requirements import Requirement
from rich.console import Console

from pipelines.hardware import hardware_name
from search.config import ConfigError, SearchConfig
from search.facts import git_commit
from search.places import (
    experiment_name,
    known_studies,
    record_url,
    shown_address,
    tracking_uri,
)
from search.resolve import has_unused_gpu
from search.screen import say
from search.stored_studies import UnknownStudyError, read_study, shown_url
from search.studies import num_bytes_in, size_in_words

ROOM_BYTES = 1_000_000_000
"""Less free disk than this is worth a warning: a search with its view takes some megabytes, Ray's
logs and its spilled objects more."""

MEMORY_BYTES = 2_000_000_000
"""Less free memory than this is too little for Ray and two workers, each with torch."""

ANSWER_SECONDS = 5.0

VARIABLES = (
    "LSTM_SEARCH_HOME",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "RAY_ADDRESS",
    "RAY_TMPDIR",
    "CUDA_VISIBLE_DEVICES",
    "TMPDIR",
)
"""What in the environment changes a search."""

NETWORK_DISKS = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "lustre", "beegfs", "ceph"}


class Verdict(StrEnum):
    """What a finding means for a search."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    verdict: Verdict
    what: str
    text: str
    """What was found and, unless it is well, what to do."""


def examine(config: SearchConfig) -> Iterator[Finding]:
    """Look at everything, one finding after another; a look that itself fails is a finding."""
    looks: tuple[Callable[[SearchConfig], Iterator[Finding]], ...]
    looks = (_packages, _devices, _memory, _home, _records, _view, _temporary_folder, _cluster)
    for look in looks:
        try:
            yield from look(config)
        except Exception as error:  # the other looks may still tell what is wrong
            name = look.__name__.strip("_").replace("_", " ")
            yield Finding(Verdict.BROKEN, name, f"cannot be looked at: {error!r}")
    yield from _environment()


def print_findings(config: SearchConfig, console: Console) -> bool:
    """Print every finding as it comes; return whether none is broken."""
    counts = dict.fromkeys(Verdict, 0)
    for finding in examine(config):
        counts[finding.verdict] += 1
        line = f"{finding.verdict:<8} {finding.what:<11} {finding.text}"
        say(console, line)
    broken, warnings = counts[Verdict.BROKEN], counts[Verdict.WARNING]
    total = f"{broken} broken, {warnings} warnings; remedies: docs/troubleshooting.md"
    say(console, total)
    return broken == 0


def _packages(config: SearchConfig) -> Iterator[Finding]:
    where = f"{platform.platform()}, {sys.executable}"
    yield _ok("python", f"{platform.python_version()} on {where}")
    yield _ok("lstm-search", f"{version('lstm-search')}, commit {git_commit()[:12]}")
    tested = map(Requirement, requires("lstm-search") or [])
    for needed in (one for one in tested if one.marker is None):
        try:
            found = version(needed.name)
        except PackageNotFoundError:
            yield Finding(Verdict.BROKEN, needed.name, "is missing: install it (docs/install.md)")
            continue
        if needed.specifier.contains(found, prereleases=True):
            yield _ok(needed.name, found)
        else:
            text = f"{found}, tested is {needed.specifier}: install with -c constraints.txt"
            yield Finding(Verdict.WARNING, needed.name, text)


def _devices(config: SearchConfig) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield _ok("CPU", f"{hardware_name('cpu')}, {cores} cores usable")
    build = f"torch {torch.__version__}, built for CUDA {torch.version.cuda or '-'}"
    if has_unused_gpu():
        text = f"an NVIDIA GPU is here, but this is a CPU-only build ({build}): docs/install.md"
        yield Finding(Verdict.WARNING, "GPU", text)
    elif torch.cuda.is_available():
        names = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
        yield _ok("GPU", f"{', '.join(names)} ({build})")
    else:
        yield _ok("GPU", f"none ({build}): trials run on the CPU")


def _memory(config: SearchConfig) -> Iterator[Finding]:
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return
    lines = (line.split() for line in meminfo.read_text(encoding="utf-8").splitlines())
    kibibytes = {line[0].rstrip(":"): int(line[1]) for line in lines}
    free, total = (kibibytes[name] * 1024 for name in ("MemAvailable", "MemTotal"))
    text = f"{size_in_words(free)} free of {size_in_words(total)}"
    if free < MEMORY_BYTES:
        text += ": end other programs, or lower --max-concurrent"
    yield Finding(Verdict.WARNING if free < MEMORY_BYTES else Verdict.OK, "memory", text)


def _home(config: SearchConfig) -> Iterator[Finding]:
    home = config.home_folder
    yield _folder("home", home, "choose another by --home or LSTM_SEARCH_HOME")
    disk = _disk_kind(home)
    if disk in NETWORK_DISKS:
        text = f"{home} is on a network disk ({disk}), where SQLite's locks may not hold: "
        yield Finding(Verdict.WARNING, "disk", text + "choose a local --home, or --storage")


def _records(config: SearchConfig) -> Iterator[Finding]:
    names = known_studies(config)
    where = shown_url(config.storage) if config.storage else str(config.studies_folder)
    size = size_in_words(num_bytes_in([config.studies_folder]))
    yield _ok("studies", f"{len(names)} in {where}, {size}")
    for name in names:
        try:
            read_study(record_url(config, name), name)
        except UnknownStudyError as error:
            yield Finding(Verdict.BROKEN, "study", str(error))


def _view(config: SearchConfig) -> Iterator[Finding]:
    uri, experiment = tracking_uri(config), experiment_name(config)
    if uri.startswith("sqlite:///"):
        yield _store(Path(uri.removeprefix("sqlite:///")), experiment)
    elif uri.startswith(("http://", "https://")):
        yield _server(uri, experiment)
    else:
        yield _ok("MLflow", f"store of another kind ({uri.partition(':')[0]}), not looked at")


def _store(path: Path, experiment: str) -> Finding:
    if not path.exists():
        return _ok("MLflow", f"{path} is made by the first search")
    if not os.access(path, os.W_OK):
        text = f"{path} must be writable: it is not for this user; give yourself the right to it"
        return Finding(Verdict.BROKEN, "MLflow", text)
    return _ok("MLflow", f"{path}, {size_in_words(path.stat().st_size)}, experiment {experiment}")


def _server(uri: str, experiment: str) -> Finding:
    from search.view_check import check_view  # loads MLflow, which takes seconds

    shown = shown_address(uri)
    try:
        problem = check_view(uri, experiment, makes_experiment=False)
    except ConfigError as error:
        return Finding(Verdict.BROKEN, "MLflow", str(error))
    if problem is None:
        return _ok("MLflow", f"{shown} answers, experiment {experiment}")
    text = f"{shown} takes nothing ({problem}): start it, or correct MLFLOW_TRACKING_URI; "
    text += "trials go on without it, and `search sync` shows them later"
    return Finding(Verdict.WARNING, "MLflow", text)


def _temporary_folder(config: SearchConfig) -> Iterator[Finding]:
    folder = Path(tempfile.gettempdir())
    yield _folder("temporary", folder, "choose another by TMPDIR")
    ray = folder / "ray"
    if ray.is_dir():
        text = f"{ray} holds {size_in_words(num_bytes_in([ray]))} of Ray's sessions"
        if not os.access(ray, os.W_OK | os.X_OK):
            text += ", and this user must be able to write there: remove it, or set RAY_TMPDIR"
            yield Finding(Verdict.BROKEN, "Ray", text)
        else:
            yield _ok("Ray", text)
    shared = Path("/dev/shm")  # nosec B108
    if shared.is_dir() and (free := shutil.disk_usage(shared).free) < ROOM_BYTES // 2:
        text = f"{shared} has {size_in_words(free)} free: Ray will use a slower disk; in Docker "
        yield Finding(Verdict.WARNING, "memory", text + "give --shm-size=2g")


def _cluster(config: SearchConfig) -> Iterator[Finding]:
    address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.rpartition(":")
    if not address or "//" in address or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except OSError as error:
        text = f"no cluster answers at RAY_ADDRESS={address} ({error}): unset it, or start one"
        yield Finding(Verdict.BROKEN, "Ray", text)
    else:
        yield _ok("Ray", f"a cluster answers at {address}")


def _environment() -> Iterator[Finding]:
    given = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    text = ", ".join(f"{name}={shown_address(value)}" for name, value in given.items())
    yield _ok("environment", text or "none of the variables that a search heeds")


def _folder(what: str, folder: Path, remedy: str) -> Finding:
    """Whether a folder, or where it is to be made, can be written to and has room."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if problem := _why_not_writable(place):
        return Finding(Verdict.BROKEN, what, f"{folder} must be writable: {problem}; {remedy}")
    free = shutil.disk_usage(place).free
    state = "" if place == folder else " (made by the first search)"
    text = f"{folder}{state}, {size_in_words(free)} free"
    if free < ROOM_BYTES:
        return Finding(Verdict.WARNING, what, f"{text}: make room, or {remedy}")
    return _ok(what, text)


def _why_not_writable(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} is a file"
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0")
            probe.flush()
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.strerror or repr(error)
    return ""


def _disk_kind(folder: Path) -> str:
    """The kind of file system that a folder lies on, as the kernel names it."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return ""
    fields = (line.split() for line in mounts.read_text(encoding="utf-8").splitlines())
    kinds = {Path(place): kind for _, place, kind, *_ in fields}
    return next((kinds[path] for path in (folder, *folder.parents) if path in kinds), "")


def _ok(what: str, text: str) -> Finding:
    return Finding(Verdict.OK, what, text)
