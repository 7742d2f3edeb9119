"""Trials through a real Ray: counted, recorded, brought home, and not harmed by one another."""

import dataclasses
import gc
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from models.config import LSTMConfig
from pipelines.evaluation import evaluate
from pipelines.scaling import Scaling
from pipelines.scores import Evaluation
from pipelines.splits import SearchData
from pipelines.training_config import TrainConfig, TrainingBudget
from pipelines.weights import forecaster_from_bytes
from pipelines.windows import build_windows
from search import executor
from search.bulk_store import BulkStore
from search.cluster import connect, machines
from search.config import Resources, SearchSettings
from search.crowd import Crowd
from search.executor import _Asker, ray, run_trials
from search.kept_weights import KeptWeights
from search.limits import Limits
from search.record import Ending, PlannedRun, TrialRecord, TrialState
from search.slots import Slots, plan_slots
from search.space import Space, TrialConfig
from search.stored_studies import read_study
from search.study import Study, open_study
from search.trial import TrialStep, run_trial
from search.trial_actor import TrialJob

# Workers cannot import a test module: what it defines travels along.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

UNREPEATABLE = ("steps_per_second", "peak_memory_bytes", "train_seconds", "evaluate_seconds")
BUDGET = TrainingBudget(
    max_steps=40,
    evaluate_every_steps=10,
    warmup_steps=0,
    max_validation_windows=15,
    precision="float32",
)
NARROW = {
    "num_layers": 1,
    "hidden_size": {"low": 4, "high": 9},
    "bidirectional": False,
    "dropout": 0.0,
    "normalisation": "none",
    "linear_skip": "none",
    "head": "last_state",
    "calendar": True,
    "patch_length": 1,
    "lookback": 12,
    "learning_rate": {"choices": [1e-8, 3e-2, 1e38]},
    "batch_size": 8,
}
GOOD, TOO_SLOW, DIVERGING = 3e-2, 1e-8, 1e38
HANG_SECONDS = 15.0

Signals = dict[int, Any]
MakeData = Callable[..., SearchData]


# A search in which nothing goes wrong but what a configuration is to blame for


@pytest.fixture(scope="module")
def finished(
    local_ray: None,
    tmp_path_factory: pytest.TempPathFactory,
    make_data: MakeData,
    make_space: Callable[..., Space],
    closing_connections: Callable[[], AbstractContextManager[None]],
) -> Iterator[SimpleNamespace]:
    """Ten trials in two slots: the first six train well, one diverges, two learn nothing."""
    folder, scratch = tmp_path_factory.mktemp("finished"), tmp_path_factory.mktemp("scratch")
    data = watched(make_data(), folder)
    settings = {"trials": 10, "num_kept_weights": 3, "pruner": "median"}
    diary = Diary(folder=scratch)
    kept = KeptWeights(folder / "kept")
    with closing_connections(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(scratch))
        study = open_study_of(folder / "record.db", data, make_space(**NARROW), **settings)
        rates = [GOOD, GOOD, GOOD, GOOD, GOOD, GOOD, DIVERGING, TOO_SLOW, TOO_SLOW]
        sizes = [4, 5, 6, 7, 8, 9, 4, 5, 6]
        skipped = study.queue(small_config(*each) for each in zip(sizes, rates, strict=True))
        signals_before = signal_handlers()
        slots = plan_slots(Resources(), "cpu", machines())
        ending = run_trials(study, job(data, slots), Resources(), BUDGET, kept, [diary])
        yield SimpleNamespace(
            ending=ending,
            skipped=skipped,
            trials=study.trials(),
            notes=study.attributes,
            data=data,
            kept=kept,
            diary=diary,
            folder=folder,
            scratch=scratch,
            signals=(signals_before, signal_handlers()),
        )


@pytest.mark.slow
def test_a_search_of_n_trials_leaves_n_counted(finished: SimpleNamespace) -> None:
    assert finished.ending is Ending.DONE
    assert finished.skipped == ()
    assert sum(trial.state.counts for trial in finished.trials) == 10
    assert {trial.state for trial in finished.trials} <= {
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.REJECTED,
    }


