"""Every look at a test part is counted, whichever study takes it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from search.config import SearchConfig
from search.openings import keep_openings, kept_file, note_opening, num_openings
from search.removal import remove_study
from search.study import Study
from tests.search.conftest import RecordAt

OpenStudy = Callable[..., Study]


@pytest.fixture(params=["a file each", "postgresql"])
def config(
    request: pytest.FixtureRequest, tmp_path: Path, record_at: RecordAt, study_in: OpenStudy
) -> SearchConfig:
    """Studies one and two, each in its own file or both in one database."""
    config = SearchConfig(study="one", home=str(tmp_path))
    config.studies_folder.mkdir(parents=True)
    if request.param == "postgresql":
        url = request.getfixturevalue("database_at")(tmp_path / "record")
        config = config.model_copy(update={"storage": url})
    for name in ("one", "two"):
        study_in(config.storage or record_at(config.studies_folder / f"{name}.db"), name)
    return config


def test_a_part_that_nobody_opened_counts_none(config: SearchConfig) -> None:
    assert num_openings(config, "part") == 0


def test_openings_by_any_study_of_the_storage_count(config: SearchConfig) -> None:
    other = config.model_copy(update={"study": "two"})
    assert note_opening(config, "part", winner=3) == 1
    assert note_opening(config, "part", winner=4) == 2
    assert note_opening(other, "part", winner=0) == 3


def test_another_part_is_counted_apart(config: SearchConfig) -> None:
    note_opening(config, "part", winner=3)
    assert note_opening(config, "another", winner=3) == 1
    assert num_openings(config, "part") == 1


def test_a_broken_record_does_not_hide_the_others(config: SearchConfig) -> None:
    note_opening(config, "part", winner=3)
    (config.studies_folder / "broken.db").write_bytes(b"no database")
    assert num_openings(config, "part") == 1


def test_openings_outlive_the_study_that_is_deleted(config: SearchConfig) -> None:
    note_opening(config, "part", winner=3)
    other = config.model_copy(update={"study": "two"})
    note_opening(other, "part", winner=0)
    remove_study(config, "one")
    assert num_openings(config, "part") == 2
    assert note_opening(other, "part", winner=1) == 3


def test_a_deletion_that_was_cut_short_counts_no_opening_twice(config: SearchConfig) -> None:
    note_opening(config, "part", winner=3)
    keep_openings(config, "one")
    with (config.studies_folder / "openings_of_deleted_studies.jsonl").open("a") as file:
        file.write('{"time": 17')
    assert num_openings(config, "part") == 1


def test_an_opening_that_is_kept_after_a_line_was_cut_off_counts(config: SearchConfig) -> None:
    note_opening(config, "part", winner=3)
    kept_file(config).write_bytes(b'{"study": "older", "ti\n\xff\xfe\n[1]\n{"time": 17')
    remove_study(config, "one")
    assert num_openings(config, "part") == 1
