"""A media file opened with PyAV: its best audio stream, what breaks while reading it, and where a cut shows.

`opened` gives a `Media`; its `packets` and `frames` come front to back and never hold more than a few. Everything the
file can do wrong becomes a MediaError with its cause, or a note beside the sound that could be read.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from audiosearch.errors import MediaError
from audiosearch.types import MediaInfo

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

# A decoder fed with anything but its own format fails on nearly every packet, yet may pass one by chance.
_TRIAL_PACKETS, _TRIAL_ERRORS = 8, 64
_MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
# Demuxers whose time stamps after a seek are exact to the sample. Not Ogg, which may be a chain of streams, each from
# 0, and not Matroska, which rounds to milliseconds.
_EXACT_SEEK = frozenset({"wav", "w64", "aiff", "flac", "caf", "mp3", _MP4})
# What an MP4's encoder adds at the end, at most.
_PADDING_FRAMES, _PADDING_SAMPLES = 4, 4096
_MAGIC = (b"RIFF", b"RF64", b"FORM", b"fLaC", b"OggS", b"ID3", b"\x1aE\xdf\xa3", b"caff", b".snd", b"wvpk", b"MAC ")
# Of a WAV file FFmpeg looks through 1 MB for what only calls itself PCM (DTS does), which takes 28 ms: 4 ms so.
_WAV, _WAV_PROBE_BYTES = (b"RIFF", b"RF64", b"riff\x2e\x91\xcf\x11"), 64 << 10
# Text and pictures that FFmpeg opens as if they were films.
_NOT_FILMS = frozenset({"tty", "image2", "gif", "apng", "bin", "xbin", "adf", "idf"})
_MAX_OGG_PAGE = 27 + 255 + 255 * 255
# What can be meant by sound: from infrasound loggers to DSD. A header that says 1 Hz makes hours of a few bytes.
_MIN_RATE, _MAX_RATE = 100, 20_000_000  # Hz
_MAX_CHANNELS = 64  # that FFmpeg mixes
_MAX_CLAIMED_SECONDS = 1e9  # a length that no header can mean


_read_seconds = 0.0  # by this process


def read_seconds() -> float:
    """How long this process has waited for the files' bytes so far."""
    return _read_seconds


def _nothing() -> None:
    """No one wants to know."""


@contextmanager
def opened(path: str, progress: Callable[[], None] = _nothing) -> Iterator[Media]:
    """Open the file and pick its best audio stream. `progress` is called with every read and every packet.

    Raises MediaError with the cause, and whatever `progress` raises.
    """
    import av

    av.logging.set_level(None)  # FFmpeg's remarks on damaged files are no one's output
    try:
        source = _Source(path, progress)
    except OSError as error:
        _unreadable(path, error)
    try:
        head = _head(path, source)
        try:
            # A player's list must not make us read other files, or the network: nothing else is opened.
            container = av.open(
                source,
                "r",
                options={"probesize": str(_WAV_PROBE_BYTES)} if head.startswith(_WAV) else {},
                metadata_errors="surrogateescape",
                buffer_size=1 << 17,
                io_open=_refuse,
            )
        except MemoryError:
            raise
        except (av.FFmpegError, OSError, ValueError) as error:
            _not_opened(path, source, head, error)
        with container:
            source.check(path)
            stream = _best_stream(path, container, head)
            stream.codec_context.thread_count = 1  # as many workers as cores already
            for other in container.streams:
                if other.index != stream.index:
                    other.discard = av.stream.Discard.all
            yield Media(path, source, container, stream, head, progress)
    finally:
        source.close()