@pytest.mark.slow
def test_two_worker_processes_train_all_ten_trials(finished: SimpleNamespace) -> None:
    pids = {trial.ran_on["pid"] for trial in finished.trials if trial.ran_on}
    assert 1 <= len(pids) <= 2  # one, where the other starts so slowly that nothing is left
    assert os.getpid() not in pids
    assert all(trial.ran_on["host"] for trial in finished.trials if trial.ran_on)


@pytest.mark.slow
def test_the_record_holds_what_the_trial_alone_evaluates(
    finished: SimpleNamespace, make_data: MakeData
) -> None:
    complete = [trial for trial in finished.trials if trial.state is TrialState.COMPLETE]
    assert len(complete) >= 5
    for trial in complete:
        assert recorded(trial) == alone(trial, make_data())


@pytest.mark.slow
def test_a_trial_that_is_stopped_early_keeps_its_evaluations_and_says_when(
    finished: SimpleNamespace, make_data: MakeData
) -> None:
    stopped = [trial for trial in finished.trials if trial.reason.startswith("stopped early")]
    assert stopped
    for trial in stopped:
        last = trial.evaluations[-1].evaluation
        assert trial.state is TrialState.PRUNED
        assert trial.reason == f"stopped early at step {last.step}"
        assert last.step < BUDGET.max_steps
        assert recorded(trial) == alone(trial, make_data())[: len(trial.evaluations)]


@pytest.mark.slow
def test_a_trial_that_diverges_is_pruned_with_its_reason(finished: SimpleNamespace) -> None:
    diverging = [t for t in finished.trials if t.config and rate_of(t.config) == DIVERGING]
    assert diverging
    for trial in diverging:
        assert trial.state is TrialState.PRUNED
        assert trial.reason == "diverged by step 10"
        assert trial.evaluations == ()


@pytest.mark.slow
def test_the_weights_of_the_best_are_on_disk_and_reproduce_their_value(
    finished: SimpleNamespace, make_data: MakeData
) -> None:
    complete = [trial for trial in finished.trials if trial.state is TrialState.COMPLETE]
    best = sorted(complete, key=lambda trial: (trial.value, trial.number))[:3]
    for trial in best:
        weights = finished.kept.path(trial.number).read_bytes()
        assert mae_of(weights, make_data()) == pytest.approx(trial.value, abs=1e-5)
        assert trial.final is not None
        assert trial.final.evaluation.is_full
    files = {path.name for path in (finished.folder / "kept").iterdir()}
    assert files == {f"{trial.number:03d}.safetensors" for trial in best}


@pytest.mark.slow
def test_the_table_is_put_into_the_object_store_once_and_read_once_by_each_process(
    finished: SimpleNamespace,
) -> None:
    assert pids_in(finished.folder / "packed") == [os.getpid()]
    readers = pids_in(finished.folder / "unpacked")
    assert len(readers) == len(set(readers))
    assert {trial.ran_on["pid"] for trial in finished.trials if trial.ran_on} <= set(readers)


@pytest.mark.slow
def test_who_listens_is_told_of_each_start_each_evaluation_and_one_end(
    finished: SimpleNamespace,
) -> None:
    for trial in finished.trials:
        if trial.state is TrialState.REJECTED:
            assert finished.diary.of(trial.number) == []
            continue
        steps = [("evaluation", each.evaluation.step) for each in trial.evaluations]
        told = [("start", TrialState.RUNNING), *steps, ("end", trial.state)]
        assert finished.diary.of(trial.number) == told


@pytest.mark.slow
def test_the_baselines_are_told_and_recorded(finished: SimpleNamespace) -> None:
    names = ["persistence", "seasonal naive (6)", "training mean", "ridge", "linear twin"]
    assert finished.diary.baselines == names
    assert [plain["name"] for plain in finished.notes["baselines"]] == names


@pytest.mark.slow
def test_signal_handlers_temporary_folder_and_ray_are_left_as_they_were(
    finished: SimpleNamespace,
) -> None:
    before, after = finished.signals
    assert after == before
    assert "lstm-search-" in finished.diary.scratch_seen
    assert list(finished.scratch.glob("lstm-search-*")) == []
    assert ray.is_initialized()


