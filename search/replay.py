"""`python -m search replay`: one recorded trial trained again, here, without Ray or MLflow.

On an equal machine with equal versions the CPU gives the recorded values again, to the last digit.
"""

import math
import socket
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from pipelines.hardware import hardware_name
from pipelines.scores import Evaluation, TrainingDiverged
from pipelines.series import SeriesTable, load
from pipelines.splits import SearchData, split
from search.config import ConfigError, SearchConfig
from search.facts import versions
from search.places import record_url
from search.progress import METRIC_NAMES
from search.record import RecordedEvaluation, TrialRecord, TrialState, metric_value
from search.resolve import resolve_device
from search.screen import say, say_lines
from search.slots import Slots
from search.stored_studies import read_study
from search.trial import SecondTry, TrialStep, run_trial

SHOWN_DIGITS = 6


class UnknownTrialError(ValueError):
    """No trial of this number, or none that could be trained."""


@dataclass
class Comparison:
    """How far the replayed values are from the recorded ones."""

    num_compared: int = 0
    largest: float = 0.0
    """Largest absolute difference of any error or training loss; NaN against a number is inf."""

    def add(self, replayed: Evaluation, recorded: Evaluation) -> None:
        """Compare every value of two evaluations of one step."""
        self.num_compared += 1
        for now, then in zip(_values(replayed), _values(recorded), strict=True):
            self.largest = max(self.largest, _distance(now, then))


def recorded_trial(config: SearchConfig, number: int) -> tuple[dict[str, Any], TrialRecord]:
    """The notes of a study, and one of its trials.

    Raises:
        UnknownTrialError: where the study has no such trial.
    """
    assert config.study is not None
    notes, trials = read_study(record_url(config, config.study), config.study)
    if not 0 <= number < len(trials):
        raise UnknownTrialError(
            f"study {config.study} has the trials 0 to {len(trials) - 1}: got {number}"
            if trials
            else f"study {config.study} has no trial yet: got {number}"
        )
    return notes, trials[number]


def replay_command(config: SearchConfig, number: int) -> str:
    """The command that trains a recorded trial again."""
    return f"python -m search replay {config.study} {number}{config.place}"


def replay(
    config: SearchConfig,
    number: int,
    console: Console,
    seed: int | None = None,
    data: str | None = None,
    device: str | None = None,
) -> Comparison:
    """Train a recorded trial again and print each evaluation beside the recorded one.

    Args:
        config: of the study, as it was recorded.
        number: of the trial.
        console: where it is printed.
        seed: another one than the trial's.
        data: where the table lies now.
        device: another one than the recorded `resources.device`.

    Raises:
        UnknownTrialError: where there is no such trial, or it was rejected.
        ConfigError: where the table is not the recorded one, or the device is not there.
    """
    notes, trial = recorded_trial(config, number)
    if trial.config is None or trial.state is TrialState.REJECTED:
        raise UnknownTrialError(
            f"only a trial that has a configuration can be replayed: trial {number} is "
            f"{trial.state} ({trial.reason or 'it was not begun'}); choose another"
        )
    _, search_data = recorded_data(config, notes, data)
    device = resolve_device(device or config.resources.device)
    used_seed = trial.seed if seed is None else seed
    for line in _remarks(notes, trial, device, used_seed):
        say(console, f"note: {line}")
    say(console, f"trial {trial.name}, recorded as {trial.state}{_because(trial)}")
    slots = Slots(1, config.resources.cpus_per_trial, 0, device)
    steps = run_trial(
        trial.config,
        search_data,
        used_seed,
        config.search.metric,
        device,
        slots.threads_per_trial,
        save_every_seconds=math.inf,
    )
    comparison = _follow(steps, trial, config, console)
    say(console, _verdict(comparison))
    return comparison


def recorded_data(
    config: SearchConfig, notes: Mapping[str, Any], data: str | None
) -> tuple[SeriesTable, SearchData]:
    """The table that a study was searched on, read again, and its rows up to the sealed test.

    Args:
        config: of the study, as it was recorded.
        notes: of the study.
        data: where the table lies now.

    Raises:
        DataError: where it cannot be read.
        ConfigError: where it is not the recorded one.
    """
    settings = config.data.model_copy(update={"path": data}) if data else config.data
    table = load(settings)
    search_data, _ = split(table, config.split)
    facts = notes.get("facts", {})
    recorded = notes["identity"]["data"]
    if search_data.fingerprint != recorded:
        raise ConfigError(
            "the table must be the one that the study was searched on: "
            f"{facts.get('data_source', 'it')} had {facts.get('num_rows', '?')} rows to search on "
            f"and fingerprint {recorded[:12]}, now {settings.path or 'the embedded table'} has "
            f"{search_data.num_rows} and {search_data.fingerprint[:12]}; give the old one with "
            "--data"
        )
    return table, search_data


