"""What the disk does wrong, as one line that says what to do next."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from audiosearch.errors import LibraryError

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", -1), errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_KEPT = "what was committed is kept"
# SQLite's messages, as Python 3.10 has no error codes: (begins with, what it means).
_DATABASE = (
    ("database or disk is full", "full"),
    ("attempt to write a readonly database", "read-only"),
    ("database is locked", "locked"),
    ("database disk image is malformed", "damaged"),
    ("malformed database schema", "damaged"),
    ("file is not a database", "damaged"),
    ("disk I/O error", "gone"),
    ("unable to open database file", "gone"),
    ("locking protocol", "gone"),
)


def os_fault(path: str | os.PathLike[str], error: OSError) -> LibraryError:
    """A system call on `path` failed."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return LibraryError(_said(path, "full", reason))
    if error.errno in _READ_ONLY:
        return LibraryError(_said(path, "read-only", reason))
    return LibraryError(_said(path, "gone", reason))


def database_fault(database: Path, error: sqlite3.Error) -> LibraryError | None:
    """What SQLite complained about, if the disk is to blame and not the program."""
    text = str(error)
    for begins, meaning in _DATABASE:
        if text.startswith(begins):
            return LibraryError(_said(database, _looked_up(database, meaning), text))
    return None


@contextmanager
def disk_faults(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise an `OSError` from inside as the LibraryError that it means."""
    try:
        yield
    except OSError as error:
        raise os_fault(path, error) from error


def _looked_up(database: Path, meaning: str) -> str:
    """SQLite calls everything that goes wrong under way an I/O error; the file system may know more."""
    if meaning == "gone" and hasattr(os, "statvfs"):
        with suppress(OSError):
            about = os.statvfs(database.parent)
            if about.f_flag & os.ST_RDONLY:
                return "read-only"
            if about.f_blocks and not about.f_bavail:
                return "full"
    return meaning


def _said(path: str | os.PathLike[str], meaning: str, reason: str) -> str:
    return {
        "full": f"{path}: the disk is full ({reason}); {_KEPT}. Make room and run the same command again",
        "read-only": f"{path}: cannot be written to ({reason}); {_KEPT}. Check its permissions, and that the disk "
        "is not mounted read-only",
        "locked": f"{path}: another program keeps the database locked; try again when it is done",
        "damaged": f"{path} is damaged ({reason}); see `audiosearch verify`, or restore a backup",
        "gone": f"{path}: the disk does not answer ({reason}); is it full or read-only, or is the share gone? "
        f"Once it is back: {_KEPT}, run the same command again",
    }[meaning]
