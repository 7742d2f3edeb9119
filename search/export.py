"""A study as files that anyone can read: tables, configuration, weights."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from search.config import ConfigError, SearchConfig
from search.config_file import parse_config, to_yaml
from search.kept_weights import KeptWeights
from search.places import record_url, weights_folder
from search.projection import trial_params
from search.record import TrialRecord, TrialState, baseline_from_plain
from search.spreadsheet import csv_text
from search.stored_studies import read_study

READ_ME = """\
A search for the LSTM that forecasts a table best, exported by lstm-search.

trials.csv       one row a trial: outcome, value (the minimised metric), parameters
evaluations.csv  the errors of each trial over its training steps; `is_final`: of its best weights
                 on more validation windows. Errors `..._scaled` are on standardised values, the
                 others in the units of the table. Times are seconds since 1970
baselines.csv    the forecasts to beat, on the same validation part
study.json       what was searched: data, fingerprint, versions, outcome
config.yaml      the configuration: python -m search.run --config config.yaml
weights/         safetensors of the best trials, each with its model's configuration as metadata:
                 safetensors.torch.load_file("weights/000.safetensors")

A cell that a spreadsheet would take for a formula begins with an apostrophe.
"""


def export_study(config: SearchConfig, to: Path) -> list[Path]:
    """Write a study into a new folder, or a new archive where `to` ends in .zip.

    Raises:
        ConfigError: where something is there already, or its folder is missing.
    """
    if to.exists() or not to.parent.is_dir():
        problem = "exists" if to.exists() else f"is in no folder: {to.parent} is missing"
        raise ConfigError(f"--to names a new folder or .zip file: {to} {problem}; choose another")
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".export-") as scratch:
        folder = Path(scratch) / (to.stem if to.suffix == ".zip" else to.name)
        _write(config, folder)
        written = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        if to.suffix == ".zip":
            archive = shutil.make_archive(str(folder), "zip", scratch, folder.name)
            Path(archive).rename(to)
        else:
            folder.rename(to)
    return written


def _write(config: SearchConfig, folder: Path) -> None:
    name = config.study
    assert name is not None
    notes, trials = read_study(record_url(config, name), name)
    folder.mkdir()
    _write_table(folder / "trials.csv", [_trial_row(t) for t in trials if t.config is not None])
    _write_table(folder / "evaluations.csv", [row for t in trials for row in _evaluation_rows(t)])
    _write_table(folder / "baselines.csv", _baseline_rows(notes))
    (folder / "study.json").write_text(json.dumps(_facts(notes), indent=2), encoding="utf-8")
    shared = without_addresses(config)
    (folder / "config.yaml").write_text(to_yaml(shared), encoding="utf-8")
    (folder / "README.txt").write_text(READ_ME, encoding="utf-8")
    kept = KeptWeights(weights_folder(config, name))
    for path in (kept.path(trial.number) for trial in trials):
        if path.is_file() and not path.is_symlink():
            (folder / "weights").mkdir(exist_ok=True)
            shutil.copy(path, folder / "weights")


def without_addresses(config: SearchConfig) -> SearchConfig:
    """The configuration without databases and servers, whose addresses may hold passwords."""
    tree = json.loads(config.model_dump_json())
    tree["tracking"]["uri"] = tree["storage"] = tree["home"] = None
    tree["resources"]["address"] = None
    return parse_config(tree)


def _facts(notes: Mapping[str, Any]) -> dict[str, Any]:
    secret = ("config_yaml", "params")  # config.yaml says it without addresses
    facts = {key: value for key, value in notes.get("facts", {}).items() if key not in secret}
    return facts | {"state": notes.get("state"), "created_at": notes.get("created_at")}


def _trial_row(trial: TrialRecord) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "state": str(trial.state),
        "value": trial.value,
        "reason": trial.reason,
        "retries": " | ".join(trial.retries),
        "started_at": trial.started_at,
        "ended_at": trial.ended_at,
        **{f"ran_on_{name}": trial.ran_on.get(name) for name in ("host", "device")},
        **trial_params(trial),
    }


def _evaluation_rows(trial: TrialRecord) -> Iterator[dict[str, Any]]:
    final = [] if trial.final is None else [trial.final]
    if trial.state is TrialState.REJECTED:
        return
    for recorded in (*trial.evaluations, *final):
        yield {
            "trial": trial.number,
            "is_final": recorded is trial.final,
            "time": recorded.time,
            **recorded.evaluation.to_dict(),
        }


def _baseline_rows(notes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [baseline_from_plain(plain).to_dict() for plain in notes.get("baselines", [])]


def _write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    rows = list(rows)
    path.write_text(csv_text(list(rows[0]) if rows else [], rows), encoding="utf-8")
