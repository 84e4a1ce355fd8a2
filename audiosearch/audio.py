"""Any media file, or a span of it, to 16 kHz mono float32. The only place that calls a decoder (PyAV).

    file ──> demuxed packets ──> frames at the file's rate ──┐
                 │                                           v
            packet_hash            float ──> mean of channels ──> resample ──> blocks

`av` is imported on use: the constants below are part of what names a space and must cost nothing to read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np

from audiosearch.errors import MediaError, UsageError
from audiosearch.types import MediaInfo, Samples

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

SAMPLE_RATE = 16000  # Hz
CHANNEL_POLICY = "downmix"  # the mean of all channels
# libswresample's own defaults, spelled out so that a new default cannot move the vectors of an old library.
_SWR = "filter_size=32:phase_shift=10:cutoff=0.97:filter_type=kaiser:kaiser_beta=9:linear_interp=1:exact_rational=1"
RESAMPLER = "swr kaiser 9, 32 taps, 1024 phases, cutoff 0.97"

# A decoder fed with anything but its own format fails on nearly every packet, yet may pass one by chance.
_TRIAL_PACKETS, _TRIAL_ERRORS = 8, 64
# Below this it is not worth seeking; a decoder and the resampler are warm well within the pre-roll.
_SEEK_FROM_SECONDS, _PREROLL_SECONDS = 20.0, 1.0
# Demuxers whose time stamps after a seek are exact to the sample.
_EXACT_SEEK = frozenset({"wav", "w64", "aiff", "flac", "caf", "mov,mp4,m4a,3gp,3g2,mj2"})
_MAGIC = (b"RIFF", b"RF64", b"FORM", b"fLaC", b"OggS", b"ID3", b"\x1aE\xdf\xa3", b"caff", b".snd", b"wvpk", b"MAC ")
# Text and pictures that FFmpeg opens as if they were films.
_NOT_FILMS = frozenset({"tty", "image2", "gif", "apng", "lrc", "bin", "xbin", "adf", "idf", "svg_pipe"})


def probe(path: str) -> MediaInfo:
    """What the container says of the file's best audio stream, without decoding. Raises MediaError."""
    with _opened(path) as media:
        return media.info()


def decode(path: str, *, block_seconds: float = 10.0, warnings: list[str] | None = None) -> Iterator[Samples]:
    """Blocks of mono float32 at 16 kHz, shape (n,), front to back; never more than a block in memory.

    A file that is cut off or damaged yields everything up to the cut and adds a line to `warnings`. Samples that are
    not finite become 0, with a warning. Raises MediaError if nothing comes out, or the file cannot be read to its end.
    """
    notes = warnings if warnings is not None else []
    with _opened(path) as media:
        yield from _finite(_blocks(media.frames(notes), round(block_seconds * SAMPLE_RATE)), notes)
        media.check_length(notes)


def read_span(path: str, start_seconds: float = 0.0, end_seconds: float | None = None) -> Samples:
    """The samples [start, end) of what `decode` yields, shape (n,), shorter if the recording ends before.

    Seeks where time stamps are exact, else decodes from the front. Raises MediaError, and UsageError for a span that
    is empty or begins after the end.
    """
    if not 0 <= start_seconds < (float("inf") if end_seconds is None else end_seconds):
        raise UsageError(f"{path}: a span must start at 0 or later and end after it starts")
    first = round(start_seconds * SAMPLE_RATE)
    last = None if end_seconds is None else round(end_seconds * SAMPLE_RATE)
    kept: list[Samples] = []
    with _opened(path) as media:
        skip, at = media.seek(start_seconds)
        for block in _finite(_blocks(media.frames([]), SAMPLE_RATE, skip), []):
            kept.append(block[max(0, first - at) : None if last is None else max(0, last - at)])
            at += len(block)
            if last is not None and at >= last:
                break
    span = np.concatenate(kept)
    if not len(span):
        raise UsageError(f"{path}: nothing at {start_seconds:g} s, the recording ends at {at / SAMPLE_RATE:.2f} s")
    return span


