"""Durations to half-open spans, and a stream of blocks to chunks. Pure arithmetic: numpy only.

A recording of up to 30 s is one whole chunk; above the window (10 s) it also has windows, and a longer recording has
only windows. For 12 s:

    0         5         10   12 s
    |---------|---------|----|
    [-------------------)         first window
              [--------------)    the tail: 2 s that no window held yet, so a shorter last window
    [------------------------)    whole

A tail of under one second is not worth a window of its own: the last full window is extended to the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from audiosearch.audio import RESAMPLER, SAMPLE_RATE
from audiosearch.errors import UsageError
from audiosearch.types import Chunk, Samples

WINDOW_SECONDS = 10.0
HOP_SECONDS = 5.0
WHOLE_SECONDS = 30.0
MIN_TAIL_SECONDS = 1.0
# Named in every chunk hash: a change of decoding or quantisation must not find the vectors of another sound.
FRONT_END_VERSION = f"1 {RESAMPLER}"


def plan(
    n_samples: int,
    *,
    window_seconds: float = WINDOW_SECONDS,
    hop_seconds: float = HOP_SECONDS,
    sample_rate: int = SAMPLE_RATE,
) -> list[tuple[int, int]]:
    """Sample spans `[start, end)` at `sample_rate` of a recording of `n_samples`, sorted.

    Together they cover every sample. Raises UsageError for a window or hop that cannot be meant.
    """
    window, hop, min_tail = _geometry(window_seconds, hop_seconds, sample_rate)
    if n_samples <= 0:
        return []
    spans = {(0, n_samples)} if n_samples <= max(_whole(sample_rate), window) else set()
    if n_samples > window:
        n_full = (n_samples - window) // hop + 1
        last_start = (n_full - 1) * hop
        tail = n_samples - (last_start + window)
        starts = range(0, last_start, hop)
        spans.update((start, start + window) for start in starts)
        if 0 < tail < min_tail:
            spans.add((last_start, n_samples))
        else:
            spans.add((last_start, last_start + window))
            if tail:
                spans.add((last_start + hop, n_samples))
    return sorted(spans)


def stream_chunks(
    blocks: Iterable[Samples],
    *,
    window_seconds: float = WINDOW_SECONDS,
    hop_seconds: float = HOP_SECONDS,
    sample_rate: int = SAMPLE_RATE,
) -> Iterator[Chunk]:
    """The chunks of `plan`, in its order, with their samples, from blocks of any sizes at `sample_rate`.

    Holds at most max(30 s, window + 1 s) of sound and one block, however long the recording.
    Raises UsageError for a window or hop that cannot be meant.
    """
    window, hop, min_tail = _geometry(window_seconds, hop_seconds, sample_rate)
    whole = _whole(sample_rate)
    # A full window is final once what follows it is either another full window or a tail of its own.
    settled = window + min(min_tail, hop)
    held: list[Samples] = []
    held_pcm: list[np.ndarray] = []  # the same, as it is hashed: windows overlap, and each sample is rounded once
    first = seen = start = 0  # samples: where `held` begins, what has come, where the next window begins
    for block in blocks:
        held.append(block)
        held_pcm.append(_quantise(block))
        seen += len(block)
        if seen <= whole or seen < start + settled:
            continue
        sound, pcm = np.concatenate(held), np.concatenate(held_pcm)
        while seen >= start + settled:
            yield _chunk(sound, pcm, first, (start, start + window), sample_rate)
            start += hop
        held, held_pcm, first = [sound[start - first :].copy()], [pcm[start - first :].copy()], start
    sound = np.concatenate(held) if held else np.zeros(0, np.float32)
    pcm = np.concatenate(held_pcm) if held else np.zeros(0, "<i2")
    for span in plan(seen, window_seconds=window_seconds, hop_seconds=hop_seconds, sample_rate=sample_rate):
        if span[0] >= start:
            yield _chunk(sound, pcm, first, span, sample_rate)


def rate_suffix(sample_rate: int) -> str:
    """What the front-end version gets for sound at another rate than 16 kHz, which came first and has none."""
    return "" if sample_rate == SAMPLE_RATE else f" {sample_rate} Hz"


def chunk_hash(samples: Samples, sample_rate: int = SAMPLE_RATE) -> bytes:
    """BLAKE2b-128 of the samples as 16-bit integers, with front-end version and rate. 16 bytes.

    Sixteen bits, so that a FLAC twin of a WAV, or a float copy of it, is the same sound.
    """
    return _hash(_quantise(samples), sample_rate)


def _geometry(window_seconds: float, hop_seconds: float, sample_rate: int) -> tuple[int, int, int]:
    """Window, hop and shortest tail in samples."""
    if not (window_seconds >= 0.1 and 0 < hop_seconds <= window_seconds < float("inf")):
        raise UsageError(
            f"window {window_seconds:g} s with hop {hop_seconds:g} s: the window must be at least 0.1 s, and the hop "
            "above 0 and at most the window, or sound between windows would be lost"
        )
    window, hop = round(window_seconds * sample_rate), max(1, round(hop_seconds * sample_rate))
    # Half a window, where windows are shorter than two seconds: a tail must not outweigh the window it joins.
    return window, hop, min(round(MIN_TAIL_SECONDS * sample_rate), window // 2)


def _whole(sample_rate: int) -> int:
    return round(WHOLE_SECONDS * sample_rate)


def _chunk(sound: Samples, pcm: np.ndarray, first: int, span: tuple[int, int], sample_rate: int) -> Chunk:
    start, end = span
    here = slice(start - first, end - first)
    # A copy: a view would keep the whole buffer alive while the chunk travels.
    samples, hashed = sound[here].astype(np.float32), pcm[here]
    seconds = start / sample_rate, end / sample_rate
    return Chunk(*seconds, _hash(hashed, sample_rate), not hashed.any(), samples)


def _quantise(samples: Samples) -> np.ndarray:
    scaled = samples * 32768.0
    np.rint(scaled, out=scaled)
    return np.clip(scaled, -32768, 32767, out=scaled).astype("<i2")


def _hash(pcm: np.ndarray, sample_rate: int) -> bytes:
    # A BLAKE2b key holds 64 bytes: the rate must not be what is cut off.
    suffix = rate_suffix(sample_rate).encode()
    key = FRONT_END_VERSION.encode()[: 64 - len(suffix)] + suffix
    return hashlib.blake2b(np.ascontiguousarray(pcm).data, digest_size=16, key=key).digest()
