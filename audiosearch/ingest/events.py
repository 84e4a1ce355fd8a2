"""What the operating system says of changes below folders (inotify, FSEvents, ReadDirectoryChangesW), by watchdog.

A notice only says where to look. Some come late, some not at all: the system's queue overflows, links and mounts lead
out of a folder. So nothing relies on them (see `watch`); they make a change known in a second instead of minutes.
"""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent
    from watchdog.observers.api import BaseObserver

_LIMITS = {errno.ENOSPC: "fs.inotify.max_user_watches", errno.EMFILE: "fs.inotify.max_user_instances"}


class Events:
    """Paths below some folders where something was made, written or moved to, gathered until they are asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: set[str] = set()  # sets: a file that grows for an hour is one path
        self._folders: set[str] = set()
        self._observers: dict[str, BaseObserver] = {}

    def start(self, folder: str, *, below: bool = True) -> None:
        """Listen to everything below a folder, or only to what is in it. Raises OSError where the system cannot, or has
        no more room."""
        if folder in self._observers:
            return
        from watchdog import events
        from watchdog.observers import Observer

        wanted: list[type[events.FileSystemEvent]] = [
            events.FileCreatedEvent,
            events.FileModifiedEvent,
            events.FileMovedEvent,
            events.FileClosedEvent,  # after writing
            events.DirCreatedEvent,
            events.DirMovedEvent,
        ]
        observer = Observer()
        # A link is not followed by the system: listen to where it leads, and tell of it by the name that was given.
        handler: Any = _Handler(self, folder, os.path.realpath(folder))
        observer.schedule(handler, handler.real, recursive=below, event_filter=wanted)
        try:
            observer.start()
        except BaseException:
            observer.unschedule_all()
            raise
        self._observers[folder] = observer

    def stop(self, folder: str) -> None:
        """Listen to it no more."""
        observer = self._observers.pop(folder, None)
        if observer is not None:
            observer.stop()
            observer.join(5.0)

    def close(self) -> None:
        """Listen to nothing any more."""
        for folder in list(self._observers):
            self.stop(folder)

    def take(self) -> tuple[set[str], set[str]]:
        """The files and the folders that were named since the last time, by absolute path."""
        with self._lock:
            taken = self._files, self._folders
            self._files, self._folders = set(), set()
        return taken

    def add(self, path: str, *, is_folder: bool) -> None:
        """Take note of one path."""
        with self._lock:
            (self._folders if is_folder else self._files).add(path)


class _Handler:
    """What watchdog calls, in a thread of its own."""

    def __init__(self, events: Events, folder: str, real: str) -> None:
        self._events, self._folder, self.real = events, folder, real

    def dispatch(self, event: FileSystemEvent) -> None:
        if event.is_directory and event.event_type == "modified":  # each new file also is a change of its folder
            return
        path = os.fsdecode(event.dest_path if event.event_type == "moved" else event.src_path)
        if path.startswith(self.real):  # what was moved out has no place
            self._events.add(self._folder + path[len(self.real) :], is_folder=event.is_directory)


def why_not(error: OSError) -> str:
    """Why `start` failed, for a person."""
    limit = _LIMITS.get(error.errno or 0)
    if limit is not None:
        return f"the system watches no more folders (raise {limit} with sysctl)"
    return error.strerror or str(error)
