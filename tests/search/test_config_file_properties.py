"""Any configuration that can be goes to YAML, to its record and back, and stays the same."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from search.config import SearchConfig
from search.config_file import commented_yaml, merge, parse_config, read_yaml, to_yaml

FEW = settings(max_examples=40, deadline=None, derandomize=True)

texts = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)
tricky = st.sampled_from(("null", "yes", "1e-3", "0x1", "2014-01-01", "~", "- a", "a: b", "#x"))
words = texts | tricky
numbers = st.floats(1e-9, 1e6)


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def one_of(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


@st.composite
def ranges(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> Any:
    """A dimension as a configuration gives it."""
    low, high = sorted((draw(values), draw(values)))
    kinds = ({"low": low, "high": high}, {"low": low, "high": high, "log": True})
    return draw(one_of(low, {"choices": [low, high]}, *kinds))


data = optional(
    path=words,
    timestamp=words,
    targets=st.lists(words, max_size=3, unique=True),
    series=words | st.integers(0, 99),
    frequency=one_of("h", "none", "W-SUN"),
    horizon=st.integers(1, 1000),
    season=st.integers(1, 1000),
    target_transform=one_of("none", "log", "diff", "log_return"),
    missing=one_of("error", "interpolate"),
    decimal=one_of("point", "comma"),
    outliers=one_of("none", "hampel"),
    max_file_bytes=st.integers(1, 10**15),
)
split = one_of(
    {},
    {"train": 0.5, "validation": 0.25, "test": 0.25},
    {"train": 700, "validation": 100, "test": 200},
    {"train": "2014-08", "validation": "2014-10-31", "test": "2014-12-31 23:00"},
)
space = optional(
    num_layers=ranges(st.integers(1, 8)),
    shape=one_of("uniform", "per_layer", {"choices": ["per_layer", "uniform"]}),
    hidden_size=ranges(st.integers(1, 4096)),
    width=ranges(st.integers(1, 4096)),
    bidirectional=one_of(True, False, {"choices": [False, True]}),
    dropout=ranges(st.floats(0.01, 0.9)),
    normalisation=one_of("last", {"choices": ["none", "seasonal"]}),
    linear_skip=st.sampled_from(["none", "shared", "per_target"]),
    head=one_of("aligned", "last_state"),
    calendar=st.booleans(),
    lookback=ranges(st.integers(1, 5000)),
    patch_length=ranges(st.integers(1, 500)),
    learning_rate=ranges(st.floats(1e-9, 1.0)),
    batch_size=ranges(st.integers(1, 1000)),
    weight_decay=ranges(st.floats(1e-9, 1.0)),
)
start = st.fixed_dictionaries(
    {"widths": st.lists(st.integers(1, 500), min_size=1, max_size=4)},
    optional={"dropout": st.floats(0, 0.9), "bidirectional": st.booleans()},
)
search = optional(
    trials=st.integers(1, 10**6),
    time_budget=one_of("90s", "1h30m", "0.5d"),
    metric=one_of("mae", "mse", "rmse", "mase"),
    sampler=one_of("tpe", "gp", "random", "grid"),
    pruner=one_of("asha", "hyperband", "median", "none"),
    seed=st.integers(0, 2**31),
    max_training_teraflops=numbers,
    start_with=st.lists(start, max_size=3),
)
resources = optional(
    cpus_per_trial=st.floats(0.01, 64),
    gpus_per_trial=st.floats(0, 1),
    max_retries=st.integers(0, 9),
)
trees = optional(
    study=st.from_regex(r"[a-z][a-z0-9_-]{0,20}x", fullmatch=True),
    data=data,
    split=split,
    space=space,
    search=search,
    resources=resources,
    tracking=optional(experiment=texts),
    home=texts,
)


def reread(text: str) -> SearchConfig:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(text, encoding="utf-8")
        return parse_config(read_yaml(file))


@FEW
@given(tree=trees)
def test_a_configuration_goes_to_yaml_and_back_unchanged(tree: dict[str, Any]) -> None:
    config = parse_config(tree)
    assert reread(to_yaml(config)) == config
    assert reread(commented_yaml(config)) == config
    assert SearchConfig.model_validate_json(config.model_dump_json()) == config


@FEW
@given(tree=trees)
def test_what_was_given_is_what_is_held(tree: dict[str, Any]) -> None:
    config = parse_config(tree)
    for section in ("data", "search", "resources"):
        held = getattr(config, section).model_dump(mode="json")
        for name, given_value in tree.get(section, {}).items():
            if name == "start_with":
                widths = [one["widths"] for one in held[name]]
                assert widths == [one["widths"] for one in given_value]
            elif name == "series":
                assert held[name] == str(given_value)
            else:
                assert held[name] == given_value


@FEW
@given(tree=trees, trials=st.integers(1, 99))
def test_an_override_changes_its_own_setting_alone(tree: dict[str, Any], trials: int) -> None:
    config = parse_config(tree)
    changed = parse_config(merge(tree, [f"search.trials={trials}"], {}))
    assert changed.search.trials == trials
    restored = changed.search.model_copy(update={"trials": config.search.trials})
    assert changed.model_copy(update={"search": restored}) == config
