"""The walk of a query in one place: terms -> aim -> candidates -> [re-embedding] -> moments -> hits.

What an instruction means is decided here. Stored document vectors do not know it, so it must reach the audio side:

    an aspect space with that instruction exists   search that space; its audio was embedded under the instruction
    else                                           the best candidates of the default space are re-embedded under it

Either way text is the *answer* to the instruction and encoded as a plain document, while an example sound, alone or
with text, is encoded under the instruction, like the sounds it is compared with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from audiosearch.errors import LibraryEmpty, LibraryError
from audiosearch.query import fusion
from audiosearch.query.aim import SAMPLE, Aim
from audiosearch.query.candidates import DEPTH, find_candidates
from audiosearch.query.choice import NOTHING_INGESTED, choose_space, left_out_of_aspect
from audiosearch.query.confidence import TEXT_QUERY
from audiosearch.query.feedback import adjusted
from audiosearch.query.hits import make_hits, shown
from audiosearch.query.moments import Moment, ScoredChunk, by_file, find_moments
from audiosearch.query.refine import refine
from audiosearch.query.request import Query
from audiosearch.query.rerank import rerank
from audiosearch.query.terms import Part, ReadSpan, Referred, aim_of, read_parts
from audiosearch.types import Answer, Candidate, Explanation, Hit, ModelDescription, Samples, Space, Vectors

if TYPE_CHECKING:
    from audiosearch.embed.base import AudioTextEmbedder
    from audiosearch.index_cache import LiveIndex
    from audiosearch.query.allowed import Allowed
    from audiosearch.query.confidence import Background, Judged, Kind
    from audiosearch.query.grammar import HitRef
    from audiosearch.query.remembered import Shown
    from audiosearch.store.fulltext import TextMatch
    from audiosearch.store.store import Store

LEAST_REFINED = 10  # moments: what is heard again may come first, however few are asked for
LEARNING_BACKGROUND = 200  # vectors of the library that stand for what is not looked for


@dataclass(frozen=True, slots=True)
class Sources:
    """What the engine draws on; the library assembles it. `index` and `embedder` open on first use and are kept."""

    store: Store
    index: Callable[[Space], LiveIndex]
    embedder: Callable[[Space], AudioTextEmbedder]
    describe: Callable[[str], ModelDescription]
    read_span: Callable[..., Samples]  # as `audiosearch.audio.read_span`
    allowed: Allowed
    refer: Callable[[HitRef, Space], Referred]
    remember: Callable[[list[Shown]], object]
    background: Callable[[Space, AudioTextEmbedder, Kind, bool], Background | None]
    model: str | None  # the model asked for, None: the default space's
    rerank: int
    rerank_seconds: float
    cancelled: Callable[[], bool] = lambda: False


@dataclass
class _Asked:
    """A query on its way, and what is to be told about it."""

    query: Query
    sources: Sources
    space: Space
    embedder: AudioTextEmbedder
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    allowed: int | None = None
    reread: int = 0
    not_reread: int = 0
    aim: Aim | None = None  # that the scores are by
    heard: Vectors | None = None  # what was heard again under the instruction
    named: dict[int, TextMatch] = field(default_factory=dict)  # files called like the query, by recording
    only_named: list[int] = field(default_factory=list)  # recordings that are not here for their sound
    _moments_of: frozenset[tuple[int, float, bool]] = frozenset()
    _moments: list[Moment] = field(default_factory=list)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - started

    @property
    def read_span(self) -> ReadSpan:
        """Reads spans as the model hears them: at its rate."""
        return partial(self.sources.read_span, sample_rate=self.embedder.sample_rate)

    @property
    def names_count(self) -> bool:
        """Whether files may rise by their names. Where sounds are judged under an instruction, no name can be."""
        heard_again = self.query.instruction is not None and not self.space.spec.is_aspect
        return self.query.names != "off" and bool(self.query.wanted_words) and not heard_again

    def moments(self, chunks: Collection[ScoredChunk]) -> list[Moment]:
        """The moments that the user counts, best first. Asked for the same chunks once more, those found before."""
        of = frozenset((chunk.vector_id, chunk.score, chunk.judged) for chunk in chunks)
        if of != self._moments_of:
            moments = find_moments(chunks, merge_gap_seconds=self.query.merge_gap_seconds)
            self._moments_of, self._moments = of, by_file(moments) if self.query.by == "file" else moments
        return self._moments

    def enough(self, chunks: Collection[ScoredChunk]) -> bool:
        return len(self.moments(chunks)) >= self.query.k


def answer(query: Query, sources: Sources) -> Answer:
    """The `query.k` best moments, best first.

    Raises LibraryEmpty, SpaceMismatch (the model is no longer the one that made the vectors), ModelError, MediaError
    (the example sound) and UsageError.
    """
    space = choose_space(sources.store, sources.describe, sources.model, query.instruction)
    started = time.perf_counter()
    asked = _Asked(query, sources, space, sources.embedder(space))
    asked.seconds["load the model"] = time.perf_counter() - started
    if space.spec.is_aspect:
        asked.notes += left_out_of_aspect(sources.store, space)
    with asked.timed("read the examples"):
        parts = read_parts(query, asked.embedder, asked.read_span, partial(_refer, asked), asked.notes)
    if query.instruction is None or space.spec.is_aspect:
        chunks = stored = _candidates(asked, _aim(asked, parts, query.instruction))
        route = "aspect-space" if query.instruction is not None else None
    else:
        # The default space knows nothing of the instruction: it only proposes, by the same query without it.
        stored = _candidates(asked, _aim(asked, parts, None))
        if query.learn is not None:
            asked.notes.append("labels decide which candidates are heard again, not how they are judged then")
        chunks, route = _heard_again(asked, parts, stored), "re-embedded"
    moments, reasons = _with_reasons(asked, asked.moments(chunks))
    if query.refine:
        moments, reasons = _with_reasons(asked, _refined(asked, moments))
    moments = moments[: query.k]
    with asked.timed("judge the scores"):
        judged = _judged(asked, moments)
    with asked.timed("describe the hits"):
        hits = make_hits(sources.store, moments, reasons, judged, instructed=route == "re-embedded")
        if query.min_confidence is not None:
            hits, moments = _confident(asked, hits, moments)
        sources.remember(shown(moments, query.words or ""))
    return Answer(
        str(query),
        hits,
        space.spec.fingerprint,
        instruction_route=route,
        reread=asked.reread,
        not_reread=asked.not_reread,
        notes=tuple(asked.notes),
        filter=None if query.conditions is None else str(query.conditions),
        explanation=_explanation(asked, stored, chunks, hits) if query.explain else None,
    )


def _refer(asked: _Asked, term: HitRef) -> Referred:
    return asked.sources.refer(term, asked.space)


def _aim(asked: _Asked, parts: Sequence[Part], instruction: str | None) -> Aim:
    with asked.timed("embed the query"):
        asked.aim = aim_of(parts, asked.embedder, instruction)
    return asked.aim


def _candidates(asked: _Asked, aim: Aim) -> list[ScoredChunk]:
    """The chunks nearest to the query in its space, of those that the filter leaves."""
    query, sources, space = asked.query, asked.sources, asked.space
    store, index = sources.store, sources.index(space)
    state, allowed, places = sources.allowed.state(), None, None
    with asked.timed("search"), store.snapshot():  # index and rows of one state, however much is committed meanwhile
        if all(each.id != space.id for each in store.spaces()):
            raise LibraryError(f"{store.directory}: the space was dropped while it was searched; ask again")
        index.refresh()
        if query.conditions is not None:
            with asked.timed("filter"):
                allowed = sources.allowed.vector_ids(query.conditions, space.id, state)
            places = partial(sources.allowed.places, query.conditions)
            asked.allowed = len(allowed)
        if query.learn is not None:
            aim = replace(aim, wanted=_learned(asked, aim.wanted))
        if aim.leaves_out:
            aim = aim.among(store.some_vectors(space.id, SAMPLE))
        asked.aim = aim
        find = partial(find_candidates, store, index, aim, places=places)
        found = find(enough=asked.enough, at_least=max(DEPTH, query.k, _limit(asked)), allowed=allowed)
        if asked.names_count:
            with asked.timed("names"):
                found = _with_named(asked, found, find)
        if not found and not store.status().recordings:
            raise LibraryEmpty(f"{store.directory}: {NOTHING_INGESTED}")
    if allowed is not None and not len(allowed):
        asked.notes.append(f"no sound in the library fits the filter {query.conditions}")
    return found


def _learned(asked: _Asked, vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vector moved by what was labelled about the tag."""
    tag, store, space = asked.query.learn or "", asked.sources.store, asked.space
    said = store.judged_vectors(space.id, tag)
    if not len(said.yes) + len(said.no):
        asked.notes.append(f"nothing in this space was labelled about {tag!r}: `audiosearch label --list` shows labels")
        return vector
    return adjusted(vector, said.yes, said.no, store.some_vectors(space.id, LEARNING_BACKGROUND))