@dataclass
class Media:
    """One opened file: its container, its best audio stream, and how far the decoding came."""

    path: str
    source: _Source
    container: InputContainer
    stream: AudioStream
    head: bytes
    progress: Callable[[], None] = field(default=_nothing, repr=False)
    decoded_seconds: float = 0.0

    def fail(self, cause: str, detail: str) -> NoReturn:
        """Raise MediaError about this file."""
        raise MediaError(self.path, cause, detail)

    def info(self) -> MediaInfo:
        """What the container says."""
        context, duration = self.stream.codec_context, None
        self._check_format(context.sample_rate or _MIN_RATE, context.layout.nb_channels or 1)
        if self.stream.duration is not None and self.stream.time_base is not None:
            duration = float(self.stream.duration * self.stream.time_base)
        elif self.container.duration is not None:
            duration = self.container.duration / 1e6
        if duration is not None and not 0 <= duration < _MAX_CLAIMED_SECONDS:
            duration = None
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
                self.progress()
                if packet.size:
                    yield packet
        except MemoryError:
            raise
        except (av.FFmpegError, OSError) as error:
            self.source.check(self.path)
            notes.append(f"the container is damaged and was read up to there: {error.strerror or error}")
        self.source.check(self.path)

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
            except (av.FFmpegError, ValueError):
                bad += 1
                if bad >= _TRIAL_ERRORS and good < _TRIAL_PACKETS:
                    break
                continue
            frames = [frame for frame in frames if frame.samples]
            for frame in frames:
                self._check_format(frame.sample_rate, frame.layout.nb_channels)
            good += bool(frames)
            self.decoded_seconds += sum(frame.samples / frame.sample_rate for frame in frames)
            waiting += frames
            if good >= _TRIAL_PACKETS:
                yield from waiting[:-_PADDING_FRAMES]
                del waiting[:-_PADDING_FRAMES]
        if good < min(bad, _TRIAL_PACKETS):
            self.fail(
                "corrupt", f"opened as {self.container.format.name}, but {bad} of {good + bad} packets do not decode"
            )
        if not good:
            self.fail("empty", "it has a header and no sound")
        yield from self._without_padding(waiting)
        if bad:
            notes.append(f"{bad} damaged packets were left out")

    def seek(self, start_seconds: float) -> tuple[int, int] | None:
        """Go to before `start_seconds`. Returns the next frame's first sample, counted at the file's rate from the
        first sample of all, and that rate; None, and back at the front, where that cannot be known exactly."""
        if self.container.format.name in _EXACT_SEEK:
            zero = self._next_position()
            found = self._next_position() if self._seek(start_seconds) else None
            if zero is not None and found is not None and found[1] == zero[1]:
                position, rate = found[0] - zero[0], found[1]
                # Reading the position used up a frame: go there again.
                if 0 < position <= start_seconds * rate and self._seek(start_seconds):
                    return position, rate
            if not self._seek(0.0):
                self.fail("corrupt", "it cannot be read from the front again")
        self.decoded_seconds = 0.0
        return None

    def check_length(self, notes: list[str]) -> None:
        """Add a note if the sound is not as long as the header announces, or bytes of the file are missing."""
        announced = self.info().duration_seconds
        slack = 0.02 if self.stream.codec_context.name.startswith(("pcm_", "flac")) else 0.1
        size = _announced_bytes(self.head)
        if announced is not None and self._header_has_length() and self.decoded_seconds < 0.999 * announced - slack:
            notes.append(f"cut off: {self.decoded_seconds:.2f} s of the {announced:.2f} s its header announces")
        elif announced is not None and self._header_has_length() and self.decoded_seconds > 1.5 * announced + 10:
            notes.append(f"{self.decoded_seconds:.2f} s of sound, and its header announces {announced:.2f} s")
        elif size is not None and self.source.size() < size:
            notes.append(f"cut off: {self.source.size()} of the {size} bytes its header announces")
        elif self.container.format.name == "ogg" and not _ogg_ends(self.source.tail(2 * _MAX_OGG_PAGE)):
            notes.append("cut off: its last page is not marked as the end")

    def _packets_and_flush(self, notes: list[str]) -> Iterator[Any]:
        yield from self.packets(notes)
        yield None

    def _without_padding(self, last: list[AudioFrame]) -> Iterator[AudioFrame]:
        """The last frames without what an MP4's encoder added to fill them up; FFmpeg does this from version 9 on."""
        duration, unit = self.stream.duration, self.stream.time_base
        if not duration or unit is None or self.container.format.name != _MP4 or None in [frame.pts for frame in last]:
            yield from last
            return
        end = ((self.stream.start_time or 0) + duration) * unit
        kept = [round((end - _time(frame)) * frame.sample_rate) for frame in last]
        if last and kept[-1] < last[-1].samples - _PADDING_SAMPLES:
            kept = [frame.samples for frame in last]  # too much for padding: the announced duration is wrong
        for frame, n in zip(last, kept, strict=True):
            if n >= frame.samples:
                yield frame
            elif n > 0:
                yield _shortened(frame, n)

    def _seek(self, seconds: float) -> bool:
        import av

        assert self.stream.time_base is not None
        offset = (self.stream.start_time or 0) + round(Fraction(seconds) / self.stream.time_base)
        try:
            self.container.seek(offset, stream=self.stream)
        except av.FFmpegError:  # some demuxers refuse a place after the end
            return False
        return True

    def _next_position(self) -> tuple[int, int] | None:
        try:
            frame = next(self.frames([]), None)
        except MediaError:  # after the end, or where nothing decodes
            return None
        if frame is None or frame.pts is None or frame.time_base is None:
            return None
        return round(_time(frame) * frame.sample_rate), frame.sample_rate

    def _header_has_length(self) -> bool:
        name = self.container.format.name
        if name == "mp3":  # without such a header the length is a guess from the first frames' bit rate
            return any(tag in self.head for tag in (b"Xing", b"Info", b"VBRI"))
        return name in _EXACT_SEEK

    def _check_format(self, sample_rate: int, channels: int) -> None:
        if not _MIN_RATE <= sample_rate <= _MAX_RATE:
            self.fail("corrupt", f"a sample rate of {sample_rate:,} Hz; sound has {_MIN_RATE} to {_MAX_RATE:,}")
        if channels < 1:
            self.fail("corrupt", "its sound has no channels")
        if channels > _MAX_CHANNELS:
            self.fail("too-large", f"{channels:,} channels; at most {_MAX_CHANNELS} can be mixed")


