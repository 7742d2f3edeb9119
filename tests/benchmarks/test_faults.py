"""The program itself, against real searches: a short round, and what it says of it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_round_of_faults_loses_nothing(tmp_path: Path) -> None:
    faults = ["worker killed", "MLflow's answers are cut", "SIGKILL in the middle of a write"]
    command = [sys.executable, "-m", "benchmarks.faults", "--rounds", "1"]
    command += ["--folder", str(tmp_path), *(f"--fault={fault}" for fault in faults)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rounds, _, table = done.stdout.partition("What was tried")
    assert "LOST" not in rounds
    assert "all faults                       │     3" in table
    for fault in faults:
        assert fault in rounds