def _with_named(asked: _Asked, found: list[ScoredChunk], find: Callable[..., list[ScoredChunk]]) -> list[ScoredChunk]:
    """The candidates, and the best chunks of recordings that are only called like the query."""
    query, allowed = asked.query, asked.sources.allowed
    matches = fusion.trusted(query.names, allowed.named(query.wanted_words, query.conditions))
    asked.named = fusion.best_matches(matches)
    heard = {chunk.recording_id for chunk in found}
    asked.only_named = [recording_id for recording_id in asked.named if recording_id not in heard]
    if not asked.only_named:
        return found
    ids = allowed.of_recordings(asked.only_named, asked.space.id)
    if not len(ids):
        return found
    missing = set(asked.only_named)
    more = find(enough=lambda chunks: missing <= {chunk.recording_id for chunk in chunks}, at_least=DEPTH, allowed=ids)
    return sorted([*found, *more], key=lambda chunk: chunk.rank_key)


def _with_reasons(asked: _Asked, moments: Sequence[Moment]) -> tuple[list[Moment], dict[str, tuple[str, ...]]]:
    """The moments in the order of sound and name, and why each is among them, by its id."""
    if not asked.named:
        return list(moments), {}
    fused = fusion.fuse_moments(moments, asked.named, unheard=asked.only_named)
    reasons = {moment.id: why for moment, why in fused}
    return [_named_first(moment, asked.named.get(moment.peak.recording_id)) for moment, _ in fused], reasons


