"""The parts of the page as HTML: one file that reaches for nothing outside itself.

Names of columns and studies may be anything: text is escaped here, where it enters the file, and
the policy admits no script but the two whose hashes it holds, so that what slipped through would
not run.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from pipelines.printable import printable
from search.report.parts import Figure, Group, Part, Section, Table, Text

FEW = 4
"""Figures of a group that are drawn larger where there are no more."""

LONG = 40
"""Characters beyond which a cell is a text to be read on several lines."""

_NUMBER = re.compile(r"(< )?[–±+\-−]?[\d.,]*\d[\d.,]*(e[+-]?\d+)?( ?%| s| min)?|–|")


def document(title: str, about: str, sections: Sequence[Section]) -> str:
    """The whole page."""
    library = (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    own = files("search.report")
    script = own.joinpath("page.js").read_text(encoding="utf-8")
    style = own.joinpath("page.css").read_text(encoding="utf-8")
    scripts = [_in_script(library), _in_script(script)]
    body = "\n".join(_sections(sections))
    contents = "\n".join(
        f'<li><a href="#{section.anchor}">{_text(section.title)}</a></li>' for section in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{_text(title)}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<div class="layout">
<nav aria-label="Contents">
<ol>
{contents}
</ol>
</nav>
<main>
<h1>{_text(title)}</h1>
<p class="about">{_text(about)}</p>
<noscript><p>The figures need JavaScript; all of it is in this file.</p></noscript>
{body}
</main>
</div>
<script>{scripts[0]}</script>
<script>{scripts[1]}</script>
</body>
</html>
"""


def _policy(scripts: Sequence[str]) -> str:
    """No address may be asked for anything; plotly.js writes styles and makes images of its own."""
    digests = (hashlib.sha256(script.encode("utf-8")).digest() for script in scripts)
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _in_script(source: str) -> str:
    # A parser of HTML ends a script at these characters, and counts returns as newlines, so that
    # the hash would be another.
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    return source.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _sections(sections: Sequence[Section]) -> Iterator[str]:
    figures = 0
    for section in sections:
        yield f'<section id="{section.anchor}">\n<h2>{_text(section.title)}</h2>'
        for part in section.parts:
            yield _part(part, figures)
            figures += len(part.figures) if isinstance(part, Group) else 1
        yield "</section>"


def _part(part: Part, number: int) -> str:
    match part:
        case Text():
            kind = "" if part.kind == "plain" else f' class="{part.kind}"'
            command = f" <code>{_text(part.command)}</code>" if part.command else ""
            return f"<p{kind}>{_text(part.text)}{command}</p>"
        case Table():
            return _table(part)
        case Figure():
            caption = f"<figcaption>{_text(part.caption)}</figcaption>"
            return f"<figure>{_plot(part, number)}{caption}</figure>"
        case Group():
            return _group(part, number)


def _group(group: Group, number: int) -> str:
    plots = "\n".join(
        f"<div>{_plot(figure, number + place)}</div>" for place, figure in enumerate(group.figures)
    )
    kind = "small few" if len(group.figures) <= FEW else "small"
    caption = f"<figcaption>{_text(group.caption)}</figcaption>"
    return f'<figure>{caption}<div class="{kind}">\n{plots}\n</div></figure>'


def _plot(figure: Figure, number: int) -> str:
    heading = f"<h3>{_text(figure.title)}</h3>" if figure.title else ""
    layout = {**figure.layout, "height": figure.height}
    content = _json({"data": list(figure.data), "layout": layout})
    place = f'<div class="plot" data-figure="figure-{number}" style="height:{figure.height}px">'
    source = f'<script type="application/json" id="figure-{number}">{content}</script>'
    return f"{heading}{place}</div>{source}"


def _table(table: Table) -> str:
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.header)
    kinds = [_kind(cells) for cells in columns]
    head = _row("th", table.header, kinds)
    rows = "\n".join(
        f"<tr{' class=marked' if place in table.marked else ''}>{_row('td', row, kinds)}</tr>"
        for place, row in enumerate(table.rows)
    )
    # The caption stays in sight where the table is wider than the screen.
    return (
        f'<p class="caption">{_text(table.caption)}</p>\n<div class="scroll"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _row(tag: str, cells: Sequence[str], kinds: Sequence[str]) -> str:
    return "".join(
        f"<{tag}{kind}>{_text(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=True)
    )


def _kind(cells: Sequence[str]) -> str:
    """Numbers stand to the right, long texts are not squeezed."""
    if cells and all(_NUMBER.fullmatch(cell) for cell in cells):
        return ' class="number"'
    return ' class="long"' if any(len(cell) > LONG for cell in cells) else ""


def _text(text: str) -> str:
    return escape(printable(text))


def _json(value: Any) -> str:
    """JSON as a script element may hold it: what is not finite is null, `<` is written out."""
    plain = json.dumps(_plain(value), allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    return plain.replace("<", "\\u003c")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
