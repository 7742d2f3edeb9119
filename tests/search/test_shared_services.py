"""Four searches at the same time, on one PostgreSQL and one MLflow server."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from benchmarks.invariants import check_count, check_view, check_weights, search_data
from search.openings import OPENINGS
from search.places import config_of_study
from search.stored_studies import read_study

# Each of the four starts a Ray of its own; a busy machine may take minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
STUDIES = "north", "east", "south", "west"
NUM_TRIALS = 4
PATIENCE_SECONDS = 600
FLAGS = (
    f"--trials={NUM_TRIALS}",
    "--max-concurrent=1",
    "--device=cpu",
    "--precision=float32",
    "--set=training.max_steps=30",
    "--set=training.evaluate_every_steps=10",
    "--set=training.warmup_steps=0",
    "--set=final.finalists=1",
    "--set=final.seeds=2",
    "--set=search.use_default_starts=false",
    "--set=space.hidden_size={low: 4, high: 8}",
    "--set=space.num_layers=1",
    "--set=space.lookback=24",
)


@contextlib.contextmanager
def started(name: str, storage: str, server: str, folder: Path) -> Iterator[Any]:
    """A search as its user starts it, in a home of its own."""
    words = ["--study", name, "--storage", storage, "--home", str(folder / name), *FLAGS]
    with subprocess.Popen(
        [sys.executable, "-m", "search.run", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": server},
    ) as search:
        try:
            yield search
        finally:
            if search.poll() is None:
                search.send_signal(signal.SIGKILL)


def test_four_searches_at_once_lose_nothing(
    own_postgres: Any, stopped_server: Any, tmp_path: Path
) -> None:
    stopped_server.start()
    url = own_postgres.url()
    with contextlib.ExitStack() as running:
        searches = {
            name: running.enter_context(started(name, url, stopped_server.uri, tmp_path))
            for name in STUDIES
        }
        said = {name: s.communicate(timeout=PATIENCE_SECONDS)[0] for name, s in searches.items()}
    for name, search in searches.items():
        assert search.returncode == 0, said[name]
    looks = []
    for name in STUDIES:
        home = tmp_path / name
        if re.search(rf"search sync {name}\b", said[name]):  # the view was behind at the end
            sync = [sys.executable, "-m", "search", "sync", name, "--home", str(home)]
            subprocess.run([*sync, "--storage", url], cwd=ROOT, check=True, capture_output=True)
        notes, trials = read_study(url, name)
        looks += notes[OPENINGS]
        config = config_of_study(name, str(home), url)
        weights = home / "studies" / name
        assert check_count(trials, NUM_TRIALS, is_done=True) == []
        assert list(check_weights(weights, config, search_data(config), trials)) == []
        shown = stopped_server.folder / "mlflow.db"
        assert check_view(shown, notes["facts"]["uid"], trials) == []
    assert len({look["test"] for look in looks}) == 1
    assert len(looks) == len(STUDIES)
    client = MlflowClient(stopped_server.uri)
    [model] = client.search_registered_models()
    versions = client.search_model_versions(f"name='{model.name}'")
    assert sorted(int(version.version) for version in versions) == [1, 2, 3, 4]
