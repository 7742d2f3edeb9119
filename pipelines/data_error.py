"""The error of a table that cannot be used, and how its message quotes what the table holds."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.printable import printable

_MAX_QUOTED = 60  # characters; a cell or a name may have millions
_MAX_LISTED = 10


class DataError(ValueError):
    """A table that cannot be used: one line with the rule, the value, the row and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def quoted(value: object) -> str:
    """Return a value of the table in quotes, cut where it is long."""
    return repr(_cut(str(value)))


def listed(names: Iterable[object]) -> str:
    """Return the first ten names, and how many more there are."""
    known = [_cut(str(name)) for name in names]
    more = f" and {len(known) - _MAX_LISTED} more" if len(known) > _MAX_LISTED else ""
    return f"{', '.join(known[:_MAX_LISTED])}{more}"


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}…"
