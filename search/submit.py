"""A search as a job of a Ray cluster: `python -m search submit`, safe to be tried again.

A study has one job at a time, found by the study's name. Ray shows a job's command, settings and
log to whoever may ask the cluster, so none of the three holds a secret.
"""

import asyncio
import ipaddress
import logging
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from search.cluster_token import use_token_if_there

use_token_if_there()

import aiohttp  # noqa: E402
import ray.exceptions  # noqa: E402
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient  # noqa: E402

from pipelines.printable import printable  # noqa: E402
from search.config import ConfigError, SearchConfig  # noqa: E402
from search.outcome import EXIT_BROKEN, EXIT_NOT_PASSED, EXIT_TERMINATED  # noqa: E402
from search.source import copy_source  # noqa: E402

STOP_SECONDS = 120
"""What a search that is stopped has to end in order, before Ray ends it."""

LOST_SECONDS = 300.0
"""How long a cluster may be away while its job is followed."""

_NUM_RACES = 20
_LOOK_SECONDS = 1.0
_SENT = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME")
"""Settings of the environment that a search here would heed, and that hold no secret."""


@dataclass(frozen=True)
class Job:
    """One attempt at a study."""

    id: str
    study: str
    number: int
    command: str
    state: str
    """pending, running, stopped, succeeded or failed."""
    is_over: bool
    exit_code: int | None
    """None until it is over."""
    started: datetime | None
    ended: datetime | None
    message: str


@dataclass(frozen=True)
class Request:
    """What a job is to do."""

    study: str
    arguments: Sequence[str]
    """Flags of `python -m search.run`, without the study."""
    config: SearchConfig
    """What they ask for."""
    files: Sequence[Path]
    """Files that they name by relative paths; they are sent along."""

    @property
    def command(self) -> str:
        """For the shell of the cluster's head; record and view lie where that machine says."""
        flags = shlex.join([*self.arguments, f"--study={self.study}"])
        # exec: the signal that stops the job reaches the search itself.
        search = f"exec python -m search.run {flags}"
        if self.config.home is not None:
            return search
        return f'export LSTM_SEARCH_HOME="${{LSTM_SEARCH_HOME:-$HOME/mlruns}}"; {search}'


