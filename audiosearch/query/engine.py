"""The walk of a query in one place: terms -> vector -> candidates -> [re-embedding] -> moments -> hits.

What an instruction means is decided here. Stored document vectors do not know it, so it must reach the audio side:

    an aspect space with that instruction exists   search that space; its audio was embedded under the instruction
    else                                           the best candidates of the default space are re-embedded under it

Either way text is the *answer* to the instruction and encoded as a plain document, while an example sound, alone or
with text, is encoded under the instruction, like the sounds it is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from audiosearch.errors import LibraryEmpty, LibraryError, SpaceMismatch, UsageError
from audiosearch.query.candidates import DEPTH, find_candidates
from audiosearch.query.moments import Moment, ScoredChunk, find_moments
from audiosearch.query.rerank import ReadSpan, rerank
from audiosearch.types import Answer, Hit, Metadata, ModelDescription, Samples, Space, SpaceSpec

if TYPE_CHECKING:
    from audiosearch.embed.base import AudioTextEmbedder
    from audiosearch.index_cache import LiveIndex
    from audiosearch.store.store import Store

NOTHING_INGESTED = "nothing has been ingested yet: run `audiosearch ingest PATH`"


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for: text, an example sound (a file or a span of it), or both as one joint input."""

    text: str | None = None
    audio: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    instruction: str | None = None
    k: int = 10

    def __post_init__(self) -> None:
        if not (self.text and self.text.strip()) and self.audio is None:
            raise UsageError("nothing to search for: give a text, an example sound (--audio FILE), or both")
        if self.text is not None and not self.text.strip():
            raise UsageError("the text of the query is empty: leave it out to search by the example sound alone")
        if self.instruction is not None and not self.instruction.strip():
            raise UsageError("the instruction is empty: leave it out to search without one")
        if self.k < 1:
            raise UsageError(f"the number of hits must be at least 1, not {self.k}")
        if self.audio is None and (self.start_seconds is not None or self.end_seconds is not None):
            raise UsageError("a start or end needs an example sound to apply to (--audio FILE)")
        start, end = self.start_seconds or 0.0, self.end_seconds
        if start < 0 or (end is not None and not end > start):
            raise UsageError(f"the example's span {start:g}-{end if end is not None else ''} s is empty or negative")

    def __str__(self) -> str:
        parts = [self.text] if self.text else []
        if self.audio is not None:
            span = ""
            if self.start_seconds is not None or self.end_seconds is not None:
                end = "" if self.end_seconds is None else f"{self.end_seconds:g}"
                span = f"@{self.start_seconds or 0:g}-{end}"
            parts.append(self.audio + span)
        return " + ".join(parts)


@dataclass(frozen=True, slots=True)
class Sources:
    """What the engine draws on; the library assembles it. `index` and `embedder` open on first use and are kept."""

    store: Store
    index: Callable[[Space], LiveIndex]
    embedder: Callable[[Space], AudioTextEmbedder]
    describe: Callable[[str], ModelDescription]
    read_span: Callable[..., Samples]  # as `audiosearch.audio.read_span`
    model: str | None  # the model asked for, None: the default space's
    rerank: int
    rerank_seconds: float


