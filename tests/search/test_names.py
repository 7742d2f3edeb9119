"""What a study may be called."""

import pytest

from search.names import check_study_name


@pytest.mark.parametrize(
    "name", ["a", "load-2026", "ETTh1_24.v2", "7", "console", "latest-2", "com", "a" * 100]
)
def test_a_name_that_any_file_system_takes_is_one(name: str) -> None:
    assert check_study_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *["", ".", "..", "../x", "a/b", "a\\b", "/etc/x", "~x", ".hidden", "_x", "a.", "%2e%2e"],
        *["a b", "-n", "a:b", "a*", "$HOME", "a\n", "a\x00", "a\x1b[2J", "\u202ex", "é", "a" * 101],
    ],
)
def test_a_name_that_some_file_system_or_shell_reads_otherwise_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a study's name has 1 to 100 letters") as caught:
        check_study_name(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["CON", "con", "nul.txt", "Aux", "prn.db", "COM1", "lpt9.x", "latest"]
)
def test_a_name_that_means_something_else_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"a study cannot be called {name}"):
        check_study_name(name)
