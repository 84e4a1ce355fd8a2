"""Inverted lists: vectors sorted by their nearest of n centres, of which a search looks into a few.

`ivf` keeps full vectors, `ivf-sq8` one byte a dimension, scored again by full rows.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from audiosearch.indexes import spec
from audiosearch.indexes.approximate import ApproximateIndex
from audiosearch.indexes.base import GATHERED, SUM_ROUNDING, Ids, Rows, RowSource, places, selector, settle

_TRAINING_ROUNDS = 10  # of k-means
_FETCHED = 1_000  # rows got from the shards rather than compared by codes first
_MISSING, _CHANCE = 0.05, 3.0  # a share of rows, and standard deviations, below what a random filter leaves
_NEAR = 256  # candidates by codes that a scan asks for beyond k: another round is another pass over all lists


class _Lists(ApproximateIndex):
    """What the kinds over FAISS's `IndexIVF` share: they differ in what a list holds."""

    direct: ClassVar[bool] = False  # whether the place of each id is kept: a row by its id, removal without a pass
    inner: ClassVar[str]  # the FAISS class
    # By how much a score by codes is wrong at most, twice over; None if that is too much to go by them.
    code_rounding: ClassVar[float | None] = None

    def __init__(self, inner: Any, rows: RowSource | None) -> None:
        super().__init__(inner, rows)
        self._listed: tuple[Ids, Ids] | None = None

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
            _NEAR,
        )

    def _left_out_nearby(self, queries: Rows, allowed: Ids) -> NDArray[np.bool_]:
        """Where the lists that a search would look into have lost more to the filter than all lists together.

        How wide to look was measured under a random filter. One that goes by content, as a label does, may leave next
        to nothing near the query: what is to be found lies farther out then, and recall was 0.6 to 0.95 (docs/log.md).
        """
        ids, lists = self._lists_by_id()
        held = np.bincount(lists, minlength=self.widest)
        left = np.bincount(lists[places(allowed, ids)], minlength=self.widest)
        width = min(max(self.effort.filtered_width, 1), self.widest)
        near = np.concatenate([self._index.quantizer.search(query[None], width)[1] for query in queries])
        random = len(allowed) / len(self) * held[near].sum(axis=1)  # rows that a random filter leaves there
        return random - left[near].sum(axis=1) > np.maximum(_MISSING * random, _CHANCE * np.sqrt(random))

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
        held = [faiss.rev_swig_ptr(lists.get_ids(number), size) for number, size in enumerate(self._sizes()) if size]
        return np.concatenate([np.empty(0, np.int64), *held])

    def _sizes(self) -> list[int]:
        return [int(self._index.invlists.list_size(number)) for number in range(self._index.nlist)]

    def _lists_by_id(self) -> tuple[Ids, Ids]:
        """Every id, ascending, and the number of the list that each is in."""
        ids = self.ids()
        if self._listed is None or self._listed[0] is not ids:  # changed since
            self._listed = ids, np.repeat(np.arange(self.widest), self._sizes())[np.argsort(self._ids())]
        return self._listed


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
