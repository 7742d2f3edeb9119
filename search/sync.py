"""`python -m search sync`: MLflow brought to what the record says."""

from dataclasses import replace

from search.config import ConfigError, SearchConfig, parse_config
from search.kept_weights import KeptWeights
from search.lock import StudyLockedError, locked
from search.places import (
    experiment_name,
    latest_study,
    record_url,
    recorded_config,
    tracking_uri,
    trials_page,
)
from search.projection import Snapshot, StudyFacts
from search.record import Ending, TrialRecord, TrialState, baseline_from_plain
from search.study import read_study
from search.tracking import rebuild


def sync_study(study: str, home: str, storage: str | None = None) -> str:
    """Rebuild a study's runs; return a line that says where they are.

    Raises:
        ConfigError: while the study is searched: that search shows it by itself.
        UnknownStudyError: where there is no such study.
        ViewError: where MLflow cannot be reached or refuses.
    """
    folder = SearchConfig(home=home, storage=storage)
    name = latest_study(folder) if study == "latest" else study
    # The folder and the storage may have moved since they were recorded.
    given = {"home": home, "storage": storage}
    config = parse_config(recorded_config(folder, name) | given)
    try:
        with locked(config.studies_folder / f"{name}.lock", name):
            num_trials, page = _rebuild(config, name)
    except StudyLockedError:
        raise ConfigError(
            f"study {name} is being searched, and that search keeps MLflow up to date: sync it "
            "when it has ended"
        ) from None
    return f"{name}: {num_trials} trials are in MLflow: {page}"


def _rebuild(config: SearchConfig, name: str) -> tuple[int, str]:
    notes, recorded = read_study(record_url(config, name), name)
    trials = [_as_left(trial) for trial in recorded]
    was_left = any(trial.state is TrialState.RUNNING for trial in recorded)
    snapshot = Snapshot(
        trials,
        state=Ending.INTERRUPTED if was_left else notes.get("state", Ending.INTERRUPTED),
        kept=KeptWeights(config.studies_folder / name),
    )
    baselines = [baseline_from_plain(plain) for plain in notes.get("baselines", [])]
    facts = StudyFacts(**notes["facts"])
    experiment = experiment_name(config)
    experiment_id = rebuild(tracking_uri(config), experiment, facts, snapshot, baselines)
    return sum(trial.state.counts for trial in trials), trials_page(config, experiment_id)


def _as_left(trial: TrialRecord) -> TrialRecord:
    """A trial that runs where nobody searches was left, and waits for a resume."""
    is_left = trial.state is TrialState.RUNNING
    return replace(trial, state=TrialState.WAITING) if is_left else trial