class _Source:
    """The file as PyAV reads it: a name it cannot trip over, no further than the file reached when it was opened, and
    the read error kept for us."""

    def __init__(self, path: str, progress: Callable[[], None]) -> None:
        # Only the suffix: FFmpeg uses it as a hint, and the rest need be neither UTF-8 nor free of "%" and ":".
        self.name = "media" + Path(path).suffix.lower().encode("ascii", "ignore").decode()
        # What went wrong in here. FFmpeg is told that the file ends: an exception does not always survive its C code.
        self.error: Exception | None = None
        self._progress = progress
        self._file = open(path, "rb", buffering=0, opener=_open_regular)  # noqa: SIM115, closed by `opened`
        self.close = self._file.close
        # A file that grows as fast as it is read would have no end.
        self._at, self._size = 0, os.fstat(self._file.fileno()).st_size
        if not self._size:
            self._file.read(1)  # empty, or one of the system's own, which may not be readable at all

    def read(self, size: int) -> bytes:
        global _read_seconds
        if self.error is not None:
            return b""
        try:
            self._progress()
            started = time.perf_counter()
            data = self._file.read(max(0, min(size, self._size - self._at))) or b""
        except Exception as error:
            self.error = error
            return b""
        _read_seconds += time.perf_counter() - started
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET:
            offset += self._size if whence == os.SEEK_END else self._at
        if offset < 0:
            return -errno.EINVAL  # as FFmpeg wants to be told
        try:
            self._file.seek(min(offset, self._size))  # beyond the end there is nothing, and file systems have limits
        except OSError as error:
            self.error = error
            return -errno.EIO
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def check(self, path: str) -> None:
        """Raise what went wrong, a read error as MediaError."""
        if isinstance(self.error, OSError):
            _unreadable(path, self.error)
        if self.error is not None:
            raise self.error

    def size(self) -> int:
        return self._size

    def tail(self, size: int) -> bytes:
        here = self._at
        self.seek(max(0, self._size - size))
        found = self.read(size)
        self.seek(here)
        return found


