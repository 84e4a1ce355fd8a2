"""Which files a set of paths means: a walk of directories that nothing on disk can trap or stop.

Works on bytes throughout, so names in no particular encoding pass. Imports nothing but the standard library.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from audiosearch.errors import UsageError
from audiosearch.media_names import MEDIA_EXTENSIONS

# What the walk takes. A file named by the user is taken whatever it is called.
_EXTENSIONS = frozenset(os.fsencode(name) for name in MEDIA_EXTENSIONS)

# Directories that hold no sound anyone wants found: version control, thumbnails, trash cans of several systems.
EXCLUDED_DIRECTORIES = frozenset(
    os.fsencode(name.lower())
    for name in (
        "@eaDir",
        ".git",
        ".hg",
        ".svn",
        "#recycle",
        "@Recycle",
        "$RECYCLE.BIN",
        ".Trash",
        ".Trashes",
        ".AppleDouble",
        "__MACOSX",
        ".Spotlight-V100",
        ".fseventsd",
        "lost+found",
        "System Volume Information",
    )
)
EXCLUDED_PREFIXES = (b"._", b".trash-")  # macOS resource forks; per-user trash of a mounted disk


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """A file under its root, with what tells whether it changed. `error` is set when not even that could be read."""

    path: bytes  # relative to the root
    size: int
    mtime_ns: int
    inode: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A part of a root to walk: everything below `under`, or one file. `skip` are directories other targets cover."""

    root: str  # absolute
    under: bytes = b""
    is_file: bool = False
    skip: frozenset[bytes] = frozenset()  # absolute

    @property
    def is_whole(self) -> bool:
        """Whether it is the root as a whole."""
        return not self.is_file and not self.under

    def files(self, warnings: list[str]) -> Iterator[ScannedFile]:
        """The files this target means, as `scan` and `stat_file` give them."""
        if self.is_file:
            yield stat_file(self.root, self.under)
        else:
            yield from scan(self.root, under=self.under, skip=self.skip, warnings=warnings)


@dataclass(frozen=True, slots=True)
class Listed:
    """Chosen files of one root, by their paths in it. Those that are not there are passed over without a word."""

    root: str  # absolute
    paths: tuple[bytes, ...]

    def files(self, warnings: list[str]) -> Iterator[ScannedFile]:
        """As `Target.files`."""
        for path in self.paths:
            found = stat_file(self.root, path)
            if found.error is None or os.path.lexists(_join(os.fsencode(self.root), path)):
                yield found


def listed(paths: Iterable[str], roots: Collection[str]) -> list[Listed]:
    """Absolute paths of files, by the root each belongs to: the innermost of `roots` around it, else its folder."""
    by_root: dict[str, list[bytes]] = defaultdict(list)
    for path in paths:
        folder = os.path.dirname(path)  # noqa: PTH120 - a Path would normalise the name
        root = max((root for root in roots if is_inside(folder, root)), key=len, default=folder)
        by_root[root].append(relative(path, root))
    return [Listed(root, tuple(names)) for root, names in by_root.items()]


def targets(
    paths: Collection[str],
    known_roots: Collection[str],
    *,
    unwalked: Collection[str] = (),
    exclude: Collection[str] = (),
) -> list[Target]:
    """Paths as the user gave them -> what to walk, so that a file belongs to one root only.

    A path inside a root that the library knows is a part of that root; roots inside a path stay their own. `unwalked`
    are those roots of which only single files were asked for: a folder inside becomes a root itself. `exclude` are
    directories never to walk, such as the library's own.

    Raises:
        UsageError: a path does not exist, or is neither a file nor a directory.
    """
    roots = {absolute(root) for root in known_roots}
    of_files = {absolute(root) for root in unwalked}
    never = frozenset(os.fsencode(absolute(directory)) for directory in exclude)
    wanted: list[Target] = []
    for given in paths:
        path = absolute(given)
        try:
            mode = Path(path).stat().st_mode
        except OSError as error:
            raise UsageError(f"cannot ingest {given}: {error.strerror or error}") from error
        is_file = stat.S_ISREG(mode)
        if not is_file and not stat.S_ISDIR(mode):
            raise UsageError(f"cannot ingest {given}: it is neither a file nor a folder")
        home = str(Path(path).parent) if is_file else path
        around = (known for known in roots if is_inside(home, known) and (is_file or known not in of_files))
        root = max(around, key=len, default=home)
        roots.add(root)
        of_files.discard(root)
        inner = [known for known in roots if known != path and is_inside(known, path)] if not is_file else []
        skip = never.union(map(os.fsencode, inner))
        wanted.append(Target(root, relative(path, root), is_file, skip))
        wanted.extend(Target(known, skip=skip - {os.fsencode(known)}) for known in inner)
    return list(dict.fromkeys(wanted))


