"""How often a test part has been opened: each look at it makes the next verdict less honest.

A look cannot be taken back, so an opening outlives its study: what a deleted one has opened stays
in a file of the home.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from search.config import SearchConfig
from search.places import known_studies, record_url
from search.stored_studies import UnknownStudyError, note_on_study, read_notes

OPENINGS = "openings"


def note_opening(config: SearchConfig, test_fingerprint: str, winner: int) -> int:
    """Record that a study opens a test part, before it does so.

    Returns:
        How often that part was opened by any study of the storage, this time included.
    """
    assert config.study is not None
    own_url = record_url(config, config.study)
    own = read_notes(own_url, config.study).get(OPENINGS, [])
    opening = {"time": time.time(), "test": test_fingerprint, "winner": winner}
    note_on_study(own_url, config.study, OPENINGS, [*own, opening])
    return num_openings(config, test_fingerprint)


def num_openings(config: SearchConfig, test_fingerprint: str) -> int:
    """How often a test part was opened by any study of the storage, or by one deleted here."""
    # As a set: a study whose deletion was cut off has its openings in its record and in the file.
    looks = {
        (study, opening["time"])
        for study, opening in (*_recorded(config), *_kept(kept_file(config)))
        if opening["test"] == test_fingerprint
    }
    return len(looks)


def keep_openings(config: SearchConfig, study: str) -> None:
    """Write what a study has opened where it outlives the study.

    Raises:
        OSError: where it cannot be written; the study must then stay.
    """
    openings = read_notes(record_url(config, study), study).get(OPENINGS, [])
    if not openings:
        return
    lines = [json.dumps({"study": study} | opening) for opening in openings]
    file = kept_file(config)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as kept:
        # Appended in one write, so that two deletions at a time lose nothing. The first line end
        # closes a line that a full disk has cut off.
        kept.write("\n" + "\n".join(lines) + "\n")
        kept.flush()
        os.fsync(kept.fileno())


def kept_file(config: SearchConfig) -> Path:
    """Where the openings of deleted studies are: one a line, as JSON."""
    return config.studies_folder / "openings_of_deleted_studies.jsonl"


def _recorded(config: SearchConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    for study in known_studies(config):
        try:
            openings = read_notes(record_url(config, study), study).get(OPENINGS, [])
        except UnknownStudyError:
            continue  # broken: what it opened cannot be known
        yield from ((study, opening) for opening in openings)


def _kept(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not file.is_file():
        return
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            opening = json.loads(line)
            yield str(opening["study"]), {"time": float(opening["time"]), "test": opening["test"]}
        except (ValueError, TypeError, KeyError):
            continue  # empty, cut off or overwritten: the other lines count
