"""Text on a terminal: one line, and nothing that the terminal obeys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("load", "load"),
        ("Größe ×2 – 负荷 🙂", "Größe ×2 – 负荷 🙂"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("a\nerror: b\r\tc\0", r"a\nerror: b\r\tc\x00"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("a\u2028b\u200bc\ud800", r"a\u2028b\u200bc\ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_whatever_it_is_given_a_line_is_one_line_and_can_be_encoded(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert "\x1b" not in shown
    assert shown.encode().decode() == shown
    assert printable(shown) == shown
