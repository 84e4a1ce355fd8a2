"""A disk that forgets, fills up, goes away or takes the process with it, for tests of the store.

`disk_shim.c`, preloaded into a process, sees every change that process (SQLite included) makes under one folder. In a
process started by `preloaded`, `arm` makes it log them, or kill or fail at the n-th. `Disk` replays a log up to any
point and writes down what a power cut there could have left:

- What was written to a file and not forced may be there or not, write by write, in whole sectors.
- A name made, moved or removed survives when its folder was forced; before, each such change may be there or not.
- A folder's or file's fsync makes lasting what was done to it before, and nothing else.

That is weaker than what ext4 or NTFS do, and what POSIX promises.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECTOR = 512
CREATE, WRITE, TRUNCATE, SYNC, RENAME, UNLINK, MKDIR, RMDIR, MARK = range(1, 10)
LOG, KILL, FAIL = 1, 2, 3
_HEAD = struct.Struct("=BQQIIQ")


def why_not() -> str | None:
    """Why the shim cannot be used here, or None."""
    if not sys.platform.startswith("linux"):
        return "the shim is preloaded, which only Linux does this way"
    return None if shutil.which("cc") else "no C compiler (cc) to build the shim with"


@cache
def _built(folder: Path) -> Path:
    made = folder / "disk_shim.so"
    source = HERE / "disk_shim.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", made, source, "-ldl", "-lpthread"], check=True)
    return made


def preloaded(script: Path | str, *arguments: object, folder: Path, **options: object) -> subprocess.CompletedProcess:
    """Run a Python script with the shim between it and the disk; the shim is built in `folder`."""
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "LD_PRELOAD": str(_built(folder)), "PYTHONPATH": path}
    command = [sys.executable, script, *map(str, arguments)]
    return subprocess.run(command, env=env, text=True, capture_output=True, **options)  # type: ignore[call-overload,no-any-return]


def arm(folder: Path, how: int, *, at: int = 0, error: int = 0, log: Path | None = None) -> None:
    """In a preloaded process: watch `folder` from now on. `how` is LOG, KILL or FAIL (with errno `error`) at change
    `at`, counted from 1; 0 stops."""
    ctypes.CDLL(None).shim_arm(os.fsencode(folder), how, ctypes.c_long(at), error, os.fsencode(log or ""))


def changes() -> int:
    """In a preloaded process: how many changes there were since `arm`."""
    count = ctypes.CDLL(None).shim_count
    count.restype = ctypes.c_long
    return int(count())


def mark(folder: Path, text: str) -> None:
    """In a preloaded process: put a line into the log."""
    (folder / f".mark-{text}").unlink()


@dataclass(frozen=True, slots=True)
class Record:
    """One change; see `disk_shim.c`."""

    op: int
    inode: int
    offset: int
    path: str
    second: str
    data: bytes


def read_log(path: Path) -> list[Record]:
    """Every change of a log, in order."""
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        op, inode, offset, first, second, length = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        names = [os.fsdecode(content[at : at + first]), os.fsdecode(content[at + first : at + first + second])]
        at += first + second
        found.append(Record(op, inode, offset, *names, content[at : at + length]))
        at += length
    return found


@dataclass(eq=False)
class File:
    """`lasting` has been forced; `pending` are (offset, data), or (size, None) for a truncation."""

    lasting: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def force(self) -> None:
        self.lasting, self.pending = _applied(self.lasting, self.pending), []


@dataclass(eq=False)
class Folder:
    """`names` are as a running system sees them; `lasting` those forced; `pending` changes are sets of names that go
    together: what a name now means, or None."""

    names: dict[str, File | Folder] = field(default_factory=dict)
    lasting: dict[str, File | Folder] = field(default_factory=dict)
    pending: list[dict[str, File | Folder | None]] = field(default_factory=list)

    def change(self, **names: File | Folder | None) -> None:
        self.pending.append(names)
        _rename(self.names, names)

    def force(self) -> None:
        self.lasting, self.pending = dict(self.names), []


class Disk:
    """The state of a disk while a log is played; `top` was an empty folder when the log began."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.root = Folder()
        self.marks: list[str] = []
        self._by_inode: dict[int, File | Folder] = {}

    def play(self, record: Record) -> None:
        """Make one change."""
        if record.op == MARK:
            self.marks.append(record.path.rpartition("/.mark-")[2])
        elif record.op in (CREATE, MKDIR):
            folder, name = self._at(record.path)
            self._by_inode[record.inode] = made = File() if record.op == CREATE else Folder()
            folder.change(**{name: made})
        elif record.op in (UNLINK, RMDIR):
            folder, name = self._at(record.path)
            folder.change(**{name: None})
        elif record.op == RENAME:
            (source, old), (target, new) = self._at(record.path), self._at(record.second)
            assert source is target, "the store renames within a folder"
            source.change(**{old: None, new: source.names[old]})
        elif record.op == SYNC:
            what = self._by_inode.get(record.inode, self.root if record.path == str(self.top) else None)
            if what is not None:  # a folder above
                what.force()
        else:
            file = self._by_inode[record.inode]
            assert isinstance(file, File)
            file.pending.append((record.offset, record.data if record.op == WRITE else None))

    def cut(self, target: Path, luck: random.Random, kept: float) -> None:
        """Write into the empty folder `target` what is left after a power cut: of what was not forced, each change with
        probability `kept`."""
        self._write(self.root, target, luck, kept)

    def _write(self, folder: Folder, target: Path, luck: random.Random, kept: float) -> None:
        names = dict(folder.lasting)
        for change in folder.pending:
            if luck.random() < kept:
                _rename(names, change)
        for name, what in names.items():
            if isinstance(what, Folder):
                (target / name).mkdir()
                self._write(what, target / name, luck, kept)
            elif not name.endswith("-shm"):
                chosen = [_torn(each, luck, kept) for each in what.pending if luck.random() < kept]
                (target / name).write_bytes(_applied(what.lasting, chosen))

    def _at(self, path: str) -> tuple[Folder, str]:
        *folders, name = Path(path).relative_to(self.top).parts
        folder = self.root
        for each in folders:
            inner = folder.names[each]
            assert isinstance(inner, Folder)
            folder = inner
        return folder, name


def states(records: list[Record], top: Path) -> Iterator[tuple[int, Disk]]:
    """The disk after none, one, two ... of the changes: always the same object, further on."""
    disk = Disk(top)
    yield 0, disk
    for number, record in enumerate(records, 1):
        disk.play(record)
        yield number, disk


def _applied(content: bytes, changes: list[tuple[int, bytes | None]]) -> bytes:
    if not changes:
        return content
    new = bytearray(content)
    for offset, data in changes:
        if data is None:
            del new[offset:]
            new.extend(bytes(offset - len(new)))
        else:
            new.extend(bytes(max(0, offset - len(new))))
            new[offset : offset + len(data)] = data
    return bytes(new)


def _torn(change: tuple[int, bytes | None], luck: random.Random, kept: float) -> tuple[int, bytes | None]:
    """A write of which only the first sectors came through, now and then."""
    offset, data = change
    if data is None or kept >= 1 or luck.random() < 0.5:
        return change
    to_border = -offset % SECTOR
    return offset, data[: to_border + SECTOR * luck.randrange(len(data) // SECTOR + 1)]


def _rename(names: dict[str, File | Folder], change: dict[str, File | Folder | None]) -> None:
    for name, what in change.items():
        if what is None:
            names.pop(name, None)
        else:
            names[name] = what
