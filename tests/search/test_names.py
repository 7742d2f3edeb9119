"""What a study may be called, and what is filled into its name."""

from collections.abc import Callable
from datetime import date

import pytest

from pipelines.splits import SearchData
from search import resolve as resolving
from search.config import ConfigError, SearchConfig
from search.config_file import parse_config
from search.names import check_study_name, check_study_template, filled_in


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


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("nightly-{date}", "nightly-2026-11-23"),
        ("{date}", "2026-11-23"),
        ("load.{data}", "load.0123456789ab"),
        ("{data}-{date}-{data}", "0123456789ab-2026-11-23-0123456789ab"),
        ("load", "load"),
    ],
)
def test_the_day_and_the_tables_fingerprint_are_filled_into_a_name(
    template: str, name: str
) -> None:
    assert check_study_template(template) == template
    assert filled_in(template, "0123456789abcdef" * 4, date(2026, 11, 23)) == name


@pytest.mark.parametrize(
    ("template", "part"),
    [
        ("nightly-{day}", "'{day}'"),
        ("nightly-{Date}", "'{Date}'"),
        ("nightly-{}", "'{}'"),
        ("nightly-{date!r}", "'{date!r}'"),
        ("nightly-{date", "'{'"),
        ("nightly-date}", "'}'"),
        ("nightly-{{date}}", "'{'"),
        ("nightly-{\x1b[2J}", r"'{\x1b[2J}'"),
    ],
)
def test_another_placeholder_or_a_lone_brace_is_refused_with_those_that_there_are(
    template: str, part: str
) -> None:
    with pytest.raises(ConfigError, match="study: braces in a study's name") as caught:
        parse_config({"study": template})
    assert f"a placeholder, {{data}} or {{date}}: got {part} in " in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "template", ["-{date}", "a b{date}", "{date}.", "../{data}", "a" * 91 + "{date}"]
)
def test_what_would_be_no_name_when_it_is_filled_in_is_refused_at_once(template: str) -> None:
    with pytest.raises(ConfigError, match="a study's name has 1 to 100 letters"):
        parse_config({"study": template})


def test_a_search_is_named_by_the_day_it_begins_on_and_by_its_table(
    make_data: Callable[..., SearchData], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Monday(date):
        @classmethod
        def today(cls) -> "Monday":
            return cls(2026, 11, 23)

    monkeypatch.setattr(resolving, "date", Monday)
    data, config = make_data(), SearchConfig(study="nightly-{date}-{data}")
    name = f"nightly-2026-11-23-{data.fingerprint[:12]}"
    assert resolving.resolve(config, data)[0].study == name
    # The same night once more goes on with it.
    assert resolving.resolve(config, data)[0].study == name