class Jobs:
    """The jobs of one cluster.

    Raises:
        ConfigError: where the address is none, nobody answers there, or the token is refused.
    """

    def __init__(self, address: str, is_insecure: bool = False):
        for name in ("", ".dashboard.modules.dashboard_sdk", ".dashboard.modules.job.sdk"):
            # It would speak of each package that it sends and each connection that ends.
            logging.getLogger(f"ray{name}").setLevel(logging.ERROR)
        check_address(address, is_insecure)
        self.address = address
        with self._refusals_explained():
            self._client = JobSubmissionClient(address)

    def submit(self, request: Request) -> tuple[Job, bool]:
        """The study's job: the one that runs or is done, else a new one that goes on with it.

        Returns:
            The job, and whether it is new.

        Raises:
            ConfigError: where the study runs with other flags.
        """
        for _ in range(_NUM_RACES):
            last = self.latest(request.study)
            if last is not None and self._is_answer(last, request):
                return last, False
            new = f"{request.study}~{1 if last is None else last.number + 1}"
            try:
                self._submit(new, request)
            except RuntimeError:
                # A name is taken once: then somebody else's command was first.
                if not any(job.id == new for job in self._all()):
                    raise
                continue
            return self._job(new), True
        raise RuntimeError(f"{_NUM_RACES} other commands submitted study {request.study} first")

    def _is_answer(self, last: Job, request: Request) -> bool:
        is_same = last.command == request.command
        if not last.is_over and not is_same:
            raise ConfigError(
                f"a study has one search at a time: job {last.id} searches {request.study} with "
                f"other flags ({printable(last.command)}); wait for it, or stop it by python -m "
                f"search job stop {request.study} --address {self.address}"
            )
        return is_same and (not last.is_over or last.exit_code in (0, EXIT_NOT_PASSED))

    def _submit(self, id_: str, request: Request) -> None:
        settings = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **sent_settings(os.environ)}
        with tempfile.TemporaryDirectory() as folder:
            copy_source(Path(folder))
            for file in request.files:
                copy = Path(folder, file)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
            with self._refusals_explained():
                self._client.submit_job(
                    entrypoint=request.command,
                    submission_id=id_,
                    runtime_env={"working_dir": folder, "env_vars": settings},
                    metadata={"study": request.study},
                )

    def latest(self, study: str) -> Job | None:
        """The study's last job; None where the cluster knows of none."""
        found = [job for job in self._all() if job.study == study]
        return max(found, key=lambda job: job.number, default=None)

    def follow(self, job: Job, say: Callable[[str], None]) -> Job:
        """Hand on a job's log as it grows; return the job at its end.

        Raises:
            ConnectionError: where the cluster was away for too long; the job may go on.
        """
        num_said = 0
        until = time.monotonic() + LOST_SECONDS
        while True:
            try:
                num_said = asyncio.run(self._tail(job.id, num_said, say))
                if (now := _job(self._client.get_job_info(job.id))).is_over:
                    return now
                until = time.monotonic() + LOST_SECONDS
            except (aiohttp.ClientError, OSError, RuntimeError) as error:
                if time.monotonic() > until:
                    raise ConnectionError(
                        f"no answer from {self.address} for {LOST_SECONDS:g} s ({error})"
                    ) from None
            time.sleep(_LOOK_SECONDS)

    async def _tail(self, id_: str, num_said: int, say: Callable[[str], None]) -> int:
        """Hand on what follows the first `num_said` characters; return how many are known then."""
        num_read = 0
        # Ray begins each time at the log's first line.
        async for text in self._client.tail_job_logs(id_):
            num_read += len(text)
            if num_read > num_said:
                say(text[-(num_read - num_said) :])
                num_said = num_read
        return num_said

    def log(self, job: Job) -> str:
        """What a job has printed so far."""
        with self._refusals_explained():
            return str(self._client.get_job_logs(job.id))

    def stop(self, job: Job) -> Job:
        """End a job in order, its record whole; return it when it is over.

        Raises:
            RuntimeError: where it is not over long after it had to be.
        """
        with self._refusals_explained():
            self._client.stop_job(job.id)
        until = time.monotonic() + 2 * STOP_SECONDS
        while not (now := self._job(job.id)).is_over:
            if time.monotonic() > until:
                raise RuntimeError(f"job {job.id} is {now.state} {2 * STOP_SECONDS} s after it")
            time.sleep(_LOOK_SECONDS)
        return now

    def _job(self, id_: str) -> Job:
        with self._refusals_explained():
            return _job(self._client.get_job_info(id_))

    def _all(self) -> list[Job]:
        with self._refusals_explained():
            found = self._client.list_jobs()
        # The cluster may have jobs of other programs.
        return [_job(details) for details in found if _is_ours(details)]

    @contextmanager
    def _refusals_explained(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # as are the errors of its HTTP client
            raise ConfigError(
                f"no cluster's dashboard answers at {self.address}: correct --address or "
                "RAY_API_SERVER_ADDRESS, or start the head with --include-dashboard=true"
            ) from None
        except ray.exceptions.AuthenticationError:
            raise ConfigError(_WHO_GETS_IN) from None
        except RuntimeError as error:
            if not re.search(r"status code (401|403)", str(error)):
                raise
            raise ConfigError(_WHO_GETS_IN) from None


_WHO_GETS_IN = (
    "a cluster wants its token: it lets nobody in with the one that is here, or with none; name "
    "the file with its token by RAY_AUTH_TOKEN_PATH"
)


def check_address(address: str, is_insecure: bool) -> None:
    """See that an address is one, and that no token crosses a network for all to read.

    Raises:
        ConfigError: otherwise.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ConfigError(
            "--address is that of a cluster's dashboard, http://HOST:8265 without a log-in: got "
            f"{printable(parts._replace(netloc=parts.netloc.rpartition('@')[2]).geturl())}; "
            "correct it"
        )
    is_open = parts.scheme == "http" and not _is_this_machine(parts.hostname)
    if is_open and os.environ.get("RAY_AUTH_MODE", "").lower() == "token" and not is_insecure:
        raise ConfigError(
            "the token goes to another host by https:// only, for plain HTTP can be read on the "
            f"way: got {printable(address)}; use https://, a tunnel (ssh -L 8265:127.0.0.1:8265 "
            f"{parts.hostname}), or --insecure on a network that you trust"
        )


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def sent_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What of an environment goes with a job; the rest, and every secret, is the cluster's own.

    Raises:
        ConfigError: where the address of MLflow has a log-in in it.
    """
    sent = {name: environment[name] for name in _SENT if environment.get(name)}
    uri = sent.get("MLFLOW_TRACKING_URI", "")
    if not uri.startswith(("http://", "https://")):
        sent.pop("MLFLOW_TRACKING_URI", None)  # a store on this machine's disk
    _check_no_login("MLFLOW_TRACKING_URI", uri)
    return sent


def request(
    study: str, arguments: Sequence[str], config: SearchConfig, config_file: Path | None
) -> Request:
    """What a job is to do.

    Args:
        study: its name.
        arguments: flags of `python -m search.run`, without the study.
        config: what they ask for.
        config_file: the one that they name.

    Raises:
        ConfigError: where they hold a log-in, or name a place that the job would lose.
    """
    _check_no_login("--storage", config.storage or "")
    _check_no_login("--tracking-uri", config.tracking.uri or "")
    if config.resources.address is not None:
        raise ConfigError(
            "a job searches on the cluster that it is submitted to: drop --address behind the --"
        )
    if config.home is not None and not config.home.startswith("/"):
        raise ConfigError(
            "the folder of a job is deleted with it, so --home is an absolute path on the "
            f"cluster's head: got {printable(config.home)}; name one, or leave --home out"
        )
    files = [] if config_file is None else [config_file]
    if config.data.path is not None and "://" not in config.data.path:
        files += _matching(config.data.path)
    for file in files:
        if ".." in file.parts:
            raise ConfigError(
                "files are sent from below this folder: got "
                f"{printable(str(file))}; change to a folder above it, or put it on the cluster "
                "and name it by its absolute path there"
            )
    return Request(study, arguments, config, [file for file in files if not file.is_absolute()])


def _matching(path: str) -> list[Path]:
    """The files of a path or pattern here; an absolute one is the cluster's own."""
    if Path(path).is_absolute():
        return []
    found = [Path(path)] if Path(path).is_file() else sorted(Path().glob(path))
    if not found:
        raise ConfigError(
            f"a table named by a relative path is sent from here: no file {printable(path)}; "
            "correct it, or name a table of the cluster by its absolute path or URL"
        )
    return found


def _check_no_login(what: str, url: str) -> None:
    userinfo = url.partition("//")[2].partition("/")[0].rpartition("@")[0]
    if ":" in userinfo or "password=" in url:
        raise ConfigError(
            f"a job's command and settings are for all to read: {what} has a password in it; give "
            "it to the cluster's own environment (PGPASSWORD, or MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD)"
        )


def _is_ours(details: JobDetails) -> bool:
    id_, metadata = details.submission_id, details.metadata or {}
    return bool(id_ and re.fullmatch(re.escape(metadata.get("study", "")) + r"~\d+", id_))


def _job(details: JobDetails) -> Job:
    status = details.status
    is_over = status.is_terminal()
    exit_code = details.driver_exit_code
    if status is JobStatus.STOPPED:
        exit_code = EXIT_TERMINATED
    elif is_over and exit_code is None:  # it did not begin, or its node is gone
        exit_code = EXIT_BROKEN
    elif exit_code is not None and exit_code < 0:
        exit_code = 128 - exit_code  # ended by a signal, as shells say it
    study, _, number = str(details.submission_id).rpartition("~")
    return Job(
        str(details.submission_id),
        study,
        int(number),
        details.entrypoint,
        str(status.value).lower(),
        is_over,
        exit_code,
        _time(details.start_time),
        _time(details.end_time),
        details.message or "",
    )


def _time(milliseconds: int | None) -> datetime | None:
    if not milliseconds:
        return None
    return datetime.fromtimestamp(milliseconds / 1000).astimezone()
