"""Vector shards: append-only files `vectors/<space fingerprint>/NNNNNN.f16`, fp16 rows of fixed width.

The catalogue says which rows count. Bytes past the last committed row are what a crash left behind; the writer cuts
them off when it opens. Rows are unit vectors; fp16 rounding is undone to first order by normalising what is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from audiosearch.errors import LibraryError
from audiosearch.store.faults import disk_faults
from audiosearch.store.filesystem import sync_directory
from audiosearch.types import Vectors

SHARD_BYTES = 256 << 20  # a shard that has reached this size gets no further rows
_ROW_TYPE = np.dtype("<f2")
_BLOCK_ROWS = 256  # converted at a time: they stay in the processor's cache meanwhile
_DAMAGED = "see `audiosearch verify`, or restore a backup"
_GAP_BYTES = 16 << 10  # rows that lie closer than this are read in one go, with what is between them


def row_bytes(dim: int) -> int:
    """Bytes of one stored vector."""
    return dim * _ROW_TYPE.itemsize


def crc32c(data: bytes) -> int:
    """CRC-32C of a commit group's bytes."""
    return int(google_crc32c.value(data))


def to_bytes(vectors: Vectors | Sequence[NDArray[np.floating]]) -> bytes:
    """The stored form of unit rows [n, dim].

    Raises:
        ValueError: a value is not finite or a row is not of length one.
    """
    stored = []
    for first in range(0, len(vectors), _BLOCK_ROWS):
        rows = np.asarray(vectors[first : first + _BLOCK_ROWS], np.float32)
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        wrong = np.flatnonzero(~(np.abs(lengths - 1.0) < 0.01))
        if wrong.size:
            raise ValueError(f"vector {first + wrong[0]} of {len(vectors)} has length {lengths[wrong[0]]}, not 1")
        stored.append(rows.astype(_ROW_TYPE))
    return b"".join(rows.data for rows in stored)


class _Run(NamedTuple):
    """Wanted rows [begin, end) of a shard, `first` to `last`, read in one go; whole if no other row is among them."""

    begin: int
    end: int
    first: int
    last: int
    is_whole: bool


