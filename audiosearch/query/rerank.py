"""Re-embed candidates under an instruction, so that it reaches the stored side too (design: What an instruction means).

    candidates, best first -> read the span again -> E(audio | instruction) -> score against the query -> re-ranked

Only the spans needed are read, best candidate first, in batches that double while the time left allows, so the budget
holds on a laptop and a GPU alike. A candidate that could not be read (its file is offline or broken) or that time did
not reach is not judged: it keeps its stored score. The two kinds of score are not on one scale, therefore the rule of
merging is by kind: **judged before not judged, each kind by its own score**. As candidates are taken best first,
those that time did not reach were the weaker ones anyway.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiosearch.errors import AudioSearchError
from audiosearch.query.moments import ScoredChunk
from audiosearch.query.terms import ReadSpan
from audiosearch.types import Samples, Vectors

FIRST_BATCH = 2
LARGEST_BATCH = 32


@dataclass(frozen=True, slots=True)
class Reranked:
    """Every candidate given, re-ranked; how many were judged anew, and of the others how many could not be read and how
    many the limit or the time left out. `rows` [reread, dim] are what the judged ones sound like."""

    chunks: tuple[ScoredChunk, ...]
    reread: int
    unreadable: int
    left_out: int
    rows: Vectors


def rerank(
    chunks: Sequence[ScoredChunk],
    target: NDArray[np.float32],
    embed: Callable[[list[Samples]], Vectors],
    read_span: ReadSpan,
    *,
    limit: int,
    budget_seconds: float,
    clock: Callable[[], float] = time.monotonic,
    cancelled: Callable[[], bool] = lambda: False,
) -> Reranked:
    """The first `limit` of `chunks` (best first) scored by `embed(span) @ target`, as far as `budget_seconds` go.

    `target` [dim] is a unit vector; `embed` maps n spans to unit rows [n, dim] under the instruction. At least one
    batch is tried unless the budget is 0; none begins once it is `cancelled`. Errors of `embed` pass through; a span
    that cannot be read is counted.
    """
    tried = chunks[:limit]
    judged: list[ScoredChunk] = []
    kept: list[ScoredChunk] = []
    heard = [np.empty((0, len(target)), np.float32)]
    unreadable = 0
    started = clock()
    position, size = 0, FIRST_BATCH if budget_seconds > 0 else 0
    while position < len(tried) and size > 0 and not cancelled():
        batch_started = clock()
        batch = tried[position : position + size]
        position += len(batch)
        readable: list[ScoredChunk] = []
        sounds: list[Samples] = []
        for chunk in batch:
            samples = _read_any(chunk, read_span)
            if samples is None:
                kept.append(chunk)
                unreadable += 1
            else:
                readable.append(chunk)
                sounds.append(samples)
        if sounds:
            heard.append(np.asarray(embed(sounds)))
            scores = heard[-1] @ target
            judged += [replace(chunk, score=float(score)) for chunk, score in zip(readable, scores, strict=True)]
        now = clock()
        seconds_each = max((now - batch_started) / len(batch), 1e-6)
        affordable = int((budget_seconds - (now - started)) / seconds_each)
        size = min(2 * size, LARGEST_BATCH, affordable)
    kept += chunks[position:]
    ranked = [replace(chunk, judged=True) for chunk in judged] + [replace(chunk, judged=False) for chunk in kept]
    ranked.sort(key=lambda chunk: chunk.rank_key)
    return Reranked(tuple(ranked), len(judged), unreadable, len(kept) - unreadable, np.concatenate(heard))


def _read_any(chunk: ScoredChunk, read_span: ReadSpan) -> Samples | None:
    """The chunk's sound from the first of its files that can be read, or None."""
    for root, path in chunk.paths:
        try:
            samples = read_span(str(Path(root, path)), chunk.start_seconds, chunk.end_seconds)
        except (AudioSearchError, OSError):  # gone, broken, or shorter than it was
            continue
        if samples.size:
            return samples
    return None