# Faults of the machine


@pytest.mark.slow
def test_of_the_last_trials_the_longest_begins_first(
    local_ray: None, tmp_path: Path, make_data: MakeData, make_space: Callable[..., Space]
) -> None:
    study = open_study_of(tmp_path / "record.db", make_data(), make_space(**NARROW), trials=5)
    study.queue(small_config(size, GOOD) for size in (4, 5, 6, 7, 9))
    three = Crowd(Slots(3, 1, 0, "cpu"), Resources())
    asker = _Asker(study, KeptWeights(tmp_path / "kept"), three)
    more, given = [], []
    for _ in range(6):
        more.append(asker.has_more)
        given.append(asker.suggest(""))
    assert more == [True, True, True, True, True, False]
    assert [each["number"] for each in given if isinstance(each, dict)] == [0, 1, 4, 3, 2]
    assert given[5] is None  # while those run one may have to be tried again


@pytest.mark.slow
def test_what_was_drawn_and_not_begun_is_proposed_once_after_trials_had_to_wait(
    local_ray: None, tmp_path: Path, make_data: MakeData, make_space: Callable[..., Space]
) -> None:
    study = open_study_of(tmp_path / "record.db", make_data(), make_space(**NARROW), trials=3)
    study.queue(small_config(size, GOOD) for size in (4, 5, 9))
    three = Crowd(Slots(3, 1, 0, "cpu"), Resources())
    asker = _Asker(study, KeptWeights(tmp_path / "kept"), three)
    first = asker.suggest("")
    study.requeue_running()
    asker.begin_anew()
    again = [asker.suggest("") for _ in range(4)]
    assert isinstance(first, dict)
    assert first["number"] == 2
    assert [each["number"] for each in again if isinstance(each, dict)] == [2, 1, 0]


@pytest.fixture(scope="module")
def troubled(
    local_ray: None,
    tmp_path_factory: pytest.TempPathFactory,
    make_data: MakeData,
    make_space: Callable[..., Space],
    closing_connections: Callable[[], AbstractContextManager[None]],
) -> Iterator[SimpleNamespace]:
    """Eight trials in one slot, most of them in trouble (`Troublemaker`), tried again once."""
    folder = tmp_path_factory.mktemp("troubled")
    data = watched(make_data(), folder)
    resources = Resources(max_concurrent=1, max_step_seconds=HANG_SECONDS, max_retries=1)
    listener = Troublemaker(folder)
    with closing_connections():
        space = make_space(
            **NARROW | {"learning_rate": GOOD, "hidden_size": {"low": 4, "high": 20}}
        )
        study = open_study_of(folder / "record.db", data, space, trials=8, pruner="none")
        ending = run_trials(
            study,
            job(data, plan_slots(resources, "cpu", machines())),
            resources,
            BUDGET,
            KeptWeights(folder / "kept"),
            [listener],
            has_baselines=False,
        )
        yield SimpleNamespace(
            ending=ending,
            folder=folder,
            told=listener.retries,
            trials=[t for t in study.trials() if t.state is not TrialState.REJECTED],
        )


@pytest.mark.slow
def test_a_trial_in_trouble_is_tried_again_and_the_search_goes_on(
    troubled: SimpleNamespace,
) -> None:
    assert troubled.ending is Ending.DONE
    states = [trial.state for trial in troubled.trials]
    complete, failed, pruned = TrialState.COMPLETE, TrialState.FAILED, TrialState.PRUNED
    assert states == [complete, failed, complete, complete, pruned, complete, complete, complete]
    assert [len(trial.retries) for trial in troubled.trials] == [0, 1, 1, 1, 1, 1, 1, 0]
    assert troubled.told == [t.retries[0] for t in troubled.trials if t.retries]


@pytest.mark.slow
def test_a_trial_that_raises_again_has_failed_with_reason_and_traceback(
    troubled: SimpleNamespace,
) -> None:
    raising = troubled.trials[1]
    assert raising.retries == (raising.reason,)
    assert raising.reason == "OSError: the disk is on fire"
    assert "Traceback" not in raising.reason
    assert "in run_trial" in raising.traceback
    assert "OSError: the disk is on fire\nand the tape too" in raising.traceback
    assert "\x1b" not in raising.traceback