def packet_hash(path: str, progress: Callable[[], None] = lambda: None) -> bytes:
    """BLAKE2b-128 of the audio stream's packets and of what its decoder is told. 16 bytes; nothing is decoded.

    Names and tags are no part of it: a renamed or retagged file is the same recording. `progress` is called now and
    then. Raises MediaError.
    """
    with _opened(path) as media:
        digest = hashlib.blake2b(digest_size=16)
        info = media.info()
        setup = _without_comments(info.codec, media.stream.codec_context.extradata or b"")
        digest.update(f"{info.codec} {info.sample_rate} {info.channels} {len(setup)} ".encode() + setup)
        size = 0
        for packet in media.packets([]):
            digest.update(packet)
            size += packet.size
            progress()
        if not size:
            media.fail("empty", "it has a header and no sound")
        return digest.digest()


class _Source:
    """The file as PyAV reads it: a name it cannot trip over, and the read error kept for us."""

    def __init__(self, path: str) -> None:
        # Only the suffix: FFmpeg uses it as a hint, and the rest need be neither UTF-8 nor free of "%" and ":".
        self.name = "media" + Path(path).suffix.lower().encode("ascii", "ignore").decode()
        self.error: OSError | None = None
        if not Path(path).is_file() and Path(path).exists():
            raise OSError("not a regular file")  # a named pipe would be waited for
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115, closed by _opened
        self.seek, self.tell, self.close = self._file.seek, self._file.tell, self._file.close

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size) or b""
        except OSError as error:
            self.error = error
            raise


@dataclass
class _Media:
    """One opened file: its container, its best audio stream, and how the decoding went."""

    path: str
    source: _Source
    container: InputContainer
    stream: AudioStream
    head: bytes
    decoded_seconds: float = 0.0

    def fail(self, cause: str, detail: str) -> NoReturn:
        raise MediaError(self.path, cause, detail)

    def info(self) -> MediaInfo:
        context, duration = self.stream.codec_context, None
        if self.stream.duration is not None and self.stream.time_base is not None:
            duration = float(self.stream.duration * self.stream.time_base)
        elif self.container.duration is not None:
            duration = self.container.duration / 1e6
        return MediaInfo(
            self.path,
            self.container.format.name,
            context.name,
            context.sample_rate or 0,
            context.layout.nb_channels,
            duration,
        )

    def packets(self, notes: list[str]) -> Iterator[Any]:
        """The stream's packets up to the end or to where the container breaks. Raises MediaError on a read error."""
        import av

        try:
            for packet in self.container.demux(self.stream):
                if packet.size:
                    yield packet
        except (av.FFmpegError, OSError) as error:
            self._check_source()
            notes.append(f"the container is damaged, read up to there: {error}")
        self._check_source()

    def frames(self, notes: list[str]) -> Iterator[AudioFrame]:
        """Decoded frames; damaged packets are left out and counted. Raises MediaError when nearly all are."""
        import av

        waiting: list[AudioFrame] = []
        good = bad = 0
        for packet in self._packets_and_flush(notes):
            try:
                frames = packet.decode() if packet is not None else self.stream.codec_context.decode(None)
            except EOFError:
                continue
            except (av.FFmpegError, ValueError) as error:
                bad += 1
                last_error = error
                if bad >= _TRIAL_ERRORS and good < _TRIAL_PACKETS:
                    break
                continue
            frames = [frame for frame in frames if frame.samples]
            good += bool(frames)
            self.decoded_seconds += sum(frame.samples / frame.sample_rate for frame in frames)
            waiting += frames
            if good >= _TRIAL_PACKETS:
                yield from waiting
                waiting = []
        if good < max(1, min(bad, _TRIAL_PACKETS)):
            detail = (
                f"{bad} of its first {good + bad} packets do not decode ({last_error})" if bad else "it holds no sound"
            )
            self.fail("corrupt" if bad else "empty", detail)
        yield from waiting
        if bad:
            notes.append(f"{bad} damaged packets were left out")

    def _packets_and_flush(self, notes: list[str]) -> Iterator[Any]:
        yield from self.packets(notes)
        yield None

    def seek(self, start_seconds: float) -> tuple[int, int]:
        """Go to before `start_seconds`. Returns how many samples of the first frame to skip, and at which 16 kHz
        sample what follows begins: both 0 where the file has to be decoded from the front."""
        if start_seconds < _SEEK_FROM_SECONDS or self.container.format.name not in _EXACT_SEEK:
            return 0, 0
        zero = self._next_position()
        target = start_seconds - _PREROLL_SECONDS
        self._seek(target)
        found = self._next_position()
        if zero is None or found is None or found[1] != zero[1] or not 0 < found[0] - zero[0] < start_seconds * zero[1]:
            self._seek(0.0)
            return 0, 0
        self._seek(target)
        position, rate = found[0] - zero[0], found[1]
        # The resampler's output falls on the grid of `decode` only from every rate/gcd-th sample on.
        grid = rate // gcd(rate, SAMPLE_RATE)
        skip = -position % grid
        return skip, (position + skip) * SAMPLE_RATE // rate

    def _seek(self, seconds: float) -> None:
        assert self.stream.time_base is not None
        offset = (self.stream.start_time or 0) + round(Fraction(seconds) / self.stream.time_base)
        self.container.seek(offset, stream=self.stream)

    def _next_position(self) -> tuple[int, int] | None:
        """The next frame's first sample, counted at the file's rate, and that rate."""
        frame = next(self.frames([]), None)
        if frame is None or frame.pts is None or frame.time_base is None:
            return None
        return round(frame.pts * frame.time_base * frame.sample_rate), frame.sample_rate

    def check_length(self, notes: list[str]) -> None:
        """Add a note if the sound ended well before what the header announces."""
        announced = self.info().duration_seconds
        if announced is None or not self._header_has_length():
            return
        # Lossy formats count the encoder's run-in, too.
        slack = 0.02 if self.stream.codec_context.name.startswith(("pcm_", "flac")) else 0.5
        if self.decoded_seconds < announced - slack - 0.001 * announced:
            notes.append(f"cut off: {self.decoded_seconds:.2f} s of the {announced:.2f} s its header announces")

    def _header_has_length(self) -> bool:
        name = self.container.format.name
        if name == "mp3":  # without such a header the length is a guess from the first frames' bit rate
            return any(tag in self.head for tag in (b"Xing", b"Info", b"VBRI"))
        if name.startswith("matroska"):
            return len(self.container.streams) == 1
        return name in _EXACT_SEEK

    def _check_source(self) -> None:
        if self.source.error is not None:
            _unreadable(self.path, self.source.error)


