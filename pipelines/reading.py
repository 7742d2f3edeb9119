"""Bytes to a DataFrame: CSV or Parquet, gzip or not, one file or a glob, at any fsspec URL.

What a file is, its first bytes say, not its name.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections import Counter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import fsspec
import pandas as pd

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

FILE_COLUMN = "series_file"
"""The column that a glob adds: the name of the file that a row comes from."""


class DataError(ValueError):
    """A table that cannot be used: one line with the rule, the value, the row and the remedy."""


def read_table(path: str) -> pd.DataFrame:
    """Read one file, or all that a glob matches, one below the other.

    Args:
        path: A local path, a glob or an fsspec URL (`s3://…`, `https://…`).

    Returns:
        The table as written. A glob adds the column `series_file` and numbers each file's rows
        from 0.

    Raises:
        DataError: Nothing is there, or it cannot be read as a table.
    """
    filesystem, places = _find_files(path)
    tables = [_read_file(filesystem, place) for place in places]
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
        DataError: Two columns have one name.
    """
    has_data = isinstance(frame.index, pd.DatetimeIndex | pd.MultiIndex) or frame.index.name
    index = "timestamp" if isinstance(frame.index, pd.DatetimeIndex) else None
    flat = frame.reset_index(names=frame.index.name or index) if has_data else frame.copy()
    flat.columns = pd.Index(_plain_names(flat.columns))
    repeated = flat.columns[flat.columns.duplicated()]
    if len(repeated):
        raise DataError(
            f"column names must be unique: {repeated[0]!r} appears twice; rename one of the two"
        )
    return flat.reset_index(drop=True)


def _plain_names(columns: pd.Index[Any]) -> list[str]:
    if columns.nlevels == 1:
        return [str(name).strip() for name in columns]
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
    except (OSError, ValueError, ImportError) as error:
        raise _unreadable(path, error) from error
    if not places:
        raise DataError(f"the glob must match a file: {path} matches none; check the path")
    return filesystem, places


def _read_file(filesystem: AbstractFileSystem, place: str) -> pd.DataFrame:
    try:
        content = filesystem.cat_file(place)
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except FileNotFoundError as error:
        raise DataError(f"the file must exist: there is no {place}; check the path") from error
    except (OSError, EOFError, zlib.error, ImportError) as error:
        raise _unreadable(place, error) from error
    return _parse(content, place)


def _parse(content: bytes, place: str) -> pd.DataFrame:
    if not content.strip():
        raise DataError(f"the file must hold a table: {place} is empty; check the path")
    if content.startswith(b"PK\x03\x04"):
        raise DataError(
            f"the file must be CSV or Parquet: {place} is a zip archive or a spreadsheet; save it "
            "as CSV"
        )
    try:
        if content.startswith(b"PAR1"):
            return flatten(pd.read_parquet(io.BytesIO(content), engine="pyarrow"))
        return flatten(_parse_csv(content.decode("utf-8-sig"), place))
    except UnicodeDecodeError as error:
        raise DataError(
            f"the file must be Parquet or CSV in UTF-8: {place} has another byte at position "
            f"{error.start}; save it as UTF-8"
        ) from error
    except DataError:
        raise
    except (ValueError, OSError) as error:
        raise _unreadable(place, error) from error


def _parse_csv(text: str, place: str) -> pd.DataFrame:
    header = text.lstrip().partition("\n")[0]
    counts = Counter(character for character in header if character in ",;\t")
    delimiter = counts.most_common(1)[0][0] if counts else ","
    # Tables written with ; are mostly from places that write 1226,31.
    has_decimal_comma = delimiter != "," and re.search(
        rf"(?:^|{delimiter})-?\d+,\d+\s*(?:{delimiter}|$)", text[:10_000], re.MULTILINE
    )
    table = pd.read_csv(
        io.StringIO(text),
        sep=delimiter,
        decimal="," if has_decimal_comma else ".",
        skipinitialspace=True,
        low_memory=False,  # types by whole columns; else a long column may come in two types
    )
    if all(_reads_as_value(str(name)) for name in table.columns):
        raise DataError(
            f"the first line must name the columns: {place} starts with {header.strip()!r}; add a "
            "line such as timestamp,load"
        )
    return table


def _reads_as_value(name: str) -> bool:
    return re.fullmatch(r"[-+]?\d[\d.,:/T Z+-]*(e[-+]?\d+)?", name.strip()) is not None


def _stack(tables: list[pd.DataFrame], names: list[str]) -> pd.DataFrame:
    for name, table in zip(names, tables, strict=True):
        if set(table.columns) != set(tables[0].columns):
            raise DataError(
                f"the files of a glob must have the same columns: {names[0]} has "
                f"{', '.join(tables[0].columns)} and {name} has {', '.join(table.columns)}; narrow "
                "the glob"
            )
    for name, table in zip(names, tables, strict=True):
        table.insert(0, FILE_COLUMN, name)
    return pd.concat(tables)


def _unreadable(place: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"the file must be readable: {place}: {reason}; check the path and the format")
