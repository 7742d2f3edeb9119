"""YAML of plain values, read within bounds: no objects, no key twice, no aliases that explode.

A configuration may come from a stranger, so that what it can cost is bounded before it is built.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

MAX_BYTES = 2**18
"""Largest text that is read, 256 KiB: some thirty times a configuration with every key."""
MAX_DEPTH = 32
"""Deepest nesting; a configuration has four levels."""
MAX_DIGITS = 40
"""Longest whole number; no setting takes more than 19 digits."""
MAX_VALUES = 10_000
"""Most keys and values, each alias counted as all that it stands for: nine lines of nine aliases
to the line above would otherwise stand for 9⁹ values (the "billion laughs")."""

_STANDARD = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset(
    f"{_STANDARD}{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map", "merge")
)


class _Reader(yaml.SafeLoader):
    """Reads plain values only, never building objects; a date stays the text that it is."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Count the levels on the way down, for the composer calls itself for each."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            deepest: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
            raise _refusal(f"nesting must be at most {MAX_DEPTH} deep", deepest.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        """Check the whole text before anything is built of it."""
        node = super().get_single_node()
        if node is not None:
            _check(node)
        return node


class _Writer(yaml.SafeDumper):
    """Quotes what any reader would not read back as text."""


for _kind in (_Reader, _Writer):
    # YAML 1.1 takes 1e-3, which has no dot, for text; everybody else takes it for a number.
    _kind.add_implicit_resolver(
        f"{_STANDARD}float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


def read(text: str) -> Any:
    """The plain value that `text` holds.

    Raises:
        ValueError: where it is no YAML, too large, or more than plain values; names the line.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"it must have at most {MAX_BYTES:,} characters: got more")
    try:
        return _Reader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        place = f" (line {at.line + 1}, column {at.column + 1})" if at else ""
        raise ValueError(f"{error.problem or error.context}{place}") from None
    except yaml.YAMLError as error:  # of its characters, which come before any line
        reason = " ".join(str(error).split())
        raise ValueError(reason.replace('in "<unicode string>", ', "")) from None


def write(value: Any) -> str:
    """A plain value as YAML, in blocks."""
    text: str = yaml.dump(value, Dumper=_Writer, sort_keys=False, width=100)
    return text


def write_in_one_line(value: Any) -> str:
    """A plain value as YAML on one line."""
    text: str = yaml.dump(value, Dumper=_Writer, default_flow_style=True, width=math.inf)
    return text.removesuffix("...\n").strip()


def _check(root: yaml.Node) -> None:
    # By a list and a count instead of calls: a node can hold itself.
    num_values, waiting = 0, [root]
    while waiting:
        node = waiting.pop()
        mark = node.start_mark
        num_values += 1
        if num_values > MAX_VALUES:
            raise _refusal(
                f"at most {MAX_VALUES:,} values, aliases counted as what they hold", mark
            )
        if node.tag not in _PLAIN_TAGS:
            raise _refusal(f"values must be plain: got the tag {_short(node.tag)}", mark)
        if node.tag.endswith(":int") and len(node.value) > MAX_DIGITS:
            raise _refusal(f"a whole number must have at most {MAX_DIGITS} digits", mark)
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
        waiting += _parts(node)


def _check_keys(mapping: yaml.MappingNode) -> None:
    first_lines: dict[str, int] = {}
    for key, _ in mapping.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _refusal("keys must be names: got a list or a mapping", key.start_mark)
        line = key.start_mark.line + 1
        if first_line := first_lines.get(key.value):
            rule = f"key {key.value} is given twice, first on line {first_line}"
            raise _refusal(rule, key.start_mark)
        first_lines[key.value] = line


def _parts(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value


def _short(tag: str) -> str:
    return f"!!{tag.removeprefix(_STANDARD)}" if tag.startswith(_STANDARD) else tag


def _refusal(rule: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=rule, problem_mark=mark)
