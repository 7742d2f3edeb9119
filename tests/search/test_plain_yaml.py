"""YAML of plain values: read as it is written, and refused within bounds where it is more."""

from typing import Any

import pytest
import yaml

from search import plain_yaml

LAUGHS = "a0: &a0 [ha]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        (
            "a: {b: [1, -2.5, 1e-3, true, null, text]}",
            {"a": {"b": [1, -2.5, 1e-3, True, None, "text"]}},
        ),
        ("a: 2014-08-31\nb: 2014-13-45", {"a": "2014-08-31", "b": "2014-13-45"}),
        (
            "a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}",
            {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}},
        ),
        ("a: {<<: {x: 1}, x: 2}", {"a": {"x": 2}}),
        ('a: "\\x1b[2J"', {"a": "\x1b[2J"}),
        ("a: !!str 5", {"a": "5"}),
    ],
)
def test_plain_values_are_read_as_they_are_written(text: str, value: Any) -> None:
    assert plain_yaml.read(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", r"key a is given twice, first on line 1 \(line 3, column 1\)"),
        ("x:\n  a: 1\n  'a': 1", r"key a is given twice, first on line 2 \(line 3, column 3\)"),
        ("{x: [{a: 1, a: 1}]}", r"key a is given twice, first on line 1 \(line 1, column 13\)"),
        (LAUGHS, "at most 10,000 values, aliases counted"),
        ("a: &a [*a]", "at most 10,000 values, aliases counted"),
        (f"[{'1, ' * 10_000}]", "at most 10,000 values"),
        ("[" * 100_000, r"nesting must be at most 32 deep \(line 1, column 33\)"),
        ("{a: " * 1000 + "1" + "}" * 1000, "nesting must be at most 32 deep"),
        ("- " * 1000, "nesting must be at most 32 deep"),
        ("a: " + "9" * 5000, "a whole number must have at most 40 digits"),
        ("a: 0x" + "f" * 5000, "a whole number must have at most 40 digits"),
        ("a: !!int x", "invalid literal for int"),
        ("a: !!binary aGk=", "values must be plain: got the tag !!binary"),
        ("a: !!set {b}", "values must be plain: got the tag !!set"),
        ("a: !!timestamp 2014-01-01", "values must be plain: got the tag !!timestamp"),
        ("a: !mine 1", r"values must be plain: got the tag !mine \(line 1, column 4\)"),
        ("a: !!python/object/apply:os.system [exit 1]", "got the tag !!python/object/apply:os"),
        ("a: !!python/name:os.system ''", "got the tag !!python/name:os.system"),
        ("a: !!python/object/new:os.system [x]", "got the tag !!python/object/new:os.system"),
        ("? {a: 1}\n: 1", "keys must be names"),
        ("<<: 5", "expected a mapping or list of mappings for merging"),
        ("a: 1\n---\nb: 1", "found another document"),
        ("a: \x1b[2J", "unacceptable character #x001b"),
        ("a: [1", r"expected ',' or ']'.*line 1, column"),
        ("#" * (plain_yaml.MAX_BYTES + 1), "it must have at most 262,144 characters"),
    ],
    ids=lambda text: text[:30],
)
def test_all_else_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        plain_yaml.read(text)
    assert not isinstance(caught.value, yaml.YAMLError | UnicodeError)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_a_text_at_each_bound_is_read() -> None:
    assert plain_yaml.read("[" * 32 + "]" * 32) is not None
    assert len(plain_yaml.read(f"[{'1, ' * 9_999}]")) == 9_999
    assert plain_yaml.read("9" * 40) == 10**40 - 1


def test_reading_runs_nothing(tmp_path: Any) -> None:
    canary = tmp_path / "canary"
    for tag in ("object/apply:os.system", "object/apply:subprocess.check_call", "object/new:eval"):
        with pytest.raises(ValueError, match="values must be plain"):
            plain_yaml.read(f"!!python/{tag} ['touch {canary}']")
    assert not canary.exists()
