"""Decoding judged by the ffmpeg program, and what a damaged or foreign file does."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from make_media import ffmpeg_decode, ffmpeg_program, sound, write, write_silent_video

from audiosearch import demux
from audiosearch.audio import SAMPLE_RATE, decode, probe, read_span
from audiosearch.chunk import chunk_hash
from audiosearch.errors import MediaError, UsageError

FFMPEG = ffmpeg_program()
VORBIS = {"codec": "vorbis", "codec_options": {"strict": "-2"}}  # FFmpeg's own encoder is marked experimental


def whole(path, warnings=None):
    return np.concatenate(list(decode(str(path), warnings=warnings)))


def wav(path, samples, rate=SAMPLE_RATE, *, tag=3, mask=None):
    """A float32 (tag 3) WAV written by hand, with a channel mask of choice; `samples` has shape (channels, n)."""
    data = samples.T.astype("<f4").tobytes()
    channels = len(samples)
    form = struct.pack(
        "<HHIIHH", tag if mask is None else 0xFFFE, channels, rate, rate * 4 * channels, 4 * channels, 32
    )
    if mask is not None:
        form += struct.pack("<HHIH", 22, 32, mask, tag) + b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    Path(path).write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


# ── against the ffmpeg program ──

CASES = [
    *[(f"rate{rate}.wav", rate, 2, {}) for rate in (8000, 11025, 22050, 32000, 44100, 48000, 96000, 192000)],
    *[(f"{codec}.wav", 44100, 2, {"codec": f"pcm_{codec}"}) for codec in ("u8", "s24le", "s32le", "f32le", "f64le")],
    *[(f"channels{n}.wav", 48000, n, {}) for n in (1, 3, 4, 6, 8)],
    ("sound.flac", 44100, 2, {"codec": "flac"}),
    ("sound8.flac", 96000, 8, {"codec": "flac"}),
    ("sound.mp3", 44100, 2, {"codec": "libmp3lame"}),
    ("low.mp3", 22050, 1, {"codec": "libmp3lame"}),
    ("sound.ogg", 44100, 2, VORBIS),
    ("sound.opus", 48000, 2, {"codec": "libopus"}),
    ("six.opus", 48000, 6, {"codec": "libopus"}),
    ("sound.m4a", 44100, 2, {"codec": "aac"}),
    ("six.m4a", 48000, 6, {"codec": "aac"}),
    ("lossless.m4a", 44100, 2, {"codec": "alac"}),
    ("sound.aac", 44100, 2, {"codec": "aac"}),
    ("sound.aiff", 44100, 2, {"codec": "pcm_s16be"}),
    ("film.mp4", 48000, 2, {"codec": "aac", "video": True}),
    ("film.mkv", 48000, 2, {"codec": "libopus", "video": True}),
    ("film.mov", 48000, 2, {"codec": "pcm_s16le", "video": True}),
]


@pytest.mark.skipif(FFMPEG is None, reason="imageio-ffmpeg carries no ffmpeg program here")
@pytest.mark.parametrize(("name", "rate", "channels", "options"), CASES, ids=[case[0] for case in CASES])
def test_decodes_as_ffmpeg_does(tmp_path, name, rate, channels, options):
    path = write(tmp_path / name, sound(1.3, rate, channels), rate, **options)
    warnings: list[str] = []
    ours = whole(path, warnings)
    reference = np.clip(ffmpeg_decode(FFMPEG, path, channels), -1, 1)
    assert warnings == []
    assert ours.dtype == np.float32
    assert np.abs(ours).max() > 0.1
    assert abs(len(ours) - len(reference)) <= 3
    n = min(len(ours), len(reference))
    assert np.abs(ours[:n] - reference[:n]).max() < 1e-3
    assert np.sum((ours[:n] - reference[:n]) ** 2) < 1e-8 * np.sum(reference**2)
    info = probe(str(path))
    assert (info.sample_rate, info.channels) == (rate, channels)


def test_lossless_sound_keeps_its_place_and_length(tmp_path):
    """Without ffmpeg: a 48 kHz file is the same sound as its 16 kHz original, with no delay."""
    seconds, rate = 2.0, 48000
    path = write(tmp_path / "a.flac", sound(seconds, rate), rate, codec="flac")
    ours, original = whole(path), sound(seconds, rate)[0, ::3]
    assert len(ours) == seconds * SAMPLE_RATE
    assert np.abs(ours - original)[100:-100].max() < 5e-3


# ── channels ──


@pytest.mark.parametrize("channels", [2, 6, 8])
def test_equal_channels_equal_mono(tmp_path, channels):
    mono = 0.99 / 0.85 * sound(1.0, 44100)
    one = write(tmp_path / "one.wav", mono)
    many = write(tmp_path / "many.wav", np.repeat(mono, channels, axis=0))
    np.testing.assert_allclose(whole(many), whole(one), atol=1e-6)
    assert chunk_hash(whole(write(tmp_path / "two.wav", np.repeat(mono, 2, axis=0)))) == chunk_hash(whole(one))


@pytest.mark.parametrize(("channels", "mask"), [(2, None), (3, 0), (5, 0), (8, 0), (8, None), (12, 0), (24, 0)])
def test_every_channel_weighs_the_same_whatever_the_layout_is_called(tmp_path, channels, mask):
    rng = np.random.default_rng(channels)
    samples = rng.uniform(-0.9, 0.9, (channels, 8000)).astype(np.float32)
    path = wav(tmp_path / "a.wav", samples, mask=mask)
    np.testing.assert_allclose(whole(path), samples.mean(axis=0), atol=1e-6)


def test_rate_and_layout_may_change_in_mid_stream(tmp_path):
    first = write(tmp_path / "a.mp3", sound(2.0, 44100, 2), 44100, codec="libmp3lame", options={"write_xing": "0"})
    second = write(tmp_path / "b.mp3", sound(2.0, 22050, 1), 22050, codec="libmp3lame", options={"write_xing": "0"})
    both = tmp_path / "both.mp3"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    joined, parts = whole(both), [whole(first), whole(second)]
    assert abs(len(joined) - sum(map(len, parts))) < 0.1 * SAMPLE_RATE
    np.testing.assert_allclose(joined[1000:30000], parts[0][1000:30000], atol=1e-4)
    assert np.abs(joined[-20000:]).max() > 0.1


def test_a_flac_and_its_wav_are_the_same_sound(tmp_path):
    samples = sound(1.0, 44100, 2)
    one, two = write(tmp_path / "a.wav", samples), write(tmp_path / "a.flac", samples, codec="flac")
    assert chunk_hash(whole(one)) == chunk_hash(whole(two))


def test_numbers_that_are_none_become_silence(tmp_path):
    samples = np.full((1, 4000), 0.25, np.float32)
    samples[0, [5, 6, 7]] = np.nan, np.inf, -np.inf
    samples[0, 9] = 3.0
    warnings: list[str] = []
    ours = whole(wav(tmp_path / "a.wav", samples), warnings)
    assert ours[[5, 6, 7]].tolist() == [0, 0, 0]
    assert ours[9] == 1.0  # full scale is the end of the scale
    assert ours[4] == 0.25
    assert warnings == ["3 samples were not finite numbers and are read as silence"]


# ── files that were cut off ──

CUT = [
    ("a.mp3", {"codec": "libmp3lame"}),
    ("a.wav", {}),
    ("a.flac", {"codec": "flac"}),
    ("a.aiff", {"codec": "pcm_s16be"}),
    ("a.ogg", VORBIS),
    ("a.opus", {"codec": "libopus"}),
    ("a.mkv", {"codec": "libopus", "video": True}),
    ("a.mp4", {"codec": "aac", "options": {"movflags": "faststart"}}),
]


@pytest.mark.parametrize(("name", "options"), CUT, ids=[case[0] for case in CUT])
def test_a_truncated_file_gives_all_up_to_the_cut_and_says_so(tmp_path, name, options):
    rate = 48000
    path = write(tmp_path / name, sound(5.0, rate, 2), rate, **options)
    intact, data = whole(path), path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    warnings: list[str] = []
    ours = whole(path, warnings)
    # Ogg pages hold up to a second, of which the last is lost.
    assert 1.9 * SAMPLE_RATE <= len(ours) <= 3.3 * SAMPLE_RATE
    assert np.sum((ours[:30000] - intact[:30000]) ** 2) < 1e-6 * np.sum(intact[:30000] ** 2)
    assert any("cut off" in warning for warning in warnings), warnings


def test_damage_in_the_middle_loses_only_that(tmp_path):
    path = write(tmp_path / "a.mp3", sound(5.0, 44100, 1), codec="libmp3lame")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(data)
    warnings: list[str] = []
    assert len(whole(path, warnings)) > 4.4 * SAMPLE_RATE
    assert warnings


def test_a_length_that_is_only_guessed_warns_of_nothing(tmp_path):
    options = {"write_xing": "0"}
    path = write(
        tmp_path / "a.mp3", sound(3.0), codec="libmp3lame", options=options, codec_options={"global_quality": "5"}
    )
    warnings: list[str] = []
    whole(path, warnings)
    assert warnings == []


# ── files that are no sound ──


def cause(path):
    with pytest.raises(MediaError) as caught:
        whole(path)
    assert caught.value.path == str(path)
    assert caught.value.detail
    return caught.value.cause


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("zero.wav", b"", "empty"),
        ("text.wav", b"These are notes, not sounds.\n" * 50, "not-audio"),
        ("text.mp3", b"These are notes, not sounds.\n" * 2000, "not-audio"),
        ("short.wav", b"hi", "not-audio"),
        ("subtitle.wav", b"1\n00:00:01,000 --> 00:00:02,000\nhello\n\n" * 9, "not-audio"),
        ("notes.txt", b"FFmpeg opens text as a film\n" * 50, "not-audio"),
        ("zeros.mp3", bytes(50000), "not-audio"),
        ("ones.mp3", b"\xff" * 50000, "not-audio"),
        ("riff.wav", b"RIFF\x24\0\0\0WAVE", "corrupt"),
        (
            "header.wav",
            b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data\0\0\0\0",
            "empty",
        ),
    ],
)
def test_what_is_not_sound_has_a_cause(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content)
    assert cause(path) == expected


@pytest.mark.parametrize("suffix", ["mp3", "wav", "aac", "ac3", "flac", "ogg", "m4a"])
def test_random_bytes_are_never_sound(tmp_path, suffix):
    for seed in range(12):
        path = tmp_path / f"random.{suffix}"
        path.write_bytes(np.random.default_rng(seed).bytes((300, 20_000, 200_000)[seed % 3]))
        assert cause(path) in ("not-audio", "corrupt")


def test_other_things_that_cannot_be_read(tmp_path, monkeypatch):
    assert cause(tmp_path / "none.wav") == "vanished"
    assert cause(write_silent_video(tmp_path / "silent.mp4")) == "no-audio-stream"
    (tmp_path / "x.wav").mkdir()
    assert cause(tmp_path / "x.wav") == "unreadable"
    os.mkfifo(tmp_path / "pipe.wav")
    assert cause(tmp_path / "pipe.wav") == "unreadable"
    locked = write(tmp_path / "locked.wav", sound(0.2))

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(demux, "open", refuse, raising=False)
    assert cause(locked) == "unreadable"


def test_a_read_error_in_mid_file_is_no_end(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", sound(20.0))
    read = demux._Source.read

    def failing(self, size):
        if self.tell() > 1_000_000:
            self.error = OSError(5, "Input/output error")
            raise self.error
        return read(self, size)

    monkeypatch.setattr(demux._Source, "read", failing)
    assert cause(path) == "unreadable"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file whose reading fails, for root too")
def test_an_input_output_error_on_opening(tmp_path):
    (tmp_path / "a.wav").symlink_to("/proc/self/mem")
    assert cause(tmp_path / "a.wav") == "unreadable"


def test_a_play_list_opens_nothing_else(tmp_path):
    secret = write(tmp_path / "secret.wav", sound(1.0))
    for name, text in [
        ("list.m3u8", f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n"),
        ("list.wav", f"ffconcat version 1.0\nfile {secret.name}\n"),
    ]:
        (tmp_path / name).write_text(text)
        assert cause(tmp_path / name) == "not-audio"


def test_names_of_any_bytes_and_silence_on_the_terminal(tmp_path, capfd):
    plain = write(tmp_path / "a.mp3", sound(1.0), codec="libmp3lame")
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 %d:\xff.MP3")
    plain.rename(odd)
    assert len(whole(odd)) == SAMPLE_RATE
    assert probe(odd).path == odd
    data = Path(odd).read_bytes()
    Path(odd).write_bytes(data[:3000] + b"\0\xff" * 500 + data[4000:])
    whole(odd)
    assert capfd.readouterr() == ("", "")


def test_tags_that_are_not_utf8(tmp_path):
    path = write(tmp_path / "a.wav", sound(0.3), tags={"title": "Title"})
    data = path.read_bytes()
    assert b"Title" in data
    path.write_bytes(data.replace(b"Title", b"T\xff\xe9le"))
    assert len(whole(path)) == 4800


# ── spans ──

SPANS = [
    ("a.wav", 44100, {}, 0),
    ("a.flac", 44100, {"codec": "flac"}, 0),
    ("a.mp3", 44100, {"codec": "libmp3lame"}, 1e-5),
    ("a.opus", 48000, {"codec": "libopus"}, 0),
    ("a.ogg", 44100, VORBIS, 0),
    ("a.mkv", 44100, {"codec": "flac"}, 0),
    ("a.mov", 11025, {"codec": "pcm_s16le", "video": True}, 0),
    ("lossless.m4a", 44100, {"codec": "alac"}, 0),
    ("a.m4a", 44100, {"codec": "aac"}, 0.1),  # noise that AAC makes up depends on what was decoded before
]


@pytest.mark.parametrize(("name", "rate", "options", "tolerance"), SPANS, ids=[case[0] for case in SPANS])
def test_a_span_is_what_decoding_gives_there(tmp_path, name, rate, options, tolerance):
    channels = 2 if name == "a.ogg" else 1
    path = str(write(tmp_path / name, sound(34.0, rate, channels), rate, **options))
    stream = whole(path)
    for start, end in [(0, 3), (2.5, 4.25), (25.1234, 30.5), (31, None), (33, 99)]:
        expected = stream[round(start * SAMPLE_RATE) : None if end is None else round(end * SAMPLE_RATE)]
        span = read_span(path, start, end)
        assert len(span) == len(expected)
        assert np.abs(span - expected).max() <= tolerance
        assert np.sum((span - expected) ** 2) <= 1e-3 * np.sum(expected**2)


def test_a_long_file_is_not_decoded_from_the_front(tmp_path, monkeypatch):
    path = str(write(tmp_path / "a.wav", sound(90.0, 16000), 16000))
    reads = []
    read = demux._Source.read

    def counting(self, size):
        data = read(self, size)
        reads.append(len(data))
        return data

    monkeypatch.setattr(demux._Source, "read", counting)
    read_span(path, 80, 82)
    assert sum(reads) < 0.6 * Path(path).stat().st_size


def test_a_span_that_cannot_be_meant(tmp_path):
    path = str(write(tmp_path / "a.wav", sound(1.0)))
    for start, end in [(-1, 2), (2, 2), (3, 2), (float("nan"), 3)]:
        with pytest.raises(UsageError, match="span"):
            read_span(path, start, end)
    with pytest.raises(UsageError, match=r"ends at 1\.00 s"):
        read_span(path, 50, 60)


# ── memory, imports ──


def test_memory_does_not_grow_with_the_file(tmp_path):
    path, size = tmp_path / "hours.wav", 2400 * 8000
    header = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8) + b"data" + struct.pack("<I", size)
    with open(path, "wb") as file:
        file.write(b"RIFF" + struct.pack("<I", len(header) + size) + header)
        file.truncate(44 + size)  # a sparse file: forty minutes of u8, nothing on the disk
    script = f"""
import resource
from audiosearch.audio import decode, packet_hash
from audiosearch.chunk import stream_chunks
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
chunks = stream_chunks(decode({str(path)!r}))
next(chunks)
before = peak()
packet_hash({str(path)!r})
print(sum(1 for _ in chunks), peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    n_chunks, grown = map(int, done.stdout.split())
    assert n_chunks == 2400 // 5 - 2  # 479, one of them taken before
    assert grown < 20  # MiB; the sound is 146 MiB as float32


def test_the_constants_cost_no_decoder(tmp_path):
    script = """
import sys
import audiosearch.audio, audiosearch.chunk, audiosearch.ingest.identity, audiosearch.ingest.workers
print([name for name in ("av", "torch", "transformers", "faiss", "sqlalchemy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
