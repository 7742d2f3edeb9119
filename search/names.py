"""What studies, experiments and the places of their records may be called.

A study's name becomes a file and a folder, here or on the machine of whoever gets a copy.
"""

import re
from datetime import date

from pipelines.printable import printable

FINALISTS = ".finalists"
"""Ends the name of the study that holds another's finalists."""

PLACEHOLDERS = ("{data}", "{date}")
"""What a study's name may hold until its search begins."""

NUM_FINGERPRINT_DIGITS = 12
"""Of a table's fingerprint, where it is shown or stands in a name."""

# Windows takes these for devices, whatever their ending; `--resume latest` means another study.
_TAKEN = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|latest", re.IGNORECASE)


def check_study_name(name: str) -> str:
    """Return the name of a study.

    Raises:
        ValueError: where no file could be called so, everywhere.
    """
    rule = "a study's name has 1 to 100 letters, digits, '.', '-' and '_'"
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name):
        raise ValueError(f"{rule}: got {_shown(name)}; choose another")
    if name[0] in "._-" or name[-1] == ".":
        raise ValueError(
            f"{rule}, a letter or digit first and no '.' last: got {_shown(name)}; choose another"
        )
    if _TAKEN.fullmatch(name):
        raise ValueError(f"a study cannot be called {name}, which means something else: add a word")
    return name


def check_study_template(name: str) -> str:
    """Return the name of a study, which may hold `{date}` and `{data}`.

    Raises:
        ValueError: for another placeholder, a lone brace, or where no file could be called so.
    """
    for part in re.findall(r"\{[^{}]*\}|[{}]", name):
        if part not in PLACEHOLDERS:
            raise ValueError(
                f"braces in a study's name hold a placeholder, {' or '.join(PLACEHOLDERS)}: got "
                f"{_shown(part)} in {_shown(name)}; correct it, or leave the brace out"
            )
    filled_in(name, "0" * NUM_FINGERPRINT_DIGITS, date.today())
    return name


def filled_in(template: str, fingerprint: str, today: date) -> str:
    """The name that a study gets when its search begins.

    Args:
        template: a name in which `{date}` and `{data}` may stand.
        fingerprint: of the table, for `{data}`.
        today: for `{date}`, such as 2026-11-23.

    Raises:
        ValueError: where no file could be called so.
    """
    name = template.replace("{date}", today.isoformat())
    return check_study_name(name.replace("{data}", fingerprint[:NUM_FINGERPRINT_DIGITS]))


def is_template(name: str) -> bool:
    """Whether a name waits for its search to begin."""
    return any(placeholder in name for placeholder in PLACEHOLDERS)


def check_plain_text(text: str) -> str:
    """Return a name or place of one line.

    Raises:
        ValueError: where it is empty, has control characters or is longer than any name.
    """
    if printable(text) != text or not text.strip() or len(text) > 1000:
        raise ValueError(
            "it must be text of 1 to 1,000 characters on one line, without control characters: got "
            f"{_shown(text)}; correct it"
        )
    return text


def check_database_url(url: str) -> str:
    """Return the URL of a database.

    Raises:
        ValueError: where it is none; the message holds no password.
    """
    return _check_scheme(url, ("sqlite", "postgresql"), "postgresql://user@host/database")


def check_tracking_uri(uri: str) -> str:
    """Return the URI of an MLflow server or store.

    Raises:
        ValueError: where it is none; the message holds no password.
    """
    if uri == "databricks":
        return uri
    known = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks", "uc")
    return _check_scheme(uri, known, "http://127.0.0.1:5000")


def _check_scheme(url: str, known: tuple[str, ...], example: str) -> str:
    scheme = check_plain_text(url).partition(":")[0].partition("+")[0]
    if ":" not in url or scheme not in known:
        start = _shown(scheme if ":" in url else url)
        raise ValueError(f"it begins with {', '.join(known)}: got {start}; write it as {example}")
    return url


def _shown(text: str) -> str:
    return f"'{printable(text if len(text) <= 40 else f'{text[:40]}…')}'"
