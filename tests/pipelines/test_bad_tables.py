"""Tables as people have them: each is refused in one line that helps, or read as it is meant."""

import bz2
import decimal
import gzip
import io
import lzma
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.data_config import DataConfig
from pipelines.data_error import DataError
from pipelines.series import SeriesTable, load

HOURS = pd.date_range("2014-01-01", periods=60, freq="h")
DAYS = pd.date_range("2014-01-01", periods=60)
MONTHS = pd.date_range("2010-01-01", periods=60, freq="MS")
VALUES = np.round(15 + 8 * np.sin(np.arange(60) / 4), 2)
ISO = [f"{hour:%Y-%m-%d %H:%M}" for hour in HOURS]
PLAIN = [str(value) for value in VALUES]
COMMA = [value.replace(".", ",") for value in PLAIN]
QUOTED_COMMA = [f'"{value}"' for value in COMMA]
THOUSANDS = np.arange(940.0, 1060.0, 2)
NOISE = np.random.default_rng(0).bytes(4000)


def csv(
    times: Sequence[object] = ISO,
    values: Sequence[object] = PLAIN,
    delimiter: str = ",",
    names: str = "timestamp,load",
) -> str:
    lines = [f"{time}{delimiter}{value}" for time, value in zip(times, values, strict=True)]
    return "\n".join([names.replace(",", delimiter), *lines]) + "\n"


def cell(text: str) -> str:
    """A table with `text` as its 12th value."""
    return csv(values=[*PLAIN[:11], text, *PLAIN[12:]])


def parquet(num_rows: int = 60, **columns: Any) -> bytes:
    buffer = io.BytesIO()
    frame = pd.DataFrame({"timestamp": HOURS, "load": VALUES})
    frame.assign(**columns)[:num_rows].to_parquet(buffer)
    return buffer.getvalue()


def loaded(folder: Path, content: str | bytes, settings: dict[str, Any]) -> SeriesTable:
    path = folder / "table"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load(DataConfig(path=str(path), **settings))


# Refused


@dataclass(frozen=True)
class Refused:
    """A file, and what the one line about it must say."""

    content: str | bytes
    words: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)


FALL = pd.date_range("2014-10-25", periods=60, freq="h", tz="Europe/Berlin")
SPRING = pd.date_range("2014-03-29", periods=60, freq="h", tz="Europe/Berlin")
GZIP = gzip.compress(csv().encode())

