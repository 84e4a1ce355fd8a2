"""The index of a space, a cache of the store: opened from its newest generation and caught up by commit.

    generation on disk (commit 40) ──load──> index in memory ──changes since 40, from the shards──> commit 57

Reading never writes. The writer saves a new generation when catching up has become worth saving.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiosearch.indexes import generations
from audiosearch.indexes.base import VectorIndex
from audiosearch.indexes.flat import FlatIndex
from audiosearch.store.store import Store
from audiosearch.types import Space, Vectors

_BLOCK = 65_536  # vectors read from the shards at a time
_WORTH_SAVING = 2_000  # catching up on fewer vectors than this takes a few milliseconds


class LiveIndex:
    """A space's index, as of the commit at the last `refresh`. Any number of threads may use it.

    Nothing is loaded, and FAISS not imported, before the first `refresh` or `search`.
    """

    def __init__(self, store: Store, space: Space) -> None:
        self.space = space
        self.seq = 0  # the commit reached
        self._store = store
        self._index: VectorIndex | None = None
        self._lock = threading.RLock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._loaded())

    def refresh(self) -> bool:
        """Take in what was committed since; returns whether anything was. Costs one short query if nothing was."""
        with self._lock:
            index = self._loaded()
            # Below it: this thread's snapshot is older than the one that another thread brought the index to.
            if self._store.max_seq(self.space.id) <= self.seq:
                return False
            try:
                return self._catch_up(index)
            except BaseException:
                self._index = None  # half caught up; the next use begins again
                raise

    def search(
        self, queries: Vectors, k: int, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The best k vectors for each of queries [q, dim]: scores [q, k] descending, ids [q, k].

        Equal scores are ordered by id; where fewer than k are left, id -1 with score -inf. With `allowed`, only among
        those ids.
        """
        with self._lock:
            return self._loaded().search(queries, k, allowed)

    def save(self) -> None:
        """Write a new generation. For the holder of the writer lock."""
        with self._lock:
            index = self._loaded()
            generations.save(
                _directory(self._store, self.space),
                index,
                space=self.space.spec.fingerprint,
                commit_seq=self.seq,
                commit_mark=self._store.commit_mark(self.space.id, self.seq),
            )

    def _loaded(self) -> VectorIndex:
        if self._index is None:
            index, self.seq = _newest(self._store, self.space)
            self._catch_up(index)
            self._index = index
        return self._index

    def _catch_up(self, index: VectorIndex) -> bool:
        changes = self._store.changes_since(self.space.id, self.seq)
        index.remove(changes.deleted_ids)
        for first in range(0, len(changes.added_ids), _BLOCK):
            some = slice(first, first + _BLOCK)
            vectors = self._store.vectors_at(self.space.id, changes.shards[some], changes.rows[some])
            index.add(changes.added_ids[some], vectors)
        self.seq = changes.seq
        return bool(len(changes.added_ids) or len(changes.deleted_ids))


def open_index(store: Store, space: Space) -> LiveIndex:
    """The index of a space; it is loaded with the first use."""
    return LiveIndex(store, space)


def save_generation(store: Store, space: Space, *, force: bool = False) -> bool:
    """Write a new generation if enough changed since the last one; returns whether it was. For the writer.

    Enough: so much that every reader would feel the catching up. FAISS is imported only when there is one to write.
    """
    if not force:
        covered, count = 0, 0
        for _, manifest in _usable(store, space)[:1]:
            covered, count = manifest.commit_seq, manifest.count
        if covered == store.max_seq(space.id):
            return False
        changes = store.changes_since(space.id, covered)
        if len(changes.added_ids) + len(changes.deleted_ids) < max(_WORTH_SAVING, count // 10):
            return False
    open_index(store, space).save()
    return True


def _newest(store: Store, space: Space) -> tuple[VectorIndex, int]:
    """The newest generation that can be read and the commit it reaches; else an empty index at commit 0."""
    for path, manifest in _usable(store, space):
        if (index := generations.load(path, manifest)) is not None:
            return index, manifest.commit_seq
    return FlatIndex(space.spec.dim), 0


def _usable(store: Store, space: Space) -> list[tuple[Path, generations.Manifest]]:
    """Generations of this space and of this library's history, newest first."""
    newest = store.max_seq(space.id)
    return [
        (path, manifest)
        for path, manifest in generations.manifests(_directory(store, space), space.spec.fingerprint)
        if manifest.dim == space.spec.dim
        and manifest.commit_seq <= newest
        and manifest.commit_mark == store.commit_mark(space.id, manifest.commit_seq)
    ]


def _directory(store: Store, space: Space) -> Path:
    return store.directory / "indexes" / space.spec.fingerprint
