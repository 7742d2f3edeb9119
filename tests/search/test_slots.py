"""How many trials fit on the machines there are."""

import re
from typing import Any

import pytest

from search.config import ConfigError, Resources
from search.slots import Slots, plan_slots

LAPTOP = {"CPU": 2.0, "memory": 8e9}
WORKSTATION = {"CPU": 2.0, "GPU": 1.0}
CLUSTER = [{"CPU": 4.0}, {"CPU": 16.0, "GPU": 2.0}, {"GPU": 8.0}]


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({}, 2),
        ({"max_concurrent": 1}, 1),
        ({"max_concurrent": 9}, 2),
        ({"cpus_per_trial": 2}, 1),
        ({"cpus_per_trial": 1.5}, 1),
        ({"cpus_per_trial": 0.1}, 20),
        ({"cpus_per_trial": 0.2}, 10),
    ],
)
def test_as_many_slots_as_the_cpus_hold(asked: dict[str, Any], count: int) -> None:
    assert plan_slots(Resources(**asked), "cpu", [LAPTOP]).count == count


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({"gpus_per_trial": 1}, 1),
        ({"gpus_per_trial": 0.5}, 2),
        ({"gpus_per_trial": 0.25}, 2),
        ({"gpus_per_trial": 0.1, "cpus_per_trial": 0.1}, 10),
        ({"gpus_per_trial": 0}, 2),
    ],
)
def test_cpus_and_gpus_bound_the_slots_of_a_machine(asked: dict[str, Any], count: int) -> None:
    assert plan_slots(Resources(**asked), "cpu", [WORKSTATION]).count == count


def test_on_cuda_a_trial_gets_a_gpu_unless_told_otherwise() -> None:
    assert plan_slots(Resources(), "cuda", [WORKSTATION]) == Slots(1, 1, 1.0, "cuda")
    assert plan_slots(Resources(), "cpu", [WORKSTATION]) == Slots(2, 1, 0.0, "cpu")


def test_the_slots_of_all_machines_add_up() -> None:
    assert plan_slots(Resources(), "cpu", CLUSTER).count == 20
    # Not 16 / 3 of the sum: a trial runs on one machine.
    assert plan_slots(Resources(cpus_per_trial=3), "cpu", CLUSTER).count == 1 + 5
    assert plan_slots(Resources(), "cuda", CLUSTER).count == 2


@pytest.mark.parametrize(
    ("asked", "machines", "message"),
    [
        ({"gpus_per_trial": 2}, [LAPTOP], "needs 2 GPUs: the cluster has 0; lower --gpus-per"),
        ({"gpus_per_trial": 1}, [LAPTOP], "needs 1 GPU: the cluster has 0; lower --gpus-per"),
        ({"gpus_per_trial": 0.5}, [], "needs 0.5 GPUs: the cluster has 0; lower --gpus-per"),
        ({"cpus_per_trial": 3}, [LAPTOP], "needs 3 CPUs: the cluster has 2; lower --cpus-per"),
        (
            {"cpus_per_trial": 17},
            CLUSTER,
            "needs 17 CPUs: the cluster has 20, at most 16 on one machine; lower --cpus-per-trial",
        ),
        (
            {"gpus_per_trial": 9},
            CLUSTER,
            "needs 9 GPUs: the cluster has 10, at most 8 on one machine; lower --gpus-per-trial",
        ),
        (
            {"gpus_per_trial": 4},
            CLUSTER,
            "needs 1 CPUs and 4 GPUs on one machine: no machine has both; lower --cpus-per-trial",
        ),
    ],
)
def test_a_trial_that_no_machine_can_hold_is_refused_with_what_there_is(
    asked: dict[str, Any], machines: list[dict[str, float]], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"a trial {message}")):
        plan_slots(Resources(**asked), "cpu", machines)


def test_a_trial_on_cuda_without_a_gpu_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"on cuda needs a GPU: got gpus_per_trial=0; raise"):
        plan_slots(Resources(gpus_per_trial=0), "cuda", [WORKSTATION])


def test_cuda_on_a_cluster_without_a_gpu_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs 1 GPU: the cluster has 0; choose --device cpu"):
        plan_slots(Resources(), "cuda", [LAPTOP, LAPTOP])


@pytest.mark.parametrize(("cpus", "threads"), [(0.5, 1), (1, 1), (2, 2), (2.5, 2)])
def test_a_trial_has_a_thread_for_each_whole_cpu(cpus: float, threads: int) -> None:
    assert Slots(1, cpus, 0, "cpu").threads_per_trial == threads
