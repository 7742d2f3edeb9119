"""What a configuration may hold."""

import re
from typing import Any

import pytest

from search.config import ConfigError, SearchConfig, SearchSettings, duration_seconds
from search.config_file import parse_config
from search.starts import Start


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"serach": {}}, "unknown key serach; did you mean search?"),
        ({"Data": {}}, "unknown key Data; did you mean data?"),
        ({"search": {"trails": 5}}, "unknown key search.trails; did you mean trials?"),
        ({"search": {"TRIALS": 5}}, "unknown key search.TRIALS; did you mean trials?"),
        ({"search": {"max-parameters": 5}}, "did you mean max_parameters?"),
        ({"space": {"widht": 8}}, "unknown key space.widht; did you mean width?"),
        (
            {"space": {"width": {"low": 1, "high": 2, "stepp": 1}}},
            "unknown key space.width.stepp; did you mean step?",
        ),
        ({"space": {"head": {"choice": []}}}, "did you mean choices?"),
        (
            {"search": {"start_with": [{"widths": [8]}, {"widths": [8], "haed": 1}]}},
            "unknown key search.start_with.1.haed; did you mean head?",
        ),
        ({"tracking": {"xyz": 1}}, "unknown key tracking.xyz; known are uri, experiment"),
        ({3: {}}, "unknown key 3; known are study, data, split, space"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(tree: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_config(tree)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"search": {"trials": "5"}}, 'search.trials: Input should be a valid integer: got "5"'),
        ({"search": {"trials": 5.5}}, "search.trials: Input should be a valid integer: got 5.5"),
        ({"search": {"trials": True}}, "search.trials: Input should be a valid integer: got true"),
        ({"search": {"trials": 0}}, "search.trials: Input should be greater than or equal to 1"),
        ({"search": {"trials": None}}, "search.trials: Input should be a valid integer: got null"),
        ({"search": {"metric": "r2"}}, "search.metric: Input should be 'mae', 'mse', 'rmse' or"),
        ({"search": {"time_budget": "soon"}}, "search.time_budget: a duration reads like 90s, 30m"),
        ({"search": {"time_budget": 90}}, "search.time_budget: Input should be a valid string"),
        ({"search": {"max_training_teraflops": float("inf")}}, "should be a finite number"),
        ({"space": None}, "space: Input should be an object: got null"),
        ({"search": 5}, "search: Input should be an object: got 5"),
        ({"search": {"start_with": [{"widths": []}]}}, "search.start_with.0.widths"),
        ({"search": {"start_with": [{"widths": [0]}]}}, "search.start_with.0.widths.0"),
        ({"space": {"width": {"low": 2, "high": 1}}}, "space.width: low must not exceed high"),
        ({"space": {"head": "first"}}, "space.head.choices.0: Input should be 'last_state' or"),
        ({"space": {"learning_rate": "fast"}}, "space.learning_rate.choices.0: Input should be a"),
        ({"split": {"train": 0.9}}, "split: train, validation and test must sum to at most 1"),
        ({"data": {"targets": "load"}}, 'data.targets: Input should be a valid array: got "load"'),
        ({"study": "a b"}, "study: a study's name has 1 to 100 letters, digits"),
        ({"study": "../x"}, "study: a study's name has 1 to 100 letters, digits"),
        ({"study": ""}, "study: a study's name has 1 to 100 letters, digits"),
        ({"search": {"seed": 10**30}}, "search.seed: a whole number must be between -2⁶³ and 2⁶³"),
        ({"search": {"trials": 10**30}}, "search.trials: a whole number must be between"),
        (
            {"search": {"time_budget": "0s"}},
            "search.time_budget: a duration is longer than nothing",
        ),
        ({"search": {"time_budget": "9" * 400 + "d"}}, "at most 3650d"),
        ({"resources": {"max_step_seconds": 1e300}}, "resources.max_step_seconds: Input should be"),
        ({"resources": {"cpus_per_trial": 1e-300}}, "resources.cpus_per_trial: Input should be"),
        (
            {"resources": {"mps": True, "device": "cpu"}},
            "mps is for GPUs: got mps=true and device=cpu",
        ),
        ({"resources": {"gpus_per_trial": 1.5}}, "must be a share of one GPU or a whole number"),
        ({"data": {"path": "\ud800"}}, "text is of whole characters"),
    ],
)
def test_a_value_that_cannot_be_is_refused_once_by_its_path(tree: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(tree)
    assert str(caught.value).startswith(message) or message in str(caught.value)
    assert "; unknown key" not in str(caught.value)
    assert str(caught.value).count("got") <= 1


@pytest.mark.parametrize("rung", [51, 1000])
def test_a_first_rung_beyond_the_budget_is_refused(rung: int) -> None:
    tree = {"search": {"first_rung_steps": rung}, "training": {"max_steps": 50}}
    with pytest.raises(ConfigError, match=rf"at most training.max_steps: got {rung} and 50"):
        parse_config(tree)
    assert parse_config(tree | {"training": {"max_steps": rung}}).search.first_rung_steps == rung


@pytest.mark.parametrize("key", ["home", "experiment", "address"])
@pytest.mark.parametrize(
    "text", ["", " ", "a\nb", "a\x1b[2Jb", "a\x00b", "\u202egnp.exe", "a" * 1001]
)
def test_a_name_or_place_is_one_line_without_control_characters(key: str, text: str) -> None:
    section = {"experiment": "tracking", "address": "resources"}.get(key)
    tree = {section: {key: text}} if section else {key: text}
    with pytest.raises(ConfigError, match=rf"{key}: it must be text of 1 to 1,000 characters") as e:
        parse_config(tree)
    assert str(e.value).isprintable()


@pytest.mark.parametrize("url", ["nonsense", "mlruns.db", "sqlite", "mongodb://u:secret@h/db"])
def test_a_place_of_an_unknown_kind_is_refused_without_its_password(url: str) -> None:
    for tree in ({"storage": url}, {"tracking": {"uri": url}}):
        with pytest.raises(ConfigError, match="it begins with ") as caught:
            parse_config(tree)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite:///a.db", "postgresql+psycopg://u:pw@h/db"])
def test_a_database_of_a_known_kind_is_taken(url: str) -> None:
    assert parse_config({"storage": url, "tracking": {"uri": url}}).storage == url


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "https://u@h/x", "databricks"])
def test_a_tracking_server_of_a_known_kind_is_taken(uri: str) -> None:
    assert parse_config({"tracking": {"uri": uri}}).tracking.uri == uri


def test_many_mistakes_are_the_first_ten_and_a_count() -> None:
    with pytest.raises(ConfigError, match=r"and 90 more mistakes$") as caught:
        parse_config({f"key{number}": 1 for number in range(100)})
    assert str(caught.value).count("unknown key") == 10


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"search.trials: .*; unknown key search.x"):
        parse_config({"search": {"trials": 0, "x": 1}})


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        SearchConfig().search.trials = 5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), ("1d", 86400)],
)
def test_a_duration_counts_its_seconds(text: str, seconds: float) -> None:
    assert duration_seconds(text) == seconds
    assert SearchSettings(time_budget=text).time_budget == text


@pytest.mark.parametrize("text", ["", "30", "m", "2 h", "-5m", "1h30", "5min", "1.h", "h1"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="a duration reads like 90s, 30m, 2h or 1h30m"):
        parse_config({"search": {"time_budget": text}})


def test_a_start_needs_widths() -> None:
    with pytest.raises(ConfigError, match=r"search.start_with.0.widths: Field required"):
        parse_config({"search": {"start_with": [{"head": "aligned"}]}})
    assert Start(widths=(8,)).head is None
