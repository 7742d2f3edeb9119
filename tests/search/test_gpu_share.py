"""How many trials share a GPU: what fits, and what is worth its memory."""

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.splits import SearchData
from search import gpu_share
from search.config import Resources, SearchConfig
from search.config_file import parse_config
from search.crowd import Crowd, gpu_share_note
from search.gpu_probe import GpuProbe, Memory, _reason, evaluations_per_second, shortened
from search.gpu_share import (
    drawn_configs,
    fastest_number,
    num_tried,
    peak_bytes,
    rates_together,
    slots_for,
    that_fit,
)
from search.limits import Limits
from search.resolve import resolve
from search.slots import MOST_ON_ONE_GPU, Slots
from search.space import TrialConfig
from search.starts import THREE_ANSWERS, start_config
from search.stored_studies import UnknownStudyError
from search.trial_actor import TrialJob

GIB = 2**30
MACHINE = {"CPU": 16.0, "GPU": 2.0}


class FakeProbe:
    """A GPU of 80 GiB on which twice as many processes get twice as much done."""

    def __init__(self, used_bytes: int | None = GIB, breaks_at: int = 1000):
        self.used_bytes, self.breaks_at = used_bytes, breaks_at
        self.measured: list[TrialConfig] = []
        self.rated: list[tuple[TrialConfig, int]] = []

    def memory_of(self, config: TrialConfig) -> Memory | None:
        self.measured.append(config)
        return None if self.used_bytes is None else Memory(self.used_bytes, 80 * GIB)

    def rate(self, config: TrialConfig, number: int) -> float:
        self.rated.append((config, number))
        return 0.0 if number >= self.breaks_at else float(number)


@pytest.fixture(scope="module")
def data(make_data: Callable[..., SearchData]) -> SearchData:
    return make_data()


@pytest.fixture(scope="module")
def config(data: SearchData) -> SearchConfig:
    return resolve(parse_config({"resources": {"gpus_per_trial": "auto"}}), data)[0]


# What fits, and what pays


def test_the_rates_of_processes_that_train_at_a_time_add_up() -> None:
    together = [(0.0, 1.0, 2.0, 3.0, 4.0), (2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)]
    assert evaluations_per_second(together) == 1 + 2
    # As many as there are processes, however few evaluations each has had.
    assert evaluations_per_second([(0.0, 2.0)] * 8) == 8 / 2


def test_processes_that_never_train_at_a_time_have_no_rate() -> None:
    assert evaluations_per_second([(0, 1), (2, 3)]) == 0
    assert evaluations_per_second([]) == 0


@pytest.mark.parametrize(
    ("used", "number"), [(10 * GIB, 7), (71 * GIB, 1), (79 * GIB, 1), (GIB, 72)]
)
def test_nine_tenths_of_the_memory_are_shared(used: int, number: int) -> None:
    assert that_fit(Memory(used, 80 * GIB)) == number


def test_without_a_gpu_nothing_is_shared() -> None:
    assert that_fit(Memory(0, 0)) == 1


@pytest.mark.parametrize(
    ("rates", "number"),
    [
        ({1: 100, 2: 190, 4: 350, 8: 600}, 8),
        ({1: 100, 2: 190, 4: 200, 8: 600}, 8),  # whatever lies between
        ({1: 100, 2: 190, 4: 205, 8: 210}, 2),
        ({1: 100, 2: 109}, 1),
        ({1: 100, 2: 0}, 1),  # they broke
        ({1: 0}, 1),
        ({}, 1),
    ],
)
def test_the_least_number_that_gets_nearly_the_most_done_shares_a_gpu(
    rates: dict[int, float], number: int
) -> None:
    assert fastest_number(rates) == number


# What is tried


def test_the_drawn_configurations_are_admitted_and_hold_the_largest(
    config: SearchConfig, data: SearchData
) -> None:
    limits = Limits(data, 20_000, None)
    drawn = drawn_configs(config.space, config.training, limits)
    assert len(drawn) > 50
    assert all(limits.why_refused(each) is None for each in drawn)
    assert drawn == drawn_configs(config.space, config.training, limits)
    assert max(limits.num_parameters(each) for each in drawn) > 18_000
    assert {max(config.space.batch_size.choices)} <= {each.training.batch_size for each in drawn}


