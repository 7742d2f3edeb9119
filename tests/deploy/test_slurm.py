"""The Slurm script: read by shellcheck, and run where small programs play its Slurm."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.hosts import Host, Network
from benchmarks.invariants import check_count
from search.config import SearchConfig
from search.places import record_url
from search.record import TrialRecord
from search.stored_studies import read_study

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "slurm.sh"
PATIENCE_SECONDS = 300
JOB = {
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NAME": "load",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_CPUS_PER_TASK": "1",
}
FLAGS = (
    "--data=table.csv",
    "--no-finalize",
    "--device=cpu",
    "--precision=float32",
    "--pruner=none",
    "--trials=6",
    "--set=search.use_default_starts=false",
    "--set=space.num_layers=1",
    "--set=space.hidden_size={low: 4, high: 8}",
    "--set=space.lookback=12",
    "--set=space.batch_size=16",
    "--set=training.evaluate_every_steps=50",
    # Long enough to be met in the middle on any machine, short enough to be done twice.
    "--set=training.max_steps=1500",
)


def test_shellcheck_finds_nothing(program: Callable[..., Path]) -> None:
    read = subprocess.run([program("shellcheck"), SCRIPT], capture_output=True, text=True)
    assert (read.returncode, read.stdout) == (0, "")


def play_slurm(folder: Path, other: Host) -> Path:
    """A folder with the programs that the script asks of Slurm; returns it.

    `srun` runs its command on the other host; `scontrol` notes what it is told in `scontrol.log`;
    `squeue` says that the job runs.
    """
    there = " ".join(other.command())
    bodies = {
        "srun": "while [[ $1 == --* ]]; do shift; done\nexec " + there + ' "$@"',
        "scontrol": f'echo "$@" >>{folder}/scontrol.log',
        "squeue": "echo RUNNING",
    }
    return write_programs(folder / "slurm", bodies)


def write_programs(folder: Path, bodies: Mapping[str, str]) -> Path:
    folder.mkdir()
    for name, body in bodies.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (folder / name).chmod(0o755)
    return folder


def run_job(host: Host, programs: Path, *flags: str) -> "subprocess.Popen[bytes]":
    """Begin the script on its first node, as slurmd does."""
    folder = host.network.folder
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    settings = {
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "RAY_TMPDIR": "/tmp/ray",  # each host's own disk
        **JOB,
        "SLURMD_NODENAME": host.name,
    }
    inside = host.command("env", f"-C{folder}", *(f"{k}={v}" for k, v in settings.items()))
    with (folder / "job.log").open("ab") as log:
        job = subprocess.Popen([*inside, str(SCRIPT), *flags], stdout=log, stderr=log)
    host.network.started.append(job)
    return job


def trials_of(folder: Path) -> list[TrialRecord]:
    config = SearchConfig(home=str(folder / "mlruns"))
    return read_study(record_url(config, "load"), "load")[1]


def hosts_used(folder: Path) -> set[object]:
    if not (folder / "mlruns" / "studies" / "load.db").exists():
        return set()
    try:
        return {trial.ran_on["host"] for trial in trials_of(folder) if trial.evaluations}
    except ValueError:  # a record that is being made
        return set()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_that_nears_its_limit_is_queued_again_and_goes_on_to_its_end(hosts: Network) -> None:
    one, two = hosts.add_host(), hosts.add_host()
    folder = hosts.folder
    log, orders = folder / "job.log", folder / "scontrol.log"
    programs = play_slurm(folder, two)
    hours = pd.date_range("2024-01-01", periods=480, freq="h")
    load = np.sin(2 * np.pi * np.arange(480) / 24)
    pd.DataFrame({"time": hours, "load": load}).to_csv(folder / "table.csv", index=False)

    job = run_job(one, programs, *FLAGS)
    until = time.monotonic() + PATIENCE_SECONDS
    while hosts_used(folder) != {"host1", "host2"}:
        assert job.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.3)
    [token] = folder.glob(".ray-token-*")
    assert token.stat().st_mode & 0o777 == 0o600
    assert len(token.read_text()) == 64
    assert not orders.exists()
    job.send_signal(signal.SIGTERM)
    assert job.wait(PATIENCE_SECONDS) == 143, log.read_text()
    assert orders.read_text() == "requeue 77\n"
    assert list(folder.glob(".ray-token-*")) == []
    assert check_count(trials_of(folder), 6, is_done=False) == []

    again = run_job(one, programs, *FLAGS)
    assert again.wait(PATIENCE_SECONDS) == 0, log.read_text()
    assert orders.read_text() == "requeue 77\n"
    assert check_count(trials_of(folder), 6, is_done=True) == []
    assert {str(trial.state) for trial in trials_of(folder)} == {"complete"}


@pytest.mark.parametrize(
    ("exit_code", "state", "is_queued_again"),
    [
        (143, "RUNNING", True),
        (143, "COMPLETING", False),  # cancelled
        (0, "RUNNING", False),
        (1, "RUNNING", False),
        (2, "RUNNING", False),
    ],
)
def test_only_a_search_that_was_told_to_end_is_queued_again(
    tmp_path: Path, exit_code: int, state: str, is_queued_again: bool
) -> None:
    bodies = {
        "ray": "[[ $1 == health-check ]] || exec sleep 600",
        "srun": "exec sleep 600",
        "python": f"[[ $1 != -m ]] || exit {exit_code}",
        "squeue": f"echo {state}",
        "scontrol": f'echo "$@" >>{tmp_path}/scontrol.log',
    }
    programs = write_programs(tmp_path / "programs", bodies)
    job = subprocess.run(
        [SCRIPT],
        cwd=tmp_path,
        env={"PATH": os.pathsep.join([str(programs), os.environ["PATH"]]), **JOB}
        | {"RAY_TMPDIR": str(tmp_path / "ray"), "SLURMD_NODENAME": "host1"},
        timeout=60,
    )
    assert job.returncode == exit_code
    assert (tmp_path / "scontrol.log").exists() == is_queued_again
