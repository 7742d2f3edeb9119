"""One whole search: table and configuration in, a record with a best trial out."""

import json
import os
import platform
import shutil
import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from random import SystemRandom
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from models.forecaster import Forecaster
from pipelines.baselines import BaselineScore
from pipelines.series import SeriesTable, load
from pipelines.splits import SearchData, split
from pipelines.training import resolve_precision
from pipelines.weights import forecaster_from_bytes
from search.background_view import BackgroundView
from search.config import ConfigError, SearchConfig, duration_seconds, parse_config, to_yaml
from search.executor import Ending, Slots, TrialJob, connect, plan_slots, run_trials
from search.kept_weights import KeptWeights
from search.limits import Limits
from search.lock import locked
from search.progress import Tally, make_progress
from search.projection import StudyFacts, trials_url
from search.record import TrialRecord, baseline_from_plain, leaderboard
from search.space import THREE_ANSWERS, TrialConfig, derive, start_config
from search.study import Study, UnknownStudyError, open_study, read_study
from search.tracking import set_verbosity
from search.ui import LOCAL_SERVER, local_store_uri

CPU_TERAFLOPS_PER_TRIAL = 0.5
"""About ten seconds of one core."""
VIEW_PATIENCE_SECONDS = 60.0
"""How long the end of a search waits for MLflow to catch up."""


@dataclass(frozen=True)
class SearchResult:
    """What a search leaves in the hands of its caller."""

    config: SearchConfig
    """As it was resolved: name, space, device and precision filled in."""
    ending: Ending
    trials: tuple[TrialRecord, ...]
    baselines: tuple[BaselineScore, ...]
    """The forecasts to beat, on the same validation windows."""
    mlflow_url: str | None
    """The page that shows the trials, on the server that `lstm-search ui` starts; None where the
    view is behind."""

    @property
    def study(self) -> str:
        """The study's name."""
        assert self.config.study is not None
        return self.config.study

    @property
    def best_trial(self) -> TrialRecord | None:
        """The complete trial with the lowest value."""
        return next(iter(leaderboard(self.trials, 1)), None)

    @property
    def best_config(self) -> TrialConfig | None:
        """The configuration of the best trial."""
        return self.best_trial.config if self.best_trial else None

    @property
    def best_value(self) -> float | None:
        """The search's metric of the best trial, on the validation part."""
        return self.best_trial.value if self.best_trial else None

    def trials_dataframe(self) -> pd.DataFrame:
        """One row a trial, rejected ones left out: number, state, value, reason, parameters."""
        return pd.DataFrame(
            [
                {"number": t.number, "state": str(t.state), "value": t.value, "reason": t.reason}
                | t.params
                for t in self.trials
                if t.config is not None
            ]
        )

    def load_best(self) -> Forecaster:
        """The best trial's model with its weights, on the CPU.

        Raises:
            LookupError: where no trial is complete or its weights are gone.
        """
        kept = KeptWeights(self.config.studies_folder / self.study)
        if self.best_trial is None or not kept.path(self.best_trial.number).exists():
            raise LookupError(f"study {self.study} has no complete trial with weights")
        return forecaster_from_bytes(kept.path(self.best_trial.number).read_bytes())


