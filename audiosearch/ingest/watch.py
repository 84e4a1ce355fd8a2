"""New and changed files as they come: which of them have stopped changing and can be read.

    look (every few seconds, or minutes) ─┐
    notice of the system (events) ────────┼─> pending: stat, then again after the settle time ─> same? ─> ready
    ledger: a cause that may have passed ─┘                    (changed: wait again)

A look walks a folder and compares it with the one before. Where the system tells of changes, looks are rare and only
catch what it did not tell; on a network file system, or where it can watch no more folders, they are all there is.
Nothing here reads a file or writes to a library: what is ready goes to a round of ingest, which knows what is new.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from audiosearch.ingest import scan
from audiosearch.ingest.events import Events, why_not
from audiosearch.ingest.identity import FileStat
from audiosearch.store.filesystem import NETWORK, mount_of, mounts_below
from audiosearch.types import FailedFile

SETTLE_SECONDS = 5.0
POLL_SECONDS = 30.0
RESCAN_SECONDS = 600.0  # between looks at folders whose changes the system tells
RETRY_SECONDS = 300.0  # before the second attempt at a file whose cause may pass; each further wait is twice as long
TICK_SECONDS = 0.25
_MOST_DOUBLINGS = 8  # a day
_SHARE_OF_LOOKING = 0.1  # a share that takes a minute to walk is walked every ten


@dataclass(slots=True)
class _Folder:
    """One of the paths to watch. `identity` tells a folder from another one in its place, as after a new mount."""

    path: str
    is_file: bool
    identity: tuple[int, int] | None
    has_events: bool = False
    look_at: float = 0.0  # when to look at it next
    check_at: float = 0.0  # when to see whether it is still the same one


class Watcher:
    """What changes below `paths`. A context manager; from its beginning on no change is missed.

    `exclude` are folders to leave out, such as the library's own. `say` is told, once each, of folders that have to be
    looked at because the system does not tell of their changes, and of those that come and go. Times are of `clock`.
    """

    def __init__(
        self,
        paths: Iterable[str],
        *,
        exclude: Iterable[str] = (),
        settle_seconds: float = SETTLE_SECONDS,
        poll_seconds: float = POLL_SECONDS,
        say: Callable[[str], None] = lambda note: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exclude = [os.path.abspath(folder) for folder in exclude]  # noqa: PTH100 - no link is resolved
        self._settle, self._poll = settle_seconds, poll_seconds
        self._say, self._clock = say, clock
        self._events = Events()
        self._seen: dict[str, FileStat] = {}  # as of the last look, or when it was ready
        self._pending: dict[str, tuple[FileStat, float]] = {}  # stat, and when to compare it
        self._new_folders: dict[str, float] = {}  # when to walk them once more
        chosen = dict.fromkeys(os.path.abspath(path) for path in paths)  # noqa: PTH100
        self._folders = [_Folder(path, Path(path).is_file(), _identity(path)) for path in chosen]

    def __enter__(self) -> Watcher:
        try:
            for folder in self._folders:
                self._listen(folder)
            for folder in self._folders:
                self._look(folder, is_first=True)
        except BaseException:
            self._events.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._events.close()

    def ready(self) -> list[str]:
        """The files that changed and then stayed the same for the settle time, by absolute path; each change once."""
        now = self._clock()
        files, new_folders = self._events.take()
        for path in files:
            if self._is_wanted(path):
                self._notice(path, _stat(path), now)
        self._new_folders.update((path, 0.0) for path in new_folders)
        for path, due in list(self._new_folders.items()):
            if due <= now:
                self._walk_new(path, now, is_last=due > 0.0)
        for folder in self._folders:
            if folder.check_at <= now:
                folder.check_at = now + self._poll
                if self._has_been_replaced(folder):
                    folder.look_at = now
            if folder.look_at <= now:
                self._look(folder)
        return [path for path, (_, due) in list(self._pending.items()) if due <= now and self._is_settled(path, now)]

    def put_back(self, paths: Iterable[str]) -> None:
        """These were ready, and could not be taken: they are ready again after the settle time."""
        now = self._clock()
        for path in paths:
            stat = _stat(path)
            if stat is not None:
                self._pending[path] = (stat, now + self._settle)

    def covers(self, path: str) -> bool:
        """Whether a file of this absolute path is one that is watched for."""
        return self._is_wanted(path)

    # ── one file ──

    def _notice(self, path: str, stat: FileStat | None, now: float) -> None:
        if stat is None:
            self._forget(path)
        elif stat != self._seen.get(path) and path not in self._pending:
            self._pending[path] = (stat, now + self._settle)

    def _is_settled(self, path: str, now: float) -> bool:
        """Whether the file is as it was; if it is not, it has to wait again, and if it is gone, it is forgotten."""
        before, now_is = self._pending[path][0], _stat(path)
        if now_is is None:
            self._forget(path)
        elif now_is != before:
            self._pending[path] = (now_is, now + self._settle)
        else:
            del self._pending[path]
            self._seen[path] = now_is
            return True
        return False

    def _forget(self, path: str) -> None:
        self._seen.pop(path, None)
        self._pending.pop(path, None)

    def _is_wanted(self, path: str) -> bool:
        if any(scan.is_inside(path, folder) for folder in self._exclude):
            return False
        for folder in self._folders:
            if path == folder.path:
                return folder.is_file
            if not folder.is_file and scan.is_inside(path, folder.path):
                return scan.is_wanted(os.fsencode(path)[len(os.fsencode(folder.path.rstrip(os.sep))) + 1 :])
        return False

    # ── folders ──

    def _walk_new(self, path: str, now: float, *, is_last: bool) -> None:
        """A folder was made or moved here: what was in it, or came before the system watched it, has no event."""
        del self._new_folders[path]
        if not is_last:
            self._new_folders[path] = now + self._settle
        if any(scan.is_inside(path, folder.path) for folder in self._folders):
            for file, stat in _walk(path, self._exclude, []):
                if self._is_wanted(file):
                    self._notice(file, stat, now)

    def _look(self, folder: _Folder, *, is_first: bool = False) -> None:
        """Compare a folder with the last look."""
        started = self._clock()
        if folder.identity is not None:
            warnings: list[str] = []
            there: set[str] = set()
            for path, stat in self._files_of(folder, warnings):
                there.add(path)
                if is_first:
                    self._seen[path] = stat
                else:
                    self._notice(path, stat, started)
            if not warnings:  # a part that cannot be listed now has not lost its files
                for path in [path for path in self._seen if path not in there and scan.is_inside(path, folder.path)]:
                    self._forget(path)
        took = self._clock() - started
        every = RESCAN_SECONDS if folder.has_events else self._poll
        folder.look_at = started + max(every, took / _SHARE_OF_LOOKING)

    def _files_of(self, folder: _Folder, warnings: list[str]) -> Iterable[tuple[str, FileStat]]:
        if not folder.is_file:
            return _walk(folder.path, self._exclude, warnings)
        stat = _stat(folder.path)
        return [] if stat is None else [(folder.path, stat)]

    def _has_been_replaced(self, folder: _Folder) -> bool:
        """Whether a folder is another one than before, or has gone: a disk that was mounted or unmounted."""
        identity = _identity(folder.path)
        if folder.is_file or identity == folder.identity:
            return False
        self._events.stop(folder.path)
        folder.has_events = False
        if identity is None:
            self._say(f"{folder.path}: it is gone; waiting for it to come back")
        elif folder.identity is None:
            self._say(f"{folder.path}: it is back")
        folder.identity = identity
        if identity is not None:
            self._listen(folder)
        return True

    def _listen(self, folder: _Folder) -> None:
        """Have the system tell of changes, or say why it does not."""
        place = str(Path(folder.path).parent) if folder.is_file else folder.path
        reason = _needs_looking(place)
        if reason is None:
            try:
                self._events.start(place, below=not folder.is_file)
                folder.has_events = True
                return
            except OSError as error:
                reason = why_not(error)
        self._say(f"{folder.path}: {reason}; looking for changes every {self._poll:g} s instead")


def due_again(failures: Iterable[FailedFile], now: datetime) -> list[str]:
    """The failed files whose cause may have passed and whose time for another attempt has come."""
    return [
        failed.path
        for failed in failures
        if failed.will_retry
        and (now - datetime.fromisoformat(failed.last_attempt_at)).total_seconds()
        >= RETRY_SECONDS * 2 ** min(failed.attempts - 1, _MOST_DOUBLINGS)
    ]


def watch(
    watcher: Watcher,
    take: Callable[[list[str]], bool],
    *,
    failures: Callable[[], Iterable[FailedFile]],
    stopped: Callable[[], bool],
    wait: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Give every file that is ready to `take`, many at once, until `stopped` says so.

    `take` returns whether it took them; what it did not take comes again. `failures` are asked for about once a minute.
    """
    next_retry = clock() + RETRY_SECONDS / 5
    while not stopped():
        ready = watcher.ready()
        if clock() >= next_retry:
            next_retry = clock() + RETRY_SECONDS / 5
            again = due_again(failures(), datetime.now(timezone.utc))
            ready = list(dict.fromkeys([*ready, *(path for path in again if watcher.covers(path))]))
        if ready and not take(ready):
            watcher.put_back(ready)
        if not stopped():
            wait(TICK_SECONDS)


def _needs_looking(folder: str) -> str | None:
    """Why the system's events do not tell of every change below a folder, if they do not."""
    mount = mount_of(folder)
    shared = [each for each in (*([mount] if mount else []), *mounts_below(folder)) if each.type in NETWORK]
    if not shared:
        return None
    where = "it" if shared[0] is mount else shared[0].folder
    return f"{where} is on a network file system ({shared[0].type}), where changes made elsewhere raise no events"


def _walk(folder: str, exclude: Iterable[str], warnings: list[str]) -> Iterable[tuple[str, FileStat]]:
    for found in scan.scan(folder, skip=[os.fsencode(each) for each in exclude], warnings=warnings):
        if found.error is None:
            yield scan.absolute_path(folder, found.path), (found.size, found.mtime_ns, found.inode)


def _stat(path: str) -> FileStat | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
