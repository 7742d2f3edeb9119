"""What the flags of `python -m search submit` and `job` set in motion."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import typer

from pipelines.printable import printable
from search.config import ConfigError
from search.names import check_study_template, filled_in
from search.outcome import EXIT_BROKEN, EXIT_INTERRUPTED
from search.run import flags_of, read_config
from search.submit import Job, Jobs, request


def submit(
    template: str, arguments: list[str], address: str, waits: bool, is_insecure: bool
) -> int:
    """Submit a search, or find the one of this name; return its exit code, 0 without `waits`."""
    study = _name(template)
    flags = flags_of(arguments)
    for flag in ("study", "resume"):
        if flags[flag] is not None:
            raise ConfigError(
                "a submitted study is named once, and goes on by itself: drop "
                f"--{flag} behind the --, and name it by --study in front of it"
            )
    if flags["summary_json"] is not None and not flags["summary_json"].is_absolute():
        raise ConfigError(
            "the folder of a job is deleted with it, so --summary-json is an absolute path on the "
            f"cluster's head: got {printable(str(flags['summary_json']))}; name one"
        )
    wanted = request(study, arguments, read_config(flags), flags["config"])
    with _jobs(address, is_insecure) as jobs:
        job, is_new = jobs.submit(wanted)
        if is_new:
            typer.echo(f"job {job.id} submitted: {_ways(study, address)}")
        else:
            typer.echo(f"job {job.id} {'is over' if job.is_over else 'runs already'}")
        return _follow(jobs, job) if waits else 0


@contextmanager
def _jobs(address: str, is_insecure: bool) -> Iterator[Jobs]:
    try:
        yield Jobs(address, is_insecure)
    except RuntimeError as error:
        typer.echo(f"error: {printable(str(error))}", err=True)
        raise typer.Exit(EXIT_BROKEN) from None


def _name(template: str) -> str:
    check_study_template(template)
    if "{data}" in template:
        raise ConfigError(
            "{data} is known once the cluster reads the table, and a job is found by its study's "
            f"name: got {printable(template)}; use {{date}}"
        )
    return filled_in(template, "", date.today())


def _ways(study: str, address: str) -> str:
    return f"python -m search job status|logs|stop {study} --address {address}"


def _follow(jobs: Jobs, job: Job) -> int:
    try:
        over = jobs.follow(job, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        typer.echo(f"no longer followed; it goes on: {_ways(job.study, jobs.address)}", err=True)
        return EXIT_INTERRUPTED
    except ConnectionError as error:
        typer.echo(f"error: {error}; the same command follows the job again", err=True)
        return EXIT_BROKEN
    typer.echo(_in_words(over))
    return over.exit_code or 0


def status(study: str, address: str, is_insecure: bool) -> int:
    """Print how far the study's last job is; return its exit code, 0 while it is not over."""
    with _jobs(address, is_insecure) as jobs:
        job = _known(jobs, study)
        typer.echo(_in_words(job))
        return job.exit_code or 0


def logs(study: str, address: str, is_insecure: bool) -> None:
    """Print the log of the study's last job."""
    with _jobs(address, is_insecure) as jobs:
        typer.echo(jobs.log(_known(jobs, study)), nl=False)


def stop(study: str, address: str, is_insecure: bool) -> None:
    """End the study's job."""
    with _jobs(address, is_insecure) as jobs:
        job = _known(jobs, study)
        typer.echo(_in_words(job if job.is_over else jobs.stop(job)))


def _known(jobs: Jobs, study: str) -> Job:
    job = jobs.latest(study)
    if job is None:
        raise ConfigError(
            f"no job of study {printable(study)} on the cluster at {jobs.address}: correct the "
            "name, or submit it"
        )
    return job


def _in_words(job: Job) -> str:
    words = [f"job {job.id}: {job.state}"]
    if job.started is not None:
        words.append(f"began {job.started:%Y-%m-%d %H:%M:%S}")
    if job.ended is not None:
        words.append(f"ended {job.ended:%Y-%m-%d %H:%M:%S}")
    if job.exit_code is not None:
        words.append(f"exit code {job.exit_code}")
    return ", ".join(words)
