"""`python -m search sync`: MLflow brought to what the record says."""

from dataclasses import replace

from search.config import ConfigError, SearchConfig
from search.kept_weights import KeptWeights
from search.lock import StudyLockedError, locked
from search.places import (
    config_of_study,
    experiment_name,
    lock_file,
    record_url,
    tracking_uri,
    trials_page,
    weights_folder,
)
from search.projection import Snapshot, StudyFacts
from search.record import Ending, TrialRecord, TrialState, baseline_from_plain
from search.study import UnknownStudyError, read_study
from search.tracking import rebuild


def sync_study(study: str, home: str | None = None, storage: str | None = None) -> str:
    """Rebuild a study's runs; return a line that says where they are.

    Raises:
        ConfigError: while the study is searched: that search shows it by itself.
        UnknownStudyError: where there is no such study.
        ViewError: where MLflow cannot be reached or refuses.
    """
    config = config_of_study(study, home, storage)
    name = config.study
    assert name is not None
    try:
        with locked(lock_file(config, name), name):
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
        kept=KeptWeights(weights_folder(config, name)),
    )
    if "facts" not in notes:
        raise UnknownStudyError(f"study {name} was ended before it began: nothing is to be shown")
    baselines = [baseline_from_plain(plain) for plain in notes.get("baselines", [])]
    facts = StudyFacts(**notes["facts"])
    experiment = experiment_name(config)
    experiment_id = rebuild(tracking_uri(config), experiment, facts, snapshot, baselines)
    return sum(trial.state.counts for trial in trials), trials_page(config, experiment_id)


def _as_left(trial: TrialRecord) -> TrialRecord:
    """A trial that runs where nobody searches was left, and waits for a resume."""
    is_left = trial.state is TrialState.RUNNING
    return replace(trial, state=TrialState.WAITING) if is_left else trial
