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
- An exact kind finds the true best k, ties at the end of the row decided by id as well. The others may miss some, but
  not the number: who asks for k gets k if there are k. How many they miss is measured (`tune`) and kept with the index.
- A filter that leaves few rows (`is_few`) is an exact scan of just those, for every kind: what searches a part of the
  index loses recall under filters.
- A kind that keeps codes only (`needs_rows`) is given a `RowSource`, from which it scores its candidates again.
- `ids` are those that are in it, ascending; `vectors` gives rows by id as the index holds them, no further from the
  full ones than a cosine of 1 - `rounding`.
- `save` writes one file; the kind's `load` of it answers every search alike, or raises `ValueError` for a file that is
  not whole. Nothing here is safe to use from two threads while one adds or removes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Rows = NDArray[np.float32]
RowSource = Callable[[Ids], Rows]  # full unit rows [n, dim] by id, from wherever the caller keeps them

EXACT_ROWS, EXACT_SHARE = 50_000, 0.05  # a filter that leaves fewer rows, or a smaller part, is scanned exactly
GATHERED = 20  # of these, rows are gathered if there is one in so many; else FAISS passes over the others faster
# Two float32 sums of up to some thousand products of a unit vector's parts differ by less than this.
SUM_ROUNDING = 1e-5
_EXTRA = 16  # candidates beyond k asked for at first; ties at the end of the row may need more
_BLOCK = 16_384  # rows scanned at a time


class VectorIndex(Protocol):
    """One index over (id, unit vector) pairs."""

    kind: ClassVar[str]  # its name, as in `generations.KINDS`
    rounding: ClassVar[float]
    dim: int

    @property
    def factory(self) -> str:
        """The FAISS factory string, or its like."""
        ...

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


def nothing(queries: Rows, k: int) -> tuple[Rows, Ids]:
    """The answer to queries [q, dim] where there is nothing to find."""
    return np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)


def is_few(n_allowed: int, total: int) -> bool:
    """Whether a filter leaves so few of `total` rows that they are scanned one by one."""
    return n_allowed < EXACT_ROWS or n_allowed < EXACT_SHARE * total


def scan(queries: Rows, ids: Ids, rows: RowSource, k: int) -> tuple[Rows, Ids]:
    """The exact best k of `ids` for each of queries [q, dim]."""
    scores, found = nothing(queries, k)
    if not len(ids):
        return scores, found
    rough = np.empty((len(queries), len(ids)), np.float32)
    for first in range(0, len(ids), _BLOCK):
        np.matmul(queries, rows(ids[first : first + _BLOCK]).T, out=rough[:, first : first + _BLOCK])
    for row, query in enumerate(queries):
        near = np.arange(len(ids))
        if len(ids) > k:
            last = np.partition(rough[row], len(ids) - k)[len(ids) - k]
            near = np.flatnonzero(rough[row] >= last - SUM_ROUNDING)
        scores[row], found[row] = best(rescore(query, rows(ids[near])), ids[near], k)
    return scores, found


def settle(
    rough_search: Callable[[Rows, int], tuple[Rows, Ids]],
    queries: Rows,
    k: int,
    total: int,
    rows: RowSource,
    rounding: float = SUM_ROUNDING,
    extra: int = _EXTRA,
) -> tuple[Rows, Ids]:
    """The exact best k of `total` rows by a search whose scores differ wrongly by up to `rounding`.

    `rough_search` gives scores and ids of the best n of each query. It is asked for `extra` more than k at first, then
    for more until what it left out cannot matter, and whatever could be among the best is scored again.
    """
    scores, ids = nothing(queries, k)
    pending, wanted = np.arange(len(queries)), k + extra
    while len(pending) and total:
        wanted = min(wanted, total)
        rough, found = rough_search(queries[pending], wanted)
        open_ended = []
        for row, query in enumerate(pending):
            here = found[row][found[row] >= 0]
            # Whatever was left out scores at most rough[-1]; it can matter only if that is near the k-th.
            if len(here) == wanted < total and rough[row, k - 1] - rough[row, -1] <= rounding:
                open_ended.append(query)
            elif len(here):
                near = rough[row, : len(here)] >= rough[row, min(k, len(here)) - 1] - rounding
                scores[query], ids[query] = best(rescore(queries[query], rows(here[near])), here[near], k)
        pending, wanted = np.array(open_ended, np.int64), wanted * 4
    return scores, ids


def selector(allowed: Ids) -> Any:
    """A FAISS selector of those ids: a bit for each number up to the last if they are dense enough, else a hash set."""
    import faiss

    if len(allowed) and int(allowed.min()) >= 0 and int(allowed.max()) < 256 * len(allowed):
        members = np.zeros(int(allowed.max()) + 1, bool)
        members[allowed] = True
        bitmap: Any = faiss.IDSelectorBitmap  # the stubs have SWIG's constructor, not the one that takes an array
        return bitmap(np.packbits(members, bitorder="little"))
    return faiss.IDSelectorBatch(np.ascontiguousarray(allowed, np.int64))


def those_in(allowed: Ids, known: Ids) -> Ids:
    """The ids of `allowed` that are in `known`, which is ascending; each once, ascending."""
    wanted = np.asarray(allowed, np.int64)
    if not np.all(wanted[1:] > wanted[:-1]):  # np.unique takes eight times as long as what is to come
        wanted = np.unique(wanted)
    if not len(known):
        return wanted[:0]
    wanted = wanted[(wanted >= known[0]) & (wanted <= known[-1])]
    return wanted[known[places(wanted, known)] == wanted]


def places(ids: Ids, known: Ids) -> Ids:
    """Where in `known`, which is ascending, each of `ids` is or would be; none is above its last one."""
    if len(known) and known[-1] - known[0] + 1 == len(known):  # no gaps
        return ids - known[0]
    return np.searchsorted(known, ids)
