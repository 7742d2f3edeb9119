"""The token of this user's own Ray clusters is made once and is for nobody else's eyes."""

import os
import secrets
from pathlib import Path

import pytest

from search.cluster_token import keep_token_to_owner, use_token_if_there
from search.config import ConfigError


@pytest.fixture(autouse=True)
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the token of a user is looked for who has none yet."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".ray" / "auth_token"


def rights(file: Path) -> int:
    return file.stat().st_mode & 0o777


def test_a_token_is_made_that_only_its_owner_can_read(token: Path) -> None:
    keep_token_to_owner()
    assert len(token.read_text()) == 64
    assert (rights(token.parent), rights(token)) == (0o700, 0o600)


def test_two_searches_that_begin_at_once_have_one_token(
    token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def while_another_is_first(num_bytes: int) -> str:
        token.write_text("the other's")
        return "ours"

    monkeypatch.setattr(secrets, "token_hex", while_another_is_first)
    keep_token_to_owner()
    assert [file.name for file in token.parent.iterdir()] == ["auth_token"]
    assert token.read_text() == "the other's"


def test_a_token_that_is_there_stays_and_is_closed_to_others(token: Path) -> None:
    token.parent.mkdir()
    token.write_text("the token")
    token.chmod(0o644)
    keep_token_to_owner()
    assert (token.read_text(), rights(token)) == ("the token", 0o600)


@pytest.mark.parametrize(
    "given", [{"RAY_AUTH_TOKEN": "t"}, {"RAY_AUTH_TOKEN_PATH": "t"}, {"RAY_AUTH_MODE": "disabled"}]
)
def test_none_is_made_where_the_user_has_decided(
    token: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    keep_token_to_owner()
    assert not token.exists()


def test_a_home_that_takes_no_token_is_an_error_with_a_remedy(token: Path) -> None:
    token.parent.write_text("a file where a folder has to be")
    with pytest.raises(ConfigError, match="name another by RAY_AUTH_TOKEN_PATH"):
        keep_token_to_owner()


@pytest.mark.parametrize(("is_there", "mode"), [(True, "token"), (False, None)])
def test_ray_shows_a_token_to_other_clusters_where_there_is_one(
    token: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool, mode: str | None
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "")  # is put back when the test ends
    monkeypatch.delenv("RAY_AUTH_MODE")
    if is_there:
        keep_token_to_owner()
    use_token_if_there()
    assert os.environ.get("RAY_AUTH_MODE") == mode
