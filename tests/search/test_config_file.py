"""The configuration as it is written: YAML and overrides in, one frozen object out, and back."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from search.commands import read_config
from search.config import ConfigError, SearchConfig, SearchSettings
from search.config_file import commented_yaml, merge, parse_config, read_yaml, to_yaml
from search.derived_space import derive
from search.dimensions import Choice, Float, Int

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


# Overrides


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
