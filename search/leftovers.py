"""What Ray leaves in the temporary folder when searches end: found, if nobody uses it any more."""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

SCRATCH_PREFIX = "lstm-search-"
"""Folders of Tune's own, deleted when a search ends and left when it is killed."""

_SESSION = re.compile(r"session_[\d_-]+_(\d+)")
"""Ray's name for what one `ray.init` needs: time, then the process that began it."""


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder that is named after this process, so that its end is known."""
    return tempfile.TemporaryDirectory(prefix=f"{SCRATCH_PREFIX}{os.getpid()}-")


def unused_leftovers(sessions: Iterable[str]) -> list[Path]:
    """Ray's sessions among `sessions`, and scratch folders, that are ours and used by nobody.

    A path that comes from a record is taken only where Ray puts its sessions. Where processes
    cannot be looked at, as on macOS, nothing is known to be unused.
    """
    if not Path("/proc/self/fd").exists():
        return []
    found = [Path(session) for session in sessions if _is_session(Path(session))]
    found += Path(tempfile.gettempdir()).glob(f"{SCRATCH_PREFIX}*")
    ours = [path for path in dict.fromkeys(found) if _is_own_folder(path)]
    used = _paths_in_use() if ours else ""
    return [path for path in ours if str(path) not in used and not _is_owner_alive(path)]


def _is_session(path: Path) -> bool:
    rays_own = Path("/tmp/ray")  # nosec B108
    folders = {rays_own, Path(tempfile.gettempdir()) / "ray"}
    return bool(_SESSION.fullmatch(path.name)) and path.parent in folders


def _is_own_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and path.stat().st_uid == os.getuid()


def _is_owner_alive(path: Path) -> bool:
    """Whether the process that the name ends with, or begins with, still lives."""
    numbers = _SESSION.fullmatch(path.name) or re.match(rf"{SCRATCH_PREFIX}(\d+)-", path.name)
    # A scratch folder of an unknown process may be in use by any.
    return numbers is None or Path(f"/proc/{numbers[1]}").exists()


def _paths_in_use() -> str:
    """Command lines, folders and open files of all processes that we may look at, as one text."""
    return "\n".join(
        text for process in Path("/proc").glob("[0-9]*") for text in _paths_of(process)
    )


def _paths_of(process: Path) -> Iterator[str]:
    # Whoever has just ended uses nothing, and other users' processes cannot use our folders.
    with suppress(OSError):
        yield (process / "cmdline").read_bytes().decode(errors="replace")
    with suppress(OSError):
        for link in (process / "cwd", *(process / "fd").iterdir()):
            with suppress(OSError):  # closed meanwhile
                yield str(link.readlink())
