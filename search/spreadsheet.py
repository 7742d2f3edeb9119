"""Tables for people who open them in a spreadsheet, where a text must not become a formula.

A spreadsheet runs a cell that begins with `=` and its like, whoever wrote it: a column of a table
from elsewhere may be called `=HYPERLINK(…)`. The rule is OWASP's:
https://owasp.org/www-community/attacks/CSV_Injection
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Full-width forms too, which Japanese and Chinese spreadsheets take for the plain ones.
_FORMULA_SIGNS = ("=", "+", "-", "@", "|", "＝", "＋", "－", "＠")


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A table as CSV, its header and cells escaped; None is an empty cell."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(map(escaped_cell, columns))
    for row in rows:
        table.writerow([escaped_cell(row[column]) for column in columns])
    return text.getvalue()


def escaped_cell(value: Any) -> Any:
    """Return a text that a spreadsheet would run behind an apostrophe, all else as it is."""
    if not isinstance(value, str) or _is_number(value):
        return value
    # A tab, a newline or a space before the sign does not stop every spreadsheet.
    is_formula = value.lstrip().startswith(_FORMULA_SIGNS) or value[:1] in ("\t", "\r", "\n")
    return f"'{value}" if is_formula else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()
