"""Tables as CSV: what a spreadsheet would run stays a text, everything else stays as it is."""

import csv
import io
from typing import Any

import pytest

from search.spreadsheet import csv_text, escaped_cell


@pytest.mark.parametrize(
    "text",
    [
        *[
            "=1+1",
            '=HYPERLINK("http://x","y")',
            "+cmd|' /C calc'!A0",
            "-2+3",
            "@SUM(A1)",
            "|x",
            "=",
        ],
        *["-", "-1-1", "+-1x", "\t=1", " =1", "\n=1", "\r", "\t1", "＝1+1", "＠x"],
    ],
)
def test_a_text_that_would_be_run_begins_with_an_apostrophe(text: str) -> None:
    assert escaped_cell(text) == f"'{text}"


@pytest.mark.parametrize(
    "value",
    [
        -1,
        -0.5,
        float("-inf"),
        None,
        True,
        "",
        "64-128",
        "a=b",
        "-0.5",
        "+3",
        "-1e-05",
        "-inf",
        "'=1",
    ],
)
def test_numbers_and_plain_text_stay_as_they_are(value: Any) -> None:
    assert escaped_cell(value) is value


def test_a_table_comes_back_with_its_header_and_its_cells_escaped() -> None:
    rows = [{"=name": "=1", "b": -2.5, "left out": 1}, {"=name": 'a "b", c\nd', "b": None}]
    text = csv_text(["=name", "b"], rows)
    assert list(csv.reader(io.StringIO(text))) == [
        ["'=name", "b"],
        ["'=1", "-2.5"],
        ['a "b", c\nd', ""],
    ]


def test_a_table_without_rows_is_its_header() -> None:
    assert csv_text(["a", "b"], []) == "a,b\n"
