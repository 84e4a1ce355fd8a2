"""Index files of one space: built aside, forced to the disk, the manifest last, then swapped in by a rename.

    indexes/<space fingerprint>/gen-000007/index.faiss
                                          /manifest.json    what it is of, and how far it goes
                               /gen-000006/                 the one before, for readers that are just opening it

A generation is a cache: whatever is wrong with one, it is passed over, never repaired.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from audiosearch.indexes.base import VectorIndex
from audiosearch.indexes.flat import FlatIndex

FORMAT = 1
_KINDS = {FlatIndex.factory: FlatIndex}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a generation holds: the vectors of `space` (a fingerprint) as of commit `commit_seq`.

    `commit_mark` is whatever the caller recognises that commit by, for numbers alone repeat after a restored backup.
    """

    space: str
    commit_seq: int
    commit_mark: str
    count: int
    dim: int
    factory: str
    engine: str  # the library that wrote the file, with its version
    size: int  # bytes of index.faiss
    crc32: int
    format: int = FORMAT


def folders(directory: Path) -> list[Path]:
    """Everything that is, or was to become, a generation, oldest first."""
    return sorted([*directory.glob("gen-*"), *directory.glob("building-*")])


def read_manifest(path: Path) -> Manifest:
    """The manifest of the generation in the folder `path`.

    Raises:
        OSError: it is not there.
        ValueError: it is not one, or of a kind this program does not know.
    """
    try:
        manifest = Manifest(**json.loads((path / "manifest.json").read_text(encoding="utf-8")))
    except TypeError as error:
        raise ValueError(f"{path / 'manifest.json'} is not a manifest: {error}") from error
    if manifest.format != FORMAT or manifest.factory not in _KINDS:
        raise ValueError(f"{path} is of a kind this audiosearch does not know")
    return manifest


def remove(path: Path) -> None:
    """Take a generation away, manifest first: whatever is left by a crash, or a power cut, is no generation any more.

    For the holder of the writer lock.
    """
    with suppress(OSError):
        (path / "manifest.json").unlink()
        _sync(path)
    shutil.rmtree(path, ignore_errors=True)


def manifests(directory: Path, space: str) -> list[tuple[Path, Manifest]]:
    """The generations of a space that look whole, newest first, without opening the index files."""
    found = []
    for path in sorted(directory.glob("gen-[0-9]*"), reverse=True):
        with suppress(OSError, ValueError):
            manifest = read_manifest(path)
            if manifest.space == space and (path / "index.faiss").stat().st_size == manifest.size:
                found.append((path, manifest))
    return found


def load(path: Path, manifest: Manifest) -> VectorIndex | None:
    """The index of a generation, or None if it is not what its manifest says (or has just been removed)."""
    file = path / "index.faiss"
    try:
        if _crc32(file) != manifest.crc32:
            return None
        index = _KINDS[manifest.factory].load(file)
    except (OSError, ValueError):
        return None
    return index if index.dim == manifest.dim and len(index) == manifest.count else None


def save(directory: Path, index: VectorIndex, *, space: str, commit_seq: int, commit_mark: str) -> Path:
    """Write a new generation and remove all but it and the one before. For the holder of the writer lock."""
    import faiss

    directory.mkdir(parents=True, exist_ok=True)
    for left in directory.glob("building-*"):
        shutil.rmtree(left, ignore_errors=True)
    numbers = _numbers(directory)
    name = f"gen-{(numbers[-1] if numbers else 0) + 1:06d}"
    aside = directory / f"building-{name}"
    aside.mkdir()
    file = aside / "index.faiss"
    try:
        index.save(file)
    except RuntimeError as error:  # FAISS's
        raise OSError(f"{file} could not be written: {error}") from error
    _sync(file)
    manifest = Manifest(
        space=space,
        commit_seq=commit_seq,
        commit_mark=commit_mark,
        count=len(index),
        dim=index.dim,
        factory=index.factory,
        engine=f"faiss {faiss.__version__}",
        size=file.stat().st_size,
        crc32=_crc32(file),
    )
    (aside / "manifest.json").write_text(json.dumps(asdict(manifest), indent=1), encoding="utf-8")
    _sync(aside / "manifest.json")
    _sync(aside)
    aside.rename(directory / name)
    _sync(directory)
    for number in numbers[:-1]:
        remove(directory / f"gen-{number:06d}")
    return directory / name


def _numbers(directory: Path) -> list[int]:
    names = (path.name.removeprefix("gen-") for path in directory.glob("gen-*"))
    return sorted(int(name) for name in names if name.isdigit())


def _crc32(file: Path) -> int:
    crc = 0
    with file.open("rb") as handle:
        while block := handle.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return crc


def _sync(path: Path) -> None:
    with suppress(OSError):  # a directory cannot be opened on every system
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