@pytest.mark.slow
def test_out_of_memory_halves_the_batches_of_the_same_configuration(
    troubled: SimpleNamespace, make_data: MakeData
) -> None:
    halved = troubled.trials[2]
    assert halved.retries == ("out of memory at batch size 8, now halved",)
    assert halved.config.training.batch_size == 8
    together = [each.train_loss for each in alone(halved, make_data())]
    assert [each.train_loss for each in recorded(halved)] == pytest.approx(together, rel=1e-3)


@pytest.mark.slow
def test_out_of_memory_with_halved_batches_too_is_the_configurations_end(
    troubled: SimpleNamespace,
) -> None:
    reason = "out of memory, with batches of 8 in halves too"
    assert troubled.trials[4].reason == reason
    assert troubled.trials[4].evaluations == ()


@pytest.mark.slow
@pytest.mark.parametrize("number", [3, 6], ids=["asleep", "a stopped process"])
def test_a_trial_that_hangs_is_ended_and_says_after_how_long(
    troubled: SimpleNamespace, number: int
) -> None:
    (reason,) = troubled.trials[number].retries
    assert reason.startswith("hung: its worker process was ended")
    assert f"max_step_seconds={HANG_SECONDS:g}" in reason
    assert troubled.trials[number].ended_at - troubled.trials[number].started_at >= HANG_SECONDS


@pytest.mark.slow
def test_a_trial_whose_worker_was_killed_says_so(troubled: SimpleNamespace) -> None:
    (reason,) = troubled.trials[5].retries
    assert reason.startswith("its worker process died")
    assert "actor" in troubled.trials[5].traceback


@pytest.mark.slow
def test_trials_tried_again_and_those_after_them_end_as_if_undisturbed(
    troubled: SimpleNamespace, make_data: MakeData
) -> None:
    for number in (0, 3, 5, 6, 7):
        trial = troubled.trials[number]
        assert recorded(trial) == alone(trial, make_data())


@pytest.mark.slow
def test_only_complete_trials_leave_weights(troubled: SimpleNamespace) -> None:
    files = {path.name for path in (troubled.folder / "kept").iterdir()}
    complete = [t.number for t in troubled.trials if t.state is TrialState.COMPLETE]
    assert files == {f"{number:03d}.safetensors" for number in complete}


@pytest.mark.slow
def test_where_all_trials_fail_the_search_gives_up_and_goes_on_once_that_is_mended(
    local_ray: None, make_data: MakeData, make_space: Callable[..., Space], tmp_path: Path
) -> None:
    data = watched(make_data(), tmp_path)
    space = make_space(**NARROW | {"learning_rate": GOOD, "hidden_size": {"low": 4, "high": 20}})
    study = open_study_of(tmp_path / "record.db", data, space, trials=7, pruner="none")
    resources = Resources(max_concurrent=1, max_retries=0, max_failures_in_a_row=3)
    slots = plan_slots(resources, "cpu", machines())

    def search(listener: Any) -> tuple[Ending, list[TrialState]]:
        kept = KeptWeights(tmp_path / "kept")
        ending = run_trials(
            study, job(data, slots), resources, BUDGET, kept, [listener], has_baselines=False
        )
        return ending, [t.state for t in study.trials() if t.state.counts]

    complete, failed = TrialState.COMPLETE, TrialState.FAILED
    before = [complete, complete, failed, failed, failed]
    assert search(Arsonist(tmp_path)) == (Ending.BROKEN, before)
    (tmp_path / "raise").unlink(missing_ok=True)
    assert search(Diary(tmp_path)) == (Ending.DONE, [*before, complete, complete])


