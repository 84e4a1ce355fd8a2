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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from audiosearch.indexes.approximate import ApproximateIndex
from audiosearch.indexes.base import Rows, RowSource, VectorIndex
from audiosearch.indexes.flat import FlatIndex
from audiosearch.indexes.hnsw import HnswIndex
from audiosearch.indexes.ivf import IvfIndex, IvfSq8Index
from audiosearch.indexes.pq import IvfPqIndex
from audiosearch.indexes.spec import Effort
from audiosearch.indexes.tune import Measured

FORMAT = 1
APPROXIMATE: dict[str, type[ApproximateIndex]] = {
    each.kind: each for each in (HnswIndex, IvfIndex, IvfSq8Index, IvfPqIndex)
}
KINDS = (FlatIndex.kind, *APPROXIMATE)


@dataclass(frozen=True, slots=True)
class Built:
    """How an index came to be, which later generations of it keep: adding vectors is not building."""

    mark: str = ""  # another one for each time an index is built; empty for what needs no building
    wanted: str = "auto"  # the kind asked for
    trained_on: int = 0  # how many vectors there were then
    seconds: float = 0.0
    effort: dict[str, int] | None = None  # `spec.Effort`
    recall: dict[str, float] = field(default_factory=dict)  # measured then, see `tune.Measured`

    @classmethod
    def of(cls, mark: str, wanted: str, trained_on: int, seconds: float, measured: Measured | None) -> Built:
        """From a measurement, or without one for an exact kind."""
        if measured is None:
            return cls(mark, wanted, trained_on, seconds)
        return cls(mark, wanted, trained_on, seconds, asdict(measured.effort), measured.recall)


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
    kind: str = FlatIndex.kind
    built: Built = Built()
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
        values = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        manifest = Manifest(**{**values, "built": Built(**values.get("built", {}))})
        if manifest.built.effort is not None:
            Effort(**manifest.built.effort)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{path / 'manifest.json'} is not a manifest: {error}") from error
    if manifest.format != FORMAT or manifest.kind not in KINDS:
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


def make(kind: str, dim: int, sample: Rows, count: int, rows: RowSource) -> VectorIndex:
    """An empty index of a kind, trained with `sample` [n, dim] for about `count` vectors."""
    return FlatIndex(dim) if kind == FlatIndex.kind else APPROXIMATE[kind].make(dim, sample, count, rows)


def load(path: Path, manifest: Manifest, rows: RowSource | None = None) -> VectorIndex | None:
    """The index of a generation, or None if it is not what its manifest says (or has just been removed).

    Without `rows` it serves to be looked at, not to be searched.
    """
    file = path / "index.faiss"
    try:
        if _crc32(file) != manifest.crc32:
            return None
        index = _read(file, manifest, rows or _no_rows)
    except (OSError, ValueError):
        return None
    says = (index.dim, len(index), index.factory)
    return index if says == (manifest.dim, manifest.count, manifest.factory) else None


def save(
    directory: Path, index: VectorIndex, *, space: str, commit_seq: int, commit_mark: str, built: Built | None = None
) -> Path:
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
        kind=index.kind,
        built=built or Built(),
    )
    (aside / "manifest.json").write_text(json.dumps(asdict(manifest), indent=1), encoding="utf-8")
    _sync(aside / "manifest.json")
    _sync(aside)
    aside.rename(directory / name)
    _sync(directory)
    for number in numbers[:-1]:
        remove(directory / f"gen-{number:06d}")
    return directory / name


def _read(file: Path, manifest: Manifest, rows: RowSource) -> VectorIndex:
    if manifest.kind == FlatIndex.kind:
        return FlatIndex.load(file)
    index = APPROXIMATE[manifest.kind].load(file, rows)
    if manifest.built.effort is not None:
        index.effort = Effort(**manifest.built.effort)
    return index


def _no_rows(ids: Any) -> Rows:
    raise ValueError(f"opened without a source of rows, which {np.size(ids)} are asked of")


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
