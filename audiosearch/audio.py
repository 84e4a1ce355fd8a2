"""Any media file, or a span of it, to mono float32 at the model's rate, 16 kHz unless told (PyAV; `demux` opens it).

    file ──> demuxed packets ──> frames at the file's rate ──┐
                 │                                           v
            packet_hash            float ──> mean of channels ──> resample ──> blocks

`av` is imported on use: the constants below are part of what names a space and must cost nothing to read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from audiosearch.demux import Media, chain, opened
from audiosearch.errors import UsageError
from audiosearch.types import MediaInfo, Samples

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

SAMPLE_RATE = 16000  # Hz, where no other rate is asked for
CHANNEL_POLICY = "downmix"  # the mean of all channels
# libswresample's own defaults, spelled out so that a new default cannot move the vectors of an old library.
_SWR = "filter_size=32:phase_shift=10:cutoff=0.97:filter_type=kaiser:kaiser_beta=9:linear_interp=1:exact_rational=1"
RESAMPLER = "swr kaiser 9, 32 taps, 1024 phases, cutoff 0.97"

# Below this it is not worth seeking; a decoder and the resampler are warm well within the pre-roll.
_SEEK_FROM_SECONDS, _PREROLL_SECONDS = 20.0, 1.0


def probe(path: str) -> MediaInfo:
    """What the container says of the file's best audio stream, without decoding. Raises MediaError."""
    with opened(path) as media:
        return media.info()


