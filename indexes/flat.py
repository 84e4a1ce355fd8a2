"""Exact search, the judge of the other kinds: FAISS `IDMap2,Flat` over inner products."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from audiosearch.indexes.base import GATHERED, Ids, Rows, RowSource, scan, selector, settle, those_in


class FlatIndex:
    """Every vector, compared with every query; see `base` for what holds."""

    kind: ClassVar[str] = "flat"
    rounding: ClassVar[float] = 1e-6
    needs_rows: ClassVar[bool] = False
    factory = "IDMap2,Flat"

    def __init__(self, dim: int) -> None:
        import faiss

        self.dim = dim
        self._index: Any = faiss.index_factory(dim, self.factory, faiss.METRIC_INNER_PRODUCT)
        self._sorted: Ids | None = None  # the ids, once somebody asked for them

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, ids: Ids, vectors: Rows) -> None:
        """Add vectors [n, dim] under new ids [n]."""
        self._sorted = None
        self._index.add_with_ids(np.ascontiguousarray(vectors, np.float32), np.ascontiguousarray(ids, np.int64))

    def remove(self, ids: Ids) -> None:
        """Take ids out; those behind move up, so the cost is one pass over the memory."""
        self._sorted = None
        if len(ids):
            self._index.remove_ids(np.ascontiguousarray(ids, np.int64))

    def search(self, queries: Rows, k: int, allowed: Ids | None = None) -> tuple[Rows, Ids]:
        """The best k for each of queries [q, dim]: scores [q, k] and ids [q, k]."""
        queries = np.ascontiguousarray(queries, np.float32)
        if allowed is None:
            return settle(self._index.search, queries, k, len(self), self.vectors)
        if len(allowed) * GATHERED < len(self):
            return scan(queries, those_in(allowed, self.ids()), self.vectors, k)
        only: Any = _parameters(sel=selector(allowed))
        return settle(lambda q, n: self._index.search(q, n, params=only), queries, k, len(self), self.vectors)

    def ids(self) -> Ids:
        """Every id, ascending."""
        import faiss

        if self._sorted is None:
            self._sorted = np.sort(faiss.vector_to_array(self._index.id_map).astype(np.int64))
        return self._sorted

    def vectors(self, ids: Ids) -> Rows:
        """Rows [n, dim] by id."""
        if not len(ids):
            return np.empty((0, self.dim), np.float32)
        return np.asarray(self._index.reconstruct_batch(np.ascontiguousarray(ids, np.int64)), np.float32)

    def save(self, path: Path) -> None:
        """Write the index as one file."""
        import faiss

        faiss.write_index(self._index, str(path))

    @classmethod
    def load(cls, path: Path, rows: RowSource | None = None) -> FlatIndex:
        """Read what `save` wrote; it needs no other `rows` than its own.

        Raises:
            ValueError: the file is not a whole index of this kind.
        """
        import faiss

        inner = read_file(path)
        if not isinstance(inner, faiss.IndexIDMap2) or inner.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise ValueError(f"{path} holds another kind of index")
        loaded = cls.__new__(cls)
        loaded.dim, loaded._index, loaded._sorted = inner.d, inner, None
        return loaded


def read_file(path: Path) -> Any:
    """The FAISS index in a file.

    Raises:
        ValueError: it is not a whole one.
    """
    import faiss

    try:
        return faiss.read_index(str(path))
    except (RuntimeError, MemoryError) as error:
        raise ValueError(f"{path} is not a FAISS index: {error}") from error


def _parameters(**values: Any) -> Any:
    import faiss

    make: Any = faiss.SearchParameters  # its stubs know no keywords
    return make(**values)
