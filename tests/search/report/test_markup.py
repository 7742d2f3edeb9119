"""Parts as HTML: what they hold stays text."""

import json
import re

import pytest

from search.report.markup import document
from search.report.parts import Figure, Section, Table, Text

SLIPPED = "</script><script>document.title = 1</script><!--"


def test_a_figure_cannot_end_its_own_script() -> None:
    figure = Figure("", "", [{"type": "bar", "x": [SLIPPED], "y": [1.0]}], {})
    text = document("title", "about", [Section("one", "One", [figure])])
    [content] = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text)
    assert json.loads(content)["data"][0]["x"] == [SLIPPED]
    assert "document.title" not in text.replace(content, "")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_null(value: float) -> None:
    figure = Figure("", "", [{"type": "bar", "y": [1.0, value]}], {"yaxis": {"range": (0, value)}})
    text = document("title", "about", [Section("one", "One", [figure])])
    assert '"y":[1.0,null]' in text
    assert '"range":[0,null]' in text


def test_texts_cells_and_titles_are_escaped() -> None:
    parts = [Text(SLIPPED, command=SLIPPED), Table(SLIPPED, (SLIPPED,), [[SLIPPED]])]
    text = document(SLIPPED, SLIPPED, [Section("one", SLIPPED, parts)])
    assert "document.title = 1</script>" not in text
    assert text.count("&lt;script&gt;document.title = 1&lt;/script&gt;") == 10


def test_columns_of_numbers_stand_to_the_right() -> None:
    rows = [["a", "0.5", "+3.0 %"], ["b", "–", "1,063.0"]]
    text = document("t", "a", [Section("s", "S", [Table("", ("x", "y", "z"), rows)])])
    assert '<td>a</td><td class="number">0.5</td><td class="number">+3.0 %</td>' in text
