"""What `python -m search.run` came to, as JSON for other programs: docs/cluster.md.

Neither URLs of databases nor log-ins are in it: it goes to chats and files that others read.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from models.config import Settings
from pipelines.printable import printable
from pipelines.verdict import Verdict
from search.config import Metric, SearchConfig
from search.names import is_template

if TYPE_CHECKING:
    from search.conclusion import Conclusion
    from search.result import SearchResult

SCHEMA_VERSION = 1
"""Grows when a field changes its meaning or goes; new fields may come without."""

EXIT_BROKEN = 1
EXIT_REFUSED = 2  # as of all wrong usage
EXIT_NOT_PASSED = 4
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

ERROR_CHARACTERS = 2000

State = Literal["done", "time over", "space exhausted", "interrupted", "broken", "refused"]


class BestTrial(Settings):
    """The complete trial with the lowest value."""

    trial: int
    value: float
    """The study's metric on the validation part, as the search minimises it."""
    configuration: str
    """In words."""


class BaselineValue(Settings):
    """A forecast to beat, on the same validation windows."""

    name: str
    value: float | None
    """By the study's metric; null where it is undefined."""


class VerdictInShort(Settings):
    """What the sealed test has shown: docs/verdict.md."""

    outcome: Literal["passed", "not passed"]
    reason: str
    skill: float | None
    """Against the baseline that is hardest to beat: 1 - the model's error / its error; null where
    that is 0."""
    against: str
    """That baseline."""


class Links(Settings):
    """Where to look."""

    mlflow: str | None = None
    """Page of the trials; null where MLflow is behind."""
    report: str | None = None
    """File of the page that explains the study."""
    model: str | None = None
    """Address in MLflow's registry, such as `models:/NAME@champion`."""


class Outcome(Settings):
    """What the command came to."""

    schema_version: int = SCHEMA_VERSION
    """Grows when a field changes its meaning or goes."""
    study: str | None
    """Its name, placeholders filled in; null where it was refused before it had one."""
    state: State
    """How it ended: done, time over and space exhausted are in order; interrupted: by a signal;
    broken: by an error, by trials that fail one after another, or without a complete trial;
    refused: what was asked for cannot be."""
    exit_code: int
    """Of the command: 0, 1 broken, 2 refused, 4 not passed with --require-champion, 130 and 143
    interrupted."""
    ended_at: str
    """Local time with its offset, ISO 8601."""
    seconds: float
    """Of the whole command."""
    trials: dict[str, int]
    """The study's trials by state, those of earlier searches among them."""
    metric: Metric | None
    """What best and baselines are measured by."""
    best: BestTrial | None
    """Null where no trial is complete."""
    baselines: tuple[BaselineValue, ...]
    """The forecasts to beat."""
    verdict: VerdictInShort | None
    """Null where none was reached."""
    links: Links
    """Where to look."""
    error: str | None
    """What went wrong, in words, log-ins blotted out."""


