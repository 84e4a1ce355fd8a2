"""Two rankings to one: what sounds like the query, and what is called like it.

Reciprocal rank fusion (Cormack, Clarke & Büttcher, SIGIR 2009): each ranking gives a thing 1 / (k + rank), from rank 1,
and the sums order them. Only ranks count: a cosine and a BM25 are not on one scale. What a ranking holds to be equal
shares a rank: ten files with the one word of the query in their names are no better or worse than each other, and then
the sound decides.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from audiosearch.query.moments import Moment
    from audiosearch.store.fulltext import TextMatch

K = TypeVar("K", bound=Hashable)
Words = Literal["auto", "any", "off"]
RANK_OFFSET = 60  # k of the paper, which found that it hardly matters
SOUND = "sound"


@dataclass(frozen=True, slots=True)
class Fused(Generic[K]):
    """A thing and what the rankings make of it; ranks from 1, None where it is not in a ranking."""

    key: K
    score: float
    vector_rank: int | None
    text_rank: int | None


def fuse(
    vector_ranked: Sequence[K],
    text_ranked: Sequence[K],
    *,
    text_scores: Sequence[float] | None = None,
    k: int = RANK_OFFSET,
) -> list[Fused[K]]:
    """Both rankings, best first, as one. `text_scores` belong to `text_ranked`; equal neighbours share a rank.

    A key that is in a ranking twice counts where it comes first. Ties: as the vectors rank them, then as the text does.
    """
    by_sound = _ranks(vector_ranked, None)
    by_text = _ranks(text_ranked, text_scores)
    fused = [
        Fused(key, _share(by_sound.get(key), k) + _share(by_text.get(key), k), by_sound.get(key), by_text.get(key))
        for key in dict.fromkeys((*vector_ranked, *text_ranked))
    ]
    last = len(fused) + 1
    return sorted(fused, key=lambda each: (-each.score, each.vector_rank or last, each.text_rank or last))


def _share(rank: int | None, k: int) -> float:
    return 0.0 if rank is None else 1.0 / (k + rank)


def _ranks(ranked: Sequence[K], scores: Sequence[float] | None) -> dict[K, int]:
    """Rank of each key: how many there are before it and what is equal to it, plus one."""
    ranks: dict[K, int] = {}
    rank, before = 1, None
    for at, key in enumerate(ranked):
        score = None if scores is None else scores[at]
        if key in ranks:
            continue
        if score is None or score != before:
            rank, before = len(ranks) + 1, score
        ranks[key] = rank
    return ranks


def trusted(words: Words, matches: Iterable[TextMatch]) -> list[TextMatch]:
    """Those matches that may change the ranking: with `auto` files that have *all* words of the query, with `any` all
    of them, with `off` none."""
    return [match for match in matches if words == "any" or (words == "auto" and match.is_complete)]


def best_matches(matches: Iterable[TextMatch]) -> dict[int, TextMatch]:
    """Of each recording the file that fits best, best recording first."""
    best: dict[int, TextMatch] = {}
    for match in matches:
        best.setdefault(match.recording_id, match)
    return best


def unheard(moments: Iterable[Moment], matches: Mapping[int, TextMatch]) -> list[int]:
    """Recordings that only the text found: their best moments have to be looked for among their own chunks."""
    heard = {moment.peak.recording_id for moment in moments}
    return [recording_id for recording_id in matches if recording_id not in heard]


def fuse_moments(
    moments: Sequence[Moment], matches: Mapping[int, TextMatch], *, unheard: Collection[int] = ()
) -> list[tuple[Moment, tuple[str, ...]]]:
    """Moments, best sound first, in the order of both rankings, each with why it is there: `sound`, `name: dog bark`.

    `matches` are of recordings, best first; each speaks for the best moment of its recording alone, so that one
    recording with the right name does not fill the answer. `unheard` are recordings that only the text found.
    """
    best: dict[int, int] = {}
    for at, moment in enumerate(moments):
        best.setdefault(moment.peak.recording_id, at)
    spoken_for = {best[recording_id]: match for recording_id, match in matches.items() if recording_id in best}
    fused = fuse(range(len(moments)), list(spoken_for), text_scores=levels(spoken_for.values()))
    why = {at: match.matched for at, match in spoken_for.items()}
    heard = [() if moment.peak.recording_id in unheard else (SOUND,) for moment in moments]
    return [(moments[each.key], heard[each.key] + why.get(each.key, ())) for each in fused]


def levels(matches: Iterable[TextMatch]) -> list[float]:
    """A number for each match, the same for those that fit equally well."""
    known: dict[tuple[bool, float], float] = {}
    return [known.setdefault((match.is_complete, match.score), -float(len(known))) for match in matches]
