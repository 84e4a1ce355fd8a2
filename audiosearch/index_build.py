"""A space's index built anew from the shards: which kind, trained on what, how good. The model is not called.

every live vector ──sample──> training ──all──> index ──queries of each kind──> recall@10, least effort
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiosearch.indexes import generations, spec, tune
from audiosearch.indexes.approximate import ApproximateIndex
from audiosearch.indexes.base import RowSource, VectorIndex
from audiosearch.indexes.flat import FlatIndex
from audiosearch.indexes.generations import Built
from audiosearch.store.store import Changes, Store
from audiosearch.types import BuiltIndex, Space, StepProgress, Vectors

BLOCK = 65_536  # vectors read from the shards at a time


def directory_of(store: Store, space: Space) -> Path:
    """Where a space's generations are."""
    return store.directory / "indexes" / space.spec.fingerprint


def row_source(store: Store, space: Space) -> RowSource:
    """Full rows of a space's vectors by id, from the shards."""
    return lambda ids: store.vectors(space.id, ids)


def rebuild(
    store: Store,
    space: Space,
    kind: str = "auto",
    *,
    queries: Mapping[str, Vectors] | None = None,
    progress: Callable[[StepProgress], None] | None = None,
) -> BuiltIndex:
    """Build a space's index from the shards, without the model, and save it as a new generation. For the writer.

    `auto` takes the first kind suited to that many vectors (`indexes.spec`) that reaches a recall@10 of 0.99 at an
    effort that is worth it, with every kind of query: `queries` by name, for instance `text` and `audio`, and
    stand-ins made of stored vectors. Raises ValueError for a kind that there is not.
    """
    if kind != "auto" and kind not in generations.KINDS:
        raise ValueError(f"no kind of index is called {kind!r}; there are auto, {', '.join(generations.KINDS)}")
    started = time.perf_counter()
    with store.snapshot():
        changes = store.changes_since(space.id, 0)
        builder = _Builder(store, space, changes, dict(queries or {}), progress)
        index, measured = builder.build(spec.candidates(len(changes.added_ids)) if kind == "auto" else (kind,))
        mark = secrets.token_hex(8) if measured or kind != "auto" else ""
        seconds = time.perf_counter() - started
        built = Built.of(mark, kind, len(changes.added_ids), seconds, measured)
        path = generations.save(
            directory_of(store, space),
            index,
            space=space.spec.fingerprint,
            commit_seq=changes.seq,
            commit_mark=store.commit_mark(space.id, changes.seq),
            built=built,
        )
    return BuiltIndex(
        space=space.spec.fingerprint[:12],
        kind=index.kind,
        factory=index.factory,
        vectors=len(index),
        bytes_on_disk=(path / "index.faiss").stat().st_size,
        seconds=seconds,
        effort=built.effort,
        recall=built.recall,
        milliseconds=measured.milliseconds if measured else None,
    )


class _Builder:
    """Makes an index of what `changes` added, trying kinds until one finds enough."""

    def __init__(
        self,
        store: Store,
        space: Space,
        changes: Changes,
        queries: dict[str, Vectors],
        progress: Callable[[StepProgress], None] | None,
    ) -> None:
        self._store, self._space, self._changes = store, space, changes
        self._queries, self._progress = queries, progress
        self._judge: tune.Judge | None = None

    def build(self, kinds: tuple[str, ...]) -> tuple[VectorIndex, tune.Measured | None]:
        """The first of `kinds` that reaches the wanted recall, else the last, with what was measured of it."""
        for kind in kinds:
            index = self._filled(kind)
            if not isinstance(index, ApproximateIndex):
                return index, None
            if not len(index):
                break
            assert self._judge is not None
            self._report(f"measuring {kind}", 0, 0)
            measured = tune.tune(index, self._judge)
            if measured.reached:
                break
        return index, measured if len(index) else None

    def _filled(self, kind: str) -> VectorIndex:
        total = len(self._changes.added_ids)
        sample = self._sample(spec.sample_size(total)) if kind != FlatIndex.kind else np.empty((0, 0), np.float32)
        if kind != FlatIndex.kind:
            self._report(f"training {kind}", 0, 0)
        index = generations.make(kind, self._space.spec.dim, sample, total, self._rows_of)
        judge = None
        if kind != FlatIndex.kind and self._judge is None and total:
            judge = self._judge = tune.Judge({**tune.stand_ins(sample), **self._queries}, total)
        del sample
        for first in range(0, total, BLOCK):
            self._report(f"filling {kind}", first, total)
            ids, rows = self._block(slice(first, first + BLOCK))
            index.add(ids, rows)
            if judge is not None:
                judge.see(ids, rows)
        self._report(f"filling {kind}", total, total)
        return index

    def _sample(self, size: int) -> Vectors:
        total = len(self._changes.added_ids)
        size = max(size, min(total, 2 * tune.QUERIES))
        places = np.sort(np.random.default_rng(0).permutation(total)[:size])
        return self._rows(places)

    def _rows_of(self, ids: NDArray[np.int64]) -> Vectors:
        """Full rows by id; without the catalogue, which would be asked many thousand times while measuring."""
        return self._rows(np.searchsorted(self._changes.added_ids, ids))

    def _block(self, some: slice) -> tuple[NDArray[np.int64], Vectors]:
        return self._changes.added_ids[some], self._rows(some)

    def _rows(self, some: slice | NDArray[np.int64]) -> Vectors:
        return self._store.vectors_at(self._space.id, self._changes.shards[some], self._changes.rows[some])

    def _report(self, step: str, done: int, total: int) -> None:
        if self._progress:
            self._progress(StepProgress(step, done, total, "vectors"))
