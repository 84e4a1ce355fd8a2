"""What one file may cost: time, memory, sound; and files made to cost more."""

import os
import sys
from types import SimpleNamespace

import hostile_media
import numpy as np
import pytest
import toy
from test_workers import InChild, pids, run

from audiosearch.audio import read_packets
from audiosearch.config import Limits
from audiosearch.errors import MediaError
from audiosearch.ingest import limits
from audiosearch.ingest.limits import Watch
from audiosearch.ingest.workers import DecodePool, Done, Failed, Job

SLOW = Limits(stall_seconds=10, min_speed=2)


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by `clock(seconds)` alone."""
    now = [0.0]
    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def forward(seconds):
        now[0] += seconds

    return forward


def cause(of):
    with pytest.raises(MediaError) as raised:
        of()
    return raised.value.cause


def test_a_file_has_time_by_its_size_and_its_sound(clock):
    watch = Watch("a.wav", 4_000_000, SLOW, lambda: None)
    clock(12)  # ten, and two for four MB
    watch()
    watch.heard(6)
    clock(3)
    watch()
    clock(2)
    with pytest.raises(MediaError, match=r"6 s of sound in 17 s: .*file_min_speed = 2.*retry --cause too-slow"):
        watch()


def test_time_that_the_parent_takes_does_not_count(clock):
    signs = []
    watch = Watch("a.wav", 0, SLOW, lambda: (signs.append(1), clock(100)))
    for _ in range(5):
        clock(1.5)
        watch()
    assert len(signs) == 5
    with watch.waiting():
        clock(100)
    clock(1)
    watch()
    clock(2)
    assert cause(watch) == "too-slow"


def test_signs_of_life_come_once_a_second(clock):
    signs = []
    watch = Watch("a.wav", 0, Limits(), lambda: signs.append(1))
    for _ in range(100):
        clock(0.125)
        watch()
    assert len(signs) == 12


def test_sound_is_limited_in_hours_and_by_the_size(clock):
    watch = Watch("a.flac", 4000, Limits(max_hours=2, max_seconds_per_byte=0.5), lambda: None)
    watch.heard(600 + 2000)
    with pytest.raises(MediaError, match=r"4,000 bytes give more than 0\.7 h of sound: .*file_max_seconds_per_byte"):
        watch.heard(600 + 2001)
    watch = Watch("a.wav", 10**9, Limits(max_hours=2), lambda: None)
    watch.heard(7200)
    with pytest.raises(MediaError, match="longer than file_max_hours = 2"):
        watch.heard(7201)


linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to RLIMIT_DATA")


@linux
def test_memory_is_limited_to_one_file(tmp_path):
    toy.write_wav(tmp_path / "a.wav", toy.tone(440, 1))
    path = str(tmp_path / "a.wav")
    code = "import audiosearch.ingest.workers as w\ndef f(*a): bytearray(200 << 20)\nw.identify = f"
    back = "import audiosearch.ingest.workers as w, audiosearch.ingest.identity as i; w.identify = i.identify"
    with DecodePool(1, limits=Limits(memory_mb=100)) as pool:
        found = run(pool, [InChild(Job(1, path), code)])
        assert found[1] == [Failed(1, "too-large", "reading it takes more memory than file_memory_mb = 100")]
        process = pids(pool)
        assert isinstance(run(pool, [InChild(Job(2, path), back)])[2][-1], Done)
        assert pids(pool) == process


@linux
def test_ffmpeg_runs_out_of_memory_and_python_goes_on(tmp_path):
    toy.write_wav(tmp_path / "a.wav", toy.tone(440, 1))
    path = str(tmp_path / "a.wav")
    code = """
import audiosearch.ingest.workers as w
def f(*a):
    import av
    frames = []
    while True:
        frames.append(av.AudioFrame(format="dbl", layout="stereo", samples=1 << 20))
