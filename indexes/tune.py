"""The least effort for a wanted recall, measured on the vectors themselves.

    queries of each kind ──exact scan of every row──> the true best k, of all and under a filter
                         ──index, effort after effort──> recall; the kind of query with the worst decides

Recall@k is the share of the true best k that is found; an equal score counts as the same row. What nobody gives
queries for is judged by two stand-ins made of stored vectors: `near` ones, a cosine of 0.9 from a stored vector, as
sound asked by sound, and `far` ones, a cosine of 0.4, as text lies from the sound it describes.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from audiosearch.indexes.approximate import ApproximateIndex
from audiosearch.indexes.base import EXACT_ROWS, EXACT_SHARE, Ids, Rows
from audiosearch.indexes.spec import Effort

WANTED = 0.99
# Other queries will be asked than those measured. So the recall has to be above it by so many standard errors, and the
# width found is then raised; without that the other half of the queries had 0.989 (docs/log.md).
_SURE, _HEADROOM = 2.0, 1.5
K = 10
QUERIES = 200  # of each kind
NEAR, FAR = 0.9, 0.4
_TIE = 1e-6
_WORTH = 0.25  # who has to look at more of the index than this is not faster than a scan


@dataclass(frozen=True, slots=True)
class Measured:
    """What a measurement found: the effort, its recall@10 by kind of query, `filtered ...` under a filter where the
    index and not a scan answers, and milliseconds for one query."""

    effort: Effort
    recall: dict[str, float]
    milliseconds: float
    reached: bool  # the wanted recall, at an effort that is worth it


class Judge:
    """The true best k of every query, gathered while all rows pass by once."""

    def __init__(self, queries: dict[str, Rows], total: int, k: int = K) -> None:
        self.k = k
        self.queries = {name: np.ascontiguousarray(rows, np.float32) for name, rows in queries.items() if len(rows)}
        self._all = np.concatenate([*self.queries.values()])
        # The smallest filter that is not scanned exactly is the hardest for an index.
        share = 1.1 * max(EXACT_SHARE, EXACT_ROWS / max(total, 1))
        self.share = share if share < 1 else None
        self._best = np.full((len(self._all), k), -np.inf, np.float32)
        self._best_filtered = self._best.copy()
        self._passed: list[Ids] = []

    def see(self, ids: Ids, rows: Rows) -> None:
        """Take in rows [n, dim] of the space; every row once."""
        scores = self._all @ rows.T
        self._best = _top(self._best, scores, self.k)
        if self.share is not None:
            through = _drawn(ids, self.share)
            self._best_filtered = _top(self._best_filtered, scores[:, through], self.k)
            self._passed.append(ids[through])

    def recall(self, index: ApproximateIndex, *, filtered: bool = False) -> dict[str, float]:
        """Recall@k of the index by kind of query."""
        return {name: float(np.mean(each)) for name, each in self.recalls(index, filtered=filtered).items()}

    def recalls(self, index: ApproximateIndex, *, filtered: bool = False) -> dict[str, NDArray[np.float64]]:
        """Recall@k of each query by itself, by kind of query."""
        allowed = np.concatenate(self._passed) if filtered else None
        true, first, found = self._best_filtered if filtered else self._best, 0, {}
        for name, queries in self.queries.items():
            worst = true[first : first + len(queries), -1:]
            worst = np.where(np.isfinite(worst), worst, 2.0)  # fewer than k rows: nothing to miss
            scores = index.search(queries, self.k, allowed)[0]
            hits = np.count_nonzero(scores >= worst - _TIE, axis=1)
            found[name] = np.where(worst[:, 0] > 1.5, self.k, np.minimum(hits, self.k)) / self.k
            first += len(queries)
        return found


def stand_ins(sample: Rows, seed: int = 0) -> dict[str, Rows]:
    """Queries `near` and `far` from rows of a sample [n, dim], at most QUERIES of each."""
    random = np.random.default_rng(seed)
    chosen = sample[random.permutation(len(sample))[:QUERIES]]
    noise = random.standard_normal(chosen.shape).astype(np.float32)
    noise -= np.sum(noise * chosen, axis=1, keepdims=True) * chosen
    noise /= np.maximum(np.linalg.norm(noise, axis=1, keepdims=True), 1e-9)
    return {
        name: (cosine * chosen + np.sqrt(1 - cosine**2) * noise).astype(np.float32)
        for name, cosine in (("near", NEAR), ("far", FAR))
    }


def tune(index: ApproximateIndex, judge: Judge, wanted: float = WANTED) -> Measured:
    """Give the index the least effort at which every kind of query surely reaches `wanted`, and say what was
    measured."""
    tried = [_tuned(index, judge, extra, wanted) for extra in _extras(index)]
    measured = min(tried, key=lambda each: (not each.reached, each.milliseconds))
    index.effort = measured.effort
    return measured


def _extras(index: ApproximateIndex) -> list[int]:
    return [extra for number, extra in enumerate(index.extras) if number == 0 or extra < len(index)]


def _tuned(index: ApproximateIndex, judge: Judge, extra: int, wanted: float) -> Measured:
    """The least widths with so many candidates beyond k."""
    index.effort = Effort(1, 1, extra)
    recalls = _widen(index, judge, wanted, 1, filtered=False)
    if judge.share is None:
        index.effort = replace(index.effort, filtered_width=index.effort.width)
    else:
        filtered = _widen(index, judge, wanted, index.effort.width, filtered=True)
        recalls |= {f"filtered {name}": each for name, each in filtered.items()}
    means = {name: float(np.mean(each)) for name, each in recalls.items()}
    return Measured(index.effort, means, _milliseconds(index, judge), _reach(recalls, wanted))


def _widen(
    index: ApproximateIndex, judge: Judge, wanted: float, width: int, *, filtered: bool
) -> dict[str, NDArray[np.float64]]:
    """Set the least width from `width` on, roughly, that is enough, at most what is worth it; the recalls there."""

    def at(width: int) -> dict[str, NDArray[np.float64]]:
        index.effort = replace(index.effort, **{"filtered_width" if filtered else "width": width})
        return judge.recalls(index, filtered=filtered)

    below, enough, limit = 0, width, max(index.worthwhile(_WORTH), width)
    recalls = at(enough)
    while not _reach(recalls, wanted) and enough < limit:
        below, enough = enough, min(2 * enough, limit)
        recalls = at(enough)
    for _ in range(2):  # between the last that was too little and the first that was enough
        middle = (below + enough) // 2
        if not below or middle in (below, enough) or not _reach(recalls, wanted):
            break
        if _reach(found := at(middle), wanted):
            enough, recalls = middle, found
        else:
            below = middle
    raised = min(math.ceil(_HEADROOM * enough), index.widest)
    return at(raised) if raised != enough else recalls


def _reach(recalls: dict[str, NDArray[np.float64]], wanted: float) -> bool:
    """Whether every kind of query is surely above `wanted`."""
    return all(np.mean(each) - _SURE * np.std(each) / np.sqrt(len(each)) >= wanted for each in recalls.values())


def _milliseconds(index: ApproximateIndex, judge: Judge) -> float:
    """The median time of one query."""
    taken = []
    for queries in judge.queries.values():
        for row in range(min(len(queries), 20)):
            started = time.perf_counter()
            index.search(queries[row : row + 1], judge.k)
            taken.append(time.perf_counter() - started)
    return 1000 * float(np.median(taken))


def _drawn(ids: Ids, share: float) -> NDArray[np.bool_]:
    """A part of the ids that has nothing to do with what they are of, the same each time."""
    mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed >> np.uint64(40)).astype(np.float64) < share * 2.0**24


def _top(best: Rows, scores: Rows, k: int) -> Rows:
    """The best k of both, descending."""
    both = np.concatenate([best, scores], axis=1)
    return -np.sort(-np.partition(both, both.shape[1] - k, axis=1)[:, -k:], axis=1)
