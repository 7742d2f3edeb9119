"""The record of a search: one persistent Optuna study, the only thing that must not be lost.

Every configuration, evaluation and outcome is written here as it happens. This file, above
`stored_studies.py`, `held_storage.py`, `patience.py` and `samplers.py`, is the door to Optuna; the
rest of the project sees `Study`, `Proposal` and `TrialRecord`.

Each evaluation is written twice, in this order: as a user attribute with all metrics and its time,
then as the reported value, the best so far, from which pruning decides.
"""

import json
import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from pipelines.scores import Evaluation
from pipelines.training_config import TrainingBudget
from search.config import SearchSettings
from search.database import HeldStudy
from search.dimensions import Point, Suggest
from search.frozen_trials import (
    EVALUATION_PREFIX,
    FINAL_EVALUATION,
    evaluations_in,
    final_evaluation_in,
    state_of,
    trial_record,
)
from search.held_storage import HeldStorage
from search.limits import Limits
from search.patience import OPENED_AT, PatientStorage
from search.record import (
    PlannedRun,
    Proposal,
    TrialRecord,
    TrialState,
    metric_value,
    trial_seed,
)
from search.samplers import pruner_of, sampler_for, suggest_from
from search.space import Space, TrialConfig
from search.stored_studies import open_storage, patient_storage

EXHAUSTED_AFTER_REJECTIONS = 200

GPU_SHARE = "gpu_share"


class SpaceExhaustedError(RuntimeError):
    """The space holds no further configuration that is new and admitted."""


class StudyMismatchError(ValueError):
    """A study met with another space, data, metric or budget than it was begun with."""