REFUSED = {
    "empty": Refused("", ("must hold a table", "is empty")),
    "blank": Refused("\n \n", ("must hold a table", "is empty")),
    "a mark and nothing else": Refused(b"\xff\xfe", ("must hold a table", "is empty")),
    "header only": Refused("timestamp,load\n", ("must have rows", "it has none")),
    "one row": Refused("timestamp,load\n2014-01-01,3\n", ("at least 6 rows", "got 1", "more rows")),
    "no header": Refused(csv(names=f"{ISO[0]},1.5"), ("first line must name", "2014-01-01 00:00")),
    "comments first": Refused("# of the north\n" + csv(), ("first line must name", "of the north")),
    "a title first": Refused("Load\n\n" + csv(), ("as many fields", "remove titles")),
    "the names again": Refused(csv() + "timestamp,load\n", ("must parse", "'timestamp'", "row 61")),
    "a total at the end": Refused(csv() + "Total,99\n", ("must parse", "'Total'", "row 61")),
    "units below the names": Refused(
        csv().replace("load\n", "load\n,kW\n"), ("must parse", "row 1")
    ),
    "a name twice": Refused(
        csv(values=[f"{value},1" for value in PLAIN], names="timestamp,load,load"),
        ("must be unique", "'load' appears twice", "rename"),
    ),
    "a name with an escape": Refused(
        csv(names="timestamp,\x1b[31mload"), ("printable", r"\x1b[31mload", "rename")
    ),
    "a name without end": Refused(
        csv(names=f"timestamp,{'x' * 100_000}"), ("200 characters", "100000", "rename")
    ),
    "too many columns": Refused(
        ",".join(["timestamp", *(f"c{number}" for number in range(2000))]) + "\n" + "1," * 2000,
        ("may have 2,000 columns", "has 2,001", "leave out"),
    ),
    "another delimiter": Refused(csv(delimiter="~"), ("column of timestamps", "--timestamp")),
    "decimal commas without quotes": Refused(csv(values=COMMA), ("as many fields", "quote")),
    "a row too long": Refused(csv() + "2014-01-03 12:00,1,2\n", ("fields", "line 62", "quote")),
    "all rows too long": Refused(csv(values=[f"{value},5" for value in PLAIN]), ("as many",)),
    "a row too short": Refused(csv() + "2014-01-03 12:00\n", ("missing", "row 61", "interpolate")),
    "an open quote": Refused(cell('"12'), ("quote must be closed", "row 12")),
    "UTF-16 without its mark": Refused(csv().encode("utf-16-le"), ("NUL byte in line 1", "UTF-8")),
    "Latin-1": Refused(
        csv(names="timestamp,Stra\xdfe").encode("latin-1"), ("byte at position 14",)
    ),
    "NUL in a cell": Refused(cell("1\x002"), ("NUL byte in line 13", "damaged")),
    "NUL to the end": Refused(csv() + "\x00" * 5000, ("NUL byte in line 62", "damaged")),
    "noise": Refused(b"\xa3" + NOISE, ("must be Parquet or CSV in UTF-8", "position 0")),
    "a program": Refused(b"\x7fELF\x02\x01\x01" + bytes(4000), ("must be text", "NUL")),
    "a zip": Refused(b"PK\x03\x04" + NOISE, ("zip archive or a spreadsheet", "save it as CSV")),
    "an old spreadsheet": Refused(b"\xd0\xcf\x11\xe0" + NOISE, ("old spreadsheet",)),
    "a database": Refused(b"SQLite format 3\x00" + bytes(4000), ("SQLite", "export")),
    "a PDF": Refused(b"%PDF-1.4\n" + NOISE, ("is a PDF",)),
    "a web page": Refused("<!DOCTYPE html>\n<html>404, not found</html>", ("web page", "address")),
    "JSON": Refused('[{"timestamp":"2014-01-01","load":3}]', ("is JSON", "as CSV")),
    "a pointer of Git LFS": Refused(
        "version https://git-lfs.github.com/spec/v1\noid sha256:1\n", ("Git LFS", "git lfs pull")
    ),
    "bzip2": Refused(bz2.compress(csv().encode()), ("compressed with bzip2", "gzip")),
    "xz": Refused(lzma.compress(csv().encode()), ("compressed with xz", "gzip")),
    "gzip in gzip": Refused(gzip.compress(GZIP), ("compressed twice", "unpack")),
    "gzip cut off": Refused(GZIP[:-30], ("must be readable", "ended before")),
    "gzip with a wrong sum": Refused(GZIP[:-8] + bytes(8), ("must be readable", "CRC")),
    "gzip of nothing": Refused(gzip.compress(b""), ("is empty",)),
    "gzip with noise behind": Refused(GZIP + b"noise", ("must be readable",)),
    "Parquet cut off": Refused(parquet()[:-50], ("must be readable", "check the path")),
    "Parquet overwritten": Refused(
        parquet()[:50] + b"\xff" * 60 + parquet()[110:], ("must be readable",)
    ),
    "Parquet without rows": Refused(parquet(num_rows=0), ("must have rows", "it has none")),
    "Parquet with a mapping for each number": Refused(
        parquet(load=[{"kw": value} for value in VALUES]), ("numeric column", "'kw'", "row 1")
    ),
    "Parquet with a list for each number": Refused(
        parquet(load=[[value] for value in VALUES]),
        ("must be numbers", "row 1"),
        {"targets": ("load",)},
    ),
    "Parquet with durations": Refused(
        parquet(load=pd.to_timedelta(VALUES, unit="h")), ("numeric column", "0 days")
    ),
    "Parquet with a time missing": Refused(
        parquet(timestamp=HOURS.where(np.arange(60) != 5)), ("must parse", "'NaT'", "row 6")
    ),
    "no time": Refused(csv(names="timestamp,load").replace("2014-01-", "x"), ("--freq none",)),
    "times of day alone": Refused(
        csv(times=[f"{hour:%H:%M}" for hour in HOURS]),
        ("must parse", "'00:00'", "row 1"),
        {"timestamp": "timestamp"},
    ),
    "the 30th of February": Refused(
        csv(times=[*ISO[:5], "2014-02-30 00:00", *ISO[6:]]), ("'2014-02-30 00:00'", "row 6")
    ),
    "the hour 24": Refused(
        csv(times=[f"{hour:%Y-%m-%d} {hour.hour + 1:02}:00" for hour in HOURS]),
        ("must parse", "24:00", "row 24"),
    ),
    "a year far away": Refused(csv(times=[*ISO[:-1], "9999-12-31"]), ("one row in four", "9999")),
    "days and months in both orders": Refused(
        csv(times=[*DAYS[:20].strftime("%d/%m/%Y"), *DAYS[20:].strftime("%m/%d/%Y")]),
        ("must parse", "such rows"),
    ),
    "time zones here and there": Refused(
        csv(times=[time + ("Z" if row % 2 else "") for row, time in enumerate(ISO)]),
        ("time zone all or none", "row 1", "offset"),
    ),
    "the clock set back": Refused(
        csv(times=FALL.strftime("%Y-%m-%d %H:%M").tolist()),
        ("must be unique", "2014-10-26 02:00:00", "row 28", "UTC offset"),
    ),
    "the clock set forward": Refused(
        csv(times=SPRING.strftime("%Y-%m-%d %H:%M").tolist()),
        ("without gaps", "1 are missing", "2014-03-30 02:00:00", "interpolate"),
    ),
    "a timestamp twice": Refused(
        csv(times=[*ISO[:7], ISO[6], *ISO[8:]]), ("must be unique", "row 8", "remove")
    ),
    "date and time in two columns": Refused(
        csv(times=[time.replace(" ", ",") for time in ISO], names="date,time,load"),
        ("must be unique", "into one column"),
    ),
    "a gap": Refused(
        csv(times=ISO[:20] + ISO[23:], values=PLAIN[:57]), ("3 are missing", "20:00", "interpolate")
    ),
    "uneven steps": Refused(
        csv(times=[f"{time}:{row % 3:02}" for row, time in enumerate(ISO)]), ("frequency", "--freq")
    ),
    "no value at all": Refused(csv(values=[""] * 60), ("numeric column", "none")),
    "one value everywhere": Refused(csv(values=[5] * 60), ("must vary", "5 in every row")),
    "text in numbers": Refused(cell("12 kW"), ("must be numbers", "'12 kW'", "row 12")),
    "a formula": Refused(cell("=1+1"), ("must be numbers", "'=1+1'", "row 12")),
    "an error of a spreadsheet": Refused(cell("#REF!"), ("must be numbers", "'#REF!'", "row 12")),
    "brackets for a minus": Refused(cell("(12)"), ("must be numbers", "'(12)'", "row 12")),
    "a cell without end": Refused(cell("x" * 50_000), ("must be numbers", "xxx…", "row 12")),
    "a line break in a cell": Refused(cell('"a\nb"'), ("must be numbers", r"a\nb", "row 12")),
    "per cent": Refused(csv(values=[f"{v}%" for v in PLAIN]), ("numeric column", "%'", "row 1")),
    "currency": Refused(csv(values=[f"${v}" for v in PLAIN]), ("numeric column", "'$", "row 1")),
    **{
        f"missing as {text or 'nothing'}": Refused(cell(text), ("missing", "row 12", "interpolate"))
        for text in ("", "  ", "NA", "N/A", "#N/A", "null", "None", "nan", "-", "?")
    },
    "infinity": Refused(cell("inf"), ("infinite", "row 12", "inf;")),
    "beyond float64": Refused(cell("1e309"), ("infinite", "row 12")),
    "a huge value": Refused(cell("1e300"), ("between 1e-100 and 1e+100", "row 12", "unit")),
    "huge values": Refused(csv(values=[f"{v}e200" for v in PLAIN]), ("1e+100", "another unit")),
    "tiny values": Refused(csv(values=[f"{v}e-300" for v in PLAIN]), ("1e-100", "another unit")),
    "decimal point and comma": Refused(
        csv(values=[*PLAIN[:30], *COMMA[30:]], delimiter=";"),
        ("one decimal mark", "row 1", "row 3"),
    ),
    "three digits after every point": Refused(
        csv(values=[f"{v:.3f}" for v in VALUES / 6 + 2], delimiter=";"),
        ("may be either", "row 1", "--set data.decimal=comma"),
    ),
    "three digits after every comma": Refused(
        csv(values=[f'"{v:.3f}"'.replace(".", ",") for v in VALUES / 6 + 2]),
        ("may be either", "row 1", "--set data.decimal=comma"),
    ),
    "a point where the comma is said to be": Refused(
        csv(), ("decimal mark of the table, a comma", "row 1"), {"decimal": "comma"}
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_will_not_do_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    case = REFUSED[name]
    with pytest.raises(DataError, match=r"^.*\Z") as caught:
        loaded(tmp_path, case.content, case.settings)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 600 + len(str(tmp_path))
    for word in case.words:
        assert word in message, message


# Read


@dataclass(frozen=True)
class Read:
    """A file, and what must be read from it."""

    content: str | bytes
    note: str = ""
    """Found in one of the notes."""
    timestamps: pd.DatetimeIndex = field(default_factory=lambda: HOURS)
    values: np.ndarray = field(default_factory=lambda: VALUES)
    settings: dict[str, Any] = field(default_factory=dict)


def grouped(thousands: str, point: str) -> list[str]:
    """A thousand times the values with marks, in quotes: "15,000.00"."""
    marks = str.maketrans({",": thousands, ".": point})
    return [f'"{format(1000 * value, ",.2f").translate(marks)}"' for value in VALUES]


def stamped(form: str, grid: pd.DatetimeIndex = HOURS, name: str = "timestamp") -> str:
    return csv(times=grid.strftime(form).tolist(), names=f"{name},load")


def epochs(unit: str) -> str:
    return csv(times=HOURS.as_unit(unit).asi8.tolist(), names="date,load")  # type: ignore[arg-type]


INTERPOLATED = {"missing": "interpolate"}
MISSING_12TH = np.where(np.arange(60) == 11, np.nan, VALUES)
BERLIN = [time.isoformat() for time in FALL]

READ = {
    "UTF-8 with a mark": Read(b"\xef\xbb\xbf" + csv().encode()),
    "UTF-16 with a mark": Read(csv().encode("utf-16")),
    "UTF-16 of the other order": Read(b"\xfe\xff" + csv().encode("utf-16-be")),
    "UTF-32 with a mark": Read(csv().encode("utf-32")),
    "line ends of Windows": Read(csv().replace("\n", "\r\n")),
    "line ends of an old Macintosh": Read(csv().replace("\n", "\r")),
    "blank lines": Read("\n\n" + csv().replace("\n", "\n\n")),
    "tabs": Read(csv(delimiter="\t")),
    "bars": Read(csv(delimiter="|")),
    "blanks": Read(csv(times=[time.replace(" ", "T") for time in ISO], delimiter=" ")),
    "the delimiter said by Excel": Read("sep=;\r\n" + csv(delimiter=";")),
    "commas in a heading beside semicolons": Read(
        csv(times=[f"x;{time}" for time in ISO], delimiter=";", names='"a, b, c",time,load')
    ),
    "as many commas as semicolons": Read(
        csv(values=COMMA, delimiter=";").replace("load", "load, kW"), "decimal comma"
    ),
    "a delimiter at the end of each row": Read(csv(values=[f"{value}," for value in PLAIN])),
    "blanks around everything": Read(
        csv(times=[f" {time} " for time in ISO], values=[f"  {value} " for value in PLAIN])
    ),
    "quotes around everything": Read(
        csv(times=[f'"{time}"' for time in ISO], values=[f'"{value}"' for value in PLAIN])
    ),
    "a heading in two lines": Read(csv(names='timestamp,"load\n(kW)"'), "target: load (kW)"),
    "a heading without a name": Read(csv(names=",load")),
    "gzip in two members": Read(
        gzip.compress(csv()[:300].encode()) + gzip.compress(csv()[300:].encode())
    ),
    "Parquet in gzip": Read(gzip.compress(parquet())),
    "Parquet with decimals": Read(parquet(load=[decimal.Decimal(value) for value in PLAIN])),
    "Parquet with text": Read(parquet(load=PLAIN)),
    "Parquet with bytes": Read(parquet(load=[value.encode() for value in PLAIN])),
    "Parquet with lists beside": Read(parquet(tags=[["a", "b"]] * 60), "left out: tags"),
    "Parquet with mappings beside": Read(parquet(tags=[{"a": 1}] * 60), "left out: tags"),
    "decimal commas": Read(csv(values=COMMA, delimiter=";"), "decimal comma"),
    "decimal commas between tabs": Read(csv(values=COMMA, delimiter="\t"), "decimal comma"),
    "decimal commas in quotes": Read(csv(values=QUOTED_COMMA), "decimal comma"),
    "decimal commas said": Read(
        csv(values=[f"{v:.3f}".replace(".", ",") for v in VALUES], delimiter=";"),
        "decimal comma",
        settings={"decimal": "comma"},
    ),
    "decimal points said": Read(
        csv(values=[f"{v:.3f}" for v in VALUES], delimiter=";"), settings={"decimal": "point"}
    ),
    "12,345.67": Read(csv(values=grouped(",", ".")), "decimal point", values=1000 * VALUES),
    "12.345,67": Read(csv(values=grouped(".", ",")), "decimal comma", values=1000 * VALUES),
    "12'345.67": Read(csv(values=grouped("'", ".")), "decimal point", values=1000 * VALUES),
    "12 345,67": Read(csv(values=grouped("\u202f", ",")), "decimal comma", values=1000 * VALUES),
    "1.058 beside 998": Read(
        csv(values=[f"{v:,.0f}".replace(",", ".") for v in THOUSANDS], delimiter=";"),
        "decimal comma",
        values=THOUSANDS,
    ),
    "a minus of typographers": Read(
        csv(values=[f"{v:.2f}".replace("-", "\u2212") for v in VALUES - 15]),
        values=np.round(VALUES - 15, 2),
    ),
    "scientific notation": Read(csv(values=[f"{v:.3e}" for v in VALUES])),
    "a column without values": Read(csv(values=[f"{v}," for v in PLAIN], names="timestamp,load,t")),
    "a constant column": Read(
        csv(values=[f"{v},7" for v in PLAIN], names="timestamp,load,t"),
        "constant columns are left out: t",
        settings={"targets": ("load",)},
    ),
    "the newest row first": Read(csv(times=ISO[::-1], values=PLAIN[::-1]), "rows sorted by time"),
    "a missing value": Read(
        cell("?"), "to be interpolated: 1", values=MISSING_12TH, settings=INTERPOLATED
    ),
    "an infinite value": Read(
        cell("-inf"), "to be interpolated: 1", values=MISSING_12TH, settings=INTERPOLATED
    ),
    "a missing row": Read(
        csv(times=ISO[:11] + ISO[12:], values=PLAIN[:11] + PLAIN[12:]),
        "missing rows, to be interpolated: 1",
        values=MISSING_12TH,
        settings=INTERPOLATED,
    ),
    "2014/01/31": Read(stamped("%Y/%m/%d %H:%M")),
    "31.01.2014": Read(stamped("%d.%m.%Y %H:%M"), "read day first"),
    "31.01.14": Read(stamped("%d.%m.%y", DAYS), "read day first", DAYS),
    "31/01/2014": Read(stamped("%d/%m/%Y", DAYS), "read day first", DAYS),
    "01/31/2014": Read(stamped("%m/%d/%Y", DAYS), "read month first", DAYS),
    "31/01/14": Read(stamped("%d/%m/%y", DAYS), "read day first", DAYS),
    "01/31/14": Read(stamped("%m/%d/%y", DAYS), "read month first", DAYS),
    "14-01-31": Read(stamped("%y-%m-%d", DAYS), "read year first", DAYS),
    "the first of each month, day first": Read(stamped("%d/%m/%Y", MONTHS), "day first", MONTHS),
    "the first of each month, month first": Read(
        stamped("%m/%d/%y", MONTHS), "month first", MONTHS
    ),
    "three days, day first": Read(stamped("%d/%m/%Y %H:%M"), "read day first"),
    "31/01/2014 beside 2014-02-01": Read(
        csv(times=[*DAYS[:30].strftime("%d/%m/%Y"), *DAYS[30:].strftime("%Y-%m-%d")]),
        "read day first",
        DAYS,
    ),
    "31/01/2014 01:00:00 PM": Read(stamped("%d/%m/%Y %I:%M:%S %p"), "read day first"),
    "31-Jan-14": Read(stamped("%d-%b-%y", DAYS), timestamps=DAYS),
    "Jan 2014": Read(stamped("%b %Y", MONTHS), timestamps=MONTHS),
    "20140131T010000": Read(stamped("%Y%m%dT%H%M%S")),
    "2014013101": Read(stamped("%Y%m%d%H")),
    "201401310100": Read(stamped("%Y%m%d%H%M")),
    "20140131010000": Read(stamped("%Y%m%d%H%M%S")),
    "201401": Read(stamped("%Y%m", MONTHS, "date"), timestamps=MONTHS),
    "seconds since 1970": Read(epochs("s")),
    "milliseconds since 1970": Read(epochs("ms")),
    "microseconds since 1970": Read(epochs("us")),
    "nanoseconds since 1970": Read(epochs("ns")),
    "days of Excel": Read(csv(times=range(41640, 41700), names="date,load"), "days of Excel", DAYS),
    "hours of Excel": Read(
        csv(times=[f"{41640 + row / 24:.6f}" for row in range(60)], names="Date,load"),
        "days of Excel",
    ),
    "one time zone": Read(csv(times=[f"{time}+02:00" for time in ISO]), "zone is dropped"),
    "the time zone of PostgreSQL": Read(csv(times=[f"{time}:00+02" for time in ISO]), "dropped"),
    "UTC in words": Read(csv(times=[f"{time} UTC" for time in ISO]), "zone is dropped"),
    "the clock set back, with offsets": Read(
        csv(times=BERLIN), "taken to UTC", FALL.tz_convert("UTC").tz_localize(None)
    ),
    "two time zones": Read(
        csv(
            times=[
                f"{time}+00:00" if row % 2 else f"{HOURS[row] + pd.Timedelta(hours=2)}+02:00"
                for row, time in enumerate(ISO)
            ]
        ),
        "taken to UTC",
    ),
}


@pytest.mark.parametrize("name", READ)
def test_a_table_is_read_as_it_is_meant_and_what_was_repaired_is_said(
    name: str, tmp_path: Path
) -> None:
    case = READ[name]
    table = loaded(tmp_path, case.content, case.settings)
    series = table.series[0]
    assert series.timestamps is not None
    assert series.timestamps.equals(case.timestamps.as_unit("us"))
    np.testing.assert_allclose(series.values, case.values[:, None], rtol=1e-12)
    assert any(case.note in note for note in table.notes), table.notes


# Sizes and places


def test_a_file_larger_than_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "table").open("wb") as file:
        file.truncate(10**12)  # of which the disk holds nothing
    with pytest.raises(DataError, match=r"may hold 2,000,000,000 bytes.*max_file_bytes=8000000000"):
        load(DataConfig(path=str(tmp_path / "table")))


def test_a_small_file_that_unpacks_to_much_is_refused_in_little_memory(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(64_000_000))
    assert len(bomb) < 100_000
    tracemalloc.start()
    with pytest.raises(DataError, match="may hold 60,000,000 bytes, unpacked"):
        loaded(tmp_path, bomb, {"max_file_bytes": 60_000_000})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_a_small_parquet_file_of_many_rows_is_refused(tmp_path: Path) -> None:
    content = pd.DataFrame({"load": np.zeros(1_000_000)})
    content.to_parquet(tmp_path / "table")
    assert (tmp_path / "table").stat().st_size < 100_000
    with pytest.raises(DataError, match="may hold 1,000,000 bytes, unpacked"):
        load(DataConfig(path=str(tmp_path / "table"), max_file_bytes=1_000_000))


@pytest.mark.parametrize("packed", [csv().encode(), GZIP], ids=["plain", "gzip"])
def test_a_limit_of_just_the_size_lets_the_table_in(tmp_path: Path, packed: bytes) -> None:
    num_bytes = len(csv())
    assert loaded(tmp_path, packed, {"max_file_bytes": num_bytes}).targets == ("load",)
    with pytest.raises(DataError, match=f"may hold {num_bytes - 1:,} bytes"):
        loaded(tmp_path, packed, {"max_file_bytes": num_bytes - 1})


def test_the_files_of_a_glob_share_the_limit(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(csv())
    config = DataConfig(path=str(tmp_path / "*.csv"), series="a", max_file_bytes=2 * len(csv()))
    assert load(config).targets == ("load",)
    with pytest.raises(DataError, match=r"over all files: with .*b\.csv it has more"):
        load(config.model_copy(update={"max_file_bytes": 2 * len(csv()) - 1}))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (".", "is a folder"),
        ("pipe", "is a device or a pipe"),
        ("loop", "must be readable"),
        ("broken", "there is no"),
        ("missing.csv", "there is no"),
    ],
)
def test_what_is_no_file_is_refused_without_waiting(path: str, words: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    with pytest.raises(DataError, match=words):
        load(DataConfig(path=str(tmp_path / path)))


def test_no_path_is_no_other_table() -> None:
    with pytest.raises(DataError, match="is a folder"):
        load(DataConfig(path=""))


# The commands


@pytest.mark.slow
@pytest.mark.parametrize("command", [("pipelines.series",), ("search.run", "--dry-run", "--data")])
@pytest.mark.parametrize("name", ["noise", "a gap", "three digits after every point"])
def test_a_command_ends_with_2_and_one_line(
    command: Sequence[str], name: str, tmp_path: Path
) -> None:
    content = REFUSED[name].content
    path = tmp_path / "table"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    ended = subprocess.run(
        [sys.executable, "-m", *command, str(path)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2, ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert all(word in ended.stderr for word in REFUSED[name].words)
    assert ended.stdout == ""


@pytest.mark.slow
def test_a_repaired_table_gives_a_dry_run_and_the_repair_is_said(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(csv(values=COMMA, delimiter=";"))
    outputs = [
        subprocess.run(
            [sys.executable, "-m", *command, str(path)], capture_output=True, text=True, check=True
        ).stdout
        for command in (("pipelines.series",), ("search.run", "--dry-run", "--data"))
    ]
    assert "numbers are read with a decimal comma" in outputs[0]
    assert "horizon" in outputs[1]
