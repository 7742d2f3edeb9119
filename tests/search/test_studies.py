"""Studies as things: listed, shown, exported and deleted, on real files and real stores."""

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from search.__main__ import app
from search.config import ConfigError, SearchConfig
from search.export import export_study
from search.kept_weights import KeptWeights
from search.leftovers import scratch_folder, unused_leftovers
from search.lock import StudyLockedError, is_locked, locked
from search.openings import kept_file, note_opening, num_openings
from search.places import config_of_study, latest_study
from search.projection import StudyFacts
from search.record import TrialState
from search.removal import plan_cleaning, remove_study
from search.stored_studies import UnknownStudyError, read_study
from search.studies import overview, overviews, print_study, print_trial, size_in_words
from search.study import Study

MakeFacts = Callable[..., StudyFacts]
OpenStudy = Callable[..., Study]
DumpView = Callable[..., dict[str, dict[str, Any]]]
Shown = Callable[..., str]

DAY_SECONDS = 86400.0


@pytest.fixture
def home(played_study: Study, tmp_path: Path, make_facts: MakeFacts) -> Path:
    """A folder with a study `small` that was interrupted, and weights of its trial 6."""
    begin(played_study, tmp_path, make_facts())
    KeptWeights(tmp_path / "studies" / "small").write(6, b"the weights of trial 6")
    return tmp_path


@pytest.fixture
def config(home: Path) -> SearchConfig:
    return SearchConfig(study="small", home=str(home))


def begin(study: Study, home: Path, facts: StudyFacts, **settings: Any) -> None:
    """Note what a search notes when it begins."""
    config = SearchConfig(study=study.name, home=str(home), **settings)
    study.note("config", config.model_dump_json())
    study.note("facts", asdict(facts))


@pytest.fixture
def shown() -> Shown:
    """What a function prints onto a console."""

    def show(function: Callable[..., None], *arguments: Any) -> str:
        console = Console(width=140, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
        with console.file:
            function(*arguments, console)
        return console.export_text()

    return show


@pytest.fixture
def dead_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def invoke(*words: str, home: Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*words, "--home", str(home)])
    return done.exit_code, done.output


# Listing and showing


def test_a_study_is_listed_with_data_state_best_and_bytes(config: SearchConfig) -> None:
    found = overview(config, "small")
    assert (found.data, found.state, found.verdict) == ("small", "interrupted", "-")
    assert (found.num_counted, found.num_asked) == (5, 100)
    assert found.best == pytest.approx(0.29)
    files = [p for p in (config.studies_folder).rglob("*") if p.is_file() and "lock" not in p.name]
    assert found.num_bytes == sum(path.stat().st_size for path in files)


def test_the_list_names_every_study_and_the_one_that_cannot_be_read(
    home: Path, config: SearchConfig
) -> None:
    (config.studies_folder / "torn.db").write_bytes(b"no database at all" * 100)
    code, output = invoke("studies", "list", home=home)
    assert code == 0
    lines = {line.split()[0]: line for line in output.splitlines()}
    assert lines.keys() == {"study", "small", "torn"}
    assert "MAE 0.2900" in lines["small"]
    assert "unreadable" in lines["torn"]


def test_a_folder_without_a_study_stays_without_any_file(tmp_path: Path) -> None:
    none = tmp_path / "no ne"
    code, output = invoke("studies", "list", home=none)
    assert (code, output[:8]) == (0, "no study")
    begins = f"begin one: python -m search.run --home '{none}'"
    assert begins in output
    assert begins in invoke("studies", "show", home=none)[1]
    assert invoke("studies", "show", "it", home=none)[0] == 2
    assert not none.exists()


def test_a_study_that_is_being_searched_is_shown_with_its_process(
    config: SearchConfig, shown: Shown
) -> None:
    with locked(config.studies_folder / "small.lock", "small"):
        assert overview(config, "small").state == "searching"
        assert f"searching (process {os.getpid()} on " in shown(print_study, config)
    assert overview(config, "small").state == "interrupted"


def test_a_study_is_shown_with_trials_data_places_and_how_to_go_on(
    config: SearchConfig, home: Path, shown: Shown
) -> None:
    page = shown(print_study, config)
    for part in ("3 complete", "1 pruned", "1 failed", "120 rows", "small.csv", "0.2900"):
        assert part in page
    assert f"{home / 'studies' / 'small.db'}" in page
    assert f"--resume small --home {home}" in page