def run_search(
    config: SearchConfig | None = None,
    data: pd.DataFrame | str | Path | None = None,
    *,
    console: Console | None = None,
    is_verbose: bool = False,
    is_quiet: bool = False,
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

    Raises:
        ValueError: for a configuration or a table that cannot be searched.
        StudyLockedError: where another process searches this study.
    """
    console = Console(quiet=True) if is_quiet else console or Console()
    config = config or SearchConfig()
    table, config = _read_table(config, data)
    search_data, _ = split(table, config.split)  # the sealed test part is dropped here
    config, narrowed = resolve(config, search_data)
    notes = (*search_data.notes, *narrowed)
    assert config.study is not None
    with locked(config.studies_folder / f"{config.study}.lock", config.study):
        connect(config.resources, is_verbose)
        set_verbosity(is_verbose)
        slots = plan_slots(config.resources, config.resources.device)
        for line in (device_line(slots), f"study {config.study}", *notes):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        return _search(config, search_data, slots, console, is_quiet)


def load_result(study: str = "latest", home: str = "mlruns") -> SearchResult:
    """The result of a search that ran before, from its record.

    Raises:
        UnknownStudyError: where there is no such study.
    """
    tree = recorded_config(SearchConfig(home=home), study)
    config = parse_config(tree | {"home": home})
    assert config.study is not None
    notes, trials = read_study(record_url(config, config.study), config.study)
    ending = Ending(notes.get("state", Ending.INTERRUPTED))
    return SearchResult(config, ending, tuple(trials), _baselines(notes), notes.get("mlflow_url"))


def _search(
    config: SearchConfig,
    data: SearchData,
    slots: Slots,
    console: Console,
    is_quiet: bool,
) -> SearchResult:
    study, skipped_starts = _open(config, data)
    for skipped in skipped_starts:
        console.print(f"  start left out: {skipped}", markup=False, highlight=False)
    kept = KeptWeights(config.studies_folder / study.name)
    facts = StudyFacts(**study.attributes["facts"])
    view = BackgroundView(tracking_uri(config), experiment_name(config), facts)
    settings = config.search
    tally = Tally(settings.trials, config.training.max_steps, settings.metric, study.trials())
    with make_progress(console, tally, is_quiet) as progress:
        ending = run_trials(
            study,
            TrialJob(data, settings.metric, slots, config.resources.max_step_seconds),
            config.training,
            kept,
            [progress, view],
            duration_seconds(settings.time_budget) if settings.time_budget else None,
        )
    trials = tuple(study.trials())
    study.note("state", str(ending))
    study.note("ended_at", time.time())
    experiment_id = view.close(trials, str(ending), kept, VIEW_PATIENCE_SECONDS)
    url = experiment_id and trials_page(config, experiment_id)
    study.note("mlflow_url", url)
    return SearchResult(config, ending, trials, _baselines(study.attributes), url)


def resolved_config(config: SearchConfig) -> SearchConfig:
    """The configuration as a search would use it; reads the table and starts nothing."""
    search_data, _ = split(load(config.data), config.split)
    return resolve(config, search_data)[0]


def understood_config(config: SearchConfig) -> SearchConfig:
    """The configuration with what was understood of the table written out."""
    table = load(config.data)
    data = config.data.model_copy(
        update={
            "targets": table.targets,
            "horizon": table.horizon,
            "season": table.season,
            "frequency": table.frequency or "none",
            "outliers": table.outliers,
        }
    )
    resolved = resolved_config(config.model_copy(update={"data": data}))
    return config.model_copy(update={"data": data, "space": resolved.space})


def recorded_config(config: SearchConfig, name: str) -> dict[str, Any]:
    """The configuration with which a study was last searched; `latest` is the newest study.

    Raises:
        UnknownStudyError: where there is no such study.
    """
    if name == "latest":
        name = latest_study(config)
    notes, _ = read_study(record_url(config, name), name)
    if "config" not in notes:
        raise UnknownStudyError(
            f"study {name} was ended before it began: begin it with --study {name}"
        )
    tree: dict[str, Any] = json.loads(notes["config"])
    return tree


def latest_study(config: SearchConfig) -> str:
    """The study of this folder that was written to last.

    Raises:
        UnknownStudyError: where there is none.
    """
    records = sorted(config.studies_folder.glob("*.db"), key=lambda path: path.stat().st_mtime)
    if not records:
        raise UnknownStudyError(
            f"there is no study in {config.studies_folder} yet; begin one: python -m search.run"
        )
    return records[-1].stem


def resolve(config: SearchConfig, data: SearchData) -> tuple[SearchConfig, tuple[str, ...]]:
    """Fill in what depends on the table and the machine.

    Returns:
        The configuration without open questions, and what was narrowed.

    Raises:
        ConfigError: where a GPU is asked for that is not there.
    """
    device = resolve_device(config.resources.device)
    space, notes = derive(
        config.space,
        season=data.season,
        num_train_rows=data.num_train_rows,
        horizon=data.horizon,
        has_calendar=data.known.shape[1] > 0,
    )
    teraflops = config.search.max_training_teraflops
    if teraflops is None and device == "cpu":
        teraflops = CPU_TERAFLOPS_PER_TRIAL
    precision = resolve_precision(config.training.precision, device)
    resolved = config.model_copy(
        update={
            "study": config.study or fresh_name(data.name),
            "space": space,
            "training": config.training.model_copy(update={"precision": precision}),
            "search": config.search.model_copy(update={"max_training_teraflops": teraflops}),
            "resources": config.resources.model_copy(update={"device": device}),
        }
    )
    return resolved, notes


def resolve_device(device: str) -> str:
    """Return cpu or cuda.

    Raises:
        ConfigError: where CUDA is asked for and torch has none.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ConfigError(
            f"--device cuda needs a CUDA GPU and a CUDA build of torch: got torch "
            f"{torch.__version__} without one; see docs/install.md, or use --device cpu"
        )
    return "cuda" if has_cuda and device != "cpu" else "cpu"


def device_line(slots: Slots) -> str:
    """The first line of a search: device, torch build, slots, and a warning where it is due."""
    name = torch.cuda.get_device_name() if slots.device == "cuda" else platform.machine()
    plural = "" if slots.count == 1 else "s"
    line = (
        f"{slots.device} ({name}), torch {torch.__version__}: {slots.count} trial{plural} at a "
        f"time, {slots.cpus_per_trial:g} CPU and {slots.gpus_per_trial:g} GPU each"
    )
    has_nvidia = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi")
    if has_nvidia and torch.version.cuda is None:
        line += (
            "\nWARNING: this machine has an NVIDIA GPU, but this torch is a CPU-only build, so the "
            "GPU stays unused; install a CUDA build (docs/install.md)"
        )
    return line


def fresh_name(data_name: str) -> str:
    """A new study's name: data, date and a word."""
    stem = "".join(c if c.isalnum() or c in "._-" else "-" for c in data_name).strip("._-")
    words = "amber birch cedar delta ember fjord grove heron indigo juniper kelp lark maple north"
    words += " opal pine quartz raven slate thyme umber violet willow xenon yarrow zephyr"
    word = SystemRandom().choice(words.split())
    return f"{stem[:60] or 'table'}-{date.today():%Y%m%d}-{word}-{uuid.uuid4().hex[:4]}"


def starts(config: SearchConfig, season: int) -> tuple[list[TrialConfig], tuple[str, ...]]:
    """The configurations to try first, and the reasons of those that cannot be."""
    space, found, skipped = config.space, [], []
    default = THREE_ANSWERS if config.search.use_default_starts else ()
    for start in (*default, *config.search.start_with):
        try:
            found.append(start_config(start, space, config.training, season))
        except ValueError as error:
            skipped.append(f"{'-'.join(map(str, start.widths))}: {error}")
    return found, tuple(skipped)


def _read_table(
    config: SearchConfig, data: pd.DataFrame | str | Path | None
) -> tuple[SeriesTable, SearchConfig]:
    if data is not None and not isinstance(data, pd.DataFrame):
        changed = config.data.model_copy(update={"path": str(data)})
        return load(changed), config.model_copy(update={"data": changed})
    return load(config.data, data), config


def _open(config: SearchConfig, data: SearchData) -> tuple[Study, tuple[str, ...]]:
    settings, space = config.search, config.space
    assert config.study is not None
    limits = Limits(data, settings.max_parameters, settings.max_training_teraflops)
    study, _ = open_study(
        record_url(config, config.study),
        config.study,
        _identity(config, data),
        space,
        config.training,
        settings,
        limits,
    )
    study.note("config", config.model_dump_json())  # with which --resume goes on
    if "facts" in study.attributes:
        return study, ()
    found, impossible = starts(config, data.season)
    skipped = impossible + study.queue(found)
    # Noted last: a search that was killed before this has queued too little, and begins again.
    study.note("facts", asdict(_facts(config, data)))
    return study, skipped


def record_url(config: SearchConfig, study: str) -> str:
    """Where the record of a study lies, as a SQLAlchemy URL."""
    if config.storage:
        return config.storage
    config.studies_folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{config.studies_folder / f'{study}.db'}"


def _identity(config: SearchConfig, data: SearchData) -> dict[str, Any]:
    """What a study must not change while it goes on: its trials would no longer compare."""
    search = config.search.model_dump(
        include={"metric", "seed", "pruner", "reduction_factor", "first_rung_steps"}
    )
    return {
        "data": data.fingerprint,
        "space": json.loads(config.space.model_dump_json()),
        "training": config.training.model_dump(),
        **search,
    }


def _facts(config: SearchConfig, data: SearchData) -> StudyFacts:
    assert config.study is not None
    return StudyFacts(
        name=config.study,
        uid=uuid.uuid4().hex,
        metric=config.search.metric,
        started_at=time.time(),
        data_name=data.name,
        data_fingerprint=data.fingerprint,
        data_source=config.data.path or "embedded in lstm-search",
        num_rows=data.num_rows,
        config_yaml=to_yaml(config),
        params=_flatten(json.loads(config.model_dump_json())),
        tags={"git_commit": _git_commit(), **_versions()},
    )


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and not {"choices", "low"} & value.keys():
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _versions() -> dict[str, str]:
    packages = ("lstm-search", "torch", "ray", "optuna", "mlflow", "numpy", "pandas")
    python = {"version_python": platform.python_version()}
    return python | {f"version_{name.replace('-', '_')}": version(name) for name in packages}


def _git_commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    here = Path(__file__).parent
    command = [git, "rev-parse", "--verify", "--quiet", "HEAD"]
    answer = subprocess.run(command, cwd=here, capture_output=True, text=True)
    return answer.stdout.strip() or "unknown"


def _baselines(notes: Mapping[str, Any]) -> tuple[BaselineScore, ...]:
    return tuple(baseline_from_plain(plain) for plain in notes.get("baselines", []))


def tracking_uri(config: SearchConfig) -> str:
    """The MLflow server or store of a search: configured, from the environment, or here."""
    configured = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    return configured or local_store_uri(Path(config.home))


def experiment_name(config: SearchConfig) -> str:
    """The MLflow experiment of a search: configured, from the environment, or `lstm-search`."""
    configured = config.tracking.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME")
    return configured or "lstm-search"


def trials_page(config: SearchConfig, experiment_id: str) -> str:
    """The page that shows a study's trials, on the tracking server or on that of `search ui`."""
    assert config.study is not None
    uri = tracking_uri(config)
    server = uri if uri.startswith("http") else LOCAL_SERVER
    return trials_url(server, experiment_id, config.study)
