"""Ray itself: started here or joined elsewhere, and whether each of its nodes can run trials."""

import atexit
import ctypes
import gc
import logging
import os
import platform
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from typing import Any
from unittest.mock import patch

from search.cluster_token import keep_token_to_owner, use_token_if_there

# Ray reads these when it is imported: it phones nobody, and its own screen and files stay off.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray prints it whatever its log level is; the trial's own line says the same.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^A worker died or was killed while executing",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Tune's own snapshots, for a restore that never happens, grow with the number of trials.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}.items():
    os.environ.setdefault(_name, _value)
use_token_if_there()

import ray  # noqa: E402
from ray._private import ray_constants  # noqa: E402
from ray._private import utils as ray_utils  # noqa: E402
from ray._private.authentication.authentication_utils import is_token_auth_enabled  # noqa: E402
from ray._private.node import Node  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

from pipelines.hardware import has_nvidia_driver, torch_finds_gpu  # noqa: E402
from search.config import ConfigError, Resources  # noqa: E402
from search.environment import variables_set  # noqa: E402
from search.mps import mps_environment  # noqa: E402
from search.slots import MOST_ON_ONE_GPU, Slots, num_fitting  # noqa: E402
from search.source import FLOORS, PROJECT, python_path  # noqa: E402

# Before Ray ends with the process, since registered after it. An interrupted search leaves garbage
# that refers to Ray's objects; collected by another thread while Ray ends, it makes Ray end the
# process at once, with exit code 1.
atexit.register(gc.freeze)

START_SECONDS = 60.0  # for Ray to start on this machine
KNOCK_SECONDS = 10.0  # for a cluster to answer
PREFLIGHT_SECONDS = 120.0  # for all its nodes, which may load torch from a slow disk
MOST_SPARE_WORKERS = 8  # that may import torch, a quarter of a GiB, in case that they are needed

_MUST_BE_EQUAL = ("torch", "numpy", "pydantic", "safetensors")
"""Packages that a trial computes with, or that the processes talk by."""


_connecting = threading.Lock()
_refusals: dict[str | None, ConfigError] = {}
"""Why Ray could not be joined at an address, or started, beside the imports; until it is said."""
_asked: dict[str, Any] = {}
"""What the nodes of a joined cluster were asked beforehand, until `check_nodes` reads it."""


def connect_meanwhile(resources: Resources, is_verbose: bool) -> None:
    """Start or join Ray beside the imports that a search needs.

    `connect` then waits for it, and so does the end of the process, which would be aborted in the
    middle of it. `connect` raises what was refused; after anything else that went wrong it tries
    again.
    """
    is_settled = threading.Event()

    def start() -> None:
        with suppress(Exception):
            connect(resources, is_verbose, is_meanwhile=True)
        is_settled.set()
        # Linux ends Ray's processes with the thread that has started them.
        threading.Event().wait()

    atexit.register(is_settled.wait, START_SECONDS)
    threading.Thread(target=start, name="ray", daemon=True).start()


def connect(resources: Resources, is_verbose: bool, is_meanwhile: bool = False) -> None:
    """Connect to the cluster at `resources.address`, or start Ray on this machine.

    A cluster is sent the code of this project, from which its workers run. An initialised Ray is
    used as it is. It is left running, for the next search of this process, and ends with the
    process. Signal handlers that Ray replaces are put back.

    Args:
        resources: where, and what for.
        is_verbose: let Ray's own messages through.
        is_meanwhile: keep what is refused for the next call.

    Raises:
        ConfigError: where no cluster answers at the address, or one of other versions.
    """
    # Tune calls failed trials errors of its own, and the record tells of them already.
    logging.getLogger("ray.tune").setLevel(logging.INFO if is_verbose else logging.CRITICAL)
    with _connecting:
        if ray.is_initialized():
            return
        address = _joined_address(resources)
        if address in _refusals:
            raise _refusals.pop(address)
        level = logging.INFO if is_verbose else logging.ERROR
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(level)
        says = {"log_to_driver": is_verbose, "logging_level": level}
        try:
            with _refusals_explained(), signal_handlers_kept():
                if address is None:
                    _start(resources, says)
                else:
                    _join(address, resources, says)
        except ConfigError as refusal:
            if is_meanwhile:
                _refusals[address] = refusal
            raise


