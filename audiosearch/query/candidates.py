"""What a query aims at to scored chunks: the index finds ids, the store says what they are.

The index returns chunks, the user counts moments, and many chunks may make one moment (or be the same sound twice in
one recording). So the number of candidates grows until enough moments come out or nothing is left.

Where something is to be left out, the index proposes the chunks nearest to what is wanted, at least `REACH` of them,
and those that are best without it are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from audiosearch.query.aim import Aim
from audiosearch.query.moments import ScoredChunk

if TYPE_CHECKING:
    from audiosearch.index_cache import LiveIndex
    from audiosearch.store.store import Store

# Never fewer: neighbours of a good chunk should be at hand for merging whatever k is, and small k costs the same.
DEPTH = 200
GROWTH = 4
REACH = 2_000

Places = Callable[[Collection[int]], set[tuple[str, str]]]  # the files of some recordings that may be shown


def find_candidates(
    store: Store,
    index: LiveIndex,
    aim: Aim,
    *,
    enough: Callable[[Collection[ScoredChunk]], bool],
    at_least: int = DEPTH,
    allowed: NDArray[np.int64] | None = None,
    places: Places | None = None,
) -> list[ScoredChunk]:
    """The chunks that `aim` scores highest, best first: at least `at_least` of them and until they are `enough`, or all
    there are. With `allowed` only chunks with those vector ids, with `places` only in those files."""
    depth = at_least
    known: dict[int, ScoredChunk] = {}
    while True:
        found = _nearest(store, index, aim, depth, allowed)
        stored = store.resolve([id_ for id_ in found if id_ not in known])
        shown = places({chunk.recording_id for chunk in stored}) if places else None
        for chunk in stored:
            known[chunk.vector_id] = ScoredChunk(
                vector_id=chunk.vector_id,
                recording_id=chunk.recording_id,
                packet_hash=chunk.packet_hash,
                start_seconds=chunk.start_seconds,
                end_seconds=chunk.end_seconds,
                score=found[chunk.vector_id],
                paths=tuple(sorted(path for path in chunk.paths if shown is None or path in shown)),
            )
        exhausted = len(found) < depth
        if exhausted or enough(known.values()):
            return sorted(known.values(), key=lambda chunk: chunk.rank_key)
        depth *= GROWTH


def _nearest(
    store: Store, index: LiveIndex, aim: Aim, depth: int, allowed: NDArray[np.int64] | None
) -> dict[int, float]:
    """The scores of at most `depth` vectors by id, best first."""
    wanted = np.ascontiguousarray(aim.wanted, np.float32)[None]
    (scores,), (ids,) = index.search(wanted, max(depth, REACH) if aim.leaves_out else depth, allowed)
    scores, ids = scores[ids >= 0], ids[ids >= 0]
    if aim.leaves_out and len(ids):
        scores = aim.scores(store.vectors(index.space.id, ids))
        order = np.lexsort((ids, -scores))[:depth]
        scores, ids = scores[order], ids[order]
    return dict(zip(ids.tolist(), scores.tolist(), strict=True))
