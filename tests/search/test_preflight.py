"""What each node of a cluster is asked before the first trial, through a real Ray."""

import os
import time

import pytest

from search import cluster
from search.cluster import check_nodes, ray
from search.config import ConfigError, Resources
from search.slots import Slots

pytestmark = pytest.mark.slow

JOINED = Resources(address="10.77.0.1:6379")
"""Of a cluster; what is connected here is used as it is."""
CPU = Slots(2, 1, 0.0, "cpu")


def test_a_node_like_this_one_passes(local_ray: None) -> None:
    check_nodes(CPU, JOINED)


def test_a_cluster_of_one_node_is_asked_as_well(
    local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "version", lambda name: "2.11.0" if name == "torch" else "0")
    with pytest.raises(ConfigError, match=r"on .* \(.*\) torch is .* there and 2\.11\.0 here"):
        check_nodes(CPU, JOINED)


def test_a_node_that_stays_silent_is_named(
    local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    @ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
    def sleep() -> None:
        time.sleep(30)

    monkeypatch.setattr(cluster, "_look_around", sleep)
    monkeypatch.setattr(cluster, "PREFLIGHT_SECONDS", 0.5)
    node = os.uname().nodename
    with pytest.raises(ConfigError, match=rf"answer within 0\.5 s: {node} \(.*\) does not; see"):
        check_nodes(CPU, JOINED)


def test_a_node_whose_torch_finds_no_cuda_is_named(
    local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    @ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
    def without_cuda() -> dict[str, str]:
        return cluster._surroundings() | {"CUDA": "no", "token": cluster._asks_for_token()}

    monkeypatch.setattr(cluster, "_look_around", without_cuda)
    with pytest.raises(ConfigError, match="torch finds none on"):
        check_nodes(Slots(1, 1, 1.0, "cuda"), JOINED)


def test_a_node_that_cannot_import_the_project_is_named(
    local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    @ray.remote(num_cpus=0, max_retries=0)  # type: ignore[untyped-decorator]
    def without_project() -> None:
        raise ModuleNotFoundError("No module named 'pydantic'")

    monkeypatch.setattr(cluster, "_look_around", without_project)
    with pytest.raises(ConfigError, match=r"cannot: .*No module named 'pydantic'; install lstm"):
        check_nodes(CPU, JOINED)


def test_what_was_asked_beforehand_is_read_once(
    local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (node,) = ray.nodes()
    another = ray.put(cluster._surroundings() | {"torch": "1.0", "CUDA": "no"})
    monkeypatch.setattr(cluster, "_asked", {node["NodeID"]: another})
    with pytest.raises(ConfigError, match=r"torch is 1\.0 there"):
        check_nodes(CPU, JOINED)
    check_nodes(CPU, JOINED)
