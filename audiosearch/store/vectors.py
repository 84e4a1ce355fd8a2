"""Vector shards: append-only files `vectors/<space fingerprint>/NNNNNN.f16`, fp16 rows of fixed width.

The catalogue says which rows count. Bytes past the last committed row are what a crash left behind; the writer cuts
them off when it opens. Rows are unit vectors; fp16 rounding is undone to first order by normalising what is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from audiosearch.errors import LibraryError
from audiosearch.types import Vectors

SHARD_BYTES = 256 << 20  # a shard that has reached this size gets no further rows
_ROW_TYPE = np.dtype("<f2")


def row_bytes(dim: int) -> int:
    """Bytes of one stored vector."""
    return dim * _ROW_TYPE.itemsize


def crc32c(data: bytes) -> int:
    """CRC-32C of a commit group's bytes."""
    return int(google_crc32c.value(data))


def to_bytes(vectors: Vectors) -> bytes:
    """The stored form of unit rows [n, dim].

    Raises:
        ValueError: a value is not finite or a row is not of length one.
    """
    lengths = np.linalg.norm(vectors.astype(np.float32, copy=False), axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1.0) < 0.01))
    if wrong.size:
        raise ValueError(f"vector {wrong[0]} of {len(vectors)} has length {lengths[wrong[0]]}, not 1")
    return vectors.astype(_ROW_TYPE).tobytes()


class Shards:
    """The shard files of one space. Every method that changes a file is for the holder of the writer lock."""

    def __init__(self, directory: Path, dim: int) -> None:
        self.directory = directory
        self.dim = dim
        self._maps: dict[int, np.memmap] = {}

    def path(self, shard: int) -> Path:
        """Where a shard's rows are."""
        return self.directory / f"{shard:06d}.f16"

    def place(self, shard: int, rows: int) -> tuple[int, int]:
        """(shard, row) at which the next rows go, given the last committed shard and its number of rows."""
        return (shard + 1, 0) if rows * row_bytes(self.dim) >= SHARD_BYTES else (shard, rows)

    def append(self, shard: int, first_row: int, data: bytes) -> None:
        """Write rows at `first_row`, the end of the committed rows, and force them to the disk."""
        new = first_row == 0
        if new and not self.directory.is_dir():
            self.directory.mkdir(parents=True, exist_ok=True)
            sync_directory(self.directory.parent)
            sync_directory(self.directory.parent.parent)
        start = first_row * row_bytes(self.dim)
        with _opened(self.path(shard), os.O_RDWR | os.O_CREAT) as handle:
            _cut(handle, start, self.path(shard))
            try:
                os.lseek(handle, start, os.SEEK_SET)
                view = memoryview(data)
                while view:
                    view = view[os.write(handle, view) :]
                os.fsync(handle)
            except OSError:
                with suppress(OSError):  # a full disk: give the space back now; opening would do it anyway
                    os.ftruncate(handle, start)
                raise
        if new:
            sync_directory(self.directory)

    def cut(self, committed: dict[int, int]) -> None:
        """Remove what no commit knows of: rows past the committed ones, and shards without any.

        Raises:
            LibraryError: committed rows are missing.
        """
        present = {int(path.stem): path for path in self.directory.glob("*.f16") if path.stem.isdigit()}
        for shard, path in present.items():
            if shard not in committed:
                path.unlink()
        for shard, rows in committed.items():
            path = self.path(shard)
            if shard not in present:
                raise LibraryError(f"{path} is missing; restore it from a backup of the library")
            if path.stat().st_size != rows * row_bytes(self.dim):
                with _opened(path, os.O_RDWR) as handle:
                    _cut(handle, rows * row_bytes(self.dim), path)
                    os.fsync(handle)

    def read(self, shards: NDArray[np.int64], rows: NDArray[np.int64]) -> Vectors:
        """Unit rows [n, dim] at (shard, row) pairs, in their order.

        Raises:
            LibraryError: a shard is missing or too short.
        """
        stored = np.empty((len(rows), self.dim), _ROW_TYPE)
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            wanted = rows[here]
            stored[here] = self._map(int(shard), int(wanted.max()) + 1)[wanted]
        vectors = stored.astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def _map(self, shard: int, rows: int) -> np.memmap:
        """A read-only map of at least `rows` rows. Files only grow past rows a reader can know of."""
        mapped = self._maps.get(shard)
        if mapped is None or len(mapped) < rows:
            path = self.path(shard)
            try:
                present = path.stat().st_size // row_bytes(self.dim)
                if present < rows:
                    raise LibraryError(f"{path} has {present} of {rows} committed rows; restore it from a backup")
                mapped = np.memmap(path, _ROW_TYPE, mode="r", shape=(present, self.dim))
            except OSError as error:
                raise LibraryError(f"{path} cannot be read ({error.strerror}); restore it from a backup") from error
            self._maps[shard] = mapped
        return mapped


def sync_directory(directory: Path) -> None:
    """Make new names in a directory survive a power cut, where the system has a way to ask for it."""
    with suppress(OSError), _opened(directory, os.O_RDONLY) as handle:
        os.fsync(handle)


def _cut(handle: int, size: int, path: Path) -> None:
    present = os.fstat(handle).st_size
    if present < size:
        raise LibraryError(f"{path} has {present} of {size} committed bytes; restore it from a backup of the library")
    if present > size:
        os.ftruncate(handle, size)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    handle = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666)
    try:
        yield handle
    finally:
        os.close(handle)
