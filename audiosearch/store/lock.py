"""The one writer: an operating-system lock on a file in the library, with a note beside it that says who holds it.

The lock ends with the process that holds it, however that ends. The note only serves the message: a stale or broken one
changes nothing.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from audiosearch.errors import LibraryError, LibraryLocked


class WriterLock:
    """Held from construction to `release`.

    Raises:
        LibraryLocked: another process, or another store of this one, holds it.
        LibraryError: the directory cannot be written to.
    """

    def __init__(self, directory: Path) -> None:
        from filelock import FileLock, Timeout  # a reader never needs it, and `status` should be quick

        self._note = directory / "writer.json"
        # thread_local: off, for a store may be closed by another thread than the one that opened it.
        self._lock = FileLock(directory / "writer.lock", timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise LibraryLocked(
                f"{directory}: another process is writing ({_describe(self._note)}); try again when it is done"
            ) from None
        except OSError as error:
            raise LibraryError(f"{directory}: cannot write here ({error.strerror}); check its permissions") from error
        with suppress(OSError):
            self._note.write_text(json.dumps(_myself()), encoding="utf-8")

    def release(self) -> None:
        """Let the next writer in. Calling it again does nothing."""
        if self._lock.is_locked:
            with suppress(OSError):
                self._note.unlink()
            self._lock.release()


def _myself() -> dict[str, object]:
    since = datetime.now(timezone.utc).isoformat(timespec="seconds")
    program = " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]]) if sys.argv else ""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name
        user = ""
    return {"pid": os.getpid(), "program": program, "user": user, "host": socket.gethostname(), "since": since}


def _describe(note: Path) -> str:
    try:
        holder = json.loads(note.read_text(encoding="utf-8"))
        program = f" (`{holder['program']}` of {holder['user'] or 'nobody known'})" if holder.get("program") else ""
        return f"process {int(holder['pid'])}{program} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "it left no name"
