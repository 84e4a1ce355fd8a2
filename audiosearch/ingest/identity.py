"""What makes two files the same recording and two chunks the same sound.

A recording is its demuxed packets (`packet_hash`): known before anything is decoded, the same after a rename or a
retag, and whatever the decoder's version. A chunk is its samples (`chunk_hash`): the same in a FLAC and in the
WAV it was made from, and in a loop that repeats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from audiosearch.audio import packet_hash, read_packets
from audiosearch.chunk import FRONT_END_VERSION, chunk_hash
from audiosearch.errors import MediaError
from audiosearch.metadata import read_metadata
from audiosearch.types import MediaInfo, Metadata

__all__ = ["FRONT_END_VERSION", "FileStat", "Identity", "chunk_hash", "file_stat", "identify", "packet_hash"]

FileStat = tuple[int, int, int]  # size in bytes, mtime in ns, inode


@dataclass(frozen=True, slots=True)
class Identity:
    """A file's recording, what its container says, and the file's stat from before it was read.

    `warnings` say what of `metadata` could not be read.
    """

    packet_hash: bytes
    info: MediaInfo
    stat: FileStat
    metadata: Metadata
    warnings: tuple[str, ...]


def file_stat(path: str) -> FileStat:
    """Size, mtime and inode: what must be equal for a file to count as unchanged. Raises MediaError."""
    try:
        found = Path(path).stat()
    except OSError as error:
        cause = "vanished" if isinstance(error, (FileNotFoundError, NotADirectoryError)) else "unreadable"
        raise MediaError(path, cause, error.strerror or str(error)) from error
    return found.st_size, found.st_mtime_ns, found.st_ino


def identify(path: str, progress: Callable[[], None] = lambda: None) -> Identity:
    """Read the file's packets once. `progress` is called now and then. Raises MediaError."""
    before = file_stat(path)
    found: list[Metadata] = []
    warnings: list[str] = []
    packets, info = read_packets(path, progress, lambda media: found.append(read_metadata(media, warnings)))
    return Identity(packets, info, before, found[0], tuple(warnings))
