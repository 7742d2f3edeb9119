"""What docs/troubleshooting.md quotes is what the source prints."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")

# Printed by a library.
OF_OTHERS = {"database is locked"}


def test_every_quoted_error_is_printed_by_the_source() -> None:
    quoted = set(re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)) - OF_OTHERS
    assert len(quoted) > 20
    texts = list(printed_texts())
    assert sorted(line for line in quoted if not any(line in text for text in texts)) == []


def test_every_setting_and_flag_that_it_names_exists() -> None:
    help_texts = " ".join(
        (ROOT / "search" / name).read_text() for name in ("run.py", "__main__.py", "replay.py")
    )
    flags = set(re.findall(r"`[^`]*?(--[a-z][a-z-]+)", PAGE))
    known = set(re.findall(r"--[a-z][a-z-]+", help_texts))
    parameters = {
        f"--{name.replace('_', '-')}" for name in re.findall(r"^    (\w+):", help_texts, re.M)
    }
    assert flags - known - parameters == set()


def printed_texts() -> list[str]:
    """Every text in the source, the values in it written as an ellipsis."""
    files = [path for folder in ("search", "pipelines") for path in (ROOT / folder).glob("*.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text("utf-8")))]
    return [text for node in nodes if (text := text_of(node)) is not None]


def text_of(node: ast.AST) -> str | None:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(text_of(part) or "…" for part in parts)
    return None
