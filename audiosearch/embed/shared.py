"""One model for several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from audiosearch.embed.base import AudioTextEmbedder, ComputesBeside
    from audiosearch.types import Samples, Task, Vectors


def one_at_a_time(embedder: AudioTextEmbedder) -> AudioTextEmbedder:
    """`embedder` as something that any number of threads may call: one call runs, the others wait.

    Models keep caches and a batch size that they learn, and one call uses every core or the whole device anyway. A
    query beside an ingest waits for the part of a batch that is in the model.
    """
    return cast("AudioTextEmbedder", _OneAtATime(embedder))


class _OneAtATime:
    def __init__(self, embedder: AudioTextEmbedder) -> None:
        self._embedder = embedder
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._embedder, name)

    def embed_audio(
        self, clips: Iterable[Samples], *, instruction: str | None = None, task: Task = "document"
    ) -> Vectors:
        with self._lock:
            return self._embedder.embed_audio(clips, instruction=instruction, task=task)

    @property
    def computes_beside(self) -> bool:
        return getattr(self._embedder, "computes_beside", False)

    def begin_audio(
        self, clips: Iterable[Samples], *, instruction: str | None = None, task: Task = "document"
    ) -> Callable[[], Vectors]:
        with self._lock:
            return cast("ComputesBeside", self._embedder).begin_audio(clips, instruction=instruction, task=task)

    def embed_text(self, texts: Iterable[str], *, instruction: str | None = None, task: Task = "document") -> Vectors:
        with self._lock:
            return self._embedder.embed_text(texts, instruction=instruction, task=task)

    def embed_audio_text(
        self, pairs: Iterable[tuple[Samples, str]], *, instruction: str | None = None, task: Task = "query"
    ) -> Vectors:
        with self._lock:
            return self._embedder.embed_audio_text(pairs, instruction=instruction, task=task)
