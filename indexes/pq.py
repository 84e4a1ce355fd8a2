"""Inverted lists of product codes: a byte for eight dimensions, scored again by full rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from audiosearch.indexes import spec
from audiosearch.indexes.base import Ids, Rows, is_few, nothing, selector
from audiosearch.indexes.ivf import _TRAINING_ROUNDS, _Lists

_CODES = 256  # of one byte; training needs at least as many vectors


class IvfPqIndex(_Lists):
    """Lists of short codes; what they find is a guess, of which many are scored again."""

    kind = "ivf-pq"
    inner = "IndexIVFPQ"
    needs_rows = True
    rounding = 0.6
    extras = (64, 256, 1024)

    @classmethod
    def codec(cls, dim: int) -> str:
        """What a list holds."""
        return f"PQ{spec.pq_parts(dim)}"

    @classmethod
    def _prepare(cls, inner: Any) -> None:
        inner.pq.cp.niter, inner.pq.cp.min_points_per_centroid = _TRAINING_ROUNDS, 1
        inner.do_polysemous_training = False  # for a search mode that is not used, it takes 4 s a part

    @classmethod
    def _enough(cls, sample: Rows) -> Rows:
        return np.resize(sample, (max(len(sample), _CODES), sample.shape[1]))

    def _scan(self, queries: Rows, allowed: Ids, k: int) -> tuple[Rows, Ids]:
        if is_few(len(allowed), len(self)):
            return super()._scan(queries, allowed, k)
        # So many rows are not read from the shards, but every list is looked into.
        scores, ids = nothing(queries, k)
        only = selector(allowed)
        for row, query in enumerate(queries):
            scores[row], ids[row] = self._rescored(query, k, self.widest, allowed, only)
        return scores, ids
