"""Two rankings as one, by hand and on random ones; moments with why they are there."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiosearch.query.fusion import best_matches, fuse, fuse_moments, levels, trusted, unheard
from audiosearch.query.moments import Moment, ScoredChunk, find_moments
from audiosearch.store.fulltext import TextMatch


def match(
    recording: int,
    score: float = 1.0,
    *,
    whole: bool = True,
    name: str = "a.wav",
    why: tuple[str, ...] = ("name: rain",),
) -> TextMatch:
    return TextMatch(recording * 10, ("/r", name), recording, score, whole, why)


def moments(*spans: tuple[int, float, float]) -> list[Moment]:
    """From (recording, start, score), ten seconds each."""
    return find_moments(
        ScoredChunk(at, recording, bytes([recording]) * 16, start, start + 10, score, (("/r", f"{recording}.wav"),))
        for at, (recording, start, score) in enumerate(spans)
    )


def test_what_both_find_is_before_what_one_finds():
    fused = fuse(["a", "b", "c"], ["c", "d"])
    assert [each.key for each in fused] == ["c", "a", "b", "d"]
    assert [(each.vector_rank, each.text_rank) for each in fused] == [(3, 1), (1, None), (2, None), (None, 2)]
    assert fused[0].score == pytest.approx(1 / 63 + 1 / 61)
    assert fused[1].score == pytest.approx(1 / 61)
    assert [each.score for each in fuse(["a"], [], k=0)] == [1.0]


def test_equal_texts_share_a_rank_and_then_the_sound_decides():
    fused = fuse(["a", "b", "c"], ["c", "b", "x", "a"], text_scores=[2.0, 2.0, 2.0, 1.0])
    assert [(each.key, each.text_rank) for each in fused] == [("b", 1), ("c", 1), ("a", 4), ("x", 1)]
    assert fuse(["a", "b", "c"], ["c", "b"])[0].key == "c"


def test_nothing_and_one_ranking_alone():
    assert fuse([], []) == []
    assert [each.key for each in fuse(["b", "a"], [])] == ["b", "a"]
    assert [each.key for each in fuse([], ["b", "a"])] == ["b", "a"]
    assert [each.key for each in fuse(["a", "b", "a"], ["b", "b"])] == ["b", "a"]


@given(st.permutations(range(8)), st.lists(st.tuples(st.integers(0, 11), st.integers(0, 3)), max_size=12))
def test_more_by_either_ranking_is_never_worse(by_sound: list[int], by_text: list[tuple[int, int]]):
    scores = sorted((score for _, score in by_text), reverse=True)
    fused = fuse(by_sound, [key for key, _ in by_text], text_scores=scores)
    assert len(fused) == len({each.key for each in fused}) == len({*by_sound, *(key for key, _ in by_text)})
    assert fused == fuse(by_sound, [key for key, _ in by_text], text_scores=scores)
    places = {each.key: place for place, each in enumerate(fused)}
    for one, other in itertools.permutations(fused, 2):
        ranks = ((one.vector_rank, other.vector_rank), (one.text_rank, other.text_rank))
        if all((a or 99) <= (b or 99) for a, b in ranks) and any((a or 99) < (b or 99) for a, b in ranks):
            assert places[one.key] < places[other.key]


def test_which_matches_are_trusted():
    whole, part = match(1), match(2, whole=False)
    assert trusted("auto", [whole, part]) == [whole]
    assert trusted("any", [whole, part]) == [whole, part]
    assert trusted("off", [whole, part]) == []


def test_a_recording_is_spoken_for_by_its_best_file():
    found = best_matches([match(2, 3.0, name="b"), match(1, 2.0, name="x"), match(2, 1.0, name="c")])
    assert list(found) == [2, 1] and found[2].place == ("/r", "b")
    assert levels([match(1, 3.0), match(2, 3.0), match(3, 3.0, whole=False), match(4, 1.0)]) == [0, 0, -1, -2]


def test_the_words_speak_for_the_best_moment_of_a_recording_alone():
    listed = moments((1, 0, 0.9), (2, 0, 0.8), (3, 40, 0.7), (3, 0, 0.6))
    found = fuse_moments(listed, best_matches([match(3)]))
    assert [(each.peak.recording_id, each.start_seconds, why) for each, why in found] == [
        (3, 40, ("sound", "name: rain")),
        (1, 0, ("sound",)),
        (2, 0, ("sound",)),
        (3, 0, ("sound",)),
    ]


def test_what_only_its_words_found_says_so():
    listed = moments((1, 0, 0.9), (2, 0, 0.1))
    matches = best_matches([match(2), match(7)])
    assert unheard(moments((1, 0, 0.9)), matches) == [2, 7]
    found = fuse_moments(listed, matches, unheard=[2, 7])
    assert [(each.peak.recording_id, why) for each, why in found] == [(2, ("name: rain",)), (1, ("sound",))]


def test_without_words_the_order_stays():
    listed = moments(*((number, 0, 1 / number) for number in range(1, 9)))
    assert [each for each, _ in fuse_moments(listed, {})] == listed
    assert {why for _, why in fuse_moments(listed, {})} == {("sound",)}
