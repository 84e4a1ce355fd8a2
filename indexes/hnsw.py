"""A graph of neighbours (HNSW) that a search walks towards the query.

FAISS cannot take a vector out of the graph. What is removed stays in it as a way station with the id -1, which no
search returns; `worn` says how much of the graph that is, and building it anew is for the caller.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from audiosearch.indexes import spec
from audiosearch.indexes.approximate import ApproximateIndex
from audiosearch.indexes.base import Ids, Rows

_GONE = -1


class HnswIndex(ApproximateIndex):
    """Full vectors in a graph."""

    kind = "hnsw"

    def __init__(self, inner: Any, rows: Any = None) -> None:
        import faiss

        super().__init__(inner, rows)
        self._graph: Any = faiss.downcast_index(inner.index)
        self._places: tuple[Ids, Ids] | None = None  # ids, ascending, and where in the graph each is
        self._gone = int(np.count_nonzero(self._held() == _GONE))

    def __len__(self) -> int:
        return int(self._index.ntotal) - self._gone

    @property
    def factory(self) -> str:
        """The FAISS factory string."""
        return f"IDMap,HNSW{spec.HNSW_NEIGHBOURS}"

    @property
    def widest(self) -> int:
        """Every vector."""
        return max(int(self._index.ntotal), 1)

    def worthwhile(self, share: float) -> int:
        """Each candidate that is kept costs a look at its neighbours."""
        return max(int(share * self.widest / spec.HNSW_NEIGHBOURS), 512)

    @property
    def worn(self) -> float:
        """The share of the graph that was removed."""
        return self._gone / max(int(self._index.ntotal), 1)

    def vectors(self, ids: Ids) -> Rows:
        """Rows [n, dim] by id."""
        if not len(ids):
            return np.empty((0, self.dim), np.float32)
        return np.asarray(self._graph.reconstruct_batch(self._where(ids)), np.float32)

    def add(self, ids: Ids, vectors: Rows) -> None:
        """Add vectors [n, dim] under new ids [n]."""
        self._places = None
        super().add(ids, vectors)

    @classmethod
    def _trained(cls, dim: int, sample: Rows, count: int) -> Any:
        import faiss

        inner: Any = faiss.index_factory(dim, f"IDMap,HNSW{spec.HNSW_NEIGHBOURS}", faiss.METRIC_INNER_PRODUCT)
        graph: Any = faiss.downcast_index(inner.index)
        graph.hnsw.efConstruction = spec.HNSW_BUILD_WIDTH
        return inner

    @classmethod
    def _is_mine(cls, inner: Any) -> bool:
        import faiss

        return type(inner) is faiss.IndexIDMap and type(faiss.downcast_index(inner.index)) is faiss.IndexHNSWFlat

    def _default_width(self) -> int:
        return 128

    def _parameters(self, width: int, only: Any) -> Any:
        import faiss

        if only is None and self._gone:
            only = faiss.IDSelectorRange(0, np.iinfo(np.int64).max)
        library: Any = faiss  # whose stubs know neither this class nor its keywords
        return library.SearchParametersHNSW(efSearch=width, sel=only)

    def _candidates(self, query: Rows, wanted: int, width: int, only: Any) -> Ids:
        return super()._candidates(query, wanted, max(width, wanted), only)

    def _remove(self, ids: Ids) -> None:
        import faiss

        held = self._held()
        gone = np.isin(held, ids[ids >= 0])
        held[gone] = _GONE
        faiss.copy_array_to_vector(held, self._index.id_map)
        self._gone += int(np.count_nonzero(gone))
        self._places = None

    def _ids(self) -> Ids:
        held = self._held()
        return held[held != _GONE]

    def _held(self) -> Ids:
        import faiss

        return faiss.vector_to_array(self._index.id_map).astype(np.int64)

    def _where(self, ids: Ids) -> Ids:
        if self._places is None:
            held = self._held()
            places = np.flatnonzero(held != _GONE)
            order = places[np.argsort(held[places])]
            self._places = held[order], order
        known, order = self._places
        return order[np.searchsorted(known, ids)]