class Shards:
    """The shard files of one space. Every method that changes a file is for the holder of the writer lock."""

    def __init__(self, directory: Path, dim: int) -> None:
        self.directory = directory
        self.dim = dim

    def path(self, shard: int) -> Path:
        """Where a shard's rows are."""
        return self.directory / f"{shard:06d}.f16"

    def place(self, shard: int, rows: int) -> tuple[int, int]:
        """(shard, row) at which the next rows go, given the last committed shard and its number of rows."""
        return (shard + 1, 0) if rows * row_bytes(self.dim) >= SHARD_BYTES else (shard, rows)

    def append(self, shard: int, first_row: int, data: bytes) -> None:
        """Write rows at `first_row`, the end of the committed rows, and force them to the disk.

        Raises:
            LibraryError: the disk is full, read-only or gone; nothing of it counts.
        """
        start = first_row * row_bytes(self.dim)
        with disk_faults(self.path(shard)):
            if first_row == 0:
                self.directory.mkdir(parents=True, exist_ok=True)
            with _opened(self.path(shard), os.O_RDWR | os.O_CREAT) as handle:
                _cut(handle, start, self.path(shard))
                try:
                    os.lseek(handle, start, os.SEEK_SET)
                    _write(handle, data)
                    os.fsync(handle)
                except OSError:
                    with suppress(OSError):  # a full disk: give the space back now; opening would do it anyway
                        os.ftruncate(handle, start)
                    raise
            if first_row == 0:
                # All names on the way, whoever made them: a writer that was killed here has made and not forced them.
                for folder in (self.directory, self.directory.parent, self.directory.parent.parent):
                    sync_directory(folder)

    def cut(self, committed: dict[int, int]) -> None:
        """Remove what no commit knows of: rows past the committed ones, and shards without any.

        Raises:
            LibraryError: committed rows are missing.
        """
        present = self.sizes()
        for shard in present.keys() - committed.keys():
            self.path(shard).unlink()
        for shard, rows in committed.items():
            path = self.path(shard)
            if shard not in present:
                raise LibraryError(f"{path} is missing; see `audiosearch verify`, or restore a backup of the library")
            if present[shard] != rows * row_bytes(self.dim):
                with _opened(path, os.O_RDWR) as handle:
                    _cut(handle, rows * row_bytes(self.dim), path)
                    os.fsync(handle)

    def fill(self, shard: int, rows: int) -> None:
        """Make the shard hold at least `rows` rows, zeros at the end; the file is made if it is missing.

        For a repair: a file whose committed rows are lost keeps its length, so that a row keeps its number.
        """
        with disk_faults(self.path(shard)):
            self.directory.mkdir(parents=True, exist_ok=True)
            with _opened(self.path(shard), os.O_RDWR | os.O_CREAT) as handle:
                if os.fstat(handle).st_size < rows * row_bytes(self.dim):
                    os.ftruncate(handle, rows * row_bytes(self.dim))
                os.fsync(handle)
            sync_directory(self.directory)

    def sizes(self) -> dict[int, int]:
        """Bytes of every shard that is there."""
        found = {}
        for path in self.directory.glob("*.f16"):
            if path.stem.isdigit():
                with suppress(FileNotFoundError):  # the writer may take one away
                    found[int(path.stem)] = path.stat().st_size
        return found

    def group(self, shard: int, first_row: int, rows: int) -> bytes:
        """The bytes of a commit group; fewer than they should be if the file ends before.

        Raises:
            FileNotFoundError: the shard is not there.
        """
        with self.path(shard).open("rb") as file:
            file.seek(first_row * row_bytes(self.dim))
            return file.read(rows * row_bytes(self.dim))

    def read(self, shards: NDArray[np.int64], rows: NDArray[np.int64]) -> Vectors:
        """Unit rows [n, dim] at (shard, row) pairs, in their order.

        Raises:
            LibraryError: a shard is missing, too short, or cannot be read.
        """
        order = np.lexsort((rows, shards))
        shards, rows = shards[order], rows[order]
        found = np.empty((len(rows), self.dim), _ROW_TYPE)
        # Planned for all shards at once: each has a few of a query's rows, and planning them one by one costs more than
        # reading them.
        steps = np.diff(rows, prepend=rows[:1])
        far = steps * row_bytes(self.dim) > _GAP_BYTES
        begins = np.flatnonzero(far | (np.diff(shards, prepend=-1) != 0)).tolist()
        uneven = np.cumsum(steps != 1).tolist()
        numbers, of_shard = rows.tolist(), shards.tolist()
        runs = (
            _Run(begin, end, numbers[begin], numbers[end - 1], uneven[begin] == uneven[end - 1])
            for begin, end in pairwise([*begins, len(rows)])
        )
        for shard, its_runs in groupby(runs, key=lambda run: of_shard[run.begin]):
            self._read_runs(shard, its_runs, rows, found)
        vectors = np.empty(found.shape, np.float32)
        vectors[order] = found
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def _read_runs(self, shard: int, runs: Iterable[_Run], rows: NDArray[np.int64], found: NDArray[np.float16]) -> None:
        """Put stored rows into `found` [n, dim]. Read, not mapped: a share that goes away under a map kills the
        process."""
        path, width = self.path(shard), row_bytes(self.dim)
        view = found.reshape(-1).view(np.uint8).data
        try:
            with path.open("rb", buffering=0) as file:
                for run in runs:
                    size = (run.last - run.first + 1) * width
                    # Without gaps it can be read to where it goes.
                    block = view[run.begin * width : run.end * width] if run.is_whole else memoryview(bytearray(size))
                    if _read_into(file, run.first * width, block) < size:
                        present = path.stat().st_size // width
                        raise LibraryError(f"{path} has {present} of {run.last + 1} committed rows; {_DAMAGED}")
                    if not run.is_whole:
                        rows_there = np.frombuffer(block, _ROW_TYPE).reshape(-1, self.dim)
                        found[run.begin : run.end] = rows_there[rows[run.begin : run.end] - run.first]
        except OSError as error:
            raise LibraryError(f"{path} cannot be read ({error.strerror}); {_DAMAGED}") from error


def _read_into(file: FileIO, start: int, block: memoryview) -> int:
    """Fill the block from byte `start` on; how many bytes there were."""
    file.seek(start)
    done = file.readinto(block)
    while done < len(block) and (more := file.readinto(block[done:])):
        done += more
    return done


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _cut(handle: int, size: int, path: Path) -> None:
    present = os.fstat(handle).st_size
    if present < size:
        raise LibraryError(f"{path} has {present} of {size} committed bytes; {_DAMAGED}")
    if present > size:
        os.ftruncate(handle, size)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    handle = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666)
    try:
        yield handle
    finally:
        os.close(handle)
