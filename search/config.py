"""The configuration of a search, all that a user can set.

`SearchConfig` is frozen and strict: an unknown key, a wrong type or a contradiction is an error,
before anything starts.
"""

import os
import re
import shlex
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from models.config import Settings
from pipelines.data_config import DataConfig, SplitConfig
from pipelines.training_config import TrainingBudget
from search.names import (
    check_database_url,
    check_plain_text,
    check_study_template,
    check_tracking_uri,
)
from search.space import Space
from search.starts import Start

Metric = Literal["mae", "mse", "rmse", "mase"]
Sampler = Literal["tpe", "gp", "random", "grid"]
Pruner = Literal["asha", "hyperband", "median", "none"]
Device = Literal["auto", "cpu", "cuda"]

LONGEST_SECONDS = 3650 * 86400.0
"""Ten years; the clocks of threads end beyond."""

Text = Annotated[str, AfterValidator(check_plain_text)]


class ConfigError(ValueError):
    """A configuration that cannot be: one line with the rule, the value and the remedy."""


def _parse_duration(text: str) -> str:
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        raise ValueError(f"a duration reads like 90s, 30m, 2h or 1h30m: got {text!r}")
    if not 0 < duration_seconds(text) <= LONGEST_SECONDS:
        raise ValueError(f"a duration is longer than nothing and at most 3650d: got {text!r}")
    return text


Duration = Annotated[str, AfterValidator(_parse_duration)]


def duration_seconds(duration: str) -> float:
    """Seconds in a duration such as `1h30m`."""
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(float(n) * seconds[unit] for n, unit in re.findall(r"([\d.]+)([smhd])", duration))


def _check_gpu_share(value: object) -> object:
    if value is None or value == "auto":
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"it must be a number of GPUs, from 0 on, or auto: got {value!r}")
    if value > 1 and value % 1:
        raise ValueError(
            f"it must be a share of one GPU or a whole number: got {value:g}; a trial cannot have "
            "parts of several"
        )
    return float(value)


GpuShare = Annotated[float | Literal["auto"] | None, PlainValidator(_check_gpu_share)]


class SearchSettings(Settings):
    """How the search goes on and when it ends."""

    trials: int = Field(default=100, ge=1)
    """Trials of the study in total: complete, pruned and failed ones count. A grid has its own."""
    time_budget: Duration | None = None
    """Start no trial after this long (30m, 2h) and stop the running ones; null: no limit."""
    metric: Metric = "mae"
    """What is minimised on the validation part, on standardised values."""
    sampler: Sampler = "tpe"
    """Who proposes: tpe learns from the trials, gp is a Gaussian process, random draws, grid tries
    every combination to the end (docs/lstm-cells.md)."""
    repeats: int = Field(default=1, ge=1, le=1000)
    """Times that a grid trains each combination, each time with another seed, the same for all."""
    num_startup_trials: int = Field(default=12, ge=0)
    """Trials, the starts among them, before tpe or gp begins to learn."""
    startup_draws: int | None = Field(default=None, ge=1, le=100)
    """Random configurations drawn for each trial before tpe or gp begins to learn; tried is the one
    whose training takes the least arithmetic; null: 2 on CPUs, 1 on GPUs."""
    pruner: Pruner = "asha"
    """Who stops a trial early: asha (successive halving), hyperband, median, or none; in a grid,
    which compares at equal steps, it is none."""
    reduction_factor: int = Field(default=3, ge=2)
    """One in this many trials survives each rung of asha and hyperband."""
    first_rung_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps before a trial may be stopped; null: at the first evaluation."""
    seed: int = Field(default=0, ge=0)
    """Seeds the proposals and, with its number, each trial."""
    max_parameters: int = Field(default=2_000_000, ge=1)
    """Configurations with more parameters are refused before they cost anything."""
    max_training_teraflops: float | None = Field(default=None, gt=0)
    """Likewise for the arithmetic of a whole trial; null: 0.5 on CPUs, no limit on GPUs."""
    start_with: tuple[Start, ...] = ()
    """Configurations to try first, after the three that every search begins with."""
    use_default_starts: bool = True
    """Whether the search begins with [128], [64, 64] and [64, 128]."""
    num_kept_weights: int = Field(default=20, ge=1)
    """The best trials whose weights are kept."""

    @model_validator(mode="after")
    def _only_a_grid_repeats(self) -> Self:
        if self.repeats > 1 and self.sampler != "grid":
            raise ValueError(
                f"repeats needs sampler grid: got repeats={self.repeats} and sampler="
                f"{self.sampler}; add --sampler grid, or drop it"
            )
        return self


class Resources(Settings):
    """What a trial runs on."""

    max_concurrent: int | None = Field(default=None, ge=1)
    """Trials at a time; null: as many as the resources hold."""
    cpus_per_trial: float = Field(default=1, ge=0.01)
    """CPU cores of a trial; it runs as many threads."""
    gpus_per_trial: GpuShare = None
    """GPUs of a trial; null: 1 where there are CUDA GPUs, else 0; auto: the share of one that its
    memory and a short measurement suggest (docs/gpu.md)."""
    cuda_graph: bool = True
    """Whether training steps on CUDA are captured once and replayed, which spares small models the
    launching of many kernels."""
    mps: bool = False
    """Whether the search starts NVIDIA's Multi-Process Service on this machine, by which trials
    that share a GPU run side by side rather than in turns (docs/gpu.md)."""
    device: Device = "auto"
    """auto takes CUDA where there is a CUDA GPU."""
    address: Text | None = None
    """Ray cluster to join (RAY_ADDRESS); null: this machine."""
    max_step_seconds: float = Field(default=1800, gt=0, le=LONGEST_SECONDS)
    """Longest time between two evaluations: the worker of a trial that hangs longer is ended."""
    save_every_seconds: float = Field(default=30, ge=0, le=LONGEST_SECONDS)
    """Least time between two states from which an interrupted trial goes on; a trial that is
    shorter begins again."""
    max_retries: int = Field(default=2, ge=0)
    """Times that a trial whose worker died, hung or raised is tried again before it has failed."""
    max_failures_in_a_row: int = Field(default=5, ge=1)
    """Trials that fail, and none ends otherwise in between, before the search gives up; a grid and
    finalists never do."""

    @model_validator(mode="after")
    def _mps_is_for_gpus(self) -> Self:
        if self.mps and self.device == "cpu":
            raise ValueError("mps is for GPUs: got mps=true and device=cpu; drop one of them")
        return self


class FinalSettings(Settings):
    """How a finished search is judged: docs/verdict.md."""

    finalize: bool = True
    """Whether the command ends with the finalists, the sealed test and a registered model."""
    finalists: int = Field(default=3, ge=1, le=100)
    """The best configurations, each trained again."""
    seeds: int = Field(default=5, ge=1, le=100)
    """Times that each is trained on each rolling origin; the model is the mean of as many."""
    refit: Literal["all", "none"] = "all"
    """Whether the registered model is trained again on all rows, the test part's among them."""
    registered_model_name: Text | None = None
    """Name in MLflow's registry; null: made of table, target and horizon."""
    require_champion: bool = False
    """Whether the command exits with 4 where the model does not pass."""


