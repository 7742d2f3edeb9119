"""`python -m search sync`: MLflow brought to what the record says."""

from dataclasses import replace
from pathlib import Path

from pipelines.verdict import Verdict
from search.config import ConfigError, SearchConfig
from search.kept_weights import KeptWeights
from search.lock import StudyLockedError
from search.places import (
    config_of_study,
    experiment_name,
    record_url,
    study_locked,
    tracking_uri,
    trials_page,
    weights_folder,
)
from search.projection import Snapshot, StudyFacts
from search.record import Ending, TrialRecord, TrialState, baseline_from_plain
from search.stored_studies import UnknownStudyError, read_study
from search.tracking import ShownStudy, rebuild


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
        with study_locked(config, name):
            num_trials, shown = show_study(config)
    except StudyLockedError:
        raise ConfigError(
            f"study {name} is being searched, and that search keeps MLflow up to date: sync it "
            "when it has ended"
        ) from None
    page = trials_page(config, shown.experiment_id)
    return f"{name}: {num_trials} trials are in MLflow: {page}"


def show_study(config: SearchConfig, *, trusts_ended_runs: bool = False) -> tuple[int, ShownStudy]:
    """Bring MLflow to what the record says of a study that nobody searches.

    Returns:
        How many trials count, and where they are.

    Raises:
        ViewError: where MLflow cannot be reached or refuses.
    """
    name = config.study
    assert name is not None
    notes, recorded = read_study(record_url(config, name), name)
    trials = [_as_left(trial) for trial in recorded]
    was_left = any(trial.state is TrialState.RUNNING for trial in recorded)
    snapshot = Snapshot(
        trials,
        state=Ending.INTERRUPTED if was_left else notes.get("state", Ending.INTERRUPTED),
        kept=KeptWeights(weights_folder(config, name)),
        verdict=Verdict.model_validate_json(notes["verdict"]) if "verdict" in notes else None,
        pages=pages(weights_folder(config, name)),
    )
    if "facts" not in notes:
        raise UnknownStudyError(f"study {name} was ended before it began: nothing is to be shown")
    baselines = [baseline_from_plain(plain) for plain in notes.get("baselines", [])]
    facts = StudyFacts(**notes["facts"])
    shown = rebuild(
        tracking_uri(config),
        experiment_name(config),
        facts,
        snapshot,
        baselines,
        trusts_ended_runs=trusts_ended_runs,
    )
    return sum(trial.state.counts for trial in trials), shown


def pages(folder: Path) -> list[Path]:
    """The report of a study and its pictures, as far as they are there."""
    return [path for end in ("html", "png") for path in sorted(folder.glob(f"*.{end}"))]


def _as_left(trial: TrialRecord) -> TrialRecord:
    """A trial that runs where nobody searches was left, and waits for a resume."""
    is_left = trial.state is TrialState.RUNNING
    return replace(trial, state=TrialState.WAITING) if is_left else trial