@pytest.mark.slow
def test_what_is_planned_is_tried_to_its_end_whatever_fails(
    local_ray: None, make_data: MakeData, make_space: Callable[..., Space], tmp_path: Path
) -> None:
    data = watched(make_data(), tmp_path)
    space = make_space(**NARROW | {"learning_rate": GOOD})
    study = open_study_of(tmp_path / "record.db", data, space, sampler="grid", pruner="none")
    study.plan(PlannedRun(small_config(size, GOOD), 1, 0) for size in (4, 5, 6, 7))
    resources = Resources(max_concurrent=1, max_retries=0, max_failures_in_a_row=1)
    ending = run_trials(
        study,
        job(data, plan_slots(resources, "cpu", machines())),
        resources,
        BUDGET,
        KeptWeights(tmp_path / "kept"),
        [Arsonist(tmp_path)],
        has_baselines=False,
    )
    complete, failed = TrialState.COMPLETE, TrialState.FAILED
    assert ending is Ending.DONE
    assert [trial.state for trial in study.trials()] == [complete, complete, failed, failed]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="reads the memory from /proc")
def test_a_worker_that_takes_all_memory_is_ended_and_its_trial_tried_again(tmp_path: Path) -> None:
    script = Path(__file__).with_name("search_with_little_memory.py")
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _, trials = read_study(f"sqlite:///{tmp_path / 'record.db'}", "study")
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    reason = "out of memory: its machine had none left, so its worker process was ended"
    assert [trial.retries for trial in trials] == [(), (reason,), ()]


# The end of the time, and of the space


@pytest.mark.slow
@pytest.mark.parametrize("is_saved", [False, True], ids=["from its beginning", "from its state"])
def test_when_the_time_is_over_running_trials_wait_and_a_resume_completes_them(
    local_ray: None,
    make_data: MakeData,
    make_space: Callable[..., Space],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_saved: bool,
) -> None:
    data, space = make_data(), make_space(**NARROW | {"learning_rate": GOOD})
    kept = KeptWeights(tmp_path / "kept")
    resources = Resources(max_concurrent=1)
    one_slot = job(data, plan_slots(resources, "cpu", machines()), 0.0 if is_saved else math.inf)

    def search(time_budget_seconds: float | None, listener: Any) -> tuple[Ending, Any]:
        file = tmp_path / "record.db"
        study = open_study_of(file, data, space, trials=3, pruner="none")
        arguments = (study, one_slot, resources, BUDGET, kept, [listener], time_budget_seconds)
        return run_trials(*arguments, has_baselines=False), study.trials()

    clock = Clock(tmp_path)
    monkeypatch.setattr(executor, "time", clock)
    ending, trials = search(3600.0, clock)
    assert ending is Ending.TIME_OVER
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.WAITING]
    assert len(trials[1].evaluations) == 2
    states = {"001.state"} if is_saved else set()
    weights = {"000.safetensors", "001.safetensors"}
    assert {path.name for path in (tmp_path / "kept").iterdir()} == weights | states

    diary = Diary(tmp_path)
    ending, resumed = search(None, diary)
    assert ending is Ending.DONE
    assert [trial.state for trial in resumed] == [TrialState.COMPLETE] * 3
    assert resumed[0] == trials[0]
    before, after = trials[1], resumed[1]
    assert (after.number, after.seed, after.config) == (before.number, before.seed, before.config)
    assert after.evaluations[:2] == before.evaluations
    assert recorded(after) == alone(after, data)
    steps = [step for kind, step in diary.of(1) if kind == "evaluation"]
    assert len(steps) == (2 if is_saved else 4)
    assert len(list((tmp_path / "kept").iterdir())) == 3