@contextmanager
def _opened(path: str) -> Iterator[_Media]:
    """Open the file and pick its best audio stream. Raises MediaError with the cause."""
    import av

    av.logging.set_level(None)  # FFmpeg's remarks on damaged files are no one's output
    try:
        source = _Source(path)
        head = source.read(4096)
        source.seek(0)
    except OSError as error:
        _unreadable(path, error)
    try:
        if not head:
            raise MediaError(path, "empty", "the file has no bytes")
        try:
            container: InputContainer = av.open(
                source, "r", metadata_errors="replace", buffer_size=1 << 17, io_open=_refuse
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            _not_opened(path, source, head, error)
        with container:
            stream = _best_stream(path, container, head)
            stream.codec_context.thread_count = 1  # as many workers as cores already
            for other in container.streams:
                if other.index != stream.index:
                    other.discard = av.stream.Discard.all
            yield _Media(path, source, container, stream, head)
    finally:
        source.close()


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    """A play list must not make us read other files, or the network."""
    raise PermissionError(f"refers to {url}")


def _not_opened(path: str, source: _Source, head: bytes, error: Exception) -> NoReturn:
    if source.error is not None:
        _unreadable(path, source.error)
    if head.startswith(_MAGIC) or head[4:8] in (b"ftyp", b"moov", b"mdat"):
        raise MediaError(path, "corrupt", f"it starts like a media file, but cannot be opened: {error}") from error
    raise MediaError(path, "not-audio", "no sound in any known format") from error


def _best_stream(path: str, container: InputContainer, head: bytes) -> AudioStream:
    stream = container.streams.best("audio")
    if stream is not None and stream.codec_context is not None:
        return stream  # type: ignore[return-value]
    name = container.format.name
    if container.streams.audio:
        raise MediaError(path, "not-audio", f"looks like {name} by its name, but holds nothing that decodes")
    if container.streams.video and name not in _NOT_FILMS and not name.endswith("_pipe"):
        raise MediaError(path, "no-audio-stream", f"a {name} file without a sound track")
    raise MediaError(path, "not-audio", f"a {name} file, no sound")


def _unreadable(path: str, error: OSError) -> NoReturn:
    cause = "vanished" if isinstance(error, (FileNotFoundError, NotADirectoryError)) else "unreadable"
    raise MediaError(path, cause, error.strerror or str(error)) from error


def _blocks(frames: Iterator[AudioFrame], block_samples: int, skip: int = 0) -> Iterator[Samples]:
    """Frames of any rate, format and layout to mono blocks at 16 kHz; a change in mid-stream starts a new graph."""
    kind: tuple[object, ...] | None = None
    graph: _Graph | None = None
    for frame in frames:
        layout = frame.layout
        now = (frame.sample_rate, frame.format.name, layout.name, layout.nb_channels)
        if graph is None or now != kind:
            if graph is not None:
                yield from graph.finish()
            graph, kind = _Graph(frame, block_samples, skip), now
            skip = 0
        yield from graph.push(frame)
    if graph is not None:
        yield from graph.finish()


class _Graph:
    """float ──> mean of channels ──> resample ──> large frames, in FFmpeg's filters."""

    def __init__(self, frame: AudioFrame, block_samples: int, skip: int) -> None:
        import av.filter

        n, rate = frame.layout.nb_channels, frame.sample_rate
        self._graph = av.filter.Graph()
        self._graph.threads = 1
        layout = frame.layout.name
        chain = [("aformat", "sample_fmts=fltp")]
        if skip:
            chain.append(("atrim", f"start_sample={skip}"))
        if n > 1:
            # Spelled out: FFmpeg's own matrix makes the sum of two equal channels 3 dB louder than either.
            chain.append(("pan", "mono|c0=" + "+".join(f"{1 / n:.9g}*c{i}" for i in range(n))))
        chain.append(("aresample", f"{SAMPLE_RATE}:{_SWR}"))
        chain.append(("asetnsamples", f"n={block_samples}:p=0"))
        self._source = self._graph.add(
            "abuffer",
            f"sample_rate={rate}:sample_fmt={frame.format.name}:channel_layout={layout}:time_base=1/{rate}",
        )
        self._sink = self._graph.add("abuffersink")
        nodes = [self._graph.add(name, arguments) for name, arguments in chain]
        self._graph.link_nodes(self._source, *nodes, self._sink)
        self._graph.configure()
        self._queued, self._pull_at = 0, rate * block_samples // SAMPLE_RATE

    def push(self, frame: AudioFrame) -> Iterator[Samples]:
        self._source.push(frame)
        self._queued += frame.samples
        if self._queued >= self._pull_at:
            self._queued = 0
            yield from self._pull()

    def finish(self) -> Iterator[Samples]:
        self._source.push(None)
        yield from self._pull()

    def _pull(self) -> Iterator[Samples]:
        while True:
            try:
                frame = self._sink.pull()
            except (BlockingIOError, EOFError):
                return
            yield cast("AudioFrame", frame).to_ndarray()[0]


def _finite(blocks: Iterator[Samples], notes: list[str]) -> Iterator[Samples]:
    """The blocks with NaN and infinity as silence, and one note about them."""
    replaced = 0
    for block in blocks:
        finite = np.isfinite(block)
        if not finite.all():
            replaced += int(len(block) - np.count_nonzero(finite))
            block = np.where(finite, block, np.float32(0))
        yield block
    if replaced:
        notes.append(f"{replaced} samples were not finite numbers and are read as silence")


def _without_comments(codec: str, extradata: bytes) -> bytes:
    """Vorbis keeps its tags amid its decoder set-up: the first and the third header are what decoding needs."""
    if codec != "vorbis":
        return extradata
    first, third = extradata.find(b"\x01vorbis"), extradata.rfind(b"\x05vorbis")
    return extradata[first : first + 30] + extradata[third:] if 0 <= first < third else extradata
