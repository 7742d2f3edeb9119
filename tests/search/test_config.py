"""The configuration: YAML and flags in, one frozen object out, and back."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from typer.testing import CliRunner

from search import run
from search.commands import read_config
from search.config import (
    ConfigError,
    SearchConfig,
    SearchSettings,
    commented_yaml,
    duration_seconds,
    merge,
    parse_config,
    read_yaml,
    to_yaml,
)
from search.space import Choice, Float, Int, Start, derive

CHANGED: dict[str, Any] = {
    "study": "load-2026",
    "data": {
        "path": 'it\'s a: "table" # 1.csv',
        "targets": ["load", "null", "1e-3"],
        "frequency": "none",
        "series": "007",
        "season": 24,
    },
    "split": {"train": "2014-08-31", "validation": "2014-10-31", "test": "2014-12-31"},
    "space": {
        "num_layers": 2,
        "width": {"low": 8, "high": 64, "step": 8},
        "dropout": {"choices": [0.0, 0.5]},
        "head": "aligned",
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "weight_decay": 1e-8,
    },
    "training": {"max_steps": 50, "precision": "bf16"},
    "search": {
        "trials": 7,
        "time_budget": "1h30m",
        "start_with": [{"widths": [8, 16], "head": "aligned"}, {"widths": [4], "dropout": 0.1}],
    },
    "resources": {"gpus_per_trial": 0.25, "address": "auto"},
    "tracking": {"uri": "http://127.0.0.1:5000"},
    "storage": "postgresql://user@host/base",
}


def changed() -> SearchConfig:
    return parse_config(CHANGED)


def derived() -> SearchConfig:
    """As a search resolves it: the space without any null."""
    config = changed()
    space, _ = derive(config.space, 24, 6000, 24, has_calendar=True)
    return config.model_copy(update={"space": space})


def reread(text: str, folder: Path) -> SearchConfig:
    file = folder / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return parse_config(read_yaml(file))


# Round trips


@pytest.mark.parametrize("config", [SearchConfig(), changed(), derived()], ids=list("abc"))
def test_a_configuration_goes_to_yaml_and_back_unchanged(
    config: SearchConfig, tmp_path: Path
) -> None:
    assert reread(to_yaml(config), tmp_path) == config


@pytest.mark.parametrize("config", [SearchConfig(), changed(), derived()], ids=list("abc"))
def test_a_commented_configuration_parses_back_to_an_equal_one(
    config: SearchConfig, tmp_path: Path
) -> None:
    assert reread(commented_yaml(config), tmp_path) == config


@pytest.mark.parametrize("config", [SearchConfig(), changed(), derived()], ids=list("abc"))
def test_a_recorded_configuration_rebuilds_an_equal_object(config: SearchConfig) -> None:
    assert parse_config(json.loads(config.model_dump_json())) == config


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)


@settings(max_examples=20, deadline=None)
@given(path=texts, target=texts, number=st.floats(1e-12, 1e12))
def test_any_text_and_number_survives_both_kinds_of_yaml(
    path: str, target: str, number: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = parse_config(
        {
            "data": {"path": path, "targets": [target]},
            "search": {"max_training_teraflops": number},
        }
    )
    folder = tmp_path_factory.getbasetemp()
    assert reread(to_yaml(config), folder) == config
    assert reread(commented_yaml(config), folder) == config


@pytest.mark.parametrize("text", ["1e3", "1E5", "-2e-7", "1e", "null", "2014-01-01", "yes", "0x1"])
def test_a_text_that_looks_like_another_value_stays_a_text(text: str, tmp_path: Path) -> None:
    config = parse_config({"data": {"path": text}})
    assert reread(to_yaml(config), tmp_path).data.path == text
    assert reread(commented_yaml(config), tmp_path).data.path == text


def test_every_field_of_a_commented_configuration_has_a_comment_above_it() -> None:
    lines = commented_yaml(derived()).splitlines()
    fields = [place for place, line in enumerate(lines) if re.match(r" *[a-z_]+:", line)]
    assert len(fields) == num_fields(SearchConfig())
    assert [lines[place] for place in fields if not re.match(r" *# \S", lines[place - 1])] == []


def num_fields(settings: BaseModel) -> int:
    values = [getattr(settings, name) for name in type(settings).model_fields]
    return sum(
        1 + (num_fields(value) if isinstance(value, BaseModel) and not is_dimension(value) else 0)
        for value in values
    )


def is_dimension(value: BaseModel) -> bool:
    return isinstance(value, Int | Float | Choice)


def test_the_comments_are_the_notes_of_the_fields() -> None:
    text = " ".join(line.strip(" #") for line in commented_yaml(SearchConfig()).splitlines())
    for name, field in SearchSettings.model_fields.items():
        assert field.description, name
        assert " ".join(field.description.split()) in text


# What a file may hold


def test_a_file_without_a_line_is_the_default_configuration(tmp_path: Path) -> None:
    assert reread("", tmp_path) == SearchConfig()
    assert reread("# nothing yet\n", tmp_path) == SearchConfig()


def test_numbers_are_read_as_everybody_writes_them(tmp_path: Path) -> None:
    text = "space: {learning_rate: {low: 1e-4, high: 3E-2}, weight_decay: 1e-06, dropout: 0}"
    space = reread(text, tmp_path).space
    assert space.learning_rate == Float(low=1e-4, high=3e-2)
    assert space.weight_decay == Choice[float](choices=(1e-6,))
    assert space.dropout == Choice[float](choices=(0.0,))


def test_dates_are_read_as_they_are_written(tmp_path: Path) -> None:
    text = "split: {train: 2014-08-31, validation: 2014-10-31 11:00:00, test: 2014-12-31}"
    assert reread(text, tmp_path).split.parts == ("2014-08-31", "2014-10-31 11:00:00", "2014-12-31")


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "[]", "false", "0", "''", "just words"])
def test_a_file_that_is_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a mapping of keys: .*config.yaml holds a \w+"):
        reread(text, tmp_path)


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\tstudy: x", "@", "a: *nobody"])
def test_a_file_that_is_no_yaml_is_refused_with_the_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config.yaml is not valid YAML: .*line 1, column"):
        reread(text, tmp_path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    for content in (b"\xff\xfe\x00\x80", "study: x\n".encode("utf-16"), b"\x7fELF\xe9"):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=r"is UTF-8 text: .*config.yaml is not; save it as"):
            read_yaml(file)
    file.write_bytes(b"study: a\x00b")
    with pytest.raises(ConfigError, match=r"not valid YAML: .*#x0000"):
        read_yaml(file)


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    assert reread("\ufeffstudy: x\n", tmp_path).study == "x"


def test_a_file_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"/dev/zero is not valid YAML: it must have at most"):
        read_yaml(Path("/dev/zero"))


def test_a_file_that_is_missing_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*no.yaml: No such file"):
        read_yaml(tmp_path / "no.yaml")
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory"):
        read_yaml(tmp_path)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system [exit 1]", "!!python/name:os.system", "!config {}"]
)
def test_a_file_with_the_tag_of_an_object_is_refused(tag: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="values must be plain: got the tag !"):
        reread(f"study: {tag}", tmp_path)
    with pytest.raises(ConfigError, match="is not valid YAML"):
        merge({}, [f"study={tag}"], {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2014-01-01: 1", "unknown key 2014-01-01"),
        ("? [a, b]\n: 1", r"keys must be names: got a list or a mapping \(line 1"),
        ("data: &self {path: *self}", "at most 10,000 values, aliases counted"),
    ],
    ids=list("abc"),
)
def test_a_key_that_is_no_name_and_a_cycle_are_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        reread(text, tmp_path)


# What a configuration may hold


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


# Overrides and flags


def test_a_flag_wins_over_set_which_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("search: {trials: 1, seed: 1, metric: mse}\nstudy: of-the-file\n")
    config = read_config(
        file, ["search.seed=2", "search.trials=2", "search.seed=22"], {"search.trials": 3}
    )
    assert (config.search.trials, config.search.seed, config.search.metric) == (3, 22, "mse")
    assert config.study == "of-the-file"


def test_a_merge_leaves_what_it_was_given_alone() -> None:
    tree = {"search": {"trials": 1}}
    assert merge(tree, ["search.trials=2"], {"data.path": "x"}) == {
        "search": {"trials": 2},
        "data": {"path": "x"},
    }
    assert tree == {"search": {"trials": 1}}


def test_an_override_reads_its_value_as_yaml() -> None:
    merged = merge(
        {"data": None},
        [
            "data.targets=[a, b]",
            "data.path=a=b.csv",
            "data.horizon=24",
            "data.series=",
            "data.frequency=none",
            "space.learning_rate={low: 1e-4, high: 1e-2, log: true}",
            "space.dropout=1e-1",
        ],
        {},
    )
    config = parse_config(merged)
    assert config.data.targets == ("a", "b")
    assert config.data.path == "a=b.csv"
    assert (config.data.horizon, config.data.series, config.data.frequency) == (24, None, "none")
    assert config.space.learning_rate == Float(low=1e-4, high=1e-2, log=True)
    assert config.space.dropout == Choice[float](choices=(0.1,))


@pytest.mark.parametrize(
    "override",
    ["search.trials", "", "=5", ".=1", "a..b=1", ".a=1", "a.=1", f"{'a.' * 5000}a=1"],
    ids=list("abcdefgh"),
)
def test_an_override_without_a_name_and_a_value_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=r"--set takes a.b=value: got .*; try search.trials=20"):
        merge({}, [override], {})


def test_an_override_whose_value_is_no_yaml_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--set data.path=\[: the value is not valid YAML"):
        merge({}, ["data.path=["], {})


def test_an_override_of_a_missing_path_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"unknown key search.trails; did you mean trials\?"):
        read_config(None, ["search.trails=5"], {})
    with pytest.raises(ConfigError, match=r"unknown key seach; did you mean search\?"):
        read_config(None, ["seach.trials=5"], {})


def test_an_override_below_a_plain_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"search.trials.x: trials is a value, not a section"):
        merge({"search": {"trials": 5}}, ["search.trials.x=1"], {})


def test_add_trials_without_a_study_to_go_on_with_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--add-trials goes on with a study: add --resume"):
        read_config(None, [], {}, add_trials=5)


def test_every_flag_sets_a_setting_that_exists() -> None:
    parameters = inspect.signature(run.run).parameters
    for flag, path in run._SETTINGS.items():
        assert flag in parameters
        settings: Any = SearchConfig()
        for part in path.split("."):
            assert part in type(settings).model_fields, path
            settings = getattr(settings, part)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "search.trails=5"], "unknown key search.trails; did you mean trials?"),
        (["--metric", "r2"], "search.metric: Input should be 'mae', 'mse', 'rmse' or 'mase'"),
        (["--trials", "0"], "search.trials: Input should be greater than or equal to 1: got 0"),
        (["--config", "no.yaml"], "cannot read the configuration no.yaml: No such file"),
        (["--add-trials", "5"], "--add-trials goes on with a study"),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    answer = CliRunner().invoke(run.app, arguments)
    assert answer.exit_code == 2
    assert answer.stderr.startswith(f"error: {message}")
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["--resume"], ["--resume", "latest"]),
        (["--resume", "-n", "5"], ["--resume", "latest", "-n", "5"]),
        (["-n", "5", "--resume"], ["-n", "5", "--resume", "latest"]),
        (["--resume", "name", "-n", "5"], ["--resume", "name", "-n", "5"]),
        (["-n", "5"], ["-n", "5"]),
    ],
)
def test_resume_without_a_name_means_the_latest_study(written: list[str], read: list[str]) -> None:
    assert run.with_latest(written) == read


def test_a_start_needs_widths() -> None:
    with pytest.raises(ConfigError, match=r"search.start_with.0.widths: Field required"):
        parse_config({"search": {"start_with": [{"head": "aligned"}]}})
    assert Start(widths=(8,)).head is None
