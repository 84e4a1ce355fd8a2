"""Moments judged by the rules in `query/moments.py`, on drawn cases and on random ones."""

import itertools
import random

import pytest

from audiosearch.errors import UsageError
from audiosearch.query.moments import (
    TOUCH_SECONDS,
    Moment,
    ScoredChunk,
    by_file,
    covers,
    find_moments,
    without_overlaps,
)


def chunk(start: float, end: float, score: float, *, recording: int = 1, name: str = "a.wav", judged: bool = True):
    return ScoredChunk(
        vector_id=recording * 1000 + int(start),
        recording_id=recording,
        packet_hash=bytes([recording]) * 16,
        start_seconds=start,
        end_seconds=end,
        score=score,
        paths=(("/r", name),),
        judged=judged,
    )


def spans(moments: list[Moment]) -> list[tuple[float, float]]:
    return [(moment.start_seconds, moment.end_seconds) for moment in moments]


def test_neighbours_that_score_alike_are_one_moment_with_its_curve():
    chunks = [chunk(0, 10, 0.62), chunk(5, 15, 0.66), chunk(10, 20, 0.60), chunk(15, 25, 0.30)]
    first, second = find_moments(chunks)
    assert (first.start_seconds, first.end_seconds, first.score) == (0, 20, 0.66)
    assert first.curve == ((0, 10, 0.62), (5, 15, 0.66), (10, 20, 0.60))
    assert (second.start_seconds, second.end_seconds, second.score) == (15, 25, 0.30)  # shares half, not more


def test_a_lasting_sound_is_one_moment_and_a_gap_ends_it():
    lasting = [chunk(start, start + 10, 0.5) for start in range(0, 60, 5)]
    later = [chunk(start, start + 10, 0.5) for start in range(70, 90, 5)]
    assert spans(find_moments(lasting + later)) == [(0, 65), (70, 95)]


def test_chunks_up_to_the_merge_gap_apart_are_one_moment():
    barks = [chunk(0, 10, 0.6), chunk(5, 15, 0.2), chunk(10, 20, 0.2), chunk(13, 23, 0.58), chunk(30, 40, 0.59)]
    assert spans(find_moments(barks)) == [(0, 10), (30, 40), (13, 23), (5, 15)]
    assert spans(find_moments(barks, merge_gap_seconds=2.9)) == [(0, 10), (30, 40), (13, 23), (5, 15)]
    assert spans(find_moments(barks, merge_gap_seconds=3.0)) == [(0, 23), (30, 40)]
    joined = find_moments(barks, merge_gap_seconds=7.0)
    assert spans(joined) == [(0, 40)]
    assert joined[0].score == 0.6
    assert [score for _, _, score in joined[0].curve] == [0.6, 0.58, 0.59], (
        "what lies between is weak and no part of it"
    )


@pytest.mark.parametrize("gap", [-0.1, float("nan")])
def test_a_gap_that_cannot_be_meant_is_refused(gap: float):
    with pytest.raises(UsageError, match="merge gap"):
        find_moments([], merge_gap_seconds=gap)


def test_by_file_is_the_best_of_each_recording():
    found = find_moments(
        [
            chunk(0, 10, 0.5),
            chunk(20, 30, 0.6),
            chunk(0, 10, 0.7, recording=2, name="b.wav", judged=False),
            chunk(20, 30, 0.4, recording=2, name="b.wav"),
        ]
    )
    best = by_file(found)
    assert [(each.peak.recording_id, each.start_seconds, each.score) for each in best] == [(1, 20, 0.6), (2, 20, 0.4)]


def test_spans_that_changed_overlap_no_more():
    def moment(start: float, end: float, recording: int = 1) -> Moment:
        return Moment(chunk(0, 10, 0.5, recording=recording), start, end, ())

    given = [moment(0, 4), moment(1, 9), moment(3, 5), moment(2, 10), moment(4, 8), moment(0, 4, recording=2)]
    assert spans(without_overlaps(given)) == [(0, 4), (3, 5), (4, 8), (0, 4)]


def test_a_weak_overlapping_window_is_dropped_not_merged():
    assert spans(find_moments([chunk(0, 10, 0.8), chunk(4, 14, 0.4)])) == [(0, 10)]


