"""The index of a space, a cache of the store: opened from its newest generation and caught up by commit.

    generation on disk (commit 40) ──load──> index in memory ──changes since 40, from the shards──> commit 57

Reading never writes. The writer saves a new generation when catching up has become worth saving, and builds another
index when the one that there is no longer suits (`rebuild`): a new kind, or the same trained on more vectors. A reader
that is running goes over to it with its next query; until it is loaded, other threads are answered by the old one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiosearch.errors import LibraryError
from audiosearch.index_build import BLOCK, directory_of, rebuild, row_source
from audiosearch.indexes import generations, spec
from audiosearch.indexes.base import VectorIndex
from audiosearch.indexes.flat import FlatIndex
from audiosearch.indexes.generations import Built
from audiosearch.store.store import Store
from audiosearch.types import Problem, Space, StepProgress, Vectors

_ROUNDING = 1e-3  # an index may hold the vectors rounded once more, beside what its kind leaves out
_GROWN = 2  # times as many vectors as it was trained on: an index is built again
_WORN = 0.3  # of a graph removed: likewise
_WORTH_SAVING = 2_000  # catching up on fewer vectors than this takes a few milliseconds


class LiveIndex:
    """A space's index, as of the commit at the last `refresh`. Any number of threads may use it.

    Nothing is loaded, and FAISS not imported, before the first `refresh` or `search`.
    """

    def __init__(self, store: Store, space: Space, device: str | None = None) -> None:
        self.space = space
        self.seq = 0  # the commit reached
        self.built = Built()
        self._store = store
        self._device = device
        self._index: VectorIndex | None = None
        self._lock = threading.RLock()
        self._swapping = threading.Lock()
        self._looked_at: object = None  # the state of the generations' folder when it was last looked at

    def __len__(self) -> int:
        with self._lock:
            return len(self._loaded())

    @property
    def factory(self) -> str:
        """What kind it is, as FAISS calls it."""
        with self._lock:
            return self._loaded().factory

    def refresh(self) -> bool:
        """Take in what was committed since; returns whether anything was. Costs one short query if nothing was."""
        self._go_over()
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
                directory_of(self._store, self.space),
                index,
                space=self.space.spec.fingerprint,
                commit_seq=self.seq,
                commit_mark=self._store.commit_mark(self.space.id, self.seq),
                built=self.built,
            )

    @property
    def worn(self) -> bool:
        """Whether so much was removed that it should be built again."""
        with self._lock:
            return getattr(self._loaded(), "worn", 0.0) > _WORN

    def _loaded(self) -> VectorIndex:
        if self._index is None:
            self._looked_at = self._folder_state()
            index, self.seq, self.built = self._newest()
            self._catch_up(index)
            self._index = index
        return self._index

    def _newest(self) -> tuple[VectorIndex, int, Built]:
        if self._device is not None:
            from audiosearch.indexes import gpu

            count, dim = len(self._store.changes_since(self.space.id, 0).added_ids), self.space.spec.dim
            if gpu.has_room(count, dim, self._device):
                return gpu.TorchIndex(dim, row_source(self._store, self.space), self._device), 0, Built()
        return _newest(self._store, self.space)

    def _go_over(self) -> None:
        """Replace the index by one that was built since it was loaded, without keeping other threads waiting."""
        if self._index is None or self._looked_at == self._folder_state() or not self._swapping.acquire(blocking=False):
            return
        try:
            state, newest = self._folder_state(), _usable(self._store, self.space)[:1]
            for path, manifest in newest if self._device is None else []:
                if manifest.built.mark == self.built.mark:
                    continue
                index = generations.load(path, manifest, row_source(self._store, self.space))
                if index is None:
                    continue
                seq, _ = _catch_up(self._store, self.space, index, manifest.commit_seq)
                with self._lock:
                    if seq < self.seq:
                        return  # this thread's snapshot is older than the index; a younger one will do it
                    self._index, self.seq, self.built = index, seq, manifest.built
            self._looked_at = state
        finally:
            self._swapping.release()

    def _folder_state(self) -> object:
        try:
            return directory_of(self._store, self.space).stat().st_mtime_ns
        except OSError:
            return None

    def _catch_up(self, index: VectorIndex) -> bool:
        self.seq, changed = _catch_up(self._store, self.space, index, self.seq)
        if self._device is not None:
            from audiosearch.indexes import gpu

            gpu.lend(index, self._device)
        return changed


def open_index(store: Store, space: Space, device: str | None = None) -> LiveIndex:
    """The index of a space; it is loaded with the first use. With a CUDA `device` it is searched there."""
    return LiveIndex(store, space, device)


def _catch_up(store: Store, space: Space, index: VectorIndex, seq: int) -> tuple[int, bool]:
    """Bring an index from commit `seq` to this thread's snapshot; returns the commit that is, and whether the space
    changed in between."""
    changes = store.changes_since(space.id, seq)
    index.remove(changes.deleted_ids)
    for first in range(0, len(changes.added_ids), BLOCK):
        some = slice(first, first + BLOCK)
        vectors = store.vectors_at(space.id, changes.shards[some], changes.rows[some])
        index.add(changes.added_ids[some], vectors)
    return changes.seq, bool(len(changes.added_ids) or len(changes.deleted_ids))


def save_generation(store: Store, space: Space, *, force: bool = False) -> bool:
    """Write a new generation if enough changed since the last one; returns whether it was. For the writer.

    Enough: so much that every reader would feel the catching up. FAISS is imported only when there is one to write.
    """
    covered, count, built = 0, 0, Built()
    for _, manifest in _usable(store, space)[:1]:
        covered, count, built = manifest.commit_seq, manifest.count, manifest.built
    changes = store.changes_since(space.id, covered)
    if not force:
        if covered == changes.seq:
            return False
        if len(changes.added_ids) + len(changes.deleted_ids) < max(_WORTH_SAVING, count // 10):
            return False
    total = count + len(changes.added_ids) - len(changes.deleted_ids)
    has_to_be_built = spec.candidates(total) != ("flat",) if built.wanted == "auto" else built.wanted != "flat"
    if has_to_be_built and total >= _GROWN * built.trained_on:
        rebuild(store, space, built.wanted)
        return True
    live = open_index(store, space)
    if live.worn:
        rebuild(store, space, built.wanted)
    else:
        live.save()
    return True


@dataclass
class IndexFindings:
    """What `check` found: generations that are not what they should be, with the problem; and harmless ones that nobody
    will read, with a note."""

    bad: list[tuple[Path, Problem]] = field(default_factory=list)
    useless: list[tuple[Path, str]] = field(default_factory=list)
    checked: int = 0


def check(store: Store, progress: Callable[[StepProgress], None] | None = None) -> IndexFindings:
    """Compare every index file with its manifest, its ids with the store's, and its vectors with the shards."""
    found = IndexFindings()
    with store.snapshot():
        all_of_them = [(space, path) for space in store.spaces() for path in _folders(store, space)]
        for number, (space, path) in enumerate(all_of_them):
            if progress:
                progress(StepProgress("indexes", number, len(all_of_them)))
            found.checked += 1
            if path.name.startswith("building-"):
                found.useless.append((path, f"{path}: an index that was not finished, by a crash or not yet"))
                continue
            useless, fault = _faults(store, space, path)
            if not path.is_dir():  # the writer has made a newer one meanwhile
                continue
            if fault:
                remedy = "removes it; an index is built again from the vectors, without the model"
                found.bad.append((path, Problem("index", str(path), fault, remedy, True)))
            elif useless:
                found.useless.append((path, f"{path}: {useless}; it is passed over"))
    return found


