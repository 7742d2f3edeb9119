"""One whole search: table and configuration in, a record with a best trial out."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pandas as pd
from rich.console import Console

from pipelines.series import SeriesTable, load
from pipelines.splits import SearchData, split
from search.background_view import BackgroundView
from search.cluster import check_nodes, connect, session_folder
from search.config import ConfigError, SearchConfig, duration_seconds
from search.crowd import gpu_share_note
from search.database import HeldStudy
from search.executor import run_trials
from search.facts import facts_of, identity_of
from search.gpu_share import slots_for
from search.grid import Grid, plan_grid
from search.kept_weights import KeptWeights
from search.limits import Limits
from search.names import FINALISTS
from search.places import (
    experiment_name,
    is_server,
    record_url,
    recorded_form,
    shown_address,
    study_locked,
    tracking_uri,
    trials_page,
)
from search.progress import Tally, make_progress
from search.projection import StudyFacts
from search.record import Ending, PlannedRun
from search.resolve import device_line, resolve, starts
from search.result import SearchResult, recorded_baselines
from search.screen import say
from search.slots import Slots
from search.study import GPU_SHARE, Study, open_study
from search.trial_actor import TrialJob
from search.unwritable import writing_explained

FIRST_VIEW_SECONDS = 15.0
"""How long the view waits for the first evaluation, so as not to delay it."""
VIEW_PATIENCE_SECONDS = 60.0
"""How long the end of a search waits for MLflow to catch up."""
MANY_SLOTS = 8
"""So many keep the driver busy: MLflow gets a process of its own."""


def run_search(
    config: SearchConfig | None = None,
    data: pd.DataFrame | str | Path | None = None,
    *,
    console: Console | None = None,
    is_verbose: bool = False,
    is_quiet: bool = False,
    on_resolved: Callable[[SearchConfig], None] | None = None,
) -> SearchResult:
    """Search until the study holds as many trials as it should.

    An initialised Ray is used and left running, signal handlers are left alone, and the user's own
    MLflow runs are never touched.

    Args:
        config: the search; None searches the embedded table.
        data: a table or its path, instead of `config.data.path`.
        console: where progress is shown.
        is_verbose: let Ray's, Optuna's and MLflow's own messages through.
        is_quiet: show nothing.
        on_resolved: is told, before the search begins, as what it will be recorded.

    Raises:
        ValueError: for a configuration or a table that cannot be searched, and for an MLflow
            server that refuses what a search shows.
        StudyLockedError: where another process searches this study.
        UnwritableError: where the record cannot be written, on a full disk for instance.
    """
    console = Console(quiet=True) if is_quiet else console or Console()
    config = config or SearchConfig()
    if config.study is not None and config.study.endswith(FINALISTS):
        raise ConfigError(
            f"a study of finalists is trained by its study: got {config.study}; use python -m "
            f"search finalize {config.study.removesuffix(FINALISTS)}{config.place}, or choose "
            "another name"
        )
    table, config = _read_table(config, data)
    search_data, _ = split(table, config.split)  # the sealed test part is dropped here
    config, narrowed = resolve(config, search_data)
    grid = Grid()
    if config.search.sampler == "grid":
        grid = plan_grid(config, search_data)
        total = {"trials": len(grid.runs)}  # what lists of studies say
        config = config.model_copy(update={"search": config.search.model_copy(update=total)})
    notes = (*search_data.notes, *narrowed, *grid.notes)
    assert config.study is not None
    if on_resolved is not None:
        on_resolved(config)
    _check_view(config, console)
    with writing_explained(config.home_folder), study_locked(config, config.study) as held:
        connect(config.resources, is_verbose)
        slots = slots_for(config, search_data, partial(say, console))
        check_nodes(slots, config.resources)
        for line in (*device_line(slots).splitlines(), f"study {config.study}", *notes):
            say(console, line)
        result = search_study(
            config,
            (search_data,),
            slots,
            console,
            is_quiet,
            grid.runs,
            held=held,
            is_verbose=is_verbose,
        )
        return replace(result, left_out=grid.left_out)


def search_study(
    config: SearchConfig,
    folds: tuple[SearchData, ...],
    slots: Slots,
    console: Console,
    is_quiet: bool,
    plan: Sequence[PlannedRun] = (),
    *,
    has_baselines: bool = True,
    held: HeldStudy | None = None,
    is_verbose: bool = False,
) -> SearchResult:
    """Run a study's trials until it is full; its lock is held and Ray is connected.

    Args:
        config: as it was resolved.
        folds: the rolling origins, the last one that of the configured split.
        slots: how many trials run at a time.
        console: where progress is shown.
        is_quiet: show nothing.
        plan: what is trained, where it is not searched for.
        has_baselines: whether the forecasts to beat are computed beside the trials.
        held: the study's lock, where it lies in a database.
        is_verbose: let MLflow's own messages through.
    """
    study, skipped_starts = _open(config, folds[-1], plan, held, console)
    for skipped in skipped_starts:
        say(console, f"  start left out: {skipped}")
    _note_beginning(study, config, slots)
    kept = KeptWeights(config.studies_folder / study.name)
    facts = StudyFacts(**study.attributes["facts"])
    known = recorded_baselines(study.attributes)
    resources, settings = config.resources, config.search
    total, max_steps = study.settings.trials, config.training.max_steps
    job = TrialJob(
        folds, settings.metric, slots, resources.save_every_seconds, resources.cuda_graph
    )
    with BackgroundView(
        tracking_uri(config),
        experiment_name(config),
        facts,
        is_verbose,
        FIRST_VIEW_SECONDS,
        has_own_process=slots.count >= MANY_SLOTS,
    ) as view:
        tally = Tally(total, max_steps, settings.metric, study.trials(), known, view.lag)
        with make_progress(console, tally, is_quiet) as progress:
            ending = run_trials(
                study,
                job,
                resources,
                config.training,
                kept,
                [progress, view],
                duration_seconds(settings.time_budget) if settings.time_budget else None,
                has_baselines=has_baselines and not known,
            )
        trials = tuple(study.trials())
        study.note("state", str(ending))
        experiment_id = view.close(trials, str(ending), kept, VIEW_PATIENCE_SECONDS)
    url = experiment_id and trials_page(config, experiment_id)
    study.note("mlflow_url", url)
    return SearchResult(config, ending, trials, recorded_baselines(study.attributes), url)


def _note_beginning(study: Study, config: SearchConfig, slots: Slots) -> None:
    sessions = study.attributes.get("ray_sessions", [])
    study.note("ray_sessions", list(dict.fromkeys([*sessions, session_folder()])))
    if config.resources.gpus_per_trial == "auto" and slots.gpus_per_trial:
        study.note(GPU_SHARE, gpu_share_note(slots))
    study.note("state", str(Ending.INTERRUPTED))  # as it is if this process is killed


def _check_view(config: SearchConfig, console: Console) -> None:
    uri = tracking_uri(config)
    if not is_server(uri):
        return
    from search.view_check import check_view  # MLflow is slow to load

    if problem := check_view(uri, experiment_name(config)):
        line = f"MLflow at {shown_address(uri)} takes nothing yet ({problem}); trials go on"
        say(console, line)


def _read_table(
    config: SearchConfig, data: pd.DataFrame | str | Path | None
) -> tuple[SeriesTable, SearchConfig]:
    if data is not None and not isinstance(data, pd.DataFrame):
        changed = config.data.model_copy(update={"path": str(data)})
        return load(changed), config.model_copy(update={"data": changed})
    return load(config.data, data), config


def _open(
    config: SearchConfig,
    data: SearchData,
    plan: Sequence[PlannedRun],
    held: HeldStudy | None,
    console: Console,
) -> tuple[Study, tuple[str, ...]]:
    settings, space = config.search, config.space
    assert config.study is not None
    limits = Limits(data, settings.max_parameters, settings.max_training_teraflops)
    study = open_study(
        record_url(config, config.study),
        config.study,
        identity_of(config, data),
        space,
        config.training,
        settings,
        limits,
        held,
        partial(say, console),
    )
    study.note("config", recorded_form(config))
    if plan:
        study.plan(plan)
    if "facts" in study.attributes:
        return study, ()
    skipped: tuple[str, ...] = ()
    if not plan:
        found, impossible = starts(config, data.season)
        skipped = impossible + study.queue(found)
    study.note("data_notes", list(data.notes))  # what was repaired of the table
    # Noted last: a search that was killed before this has queued too little, and begins again.
    study.note("facts", asdict(facts_of(config, data)))
    return study, skipped
