"""The Makefile, as a user meets it right after cloning: in a directory without .venv."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def fresh_clone(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # `make test` hands its own variables down in MAKEFLAGS.
    ours = ("MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS", "PYTHON", "TORCH")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        ["make", *arguments], cwd=directory, env=environment, capture_output=True, text=True
    )


def test_make_alone_lists_the_targets_and_starts_nothing(fresh_clone: Path) -> None:
    listing = make(fresh_clone).stdout
    for target in ("search", "ui", "test", "test-fast", "lint"):
        assert f"make {target} " in listing
    assert not (fresh_clone / ".venv").exists()


def test_search_runs_a_hundred_trials_unless_told_otherwise(fresh_clone: Path) -> None:
    assert "-m search.run --trials 100" in make(fresh_clone, "-n", "search").stdout


def test_trials_and_further_flags_reach_the_search(fresh_clone: Path) -> None:
    commands = make(fresh_clone, "-n", "search", "TRIALS=7", "ARGS=--seed 3").stdout
    assert "-m search.run --trials 7 --seed 3" in commands


def test_by_default_the_environment_is_closed_and_torch_is_pinned(fresh_clone: Path) -> None:
    commands = make(fresh_clone, "-n", "search").stdout
    assert "--system-site-packages" not in commands
    assert "-c constraints.txt -e '.[dev]'" in commands
    assert "\ntorch==2.13.0\n" in (fresh_clone / "constraints.txt").read_text()


def test_with_torch_installed_the_sites_packages_are_seen_and_torch_is_not_pinned(
    fresh_clone: Path,
) -> None:
    commands = make(fresh_clone, "-n", "search", "TORCH=installed").stdout
    assert "-m venv --clear --system-site-packages .venv" in commands
    assert "sed '/^torch==/d' constraints.txt >.venv/constraints.txt" in commands
    assert "-c .venv/constraints.txt -e '.[dev]'" in commands


def test_an_environment_made_with_torch_installed_stays_so_without_saying_it_again(
    fresh_clone: Path,
) -> None:
    (fresh_clone / ".venv").mkdir()
    (fresh_clone / ".venv/pyvenv.cfg").write_text("include-system-site-packages = true\n")
    commands = make(fresh_clone, "-n", "search").stdout
    assert "-c .venv/constraints.txt -e '.[dev]'" in commands
    assert "-m venv" not in commands


def test_an_environment_of_the_other_kind_is_made_anew(fresh_clone: Path) -> None:
    (fresh_clone / ".venv").mkdir()
    (fresh_clone / ".venv/pyvenv.cfg").write_text("include-system-site-packages = false\n")
    commands = make(fresh_clone, "-n", "search", "TORCH=installed").stdout
    assert "-m venv --clear --system-site-packages .venv" in commands


def test_an_unknown_torch_is_refused_with_the_known_ones(fresh_clone: Path) -> None:
    refusal = make(fresh_clone, "search", "TORCH=cuda")
    assert refusal.returncode != 0
    assert "TORCH must be pinned or installed: got TORCH=cuda" in refusal.stderr


def test_a_python_that_is_not_there_is_refused_by_name(fresh_clone: Path) -> None:
    refusal = make(fresh_clone, "search", "PYTHON=python-of-nobody")
    assert refusal.returncode != 0
    assert "got PYTHON=python-of-nobody" in refusal.stderr


@pytest.mark.parametrize("version", [(3, 10), (3, 15)], ids=["too old", "too new"])
def test_a_python_outside_the_range_is_refused_with_its_version(
    fresh_clone: Path, version: tuple[int, int]
) -> None:
    refusal = make(fresh_clone, "search", f"PYTHON={python_of_version(fresh_clone, version)}")
    assert refusal.returncode != 0
    assert "Python from 3.11 up to, not including, 3.15 is needed" in refusal.stderr
    assert f"got {version[0]}.{version[1]} " in refusal.stderr
    assert not (fresh_clone / ".venv").exists()


@pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="needs to run in a virtual environment")
def test_torch_installed_refuses_a_virtual_environment_whose_torch_it_could_not_see(
    fresh_clone: Path,
) -> None:
    refusal = make(fresh_clone, "search", "TORCH=installed", f"PYTHON={sys.executable}")
    assert refusal.returncode != 0
    assert "needs a Python that is no virtual environment" in refusal.stderr
    assert not (fresh_clone / ".venv").exists()


def python_of_version(directory: Path, version: tuple[int, int]) -> Path:
    """This interpreter, giving itself out for another version to `python -c CODE`."""
    program = directory / "python"
    pretence = f"import sys; sys.version_info = {(*version, 0)}; exec(sys.argv.pop(1))"
    program.write_text(f'#!/bin/sh\nshift\nexec "{sys.executable}" -c "{pretence}" "$@"\n')
    program.chmod(0o755)
    return program
