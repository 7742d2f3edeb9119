"""CSV text to a DataFrame: its encoding, its delimiter and the line that names the columns."""

from __future__ import annotations

import codecs
import csv
import io
import re
import warnings
from collections import Counter
from collections.abc import Sequence

import pandas as pd
from pandas.errors import ParserError, ParserWarning

from pipelines.data_error import DataError, quoted

_SAMPLE_BYTES = 1 << 20
_SAMPLE_LINES = 200
_MOST_COLUMNS = 2_000  # pandas takes milliseconds to look at each
# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Where several part the sample equally, the first: commas stand in numbers and headings too.
_DELIMITERS = ("\t", ";", "|", ",")
_END = "end"
_MISSING = ("-", "--", "?", "n.a.")


def parse_delimited(content: bytes, place: str, keeps_text: bool) -> pd.DataFrame:
    """Read CSV in UTF-8, or in UTF-16 or UTF-32 with a mark, parted by comma, semicolon, tab or |.

    Args:
        content: The file.
        place: Its name, for messages.
        keeps_text: Whether cells stay text whatever the delimiter.

    Returns:
        The table. The cells of one with semicolons are text, since 1.125 may be a thousand there.

    Raises:
        DataError: It is no such text, or a line has more fields than there are names.
    """
    content = _as_utf8(content, place)
    delimiter, content = _declared_delimiter(content)
    sample = _sample(content, place)
    delimiter = delimiter or _delimiter(sample)
    names = _fields(sample, delimiter)[0] if delimiter else sample[:1]
    check_num_columns(len(names), place)
    _check_names(names, sample[0], place)
    if delimiter is None and any(re.search(r"[,;\t|]", line) for line in sample):
        raise _uneven(place, "the first line has one field and a later one more")
    with warnings.catch_warnings():
        # pandas cuts fields beyond the names and says so in a warning.
        warnings.simplefilter("error", ParserWarning)
        try:
            return pd.read_csv(
                io.BytesIO(content),
                sep=delimiter or ",",
                dtype="str" if keeps_text or delimiter == ";" else None,
                na_values=list(_MISSING),
                skipinitialspace=True,
                index_col=False,  # a line that is too long must not move the columns by one
                low_memory=False,  # types by whole columns; else a long column has two types
            )
        except ParserWarning as error:
            raise _uneven(place, "the lines after it have more") from error
        except ParserError as error:
            raise _uneven(place, " ".join(str(error).split())) from error


def check_num_columns(num_columns: int, place: str) -> None:
    """Raise DataError where a table has more columns than a search could use."""
    if num_columns > _MOST_COLUMNS:
        raise DataError(
            f"a table may have {_MOST_COLUMNS:,} columns: {place} has {num_columns:,}; leave out "
            "those that do not help to forecast, or turn the table where each row is a series"
        )


def _as_utf8(content: bytes, place: str) -> bytes:
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    try:
        if encoding is not None:
            content = content.decode(encoding).encode()
        content = content.removeprefix(codecs.BOM_UTF8)
        _check_is_utf8(content)
    except UnicodeDecodeError as error:
        raise DataError(
            f"the file must be Parquet or CSV in UTF-8: {place} has another byte at position "
            f"{error.start}; save it as UTF-8"
        ) from error
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise DataError(
            f"a CSV file must be text: {place} has a NUL byte in line {line}; it is damaged, "
            "binary, or UTF-16 without its mark: save it as UTF-8"
        )
    return content


def _check_is_utf8(content: bytes) -> None:
    """Raise UnicodeDecodeError where it is not, without a copy of the whole as text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(content), _SAMPLE_BYTES):
        num_pending = len(decoder.getstate()[0])
        try:
            piece = content[start : start + _SAMPLE_BYTES]
            decoder.decode(piece, final=start + _SAMPLE_BYTES >= len(content))
        except UnicodeDecodeError as error:
            error.start += start - num_pending
            raise


def _declared_delimiter(content: bytes) -> tuple[str | None, bytes]:
    """Return the delimiter of Excel's first line sep=; and the rest."""
    found = re.match(rb'"?sep=([,;|\t])"?\r?\n', content, flags=re.IGNORECASE)
    return (found[1].decode(), content[found.end() :]) if found else (None, content)


def _sample(content: bytes, place: str) -> list[str]:
    """Return the first lines that hold anything."""
    # A character cut in two at the end falls with its line.
    text = content[:_SAMPLE_BYTES].decode(errors="ignore")
    lines = io.StringIO(text, newline=None).readlines()
    whole = lines if len(content) <= _SAMPLE_BYTES else lines[:-1]
    sample = [line for line in whole if line.strip()][:_SAMPLE_LINES]
    if not sample and lines:
        raise DataError(
            f"the first line must name the columns: that of {place} is longer than "
            f"{_SAMPLE_BYTES:,} bytes; save the table with a line for each row"
        )
    if not sample:
        raise DataError(f"the file must hold a table: {place} is empty; check the path")
    return sample


def _delimiter(sample: Sequence[str]) -> str | None:
    """Return what parts the most lines into as many fields as the first; None for one column."""
    ranks = {}
    for delimiter in _DELIMITERS:
        *rows, last = _fields([*sample, _END], delimiter)
        counts = [len(fields) for fields in rows or [last]]
        if counts[0] > 1:
            # At a wrong delimiter a quote may seem to open, and takes all lines that follow.
            ranks[delimiter] = (last == [_END], counts.count(counts[0]) / len(counts))
    if ranks:
        return max(ranks, key=lambda delimiter: ranks[delimiter])
    are_words = len({len(line.split()) for line in sample}) == 1 and len(sample[0].split()) > 1
    return r"\s+" if are_words else None


def _fields(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    if len(delimiter) > 1:
        return [line.split() for line in lines]
    try:
        return list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
    except csv.Error:  # a field of more than 128 KiB
        return [line.split(delimiter) for line in lines]


def _check_names(names: Sequence[str], line: str, place: str) -> None:
    plain = [" ".join(name.split()) for name in names]
    counts = Counter(name for name in plain if name)
    repeated, num_times = counts.most_common(1)[0] if counts else ("", 0)
    if num_times > 1:
        raise DataError(
            f"column names must be unique: {quoted(repeated)} appears twice in {place}; rename one "
            "of the two"
        )
    if all(_reads_as_value(name) for name in plain) or line.lstrip().startswith("#"):
        raise DataError(
            f"the first line must name the columns: {place} starts with {quoted(line.strip())}; "
            "start it with a line such as timestamp,load"
        )


def _reads_as_value(name: str) -> bool:
    return re.fullmatch(r"[-+]?\d[\d.,:/T Z+-]*(e[-+]?\d+)?", name.strip()) is not None


def _uneven(place: str, reason: str) -> DataError:
    if "EOF inside string" in reason:
        return DataError(
            f"every quote must be closed: {place}: {reason}; close it, or leave the quotes out"
        )
    return DataError(
        f"every line must have as many fields as the first has names: {place}: {reason}; remove "
        "titles above the names, and quote fields that hold the delimiter (a decimal comma)"
    )
