"""The page about layers and cells runs as it stands, and its table holds the real counts."""

import re
from pathlib import Path

import pytest
import torch

from models.lstm import StackedLSTM

PAGE = Path(__file__).parents[2] / "docs" / "lstm-cells.md"


def test_the_code_of_the_page_runs_from_top_to_bottom() -> None:
    page = PAGE.read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        # Empty lines before the code, so that a traceback names the page's own lines.
        num_lines_before = page.count("\n", 0, block.start(1))
        exec(compile("\n" * num_lines_before + block[1], PAGE, "exec"), names)


def test_the_page_has_no_code_that_the_test_would_miss() -> None:
    fences = re.findall(r"^ *(?:```|~~~)(.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(fences) == {"python", ""}
    assert fences[::2] == ["python"] * (len(fences) // 2)


@pytest.mark.parametrize("widths", [(128,), (64, 64), (64, 128)], ids=str)
def test_the_parameter_counts_in_the_table_are_the_modules(widths: tuple[int, ...]) -> None:
    counts = [
        sum(parameter.numel() for parameter in StackedLSTM(1, widths, bidirectional).parameters())
        for bidirectional in (False, True)
    ]
    row = f"| `{list(widths)}` | {counts[0]:,} | {counts[1]:,} |"
    assert row in PAGE.read_text(encoding="utf-8").splitlines()


def test_the_two_halves_of_a_layer_have_the_parameters_that_the_page_says() -> None:
    half = sum(parameter.numel() for parameter in torch.nn.LSTM(1, 64).parameters())
    assert f"2 × {half:,}" in PAGE.read_text(encoding="utf-8")