@pytest.mark.slow
def test_an_interrupt_in_the_middle_of_a_write_is_raised_and_a_resume_goes_on(
    local_ray: None,
    make_data: MakeData,
    make_space: Callable[..., Space],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, space = make_data(), make_space(**NARROW | {"learning_rate": GOOD})
    resources = Resources(max_concurrent=1)
    one_slot = job(data, plan_slots(resources, "cpu", machines()))

    def search() -> Ending:
        study = open_study_of(tmp_path / "record.db", data, space, trials=3, pruner="none")
        kept = KeptWeights(tmp_path / "kept")
        return run_trials(study, one_slot, resources, BUDGET, kept, [], has_baselines=False)

    add_trial = BulkStore.add_trial

    def interrupted(store: BulkStore, study_id: int, trial: Any) -> int:
        if trial.number == 1:
            raise KeyboardInterrupt
        return add_trial(store, study_id, trial)

    with monkeypatch.context() as patch:
        patch.setattr(BulkStore, "add_trial", interrupted)
        with pytest.raises(KeyboardInterrupt):
            search()
    gc.collect()  # the worker ends with what refers to it
    assert search() is Ending.DONE
    _, trials = read_study(f"sqlite:///{tmp_path / 'record.db'}", "study")
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    assert [recorded(trial) for trial in trials] == [alone(trial, data) for trial in trials]


@pytest.mark.slow
def test_a_process_that_leaves_garbage_of_rays_ends_with_its_own_exit_code() -> None:
    script = Path(__file__).with_name("end_with_garbage.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.slow
def test_each_slot_gets_a_worker_although_trials_are_shorter_than_its_start(
    local_ray: None, tmp_path: Path, make_data: MakeData, make_space: Callable[..., Space]
) -> None:
    data = make_data()
    settings = {"trials": 1000, "sampler": "random", "pruner": "none"}
    study = open_study_of(tmp_path / "record.db", data, make_space(), **settings)
    roll = Roll(study, num_workers=4)
    resources = Resources(cpus_per_trial=0.5)
    slots = plan_slots(resources, "cpu", machines())
    assert slots.count == 4
    arguments = study, job(data, slots), resources, BUDGET, KeptWeights(tmp_path / "kept")
    run_trials(*arguments, [roll], time_budget_seconds=120, has_baselines=False)
    assert len(roll.pids) == 4
    assert not any(trial.retries for trial in study.trials())


@pytest.mark.slow
def test_halves_of_a_gpu_run_two_trials_at_once_until_the_space_is_exhausted(
    local_ray: None, make_data: MakeData, make_space: Callable[..., Space], tmp_path: Path
) -> None:
    # Each of the two trials waits for the other, and the baselines fail without harm.
    data = watched(make_data(), tmp_path, num_awaited=2)
    (tmp_path / "no baselines").touch()
    of_two = {"learning_rate": GOOD, "weight_decay": 0.0, "hidden_size": {"choices": [4, 5]}}
    space = make_space(**NARROW | of_two)
    study = open_study_of(tmp_path / "record.db", data, space, trials=3, sampler="random")
    slots = plan_slots(Resources(cpus_per_trial=0.1, gpus_per_trial=0.5), "cpu", machines())
    assert slots == Slots(count=2, cpus_per_trial=0.1, gpus_per_trial=0.5, device="cpu")
    kept = KeptWeights(tmp_path / "kept")

    ending = run_trials(study, job(data, slots), Resources(), BUDGET, kept, [])

    assert ending is Ending.EXHAUSTED
    ran = [trial for trial in study.trials() if trial.state is not TrialState.REJECTED]
    assert [trial.state.counts for trial in ran] == [True, True]
    assert len({trial.ran_on["pid"] for trial in ran}) == 2
    assert len(study.trials()) == 2 + 200
    assert "OSError: no baselines" in study.attributes["baselines_error"]
    assert "baselines" not in study.attributes


@pytest.mark.slow
def test_fewer_share_a_gpu_once_its_memory_did_not_suffice(
    local_ray: None, make_data: MakeData, make_space: Callable[..., Space], tmp_path: Path
) -> None:
    data = watched(make_data(), tmp_path)
    (tmp_path / "out of memory").touch()
    study = open_study_of(
        tmp_path / "record.db", data, make_space(**NARROW), trials=4, pruner="none"
    )
    study.queue(small_config(size, GOOD) for size in (4, 5, 6, 7))
    resources = Resources(cpus_per_trial=0.1, gpus_per_trial="auto")
    slots = Slots(count=4, cpus_per_trial=0.1, gpus_per_trial=0.25, device="cpu")

    diary = Diary(tmp_path)
    kept = KeptWeights(tmp_path / "kept")
    ending = run_trials(study, job(data, slots), resources, BUDGET, kept, [diary])

    assert ending is Ending.DONE
    assert study.attributes["gpu_share"]["trials_per_gpu"] == 2
    assert diary.retries == ["out of memory at batch size 8, now halved"]
    assert {trial.state for trial in study.trials()} == {TrialState.COMPLETE}
    # Whoever ran out of memory beside the others has begun again with whole batches.
    for trial in study.trials():
        assert recorded(trial) == alone(trial, make_data())


# Ray itself


@pytest.mark.slow
def test_the_machines_are_those_of_the_connected_ray(local_ray: None) -> None:
    [machine] = machines()
    assert (machine["CPU"], machine["GPU"]) == (2, 1)


@pytest.mark.slow
def test_an_initialised_ray_is_used_as_it_is(local_ray: None) -> None:
    connection, signals = ray.get_runtime_context().get_job_id(), signal_handlers()
    connect(Resources(address="no-such-host:1"), is_verbose=False)
    assert ray.get_runtime_context().get_job_id() == connection
    assert signal_handlers() == signals


# What the searches above are made of


@dataclass(frozen=True, eq=False)
class WatchedData(SearchData):
    """A table that notes how it travels and, in a worker, gets into the trouble that is due."""

    folder: Path
    driver: int
    num_awaited: int

    def __getstate__(self) -> dict[str, Any]:
        note_pid(self.folder / "packed")
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        note_pid(self.folder / "unpacked")

    @property
    def num_targets(self) -> int:  # which a trial asks for when it begins
        if os.getpid() != self.driver:
            self.meet_trouble()
        return len(self.targets)

    def meet_trouble(self) -> None:
        if not is_in_a_trial():
            if (self.folder / "no baselines").exists():
                raise OSError("no baselines")
            return
        if takes(self.folder / "raise"):
            raise OSError("the disk is on fire\nand the tape too")
        if takes(self.folder / "hang"):
            time.sleep(3600)
        if takes(self.folder / "out of memory") or takes(self.folder / "out of memory again"):
            torch.empty(1 << 50)
        (self.folder / f"worker-{os.getpid()}").touch()
        until = time.monotonic() + 120
        while len(list(self.folder.glob("worker-*"))) < self.num_awaited:
            assert time.monotonic() < until, "the other trial does not come"
            time.sleep(0.05)


def watched(data: SearchData, folder: Path, num_awaited: int = 0) -> WatchedData:
    same = {each.name: getattr(data, each.name) for each in fields(SearchData)}
    return WatchedData(**same, folder=folder, driver=os.getpid(), num_awaited=num_awaited)


def is_in_a_trial() -> bool:
    return "trial_actor" in {Path(frame.filename).stem for frame in traceback.extract_stack()}


def takes(marker: Path) -> bool:
    try:
        marker.unlink()
    except FileNotFoundError:
        return False
    return True


def note_pid(file: Path) -> None:
    with file.open("a", encoding="utf-8") as lines:
        lines.write(f"{os.getpid()}\n")


def pids_in(file: Path) -> list[int]:
    return [int(line) for line in file.read_text(encoding="utf-8").splitlines()]


@dataclass
class Diary:
    """A listener that remembers what it is told."""

    folder: Path
    events: list[tuple[int, str, Any]] = field(default_factory=list)
    baselines: list[str] = field(default_factory=list)
    scratch_seen: str = ""
    retries: list[str] = field(default_factory=list)

    def of(self, number: int) -> list[tuple[str, Any]]:
        return [(kind, news) for trial, kind, news in self.events if trial == number]

    def on_start(self, trial: TrialRecord) -> None:
        self.scratch_seen += " ".join(path.name for path in self.folder.iterdir())
        self.events.append((trial.number, "start", trial.state))

    def on_evaluation(self, trial: TrialRecord) -> None:
        step = trial.evaluations[-1].evaluation.step
        self.events.append((trial.number, "evaluation", step))

    def on_end(self, trial: TrialRecord) -> None:
        self.events.append((trial.number, "end", trial.state))

    def on_retry(self, trial: TrialRecord) -> None:
        self.retries.append(trial.retries[-1])

    def on_baseline(self, baseline: Any) -> None:
        self.baselines.append(baseline.name)

    def on_baselines_missed(self, reason: str) -> None:
        self.missed = reason


class Troublemaker(Diary):
    """Makes trial 1 raise each time, others once lack memory, hang, die or be stopped."""

    TROUBLES: ClassVar = {
        1: ["raise"],
        2: ["out of memory"],
        3: ["hang"],
        4: ["out of memory", "out of memory again"],
    }

    def on_start(self, trial: TrialRecord) -> None:
        if trial.number == 1 or not trial.retries:
            for trouble in self.TROUBLES.get(trial.number, []):
                (self.folder / trouble).touch()

    def on_evaluation(self, trial: TrialRecord) -> None:
        if not trial.retries and trial.number in (5, 6):
            is_killed = trial.number == 5
            os.kill(trial.ran_on["pid"], signal.SIGKILL if is_killed else signal.SIGSTOP)


class Arsonist(Diary):
    """Makes every trial raise from the third on."""

    def on_start(self, trial: TrialRecord) -> None:
        if trial.number > 1:
            (self.folder / "raise").touch()


class Roll:
    """Notes which workers train, and ends the search once all of them have."""

    def __init__(self, study: Study, num_workers: int):
        self.pids: list[int] = []
        self._study, self._num_workers = study, num_workers

    def on_start(self, trial: TrialRecord) -> None:
        pass

    def on_evaluation(self, trial: TrialRecord) -> None:
        if trial.ran_on["pid"] not in self.pids:
            self.pids.append(trial.ran_on["pid"])
        if len(self.pids) == self._num_workers:
            enough = {"trials": self._study.num_counted + 1}
            self._study._settings = self._study.settings.model_copy(update=enough)

    def on_end(self, trial: TrialRecord) -> None:
        pass


@dataclass
class Clock(Diary):
    """The executor's clock, which goes an hour ahead at the second evaluation of trial 1."""

    seconds_ahead: float = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.seconds_ahead

    def on_evaluation(self, trial: TrialRecord) -> None:
        if trial.number == 1 and len(trial.evaluations) == 2:
            self.seconds_ahead = 3600.0


def open_study_of(file: Path, data: SearchData, space: Space, **settings: Any) -> Study:
    search = SearchSettings.model_validate({"num_startup_trials": 20} | settings)
    limits = Limits(data, search.max_parameters, None)
    identity = {"data": data.fingerprint, "metric": search.metric}
    url = f"sqlite:///{file}"
    return open_study(url, "study", identity, space, BUDGET, search, limits)


def job(data: SearchData, slots: Slots, save_every_seconds: float = math.inf) -> TrialJob:
    return TrialJob((data,), "mae", slots, save_every_seconds)


def small_config(hidden_size: int, learning_rate: float) -> TrialConfig:
    model = LSTMConfig(widths=(hidden_size,), normalisation="none", linear_skip="none")
    choices = {
        "lookback": 12,
        "calendar": True,
        "learning_rate": learning_rate,
        "batch_size": 8,
        "weight_decay": 1e-3,
    }
    training = TrainConfig.model_validate(BUDGET.model_dump() | choices)
    return TrialConfig(model=model, training=training)


def rate_of(config: TrialConfig) -> float:
    return config.training.learning_rate


def recorded(trial: TrialRecord) -> list[Evaluation]:
    final = [trial.final] if trial.final else []
    return [repeatable(each.evaluation) for each in (*trial.evaluations, *final)]


def alone(trial: TrialRecord, data: SearchData) -> list[Evaluation]:
    """The evaluations of the same trial in this process."""
    assert trial.config is not None
    steps = run_trial(trial.config, data, trial.seed, "mae")
    return [repeatable(step.evaluation) for step in steps if isinstance(step, TrialStep)]


def repeatable(evaluation: Evaluation) -> Evaluation:
    same: dict[str, Any] = dict.fromkeys(UNREPEATABLE, 0)
    return dataclasses.replace(evaluation, **same)


def mae_of(weights: bytes, data: SearchData) -> float:
    """The standardised MAE on all validation windows."""
    forecaster, scaling = forecaster_from_bytes(weights), Scaling.fit(data)
    windows = build_windows(data, scaling, forecaster.shape.lookback, True, "cpu")
    return evaluate(forecaster, windows, scaling, windows.validation_origins).mae_scaled


def signal_handlers() -> Signals:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    return {number: signal.getsignal(number) for number in numbers}