def _remarks(notes: Mapping[str, Any], trial: TrialRecord, device: str, seed: int) -> Iterator[str]:
    """Why the values may differ."""
    if seed != trial.seed:
        yield f"the seed is {seed}, not the recorded {trial.seed}: the values will differ"
    if trial.retries:
        yield f"the recorded trial was tried again: {'; '.join(trial.retries)}"
    then = trial.ran_on
    here = {"device": device, "hardware": hardware_name(device), "host": socket.gethostname()}
    for name, value in here.items():
        if name in then and then[name] != value:
            consequence = ": its hardware may differ" if name == "host" else ""
            yield f"{name} is {value}, recorded was {then[name]}{consequence}"
    assert trial.config is not None
    precision = trial.config.training.precision
    if precision != "float32":
        yield f"precision is {precision}: values differ between kinds of hardware"
    recorded = notes.get("facts", {}).get("tags", {})
    for name, value in versions().items():
        if name in recorded and recorded[name] != value:
            yield f"{name.removeprefix('version_')} is {value}, recorded was {recorded[name]}"


def _follow(
    steps: Iterator[TrialStep | SecondTry],
    trial: TrialRecord,
    config: SearchConfig,
    console: Console,
) -> Comparison:
    """Print each step as it comes; a trial that was stopped early stops there again."""
    comparison = Comparison()
    known = {recorded.evaluation.step: recorded for recorded in trial.evaluations}
    last_step = max(known, default=0)
    was_stopped = trial.state is TrialState.PRUNED and trial.reason.startswith("stopped early")
    name = METRIC_NAMES[config.search.metric]
    say(console, f"{'step':>12} {name + ' recorded':>16} {'replayed':>16} {'difference':>12}")
    try:
        for step in steps:
            if isinstance(step, SecondTry):
                say(console, f"note: {step.reason}")
                continue
            recorded = trial.final if step.is_final else known.get(step.evaluation.step)
            if recorded is not None:
                comparison.add(step.evaluation, recorded.evaluation)
            say(console, _line(step, recorded, config))
            if was_stopped and step.evaluation.step >= last_step:
                say(console, f"ends where the recorded trial was {trial.reason}")
                break
    except TrainingDiverged as diverged:
        say(console, f"diverged by step {diverged.step}")
    except Exception as error:  # whatever broke the trial is what is looked for
        say_lines(console, traceback.format_exc())
        raise ReplayFailed(f"trial {trial.number} failed again, or anew: {error!r}") from error
    return comparison


class ReplayFailed(RuntimeError):  # noqa: N818 - an outcome rather than a fault
    """The trial broke while it was replayed."""


def _line(step: TrialStep, recorded: RecordedEvaluation | None, config: SearchConfig) -> str:
    now = metric_value(step.evaluation, config.search.metric)
    label = f"{step.evaluation.step}" + (" whole" if step.is_final else "")
    if recorded is None:
        return f"{label:>12} {'-':>16} {now:16.{SHOWN_DIGITS}f} {'-':>12}"
    then = metric_value(recorded.evaluation, config.search.metric)
    numbers = f"{then:16.{SHOWN_DIGITS}f} {now:16.{SHOWN_DIGITS}f}"
    return f"{label:>12} {numbers} {_distance(now, then):12.2g}"


def _verdict(comparison: Comparison) -> str:
    if comparison.num_compared == 0:
        return "nothing to compare: the record holds no evaluation of it"
    what = f"{comparison.num_compared} evaluations compared: "
    if comparison.largest == 0:
        return what + "every error and training loss is the same"
    return what + f"the largest difference of an error or training loss is {comparison.largest:.3g}"


def _values(evaluation: Evaluation) -> list[float]:
    return [evaluation.train_loss, *vars(evaluation.errors).values()]


def _distance(one: float, other: float) -> float:
    if math.isnan(one) or math.isnan(other):
        return 0.0 if math.isnan(one) and math.isnan(other) else math.inf
    return abs(one - other)


def _because(trial: TrialRecord) -> str:
    return f": {trial.reason}" if trial.reason else ""
