"""The page in a real browser: it draws all its figures and asks nobody for anything."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from pipelines.verdict import Verdict
from search.report.evidence import Evidence
from search.report.page import page

QUIET = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-quic --enable-logging=stderr "
    "--window-size=1280,900 --virtual-time-budget=60000 --dump-dom"
)


class Visit(NamedTuple):
    """What a browser made of a page."""

    dom: str
    console: list[str]
    requests: list[str]
    """Addresses beside the page's own that it asked for."""


def visit(path: Path, chromium: Path, folder: Path) -> Visit:
    log = folder / "net.json"
    command = [str(chromium), *QUIET.split(), f"--user-data-dir={folder / 'browser'}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    command += [f"--log-net-log={log}", path.as_uri()]
    environment = os.environ | {"HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    # The browser's own requests, for its updates, have no page as their initiator.
    events = json.loads(log.read_text(encoding="utf-8"))["events"]
    asked = [event.get("params", {}) for event in events]
    requests = [
        fields["url"]
        for fields in asked
        if fields.get("initiator", "not an origin") != "not an origin"
        and fields.get("url", "data:").partition(":")[0] in ("http", "https", "ws", "wss", "ftp")
    ]
    return Visit(done.stdout, console, requests)


@pytest.mark.slow
def test_every_figure_is_drawn_without_an_error_or_a_request(
    chromium: Path,
    tmp_path: Path,
    make_evidence: Callable[..., Evidence],
    make_verdict: Callable[..., Verdict],
) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(make_evidence(60, verdict=make_verdict())), encoding="utf-8")
    seen = visit(path, chromium, tmp_path)
    assert seen.console == []
    assert seen.requests == []
    places = seen.dom.split('data-figure="')[1:]
    assert f'data-drawn="{len(places)}"' in seen.dom
    assert len(places) > 20
    for place in places:
        drawn = place.partition("<section")[0]
        assert re.search(r'<svg class="main-svg"', drawn)
        assert re.search(r'class="(scatterlayer|barlayer|heatmaplayer)[^>]*><g', drawn), drawn[:40]
    buttons = re.findall(r'data-title="([^"]+)"', seen.dom)
    assert "Zoom in" in buttons
    assert [name for name in buttons if "chart" in name] == []  # one uploads the figure's data


@pytest.mark.slow
def test_what_slipped_through_into_the_page_would_neither_run_nor_load(
    chromium: Path, tmp_path: Path, hostile_evidence: Evidence, free_port: int
) -> None:
    address = f"http://127.0.0.1:{free_port}/leak"
    slipped = f'<img src="{address}" onerror="document.title=1"><script>document.title=2</script>'
    text = page(hostile_evidence)
    path = tmp_path / "report.html"
    path.write_text(text, encoding="utf-8")
    assert visit(path, chromium, tmp_path).console == []
    path.write_text(text.replace("<h1>", f"{slipped}<h1>"), encoding="utf-8")
    closed = visit(path, chromium, tmp_path)
    assert "<title>Study small</title>" in closed.dom
    assert closed.requests == []
    assert any("Content Security Policy" in line for line in closed.console)
    without = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    path.write_text(without.replace("<h1>", f"{slipped}<h1>"), encoding="utf-8")
    opened = visit(path, chromium, tmp_path)
    assert address in opened.requests  # so these tests would see a page that asks
    assert "<title>Study small</title>" not in opened.dom
