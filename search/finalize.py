"""The honest ending of a search: finalists, one look at the sealed test, a verdict, a model.

`docs/verdict.md` says what each figure means and why the steps come in this order.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from pipelines.predictor import example_of, load_predictor
from pipelines.series import SeriesTable, load
from pipelines.splits import SealedTest, SearchData, rolling_splits, split
from pipelines.verdict import Verdict
from search.cluster import check_nodes, connect
from search.conclusion import Conclusion, Named
from search.config import ConfigError, SearchConfig
from search.finalists import Finalist, train_finalists
from search.gpu_share import slots_for
from search.judgement import Ensemble, load_ensemble, open_test
from search.mlflow_store import ViewError, set_verbosity
from search.places import record_url, study_locked, tracking_uri, weights_folder
from search.record import best_of_each_configuration
from search.registration import choose_model, model_name, register_model
from search.registry import champion_of
from search.report.page import write_report
from search.report.pictures import write_pictures
from search.screen import say
from search.slots import Slots
from search.stored_studies import note_on_study, read_notes, read_study
from search.sync import show_study
from search.unwritable import writing_explained

NUM_ORIGINS = 3
"""Rolling origins on which finalists are ranked."""


def finalize(
    config: SearchConfig,
    data: pd.DataFrame | None = None,
    *,
    console: Console | None = None,
    is_verbose: bool = False,
    is_quiet: bool = False,
) -> Conclusion:
    """Judge a finished search and register its model.

    What was done before is not done again: finalists that are trained stay, and a winner that has
    its verdict keeps it, so that the test part is opened once for it.

    Args:
        config: of the study, as it was recorded.
        data: the table, where it was not read from `config.data.path`.
        console: where progress is shown.
        is_verbose: let Ray's, Optuna's and MLflow's own messages through.
        is_quiet: show nothing.

    Raises:
        ConfigError: where the table is not the recorded one, or no trial is complete.
        StudyLockedError: where another process searches this study.
        ViewError: where MLflow does not say which model is in use; the test part stays sealed.
        KeyboardInterrupt: where it was interrupted; it goes on next time.
    """
    console = Console(quiet=True) if is_quiet else console or Console()
    assert config.study is not None
    with writing_explained(config.home_folder), study_locked(config, config.study):
        notes, trials = read_study(record_url(config, config.study), config.study)
        best = best_of_each_configuration(trials, config.final.finalists)
        longest = max((t.config.training.lookback for t in best if t.config), default=0)
        table = load(config.data, data)
        search_data, sealed = split(table, config.split)
        _check_table(config, notes, search_data)
        folds = rolling_splits(table, config.split, NUM_ORIGINS, longest)
        connect(config.resources, is_verbose)
        set_verbosity(is_verbose)
        slots = slots_for(config, search_data, partial(say, console))
        check_nodes(slots, config.resources)
        say(
            console,
            f"finalists: the best {len(best)}, {config.final.seeds} seeds each on {len(folds)} "
            "rolling origins",
        )
        winner = train_finalists(config, best, folds, slots, console, is_quiet)[0]
        ensemble = load_ensemble(config, winner, search_data, fold=len(folds) - 1)
        is_new = _judge_once(config, winner, ensemble, table, search_data, sealed, slots)
        return _hand_over(config, table, search_data, is_new)


def _judge_once(
    config: SearchConfig,
    winner: Finalist,
    ensemble: Ensemble,
    table: SeriesTable,
    data: SearchData,
    sealed: SealedTest,
    slots: Slots,
) -> bool:
    """Record the winner's verdict and save its model; return whether that was still to be done."""
    assert config.study is not None
    url = record_url(config, config.study)
    judged = {"winner": winner.number, "seeds": list(ensemble.seeds)}
    if read_notes(url, config.study).get("judged") == judged:
        return False
    # Asked while the test part is sealed: an MLflow that does not answer costs no opening.
    champion = champion_of(tracking_uri(config), model_name(config, data))
    verdict, test = open_test(config, winner, ensemble, data, sealed, champion)
    model = choose_model(config, winner, ensemble, table, data, test, slots)
    shutil.rmtree(_model_folder(config), ignore_errors=True)  # an earlier winner's
    model.predictor.save(_model_folder(config))
    verdict = verdict.model_copy(update={"warnings": (*verdict.warnings, *model.warnings)})
    note_on_study(url, config.study, "verdict", verdict.model_dump_json())
    note_on_study(url, config.study, "model_tags", dict(model.tags))
    note_on_study(url, config.study, "registered", None)
    note_on_study(url, config.study, "judged", judged)  # last: it says that all is there
    return True


def _hand_over(
    config: SearchConfig, table: SeriesTable, data: SearchData, is_new: bool
) -> Conclusion:
    """Write the report, show the verdict in MLflow and register the model there, once."""
    assert config.study is not None
    url = record_url(config, config.study)
    notes = read_notes(url, config.study)
    verdict, registered = Verdict.model_validate_json(notes["verdict"]), notes["registered"]
    report = write_report(config, config.study)
    write_pictures(config, config.study)
    folder = _model_folder(config)
    try:
        _, shown = show_study(config, trusts_ended_runs=True)
        if registered is None:
            predictor = load_predictor(folder)
            example = example_of(table, data, predictor)
            name, uri = model_name(config, data), tracking_uri(config)
            tags = notes["model_tags"]
            named = register_model(uri, shown.run_id, name, predictor, tags, example, verdict)
            registered = asdict(named)
            note_on_study(url, config.study, "registered", registered)
    except ViewError as error:
        return Conclusion(verdict, is_new, None, folder, report, str(error))
    return Conclusion(verdict, is_new, Named(**registered), folder, report)


def _model_folder(config: SearchConfig) -> Path:
    assert config.study is not None
    return weights_folder(config, config.study) / "model"


def _check_table(config: SearchConfig, notes: Mapping[str, Any], data: SearchData) -> None:
    recorded = notes["identity"]["data"]
    if data.fingerprint != recorded:
        raise ConfigError(
            f"a study is finalized on the table that it was searched on: study {config.study} had "
            f"fingerprint {recorded[:12]}, now {config.data.path or 'the embedded table'} has "
            f"{data.fingerprint[:12]}; put the old table back"
        )