w.identify = f
"""
    with DecodePool(1, limits=Limits(memory_mb=100)) as pool:
        assert [message.cause for message in run(pool, [InChild(Job(1, path), code)])[1]] == ["too-large"]


@linux
def test_a_process_that_keeps_memory_is_replaced(tmp_path):
    toy.write_wav(tmp_path / "a.wav", toy.tone(440, 1))
    path = str(tmp_path / "a.wav")
    with DecodePool(1, limits=Limits(memory_mb=100)) as pool:
        assert isinstance(run(pool, [Job(1, path)])[1][-1], Done)
        (before,) = pids(pool)
        keeps = "import audiosearch.ingest.workers as w; w.kept = bytearray(60 << 20)"
        assert isinstance(run(pool, [InChild(Job(2, path), keeps)])[2][-1], Done)
        assert pids(pool) == []
        assert isinstance(run(pool, [Job(3, path)])[3][-1], Done)
        assert pids(pool) != [before]


TONE = (np.sin(np.arange(32000) * 0.1) * 9000).astype("<i2").tobytes()


@pytest.mark.parametrize(
    ("make", "expected", "says"),
    [
        (lambda p: hostile_media.flac_bomb(p, 30), "too-large", "432 bytes give more than 0.3 h"),
        (lambda p: hostile_media.wav(p, TONE, channels=0), "corrupt", "nothing decodes"),
        (lambda p: hostile_media.wav(p, TONE, channels=128), "too-large", "128 channels"),
        (lambda p: hostile_media.wav(p, TONE, channels=65535), "corrupt", "nothing decodes"),
        (lambda p: hostile_media.wav(p, TONE, rate=0), "corrupt", "header"),
        (lambda p: hostile_media.wav(p, TONE, rate=1), "corrupt", "a sample rate of 1 Hz"),
        (lambda p: hostile_media.wav(p, TONE, rate=2**31 - 1), "corrupt", "a sample rate of 2,147,483,647 Hz"),
        (lambda p: hostile_media.wav(p, TONE[:2], rate=20_000_000), "empty", "one sample"),
        (lambda p: os.mkfifo(p), "unreadable", "not a regular file"),
        (lambda p: p.symlink_to("/dev/zero"), "unreadable", "not a regular file"),
    ],
    ids=["bomb", "channels0", "channels128", "channels65535", "rate0", "rate1", "rate2^31", "sample", "pipe", "device"],
)
def test_a_hostile_file_is_refused_with_its_cause(tmp_path, pool, make, expected, says):
    path = tmp_path / ("a.flac" if says.startswith("432") else "a.wav")
    make(path)
    last = run(pool, [Job(1, str(path))])[1][-1]
    assert isinstance(last, Failed)
    assert last.cause == expected and says in last.detail


@pytest.mark.parametrize(
    ("make", "seconds"),
    [
        (lambda p: hostile_media.many_streams(p, 10_000), 1.0),
        (lambda p: hostile_media.wav(p, TONE, data_size=2**32 - 1), 2.0),
        (lambda p: hostile_media.wav(p, np.full(16000, np.nan, "<f4").tobytes(), bits=32, tag=3), 1.0),
        (lambda p: hostile_media.wav(p, np.full(16000, np.inf, "<f4").tobytes(), bits=32, tag=3), 1.0),
        (lambda p: hostile_media.wav(p, TONE, channels=64), 500 / 16000),
    ],
    ids=["streams", "size", "nan", "infinite", "channels64"],
)
def test_an_odd_file_with_sound_in_it_is_read(tmp_path, pool, make, seconds):
    path = tmp_path / "a.wav"
    make(path)
    last = run(pool, [Job(1, str(path))])[1][-1]
    assert isinstance(last, Done), last
    assert last.duration_seconds == pytest.approx(seconds)


@pytest.fixture(scope="module")
def pool():
    with DecodePool(1) as pool:
        yield pool


def test_a_file_that_grows_while_it_is_read_ends_where_it_ended(tmp_path):
    path = hostile_media.wav(tmp_path / "a.wav", TONE * 8, data_size=2**32 - 1)  # its header says: to the end
    expected = read_packets(str(path))
    grown = 0

    def grow():
        nonlocal grown
        grown += 1
        with path.open("ab") as file:
            file.write(bytes(1 << 17))

    assert read_packets(str(path), grow)[0] == expected[0]
    assert grown > 3


def test_what_progress_raises_ends_the_reading(tmp_path):
    toy.write_wav(tmp_path / "a.wav", toy.tone(440, 30))
    calls = []

    def limit():
        calls.append(1)
        if len(calls) == 5:
            raise MediaError("a.wav", "too-slow", "for a test")

    assert cause(lambda: read_packets(str(tmp_path / "a.wav"), limit)) == "too-slow"
    assert len(calls) <= 6  # FFmpeg gets nothing more to read