def test_memory_is_measured_on_the_largest_and_speed_on_a_middling_one(
    config: SearchConfig, data: SearchData
) -> None:
    probe = FakeProbe(used_bytes=15 * GIB)  # of 80
    assert rates_together(config, data, 8, probe) == {1: 1, 2: 2, 4: 4}
    (largest,), (middle,) = probe.measured, {tried.model_dump_json() for tried, _ in probe.rated}
    assert peak_bytes(largest, data) > 2 * peak_bytes(TrialConfig.model_validate_json(middle), data)


def test_where_the_largest_breaks_alone_nothing_is_shared(
    config: SearchConfig, data: SearchData
) -> None:
    assert rates_together(config, data, 8, FakeProbe(used_bytes=None)) == {}


def test_nothing_is_measured_where_memory_holds_one(config: SearchConfig, data: SearchData) -> None:
    probe = FakeProbe(used_bytes=50 * GIB)
    assert rates_together(config, data, 8, probe) == {}
    assert probe.rated == []


def test_more_than_a_number_that_breaks_are_not_tried(
    config: SearchConfig, data: SearchData
) -> None:
    probe = FakeProbe(breaks_at=4)
    assert rates_together(config, data, 16, probe) == {1: 1, 2: 2, 4: 0}


@pytest.mark.parametrize(
    ("machines", "resources", "most"),
    [
        ([{"CPU": 64.0}, MACHINE], {}, 8),
        ([MACHINE, {"CPU": 3.0, "GPU": 1.0}], {}, 2),  # not three, which is not tried
        ([MACHINE], {"cpus_per_trial": 0.5}, 16),
        ([MACHINE], {"cpus_per_trial": 16}, 1),
        ([MACHINE], {"max_concurrent": 5}, 4),
        ([{"CPU": 256.0, "GPU": 1.0}], {}, MOST_ON_ONE_GPU),
    ],
)
def test_the_cores_of_the_machine_bound_the_number(
    machines: list[dict[str, float]], resources: dict[str, Any], most: int
) -> None:
    assert num_tried(machines, Resources(**resources)) == most


def test_what_is_probed_is_short_and_otherwise_what_is_trained(config: SearchConfig) -> None:
    budget = config.training.model_copy(
        update={"max_steps": 5000, "evaluate_every_steps": 500, "warmup_steps": 300}
    )
    tried = start_config(THREE_ANSWERS[0], config.space, budget, 6)
    short = shortened(tried)
    assert (short.training.max_steps, short.training.evaluate_every_steps) == (200, 50)
    steps = {"max_steps": 200, "evaluate_every_steps": 50, "warmup_steps": 0}
    assert short.training == tried.training.model_copy(update=steps)
    assert short.model == tried.model
    assert shortened(short) == short


