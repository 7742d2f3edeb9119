"""Bytes to a DataFrame: CSV or Parquet, gzip or not, one file or a glob, at any fsspec URL.

What a file is, its first bytes say, not its name. No more is read than the limit allows, counted
as it will be in memory: a small gzip or Parquet file may hold terabytes.
"""

from __future__ import annotations

import gzip
import io
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import fsspec
import pandas as pd
import pyarrow.parquet as pq

from pipelines.data_config import DEFAULT_MAX_FILE_BYTES
from pipelines.data_error import DataError, listed, quoted
from pipelines.delimited import check_num_columns, parse_delimited
from pipelines.printable import printable

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["FILE_COLUMN", "DataError", "flatten", "read_table", "table_name"]

FILE_COLUMN = "series_file"
"""The column that a glob adds: the name of the file that a row comes from."""

_PIECE_BYTES = 1 << 20
_MOST_DEFLATED = 1032  # times that deflate makes the best case smaller: https://zlib.net/zlib_tech
_LONGEST_NAME = 200
# First bytes of what is often taken for a table, and what to do about it.
_FOREIGN = (
    (b"PK\x03\x04", "a zip archive or a spreadsheet; save it as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet (xls); save it as CSV"),
    (b"BZh", "compressed with bzip2; unpack it, or compress it with gzip"),
    (b"\xfd7zXZ\x00", "compressed with xz; unpack it, or compress it with gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it, or compress it with gzip"),
    (b"\x1f\x8b", "compressed twice; unpack it"),
    (b"SQLite format 3\x00", "an SQLite database; export the table as CSV"),
    (b"%PDF-", "a PDF; save the table as CSV"),
    (b"ARROW1\x00\x00", "a Feather file; save it as Parquet"),
    (b"version https://git-lfs.github.com", "a pointer of Git LFS; fetch it with git lfs pull"),
    (b"<!doctype", "a web page; check the address, or log in where it asks for it"),
    (b"<html", "a web page; check the address, or log in where it asks for it"),
    (b"<?xml", "XML; save the table as CSV"),
    (b"{", "JSON; save the table as CSV"),
    (b"[{", "JSON; save the table as CSV"),
)


def read_table(
    path: str, max_file_bytes: int = DEFAULT_MAX_FILE_BYTES, keeps_text: bool = False
) -> pd.DataFrame:
    """Read one file, or all that a glob matches, one below the other.

    Args:
        path: A local path, a glob or an fsspec URL (`s3://…`, `https://…`).
        max_file_bytes: The most that the files may hold together, unpacked.
        keeps_text: Whether the cells of a CSV file stay text, to be read by another decimal mark.

    Returns:
        The table as written. A glob adds the column `series_file` and numbers each file's rows
        from 0.

    Raises:
        DataError: Nothing is there, it is too large, or it cannot be read as a table.
    """
    filesystem, places = _find_files(path)
    tables, num_left = [], max_file_bytes
    for place in places:
        content = _read_file(filesystem, place, num_left, max_file_bytes)
        tables.append(_parse(content, place, num_left, max_file_bytes, keeps_text))
        num_left -= len(content)
    if not _is_glob(path):
        return tables[0]
    return _stack(tables, [table_name(place) for place in places])


def table_name(path: str) -> str:
    """Return the name of a file without folders and endings: `data/load.csv.gz` is `load`."""
    name = PurePosixPath(path.replace("\\", "/")).name
    return re.sub(r"(\.(csv|tsv|txt|gz|parquet|pq))+$", "", name, flags=re.IGNORECASE) or name