class Account:
    """What is known of a search while it runs, of which its outcome is made at the end."""

    def __init__(self) -> None:
        """Begin to count the seconds."""
        self._began = time.monotonic()
        self.config: SearchConfig | None = None
        """As far as it is resolved."""
        self.is_begun = False
        """Whether the study may have a record: its configuration is resolved."""
        self.result: SearchResult | None = None
        self.conclusion: Conclusion | None = None
        self.report: str | None = None
        """The page of a grid, which has no conclusion."""
        self.state: State | None = None
        """Of a command that did not end in order."""
        self.error: str | None = None
        self.exit_code = EXIT_BROKEN
        """Of the command, as soon as it is known."""

    def begin(self, config: SearchConfig) -> None:
        """Note the configuration as it was resolved."""
        self.config, self.is_begun = config, True

    def fail(self, state: State, error: BaseException | None = None) -> None:
        """Note an end that is not in order, and why; what was noted first stays."""
        self.state = self.state or state
        if error is not None:
            self.regret(error)

    def regret(self, error: BaseException) -> None:
        """Note what went wrong, though the command ends in order; what was noted first stays."""
        if self.error is None:
            self.error = str(error) or type(error).__name__

    def outcome(self) -> Outcome:
        """What the command comes to."""
        result = self.result or self._recorded()
        trials = result.trials if result else ()
        return Outcome(
            study=self._study(),
            state=self.state or _state_of(result),
            exit_code=self.exit_code,
            ended_at=datetime.now().astimezone().isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self._began, 3),
            trials=dict(Counter(str(trial.state) for trial in trials)),
            metric=self.config.search.metric if self.config else None,
            best=_best(result) if result else None,
            baselines=_baselines(result) if result else (),
            verdict=_in_short(self.conclusion.verdict) if self.conclusion else None,
            links=self._links(result),
            error=self._why(result),
        )

    def _study(self) -> str | None:
        name = self.config.study if self.config else None
        return None if name is None or is_template(name) else name

    def _recorded(self) -> SearchResult | None:
        """What the record holds of a search that was cut off before it gave its result."""
        if self.config is None or not self.is_begun or self.state == "refused":
            return None
        from search.result import result_of

        try:
            return result_of(self.config)
        except Exception:  # whatever ails the record: what ended the search is already noted
            return None

    def _links(self, result: SearchResult | None) -> Links:
        report, model = self.report, None
        if self.conclusion:
            report = str(self.conclusion.report)
            model = self.conclusion.model.uri if self.conclusion.model else None
        return Links(mlflow=result.mlflow_url if result else None, report=report, model=model)

    def _why(self, result: SearchResult | None) -> str | None:
        if self.error is not None:
            return without_secrets(self.error, self.config)[:ERROR_CHARACTERS]
        if result is None or self.state is not None or result.why_broken is None:
            return None
        return without_secrets(result.why_broken, self.config)[:ERROR_CHARACTERS]


def without_secrets(text: str, config: SearchConfig | None) -> str:
    """An error's text on one line, log-ins and queries of URLs blotted out.

    Args:
        text: of any library, which may quote the address that it was given.
        config: whose addresses are looked for too.
    """
    for secret in sorted(_secrets(config), key=len, reverse=True):
        text = text.replace(secret, "***")
    # To the last @ of the word: a password may hold one.
    text = re.sub(r"(?<=://)\S*@", "***@", text)
    text = re.sub(r"(://[^\s?]*\?)[^\s'\",;]+", r"\1***", text)
    return printable(re.sub(r"((?:password|token|secret)\s*[=:]\s*)\S+", r"\1***", text))


SHORTEST_SECRET = 4
"""Shorter ones would blot out words."""


def _secrets(config: SearchConfig | None) -> Iterable[str]:
    """Passwords and tokens that this process was given."""
    named_so = re.compile("PASSWORD|TOKEN|SECRET|CREDENTIAL|_KEY$", re.IGNORECASE)
    found = {value for name, value in os.environ.items() if named_so.search(name)}
    addresses = [os.environ.get("MLFLOW_TRACKING_URI")]
    if config is not None:
        addresses += [config.storage, config.tracking.uri]
    for address in filter(None, addresses):
        if login := re.search(r"//([^/\s]*)@", address):
            found.add(login[1].partition(":")[2])
    return {secret for secret in found if len(secret) >= SHORTEST_SECRET}


def _state_of(result: SearchResult | None) -> State:
    return "broken" if result is None or result.why_broken else result.ending.value


def _best(result: SearchResult) -> BestTrial | None:
    from search.summary import configuration_in_words

    best = result.best_trial
    if best is None:
        return None
    assert best.config is not None
    assert best.value is not None
    return BestTrial(
        trial=best.number,
        value=best.value,
        configuration=configuration_in_words(best.config),
    )


def _baselines(result: SearchResult) -> tuple[BaselineValue, ...]:
    from search.record import metric_of_errors

    metric = result.config.search.metric
    values = [(each.name, metric_of_errors(each.errors, metric)) for each in result.baselines]
    return tuple(
        BaselineValue(name=name, value=value if math.isfinite(value) else None)
        for name, value in values
    )


def _in_short(verdict: Verdict) -> VerdictInShort:
    skills = [(-math.inf if c.skill is None else c.skill, c) for c in verdict.comparisons]
    _, hardest = min(skills, key=lambda pair: pair[0])
    return VerdictInShort(
        outcome="passed" if verdict.is_passed else "not passed",
        reason=verdict.reason,
        skill=hardest.skill,
        against=hardest.opponent,
    )