def _named_first(moment: Moment, match: TextMatch | None) -> Moment:
    """The moment in that one of its files which is called like the query."""
    paths = moment.peak.paths
    if match is None or match.place not in paths or match.place == paths[0]:
        return moment
    others = tuple(path for path in paths if path != match.place)
    return replace(moment, peak=replace(moment.peak, paths=(match.place, *others)))


def _limit(asked: _Asked) -> int:
    """How many candidates may be heard again under an instruction."""
    wanted = asked.sources.rerank if asked.query.rerank is None else asked.query.rerank
    return max(wanted, asked.query.k) if wanted else 0


def _heard_again(asked: _Asked, parts: Sequence[Part], proposed: list[ScoredChunk]) -> list[ScoredChunk]:
    """The candidates re-ranked by what they sound like under the instruction, as far as limit and time go."""
    query, limit, instruction = asked.query, _limit(asked), asked.query.instruction
    seconds = asked.sources.rerank_seconds if query.budget_seconds is None else query.budget_seconds
    if asked.enough(proposed[:limit]):  # else weaker ones fill the answer up, never judged
        proposed = proposed[:limit]
    target = _aim(asked, parts, instruction).vector
    with asked.timed("hear again"):
        done = rerank(
            proposed,
            target,
            lambda sounds: asked.embedder.embed_audio(sounds, instruction=instruction, task="query"),
            asked.read_span,
            limit=limit,
            budget_seconds=seconds,
            cancelled=asked.sources.cancelled,
        )
    asked.heard = done.rows
    asked.reread, asked.not_reread = done.reread, done.unreadable + done.left_out
    if asked.not_reread:
        reasons = [f"{done.unreadable} could not be read"] if done.unreadable else []
        if done.left_out:
            reasons.append(f"{done.left_out} were beyond {seconds:g} s or {limit} candidates")
        asked.notes.append(
            f"{asked.not_reread} of {len(done.chunks)} candidates were not re-read under the instruction "
            f"({', '.join(reasons)}): they keep their stored score and rank after the others"
        )
    return list(done.chunks)


