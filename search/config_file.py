"""A configuration as it is written: one YAML file, overridden by flags.

What cannot be is an error that names the key and the remedy.
"""

import copy
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from pipelines.printable import printable
from search import plain_yaml
from search.config import ConfigError, SearchConfig
from search.dimensions import Choice, Float, Int

MAX_MISTAKES_SHOWN = 10


def merge(
    tree: Mapping[str, Any], overrides: Iterable[str], flags: Mapping[str, Any]
) -> dict[str, Any]:
    """Lay `a.b=value` overrides, and flags given as `{"a.b": value}`, over a configuration.

    Raises:
        ConfigError: for an override that is none.
    """
    merged = copy.deepcopy(dict(tree))
    for override in overrides:
        path, equals, text = override.partition("=")
        names = path.split(".")
        if not equals or not all(names) or len(names) > plain_yaml.MAX_DEPTH:
            raise ConfigError(
                f"--set takes a.b=value: got {_cut(override)!r}; try search.trials=20"
            )
        try:
            value = plain_yaml.read(text)
        except ValueError as error:
            raise ConfigError(
                f"--set {_cut(override)}: the value is not valid YAML: {error}; quote it"
            ) from None
        _put(merged, path, value)
    for path, value in flags.items():
        _put(merged, path, value)
    return merged


def parse_config(tree: Mapping[str, Any]) -> SearchConfig:
    """Build a configuration from nested mappings, as YAML holds them.

    Raises:
        ConfigError: for a key or value that cannot be.
    """
    try:
        # By way of JSON, where strict validation takes an array for a tuple.
        return SearchConfig.model_validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None
    except (TypeError, ValueError) as error:  # json.dumps: a key that is no name, a cycle
        raise ConfigError(f"a configuration is sections, names and plain values: {error}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping, never building objects.

    Raises:
        ConfigError: where the file is missing, no YAML or no mapping.
    """
    try:
        with path.open("rb") as file:  # /dev/zero and the like have no end
            content = file.read(plain_yaml.MAX_BYTES + 1)
        tree = plain_yaml.read(content.decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(
            f"a configuration is UTF-8 text: {path} is not; save it as UTF-8"
        ) from None
    except ValueError as error:
        raise ConfigError(f"the configuration {path} is not valid YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        kind = type(tree).__name__
        raise ConfigError(
            f"a configuration is a mapping of keys: {path} holds a {kind}; write key: value lines"
        )
    return tree


def to_yaml(config: SearchConfig) -> str:
    """The resolved configuration as YAML."""
    tree = json.loads(config.model_dump_json())
    return plain_yaml.write(tree)


def commented_yaml(config: SearchConfig) -> str:
    """The configuration as YAML, with the note of each field as a comment."""
    return "\n".join(_commented_lines(config, 0)) + "\n"


def _commented_lines(settings: BaseModel, depth: int) -> Iterable[str]:
    indent = "  " * depth
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        is_section = isinstance(value, BaseModel) and not isinstance(value, Int | Float | Choice)
        note = value.__doc__ if is_section else field.description
        for line in (note or "").strip().splitlines():
            yield f"{indent}# {line.strip()}".rstrip()
        if is_section:
            yield f"{indent}{name}:"
            yield from _commented_lines(value, depth + 1)
        else:
            plain = json.loads(settings.model_dump_json(include={name}))
            yield f"{indent}{name}: {plain_yaml.write_in_one_line(plain[name])}"


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        if tree.get(parent) is None:
            tree[parent] = {}
        tree = tree[parent]
        if not isinstance(tree, dict):
            raise ConfigError(f"{path}: {parent} is a value, not a section of settings")
    tree[last] = value


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors()[:MAX_MISTAKES_SHOWN]:
        *parents, last = problem["loc"] or ("",)
        section = [str(part) for part in parents if _is_key(part)]
        path = ".".join([*section, str(last)] if _is_key(last) else section)
        if problem["type"] == "extra_forbidden":
            unknown = ".".join([*section, str(last)])
            lines.append(f"unknown key {_cut(unknown)}{_nearest_key(problem['loc'])}")
        elif problem["type"] == "json_invalid":  # of JSON that we wrote: all else has a form
            lines.append("text is of whole characters: got half of one, a surrogate; correct it")
        elif problem["type"] == "value_error":  # of our own validators, which name the value
            rule = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{path}: {rule}" if path else rule)
        elif problem["type"] != "too_short" or not problem["input"]:  # else said of its items
            given = _cut(json.dumps(problem["input"], default=str))
            lines.append(f"{path}: {problem['msg']}: got {given}")
    num_left_out = error.error_count() - MAX_MISTAKES_SHOWN
    lines += [f"and {num_left_out} more mistakes"] if num_left_out > 0 else []
    return "; ".join(dict.fromkeys(lines))


def _cut(text: str) -> str:
    """A mistake as it is shown: whole where it is no longer than a line."""
    return printable(text if len(text) <= 120 else f"{text[:120]}…")


def _is_key(part: int | str) -> bool:
    return isinstance(part, int) or bool(re.fullmatch(r"[a-z_][a-z0-9_]*", part))


def _nearest_key(location: tuple[int | str, ...]) -> str:
    sections: list[type[BaseModel]] = [SearchConfig]
    for part in filter(_is_key, location[:-1]):
        fields = [s.model_fields[str(part)] for s in sections if str(part) in s.model_fields]
        sections = [s for field in fields for s in _sections_in(field.annotation)] or sections
    known = list(dict.fromkeys(name for section in sections for name in section.model_fields))
    near = difflib.get_close_matches(str(location[-1]).lower(), known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The settings that a field of this type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections_in(part)]
