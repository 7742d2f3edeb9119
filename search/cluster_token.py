"""The token without which nobody talks to a Ray cluster: found where Ray looks, kept from others.

Who reaches a cluster without one can run any code on it. Ray 2.60 makes a token that every user of
the machine may read, and uses it by itself only for clusters that it starts.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from search.config import ConfigError


def use_token_if_there() -> None:
    """Let Ray show its token to clusters that it joins; before Ray is imported."""
    if _is_given() or _default_file().exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def keep_token_to_owner() -> None:
    """Make the token of this user's own clusters where there is none, readable by no other user.

    Raises:
        ConfigError: where others may read it, and that cannot be changed.
    """
    if _is_given() or os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    file = _default_file()
    if file.exists():
        _close_to_others(file)
        return
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=file.parent, encoding="ascii") as written:  # mode 600
            written.write(secrets.token_hex(32))
            written.flush()
            # Whole or not at all, and never over the token of a search that began just before.
            with suppress(FileExistsError):
                os.link(written.name, file)
    except OSError as error:
        raise ConfigError(
            f"Ray's token must have a file: {file} cannot be made ({error.strerror}); name another "
            "by RAY_AUTH_TOKEN_PATH"
        ) from None


def _close_to_others(file: Path) -> None:
    if file.stat().st_mode & 0o077:
        try:
            file.chmod(0o600)
        except OSError as error:
            raise ConfigError(
                f"Ray's token is for its owner only: others can read {file}, and that cannot be "
                f"changed ({error.strerror}); run chmod 600 on it, or name another file by "
                "RAY_AUTH_TOKEN_PATH"
            ) from None


def _is_given() -> bool:
    return bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"))


def _default_file() -> Path:
    return Path.home() / ".ray" / "auth_token"
