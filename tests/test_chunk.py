"""Spans as pure arithmetic, and the same spans from any stream of blocks."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiosearch.chunk import SAMPLE_RATE, chunk_hash, plan, stream_chunks
from audiosearch.errors import UsageError


def spans(seconds: float, **options: float) -> list[tuple[float, float]]:
    return [(a / SAMPLE_RATE, b / SAMPLE_RATE) for a, b in plan(round(seconds * SAMPLE_RATE), **options)]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, []),
        (0.05, [(0, 0.05)]),
        (10, [(0, 10)]),
        (10.5, [(0, 10.5)]),  # the tail joins the only window, which then is the whole
        (11, [(0, 10), (0, 11), (5, 11)]),
        (12, [(0, 10), (0, 12), (5, 12)]),
        (15.5, [(0, 10), (0, 15.5), (5, 15.5)]),
        (30, [(0, 10), (0, 30), (5, 15), (10, 20), (15, 25), (20, 30)]),
        (30.5, [(0, 10), (5, 15), (10, 20), (15, 25), (20, 30.5)]),
        (33, [(0, 10), (5, 15), (10, 20), (15, 25), (20, 30), (25, 33)]),
    ],
)
def test_spans(seconds, expected):
    assert spans(seconds) == expected


def test_spans_of_other_windows():
    assert spans(45, window_seconds=60, hop_seconds=60) == [(0, 45)]
    assert spans(5, window_seconds=2, hop_seconds=2) == [(0, 2), (0, 5), (2, 4), (4, 5)]
    assert spans(4.5, window_seconds=2, hop_seconds=2) == [(0, 2), (0, 4.5), (2, 4.5)]
    assert spans(2.6, window_seconds=1, hop_seconds=1) == [(0, 1), (0, 2.6), (1, 2), (2, 2.6)]


@pytest.mark.parametrize(
    ("window", "hop"), [(0, 0), (10, 0), (10, -1), (5, 10), (0.01, 0.01), (float("nan"), 5), (float("inf"), 5)]
)
def test_a_window_that_cannot_be_meant(window, hop):
    with pytest.raises(UsageError, match="window"):
        plan(16000, window_seconds=window, hop_seconds=hop)
    with pytest.raises(UsageError, match="window"):
        list(stream_chunks([np.zeros(16000, np.float32)], window_seconds=window, hop_seconds=hop))


geometry = st.tuples(st.floats(0.5, 40), st.floats(0.05, 1)).map(lambda each: (each[0], each[0] * each[1]))


@settings(deadline=None)
@given(n=st.integers(1, 80 * SAMPLE_RATE), shape=geometry)
def test_spans_cover_everything_and_none_repeats_the_one_before(n, shape):
    window, hop = shape
    found = plan(n, window_seconds=window, hop_seconds=hop)
    assert found == sorted(set(found))
    reach = 0
    for start, end in found:
        assert 0 <= start <= reach
        assert start < end <= n
        reach = max(reach, end)
    assert reach == n
    windows = [span for span in found if span != (0, n)]
    for before, after in pairwise(windows):
        assert after[1] > before[1]
        assert after[0] > before[0]
    longest = round(window * SAMPLE_RATE) + SAMPLE_RATE
    assert all(end - start < longest for start, end in windows)
    if n <= 30 * SAMPLE_RATE:
        assert (0, n) in found


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 45 * SAMPLE_RATE),
    sizes=st.lists(st.integers(500, 20 * SAMPLE_RATE), min_size=1, max_size=6),
    shape=st.one_of(st.just((10.0, 5.0)), geometry.filter(lambda each: each[1] > 0.3)),
)
def test_the_stream_gives_the_planned_spans_for_any_blocks(n, sizes, shape):
    window, hop = shape
    sound = (np.arange(n) % 65536 / 65536).astype(np.float32)
    chunks = list(stream_chunks(blocks_of(sound, sizes), window_seconds=window, hop_seconds=hop))
    expected = plan(n, window_seconds=window, hop_seconds=hop)
    assert [(c.start_seconds, c.end_seconds) for c in chunks] == [
        (a / SAMPLE_RATE, b / SAMPLE_RATE) for a, b in expected
    ]
    for chunk, (start, end) in zip(chunks, expected, strict=True):
        np.testing.assert_array_equal(chunk.samples, sound[start:end])
        assert chunk.chunk_hash == chunk_hash(sound[start:end])


def blocks_of(sound, sizes):
    position, i = 0, 0
    while position < len(sound):
        yield sound[position : position + sizes[i % len(sizes)]]
        position += sizes[i % len(sizes)]
        i += 1


def test_blocks_of_one_sample():
    sound = np.linspace(-1, 1, 3000, dtype=np.float32)
    chunks = list(stream_chunks(blocks_of(sound, [1]), window_seconds=0.1, hop_seconds=0.05))
    assert [(c.start_seconds, c.end_seconds) for c in chunks] == spans(
        3000 / 16000, window_seconds=0.1, hop_seconds=0.05
    )


def test_the_stream_holds_little():
    taken = 0

    def endless():
        nonlocal taken
        for _ in range(600):
            taken += 1
            yield np.zeros(SAMPLE_RATE, np.float32)

    for emitted, chunk in enumerate(stream_chunks(endless())):
        # Never ahead by more than the 30 s that tell a short recording, then by a window and a second.
        assert taken - chunk.start_seconds <= (31 if emitted < 5 else 12)
        assert chunk.samples.base is None  # a view would keep the buffer alive


def test_silence_and_hashes():
    quiet = np.full(SAMPLE_RATE, 1e-5, np.float32)  # under half a 16-bit step
    (chunk,) = stream_chunks([quiet])
    assert chunk.silent
    (chunk,) = stream_chunks([quiet * 3])
    assert not chunk.silent
    assert chunk.chunk_hash != chunk_hash(quiet)
    assert len(chunk.chunk_hash) == 16
    assert chunk_hash(np.float32([0.5, -1.0, 1.0])) == chunk_hash(np.float32([0.500005, -1.0, 0.99999]))
