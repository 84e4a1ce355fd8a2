"""Scored chunks to moments: what a user hears as one place in a recording is one hit.

    score   0.62          0.60
            |-----A-----|-----C-----|               A, B, C: 10 s windows, 5 s apart
                  |-----B-----|                     whole chunks of short clips lie over all of them
                      0.66

Strongest chunk first, each recording by itself:

1. The strongest chunk not yet spoken for is a *peak* and starts a moment.
2. The moment grows over chunks that touch or overlap it, or are up to the merge gap away, and score at least
   `MERGE_SHARE` of the peak, so a sound that lasts is one moment. A chunk much longer than the peak is not merged in
   (it would undo the peak's precision), nor one that would make the moment cover more than half of an earlier, better
   one.
3. Chunks that overlap the moment by more than half of the shorter of the two say nothing new and are dropped. A chunk
   that overlaps it by less may be a moment of its own.

The moment's score is its peak's. The outcome depends on the scores only, never on the order of arrival.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from audiosearch.errors import UsageError

MERGE_SHARE = 0.9
LONGER = 1.5  # a chunk this many times longer than the peak is another kind of chunk: a whole clip over its windows
TOUCH_SECONDS = 1e-3  # spans that came from the same samples may differ by a rounding
_DECIMALS = 6  # scores closer than this are ties: below it lies the noise of different BLAS kernels


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """A candidate. `judged`: the score was computed under the query's instruction (or none was given).

    `paths` are the files that hold the recording, as (root, path below it), sorted.
    """

    vector_id: int
    recording_id: int
    packet_hash: bytes
    start_seconds: float
    end_seconds: float
    score: float
    paths: tuple[tuple[str, str], ...]
    judged: bool = True

    @property
    def path(self) -> str:
        """The first of its files, absolute."""
        return str(Path(*self.paths[0]))

    @property
    def rank_key(self) -> tuple[object, ...]:
        """Sorts the best first: judged before not, then by score; ties by path and time, which no rebuild moves."""
        return (not self.judged, -round(self.score, _DECIMALS), self.paths, self.start_seconds, self.end_seconds)


@dataclass(frozen=True, slots=True)
class Moment:
    """Neighbouring chunks of one recording as one span; `curve` holds their (start, end, score), in time order."""

    peak: ScoredChunk
    start_seconds: float
    end_seconds: float
    curve: tuple[tuple[float, float, float], ...] = field(repr=False)
    refined_score: float | None = None  # of the span alone, where it was listened to again (query/refine.py)

    @property
    def score(self) -> float:
        """The refined one if there is one, else the peak's."""
        return self.peak.score if self.refined_score is None else self.refined_score

    @property
    def id(self) -> str:
        """12 hex digits of recording content and span: the same after re-indexing, renaming or in another library.

        Of the span as it is now: a refined moment has another id than the chunks it was found by.
        """
        span = f"{self.start_seconds:.3f}-{self.end_seconds:.3f}"
        return hashlib.blake2b(self.peak.packet_hash + span.encode(), digest_size=6).hexdigest()


def find_moments(chunks: Iterable[ScoredChunk], *, merge_gap_seconds: float = 0.0) -> list[Moment]:
    """The moments in `chunks`, best first; no two of one recording overlap by more than half of the shorter.

    Strong chunks up to `merge_gap_seconds` apart are one moment, whatever lies between. Raises UsageError if it is
    negative or no number.
    """
    if not merge_gap_seconds >= 0:
        raise UsageError(f"the merge gap must be 0 s or more, not {merge_gap_seconds:g}")
    of_recording: dict[int, list[ScoredChunk]] = {}
    for chunk in sorted(chunks, key=lambda chunk: chunk.rank_key):
        of_recording.setdefault(chunk.recording_id, []).append(chunk)
    gap = merge_gap_seconds + TOUCH_SECONDS
    moments = [moment for ranked in of_recording.values() for moment in _moments_of_one(ranked, gap)]
    return sorted(moments, key=lambda moment: moment.peak.rank_key)


def by_file(moments: Iterable[Moment]) -> list[Moment]:
    """The best moment of each recording: the first of those in `moments`, in their order."""
    best: dict[int, Moment] = {}
    for moment in moments:
        best.setdefault(moment.peak.recording_id, moment)
    return list(best.values())


def without_overlaps(moments: Iterable[Moment]) -> list[Moment]:
    """`moments` in their order, without those that cover, or are covered by, an earlier one of their recording by more
    than half: for spans that have changed since `find_moments`."""
    kept: list[Moment] = []
    of_recording: dict[int, list[Moment]] = {}
    for moment in moments:
        earlier = of_recording.setdefault(moment.peak.recording_id, [])
        start, end = moment.start_seconds, moment.end_seconds
        if not any(covers(start, end, other.start_seconds, other.end_seconds) for other in earlier):
            earlier.append(moment)
            kept.append(moment)
    return kept


def _moments_of_one(ranked: list[ScoredChunk], gap_seconds: float) -> list[Moment]:
    """Moments of one recording from its chunks, best chunk first."""
    found: list[Moment] = []
    while ranked:
        moment = _grown(ranked[0], ranked[1:], found, gap_seconds)
        found.append(moment)
        start, end = moment.start_seconds, moment.end_seconds
        ranked = [chunk for chunk in ranked[1:] if not covers(start, end, chunk.start_seconds, chunk.end_seconds)]
    return found


def _grown(peak: ScoredChunk, others: list[ScoredChunk], found: list[Moment], gap_seconds: float) -> Moment:
    """The moment around `peak`: first forward in time, then backward, as far as strong chunks reach with no more than
    `gap_seconds` between them."""
    longest = LONGER * (peak.end_seconds - peak.start_seconds)
    strong = [
        chunk
        for chunk in others
        if chunk.judged == peak.judged
        and chunk.score >= peak.score * MERGE_SHARE  # with a negative peak nothing merges
        and chunk.end_seconds - chunk.start_seconds <= longest
    ]
    strong.sort(key=lambda chunk: (chunk.start_seconds, chunk.end_seconds))
    after = [chunk for chunk in strong if chunk.start_seconds >= peak.start_seconds]
    before = [chunk for chunk in reversed(strong) if chunk.start_seconds < peak.start_seconds]
    start, end, members = peak.start_seconds, peak.end_seconds, [peak]
    for chunk in after + before:
        if chunk.start_seconds > end + gap_seconds or chunk.end_seconds < start - gap_seconds:
            continue
        new_start, new_end = min(start, chunk.start_seconds), max(end, chunk.end_seconds)
        if not any(covers(new_start, new_end, other.start_seconds, other.end_seconds) for other in found):
            start, end = new_start, new_end
            members.append(chunk)
    curve = sorted((chunk.start_seconds, chunk.end_seconds, chunk.score) for chunk in members)
    return Moment(peak, start, end, tuple(curve))


def covers(start: float, end: float, other_start: float, other_end: float) -> bool:
    """Whether two spans share more than half of the shorter one."""
    shared = min(end, other_end) - max(start, other_start)
    return shared > 0.5 * min(end - start, other_end - other_start) + TOUCH_SECONDS