def _join(address: str, resources: Resources, says: Mapping[str, Any]) -> None:
    if resources.mps:
        raise ConfigError(
            f"resources.mps starts a service on this machine alone: got a cluster at {address}; "
            "start it on each node before Ray (docs/gpu.md), and drop resources.mps"
        )
    _check_that_it_answers(address)
    environment = {
        "env_vars": WORKER_ENVIRONMENT,
        "py_modules": [str(PROJECT / floor) for floor in FLOORS],
        "excludes": ["__pycache__"],
    }
    ray.init(address=address, runtime_env=environment, **says)
    for node in living_nodes():  # they answer beside the driver's imports
        _asked[node["NodeID"]] = _ask(node)


def _start(resources: Resources, says: Mapping[str, Any]) -> None:
    keep_token_to_owner()
    # The processes inherit it. As a `runtime_env` it would make Ray discard the workers that it
    # starts at once, and start others as soon as its agent is up.
    inherited = WORKER_ENVIRONMENT | (_prepared_workers() if _uses_most_cores(resources) else {})
    if resources.mps:
        inherited |= mps_environment()
    with _loopback_only(), _few_processes(says["log_to_driver"]), variables_set(inherited):
        # Without "local" Ray would join whatever cluster was last started on this machine.
        ray.init(address="local", include_dashboard=False, **says)


def _uses_most_cores(resources: Resources) -> bool:
    """Whether few of the workers that Ray starts, one a core, would import torch for nothing."""
    num_cores = os.cpu_count() or 1
    if num_cores <= MOST_SPARE_WORKERS:
        return True
    if resources.device != "cpu" and has_nvidia_driver():
        # Else trials run as GPUs, or shares of them, allow: how many is not known yet.
        return resources.gpus_per_trial == "auto" and num_cores <= MOST_ON_ONE_GPU
    count = int(num_cores / resources.cpus_per_trial)
    return num_cores <= 2 * min(count, resources.max_concurrent or count)


def _prepared_workers() -> dict[str, str]:
    """What lets workers import, while nothing is asked of them yet, what trials need."""
    return {
        # pydantic reads the sources of settings, the longer the more modules there are.
        "RAY_preload_python_modules": "search.config,search.trial_actor,search.trial",
        "PYTHONPATH": python_path(),
    }


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Let a Ray that starts within listen on 127.0.0.1, where it would on every address.

    By the switch that makes it so on macOS and Windows: Ray has no other for a cluster of one.
    """
    switch = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    with (
        patch.object(ray_constants, "ENABLE_RAY_CLUSTER", False),
        variables_set({switch: "0"}),
    ):
        yield


@contextmanager
def _few_processes(has_log_monitor: bool) -> Iterator[None]:
    """Let a Ray that starts within leave out what a cluster of one does not use.

    The autoscaler, the dashboard (Ray 2.60 starts its process without it too), what brings the
    workers' output to the driver, and what the agent of the dashboard loads where `ray[default]`
    is installed. Ray has no switch for it.
    """
    spared = ["start_monitor", "start_api_server"]
    spared += [] if has_log_monitor else ["start_log_monitor"]
    with ExitStack() as stack:
        for name in spared:
            stack.enter_context(patch.object(Node, name, lambda *_, **__: None))
        is_missing = patch.object(ray_utils, "get_dashboard_dependency_error", ImportError)
        stack.enter_context(is_missing)
        yield


def _joined_address(resources: Resources) -> str | None:
    address = resources.address or os.environ.get("RAY_ADDRESS")
    return None if address == "local" else address or None


@contextmanager
def _refusals_explained() -> Iterator[None]:
    try:
        yield
    except (ray.exceptions.AuthenticationError, ConnectionError) as error:
        # Ray 2.60 says this of a wrong token, other things where it finds or starts no cluster.
        if isinstance(error, ConnectionError) and "Failed to connect to Ray" not in str(error):
            raise
        raise ConfigError(
            "a cluster wants its token: it lets nobody in with the one that is here, or with none "
            f"({type(error).__name__}); name the file with its token by RAY_AUTH_TOKEN_PATH"
        ) from None
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise
        raise ConfigError(
            "the cluster must run this machine's Python and Ray: "
            f"{' '.join(str(error).split())}; start the search with the cluster's versions"
        ) from None


def _check_that_it_answers(address: str) -> None:
    # Ray itself would knock for minutes, and print a warning each time.
    host, _, port = address.rpartition(":")
    if "//" in address or not port.isdigit():
        return  # `auto` and the like
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
    except OSError as error:
        raise ConfigError(
            f"no Ray cluster answers at {address} ({error}): correct --address or RAY_ADDRESS, or "
            "start one there"
        ) from None


def machines() -> list[dict[str, float]]:
    """What each connected machine has of CPU, GPU and other resources."""
    return [node["Resources"] for node in living_nodes()]


def living_nodes() -> list[dict[str, Any]]:
    """The connected machines, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def check_nodes(slots: Slots, resources: Resources) -> None:
    """See that each node that can take a trial answers, with the versions and the device of here.

    A Ray that was started here has them.

    Raises:
        ConfigError: naming the first node that does not, and in what it differs.
    """
    nodes = living_nodes()
    if len(nodes) == 1 and _joined_address(resources) is None:
        return
    needs = slots.cpus_per_trial, slots.gpus_per_trial
    asked = {
        _asked.pop(node["NodeID"], None)
        or _ask(node): f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        for node in nodes
        if num_fitting(node["Resources"], *needs)
    }
    answered, silent = ray.wait(
        list(asked), num_returns=len(asked), timeout=PREFLIGHT_SECONDS, fetch_local=False
    )
    for answer in answered:
        _check_answer(answer, asked[answer], slots.device)
    if silent:
        raise ConfigError(
            f"every node must answer within {PREFLIGHT_SECONDS:g} s: {asked[silent[0]]} does not; "
            "see that its ports are reachable, or take it out of the cluster"
        )


