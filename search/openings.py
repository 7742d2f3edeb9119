"""How often a test part has been opened: each look at it makes the next verdict less honest."""

import time

from search.config import SearchConfig
from search.places import known_studies, record_url
from search.study import UnknownStudyError, note_on_study, read_notes

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
    """How often a test part was opened by any study of the storage."""
    count = 0
    for name in known_studies(config):
        try:
            openings = read_notes(record_url(config, name), name).get(OPENINGS, [])
        except UnknownStudyError:
            continue  # broken: what it opened cannot be known
        count += sum(opening["test"] == test_fingerprint for opening in openings)
    return count