class Study:
    """A study that is open for writing; one process at a time."""

    def __init__(
        self,
        record: optuna.Study,
        storage: HeldStorage,
        space: Space,
        budget: TrainingBudget,
        settings: SearchSettings,
        limits: Limits,
    ):
        """Take over `record`; what was running when its last process ended waits again."""
        self._record = record
        self._storage = storage
        self._space = space
        self._budget = budget
        self._settings = settings
        self._limits = limits
        self._record.pruner = pruner_of(settings, budget)
        self._running: dict[int, optuna.Trial] = {}
        self._num_counted = sum(state_of(t).counts for t in record.get_trials(deepcopy=False))
        self._planned: deque[tuple[PlannedRun, Point]] = deque()
        self._numbers = {
            trial.config: trial.number
            for trial in self.trials()
            if trial.config is not None and trial.state is not TrialState.REJECTED
        }
        self.requeue_running()

    @property
    def name(self) -> str:
        """The study's name."""
        return self._record.study_name

    @property
    def settings(self) -> SearchSettings:
        """The settings under which the study is searched."""
        return self._settings

    @property
    def seconds_away(self) -> float:
        """How long the search has waited for the database of the record."""
        return self._storage.seconds_away

    # Asking for configurations

    def queue(self, configs: Iterable[TrialConfig]) -> tuple[str, ...]:
        """Put configurations first in line; return the reasons of those that cannot be tried."""
        skipped = []
        for config in configs:
            try:
                point = self._space.point_of(config)
            except ValueError as error:
                skipped.append(f"{config.describe()}: {error}")
                continue
            if reason := self._limits.why_refused(config):
                skipped.append(f"{config.describe()}: {reason}")
            else:
                self._record.enqueue_trial(point)
        return tuple(skipped)

    def plan(self, runs: Iterable[PlannedRun]) -> None:
        """Train runs that the record does not hold yet; the total is then that of all planned.

        Each has a seed and fold of its own, and one configuration may come again. They enter the
        record one by one, since every trial that waits there is read at each proposal. One that
        the limits refuse is left out, also where it was begun under higher ones.

        Raises:
            ValueError: for a configuration outside the space.
        """
        noted = [
            frozen.user_attrs["planned"]
            for frozen in self._record.get_trials(deepcopy=False)
            if "planned" in frozen.user_attrs and not self._is_left_out(frozen)
        ]
        known = {(planned["config"], planned["seed"], planned["fold"]) for planned in noted}
        for run in dict.fromkeys(runs):
            is_known = (run.config.model_dump_json(), run.seed, run.fold) in known
            if not is_known and self._limits.why_refused(run.config) is None:
                self._planned.append((run, self._space.point_of(run.config)))
        total = len(known) + len(self._planned)
        self._settings = self._settings.model_copy(update={"trials": total})

    def ask(self) -> Proposal | None:
        """Return the next configuration, or None while enough trials are counted or running.

        Raises:
            SpaceExhaustedError: after 200 rejected proposals in a row.
        """
        if self.num_left <= 0:
            return None
        for _ in range(EXHAUSTED_AFTER_REJECTIONS):
            if self._settings.sampler == "grid" and not self._num_waiting:
                self._enqueue_planned()
            self._record.sampler = self._sampler()
            with self._storage.new_trials_at_once():
                proposal = self._draw()
            if proposal is not None:
                return proposal
        raise SpaceExhaustedError(
            f"space exhausted: the last {EXHAUSTED_AFTER_REJECTIONS} proposals were known or "
            "refused; widen the space or raise search.max_parameters"
        )

    def _draw(self) -> Proposal | None:
        """Draw a configuration; None where it was rejected."""
        trial = self._record.ask()
        _forget_half_a_draw(trial)
        proposal, reason = self._propose(trial)
        if proposal is None:
            self._end(trial, OptunaState.FAIL, {"reason": f"rejected: {reason}"})
        return proposal

    def _is_left_out(self, frozen: FrozenTrial) -> bool:
        """Whether a planned trial was refused, or waits and will be."""
        if frozen.state is not OptunaState.WAITING:
            return state_of(frozen) is TrialState.REJECTED
        config = TrialConfig.model_validate_json(frozen.user_attrs["planned"]["config"])
        return self._limits.why_refused(config) is not None

    def _enqueue_planned(self) -> None:
        assert self._planned, "the total of a plan counts what it holds, and no more"
        run, point = self._planned.popleft()
        planned = {"config": run.config.model_dump_json(), "seed": run.seed, "fold": run.fold}
        self._record.enqueue_trial(point, user_attrs={"planned": planned})

    def _propose(self, trial: optuna.Trial) -> tuple[Proposal | None, str]:
        try:
            config = self._space.config_at(self._space.draw(suggest_from(trial)), self._budget)
        except ValueError as error:
            return None, str(error)
        planned = trial.user_attrs.get("planned")
        reason = (
            self._limits.why_refused(config)
            if planned  # with another seed or fold, perhaps
            else self._why_rejected(config, trial.number)
        )
        if reason is not None:
            return None, reason
        seed = planned["seed"] if planned else trial_seed(self._settings.seed, trial.number)
        trial.set_user_attr("config", config.model_dump_json())
        trial.set_user_attr("seed", seed)
        trial.set_user_attr("num_parameters", self._limits.num_parameters(config))
        self._numbers[config] = trial.number
        self._running[trial.number] = trial
        return Proposal(trial.number, config, seed, planned["fold"] if planned else 0), ""

    def training_teraflops(self, config: TrialConfig) -> float:
        """Floating-point operations of a trial that takes all its steps, in 10¹²."""
        return self._limits.training_teraflops(config)

    def _sampler(self) -> optuna.samplers.BaseSampler:
        frozen_trials = self._record.get_trials(deepcopy=False)
        # Optuna's `ask` hands out the first trial that waits, else a new one.
        waiting = self._record.get_trials(deepcopy=False, states=(OptunaState.WAITING,))
        number = waiting[0].number if waiting else len(frozen_trials)
        return sampler_for(number, self._settings, frozen_trials, self._cost_of)

    def _cost_of(self, suggest: Suggest) -> float:
        """What training a draw takes; infinite where it would be rejected."""
        try:
            config = self._space.config_at(self._space.draw(suggest), self._budget)
        except ValueError:
            return math.inf
        is_rejected = self._why_rejected(config) is not None
        return math.inf if is_rejected else self.training_teraflops(config)

    def _why_rejected(self, config: TrialConfig, number: int | None = None) -> str | None:
        """Why a configuration is not tried, by the trial of this number or a new one."""
        known_as = self._numbers.get(config, number)
        if known_as != number:
            return f"the same as trial {known_as:03d}"
        return self._limits.why_refused(config)

    # Telling what happened

    def started(self, number: int) -> None:
        """Record that a trial runs; its first start stays."""
        trial = self._running[number]
        if "started_at" not in trial.user_attrs:
            trial.set_user_attr("started_at", time.time())

    def ran_on(self, number: int, machine: Mapping[str, Any]) -> None:
        """Record where a trial runs, once: host, process, device."""
        trial = self._running[number]
        if trial.user_attrs.get("ran_on") != machine:
            trial.set_user_attr("ran_on", dict(machine))

    def report(self, number: int, evaluation: Evaluation) -> bool:
        """Record an evaluation; return whether the trial should stop here.

        The last evaluation of the budget is not judged: a trial that used all of it is complete.
        A step that a rerun reports again is not written twice.
        """
        trial = self._running[number]
        with self._storage.notes_at_once(number):
            self._record_evaluation(trial, f"{EVALUATION_PREFIX}{evaluation.step}", evaluation)
            best = min(self._judged_value(e.evaluation) for e in evaluations_in(trial.user_attrs))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="The reported value is ignored")
                trial.report(best, evaluation.step)
            return evaluation.step < self._budget.max_steps and trial.should_prune()

    def report_final(self, number: int, evaluation: Evaluation) -> None:
        """Record the last evaluation, of a trial's best weights on more validation windows."""
        self._record_evaluation(self._running[number], FINAL_EVALUATION, evaluation)

    def complete(self, number: int) -> TrialRecord:
        """End a trial that used its budget; its value is the final evaluation's, or the best."""
        attributes = self._running[number].user_attrs
        final = final_evaluation_in(attributes)
        evaluations = [final] if final else evaluations_in(attributes)
        value = min(self._judged_value(recorded.evaluation) for recorded in evaluations)
        return self._finish(number, OptunaState.COMPLETE, "", value=value)

    def prune(self, number: int, reason: str) -> TrialRecord:
        """End a trial that is not worth its budget: stopped early, or diverged."""
        return self._finish(number, OptunaState.PRUNED, reason)

    def fail(self, number: int, reason: str, traceback: str = "") -> TrialRecord:
        """End a trial that the machine, not the configuration, broke."""
        return self._finish(number, OptunaState.FAIL, reason, traceback)

    def note_retry(self, number: int, reason: str, traceback: str = "") -> TrialRecord:
        """Record why a running trial is tried again."""
        trial = self._running[number]
        retry = {"time": time.time(), "reason": reason, "traceback": traceback}
        trial.set_user_attr("retries", [*trial.user_attrs.get("retries", ()), retry])
        return self.trial(number)

    def requeue(self, number: int) -> TrialRecord:
        """Let a running trial wait, to be run again before any new one."""
        self._let_wait(self._running.pop(number))
        return self.trial(number)

    def _finish(
        self,
        number: int,
        state: OptunaState,
        reason: str,
        traceback: str = "",
        value: float | None = None,
    ) -> TrialRecord:
        trial = self._running.pop(number)
        outcome = {"time": time.time(), "reason": reason, "traceback": traceback}
        self._end(trial, state, outcome, value)
        self._num_counted += 1
        return self.trial(number)

    def _end(
        self,
        trial: optuna.Trial,
        state: OptunaState,
        outcome: Mapping[str, Any],
        value: float | None = None,
    ) -> None:
        with self._storage.notes_at_once(trial.number):
            trial.set_user_attr("outcome", json.dumps({"time": time.time(), **outcome}))
            self._record.tell(trial, value, state=state)

    def _record_evaluation(self, trial: optuna.Trial, key: str, evaluation: Evaluation) -> None:
        if key not in trial.user_attrs:
            recorded = {"time": time.time(), **evaluation.to_dict()}
            trial.set_user_attr(key, json.dumps(recorded))

    def _judged_value(self, evaluation: Evaluation) -> float:
        return metric_value(evaluation, self._settings.metric)

    # Reading the record

    def trials(self) -> list[TrialRecord]:
        """All trials, rejected ones too, by number."""
        frozen_trials = self._record.get_trials(deepcopy=False)
        return [trial_record(frozen, self._settings.metric) for frozen in frozen_trials]

    def trial(self, number: int) -> TrialRecord:
        """One trial."""
        frozen = self._storage.get_trial(number)
        return trial_record(frozen, self._settings.metric)

    @property
    def num_counted(self) -> int:
        """Trials that count towards the total: complete, pruned and failed."""
        return self._num_counted

    @property
    def num_left(self) -> int:
        """How many trials are still to be proposed."""
        return self._settings.trials - self.num_counted - len(self._running)

    @property
    def is_full(self) -> bool:
        """Whether as many trials are counted as were asked for."""
        return self.num_counted >= self._settings.trials

    @property
    def _num_waiting(self) -> int:
        return len(self._record.get_trials(deepcopy=False, states=(OptunaState.WAITING,)))

    @property
    def unended_numbers(self) -> frozenset[int]:
        """The trials that run or wait."""
        states = (OptunaState.RUNNING, OptunaState.WAITING)
        return frozenset(t.number for t in self._record.get_trials(deepcopy=False, states=states))

    def best_numbers(self, count: int) -> list[int]:
        """The best complete trials, the best first."""
        complete = self._record.get_trials(deepcopy=False, states=(OptunaState.COMPLETE,))
        return [t.number for t in sorted(complete, key=lambda t: (t.value, t.number))[:count]]

    def is_running(self, number: int) -> bool:
        """Whether a trial was asked for and has not ended."""
        return number in self._running

    @property
    def attributes(self) -> dict[str, Any]:
        """What was noted about the study as a whole."""
        return dict(self._record.user_attrs)

    def note(self, name: str, value: Any) -> None:
        """Note something about the study as a whole; `value` is plain JSON."""
        self._record.set_user_attr(name, value)

    def requeue_running(self) -> None:
        """Let the trials that ran last wait again, to be run before any new one."""
        self._running.clear()
        for frozen in self._record.get_trials(deepcopy=False, states=(OptunaState.RUNNING,)):
            self._let_wait(frozen)

    def _let_wait(self, trial: optuna.Trial | FrozenTrial) -> None:
        # Not enqueue_trial, which would make a new number: so number, parameters, seed and rung
        # marks stay. The storage is asked because Study has no such call.
        self._storage.set_trial_state_values(trial._trial_id, OptunaState.WAITING)