def test_windows_of_a_short_clip_keep_their_precision():
    """The whole clip lies over its windows: a window that scores best is not widened to all of it."""
    whole, early, late = chunk(0, 30, 0.58), chunk(5, 15, 0.6), chunk(20, 30, 0.3)
    assert spans(find_moments([whole, early, late])) == [(5, 15), (20, 30)]
    assert spans(find_moments([chunk(0, 30, 0.7), early, late])) == [(0, 30)]


def test_recordings_do_not_mix():
    found = find_moments([chunk(0, 10, 0.5), chunk(5, 15, 0.5, recording=2, name="b.wav")])
    assert spans(found) == [(0, 10), (5, 15)]


def test_judged_come_before_not_judged_and_do_not_merge_with_them():
    found = find_moments([chunk(0, 10, 0.9, judged=False), chunk(10, 20, 0.2), chunk(40, 50, 0.1)])
    assert spans(found) == [(10, 20), (40, 50), (0, 10)]


def test_scores_below_zero_and_equal_ones_are_ranked_too():
    found = find_moments([chunk(0, 10, -0.5), chunk(10, 20, -0.4), chunk(0, 10, -0.4, recording=2, name="b.wav")])
    assert [(moment.peak.recording_id, moment.start_seconds) for moment in found] == [(1, 10), (2, 0), (1, 0)]


def test_a_difference_below_the_noise_of_arithmetic_is_a_tie():
    one, other = chunk(0, 10, 0.5, name="b.wav"), chunk(0, 10, 0.5 + 1e-8, recording=2, name="c.wav")
    third = chunk(0, 10, 0.5 - 1e-8, recording=3, name="a.wav")
    assert [moment.peak.paths[0][1] for moment in find_moments([one, other, third])] == ["a.wav", "b.wav", "c.wav"]


def test_id_names_content_and_span_only():
    one, again = find_moments([chunk(0, 10, 0.5)])[0], find_moments([chunk(0, 10, 0.7, name="renamed.wav")])[0]
    assert one.id == again.id
    assert len(one.id) == 12
    int(one.id, 16)
    assert one.id != find_moments([chunk(0, 11, 0.5)])[0].id
    assert one.id != find_moments([chunk(0, 10, 0.5, recording=2)])[0].id


@pytest.mark.parametrize("merge_gap_seconds", [0.0, 1.0, 12.0])
@pytest.mark.parametrize("seed", range(60))
def test_random_windows(seed: int, merge_gap_seconds: float):
    """No two moments of a recording share more than half, nothing found is lost; order of arrival does not matter."""
    rng = random.Random(seed)
    hop = rng.choice([1.0, 2.5, 5.0])
    n_windows = rng.randrange(1, 40)
    chunks = [
        chunk(i * hop, i * hop + 10, rng.choice([0.3, 0.5, 0.52, rng.uniform(-0.2, 0.8)]), judged=rng.random() < 0.8)
        for i in range(n_windows)
    ]
    chunks.append(chunk(0, n_windows * hop + 10, rng.uniform(-0.2, 0.8)))
    chunks = rng.sample(chunks, k=rng.randrange(1, len(chunks) + 1))
    found = find_moments(chunks, merge_gap_seconds=merge_gap_seconds)
    for one, other in itertools.combinations(found, 2):
        shared = min(one.end_seconds, other.end_seconds) - max(one.start_seconds, other.start_seconds)
        shorter = min(one.end_seconds - one.start_seconds, other.end_seconds - other.start_seconds)
        assert shared <= shorter / 2 + TOUCH_SECONDS
    for each in chunks:
        assert any(
            covers(moment.start_seconds, moment.end_seconds, each.start_seconds, each.end_seconds)
            and moment.peak.rank_key <= each.rank_key
            for moment in found
        ), "every chunk is in, or is mostly covered by, a moment that ranks at least as high"
    assert found[0].peak.rank_key == min(each.rank_key for each in chunks)
    assert [moment.peak.rank_key for moment in found] == sorted(moment.peak.rank_key for moment in found)
    assert without_overlaps(found) == found
    rng.shuffle(chunks)
    assert find_moments(chunks, merge_gap_seconds=merge_gap_seconds) == found
