"""Vectors for `search.py`: as many rows as wanted, made of real ones, and real queries.

A row is an interpolation of two real vectors of alm2vec-mini plus noise: `unit(a u + (1 - a) v + s n)`, `a` uniform in
[0, 1], `n` a random unit vector, s = 0.3. So rows lie where sound lies, near and far from one another, and no two are
alike. Queries are real and of other clips: the vectors of `valid` clips, and those of their captions.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
NOISE = 0.3
_BLOCK = 16_384


@dataclass(frozen=True)
class Seeds:
    """Real vectors: of the clips that rows are made of, and of queries, by kind."""

    clips: Rows
    queries: dict[str, Rows]


def data_folder(given: str | None) -> Path:
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    return Path(given or os.environ.get("AUDIOSEARCH_DATA") or beside)


def seeds(data: Path, clips: int, queries: int, cache: Path | None) -> Seeds:
    """Embed `clips` train clips, and sound and captions of `queries` valid ones; or read them from `cache`."""
    if cache is not None and cache.is_file():
        with np.load(cache) as kept:
            return Seeds(kept["clips"], {"text": kept["text"], "audio": kept["audio"]})
    from audiosearch.audio import read_span
    from audiosearch.config import DEFAULT_MODEL
    from audiosearch.embed import load_embedder

    with (data / "manifest.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    random = np.random.default_rng(0)
    chosen = {}
    for split, wanted in (("train", clips), ("valid", queries)):
        of_split = [row for row in rows if row["split"] == split]
        chosen[split] = [of_split[i] for i in random.permutation(len(of_split))[:wanted]]
    embedder = load_embedder(DEFAULT_MODEL, device="cpu")

    def sound(split: str) -> Rows:
        paths = (str(data / row["file"]) for row in chosen[split])
        return embedder.embed_audio(read_span(path, 0.0, 10.0, sample_rate=embedder.sample_rate) for path in paths)

    made = Seeds(
        sound("train"),
        {
            "text": embedder.embed_text([row["caption"] for row in chosen["valid"]]),
            "audio": sound("valid"),
        },
    )
    if cache is not None:
        np.savez(cache, clips=made.clips, **made.queries)
    return made


def rows(clips: Rows, count: int, seed: int = 1) -> Iterator[Rows]:
    """`count` unit rows, in blocks; the same for the same seed."""
    random = np.random.default_rng(seed)
    for first in range(0, count, _BLOCK):
        n = min(_BLOCK, count - first)
        one, other = clips[random.integers(len(clips), size=(2, n))]
        share = random.random((n, 1), dtype=np.float32)
        noise = unit(random.standard_normal((n, clips.shape[1]), np.float32))
        yield unit(share * one + (1 - share) * other + NOISE * noise)


def lift(dim: int, wider: int, seed: int = 2) -> Rows:
    """A fixed matrix [dim, wider] with orthonormal rows: it changes no inner product."""
    random = np.random.default_rng(seed)
    columns, _ = np.linalg.qr(random.standard_normal((wider, dim)))
    return np.ascontiguousarray(columns.T, np.float32)


def unit(vectors: Rows) -> Rows:
    """Rows of length one."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
