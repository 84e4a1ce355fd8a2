"""Whether files are gone because someone deleted them. A disk that is not mounted looks just like it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from audiosearch.ingest import scan
from audiosearch.ingest.changes import Findings
from audiosearch.store.records import Root
from audiosearch.types import HeldBack

# More than this share of a root's files, and more than so many of them.
MASS_SHARE = 0.2
MASS_FILES = 10


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a root is looked at: everything at or below `parts`, paths in it. `is_relocated`: the root is at a new
    path that the store did not know."""

    root: Root
    is_relocated: bool = False
    parts: tuple[bytes, ...] = (b"",)

    @property
    def is_whole(self) -> bool:
        """Whether that is all of it."""
        return b"" in self.parts

    def holds(self, path: bytes) -> bool:
        """Whether a path of the root is among it."""
        return any(not part or path == part or path.startswith(part + os.sep.encode()) for part in self.parts)


def held_back(
    scopes: Iterable[Scope],
    known: Mapping[int, Collection[bytes]],
    gone: Mapping[int, Sequence[bytes]],
    findings: Findings,
    *,
    prune_all: bool = False,
) -> list[HeldBack]:
    """The roots of which nothing should be removed before someone looked: by `known` paths and `gone` ones.

    With `prune_all` someone did, and what is left are roots that cannot be looked at.
    """
    held = []
    for scope in scopes:
        root, n_known, n_gone = scope.root, len(known[scope.root.id]), len(gone[scope.root.id])
        reason = _reason(scope, n_known, gone[root.id], findings)
        if reason is not None and (reason[0] == "unreadable" or not prune_all):
            held.append(HeldBack(root.path, *reason, gone=n_gone, known=n_known))
    return held


def _reason(scope: Scope, n_known: int, gone: Sequence[bytes], findings: Findings) -> tuple[str, str] | None:
    """(a word, what to do), or None if what is gone was deleted."""
    root = scope.root
    try:
        is_empty = not any(True for _ in os.scandir(root.path))
    except (FileNotFoundError, NotADirectoryError):
        return ("missing", "the folder is not there: is its disk mounted, or did it move?") if gone else None
    except OSError as error:
        return ("unreadable", f"the folder cannot be read: {error.strerror or error}") if n_known else None
    if not gone:
        return None
    if root.id in findings.other_volumes:
        return "other-disk", "another disk is mounted there than before"
    if is_empty or (scope.is_whole and root.is_walked and not findings.present.get(root.id)):
        return "empty", "no file is left of it: is its disk mounted?"
    if len(gone) > MASS_FILES and len(gone) > MASS_SHARE * n_known:
        return "many", f"that is more than {MASS_SHARE:.0%} of its files"
    folder = _empty_folder(root.path, gone)
    if folder is not None:
        return "empty-folder", f"{folder} is there, and empty: is a disk not mounted on it?"
    return None


def _empty_folder(root: str, gone: Iterable[bytes]) -> str | None:
    """A folder inside the root that is still there, with nothing in it, where many files were."""
    missed = Counter(os.path.dirname(scan.absolute_path(root, path)) for path in gone)  # noqa: PTH120 - names as they are
    below: Counter[str] = Counter()
    for folder, n_files in missed.items():
        below[_nearest_there(folder, root)] += n_files
    for folder, n_files in below.items():
        if n_files > MASS_FILES and folder != root and not any(Path(folder).iterdir()):
            return folder
    return None


def _nearest_there(folder: str, root: str) -> str:
    while folder != root and not os.path.isdir(folder):  # noqa: PTH112
        folder = os.path.dirname(folder)  # noqa: PTH120
    return folder