class Tracking(Settings):
    """Where MLflow shows the search."""

    uri: Annotated[str, AfterValidator(check_tracking_uri)] | None = None
    """MLflow server or store (MLFLOW_TRACKING_URI); null: mlruns/mlflow.db here."""
    experiment: Text | None = None
    """MLflow experiment (MLFLOW_EXPERIMENT_NAME); null: lstm-search."""


class SearchConfig(Settings):
    """A whole search, as the YAML file holds it."""

    study: Annotated[str, AfterValidator(check_study_template)] | None = None
    """Name of the study; a known name goes on; {date} and {data}, the day and the fingerprint of
    the table, are filled in when it begins; null: a fresh one is made."""
    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    space: Space = Space()
    training: TrainingBudget = TrainingBudget()
    search: SearchSettings = SearchSettings()
    resources: Resources = Resources()
    final: FinalSettings = FinalSettings()
    tracking: Tracking = Tracking()
    storage: Annotated[str, AfterValidator(check_database_url)] | None = None
    """Database URL of the record; null: one SQLite file a study, mlruns/studies/NAME.db."""
    home: Text | None = None
    """Folder for everything that the search leaves behind (LSTM_SEARCH_HOME); null: mlruns here."""

    @model_validator(mode="after")
    def _a_rung_is_within_the_budget(self) -> Self:
        rung, most = self.search.first_rung_steps, self.training.max_steps
        if rung is not None and rung > most:
            raise ValueError(
                "search.first_rung_steps must be at most training.max_steps: got "
                f"{rung} and {most}; no trial would ever be stopped"
            )
        return self

    @property
    def home_folder(self) -> Path:
        """The folder itself: configured, from the environment, or `mlruns`."""
        return Path(self.home or os.environ.get("LSTM_SEARCH_HOME") or "mlruns").resolve()

    @property
    def studies_folder(self) -> Path:
        """Where records and weights of the studies lie."""
        return self.home_folder / "studies"

    @property
    def home_option(self) -> str:
        """What leads another command to the same home, to be printed after it; may be empty."""
        return f" --home {shlex.quote(self.home)}" if self.home else ""

    @property
    def place(self) -> str:
        """The same for the record: home, and storage without its URL, which may hold a password."""
        return self.home_option + (" --storage URL" if self.storage else "")