def open_study(
    url: str,
    name: str,
    identity: Mapping[str, Any],
    space: Space,
    budget: TrainingBudget,
    settings: SearchSettings,
    limits: Limits,
    held: HeldStudy | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Study:
    """Open the study `name`, or begin it.

    Args:
        url: SQLAlchemy URL of the record.
        name: the study's name.
        identity: what the study was begun with and must not change, as plain JSON.
        space: the derived space, without any `null`.
        budget: the training budget of every trial.
        settings: how the search goes on.
        limits: which configurations are refused.
        held: the study's lock in the record's database; while that is away, calls wait.
        say: is told when it is.

    Raises:
        LostStudyError: from the study's calls, where another search took it over meanwhile.
        StudyMismatchError: where the study was begun with another identity; shows the difference.
    """
    store = open_storage(url) if held is None else patient_storage(url, held, say)
    optuna.create_study(study_name=name, storage=store, direction="minimize", load_if_exists=True)
    storage = HeldStorage(store, name)
    record = optuna.load_study(study_name=name, storage=storage)
    begun_with = record.user_attrs.get("identity")
    if begun_with is None:
        record.set_user_attr("identity", dict(identity))
        record.set_user_attr("created_at", time.time())
    elif differences := _differences(begun_with, identity):
        raise StudyMismatchError(
            f"study {name} was begun with other settings: {'; '.join(differences)}; "
            "put them back or choose another --study"
        )
    opened_at = time.time()
    record.set_user_attr(OPENED_AT, opened_at)
    if isinstance(store, PatientStorage):
        store.opened(store.get_study_id_from_name(name), opened_at)
    return Study(record, storage, space, budget, settings, limits)


def _forget_half_a_draw(trial: optuna.Trial) -> None:
    # Its process was killed while it drew: values already there would not be drawn again, and
    # those after them would come too early in the sampler's sequence.
    if "config" not in trial.user_attrs:
        trial._cached_frozen_trial.params = {}
        trial._cached_frozen_trial.distributions = {}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in dict.fromkeys([*old, *new]):
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            found += _differences(before, now, f"{prefix}{key}.")
        elif before != now:
            found.append(f"{prefix}{key} was {before}, now {now}")
    return found
