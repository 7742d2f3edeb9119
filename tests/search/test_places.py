"""What is noted of where a search shows itself."""

import json

import pytest

from search.config import parse_config
from search.places import recorded_form, trials_page, without_login


@pytest.mark.parametrize(
    ("uri", "noted"),
    [
        ("https://jo:hunter2@host:5000/mlflow", "https://host:5000/mlflow"),
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
