"""Environment variables that are set for a while."""

import os

import pytest

from search.environment import variables_set


def test_variables_are_set_for_a_while_and_others_that_were_set_meanwhile_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LSTM_TEST_KNOWN", "before")
    monkeypatch.delenv("LSTM_TEST_NEW", raising=False)
    monkeypatch.delenv("LSTM_TEST_OTHER", raising=False)
    with variables_set({"LSTM_TEST_KNOWN": "within", "LSTM_TEST_NEW": "within"}):
        assert (os.environ["LSTM_TEST_KNOWN"], os.environ["LSTM_TEST_NEW"]) == ("within",) * 2
        monkeypatch.setenv("LSTM_TEST_OTHER", "stays")
    assert os.environ["LSTM_TEST_KNOWN"] == "before"
    assert "LSTM_TEST_NEW" not in os.environ
    assert os.environ["LSTM_TEST_OTHER"] == "stays"
