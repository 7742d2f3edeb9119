"""Where studies lie, and what is noted of where a search shows itself."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from search.commands import read_config
from search.config import SearchConfig
from search.config_file import parse_config
from search.places import (
    known_studies,
    latest_study,
    name_of_study,
    recorded_form,
    trials_page,
    without_login,
)
from search.stored_studies import UnknownStudyError
from search.study import Study
from tests.search.conftest import RecordAt


@pytest.mark.parametrize(
    ("uri", "noted"),
    [
        ("https://jo:hunter2@host:5000/mlflow", "https://host:5000/mlflow"),
        ("https://jo:hun/ter2@host:5000/mlflow", "https://host:5000/mlflow"),
        ("https://jo@host", "https://host"),
        ("http://host:5000", "http://host:5000"),
        ("postgresql://jo:hunter2@host/mlflow", "postgresql://jo@host/mlflow"),
        ("postgresql://host/mlflow?password=hunter2&user=jo", "postgresql://host/mlflow?user=jo"),
        ("mysql+pymysql://jo:hunter2@host/mlflow", "mysql+pymysql://jo@host/mlflow"),
        ("sqlite:///runs@home/mlflow.db", "sqlite:///runs@home/mlflow.db"),
        ("databricks", "databricks"),
        ("databricks://profile", "databricks://profile"),
    ],
)
def test_of_an_address_no_password_is_noted(uri: str, noted: str) -> None:
    assert without_login(uri) == noted
    config = parse_config({"tracking": {"uri": uri}})
    assert json.loads(recorded_form(config))["tracking"]["uri"] == noted


def test_the_database_is_not_noted() -> None:
    config = parse_config({"storage": "postgresql://jo:hunter2@host/studies"})
    assert json.loads(recorded_form(config))["storage"] is None


def test_the_page_of_the_trials_is_shown_without_login() -> None:
    config = parse_config({"study": "one", "tracking": {"uri": "http://jo:hunter2@host:5000"}})
    assert trials_page(config, "7").startswith("http://host:5000/#/experiments/7")


@pytest.mark.parametrize("record_at", ["sqlite", "postgresql"], indirect=True)
def test_of_a_database_the_study_that_was_searched_last_is_the_latest(
    tmp_path: Path, record_at: RecordAt, study_in: Callable[..., Study]
) -> None:
    home, url = tmp_path / "home", record_at(tmp_path / "record.db")
    config = SearchConfig(storage=url, home=str(home))
    with pytest.raises(UnknownStudyError, match=r"no study in the database .* --storage URL$"):
        latest_study(config)
    (home / "studies").mkdir(parents=True)
    study_in(f"sqlite:///{home / 'studies' / 'here.db'}", "here")
    for name in ("b", "c", "a", "a.finalists", "b", "b.finalists"):
        study = study_in(url, name)
        study.note("config", recorded_form(parse_config({"study": name})))
    assert known_studies(config) == ["c", "a", "a.finalists", "b", "b.finalists"]
    assert name_of_study(config, "latest") == latest_study(config) == "b"
    assert latest_study(SearchConfig(home=str(home))) == "here"
    given = {"storage": url, "home": str(home)}
    assert read_config(None, [], given, "latest").study == "b"
