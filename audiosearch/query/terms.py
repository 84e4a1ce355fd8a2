"""The terms of a query to what it aims at: what each says or sounds like, embedded.

    "rain on a roof" + 2*ref.wav@12.5-18 - "music"   ->   E(rain) + 2 E(ref), and E(music) to leave out

A text is encoded as a plain document: under an instruction it is the answer to it. A sound is encoded under the
instruction, like the sounds that it is compared with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from audiosearch.errors import AudioSearchError, UsageError
from audiosearch.query.aim import Aim
from audiosearch.query.grammar import HitRef, Sound, Text
from audiosearch.query.request import Query
from audiosearch.types import Samples

if TYPE_CHECKING:
    from audiosearch.embed.base import AudioTextEmbedder
    from audiosearch.store.records import StoredChunk
    from audiosearch.store.store import Store

ReadSpan = Callable[[str, float, "float | None"], Samples]  # at the model's rate


@dataclass(frozen=True, slots=True)
class Referred:
    """The place that an earlier hit names. `paths` are the files that hold it, `stored` its vector from the shards."""

    paths: tuple[str, ...]
    start_seconds: float
    end_seconds: float | None
    stored: Callable[[], NDArray[np.float32] | None]


@dataclass(frozen=True, slots=True)
class Part:
    """A term as the model takes it: words, samples, both (one joint input), or a `vector` that is known already."""

    weight: float
    words: str | None = None
    samples: Samples | None = None
    vector: NDArray[np.float32] | None = None


def read_parts(
    query: Query,
    embedder: AudioTextEmbedder,
    read_span: ReadSpan,
    refer: Callable[[HitRef], Referred],
    notes: list[str],
) -> list[Part]:
    """The query's terms with their sound, at most as long as the model takes; what was cut, or could not be read, is
    said in `notes`. Raises MediaError (of an example) and UsageError."""
    if query.audio is not None:
        samples = _sound(query.audio, query.start_seconds, query.end_seconds, embedder, read_span, notes)
        return [Part(1.0, query.words, samples)]
    assert query.expression is not None
    parts = []
    for term in query.expression.terms:
        if isinstance(term, Text):
            parts.append(Part(term.weight, term.words))
        elif isinstance(term, Sound):
            path = os.path.expanduser(term.path)  # noqa: PTH111 - a Path would normalise the name
            samples = _sound(path, term.start_seconds, term.end_seconds, embedder, read_span, notes)
            parts.append(Part(term.weight, samples=samples))
        else:
            parts.append(_referred(term, refer(term), embedder, read_span, notes, query.instruction is None))
    return parts


def aim_of(parts: Sequence[Part], embedder: AudioTextEmbedder, instruction: str | None = None) -> Aim:
    """What `parts` aim at, their sound taken under `instruction`.

    Raises UsageError if they cancel each other out.
    """
    rows = _rows(parts, embedder, instruction)
    return Aim.of(rows, np.array([part.weight for part in parts], np.float64))


def stored_vector(
    store: Store, space_id: int, packet_hash: bytes, start_seconds: float, end_seconds: float | None
) -> NDArray[np.float32] | None:
    """The vector [dim] of the chunk that fits a span best, by what they share of what both cover; None if none does."""
    end = np.inf if end_seconds is None else end_seconds

    def fit(chunk: StoredChunk) -> float:
        shared = min(end, chunk.end_seconds) - max(start_seconds, chunk.start_seconds)
        return shared / (max(min(end, 1e9), chunk.end_seconds) - min(start_seconds, chunk.start_seconds))

    chunks = store.chunks_of(space_id, packet_hash)
    best = max(chunks, key=fit, default=None)
    if best is None or fit(best) <= 0:
        return None
    return store.vectors(space_id, np.array([best.vector_id], np.int64))[0]


def _rows(parts: Sequence[Part], embedder: AudioTextEmbedder, instruction: str | None) -> NDArray[np.float32]:
    """A unit row [n, dim] for each part; texts, and sounds, in one batch each."""
    rows = np.empty((len(parts), embedder.dim), np.float32)
    texts = [i for i, part in enumerate(parts) if part.samples is None and part.vector is None]
    sounds = [i for i, part in enumerate(parts) if part.samples is not None and part.words is None]
    joint = [i for i, part in enumerate(parts) if part.samples is not None and part.words is not None]
    for i, part in enumerate(parts):
        if part.vector is not None:
            rows[i] = part.vector
    if texts:
        rows[texts] = embedder.embed_text([parts[i].words or "" for i in texts], task="document")
    if sounds:
        heard = [parts[i].samples for i in sounds]
        task = {"task": "document"} if instruction is None else {"instruction": instruction, "task": "query"}
        rows[sounds] = embedder.embed_audio(heard, **task)  # type: ignore[arg-type]
    if joint:
        pairs = [(parts[i].samples, parts[i].words) for i in joint]
        rows[joint] = embedder.embed_audio_text(pairs, instruction=instruction, task="query")  # type: ignore[arg-type]
    return rows


def _sound(
    path: str,
    start_seconds: float | None,
    end_seconds: float | None,
    embedder: AudioTextEmbedder,
    read_span: ReadSpan,
    notes: list[str],
) -> Samples:
    start, longest = start_seconds or 0.0, embedder.max_seconds
    # One second more than needed tells whether there is more, without decoding hours of it.
    end = min(end_seconds if end_seconds is not None else np.inf, start + longest + 1.0)
    samples = read_span(path, start, end)
    limit = int(longest * embedder.sample_rate)
    if samples.size > limit:
        samples = samples[:limit]
        notes.append(f"the example is longer than the model takes: searched by its first {longest:g} s")
    return samples


def _referred(
    term: HitRef,
    found: Referred,
    embedder: AudioTextEmbedder,
    read_span: ReadSpan,
    notes: list[str],
    stored_will_do: bool,
) -> Part:
    """The sound of an earlier hit; where no file of it can be read, its stored vector, which knows no instruction."""
    for path in found.paths:
        try:
            samples = _sound(path, found.start_seconds, found.end_seconds, embedder, read_span, notes)
        except (AudioSearchError, OSError):
            continue
        return Part(term.weight, samples=samples)
    vector = found.stored() if stored_will_do else None
    if vector is None:
        where = Path(found.paths[0]) if found.paths else "its file"
        raise UsageError(f"hit:{term.hit_id}: {where} cannot be read: mount or restore it, or leave the hit out")
    notes.append(f"hit:{term.hit_id} could not be read: searched by its stored vector")
    return Part(term.weight, vector=vector)