def answer(query: Query, sources: Sources) -> Answer:
    """The `query.k` best moments, best first.

    Raises LibraryEmpty, SpaceMismatch (the model is no longer the one that made the vectors), ModelError, MediaError
    (the example sound) and UsageError.
    """
    notes: list[str] = []
    space = choose_space(sources, query.instruction)
    embedder = sources.embedder(space)
    read_span = _reader(sources, embedder)
    example = _read_example(query, embedder, read_span, notes)
    instruction = query.instruction
    if instruction is None or space.spec.is_aspect:
        if space.spec.is_aspect:
            notes += _left_out_of_aspect(sources.store, space)
        vector = _query_vector(query, example, embedder, instruction)
        chunks = _candidates(sources, space, vector, query.k)
        return _answered(query, sources.store, space, chunks, notes, route="aspect-space" if instruction else None)

    # The default space knows nothing of the instruction: it only proposes, by the same query without it.
    proposed = _candidates(sources, space, _query_vector(query, example, embedder, None), query.k)
    limit = max(sources.rerank, query.k) if sources.rerank else 0
    if len(find_moments(proposed[:limit])) >= query.k:  # else weaker ones fill the answer up, never judged
        proposed = proposed[:limit]
    done = rerank(
        proposed,
        _query_vector(query, example, embedder, instruction),
        lambda sounds: embedder.embed_audio(sounds, instruction=instruction, task="query"),
        read_span,
        limit=limit,
        budget_seconds=sources.rerank_seconds,
    )
    not_reread = done.unreadable + done.left_out
    if not_reread:
        reasons = [f"{done.unreadable} could not be read"] if done.unreadable else []
        if done.left_out:
            reasons.append(f"{done.left_out} were beyond {sources.rerank_seconds:g} s or {limit} candidates")
        notes.append(
            f"{not_reread} of {len(done.chunks)} candidates were not re-read under the instruction "
            f"({', '.join(reasons)}): they keep their stored score and rank after the others"
        )
    answered = _answered(query, sources.store, space, done.chunks, notes, route="re-embedded")
    return replace(answered, reread=done.reread, not_reread=not_reread)


def choose_space(sources: Sources, instruction: str | None) -> Space:
    """The space to search: the aspect of that instruction if there is one, else the default one, or that of the model
    asked for. Only a space that today's model and front end would make again can be compared with a query.

    Raises LibraryEmpty or SpaceMismatch.
    """
    spaces = sources.store.spaces()
    where = sources.store.directory
    if not spaces:
        raise LibraryEmpty(f"{where}: {NOTHING_INGESTED}")
    plain = [space for space in spaces if not space.spec.is_aspect]
    preferred = next((space for space in plain if space.is_default), (plain or spaces)[0])
    name = sources.model or preferred.spec.model_name
    description = sources.describe(name)
    current = [space for space in spaces if _is_current(space.spec, description)]
    aspects = [space for space in current if space.spec.is_aspect]
    if instruction is not None:
        for space in reversed(aspects):  # the newest, should there be several windows
            if space.spec.document_instruction == instruction:
                return space
    searchable = [space for space in current if not space.spec.is_aspect]
    if searchable:
        return preferred if preferred in searchable else searchable[-1]
    if aspects:
        known = ", ".join(repr(space.spec.document_instruction) for space in aspects)
        raise LibraryEmpty(
            f"{where}: only aspects were ingested: run `audiosearch ingest PATH` without --instruct, "
            f"or query with --instruct and one of {known}"
        )
    if any(space.spec.model_name == description.name for space in spaces):
        raise SpaceMismatch(
            f"{where}: the model {name} or the way sound is read has changed since this library was made, so its "
            "vectors cannot be compared: run `audiosearch ingest` on the same folders again"
        )
    known = ", ".join(sorted({space.spec.model_name for space in spaces}))
    raise SpaceMismatch(
        f"{where}: nothing was ingested with the model {name}, only with {known}: "
        f"run `audiosearch ingest --model {name} PATH`, or query with --model {spaces[0].spec.model_name}"
    )


def _is_current(spec: SpaceSpec, description: ModelDescription) -> bool:
    """Whether ingesting today with that model, instruction, window and hop would add to this very space."""
    from audiosearch.model.fingerprint import space_spec

    instruction = spec.document_instruction if spec.is_aspect else None
    again = space_spec(
        description, instruction=instruction, window_seconds=spec.window_seconds, hop_seconds=spec.hop_seconds
    )
    return again.fingerprint == spec.fingerprint


def _reader(sources: Sources, embedder: AudioTextEmbedder) -> ReadSpan:
    """Reads spans as the model hears them: at its rate."""
    return partial(sources.read_span, sample_rate=embedder.sample_rate)


