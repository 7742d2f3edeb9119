import gzip
from pathlib import Path

import fsspec
import pandas as pd
import pytest

from pipelines.reading import FILE_COLUMN, DataError, flatten, read_table, table_name

CSV = "timestamp,load\n2014-01-01 00:00,1.5\n2014-01-01 01:00,2.5\n"


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "load.csv"
    path.write_text(CSV)
    return path


def loads(table: pd.DataFrame) -> list[float]:
    assert list(table.columns) == ["timestamp", "load"]
    values: list[float] = table["load"].astype("float64").tolist()
    return values


def test_a_csv_file_is_read(csv: Path) -> None:
    assert loads(read_table(str(csv))) == [1.5, 2.5]


def test_a_gzipped_file_is_read_whatever_its_name_is(tmp_path: Path) -> None:
    path = tmp_path / "load.csv"
    path.write_bytes(gzip.compress(CSV.encode()))
    assert loads(read_table(str(path))) == [1.5, 2.5]


def test_a_parquet_file_is_read_whatever_its_name_is(csv: Path, tmp_path: Path) -> None:
    path = tmp_path / "load.data"
    pd.read_csv(csv).to_parquet(path)
    assert loads(read_table(str(path))) == [1.5, 2.5]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " "])
def test_the_delimiter_is_recognised(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "load.csv"
    path.write_text(CSV.replace(" ", "T").replace(",", delimiter))
    assert loads(read_table(str(path))) == [1.5, 2.5]


def test_beside_semicolons_cells_stay_text_until_their_decimal_mark_is_known(
    tmp_path: Path,
) -> None:
    path = tmp_path / "load.csv"
    path.write_text("timestamp;load\n2014-01-01;1226,31\n2014-01-02;7\n")
    assert read_table(str(path))["load"].tolist() == ["1226,31", "7"]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = tmp_path / "load.csv"
    path.write_bytes(b"\xef\xbb\xbf" + CSV.encode())
    assert loads(read_table(str(path))) == [1.5, 2.5]


def test_file_urls_are_read(csv: Path) -> None:
    assert loads(read_table(f"file://{csv}")) == [1.5, 2.5]


def test_memory_urls_are_read() -> None:
    with fsspec.open("memory://tables/load.csv", "w") as file:
        file.write(CSV)
    assert loads(read_table("memory://tables/load.csv")) == [1.5, 2.5]


def test_a_glob_is_one_series_a_file_and_numbers_the_rows_of_each(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.csv").write_text(CSV)
    table = read_table(str(tmp_path / "*.csv"))
    assert table[FILE_COLUMN].tolist() == ["a", "a", "b", "b"]
    assert table.index.tolist() == [0, 1, 0, 1]


def test_files_of_a_glob_with_other_columns_are_refused(csv: Path) -> None:
    csv.with_name("other.csv").write_text("timestamp,heat\n2014-01-01,1\n")
    with pytest.raises(DataError, match="load has timestamp, load and other has timestamp, heat"):
        read_table(str(csv.parent / "*.csv"))


def test_a_glob_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the glob must match a file: .*\*\.csv matches none"):
        read_table(str(tmp_path / "*.csv"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*nothing\.csv; check the path"):
        read_table(str(tmp_path / "nothing.csv"))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the file must be readable"):
        read_table(str(tmp_path))


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(DataError, match="Protocol not known: nowhere"):
        read_table("nowhere://load.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b" \n", "is empty"),
        (b"PK\x03\x04rest", "is a zip archive or a spreadsheet; save it as CSV"),
        (b"timestamp,load\n2014-01-01,\xff\n", "has another byte at position 26; save it as UTF-8"),
        (b"PAR1 but no more", "the file must be readable"),
        (gzip.compress(b"timestamp,load")[:-4], "the file must be readable"),
        (b"a,b\n1,2\n1,2,3\n", "Expected 2 fields in line 3, saw 3"),
        (b"2014-01-01 00:00,1.5\n2014-01-01 01:00,2.5\n", "the first line must name the columns"),
    ],
    ids=["empty", "zip", "latin-1", "parquet", "gzip", "ragged", "no header"],
)
def test_an_unreadable_file_is_refused_with_the_reason(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "load.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(str(path))


@pytest.mark.parametrize("path", ["load.csv", "a/b/load.csv.gz", "s3://c/load.parquet", "load"])
def test_a_table_is_named_after_its_file(path: str) -> None:
    assert table_name(path) == "load"


def test_an_index_of_timestamps_becomes_a_column() -> None:
    frame = pd.DataFrame({"load": [1.0]}, index=pd.DatetimeIndex(["2014-01-01"]))
    assert list(flatten(frame).columns) == ["timestamp", "load"]


def test_an_index_of_ids_and_timestamps_becomes_columns() -> None:
    index = pd.MultiIndex.from_tuples([("a", "2014-01-01")], names=["item_id", "timestamp"])
    frame = pd.DataFrame({"target": [1.0]}, index=index)
    assert list(flatten(frame).columns) == ["item_id", "timestamp", "target"]


def test_a_level_of_names_that_says_nothing_is_left_out() -> None:
    columns = pd.MultiIndex.from_tuples([("Close", "AAPL"), ("Open", "AAPL")])
    assert list(flatten(pd.DataFrame([[1.0, 2.0]], columns=columns)).columns) == ["Close", "Open"]


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(DataError, match="column names must be unique: 'load' appears twice"):
        flatten(pd.DataFrame([[1.0, 2.0]], columns=["load", "load "]))
