"""Inverted lists: vectors sorted by their nearest of n centres, of which a search looks into a few.

`ivf` keeps full vectors, `ivf-sq8` one byte a dimension, scored again by full rows.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from audiosearch.indexes import spec
from audiosearch.indexes.approximate import ApproximateIndex
from audiosearch.indexes.base import GATHERED, SUM_ROUNDING, Ids, Rows, selector, settle

_TRAINING_ROUNDS = 10  # of k-means
_FETCHED = 1_000  # rows got from the shards rather than compared by codes first


class _Lists(ApproximateIndex):
    """What the kinds over FAISS's `IndexIVF` share: they differ in what a list holds."""

    direct: ClassVar[bool] = False  # whether the place of each id is kept: a row by its id, removal without a pass
    inner: ClassVar[str]  # the FAISS class
    # By how much a score by codes is wrong at most, twice over; None if that is too much to go by them.
    code_rounding: ClassVar[float | None] = None

    @classmethod
    def codec(cls, dim: int) -> str:
        """What comes after the comma in the factory string."""
        raise NotImplementedError

    def _scan(self, queries: Rows, allowed: Ids, k: int) -> tuple[Rows, Ids]:
        few = _FETCHED if self.needs_rows else len(self) // GATHERED
        if self.code_rounding is None or len(allowed) < few:
            return super()._scan(queries, allowed, k)
        # All lists together are a flat index, and so many full rows take longer to get than their codes to compare.
        every = self._parameters(self.widest, selector(allowed))
        return settle(
            lambda query, n: self._index.search(query, n, params=every),
            queries,
            k,
            len(allowed),
            self._full,
            self.code_rounding,
        )

    @property
    def factory(self) -> str:
        """The FAISS factory string."""
        return f"IVF{self._index.nlist},{self.codec(self.dim)}"

    @property
    def widest(self) -> int:
        """Every list."""
        return int(self._index.nlist)

    def vectors(self, ids: Ids) -> Rows:
        """Rows [n, dim] by id, as they are held. Without kept places it makes them for the moment: a whole pass."""

        if not len(ids):
            return np.empty((0, self.dim), np.float32)
        if not self.direct:
            self._index.set_direct_map_type(_direct_map().Hashtable)
        try:
            return np.asarray(self._index.reconstruct_batch(np.ascontiguousarray(ids, np.int64)), np.float32)
        finally:
            if not self.direct:
                self._index.set_direct_map_type(_direct_map().NoMap)

    @classmethod
    def _trained(cls, dim: int, sample: Rows, count: int) -> Any:
        import faiss

        lists = spec.lists(count, len(sample))
        inner: Any = faiss.index_factory(dim, f"IVF{lists},{cls.codec(dim)}", faiss.METRIC_INNER_PRODUCT)
        inner.cp.niter, inner.cp.min_points_per_centroid = _TRAINING_ROUNDS, 1
        cls._prepare(inner)
        inner.train(cls._enough(sample))
        if cls.direct:
            inner.set_direct_map_type(_direct_map().Hashtable)
        return inner

    @classmethod
    def _prepare(cls, inner: Any) -> None:
        """Set what else is to be set before training."""

    @classmethod
    def _enough(cls, sample: Rows) -> Rows:
        return sample

    @classmethod
    def _is_mine(cls, inner: Any) -> bool:
        import faiss

        return type(inner) is getattr(faiss, cls.inner)

    def _default_width(self) -> int:
        return max(1, min(self.widest, 8 + self.widest // 16))

    def _parameters(self, width: int, only: Any) -> Any:
        import faiss

        make: Any = faiss.SearchParametersIVF  # its stubs know no keywords
        return make(nprobe=width, sel=only)

    def _remove(self, ids: Ids) -> None:
        import faiss

        self._index.remove_ids(faiss.IDSelectorArray(ids) if self.direct else faiss.IDSelectorBatch(ids))

    def _ids(self) -> Ids:
        import faiss

        lists = self._index.invlists
        sizes = [int(lists.list_size(number)) for number in range(self._index.nlist)]
        held = [faiss.rev_swig_ptr(lists.get_ids(number), size) for number, size in enumerate(sizes) if size]
        return np.concatenate([np.empty(0, np.int64), *held])


def _direct_map() -> Any:
    """FAISS's class, which its stubs do not know."""
    import faiss

    library: Any = faiss
    return library.DirectMap


class IvfIndex(_Lists):
    """Lists of full vectors."""

    kind = "ivf"
    inner = "IndexIVFFlat"
    direct = True
    code_rounding = SUM_ROUNDING

    @classmethod
    def codec(cls, dim: int) -> str:
        """What a list holds."""
        return "Flat"


class IvfSq8Index(_Lists):
    """Lists of vectors with one byte for each dimension."""

    kind = "ivf-sq8"
    inner = "IndexIVFScalarQuantizer"
    needs_rows = True
    rounding = 0.1  # a vector may lie outside the range of those it was trained on
    extras = (16, 64)
    code_rounding = 2.5e-2  # a score by codes was wrong by 0.012 at most (512 dimensions, rows of benchmarks/search.py)

    @classmethod
    def codec(cls, dim: int) -> str:
        """What a list holds."""
        return "SQ8"
