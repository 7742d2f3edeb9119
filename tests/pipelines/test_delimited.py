import pandas as pd
import pytest

from pipelines.data_error import DataError
from pipelines.delimited import parse_delimited


def parse(text: str, keeps_text: bool = False) -> pd.DataFrame:
    return parse_delimited(text.encode(), "load.csv", keeps_text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b\n1,2\n", ["a", "b"]),
        ("a;b\n1,5;2,5\n", ["a", "b"]),
        ("a;b, kW\n1,5;2,5\n", ["a", "b, kW"]),
        ('"a, b";c\n1;2\n', ["a, b", "c"]),
        ('a,"b;"\n1,2\n', ["a", "b;"]),
        ('a;"b,\n,c"\n1,5;2\n', ["a", "b,\n,c"]),
        ("a,b\n1,x;y\n", ["a", "b"]),
        ("a|b\n1|2\n", ["a", "b"]),
        ("a\tb c\n1\t2 3\n", ["a", "b c"]),
        ("a b\n1  2\n", ["a", "b"]),
        ("sep=|\na|b,c\n1|2,3\n", ["a", "b,c"]),
        ("load\n1\n2\n", ["load"]),
    ],
    ids=repr,
)
def test_the_delimiter_is_what_parts_all_lines_alike(text: str, names: list[str]) -> None:
    assert list(parse(text).columns) == names


def test_a_row_that_is_too_long_never_moves_the_columns_by_one() -> None:
    with pytest.raises(DataError, match="as many fields as the first has names"):
        parse("a,b\n1,2,3\n4,5,6\n")


def test_cells_stay_text_where_that_is_asked() -> None:
    assert parse("a,b\n1,2.5\n", keeps_text=True)["b"].tolist() == ["2.5"]


def test_a_bad_byte_is_placed_in_a_large_file_too() -> None:
    content = b"load\n" + b"1\n" * 600_000 + b"\xe4\n"
    with pytest.raises(DataError, match="another byte at position 1200005;"):
        parse_delimited(content, "load.csv", keeps_text=False)


def test_a_character_across_two_pieces_is_whole() -> None:
    text = "load,note\n" + "1,\u20ac\n" * 300_000
    assert (parse(text)["note"] == "\u20ac").all()
    assert len(parse(text)) == 300_000


def test_a_line_without_end_is_refused() -> None:
    with pytest.raises(DataError, match="longer than 1,048,576 bytes"):
        parse("x" * 1_100_000)