def flatten(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table with its index, where that carries data, as columns, and plain names.

    Raises:
        DataError: Two columns have one name, or a name cannot be typed.
    """
    has_data = isinstance(frame.index, pd.DatetimeIndex | pd.MultiIndex) or frame.index.name
    index = "timestamp" if isinstance(frame.index, pd.DatetimeIndex) else None
    flat = frame.reset_index(names=frame.index.name or index) if has_data else frame.copy()
    flat.columns = pd.Index(_plain_names(flat.columns))
    check_num_columns(len(flat.columns), "it")
    repeated = flat.columns[flat.columns.duplicated()]
    if len(repeated):
        raise DataError(
            f"column names must be unique: {quoted(repeated[0])} appears twice; rename one of the "
            "two"
        )
    for name in flat.columns:
        if len(name) > _LONGEST_NAME or printable(name) != name:
            raise DataError(
                f"a column name must be printable and at most {_LONGEST_NAME} characters long: got "
                f"{quoted(name)}, {len(name)} characters; rename the column"
            )
    return flat.reset_index(drop=True)


def _plain_names(columns: pd.Index[Any]) -> list[str]:
    if columns.nlevels == 1:
        # Spreadsheets break the lines of a heading: "load\n(kW)".
        return [" ".join(str(name).split()) for name in columns]
    # yfinance names columns (Close, TICKER): a level with one value says nothing.
    telling = [
        level for level in range(columns.nlevels) if columns.get_level_values(level).nunique() > 1
    ]
    return [
        " ".join(str(name[level]) for level in telling if str(name[level])) or str(name[0])
        for name in columns
    ]


def _is_glob(path: str) -> bool:
    # In https://…/table.csv?download=1 the question mark starts a query.
    return any(character in path for character in ("*[" if "://" in path else "*?["))


def _find_files(path: str) -> tuple[AbstractFileSystem, list[str]]:
    try:
        filesystem, place = fsspec.core.url_to_fs(path)
        if not _is_glob(path):
            return filesystem, [place]
        places = sorted(filesystem.glob(place))
    except Exception as error:  # each filesystem has errors of its own library
        raise _unreadable(path, error) from error
    if not places:
        raise DataError(f"the glob must match a file: {path} matches none; check the path")
    return filesystem, places


def _read_file(
    filesystem: AbstractFileSystem, place: str, num_left: int, max_file_bytes: int
) -> bytes:
    """Return the content of a file, unpacked."""
    try:
        about = filesystem.info(place)
        _check_is_file(about, place)
        if (about.get("size") or 0) > num_left:
            raise _too_large(place, max_file_bytes)
        with filesystem.open(place, "rb") as file:
            content = _read_at_most(file, num_left + 1)
        if content.startswith(b"\x1f\x8b"):
            if _unpacks_to_more_than(num_left, content):
                raise _too_large(place, max_file_bytes)
            content = gzip.decompress(content)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"the file must exist: there is no {place}; check the path") from error
    except Exception as error:  # each filesystem has errors of its own library
        raise _unreadable(place, error) from error
    if len(content) > num_left:
        raise _too_large(place, max_file_bytes)
    return content


def _check_is_file(about: dict[str, Any], place: str) -> None:
    # Opened, a pipe that nobody writes to waits for ever, and /dev/zero has no end.
    if about["type"] not in ("file", "link"):
        kind = "a folder" if about["type"] == "directory" else "a device or a pipe"
        raise DataError(
            f"the file must be readable: {place} is {kind}; name a file, or files as 'folder/*.csv'"
        )


def _read_at_most(file: Any, num_bytes: int) -> bytes:
    content = bytearray()
    # Not in one call: it may return less, or set aside all the memory that it is allowed.
    while piece := file.read(min(_PIECE_BYTES, num_bytes - len(content))):
        content += piece
    return bytes(content)


def _unpacks_to_more_than(num_bytes: int, content: bytes) -> bool:
    """Count what a gzip file holds, keeping none of it, where it may be too much."""
    if len(content) * _MOST_DEFLATED <= num_bytes:
        return False
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        while num_bytes >= 0 and (piece := file.read(_PIECE_BYTES)):
            num_bytes -= len(piece)
    return num_bytes < 0


def _parse(
    content: bytes, place: str, num_left: int, max_file_bytes: int, keeps_text: bool
) -> pd.DataFrame:
    if not content.strip():
        raise DataError(f"the file must hold a table: {place} is empty; check the path")
    start = content[:1000].lstrip().lower()
    for first_bytes, what in _FOREIGN:
        if start.startswith(first_bytes.lower()):
            raise DataError(f"the file must be CSV or Parquet: {place} is {what}")
    if not content.startswith(b"PAR1"):
        return flatten(parse_delimited(content, place, keeps_text))
    try:
        about = pq.read_metadata(io.BytesIO(content))
        check_num_columns(about.num_columns, place)
        if _num_bytes_at_least(about) > num_left:
            raise _too_large(place, max_file_bytes)
        frame = pd.read_parquet(io.BytesIO(content), engine="pyarrow")
    except DataError:
        raise
    except Exception as error:  # a damaged file has errors of every kind
        raise _unreadable(place, error) from error
    return flatten(frame)


def _num_bytes_at_least(about: pq.FileMetaData) -> int:
    """Return the bytes that a Parquet table takes at least, unpacked."""
    groups = (about.row_group(number) for number in range(about.num_row_groups))
    # A column of one repeated value is a few bytes in the file and eight a row in memory.
    num_cells = about.num_rows * about.num_columns
    return int(max(8 * num_cells, sum(group.total_byte_size for group in groups)))


def _stack(tables: list[pd.DataFrame], names: list[str]) -> pd.DataFrame:
    for name, table in zip(names, tables, strict=True):
        if set(table.columns) != set(tables[0].columns):
            raise DataError(
                f"the files of a glob must have the same columns: {names[0]} has "
                f"{listed(tables[0].columns)} and {name} has {listed(table.columns)}; narrow the "
                "glob"
            )
    for name, table in zip(names, tables, strict=True):
        table.insert(0, FILE_COLUMN, name)
    return pd.concat(tables)


def _too_large(place: str, max_file_bytes: int) -> DataError:
    return DataError(
        f"a table may hold {max_file_bytes:,} bytes, unpacked and over all files: with {place} it "
        "has more; leave out columns and rows that are not needed, or raise the limit with --set "
        f"data.max_file_bytes={4 * max_file_bytes}"
    )


def _unreadable(place: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(
        f"the file must be readable: {place}: {reason[:300]}; check the path and the format"
    )
