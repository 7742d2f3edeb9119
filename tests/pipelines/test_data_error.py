from pipelines.data_error import DataError, listed, quoted


def test_a_message_is_one_line_that_a_terminal_does_not_obey() -> None:
    assert str(DataError("no \x1b[2J\nhere")) == r"no \x1b[2J\nhere"


def test_a_long_value_is_cut() -> None:
    assert quoted("x" * 61) == repr("x" * 60 + "…")
    assert quoted("x" * 60) == repr("x" * 60)


def test_ten_names_are_listed_and_the_others_counted() -> None:
    names = [f"c{number}" for number in range(12)]
    assert listed(names).endswith("c8, c9 and 2 more")
    assert listed(names[:10]).endswith("c8, c9")