# Slots


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A cluster of one machine with two GPUs of a known make; four trials share one."""
    seen = SimpleNamespace(notes={}, num_measured=0, said=[])

    def notes(*_: Any) -> dict[str, Any]:
        if seen.notes is None:
            raise UnknownStudyError("none")
        return dict(seen.notes)

    def measure(*_: Any) -> dict[int, float]:
        seen.num_measured += 1
        return {1: 10.0, 2: 19.5, 4: 30.04}

    for name, stand_in in {
        "machines": lambda: [MACHINE],
        "read_notes": notes,
        "rates_together": measure,
        "hardware_name": lambda _: "GPU A",
    }.items():
        monkeypatch.setattr(gpu_share, name, stand_in)
    monkeypatch.setattr("search.gpu_probe.GpuProbe", lambda *_: nullcontext())
    return seen


def on(config: SearchConfig, **resources: Any) -> SearchConfig:
    changed = config.resources.model_copy(update={"device": "cuda", **resources})
    return config.model_copy(update={"resources": changed})


@pytest.mark.parametrize(
    "notes",
    [None, {}, {"gpu_share": {"hardware": "GPU B", "trials_per_gpu": 2}}],
)
def test_an_unknown_gpu_is_measured(
    on_cuda: SimpleNamespace, notes: Any, config: SearchConfig, data: SearchData
) -> None:
    on_cuda.notes = notes
    assert slots_for(on(config), data, on_cuda.said.append) == Slots(8, 1, 0.25, "cuda")
    assert on_cuda.num_measured == 1
    (line,) = on_cuda.said
    assert "4 at a time; evaluations a second by how many: 1: 10.0, 2: 19.5, 4: 30.0" in line


def test_a_study_keeps_to_what_it_has_noted(
    on_cuda: SimpleNamespace, config: SearchConfig, data: SearchData
) -> None:
    on_cuda.notes = {"gpu_share": {"hardware": "GPU A", "trials_per_gpu": 2}}
    assert slots_for(on(config), data, on_cuda.said.append) == Slots(4, 1, 0.5, "cuda")
    assert on_cuda.num_measured == 0


@pytest.mark.parametrize(
    ("resources", "slots"),
    [
        ({"gpus_per_trial": 0.5}, Slots(4, 1, 0.5, "cuda")),
        ({"gpus_per_trial": None}, Slots(2, 1, 1.0, "cuda")),
        ({"device": "cpu"}, Slots(16, 1, 0.0, "cpu")),
    ],
)
def test_nothing_is_measured_where_the_share_is_given_or_there_is_no_gpu(
    on_cuda: SimpleNamespace,
    config: SearchConfig,
    data: SearchData,
    resources: dict[str, Any],
    slots: Slots,
) -> None:
    assert slots_for(on(config, **resources), data, on_cuda.said.append) == slots
    assert (on_cuda.num_measured, on_cuda.said) == (0, [])


# Too many


@pytest.mark.parametrize(
    ("asked", "share", "is_too_dense"),
    [("auto", 0.25, True), ("auto", 1.0, False), ("auto", 0.0, False), (0.25, 0.25, False)],
)
def test_only_a_measured_share_gives_way(asked: Any, share: float, is_too_dense: bool) -> None:
    crowd = Crowd(Slots(4, 1, share, "cpu"), Resources(gpus_per_trial=asked))
    crowd.note_out_of_memory()
    assert crowd.is_too_dense is is_too_dense


def test_half_as_many_share_a_gpu_after_one_had_too_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("search.crowd.machines", lambda: [MACHINE])
    crowd = Crowd(Slots(8, 1, 0.25, "cpu"), Resources(gpus_per_trial="auto"))
    crowd.note_out_of_memory()
    assert crowd.thin_out()["trials_per_gpu"] == 2
    assert (crowd.slots, crowd.is_too_dense) == (Slots(4, 1, 0.5, "cpu"), False)
    assert gpu_share_note(Slots(1, 1, 1.0, "cpu"))["trials_per_gpu"] == 1


# Processes


def test_of_a_long_error_its_first_line_is_the_reason() -> None:
    error = RuntimeError("CUDA error: out of luck\nCompile with TORCH_USE_CUDA_DSA to see where.")
    assert _reason(error) == "RuntimeError: CUDA error: out of luck"
    assert _reason(RuntimeError()) == "RuntimeError: no reason given"


@pytest.fixture
def tried(config: SearchConfig, data: SearchData) -> TrialConfig:
    return drawn_configs(config.space, config.training, Limits(data, 5_000, None))[0]


@pytest.fixture
def on_a_declared_gpu(data: SearchData, monkeypatch: pytest.MonkeyPatch) -> TrialJob:
    """Trials on CPUs whose processes ask for a share of a GPU."""
    monkeypatch.setattr("search.gpu_probe.PROBE_SECONDS", 1.0)
    return TrialJob((data,), "mae", Slots(2, 0.5, 1.0, "cpu"), 0.0)


@pytest.mark.slow
def test_processes_run_trials_at_the_same_time(
    local_ray: None, on_a_declared_gpu: TrialJob, tried: TrialConfig
) -> None:
    with GpuProbe(on_a_declared_gpu, 2, pytest.fail) as probe:
        assert probe.memory_of(tried) == Memory(0, 0)
        assert probe.rate(tried, 2) > 0


@pytest.mark.slow
def test_processes_that_break_get_nothing_done(
    local_ray: None, on_a_declared_gpu: TrialJob, tried: TrialConfig
) -> None:
    too_long = tried.training.model_copy(update={"lookback": 100_000})
    said: list[str] = []
    with GpuProbe(on_a_declared_gpu, 2, said.append) as probe:
        assert probe.memory_of(tried.model_copy(update={"training": too_long})) is None
        assert probe.rate(tried.model_copy(update={"training": too_long}), 2) == 0
    assert "1 at a time broke (ValueError: " in said[0]
    assert "2 at a time broke (ValueError: " in said[1]