def _refined(asked: _Asked, moments: Sequence[Moment]) -> list[Moment]:
    """The moments with the ends that their sound has, as far as time goes."""
    query, instruction = asked.query, asked.query.instruction
    seconds = asked.sources.rerank_seconds if query.budget_seconds is None else query.budget_seconds
    assert asked.aim is not None
    task = {"task": "document"} if instruction is None else {"instruction": instruction, "task": "query"}
    with asked.timed("refine"):
        done = refine(
            moments,
            lambda sounds: asked.embedder.embed_audio(sounds, **task),  # type: ignore[arg-type]
            asked.read_span,
            asked.aim.scores,
            sample_rate=asked.embedder.sample_rate,
            top=max(query.k, LEAST_REFINED),
            budget_seconds=seconds,
            merge_gap_seconds=query.merge_gap_seconds,
            cancelled=asked.sources.cancelled,
        )
    if done.unreadable or done.left_out:
        asked.notes.append(
            f"{done.unreadable + done.left_out} moments keep the ends of their chunks: "
            f"{done.unreadable} could not be read, {done.left_out} were beyond {seconds:g} s"
        )
    return by_file(done.moments) if query.by == "file" else list(done.moments)


def _judged(asked: _Asked, moments: Sequence[Moment]) -> Judged | None:
    """What the moments' scores are worth, where that can be told."""
    query = asked.query
    needed = query.min_confidence is not None
    background = asked.sources.background(asked.space, asked.embedder, query.kind, needed) if moments else None
    if background is None or asked.aim is None:
        return None
    kind = query.kind
    if asked.heard is not None:
        # Impostors of other kinds would have to be heard again too.
        if kind != TEXT_QUERY or asked.aim.leaves_out or not len(asked.heard):
            return None
        background = background.over(asked.heard)
    return background.judge(asked.aim.wanted, [moment.peak.score for moment in moments], kind)


def _confident(asked: _Asked, hits: tuple[Hit, ...], moments: Sequence[Moment]) -> tuple[tuple[Hit, ...], list[Moment]]:
    """Those that reach the confidence asked for; those of which it cannot be told stay, and that is said."""
    least = asked.query.min_confidence or 0.0
    named = [hit.matched != (fusion.SOUND,) for hit in hits]  # they need not sound like it
    kept = [i for i, hit in enumerate(hits) if named[i] or hit.confidence is None or hit.confidence >= least]
    unknown = sum(hits[i].confidence is None for i in kept)
    if unknown:
        asked.notes.append(f"of {unknown} hits it cannot be told what their scores are worth: they are not left out")
    elif hits and not kept:
        best = max(hit.confidence or 0.0 for hit in hits)
        asked.notes.append(f"the best hit has a confidence of {best:.2f}, less than {least:g}")
    return tuple(hits[i] for i in kept), [moments[i] for i in kept]


def _explanation(
    asked: _Asked, stored: Sequence[ScoredChunk], chunks: Sequence[ScoredChunk], hits: Sequence[Hit]
) -> Explanation:
    """What was considered, in the order of the final scores."""
    before = {each.vector_id: each.score for each in stored}
    index = asked.sources.index(asked.space)
    reread = asked.query.instruction is not None and not asked.space.spec.is_aspect
    return Explanation(
        model=asked.space.spec.model_name,
        index=index.factory,
        vectors=len(index),
        allowed=asked.allowed,
        candidates=tuple(
            Candidate(
                path=chunk.path,
                start_seconds=chunk.start_seconds,
                end_seconds=chunk.end_seconds,
                stored_score=before[chunk.vector_id],
                reread_score=chunk.score if reread and chunk.judged else None,
                hit=next((hit.id for hit in hits if _is_part(chunk, hit)), None),
            )
            for chunk in chunks
        ),
        seconds={step: round(seconds, 6) for step, seconds in asked.seconds.items()},
    )


def _is_part(chunk: ScoredChunk, hit: Hit) -> bool:
    return chunk.recording_id == hit.recording_id and any(
        (chunk.start_seconds, chunk.end_seconds) == (start, end) for start, end, _ in hit.curve
    )