def _read_example(query: Query, embedder: AudioTextEmbedder, read_span: ReadSpan, notes: list[str]) -> Samples | None:
    """The example's sound, at most as long as the model takes; says so in `notes` if it was longer."""
    if query.audio is None:
        return None
    start, longest = query.start_seconds or 0.0, embedder.max_seconds
    # One second more than needed tells whether there is more, without decoding hours of it.
    end = min(query.end_seconds if query.end_seconds is not None else np.inf, start + longest + 1.0)
    samples = read_span(query.audio, start, end)
    limit = int(longest * embedder.sample_rate)
    if samples.size > limit:
        samples = samples[:limit]
        notes.append(f"the example is longer than the model takes: searched by its first {longest:g} s")
    return samples


def _query_vector(
    query: Query, example: Samples | None, embedder: AudioTextEmbedder, instruction: str | None
) -> NDArray[np.float32]:
    """The unit vector [dim] of the query's terms, their sound taken under `instruction`."""
    if example is None:
        assert query.text is not None
        return embedder.embed_text([query.text], task="document")[0]
    if query.text is not None:
        return embedder.embed_audio_text([(example, query.text)], instruction=instruction, task="query")[0]
    if instruction is not None:
        return embedder.embed_audio([example], instruction=instruction, task="query")[0]
    return embedder.embed_audio([example], task="document")[0]


def _candidates(sources: Sources, space: Space, vector: NDArray[np.float32], k: int) -> list[ScoredChunk]:
    index = sources.index(space)
    with sources.store.snapshot():  # index and rows of one state, however much is committed meanwhile
        if all(each.id != space.id for each in sources.store.spaces()):
            raise LibraryError(f"{sources.store.directory}: the space was dropped while it was searched; ask again")
        index.refresh()
        found = find_candidates(sources.store, index, vector, moments=k, at_least=max(DEPTH, sources.rerank))
        if not found and not sources.store.status().recordings:
            raise LibraryEmpty(f"{sources.store.directory}: {NOTHING_INGESTED}")
    return found


def _left_out_of_aspect(store: Store, space: Space) -> list[str]:
    """A note if the aspect was made of a part of the library only: what is not in it cannot be found."""
    with store.snapshot():
        status = store.status()
        held = next(
            found.recordings for each, found in zip(store.spaces(), status.spaces, strict=True) if each == space
        )
    if held >= status.recordings:
        return []
    return [
        f"{status.recordings - held} of {status.recordings} recordings were not ingested under this instruction nor "
        "searched: run `audiosearch ingest --instruct` on the rest too"
    ]


def _answered(
    query: Query, store: Store, space: Space, chunks: Sequence[ScoredChunk], notes: list[str], *, route: str | None
) -> Answer:
    moments = find_moments(chunks)[: query.k]
    said = store.metadata({moment.peak.paths[0] for moment in moments})
    hits = tuple(_hit(moment, said.get(moment.peak.paths[0])) for moment in moments)
    return Answer(str(query), hits, space.spec.fingerprint, instruction_route=route, notes=tuple(notes))


def _hit(moment: Moment, metadata: Metadata | None) -> Hit:
    """The moment, with its file's metadata; of the markers, those that touch its span."""
    root, path = moment.peak.paths[0]
    if metadata is not None:
        within = (
            each
            for each in metadata.markers
            if each.start_seconds < moment.end_seconds
            and max(each.end_seconds or 0.0, each.start_seconds) >= moment.start_seconds
        )
        metadata = replace(metadata, markers=tuple(within))
    return Hit(
        id=moment.id,
        path=str(Path(root, path)),
        root=root,
        recording_id=moment.peak.recording_id,
        start_seconds=moment.start_seconds,
        end_seconds=moment.end_seconds,
        score=moment.score,
        metadata=metadata,
    )