def test_a_failed_trial_is_shown_with_reason_traceback_and_the_command_that_replays_it(
    config: SearchConfig, home: Path, shown: Shown
) -> None:
    page = shown(print_trial, config, 3)
    assert "failed" in page.splitlines()[0]
    assert "reason    OSError: the disk is full" in page
    assert "Traceback:\n  ...\nOSError: the disk is full" in page
    assert f"replay    python -m search replay small 3 --home {home}" in page
    assert "learning_rate:" in page


def test_an_unknown_trial_or_study_is_answered_with_those_that_there_are(home: Path) -> None:
    code, output = invoke("studies", "show", "small", "--trial", "70", home=home)
    assert (code, "has the trials 0 to 6: got 70" in output) == (2, True)
    code, output = invoke("studies", "show", "smal", home=home)
    assert (code, "known are small" in output) == (2, True)


def test_reading_a_killed_search_does_not_make_it_the_latest(
    home: Path, config: SearchConfig, empty_record: Path
) -> None:
    # `small` is open and has words in its journal that nobody has put into the file.
    assert (config.studies_folder / "small.db-wal").stat().st_size > 0
    later = config.studies_folder / "later.db"
    shutil.copy(empty_record, later)
    os.utime(later, (time.time() + 60, time.time() + 60))
    killed = shutil.copytree(config.studies_folder, home / "copy" / "studies")
    read_study(f"sqlite:///{killed / 'small.db'}", "small")
    os.utime(killed / "later.db", (time.time() + 60, time.time() + 60))
    before = (killed / "small.db").stat().st_mtime_ns
    read_study(f"sqlite:///{killed / 'small.db'}", "small")
    assert (killed / "small.db").stat().st_mtime_ns == before
    assert latest_study(SearchConfig(home=str(home / "copy"))) == "later"


@pytest.mark.parametrize(
    ("num_bytes", "words"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e9, "2.5 GB")]
)
def test_sizes_are_shown_in_words(num_bytes: float, words: str) -> None:
    assert size_in_words(num_bytes) == words


# Where everything lies


def test_the_home_is_the_flags_then_the_environments_then_mlruns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LSTM_SEARCH_HOME", raising=False)
    assert SearchConfig().home_folder == tmp_path / "mlruns"
    monkeypatch.setenv("LSTM_SEARCH_HOME", "elsewhere")
    assert SearchConfig().studies_folder == tmp_path / "elsewhere" / "studies"
    assert SearchConfig(home="given").home_folder == tmp_path / "given"