def _open_regular(path: str, flags: int) -> int:
    """A descriptor of a regular file. Anything else (a named pipe, a device) is refused and never waited for."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - before opening: that alone does things to a device
        raise OSError("not a regular file")
    # It may have become a pipe since.
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    return descriptor


def _head(path: str, source: _Source) -> bytes:
    head = source.read(4096)
    source.check(path)
    if not head:
        raise MediaError(path, "empty", "the file has no bytes")
    source.seek(0)
    return head


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError(f"refers to {url}")


def _not_opened(path: str, source: _Source, head: bytes, error: Exception) -> NoReturn:
    source.check(path)
    if _looks_like_media(head):
        raise MediaError(
            path, "corrupt", "it starts like a media file, but its header is damaged or cut off"
        ) from error
    raise MediaError(path, "not-audio", "no sound in any known format") from error


def _best_stream(path: str, container: InputContainer, head: bytes) -> AudioStream:
    stream = container.streams.best("audio")
    if stream is not None and stream.codec_context is not None:
        return cast("AudioStream", stream)
    name = container.format.name
    if container.streams.audio and not _looks_like_media(head):
        raise MediaError(path, "not-audio", f"taken for {name} by its name, but nothing in it decodes")
    if container.streams.audio or (_looks_like_media(head) and not len(container.streams)):
        raise MediaError(path, "corrupt", f"a {name} file of which nothing decodes")
    if container.streams.video and name not in _NOT_FILMS and not name.endswith("_pipe"):
        raise MediaError(path, "no-audio-stream", f"a {name} file without a sound track")
    raise MediaError(path, "not-audio", f"taken for {name}, which is not sound")


def _unreadable(path: str, error: OSError) -> NoReturn:
    cause = "vanished" if isinstance(error, (FileNotFoundError, NotADirectoryError)) else "unreadable"
    raise MediaError(path, cause, error.strerror or str(error)) from error


def _looks_like_media(head: bytes) -> bool:
    return head.startswith(_MAGIC) or head[4:8] in (b"ftyp", b"moov", b"mdat")


def _announced_bytes(head: bytes) -> int | None:
    """The size of the whole file by its RIFF, FORM or Matroska header; None where it says none."""
    if head.startswith((b"RIFF", b"FORM")) and len(head) >= 8:
        size = int.from_bytes(head[4:8], "little" if head.startswith(b"RIFF") else "big")
        return None if size in (0, 0xFFFFFFFF) else size + 8
    segment = head.find(b"\x18\x53\x80\x67", 0, 128)
    if head.startswith(b"\x1aE\xdf\xa3") and segment >= 0 and len(head) > segment + 12:
        # An EBML number: the position of the first set bit gives its width, all ones mean "unknown".
        width = 9 - head[segment + 4].bit_length()
        size = int.from_bytes(head[segment + 4 : segment + 4 + width], "big") & ((1 << 7 * width) - 1)
        return None if size == (1 << 7 * width) - 1 else segment + 4 + width + size
    return None


def _ogg_ends(tail: bytes) -> bool:
    """Whether the last page is whole and has the end-of-stream flag."""
    page = tail.rfind(b"OggS")
    if page < 0 or len(tail) < page + 27:
        return False
    table = tail[page + 27 : page + 27 + tail[page + 26]]
    return bool(tail[page + 5] & 4) and len(tail) >= page + 27 + len(table) + sum(table)


def chain(frame: AudioFrame, *filters: str) -> tuple[Any, Any, Any]:
    """A filter graph for such frames from `name=arguments`, its source and its sink."""
    import av.filter

    graph = av.filter.Graph()
    graph.threads = 1
    rate, layout = frame.sample_rate, frame.layout.name
    source = graph.add(
        "abuffer", f"sample_rate={rate}:sample_fmt={frame.format.name}:channel_layout={layout}:time_base=1/{rate}"
    )
    nodes = [graph.add(*each.split("=", 1)) for each in filters]
    sink = graph.add("abuffersink")
    graph.link_nodes(source, *nodes, sink)
    graph.configure()
    return graph, source, sink


def _shortened(frame: AudioFrame, n_samples: int) -> AudioFrame:
    _graph, source, sink = chain(frame, f"atrim=end_sample={n_samples}")
    source.push(frame)
    source.push(None)
    return cast("AudioFrame", sink.pull())


def _time(frame: AudioFrame) -> Fraction:
    return cast(int, frame.pts) * cast(Fraction, frame.time_base)