def decode(
    path: str,
    *,
    sample_rate: int = SAMPLE_RATE,
    block_seconds: float = 2.0,
    warnings: list[str] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Iterator[Samples]:
    """Blocks of mono float32 at `sample_rate` in [-1, 1], shape (n,), front to back; memory is bounded by the block.

    A file that is cut off or damaged yields everything up to the cut and adds a line to `warnings`. Samples that are
    not finite become 0, with a warning. `progress` is called with every read and packet; what it raises ends it.
    Raises MediaError if nothing comes out, or the file cannot be read to its end.
    """
    notes = warnings if warnings is not None else []
    with opened(path, progress) as media:
        yield from _within_range(_blocks(media.frames(notes), sample_rate, round(block_seconds * sample_rate)), notes)
        media.check_length(notes)


def read_span(
    path: str, start_seconds: float = 0.0, end_seconds: float | None = None, *, sample_rate: int = SAMPLE_RATE
) -> Samples:
    """The samples [start, end) of what `decode` yields at `sample_rate`, shape (n,), shorter if the recording ends.

    Seeks where time stamps are exact, else decodes from the front. A lossy decoder that was not run from the front may
    differ by its own noise (AAC) or by rounding. Raises MediaError, and UsageError for a span that is empty or begins
    after the end.
    """
    if not 0 <= start_seconds < (float("inf") if end_seconds is None else end_seconds):
        raise UsageError(f"{path}: a span must start at 0 s or later and end after it starts")
    first = round(start_seconds * sample_rate)
    last = None if end_seconds is None else round(end_seconds * sample_rate)
    kept: list[Samples] = []
    with opened(path) as media:
        found = media.seek(start_seconds - _PREROLL_SECONDS) if start_seconds >= _SEEK_FROM_SECONDS else None
        skip = at = 0
        if found is not None:
            position, rate = found
            # The resampler's output falls on the grid of `decode` only from every rate/gcd-th sample on.
            skip = -position % (rate // gcd(rate, sample_rate))
            at = (position + skip) * sample_rate // rate
        for block in _within_range(_blocks(media.frames([]), sample_rate, sample_rate, skip), []):
            kept.append(block[max(0, first - at) : None if last is None else max(0, last - at)])
            at += len(block)
            if last is not None and at >= last:
                break
    span = np.concatenate(kept)
    if not len(span):
        raise UsageError(f"{path}: nothing at {start_seconds:g} s, the recording ends at {at / sample_rate:.2f} s")
    return span


def packet_hash(path: str, progress: Callable[[], None] = lambda: None) -> bytes:
    """What `read_packets` says of the file's packets. 16 bytes. Raises MediaError."""
    return read_packets(path, progress)[0]


def read_packets(
    path: str, progress: Callable[[], None] = lambda: None, inspect: Callable[[Media], None] = lambda media: None
) -> tuple[bytes, MediaInfo]:
    """BLAKE2b-128 of the audio stream's packets and of what its decoder is told, and what `probe` says.

    Nothing is decoded. Names and tags are no part of the hash: a renamed or retagged file is the same recording.
    `progress` is called with every read and packet, `inspect` once the file is open. Raises MediaError.
    """
    with opened(path, progress) as media:
        inspect(media)
        digest = hashlib.blake2b(digest_size=16)
        info = media.info()
        setup = _without_comments(info.codec, media.stream.codec_context.extradata or b"")
        digest.update(f"{info.codec} {info.sample_rate} {info.channels} {len(setup)} ".encode() + setup)
        size = 0
        for packet in media.packets([]):
            digest.update(packet)
            size += packet.size
        if not size:
            media.fail("empty", "it has a header and no sound")
        return digest.digest(), info


def _blocks(frames: Iterator[AudioFrame], sample_rate: int, block_samples: int, skip: int = 0) -> Iterator[Samples]:
    """Frames of any rate, format and layout to mono blocks at `sample_rate`; a change midway starts a new graph."""
    kind: tuple[object, ...] | None = None
    graph: _Graph | None = None
    for frame in frames:
        layout = frame.layout
        now = (frame.sample_rate, frame.format.name, layout.name, layout.nb_channels)
        if graph is None or now != kind:
            if graph is not None:
                yield from graph.finish()
            graph, kind = _Graph(frame, sample_rate, block_samples, skip), now
            skip = 0
        yield from graph.push(frame)
    if graph is not None:
        yield from graph.finish()


class _Graph:
    """float ──> mean of channels ──> resample ──> large frames, in FFmpeg's filters."""

    def __init__(self, frame: AudioFrame, sample_rate: int, block_samples: int, skip: int) -> None:
        n = frame.layout.nb_channels
        # Spelled out: FFmpeg's own matrix makes the sum of two equal channels 3 dB louder than either.
        mean = "pan=mono|c0=" + "+".join(f"{1 / n:.9g}*c{i}" for i in range(n))
        self._graph, self._source, self._sink = chain(
            frame,
            "aformat=sample_fmts=fltp",
            *([f"atrim=start_sample={skip}"] if skip else []),
            *([mean] if n > 1 else []),
            f"aresample={sample_rate}:{_SWR}",
            f"asetnsamples=n={block_samples}:p=0",
        )
        self._queued, self._pull_at = 0, frame.sample_rate * block_samples // sample_rate

    def push(self, frame: AudioFrame) -> Iterator[Samples]:
        """Take a frame; blocks come out about once a block's length."""
        self._source.push(frame)
        self._queued += frame.samples
        if self._queued >= self._pull_at:
            self._queued = 0
            yield from self._pull()

    def finish(self) -> Iterator[Samples]:
        """What is left."""
        self._source.push(None)
        yield from self._pull()

    def _pull(self) -> Iterator[Samples]:
        while True:
            try:
                frame = self._sink.pull()
            except (BlockingIOError, EOFError):
                return
            yield frame.to_ndarray()[0]


def _within_range(blocks: Iterator[Samples], notes: list[str]) -> Iterator[Samples]:
    """The blocks clipped to [-1, 1], with NaN and infinity as silence and one note about them.

    Clipped, because a chunk's hash is taken of 16-bit samples: what hashes the same must sound the same.
    """
    replaced = 0
    for block in blocks:
        finite = np.isfinite(block)
        if not finite.all():
            replaced += int(len(block) - np.count_nonzero(finite))
            block = np.where(finite, block, np.float32(0))
        yield np.clip(block, -1.0, 1.0)
    if replaced:
        notes.append(f"{replaced} samples were not finite numbers and are read as silence")


def _without_comments(codec: str, extradata: bytes) -> bytes:
    """Vorbis keeps its tags amid its decoder set-up: the first and the third header are what decoding needs."""
    if codec != "vorbis":
        return extradata
    first, third = extradata.find(b"\x01vorbis"), extradata.rfind(b"\x05vorbis")
    return extradata[first : first + 30] + extradata[third:] if 0 <= first < third else extradata
