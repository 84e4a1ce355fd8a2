"""Media files that are out to do harm, seeded: mutations of good ones, and some made by hand."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from make_media import sound, write

# name, rate, channels, arguments of make_media.write
SEEDS: list[tuple[str, int, int, dict]] = [
    *[
        (f"{codec}.wav", 22050, 2, {"codec": f"pcm_{codec}"})
        for codec in ("u8", "s16le", "s24le", "s32le", "f32le", "f64le", "alaw", "mulaw")
    ],
    ("ima.wav", 22050, 1, {"codec": "adpcm_ima_wav"}),
    ("ms.wav", 22050, 1, {"codec": "adpcm_ms"}),
    ("tagged.wav", 16000, 1, {"tags": {"title": "Title", "comment": "x" * 300}}),
    ("sound.aiff", 22050, 2, {"codec": "pcm_s16be"}),
    ("sound.au", 22050, 1, {"codec": "pcm_s16be"}),
    ("sound.caf", 22050, 2, {"codec": "pcm_s16le"}),
    ("sound.w64", 22050, 1, {"codec": "pcm_s16le"}),
    ("sound.voc", 22050, 1, {"codec": "pcm_u8"}),
    ("sound.flac", 22050, 2, {"codec": "flac"}),
    ("sound.mp3", 22050, 2, {"codec": "libmp3lame"}),
    ("sound.mp2", 22050, 1, {"codec": "mp2"}),
    ("sound.aac", 22050, 1, {"codec": "aac"}),
    ("sound.m4a", 22050, 2, {"codec": "aac"}),
    ("alac.m4a", 22050, 2, {"codec": "alac"}),
    ("sound.mov", 22050, 2, {"codec": "pcm_s16le"}),
    ("film.mp4", 22050, 1, {"codec": "aac", "video": True}),
    ("film.avi", 22050, 1, {"codec": "libmp3lame", "video": True}),
    ("sound.mka", 22050, 2, {"codec": "flac"}),
    ("film.mkv", 22050, 1, {"codec": "aac", "video": True}),
    ("sound.ogg", 48000, 2, {"codec": "vorbis", "codec_options": {"strict": "experimental"}}),
    ("sound.opus", 48000, 1, {"codec": "libopus"}),
    ("flac.ogg", 22050, 1, {"codec": "flac"}),
    ("sound.wma", 44100, 1, {"codec": "wmav2", "container": "asf", "bit_rate": 64000}),
    ("sound.ac3", 44100, 2, {"codec": "ac3"}),
    ("sound.eac3", 44100, 2, {"codec": "eac3"}),
    ("sound.wv", 22050, 1, {"codec": "wavpack"}),
    ("sound.tta", 22050, 1, {"codec": "tta"}),
    ("sound.amr", 8000, 1, {"codec": "libopencore_amrnb", "bit_rate": 12200}),
    ("sound.mpg", 44100, 1, {"codec": "mp2", "video": True}),
]


def make_seeds(folder: Path, seconds: float = 1.5) -> tuple[list[Path], list[str]]:
    """A good file of each format, and the names of those that this build of FFmpeg cannot write."""
    import av

    made, missing = [], []
    for i, (name, rate, channels, arguments) in enumerate(SEEDS):
        try:
            made.append(write(folder / name, sound(seconds, rate, channels, seed=i), rate, **arguments))
        except (av.FFmpegError, ValueError):
            (folder / name).unlink(missing_ok=True)
            missing.append(name)
    return made, missing


# ── mutations: (random numbers, the file, another file) -> what becomes of it ──

_WORDS_32 = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE, 0x10000, 0x40000000)


def _flip(rng: np.random.Generator, data: bytearray, other: bytes) -> None:
    for place in rng.integers(0, len(data), int(2 ** rng.uniform(0, 9))):
        data[place] ^= 1 << int(rng.integers(8))


def _flip_header(rng: np.random.Generator, data: bytearray, other: bytes) -> None:
    for place in rng.integers(0, min(len(data), 512), int(rng.integers(1, 9))):
        data[place] = int(rng.integers(256))


def _truncate(rng: np.random.Generator, data: bytearray, other: bytes) -> None:
    del data[int(len(data) * rng.uniform() ** 2) :]


def _cut_out(rng: np.random.Generator, data: bytearray, other: bytes) -> None:
    start = int(rng.integers(len(data)))
    del data[start : start + int(2 ** rng.uniform(0, 14))]


def _splice(rng: np.random.Generator, data: bytearray, other: bytes) -> None:
    """The beginning of one file on the rest of another."""
    head = int(rng.integers(4, 1024))
    data[:head] = other[:head]


def _insert(rng: np.random.Generator, data: bytearray, other: bytes) -> None:
    place, start = int(rng.integers(len(data))), int(rng.integers(len(other)))
    data[place:place] = other[start : start + int(2 ** rng.uniform(0, 13))]


def _hostile_size(rng: np.random.Generator, data: bytearray, other: bytes) -> None:
    """Numbers at their limits where lengths, counts and rates are."""
    for _ in range(int(rng.integers(1, 4))):
        order = "<" if rng.integers(2) else ">"
        value = _WORDS_32[int(rng.integers(len(_WORDS_32)))]
        packed = struct.pack(order + "I", value) if rng.integers(3) else struct.pack(order + "H", value & 0xFFFF)
        # Half of them in the header, the others anywhere: boxes and pages come late.
        place = int(rng.integers(max(1, min(len(data), 256 if rng.integers(2) else len(data)) - 4)))
        data[place : place + len(packed)] = packed


def _repeat(rng: np.random.Generator, data: bytearray, other: bytes) -> None:
    start = int(rng.integers(len(data)))
    piece = bytes(data[start : start + int(2 ** rng.uniform(2, 10))])
    data[start:start] = piece * int(rng.integers(2, 60))


def _noise(rng: np.random.Generator, data: bytearray, other: bytes) -> None:
    start = int(rng.integers(len(data)))
    n = min(len(data) - start, int(2 ** rng.uniform(2, 13)))
    data[start : start + n] = rng.bytes(n)


MUTATIONS: dict[str, Callable[[np.random.Generator, bytearray, bytes], None]] = {
    "flip": _flip,
    "flip-header": _flip_header,
    "truncate": _truncate,
    "cut-out": _cut_out,
    "splice": _splice,
    "insert": _insert,
    "hostile-size": _hostile_size,
    "repeat": _repeat,
    "noise": _noise,
}


def mutants(seeds: Sequence[Path], folder: Path, count: int, seed: int) -> list[Path]:
    """`count` mutated files in `folder`, the same for a seed every time."""
    rng = np.random.default_rng(seed)
    contents = [path.read_bytes() for path in seeds]
    kinds = list(MUTATIONS)
    made = []
    for n in range(count):
        base, donor = n % len(seeds), int(rng.integers(len(seeds)))
        kind = kinds[n % len(kinds)]
        data = bytearray(contents[base])
        MUTATIONS[kind](rng, data, contents[donor])
        if len(data) and rng.integers(5) == 0:  # two wrongs
            MUTATIONS[kinds[int(rng.integers(len(kinds)))]](rng, data, contents[donor])
        path = folder / f"{n:05}-{kind}-{seeds[base].stem}{seeds[base].suffix}"
        path.write_bytes(data)
        made.append(path)
    return made


# ── made by hand ──


def wav(
    path: Path,
    data: bytes,
    *,
    rate: int = 16000,
    channels: int = 1,
    bits: int = 16,
    tag: int = 1,
    align: int | None = None,
    data_size: int | None = None,
) -> Path:
    """A WAV file whose header says what it is told to."""
    align = channels * bits // 8 if align is None else align
    form = struct.pack(
        "<HHIIHH", tag, channels & 0xFFFF, rate & 0xFFFFFFFF, rate * align & 0xFFFFFFFF, align & 0xFFFF, bits
    )
    size = len(data) if data_size is None else data_size
    head = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", size)
    path.write_bytes(b"RIFF" + struct.pack("<I", min(len(head) + size, 0xFFFFFFFF)) + head + data)
    return path


def flac_bomb(path: Path, frames: int, rate: int = 100) -> Path:
    """Silence, 13 to 15 bytes for 65,535 samples: 4 kB at 100 Hz are more than two days."""
    info = struct.pack(">HH", 65535, 65535) + bytes(6)
    info += ((rate << 44) | (0 << 41) | (15 << 36) | 0).to_bytes(8, "big") + bytes(16)
    out = bytearray(b"fLaC\x80" + len(info).to_bytes(3, "big") + info)
    for number in range(frames):
        head = b"\xff\xf8\x70\x08" + _utf8(number) + struct.pack(">H", 65534)
        frame = head + bytes([_crc(head, 8, 0x07)]) + b"\x00\x00\x00"
        out += frame + _crc(frame, 16, 0x8005).to_bytes(2, "big")
    path.write_bytes(out)
    return path


def many_streams(path: Path, streams: int) -> Path:
    """A Matroska file of so many tracks, with sound in the first one only."""
    audio = _ebml(0xB5, struct.pack(">d", 16000.0)) + _ebml(0x9F, b"\1") + _ebml(0x6264, b"\x10")
    tracks = b"".join(
        _ebml(
            0xAE,
            _ebml(0xD7, struct.pack(">I", n))
            + _ebml(0x73C5, struct.pack(">I", n))
            + _ebml(0x83, b"\2")
            + _ebml(0x86, b"A_PCM/INT/LIT")
            + _ebml(0xE1, audio),
        )
        for n in range(1, streams + 1)
    )
    block = _ebml(0xA3, b"\x81\0\0\x80" + (np.sin(np.arange(16000)) * 9000).astype("<i2").tobytes())
    cluster = _ebml(0x1F43B675, _ebml(0xE7, b"\0") + block)
    header = _ebml(0x1A45DFA3, _ebml(0x4282, b"matroska") + _ebml(0x4287, b"\4") + _ebml(0x4285, b"\2"))
    path.write_bytes(
        header
        + _ebml(0x18538067, _ebml(0x1549A966, _ebml(0x2AD7B1, b"\x0f\x42\x40")) + _ebml(0x1654AE6B, tracks) + cluster)
    )
    return path


def _ebml(key: int, content: bytes) -> bytes:
    return key.to_bytes((key.bit_length() + 7) // 8, "big") + (len(content) | 1 << 56).to_bytes(8, "big") + content


def _utf8(number: int) -> bytes:
    return chr(number).encode() if number < 0xD800 else chr(number + 0x800).encode()


def _crc(data: bytes, bits: int, polynomial: int) -> int:
    value, top = 0, 1 << (bits - 1)
    for byte in data:
        value ^= byte << (bits - 8)
        for _ in range(8):
            value = ((value << 1) ^ (polynomial if value & top else 0)) & ((1 << bits) - 1)
    return value
