"""The contract of an index of vectors, for every kind; `tests/index_contract.py` holds each kind to it.

What is owed beyond the signatures:

- Vectors are unit rows, float32, [n, dim]; ids are int64, unique and not negative. A score is the inner product: higher
  is better.
- `add` and `remove` take effect with the next search. Removing an id that is not there does nothing; adding one that is
  there is a mistake of the caller.
- `search` returns rows ordered by score, descending, then id, ascending. The score of a pair is the same in any batch
  and beside any other vectors: candidates are scored again by `rescore`, whatever the engine's arithmetic. Where fewer
  than k vectors can be found the row ends in id -1 with score -inf; k may exceed the number of vectors.
- With `allowed`, only those ids can be found, and they are found as if they were alone in the index.
- An exact kind finds the true best k, ties at the end of the row decided by id as well.
- `ids` are those that are in it, ascending; `vectors` gives rows by id as the index holds them, rounded or not.
- `save` writes one file; the kind's `load` of it answers every search alike, or raises `ValueError` for a file that is
  not whole. Nothing here is safe to use from two threads while one adds or removes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Rows = NDArray[np.float32]


class VectorIndex(Protocol):
    """One index over (id, unit vector) pairs."""

    dim: int
    factory: str  # the FAISS factory string, or its like

    def __len__(self) -> int: ...

    def add(self, ids: Ids, vectors: Rows) -> None: ...

    def remove(self, ids: Ids) -> None: ...

    def search(self, queries: Rows, k: int, allowed: Ids | None = None) -> tuple[Rows, Ids]: ...

    def ids(self) -> Ids: ...

    def vectors(self, ids: Ids) -> Rows: ...

    def save(self, path: Path) -> None: ...


def rescore(query: Rows, vectors: Rows) -> Rows:
    """Inner products [n] of one query [dim] with vectors [n, dim], each independent of the others.

    A matrix product adds up in an order that depends on its shape, so equal vectors could differ in the last bit; this
    adds each row by itself, in float64, and rounds once.
    """
    return np.sum(vectors.astype(np.float64) * query.astype(np.float64), axis=1).astype(np.float32)


def best(scores: Rows, ids: Ids, k: int) -> tuple[Rows, Ids]:
    """The best k by score, then id, padded to k with -inf and -1."""
    order = np.lexsort((ids, -scores))[:k]
    best_scores, best_ids = np.full(k, -np.inf, np.float32), np.full(k, -1, np.int64)
    best_scores[: len(order)], best_ids[: len(order)] = scores[order], ids[order]
    return best_scores, best_ids
