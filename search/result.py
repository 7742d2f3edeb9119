"""What a search leaves in the hands of its caller."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipelines.scores import BaselineScore
from search.config import SearchConfig
from search.config_file import parse_config
from search.kept_weights import KeptWeights
from search.places import record_url, recorded_config
from search.record import Ending, TrialRecord, TrialState, baseline_from_plain, leaderboard
from search.space import TrialConfig
from search.stored_studies import read_study

if TYPE_CHECKING:
    from models.forecaster import Forecaster


@dataclass(frozen=True)
class SearchResult:
    """What a search leaves in the hands of its caller."""

    config: SearchConfig
    """As it was resolved: name, space, device and precision filled in."""
    ending: Ending
    trials: tuple[TrialRecord, ...]
    baselines: tuple[BaselineScore, ...]
    """The forecasts to beat, on the same validation windows."""
    mlflow_url: str | None
    """The page that shows the trials, on the server that `lstm-search ui` starts; None where the
    view is behind."""
    left_out: tuple[str, ...] = ()
    """Of a grid: the combinations that could not be trained, each with the reason."""

    @property
    def study(self) -> str:
        """The study's name."""
        assert self.config.study is not None
        return self.config.study

    @property
    def best_trial(self) -> TrialRecord | None:
        """The complete trial with the lowest value."""
        return next(iter(leaderboard(self.trials, 1)), None)

    @property
    def why_broken(self) -> str | None:
        """What went wrong, where the search gave up or has no complete trial; else None."""
        if self.ending is Ending.BROKEN:
            failed = [trial for trial in self.trials if trial.state is TrialState.FAILED]
            last = max(failed, key=lambda trial: trial.ended_at or 0.0)
            return f"trials failed one after another, at last {last.name}: {last.reason}"
        # An interrupted search may have no complete trial yet.
        if self.best_trial is None and self.ending is not Ending.INTERRUPTED:
            reasons = (trial.reason for trial in self.trials if trial.reason)
            return f"no trial is complete: {next(reasons, 'none was trained')}"
        return None

    @property
    def best_config(self) -> TrialConfig | None:
        """The configuration of the best trial."""
        return self.best_trial.config if self.best_trial else None

    @property
    def best_value(self) -> float | None:
        """The search's metric of the best trial, on the validation part."""
        return self.best_trial.value if self.best_trial else None

    def trials_dataframe(self) -> pd.DataFrame:
        """One row a trial, rejected ones left out: number, state, value, reason, parameters."""
        return pd.DataFrame(
            [
                {"number": t.number, "state": str(t.state), "value": t.value, "reason": t.reason}
                | t.params
                for t in self.trials
                if t.config is not None
            ]
        )

    def load_best(self) -> "Forecaster":
        """The best trial's model with its weights, on the CPU.

        Raises:
            LookupError: where no trial is complete or its weights are gone.
        """
        from pipelines.weights import forecaster_from_file

        kept = KeptWeights(self.config.studies_folder / self.study)
        if self.best_trial is None or not kept.path(self.best_trial.number).exists():
            raise LookupError(f"study {self.study} has no complete trial with weights")
        return forecaster_from_file(kept.path(self.best_trial.number))


def load_result(study: str = "latest", home: str | None = None) -> SearchResult:
    """The result of a search that ran before, from its record.

    Raises:
        UnknownStudyError: where there is no such study.
    """
    tree = recorded_config(SearchConfig(home=home), study)
    return result_of(parse_config(tree | {"home": home}))


def result_of(config: SearchConfig) -> SearchResult:
    """What the record holds of a study.

    Args:
        config: of the study, its name and place in it.

    Raises:
        UnknownStudyError: where there is no such study.
    """
    assert config.study is not None
    notes, trials = read_study(record_url(config, config.study), config.study)
    ending = Ending(notes.get("state", Ending.INTERRUPTED))
    return SearchResult(
        config, ending, tuple(trials), recorded_baselines(notes), notes.get("mlflow_url")
    )


def recorded_baselines(notes: Mapping[str, Any]) -> tuple[BaselineScore, ...]:
    """The baselines in the notes of a study; none where they are not computed yet."""
    return tuple(baseline_from_plain(plain) for plain in notes.get("baselines", []))
