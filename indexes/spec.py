"""Kinds of index as FAISS factory strings and search knobs, and which of them suit how many vectors.

    kind      factory           holds of a vector       finds        memory at 512 dimensions
    flat      IDMap2,Flat       all of it               everything   2,056 bytes a vector
    hnsw      IDMap,HNSW32      all of it, and a graph  most         2,328
    ivf       IVFn,Flat         all of it, in n lists   most         2,112
    ivf-sq8   IVFn,SQ8          one byte a dimension    most           528
    ivf-pq    IVFn,PQm          one byte for eight      most            80

The last two score what they find again by the rows in the shards. IVF looks into the lists nearest to the query.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# Below this the exact scan takes a few milliseconds, and nothing has to be trained or measured.
FLAT_ROWS = 50_000
_SQ8_ROWS, _PQ_ROWS = 400_000, 20_000_000  # from there on memory counts
SAMPLE_PER_LIST = 40  # training vectors for each list; more cost much time and find nothing more
_PQ_DIMENSIONS = 8  # in one byte

HNSW_NEIGHBOURS = 32
HNSW_BUILD_WIDTH = 100  # efConstruction


@dataclass(frozen=True, slots=True)
class Effort:
    """The search knobs: how hard a search tries.

    `width` is how many lists are looked into (nprobe), or how many candidates are kept in the graph (efSearch);
    `filtered_width` the same under a filter; `extra` how many candidates beyond k are scored again.
    """

    width: int
    filtered_width: int
    extra: int


def lists(count: int, sample: int) -> int:
    """How many lists suit `count` vectors, trained with `sample` of them: about four times the square root."""
    return max(1, min(2 ** round(math.log2(4 * math.sqrt(max(count, 1)))), sample // 10))


def sample_size(count: int) -> int:
    """How many of `count` vectors to train with."""
    return min(count, SAMPLE_PER_LIST * lists(count, count))


def pq_parts(dim: int) -> int:
    """Into how many parts of one byte each a vector is cut: the largest divisor of `dim` that is small enough."""
    return max(parts for parts in range(1, max(dim // _PQ_DIMENSIONS, 1) + 1) if dim % parts == 0)


def candidates(count: int) -> tuple[str, ...]:
    """The kinds `auto` tries on `count` vectors, in this order, until one finds enough. The last one is exact."""
    if count < FLAT_ROWS:
        return ("flat",)
    if count < _SQ8_ROWS:
        return ("ivf", "flat")
    if count < _PQ_ROWS:
        return ("ivf-sq8", "ivf", "flat")
    return ("ivf-pq", "ivf-sq8", "ivf", "flat")
