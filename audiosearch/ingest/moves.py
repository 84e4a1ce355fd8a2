"""Files that are known, but at another place: found without reading them.

A file that has the size, time and inode of a known one whose old place it has left is that file. What inode numbers
cannot tell is left to the packet hash: a file system that makes them up, another disk, and a number that was given to
a second file of the same size and time (archives unpack whole folders of such files).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from audiosearch.ingest.volumes import Volumes, is_other
from audiosearch.store.records import FileMove, KnownFile, Root

if TYPE_CHECKING:
    from audiosearch.ingest.changes import File


_SEPARATOR = os.fsencode(os.sep)


class Match(NamedTuple):
    """A file that is a known one. `before` is where that was; `stayed`: in the same place of its root, which moved."""

    file: File
    known: KnownFile
    before: str  # absolute
    stayed: bool

    @property
    def move(self) -> FileMove:
        """What the store has to be told."""
        return FileMove(self.known.id, self.file.root_id, self.file.path, self.file.stat[2])


def find_moves(
    files: Sequence[File], known: Iterable[KnownFile], roots: Iterable[Root], relocated: Collection[int] = ()
) -> list[Match]:
    """Which of the files, new and changed ones, are known ones. `known` are all that have a size of one of the files.

    In the `relocated` roots, by id, which someone said to hold what was known, size and time are enough for a file that
    is where it was in its root.
    """
    finder = _Finder(known, roots)
    stays = {(each.root_id, each.path): each for each in finder.known if each.root_id in relocated}
    found: list[Match] = []
    for file in files:
        same = stays.get((file.root_id, file.path))
        if same is not None and same.stat[:2] == file.stat[:2]:
            found.append(Match(file, same, file.absolute, stayed=True))
        elif moved := finder.match(file):
            found.append(Match(file, moved, finder.absolute(moved), stayed=False))
    return found


class _Finder:
    def __init__(self, known: Iterable[KnownFile], roots: Iterable[Root]) -> None:
        self.known = list(known)
        self._roots: Mapping[int, Root] = {root.id: root for root in roots}
        self._prefixes = {root.id: os.fsencode(root.path.rstrip(os.sep) + os.sep) for root in self._roots.values()}
        self._volumes = Volumes()
        self._taken: set[int] = set()
        self._by_stat: dict[tuple[int, int, int], list[KnownFile]] = defaultdict(list)
        self._inodes: dict[tuple[int, int], set[int]] = defaultdict(set)  # by size and time
        for each in self.known:
            self._by_stat[each.stat].append(each)
            self._inodes[each.stat[:2]].add(each.stat[2])

    def match(self, file: File) -> KnownFile | None:
        """The known file that this one is, each given out once; best one of the same name."""
        candidates = [each for each in self._by_stat.get(file.stat, ()) if each.id not in self._taken]
        if len(candidates) > 1:
            candidates.sort(key=lambda each: _name(each.path) != _name(file.path))
        found = next((each for each in candidates if self._is_moved(each, file)), None)
        if found is not None:
            self._taken.add(found.id)
        return found

    def absolute(self, known: KnownFile) -> str:
        """Where a known file was."""
        return os.fsdecode(self._prefixes[known.root_id] + known.path)

    def _is_moved(self, known: KnownFile, file: File) -> bool:
        before = self.absolute(known)
        if before == file.absolute:  # its folder became a root of its own
            return True
        is_told_apart = _name(known.path) == _name(file.path) or len(self._inodes[known.stat[:2]]) == 1
        volume = self._volumes.of(file.absolute.rpartition(os.sep)[0] or os.sep)
        return (
            is_told_apart
            and file.stat[2] != 0
            and volume.keeps_inodes
            and not is_other(self._roots[known.root_id].volume, volume.id)
            and _has_left(before, known)
        )


def _has_left(before: str, known: KnownFile) -> bool:
    """Whether the known file is certainly no longer where it was; a hard link beside it is a copy."""
    try:
        found = os.stat(before)  # noqa: PTH116 - a Path takes longer to make than this to answer
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return (found.st_size, found.st_mtime_ns, found.st_ino) != known.stat


def _name(path: bytes) -> bytes:
    return path.rpartition(_SEPARATOR)[2]