def _check_answer(answer: Any, node: str, device: str) -> None:
    try:
        found: dict[str, str] = ray.get(answer)
    except ray.exceptions.RayError as error:
        raise ConfigError(
            f"every node must run this project: {node} cannot: {_last_line(error)}; install "
            "lstm-search[cluster] there, or take the node out of the cluster"
        ) from None
    differences = [
        f"{name} is {found[name]} there and {here} here"
        for name, here in _surroundings().items()
        if found[name] != here
    ]
    if differences:
        raise ConfigError(
            f"every node must run what this one runs: on {node} {', '.join(differences)}; install "
            "the same there (constraints.txt)"
        )
    if found["token"] != _asks_for_token():  # only so: with a token it would not have let us in
        raise ConfigError(
            f"a cluster without a token must be joined without one: {node} shows none, and a token "
            "here (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token) makes this search ask "
            "for it; set RAY_AUTH_MODE=disabled, or start the cluster with a token "
            "(docs/cluster.md)"
        )
    if device == "cuda" and found["CUDA"] == "no":
        raise ConfigError(
            "every node that gives a trial a GPU must have CUDA: torch finds none on "
            f"{node}; mend its driver, or choose --device cpu"
        )


def _ask(node: Mapping[str, Any]) -> Any:
    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return _look_around.options(scheduling_strategy=there).remote()


@ray.remote(num_cpus=0, max_retries=0)  # type: ignore[untyped-decorator]
def _look_around() -> dict[str, str]:
    # Without a GPU also without torch: the first trials would wait while it loads.
    found = "yes" if torch_finds_gpu() else "no"
    return _surroundings() | {"CUDA": found, "token": _asks_for_token()}


def _asks_for_token() -> str:
    return "yes" if is_token_auth_enabled() else "no"


def _surroundings() -> dict[str, str]:
    packages = {name: version(name).partition("+")[0] for name in _MUST_BE_EQUAL}
    return {"Python": platform.python_version(), **packages}


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


WORKER_ENVIRONMENT = {
    # glibc otherwise returns and maps again the memory of every large batch: half of a step.
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
    # Without it cuBLAS does not promise equal results for equal seeds.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
"""Of every process in which a trial runs, before it starts."""


@contextmanager
def signal_handlers_kept() -> Iterator[None]:
    """Put back the signal handlers that Ray replaces within, in whatever thread."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    handlers = {number: signal.getsignal(number) for number in numbers}
    actions = {number: _action(number) for number in numbers}
    try:
        yield
    finally:
        # Python's own, which Ray replaces in the main thread, where alone they can be put back.
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                if handler is not None:  # None: set by other than Python, and not ours to know
                    signal.signal(number, handler)
        # The process's, which Ray replaces beneath them: at SIGTERM it would dump its stack.
        for number, action in actions.items():
            _libc.sigaction(number, action, None)


_libc = ctypes.CDLL(None)


def _action(number: int) -> ctypes.Array[ctypes.c_char]:
    """What the process does at a signal, as `sigaction` has it."""
    action = ctypes.create_string_buffer(256)  # longer than the structure is anywhere
    _libc.sigaction(number, None, action)
    return action


def session_folder() -> str:
    """Where the connected Ray keeps its temporary files on this machine."""
    return str(ray._private.worker.global_worker.node.get_session_dir_path())