def test_a_study_is_found_by_the_environment_wherever_it_was_recorded(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    moved = tmp_path_factory.mktemp("moved")
    shutil.copytree(home / "studies", moved / "studies")
    monkeypatch.setenv("LSTM_SEARCH_HOME", str(moved))
    assert config_of_study("latest", None, None).home_folder == moved
    done = CliRunner().invoke(app, ["studies", "show"])
    assert str(moved / "studies" / "small.db") in done.output


# Deleting


def test_a_deleted_study_leaves_no_file_and_others_whole(
    home: Path, config: SearchConfig, open_small_study: OpenStudy
) -> None:
    other = config.studies_folder / "small.other.db"
    open_small_study(other, name="small.other")
    removed = remove_study(config, "small")
    assert removed.num_bytes > 100_000
    left = {path.name.partition(".db")[0] for path in config.studies_folder.iterdir()}
    assert left == {"small.other"}
    assert read_study(f"sqlite:///{other}", "small.other")[1] == []


def test_a_study_whose_openings_cannot_be_kept_keeps_its_record(
    home: Path, config: SearchConfig
) -> None:
    note_opening(config, "part", winner=3)
    kept_file(config).mkdir()  # so that it cannot be written, not even by root
    code, output = invoke("studies", "delete", "small", "--yes", home=home)
    assert code == 2
    assert "must outlive it" in output
    assert "Is a directory" in output
    kept_file(config).rmdir()
    assert num_openings(config, "part") == 1
    assert invoke("studies", "delete", "small", "--yes", home=home)[0] == 0
    assert num_openings(config, "part") == 1


def test_a_cleaning_keeps_what_a_study_has_opened(home: Path, config: SearchConfig) -> None:
    note_opening(config, "part", winner=3)
    assert invoke("studies", "clean", "--older-than", "1s", "--dry-run", home=home)[0] == 0
    remove_study(config, plan_cleaning(config, older_than_seconds=0).studies[0].name)
    assert overviews(config) == []
    assert num_openings(config, "part") == 1


def test_a_link_in_the_place_of_the_weights_is_deleted_and_not_what_it_leads_to(
    home: Path, config: SearchConfig
) -> None:
    folder, treasure = config.studies_folder / "small", home / "treasure"
    folder.rename(treasure)
    folder.symlink_to(treasure)
    remove_study(config, "small")
    assert not folder.is_symlink()
    assert [path.name for path in treasure.iterdir()] == ["006.safetensors"]


@pytest.mark.parametrize("name", ["../small", "/etc/passwd", "..", "a/b"])
def test_what_is_no_name_of_a_study_is_refused(name: str, home: Path) -> None:
    code, output = invoke("studies", "delete", name, "--yes", home=home)
    assert (code, "error: study" in output) == (2, True)
    assert (home / "studies" / "small.db").exists()


def test_a_study_that_is_being_searched_is_not_deleted(home: Path, config: SearchConfig) -> None:
    with locked(config.studies_folder / "small.lock", "small"):
        code, output = invoke("studies", "delete", "small", "--yes", home=home)
        cleaning = plan_cleaning(config, 1e-9)
    assert (code, f"process {os.getpid()} on" in output) == (2, True)
    assert (cleaning.studies, cleaning.kept[0][0]) == ((), "small")
    assert (config.studies_folder / "small.db").exists()


def test_finalists_are_never_cleaned_away_and_go_with_their_study_alone(
    config: SearchConfig, open_small_study: OpenStudy
) -> None:
    open_small_study(config.studies_folder / "small.finalists.db", name="small.finalists")
    cleaning = plan_cleaning(config, older_than_seconds=0)
    assert cleaning.studies == ()
    assert dict(cleaning.kept)["small"] == "its finalists are kept until it is deleted by name"
    with pytest.raises(
        ConfigError,
        match=r"small\.finalists is kept: it holds finalists and goes with its study, small",
    ):
        remove_study(config, "small.finalists")
    assert (config.studies_folder / "small.finalists.db").exists()
    remove_study(config, "small")
    assert not list(config.studies_folder.glob("small*.db"))


def test_without_a_terminal_nothing_is_deleted_unless_yes_is_said(home: Path) -> None:
    for words in (["studies", "delete", "small"], ["studies", "clean", "--older-than", "1s"]):
        code, output = invoke(*words, home=home)
        assert (code, "add --yes" in output) == (2, True)
    assert (home / "studies" / "small.db").exists()
    code, output = invoke("studies", "delete", "small", "--yes", home=home)
    assert (code, "freed " in output) == (0, True)
    assert not (home / "studies" / "small.db").exists()


def test_a_cleaning_takes_what_is_older_than_a_month_or_than_is_said(
    home: Path, config: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plan_cleaning(config, 30 * DAY_SECONDS).studies == ()
    later = time.time() + 31 * DAY_SECONDS
    monkeypatch.setattr("search.removal.time.time", lambda: later)
    assert [study.name for study in plan_cleaning(config, 30 * DAY_SECONDS).studies] == ["small"]
    code, output = invoke("studies", "clean", "--dry-run", home=home)
    assert (code, "to delete small, last heard of" in output) == (0, True)
    assert (home / "studies" / "small.db").exists()
    assert invoke("studies", "clean", "--yes", home=home)[0] == 0
    assert not (home / "studies" / "small.db").exists()


def test_a_record_that_cannot_be_read_is_kept_and_its_files_are_named(
    home: Path, config: SearchConfig
) -> None:
    torn = config.studies_folder / "torn.db"
    torn.write_bytes(b"no database at all" * 100)
    code, output = invoke("studies", "clean", "--older-than", "365d", "--yes", home=home)
    assert (code, f"delete its files yourself: {torn}" in output) == (0, True)
    assert torn.exists()


def test_a_lock_whose_file_was_deleted_under_it_is_held_by_nobody(tmp_path: Path) -> None:
    path = tmp_path / "small.lock"
    with locked(path, "small"):
        assert is_locked(path)
        with pytest.raises(StudyLockedError, match="is searching small"), locked(path, "small"):
            pass
        path.unlink()
        with locked(path, "small"):
            assert is_locked(path)


def test_a_record_in_a_database_loses_that_study_alone(
    tmp_path: Path, open_small_study: OpenStudy, make_facts: MakeFacts
) -> None:
    file, url = tmp_path / "shared.db", f"sqlite:///{tmp_path / 'shared.db'}"
    for name in ("one", "two"):
        begin(open_small_study(file, name=name), tmp_path, make_facts(name=name), storage=url)
    remove_study(SearchConfig(home=str(tmp_path), storage=url), "one")
    with pytest.raises(UnknownStudyError, match="no study is named one"):
        read_study(url, "one")
    assert read_study(url, "two")[1] == []


# What Ray leaves


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def session(folder: Path, process: int) -> Path:
    path = folder / "ray" / f"session_2026-01-02_03-04-05_678901_{process}"
    path.mkdir(parents=True)
    (path / "raylet.out").write_text("words")
    return path


def test_a_session_whose_process_has_ended_is_unused(temporary: Path, dead_process: int) -> None:
    gone, alive = session(temporary, dead_process), session(temporary, os.getpid())
    assert unused_leftovers([str(gone), str(alive)]) == [gone]


def test_a_session_with_an_open_file_is_in_use(temporary: Path, dead_process: int) -> None:
    path = session(temporary, dead_process)
    with (path / "raylet.out").open():
        assert unused_leftovers([str(path)]) == []
    assert unused_leftovers([str(path)]) == [path]


def test_a_scratch_folder_is_unused_when_its_process_has_ended(
    temporary: Path, dead_process: int
) -> None:
    left = temporary / f"lstm-search-{dead_process}-abc"
    nameless = temporary / "lstm-search-abc"
    left.mkdir()
    nameless.mkdir()
    with scratch_folder():
        assert unused_leftovers([]) == [left]


def test_a_recorded_path_that_is_no_session_of_ray_is_left_alone(
    temporary: Path, dead_process: int, tmp_path: Path
) -> None:
    elsewhere, target = session(tmp_path, dead_process), tmp_path / "target"
    target.mkdir()
    link = temporary / "ray" / elsewhere.name
    link.parent.mkdir()
    link.symlink_to(target)
    assert unused_leftovers([str(elsewhere), str(target), str(link), "/", str(Path.home())]) == []


# Exporting


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_export_holds_trials_evaluations_configuration_and_weights(
    config: SearchConfig, tmp_path: Path
) -> None:
    export_study(config, tmp_path / "out")
    _, trials = read_study(f"sqlite:///{config.studies_folder / 'small.db'}", "small")
    table = rows(tmp_path / "out" / "trials.csv")
    assert [int(row["trial"]) for row in table] == [t.number for t in trials if t.config]
    assert table[3]["reason"] == "OSError: the disk is full"
    ran = [t for t in trials if t.state is not TrialState.REJECTED]
    expected = sum(len(t.evaluations) + (t.final is not None) for t in ran)
    assert len(rows(tmp_path / "out" / "evaluations.csv")) == expected
    assert json.loads((tmp_path / "out" / "study.json").read_text())["data_name"] == "small"
    weights = tmp_path / "out" / "weights" / "006.safetensors"
    assert weights.read_bytes() == b"the weights of trial 6"


def test_an_archive_holds_the_same_files(config: SearchConfig, tmp_path: Path) -> None:
    written = export_study(config, tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        files = {name for name in archive.namelist() if not name.endswith("/")}
    assert files == {f"out/{path.as_posix()}" for path in written}
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".export")] == []


def test_what_is_there_already_is_not_overwritten(config: SearchConfig, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for to in (tmp_path / "out", tmp_path / "none" / "out"):
        with pytest.raises(ConfigError, match=r"--to names a new folder or \.zip file"):
            export_study(config, to)


def test_an_export_holds_no_formula_and_no_password(
    home: Path, played_study: Study, make_facts: MakeFacts, config: SearchConfig
) -> None:
    tracking = {"uri": "http://me:secret@mlflow"}
    begin(played_study, home, make_facts(), tracking=tracking)
    played_study.fail(4, "=HYPERLINK(0)", "Traceback: none")
    export_study(config_of_study("small", str(home), None), home / "out")
    assert rows(home / "out" / "trials.csv")[4]["reason"] == "'=HYPERLINK(0)"
    texts = [p.read_text() for p in (home / "out").iterdir() if p.is_file()]
    assert not any("secret" in text for text in texts)


# With a view


@pytest.fixture
def two_studies(
    home: Path, view_store: str, make_facts: MakeFacts, open_small_study: OpenStudy
) -> str:
    """`small` and `other` in records and view; the URI of the view."""
    from search.sync import sync_study

    other = open_small_study(home / "studies" / "other.db", name="other")
    begin(other, home, make_facts(name="other", uid="1" * 32))
    for name in ("small", "other"):
        sync_study(name, str(home))
    return view_store


@pytest.mark.slow
def test_runs_and_artifacts_go_with_their_study_for_good_and_those_of_others_stay(
    two_studies: str, home: Path, config: SearchConfig, dump_view: DumpView
) -> None:
    before = dump_view(two_studies)
    removed = remove_study(config, "small")
    after = dump_view(two_studies)
    assert set(after) == {"other", "experiment"}
    assert after["other"] == before["other"]
    assert list(after["experiment"]["tags"]) == [
        tag for tag in before["experiment"]["tags"] if tag != "mlflow.sharedViewState.small"
    ]
    assert removed.num_runs == len(before) - len(after)
    assert len(list((home / "artifacts").iterdir())) == 1
    with closing(sqlite3.connect(home / "mlflow.db")) as store:
        assert store.execute("SELECT value FROM tags WHERE key = 'study'").fetchall() == [
            ("other",)
        ]
        assert store.execute("PRAGMA freelist_count").fetchone() == (0,)


@pytest.mark.slow
def test_a_study_of_which_a_registered_model_needs_a_run_is_kept(
    two_studies: str, home: Path, config: SearchConfig, dump_view: DumpView
) -> None:
    from mlflow import MlflowClient

    client, before = MlflowClient(two_studies), dump_view(two_studies)
    [run] = client.search_runs(["1"], "tags.study = 'small' and tags.trial = '6'")
    client.create_registered_model("load")
    version = client.create_model_version("load", f"{run.info.artifact_uri}/model", run.info.run_id)
    code, output = invoke("studies", "delete", "small", "--yes", home=home)
    assert (code, "a registered model needs it: load v1" in output) == (2, True)
    later = time.time() + DAY_SECONDS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("search.removal.time.time", lambda: later)
        cleaning = plan_cleaning(config, 3600)
    assert [name for name, _ in cleaning.kept] == ["small"]
    assert [study.name for study in cleaning.studies] == ["other"]
    assert dump_view(two_studies) == before
    client.delete_model_version("load", version.version)
    assert remove_study(config, "small").num_runs > 0


@pytest.mark.slow
def test_runs_on_a_server_are_marked_and_its_own_gc_is_named(
    home: Path,
    played_study: Study,
    mlflow_server: Any,
    make_facts: MakeFacts,
    config: SearchConfig,
    dump_view: DumpView,
) -> None:
    from search.sync import sync_study

    settings = {"uri": mlflow_server.uri, "experiment": "studies"}
    begin(played_study, home, make_facts(uid="2" * 32), tracking=settings)
    sync_study("small", str(home))
    assert len(dump_view(mlflow_server.store_uri, "studies")) > 2
    removed = remove_study(config, "small")
    assert set(dump_view(mlflow_server.store_uri, "studies")) == {"experiment"}
    assert "`mlflow gc` beside that server frees" in removed.notes[0]


@pytest.mark.slow
def test_a_server_that_is_down_keeps_a_study_from_being_deleted(
    home: Path,
    played_study: Study,
    make_facts: MakeFacts,
    free_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    begin(played_study, home, make_facts(), tracking={"uri": f"http://127.0.0.1:{free_port}"})
    code, output = invoke("studies", "delete", "small", "--yes", home=home)
    assert (code, "MLflow must answer before a study is deleted" in output) == (2, True)
    assert (home / "studies" / "small.db").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_hundred_trials_take_a_few_megabytes(
    tmp_path: Path,
    view_store: str,
    open_small_study: OpenStudy,
    make_facts: MakeFacts,
    make_evaluation: Callable[..., Any],
    closing_connections: Callable[[], AbstractContextManager[None]],
) -> None:
    from search.sync import sync_study

    folder, weights = tmp_path / "studies", bytes(100_000)
    folder.mkdir()
    kept = KeptWeights(folder / "long")
    with closing_connections():
        study = open_small_study(folder / "long.db", name="long", sampler="random", pruner="none")
        begin(study, tmp_path, make_facts(name="long"))
        for place in range(200):
            proposal = study.ask()
            assert proposal is not None
            study.started(proposal.number)
            for step in (100, 200, 300):
                value = 0.5 - place / 1000 - step / 10_000
                study.report(proposal.number, make_evaluation(value, step=step))
            study.complete(proposal.number)
            if place >= 170:  # the best, for each is better than those before it
                kept.write(proposal.number, weights)
                kept.keep_only(study.best_numbers(20))
        study.note("state", "done")
        sync_study("long", str(tmp_path))
    record = sum(path.stat().st_size for path in folder.glob("long.db*"))
    view = sum(path.stat().st_size for path in tmp_path.glob("mlflow.db*"))
    artifacts = sum(p.stat().st_size for p in (tmp_path / "artifacts").rglob("*") if p.is_file())
    assert sum(path.stat().st_size for path in (folder / "long").iterdir()) == 20 * len(weights)
    assert record < 8_000_000
    assert view < 16_000_000
    assert artifacts < 20 * len(weights) + 500_000
