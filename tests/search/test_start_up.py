"""Nothing that a search does not need yet delays its first trial."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pipelines.hardware import has_nvidia_driver
from search import cluster
from search.config import ConfigError, Resources


def run(program: str, *arguments: str) -> Any:
    """What a program in a process of its own prints last, as JSON."""
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def test_a_search_on_this_machine_is_imported_without_mlflow_and_torch() -> None:
    loaded = run(
        """
        import json, sys
        import search.commands, search.cluster, search.search
        print(json.dumps(sorted({"mlflow", "matplotlib", "torch"} & sys.modules.keys())))
        """
    )
    assert loaded == []


def test_what_a_worker_imports_holds_neither_record_nor_view() -> None:
    loaded = run(
        """
        import json, sys
        import search.trial, search.trial_actor
        print(json.dumps(sorted({"mlflow", "optuna", "sqlalchemy"} & sys.modules.keys())))
        """
    )
    assert loaded == []


@pytest.mark.parametrize(
    ("num_cores", "has_gpu", "settings", "is_worth_it"),
    [
        (2, False, {"max_concurrent": 1}, True),
        (8, True, {}, True),
        (64, False, {}, True),
        (64, False, {"max_concurrent": 32}, True),
        (64, False, {"max_concurrent": 4}, False),
        (64, False, {"cpus_per_trial": 8}, False),
        (64, True, {}, False),
        (64, True, {"device": "cpu"}, True),
    ],
)
def test_workers_import_torch_beforehand_where_most_of_them_will_need_it(
    num_cores: int,
    has_gpu: bool,
    settings: dict[str, Any],
    is_worth_it: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: num_cores)
    monkeypatch.setattr(cluster, "has_nvidia_driver", lambda: has_gpu)
    assert cluster._uses_most_cores(Resources(**settings)) == is_worth_it


@pytest.mark.slow  # a Ray of its own
def test_trials_run_in_workers_that_were_started_and_have_imported_torch_and_the_driver_has_not(
    tmp_path: Path,
) -> None:
    seen = run(
        """
        import json, sys, time
        from pathlib import Path
        import psutil
        from search.cluster import connect, ray
        from search.config import Resources
        from search.config_file import parse_config

        def workers():
            for process in psutil.Process().children(recursive=True):
                if "ray::IDLE" in process.name() + " ".join(process.cmdline()):
                    if "libtorch" in Path(f"/proc/{process.pid}/maps").read_text():
                        yield process.pid

        connect(Resources(device="cpu"), is_verbose=False)
        until = time.monotonic() + 120
        count = int(ray.cluster_resources()["CPU"])
        while len(ready := set(workers())) < count and time.monotonic() < until:
            time.sleep(0.1)
        from search.search import run_search
        result = run_search(
            parse_config(
                {
                    "home": sys.argv[1],
                    "search": {"trials": 2},
                    "training": {"max_steps": 2},
                    "resources": {"max_concurrent": 1, "device": "cpu"},
                }
            ),
            is_quiet=True,
        )
        used = {trial.ran_on["pid"] for trial in result.trials if trial.evaluations}
        driver = "torch" in sys.modules
        print(json.dumps({"ready": sorted(ready), "used": sorted(used), "driver": driver}))
        """,
        str(tmp_path),
    )
    assert len(seen["ready"]) >= 1
    assert set(seen["used"]) <= set(seen["ready"])
    assert seen["driver"] is has_nvidia_driver()  # which asks whether torch can use the GPU


@pytest.mark.slow  # a Ray of its own
def test_ray_that_was_started_meanwhile_outlives_the_thread_that_started_it() -> None:
    answer = run(
        """
        import json
        from search.cluster import connect, connect_meanwhile, ray
        from search.config import Resources

        connect_meanwhile(Resources(), is_verbose=False)
        connect(Resources(), is_verbose=False)

        @ray.remote
        def answer():
            return 7

        print(json.dumps(ray.get(answer.remote())))
        """
    )
    assert answer == 7


def test_what_a_cluster_refuses_beside_the_imports_is_said_once_and_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def refuse(address: str, *_: Any) -> None:
        asked.append(address)
        raise ConfigError(f"nobody answers at {address}")

    monkeypatch.setattr(cluster, "_join", refuse)
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    here, there = Resources(address="host1:6379"), Resources(address="host2:6379")
    with pytest.raises(ConfigError):
        cluster.connect(here, is_verbose=False, is_meanwhile=True)
    with pytest.raises(ConfigError, match="host2"):  # another cluster is asked itself
        cluster.connect(there, is_verbose=False)
    assert asked == ["host1:6379", "host2:6379"]
    with pytest.raises(ConfigError, match="host1"):
        cluster.connect(here, is_verbose=False)
    assert len(asked) == 2
    with pytest.raises(ConfigError, match="host1"):
        cluster.connect(here, is_verbose=False)
    assert len(asked) == 3


def test_the_service_for_gpus_of_this_machine_is_refused_with_a_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    resources = Resources(address="host1:6379", mps=True)
    with pytest.raises(ConfigError, match="on this machine alone: got a cluster at host1:6379"):
        cluster.connect(resources, is_verbose=False)


def test_a_process_that_ends_early_waits_for_the_ray_that_it_is_starting() -> None:
    # In the middle of it gRPC would abort the process.
    seen = run(
        """
        import json, time
        from search import cluster
        from search.config import Resources

        def connect(resources, is_verbose, is_meanwhile):
            time.sleep(0.5)
            print(json.dumps("connected"), flush=True)

        cluster.connect = connect
        cluster.connect_meanwhile(Resources(), is_verbose=False)
        """
    )
    assert seen == "connected"


@pytest.mark.slow  # a Ray of its own
def test_a_ray_of_ones_own_has_the_processes_that_one_machine_needs_and_no_others() -> None:
    commands = run(
        """
        import json
        import psutil
        from search.cluster import connect
        from search.config import Resources

        connect(Resources(device="cpu"), is_verbose=False)
        print(json.dumps([" ".join(child.cmdline()) for child in psutil.Process().children()]))
        """
    )
    gcs_server, raylet = sorted(commands)
    assert "gcs_server" in gcs_server
    assert "agent.py" in raylet
    assert "--minimal" in raylet  # as an agent starts where ray[default] is not installed