def scan(
    root: str,
    *,
    under: bytes = b"",
    skip: Collection[bytes] = (),
    warnings: list[str] | None = None,
) -> Iterator[ScannedFile]:
    """The media files below `root` (or its part `under`), each once, in an order that is the same every time.

    Symlinked directories are followed, after all real ones, and no directory is entered twice: a loop ends, and what
    can be reached two ways is found under its real name. A directory is walked whatever it is called. `skip` are
    absolute directories to leave out. A directory that cannot be listed is a line in `warnings`.
    """
    warnings = [] if warnings is None else warnings
    base = os.fsencode(root)
    entered: set[tuple[int, int]] = set()
    real: list[bytes] = [under]
    linked: deque[bytes] = deque()
    while real or linked:
        relative = real.pop() if real else linked.popleft()
        here = _join(base, relative)
        if here in skip:
            continue
        try:
            status = os.stat(here)  # noqa: PTH116 - bytes, which pathlib does not take
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(here) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            warnings.append(f"{os.fsdecode(here)}: folder passed over: {error.strerror or error}")
            continue
        below: list[bytes] = []
        for entry in entries:
            name = _join(relative, entry.name)
            try:
                if entry.is_dir():
                    if not _is_excluded(entry.name):
                        (linked if entry.is_symlink() else below).append(name)
                elif _is_media(entry.name):
                    found = entry.stat()
                    if stat.S_ISREG(found.st_mode):
                        yield ScannedFile(name, found.st_size, found.st_mtime_ns, found.st_ino)
            except OSError as error:
                if entry.is_symlink() and error.errno in (errno.ENOENT, errno.ELOOP):
                    warnings.append(f"{os.fsdecode(entry.path)}: link passed over: {error.strerror}")
                elif _is_media(entry.name) and error.errno != errno.ENOENT:
                    yield ScannedFile(name, 0, 0, 0, error=error.strerror or str(error))
        real.extend(reversed(below))


def is_wanted(path: bytes) -> bool:
    """Whether a walk of the folder that `path` is relative to would take a file of that name."""
    *folders, name = path.split(os.sep.encode())
    return _is_media(name) and not any(map(_is_excluded, folders))


def stat_file(root: str, path: bytes) -> ScannedFile:
    """One file, whatever its extension."""
    try:
        found = os.stat(_join(os.fsencode(root), path))  # noqa: PTH116 - bytes
    except OSError as error:
        return ScannedFile(path, 0, 0, 0, error=error.strerror or str(error))
    return ScannedFile(path, found.st_size, found.st_mtime_ns, found.st_ino)


def absolute_path(root: str, path: bytes) -> str:
    """Where a file of a root is."""
    return os.fsdecode(_join(os.fsencode(root), path))


def _is_excluded(name: bytes) -> bool:
    return name.lower() in EXCLUDED_DIRECTORIES or name.lower().startswith(EXCLUDED_PREFIXES)


def _is_media(name: bytes) -> bool:
    stem, dot, extension = name.rpartition(b".")
    return bool(dot and stem) and extension.lower() in _EXTENSIONS and not name.startswith(EXCLUDED_PREFIXES)


def _join(directory: bytes, name: bytes) -> bytes:
    return os.path.join(directory, name) if directory and name else directory or name  # noqa: PTH118 - bytes


def absolute(path: str) -> str:
    """`path` from the root of the file system, with its links as they are."""
    # Not resolve(): hits should show the path the user knows, not where its links lead.
    return os.path.abspath(path)  # noqa: PTH100


def is_inside(path: str, directory: str) -> bool:
    """Whether an absolute path is this directory or below it."""
    return path == directory or path.startswith(directory.rstrip(os.sep) + os.sep)


def relative(path: str, root: str) -> bytes:
    """An absolute path inside a root as the path in it; empty for the root itself."""
    return b"" if path == root else os.fsencode(path)[len(os.fsencode(root.rstrip(os.sep))) + 1 :]
