"""Disks that are full, read-only or not there: a clear error, the record whole, and on it goes."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
import sqlalchemy

from pipelines.splits import SearchData
from pipelines.training_config import TrainingBudget
from pipelines.weights import forecaster_from_bytes
from search.cluster import machines
from search.config import Resources, SearchSettings
from search.executor import run_trials
from search.kept_weights import KeptWeights
from search.limits import Limits
from search.record import Ending, TrialRecord, TrialState
from search.slots import plan_slots
from search.space import Space
from search.stored_studies import read_study
from search.study import Study, open_study
from search.trial_actor import TrialJob
from search.unwritable import UnwritableError, writing_explained

DISK_BYTES = 2 << 20
BUDGET = TrainingBudget(max_steps=20, evaluate_every_steps=10, precision="float32")
NARROW: dict[str, Any] = {
    "num_layers": 1,
    "hidden_size": {"low": 4, "high": 30},
    "lookback": 12,
    "batch_size": 8,
}


@pytest.fixture
def small_disk(tmp_path: Path, left_out: Callable[[str], NoReturn]) -> Iterator[Path]:
    """A folder on a file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        left_out(f"needs the right to mount a small disk: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # databases may still be open


class FillsTheDisk:
    """A listener that leaves no room on a disk after some evaluations."""

    def __init__(self, disk: Path, num_evaluations: int):
        self._filler = disk / "filler"
        self._num_left = num_evaluations

    def on_evaluation(self, trial: TrialRecord) -> None:
        self._num_left -= 1
        if self._num_left == 0:
            with suppress(OSError), self._filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(512))

    def on_start(self, trial: TrialRecord) -> None: ...
    def on_retry(self, trial: TrialRecord) -> None: ...
    def on_end(self, trial: TrialRecord) -> None: ...
    def on_baseline(self, baseline: Any) -> None: ...
    def on_baselines_missed(self, reason: str) -> None: ...


@pytest.mark.slow
@pytest.mark.parametrize("what", ["record", "weights"])
def test_a_full_disk_ends_the_search_with_a_reason_and_with_room_it_goes_on(
    local_ray: None,
    small_disk: Path,
    tmp_path: Path,
    make_data: Callable[..., SearchData],
    make_space: Callable[..., Space],
    what: str,
) -> None:
    data, space, num_trials = make_data(), make_space(**NARROW), 6
    record = (small_disk if what == "record" else tmp_path) / "record.db"
    kept = KeptWeights((small_disk if what == "weights" else tmp_path) / "kept")

    def search(listener: Any) -> Ending:
        resources = Resources(max_concurrent=1)
        job = TrialJob((data,), "mae", plan_slots(resources, "cpu", machines()), 0.0)
        study = open_it(record, data, space, num_trials)
        arguments = (study, job, resources, BUDGET, kept, [listener])
        return run_trials(*arguments, has_baselines=False)

    with (
        pytest.raises(UnwritableError, match=r"able to write its record: .*(full|space)"),
        writing_explained(small_disk),
    ):
        search(FillsTheDisk(small_disk, num_evaluations=5))
    before = read_study(f"sqlite:///{record}", "study")[1]
    ended = [trial for trial in before if trial.state.counts]
    assert 2 <= len(ended) < num_trials

    (small_disk / "filler").unlink()
    assert search(FillsTheDisk(small_disk, num_evaluations=1000)) is Ending.DONE
    after = read_study(f"sqlite:///{record}", "study")[1]
    assert sum(trial.state.counts for trial in after) == num_trials
    assert [after[trial.number] for trial in ended] == ended
    for trial in after:
        if trial.state is TrialState.COMPLETE:
            forecaster_from_bytes(kept.path(trial.number).read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("place", ["a read-only disk", "a file in the way"])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_starts(
    small_disk: Path, tmp_path: Path, place: str
) -> None:
    if place == "a read-only disk":
        home, reason = small_disk / "runs", "Read-only file system"
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    else:
        home, reason = tmp_path / "file" / "runs", "Not a directory"
        home.parent.write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "search.run", "--trials", "1", "--home", home],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: a search must be able to write its record: {reason}: ")
    assert "choose another --home" in line


def test_what_is_missing_on_the_way_to_the_home_is_named(tmp_path: Path) -> None:
    home = tmp_path / "file" / "runs"
    home.parent.write_text("")
    with pytest.raises(UnwritableError, match=r"Not a directory: .*/file"), writing_explained(home):
        home.mkdir()


def test_errors_of_other_files_and_other_kinds_are_left_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), writing_explained(tmp_path / "home"):
        (tmp_path / "table.csv").read_text()
    with pytest.raises(ConnectionError), writing_explained(tmp_path):
        raise ConnectionError("no cluster")


def test_an_error_is_explained_however_it_was_wrapped(tmp_path: Path) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/no/such/folder/record.db")

    def search() -> None:
        try:
            engine.connect()
        except sqlalchemy.exc.OperationalError:
            raise RuntimeError("the loop broke")  # noqa: B904 - as Ray Tune does

    with (
        pytest.raises(UnwritableError, match="unable to open database"),
        writing_explained(tmp_path),
    ):
        search()


def open_it(file: Path, data: SearchData, space: Space, num_trials: int) -> Study:
    search = SearchSettings(trials=num_trials, pruner="none", num_startup_trials=20)
    identity = {"data": data.fingerprint, "metric": search.metric}
    limits = Limits(data, search.max_parameters, None)
    return open_study(f"sqlite:///{file}", "study", identity, space, BUDGET, search, limits)
