"""The same recording under other names and tags, and what makes it another one."""

import os

import pytest
from make_media import sound, write

from audiosearch.audio import packet_hash
from audiosearch.errors import MediaError
from audiosearch.ingest.identity import file_stat, identify

KINDS = [
    ("mp3", {"codec": "libmp3lame"}),
    ("flac", {"codec": "flac"}),
    ("m4a", {"codec": "aac"}),
    ("wav", {}),
    ("ogg", {"codec": "vorbis", "codec_options": {"strict": "-2"}}),
    ("opus", {"codec": "libopus"}),
    ("mkv", {"codec": "flac"}),
]


@pytest.mark.parametrize(("suffix", "options"), KINDS, ids=[kind[0] for kind in KINDS])
def test_tags_and_names_do_not_count_but_sound_does(tmp_path, suffix, options):
    samples = sound(1.0, 48000, 2)
    first = write(tmp_path / f"a.{suffix}", samples, 48000, **options)
    tags = {"title": "Rain on a tin roof " * 20, "artist": "Someone"}
    second = write(tmp_path / f"b.{suffix}", samples, 48000, tags=tags, **options)
    assert first.read_bytes() != second.read_bytes()
    assert packet_hash(str(first)) == packet_hash(str(second))
    third = write(tmp_path / f"c.{suffix}", sound(1.0, 48000, 2, seed=1), 48000, **options)
    assert packet_hash(str(first)) != packet_hash(str(third))


def test_the_same_bytes_at_another_rate_are_another_sound(tmp_path):
    samples = sound(1.0, 48000)
    one, two = write(tmp_path / "a.wav", samples, 48000), write(tmp_path / "b.wav", samples, 44100)
    stereo = write(tmp_path / "c.wav", samples.reshape(-1, 2).T, 48000)
    assert len({packet_hash(str(path)) for path in (one, two, stereo)}) == 3


def test_identify(tmp_path):
    path = write(tmp_path / "a.wav", sound(1.0, 22050, 2), 22050)
    os.utime(path, ns=(5, 7))
    calls = []
    identity = identify(str(path), lambda: calls.append(1))
    found = path.stat()
    assert identity.stat == (found.st_size, 7, found.st_ino) == file_stat(str(path))
    assert identity.packet_hash == packet_hash(str(path))
    assert len(identity.packet_hash) == 16
    assert (identity.info.codec, identity.info.sample_rate, identity.info.channels) == ("pcm_s16le", 22050, 2)
    assert identity.info.duration_seconds == pytest.approx(1.0)
    assert calls
    with pytest.raises(MediaError) as caught:
        identify(str(tmp_path / "none.wav"))
    assert caught.value.cause == "vanished"