def remove(found: IndexFindings) -> None:
    """Take away what `check` found. For the holder of the writer lock."""
    for path, _ in [*found.bad, *found.useless]:
        generations.remove(path)


def _faults(store: Store, space: Space, path: Path) -> tuple[str | None, str | None]:
    """(why a generation is of no use, what is wrong with it)."""
    try:
        manifest = generations.read_manifest(path)
    except FileNotFoundError:
        return "half removed, or half made, when a crash came", None
    except (OSError, ValueError) as error:
        return None, f"its manifest cannot be read ({error})"
    if manifest.space != space.spec.fingerprint or manifest.dim != space.spec.dim:
        return None, f"it is of another space ({manifest.space[:12]}, {manifest.dim} dimensions)"
    if not _is_of_this_history(store, space, manifest):
        return "it is of another history of this library (a backup was restored, or vectors were given up)", None
    index = generations.load(path, manifest)
    if index is None:
        return None, "its file is not what its manifest says"
    stored = store.alive_at(space.id, manifest.commit_seq)
    if not np.array_equal(index.ids(), stored.added_ids):
        return None, f"its {len(index):,} ids are not the {len(stored.added_ids):,} of commit {manifest.commit_seq}"
    there = np.flatnonzero(stored.shards > 0)
    for first in range(0, len(there), BLOCK):
        some = there[first : first + BLOCK]
        try:
            vectors = store.vectors_at(space.id, stored.shards[some], stored.rows[some])
        except LibraryError:  # the shards' own trouble, which is reported as that
            return None, None
        held = index.vectors(stored.added_ids[some])
        cosines = np.sum(held * vectors, axis=1) / np.maximum(np.linalg.norm(held, axis=1), 1e-9)
        if not np.all(cosines > 1 - _ROUNDING - index.rounding):
            return None, "its vectors are not those in the shards"
    return None, None


def _newest(store: Store, space: Space) -> tuple[VectorIndex, int, Built]:
    """The newest generation that can be read and the commit it reaches; else an empty index at commit 0."""
    for path, manifest in _usable(store, space):
        if (index := generations.load(path, manifest, row_source(store, space))) is not None:
            return index, manifest.commit_seq, manifest.built
    return FlatIndex(space.spec.dim), 0, Built()


def _usable(store: Store, space: Space) -> list[tuple[Path, generations.Manifest]]:
    """Generations of this space and of this library's history, newest first."""
    return [
        (path, manifest)
        for path, manifest in generations.manifests(directory_of(store, space), space.spec.fingerprint)
        if manifest.dim == space.spec.dim and _is_of_this_history(store, space, manifest)
    ]


def _is_of_this_history(store: Store, space: Space, manifest: generations.Manifest) -> bool:
    """Numbers repeat after a restored backup; marks do not."""
    mark = store.commit_mark(space.id, manifest.commit_seq)
    return manifest.commit_seq <= store.max_seq(space.id) and manifest.commit_mark == mark


def _folders(store: Store, space: Space) -> list[Path]:
    return generations.folders(directory_of(store, space))
