"""Exact search, the judge of the other kinds: FAISS `IDMap2,Flat` over inner products."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from audiosearch.indexes.base import Ids, Rows, best, rescore

# Two float32 sums of up to some thousand products of a unit vector's parts differ by less than this.
_ROUNDING = 1e-5
_EXTRA = 16  # candidates beyond k asked for at first; ties at the end of the row may need more


class FlatIndex:
    """Every vector, compared with every query; see `base` for what holds."""

    factory = "IDMap2,Flat"

    def __init__(self, dim: int) -> None:
        import faiss

        self.dim = dim
        self._index: Any = faiss.index_factory(dim, self.factory, faiss.METRIC_INNER_PRODUCT)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, ids: Ids, vectors: Rows) -> None:
        """Add vectors [n, dim] under new ids [n]."""
        self._index.add_with_ids(np.ascontiguousarray(vectors, np.float32), np.ascontiguousarray(ids, np.int64))

    def remove(self, ids: Ids) -> None:
        """Take ids out; those behind move up, so the cost is one pass over the memory."""
        if len(ids):
            self._index.remove_ids(np.ascontiguousarray(ids, np.int64))

    def search(self, queries: Rows, k: int, allowed: Ids | None = None) -> tuple[Rows, Ids]:
        """The best k for each of queries [q, dim]: scores [q, k] and ids [q, k]."""
        queries = np.ascontiguousarray(queries, np.float32)
        scores, ids = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        pending, wanted = np.arange(len(queries)), k + _EXTRA
        while len(pending) and len(self):
            wanted = min(wanted, len(self))
            rough, found = self._index.search(queries[pending], wanted, params=_only(allowed))
            open_ended = []
            for row, query in enumerate(pending):
                here = found[row][found[row] >= 0]
                # Whatever was left out scores at most rough[-1]; it can matter only if that is near the k-th.
                if len(here) == wanted < len(self) and rough[row, k - 1] - rough[row, -1] <= _ROUNDING:
                    open_ended.append(query)
                elif len(here):
                    exact = rescore(queries[query], self._index.reconstruct_batch(here))
                    scores[query], ids[query] = best(exact, here, k)
            pending, wanted = np.array(open_ended, np.int64), wanted * 4
        return scores, ids

    def ids(self) -> Ids:
        """Every id, ascending."""
        import faiss

        return np.sort(faiss.vector_to_array(self._index.id_map).astype(np.int64))

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
    def load(cls, path: Path) -> FlatIndex:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is not a whole index of this kind.
        """
        import faiss

        try:
            inner = faiss.read_index(str(path))
        except RuntimeError as error:
            raise ValueError(f"{path} is not a FAISS index: {error}") from error
        if not isinstance(inner, faiss.IndexIDMap2) or inner.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise ValueError(f"{path} holds another kind of index")
        loaded = cls.__new__(cls)
        loaded.dim, loaded._index = inner.d, inner
        return loaded


def _only(allowed: Ids | None) -> Any:
    if allowed is None:
        return None
    import faiss

    parameters: Any = faiss.SearchParameters  # its stubs know no keywords
    return parameters(sel=faiss.IDSelectorBatch(np.ascontiguousarray(allowed, np.int64)))
