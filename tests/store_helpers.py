"""Small batches for tests of the store and of what stands on it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from audiosearch.store.records import ChunkRecord, CommitBatch, FileRecord, FinishedRecording, RecordingInfo
from audiosearch.types import MediaInfo, SpaceSpec, Vectors

DIM = 24
MEDIA = MediaInfo("/data/x.wav", "wav", "pcm_s16le", 48_000, 2, None)


def key(*parts: object) -> bytes:
    """16 bytes that stand for `parts`, as a hash would."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def spec(fingerprint: str = "space-one", dim: int = DIM, **changes: object) -> SpaceSpec:
    """A space."""
    values = {
        "fingerprint": fingerprint,
        "model_name": "toy",
        "model_fingerprint": "toy-1",
        "document_instruction": "",
        "is_aspect": False,
        "dim": dim,
        "window_seconds": 10.0,
        "hop_seconds": 5.0,
        "resampler": "swr",
        "channel_policy": "downmix",
        "front_end": "1",
        "licence": "Apache-2.0",
    }
    return SpaceSpec(**{**values, **changes})  # type: ignore[arg-type]


def unit(seed: int, n: int, dim: int = DIM) -> Vectors:
    """n random unit vectors."""
    vectors = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def chunks(name: str, vectors: Sequence[np.ndarray | None], first: int = 0) -> list[ChunkRecord]:
    """Chunks of the recording `name`, a hop apart; the vector at a position belongs to a sound of its own."""
    return [
        ChunkRecord(key(name), 5.0 * i, 5.0 * i + 10.0, key("sound", name, i), silent=False, vector=vector)
        for i, vector in enumerate(vectors, first)
    ]


def whole(root_id: int, name: str, vectors: Sequence[np.ndarray | None], path: str | None = None) -> CommitBatch:
    """A batch with one recording, complete, in one file."""
    return CommitBatch(
        recordings=[RecordingInfo(key(name), MEDIA)],
        chunks=chunks(name, vectors),
        finished=[FinishedRecording(key(name), 5.0 * len(vectors) + 5.0)],
        files=[file_record(root_id, path or f"{name}.wav", name)],
    )


def file_record(root_id: int, path: str, name: str, size: int = 1000) -> FileRecord:
    """The file at `path` holds the recording `name`."""
    return FileRecord(root_id, path.encode(), size, 1_700_000_000_123_456_789, 42, key(name))
