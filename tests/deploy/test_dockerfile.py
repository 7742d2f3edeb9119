"""The image: what it copies is a whole project, and it holds neither root nor secrets."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    """Each instruction and what follows it, comments and broken lines undone."""
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines())]


def copied() -> list[str]:
    sources = [rest.split()[:-1] for word, rest in instructions() if word == "COPY"]
    return [source for line in sources for source in line]


@pytest.mark.slow
def test_what_the_image_copies_builds_a_wheel_that_resolves_a_search(tmp_path: Path) -> None:
    for source in copied():
        if (ROOT / source).is_dir():
            without = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / source, tmp_path / "context" / source, ignore=without)
        else:
            (tmp_path / "context").mkdir(exist_ok=True)
            shutil.copy(ROOT / source, tmp_path / "context")
    build = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps"]
    build += ["--no-build-isolation", f"--target={tmp_path / 'installed'}", "."]
    made = subprocess.run(build, cwd=tmp_path / "context", capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "installed" / "search" / "run.py").exists()
    environment = {k: v for k, v in os.environ.items() if k != "LSTM_SEARCH_HOME"}
    search = subprocess.run(
        [sys.executable, "-m", "search.run", "--dry-run", "--trials=3"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
    )
    assert search.returncode == 0, search.stderr
    assert "  trials: 3\n" in search.stdout


def test_the_builder_is_sent_what_the_image_copies_and_nothing_else() -> None:
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8")
    rules = [line for line in ignored.splitlines() if not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == set(copied())


def test_the_image_runs_as_the_user_of_the_pods_and_holds_no_secret() -> None:
    lines = instructions()
    last_user = [rest for word, rest in lines if word == "USER"][-1]
    assert last_user == "1000"
    assert "useradd --uid 1000" in next(rest for word, rest in lines if "useradd" in rest)
    for file in ("kuberay-job.yaml", "cron-job.yaml"):
        users = re.findall(r"runAsUser: (\d+)", (ROOT / "deploy" / file).read_text("utf-8"))
        assert set(users) == {last_user}
    settings = " ".join(rest for word, rest in lines if word in ("ARG", "ENV"))
    assert not re.search(r"PASSWORD|TOKEN|SECRET|_KEY", settings, re.IGNORECASE)


def test_the_image_installs_the_pinned_versions_and_what_jobs_and_databases_need() -> None:
    installs = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in install for install in installs)
    assert ".[cluster,postgresql]" in installs[1]
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in ("cluster", "postgresql"):
        assert f"\n{extra} = [" in declared
