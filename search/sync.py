"""`python -m search sync`: MLflow brought to what the record says."""

import json
import time
from pathlib import Path

from search.config import SearchConfig
from search.kept_weights import KeptWeights
from search.record import baseline_from_plain
from search.search import (
    experiment_name,
    latest_study,
    record_url,
    recorded_config,
    tracking_uri,
    trials_page,
)
from search.study import read_study
from search.tracking import Snapshot, StudyFacts, rebuild


def sync_study(study: str, home: str) -> str:
    """Rebuild a study's runs; return a line that says where they are.

    Raises:
        UnknownStudyError: where there is no such study.
    """
    folder = SearchConfig(home=home)
    name = latest_study(folder) if study == "latest" else study
    config = SearchConfig.model_validate_json(json.dumps(recorded_config(folder, name)))
    notes, trials = read_study(record_url(config, name), name)
    facts = StudyFacts(**notes["facts"])
    snapshot = Snapshot(
        trials,
        state=notes.get("state", "running"),
        taken_at=notes.get("ended_at", time.time()),
        kept=KeptWeights(Path(home).resolve() / "studies" / name),
    )
    baselines = [baseline_from_plain(plain) for plain in notes.get("baselines", [])]
    experiment_id = rebuild(
        tracking_uri(config), experiment_name(config), facts, snapshot, baselines
    )
    page = trials_page(config, experiment_id, "http://127.0.0.1:5000")
    return f"{name}: {len(trials)} trials are in MLflow: {page}"
