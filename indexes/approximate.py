"""What the kinds that look at a part of the vectors share: rough candidates from FAISS, scored again by full rows.

    query ──FAISS──> k + extra candidates, by codes ──full rows──> true scores ──> best k

A kind says how its FAISS index is made and filled, and what its one search knob is called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from audiosearch.indexes.base import (
    Ids,
    Rows,
    RowSource,
    best,
    is_few,
    nothing,
    rescore,
    scan,
    selector,
    those_in,
)
from audiosearch.indexes.flat import read_file
from audiosearch.indexes.spec import Effort

_WIDER = 4  # how much harder to try when too little was found


class ApproximateIndex(ABC):
    """An index that may miss some; see `base` for what holds. Made by `make` or `load`."""

    kind: ClassVar[str]
    rounding: ClassVar[float] = 1e-6
    needs_rows: ClassVar[bool] = False
    # How many candidates beyond k to score again: what `tune` tries, the first one untuned.
    extras: ClassVar[tuple[int, ...]] = (16,)

    def __init__(self, inner: Any, rows: RowSource | None) -> None:
        if self.needs_rows and rows is None:
            raise ValueError(f"an index of kind {self.kind} keeps codes only: it needs a source of rows")
        self._index, self._rows = inner, rows
        self._sorted: Ids | None = None  # the ids, once somebody asked for them
        self._placed: Any = None  # a copy of the FAISS index that is faster to search, see `gpu`
        self.dim = int(inner.d)
        self.effort = Effort(self._default_width(), 2 * self._default_width(), self.extras[0])

    @classmethod
    def make(cls, dim: int, sample: Rows, count: int, rows: RowSource | None = None) -> ApproximateIndex:
        """An empty index trained with `sample` [n, dim], for about `count` vectors."""
        if not len(sample):
            sample = np.eye(1, dim, dtype=np.float32)
        return cls(cls._trained(dim, np.ascontiguousarray(sample, np.float32), count), rows)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    @abstractmethod
    def factory(self) -> str:
        """The FAISS factory string."""

    @property
    @abstractmethod
    def widest(self) -> int:
        """The width from which on a search cannot try harder."""

    def add(self, ids: Ids, vectors: Rows) -> None:
        """Add vectors [n, dim] under new ids [n]."""
        self._sorted = None
        ids, vectors = np.ascontiguousarray(ids, np.int64), np.ascontiguousarray(vectors, np.float32)
        self._index.add_with_ids(vectors, ids)
        if self._placed is not None:
            self._placed.add_with_ids(vectors, ids)

    def remove(self, ids: Ids) -> None:
        """Take ids out."""
        if len(ids):
            self._sorted, self._placed = None, None  # what is placed elsewhere cannot remove
            self._remove(np.ascontiguousarray(ids, np.int64))

    def search(self, queries: Rows, k: int, allowed: Ids | None = None) -> tuple[Rows, Ids]:
        """The best k it finds for each of queries [q, dim]: scores [q, k] and ids [q, k]."""
        queries = np.ascontiguousarray(queries, np.float32)
        only, width, away = None, self.effort.width, np.zeros(len(queries), bool)
        if allowed is not None:
            allowed = those_in(allowed, self.ids())
            if is_few(len(allowed), len(self)):
                return self._scan(queries, allowed, k)
            only, width = selector(allowed), self.effort.filtered_width
            away = self._left_out_nearby(queries, allowed)
        scores, ids = nothing(queries, k)
        for row, query in enumerate(queries):  # one by one: beside others FAISS may look into other lists
            if allowed is not None and away[row]:
                (scores[row],), (ids[row],) = self._scan(query[None], allowed, k)
            else:
                scores[row], ids[row] = self._rescored(query, k, width, allowed, only)
        return scores, ids

    def place(self, copy: Callable[[Any], Any]) -> None:
        """Search without a filter in what `copy` makes of the FAISS index, which follows `add`, until a `remove`."""
        self._placed = copy(self._index)

    @property
    def is_placed(self) -> bool:
        """Whether there is such a copy."""
        return self._placed is not None

    def worthwhile(self, share: float) -> int:
        """The width at which a search looks at about that share of the vectors."""
        return max(int(share * self.widest), 1)

    def ids(self) -> Ids:
        """Every id, ascending."""
        if self._sorted is None:
            self._sorted = np.sort(self._ids())
        return self._sorted

    @abstractmethod
    def vectors(self, ids: Ids) -> Rows:
        """Rows [n, dim] by id, as they are held."""

    def save(self, path: Path) -> None:
        """Write the index as one file. Its effort and row source are for the caller to keep."""
        import faiss

        faiss.write_index(self._index, str(path))

    @classmethod
    def load(cls, path: Path, rows: RowSource | None = None) -> ApproximateIndex:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is not a whole index of this kind.
        """
        import faiss

        inner = read_file(path)
        if not cls._is_mine(inner) or inner.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise ValueError(f"{path} holds another kind of index")
        return cls(inner, rows)

    def _scan(self, queries: Rows, allowed: Ids, k: int) -> tuple[Rows, Ids]:
        """The exact best k of `allowed`, ids that are there."""
        return scan(queries, allowed, self._full, k)

    def _rescored(self, query: Rows, k: int, width: int, allowed: Ids | None, only: Any) -> tuple[Rows, Ids]:
        """The best k of what a search finds for one query [dim]; `only` is the selector of `allowed`."""
        there = len(self) if allowed is None else len(allowed)
        if not there:
            return best(np.empty(0, np.float32), np.empty(0, np.int64), k)
        found = self._candidates(query, min(k + self.effort.extra, there), width, only)
        if len(found) < min(k, there):  # a graph may fall apart
            found = self.ids() if allowed is None else allowed
        return best(rescore(query, self._full(found)), found, k)

    def _left_out_nearby(self, queries: Rows, allowed: Ids) -> NDArray[np.bool_]:
        """For which of queries [q, dim] a filter that leaves `allowed`, ids that are there, is unlike a random one."""
        return np.zeros(len(queries), bool)

    def _candidates(self, query: Rows, wanted: int, width: int, only: Any) -> Ids:
        """Ids of the best `wanted` by their codes; all that there are, if it comes to that."""
        while True:
            engine = self._index
            if only is None and self._placed is not None and max(wanted, width) <= self._placed_limit():
                engine = self._placed
            found = engine.search(query[None], wanted, params=self._parameters(max(width, 1), only))[1][0]
            found = found[found >= 0]
            if len(found) >= wanted or width >= self.widest:
                return found
            width = min(width * _WIDER, self.widest)

    def _placed_limit(self) -> int:
        return 2048  # of nprobe and k, on a GPU

    def _full(self, ids: Ids) -> Rows:
        return self._rows(ids) if self.needs_rows and self._rows is not None else self.vectors(ids)

    @classmethod
    @abstractmethod
    def _trained(cls, dim: int, sample: Rows, count: int) -> Any:
        """A FAISS index, empty and trained."""

    @classmethod
    @abstractmethod
    def _is_mine(cls, inner: Any) -> bool: ...

    @abstractmethod
    def _default_width(self) -> int: ...

    @abstractmethod
    def _parameters(self, width: int, only: Any) -> Any:
        """FAISS search parameters."""

    @abstractmethod
    def _remove(self, ids: Ids) -> None: ...

    @abstractmethod
    def _ids(self) -> Ids: ...
