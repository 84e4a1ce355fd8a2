"""Refinement judged by sounds put at known places, heard by a model computed by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
from toy import EDGES, SAMPLE_RATE, WORDS, HandEmbedder, noise, tone

from audiosearch.chunk import plan
from audiosearch.query import refine as module
from audiosearch.query.moments import Moment, ScoredChunk, covers, find_moments
from audiosearch.query.refine import Refined, fit_sounds, refine
from audiosearch.types import Samples, Vectors

RUMBLE = 50.0  # Hz


def whistle(seconds: float, level: float = 0.1) -> Samples:
    """A tone in each band that the word names."""
    return np.sum([tone(float(EDGES[band]) * 1.2, seconds, level=level) for band in WORDS["whistle"]], axis=0)


def sound_of(seconds: float, *whistles: tuple[float, float], level: float = 0.1, seed: int = 0) -> Samples:
    """A rumble with a little noise, and whistles at `(start, end)` seconds."""
    sound = tone(RUMBLE, seconds, level=0.2) + noise(seed, seconds, level=0.02)
    for start, end in whistles:
        first, last = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
        sound[first:last] += whistle((last - first) / SAMPLE_RATE, level)
    return sound


class Listener:
    """Recordings by the name of their file, with everything that is read and embedded of them counted."""

    def __init__(self, **sounds: Samples) -> None:
        self.sounds = sounds
        self.model = HandEmbedder()
        self.target = self.model.embed_text(["whistle"])[0]
        self.reads: list[tuple[float, float | None]] = []
        self.seconds_embedded = 0.0

    def read_span(self, path: str, start: float = 0.0, end: float | None = None) -> Samples:
        name = path.removeprefix("/r/")
        if name not in self.sounds:
            raise FileNotFoundError(path)
        self.reads.append((start, end))
        samples = self.sounds[name]
        assert start >= 0
        return samples[round(start * SAMPLE_RATE) : None if end is None else round(end * SAMPLE_RATE)]

    def embed(self, sounds: Sequence[Samples]) -> Vectors:
        assert all(each.any() for each in sounds)
        self.seconds_embedded += sum(map(len, sounds)) / SAMPLE_RATE
        return self.model.embed_audio(sounds)

    def moments(self, *, merge_gap_seconds: float = 0.0) -> list[Moment]:
        """As a query finds them, by chunks of ten seconds."""
        chunks = []
        for number, (name, samples) in enumerate(self.sounds.items()):
            for first, last in plan(len(samples)):
                vector = self.model.embed_audio([samples[first:last]])[0]
                chunks.append(
                    ScoredChunk(
                        vector_id=len(chunks),
                        recording_id=number,
                        packet_hash=name.encode(),
                        start_seconds=first / SAMPLE_RATE,
                        end_seconds=last / SAMPLE_RATE,
                        score=float(vector @ self.target),
                        paths=(("/r", name),),
                    )
                )
        return find_moments(chunks, merge_gap_seconds=merge_gap_seconds)

    def refined(self, moments: Sequence[Moment], *, top: int = 10, **options: object) -> Refined:
        options = {"budget_seconds": 60.0, "clock": lambda: 0.0, **options}
        return refine(
            moments,
            self.embed,
            self.read_span,
            lambda rows: rows @ self.target,
            sample_rate=SAMPLE_RATE,
            top=top,
            **options,  # type: ignore[arg-type]
        )


def span(moment: Moment) -> tuple[float, float]:
    return moment.start_seconds, moment.end_seconds


def is_near(moment: Moment, start: float, end: float, seconds: float = 0.55) -> bool:
    return abs(moment.start_seconds - start) <= seconds and abs(moment.end_seconds - end) <= seconds


# -- the fit -------------------------------------------------------------------------------------------------------


def windows_over(seconds: float, length: float = 2.0, hop: float = 0.5) -> np.ndarray:
    starts = np.arange(0, seconds - length + 1e-6, hop)
    return np.stack([starts, starts + length], axis=1)


def candidates_over(seconds: float, step: float = 0.25) -> np.ndarray:
    grid = np.arange(0, seconds + 1e-6, step)
    return np.array([(start, end) for start in grid for end in grid if end - start >= 0.5])


def heard(windows: np.ndarray, *sounds: tuple[float, float, float]) -> np.ndarray:
    """Scores as the fit takes them to be, of sounds (start, end, step) over a level of 0.1."""
    scores = np.full(len(windows), 0.1)
    for start, end, step in sounds:
        shared = np.minimum(windows[:, 1], end) - np.maximum(windows[:, 0], start)
        scores += step * (np.maximum(shared, 0) / (windows[:, 1] - windows[:, 0])) ** module.FULLNESS
    return scores


@pytest.mark.parametrize(("start", "end"), [(7.25, 8.25), (3.0, 9.5), (0.0, 4.0), (15.0, 20.0), (6.5, 7.0)])
def test_the_span_behind_the_scores_is_found(start: float, end: float):
    windows, candidates = windows_over(20), candidates_over(20)
    [(row, step)] = fit_sounds(windows, heard(windows, (start, end, 0.4)), candidates)
    assert tuple(candidates[row]) == (start, end)
    assert step == pytest.approx(0.4)


def test_the_scale_of_the_scores_does_not_matter():
    windows, candidates = windows_over(20), candidates_over(20)
    rough = heard(windows, (6.0, 9.0, 0.4)) + np.random.default_rng(0).normal(0, 0.03, len(windows))
    [(row, step)] = fit_sounds(windows, rough, candidates)
    [(again, scaled)] = fit_sounds(windows, rough / 100, candidates)
    assert row == again
    assert scaled == pytest.approx(step / 100)
    assert abs(candidates[row] - (6.0, 9.0)).max() <= 0.25


def test_a_second_sound_is_one_if_it_is_about_as_strong():
    windows, candidates = windows_over(20), candidates_over(20)
    found = fit_sounds(windows, heard(windows, (2.0, 4.0, 0.4), (11.0, 15.0, 0.35)), candidates)
    spans = sorted(tuple(candidates[row]) for row, _ in found)
    assert np.abs(np.array(spans) - [(2.0, 4.0), (11.0, 15.0)]).max() <= 0.25
    weak = fit_sounds(windows, heard(windows, (2.0, 4.0, 0.4), (11.0, 15.0, 0.1)), candidates)
    assert [tuple(candidates[row]) for row, _ in weak] == [(2.0, 4.0)]


def test_nothing_stands_out_of_what_is_even_or_rough():
    windows, candidates = windows_over(20), candidates_over(20)
    assert fit_sounds(windows, np.full(len(windows), 0.5), candidates) == []
    rough = np.random.default_rng(1).normal(0.5, 0.05, len(windows))
    assert fit_sounds(windows, rough, candidates) == []


# -- moments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "end"), [(23.4, 26.1), (0.0, 2.0), (57.6, 60.0), (12.2, 20.9), (31.0, 32.0)])
def test_the_ends_of_a_sound_are_found(start: float, end: float):
    there = Listener(a=sound_of(60, (start, end)))
    before = there.moments()
    done = there.refined(before, top=1)
    best = done.moments[0]
    # At the beginning of a recording there is no window before the sound to tell where it begins.
    assert is_near(best, start, end, seconds=0.8 if start == 0 else 0.55)
    assert (done.refined, done.unreadable, done.left_out) == (1, 0, 0)
    assert best.score == best.refined_score > before[0].score
    assert best.peak == before[0].peak
    assert best.id != before[0].id, "an id names a span"
    assert len(best.curve) > len(before[0].curve)


def test_what_was_not_tried_stays_as_it_is_and_comes_after():
    there = Listener(a=sound_of(60, (23.4, 26.1)))
    before = there.moments()
    done = there.refined(before, top=1)
    rest = [moment for moment in done.moments if moment.refined_score is None]
    assert rest == [each for each in before[1:] if each in rest]
    assert list(done.moments) == [done.moments[0], *rest]


def test_two_sounds_in_one_moment_are_two_unless_the_gap_is_to_be_merged():
    there = Listener(a=sound_of(60, (16.0, 18.0), (26.5, 28.5)))
    chunk = there.moments()[0].peak
    before = Moment(chunk, 15.0, 30.0, ())
    first, second = there.refined([before]).moments
    earlier, later = sorted((first, second), key=span)
    assert is_near(earlier, 16.0, 18.0)
    assert is_near(later, 26.5, 28.5)
    assert first.score >= second.score
    assert first.id != second.id
    assert first.peak == second.peak == chunk
    [joined] = there.refined([before], merge_gap_seconds=9.0).moments
    assert span(joined) == (earlier.start_seconds, later.end_seconds)


def test_a_short_sound_outranks_a_long_faint_one_once_it_is_heard():
    """A second fills a tenth of its chunk, and all of a window."""
    there = Listener(a=sound_of(60, (31.0, 32.2), level=0.15), b=sound_of(60, (20.0, 30.0), level=0.06, seed=1))
    before = there.moments()
    assert [moment.peak.packet_hash for moment in before[:2]] == [b"b", b"a"], "as the chunks rank"
    after = there.refined(before, top=2).moments
    assert [moment.peak.packet_hash for moment in after[:2]] == [b"a", b"b"]
    assert is_near(after[0], 31.0, 32.2)


def test_of_a_long_moment_only_the_ends_are_heard():
    there = Listener(a=sound_of(200, (33.0, 158.0)))
    best = there.moments()[0]
    assert best.end_seconds - best.start_seconds > module.LONG_SECONDS
    before = there.seconds_embedded
    [moment] = there.refined([best]).moments
    assert is_near(moment, 33.0, 158.0)
    assert len(there.reads) == 2
    heard_seconds = 2 * (module.MARGIN_SECONDS + module.INNER_SECONDS) * module.WINDOW_SECONDS / module.HOP_SECONDS
    assert there.seconds_embedded - before <= heard_seconds


def test_a_sound_that_goes_on_all_the_time_keeps_its_span():
    there = Listener(a=sound_of(8, (0, 8)), b=sound_of(28, (0, 28)))
    before = there.moments()
    done = there.refined(before)
    assert {span(moment) for moment in done.moments} == {span(moment) for moment in before}
    assert {moment.id for moment in done.moments} == {moment.id for moment in before}
    assert done.refined == len(before)


def test_a_lasting_sound_is_ranked_like_the_others_by_what_was_heard():
    there = Listener(a=sound_of(60, (31.0, 32.2), level=0.06), b=sound_of(5, (0, 5), level=0.2), c=sound_of(1, (0, 1)))
    done = there.refined(there.moments(), top=20)
    assert [moment.peak.packet_hash for moment in done.moments[:3]] == [b"b", b"c", b"a"]
    assert is_near(done.moments[2], 31.0, 32.2)
    assert [span(moment) for moment in done.moments[:2]] == [(0.0, 5.0), (0.0, 1.0)]
    assert done.moments[1].score == pytest.approx(done.moments[1].peak.score), "it was one window then as now"


def test_two_moments_of_one_sound_become_one():
    there = Listener(a=sound_of(60, (24.0, 26.0)))
    chunk = there.moments()[0].peak
    both = [Moment(chunk, 17.0, 27.0, ()), Moment(chunk, 22.0, 32.0, ())]
    done = there.refined(both)
    assert len(done.moments) == 1
    assert is_near(done.moments[0], 24.0, 26.0)


def test_silence_is_not_embedded():
    silent = np.zeros(60 * SAMPLE_RATE, np.float32)
    silent[23 * SAMPLE_RATE : 26 * SAMPLE_RATE] = whistle(3)
    there = Listener(a=silent, b=np.zeros(60 * SAMPLE_RATE, np.float32))
    chunk = ScoredChunk(1, 1, b"a", 20.0, 30.0, 0.5, (("/r", "a"),))
    [moment] = there.refined([Moment(chunk, 20.0, 30.0, ())]).moments
    assert is_near(
        moment, 23.0, 26.0, seconds=module.WINDOW_SECONDS
    )  # a window of which a little sounds has no other sound
    nothing = Moment(ScoredChunk(2, 2, b"b", 20.0, 30.0, 0.5, (("/r", "b"),)), 20.0, 30.0, ())
    assert there.refined([nothing]).moments == (nothing,)


# -- what cannot be refined ------------------------------------------------------------------------------------------


def test_a_copy_is_read_where_a_file_is_gone_and_what_cannot_be_read_is_counted():
    there = Listener(a=sound_of(60, (23.0, 26.0)))
    peak = there.moments()[0].peak
    offline = ScoredChunk(9, 9, b"gone", 0.0, 10.0, 0.9, (("/r", "gone"),))
    copied = ScoredChunk(peak.vector_id, 0, b"a", 20.0, 30.0, 0.5, (("/r", "A"), ("/r", "a")))
    done = there.refined([Moment(offline, 0.0, 10.0, ()), Moment(copied, 20.0, 30.0, ())])
    assert (done.refined, done.unreadable, done.left_out) == (1, 1, 0)
    assert is_near(done.moments[0], 23.0, 26.0)
    assert done.moments[1] == Moment(offline, 0.0, 10.0, ())


def test_the_time_is_kept_and_what_it_left_out_is_counted():
    there = Listener(**{name: sound_of(30.5, (12.0, 15.0), seed=i) for i, name in enumerate("abcdef")})
    now = [0.0]

    def embed(sounds: Sequence[Samples]) -> Vectors:
        now[0] += 0.5
        return plain(sounds)

    before = [moment for moment in there.moments() if covers(*span(moment), 12.0, 15.0)][:6]
    plain, there.embed = there.embed, embed  # type: ignore[method-assign]
    done = there.refined(before, top=5, budget_seconds=1.7, clock=lambda: now[0])
    assert (done.refined, done.left_out) == (3, 2)
    assert [moment.refined_score is None for moment in done.moments] == [False] * 3 + [True] * 3
    now[0] = 0.0
    assert there.refined(before, top=5, budget_seconds=0.1, clock=lambda: now[0]).refined == 1, "one is always tried"
    nothing = there.refined(before, top=5, budget_seconds=0.0)
    assert nothing == Refined(tuple(before), 0, 0, 5)
    assert there.refined(before, top=0).moments == tuple(before)
    assert there.refined(before, cancelled=lambda: True).moments == tuple(before)


@pytest.mark.parametrize("seed", range(8))
def test_random_scenes(seed: int):
    """No two moments share more than half, the best is a whistle, nothing depends on the clock."""
    rng = np.random.default_rng(seed)
    starts = np.cumsum(rng.uniform(4, 14, 5))
    whistles = [(start, start + rng.uniform(1, 3)) for start in starts]
    there = Listener(a=sound_of(80, *whistles, level=float(rng.uniform(0.05, 0.2)), seed=seed))
    done = there.refined(there.moments())
    spans = [span(moment) for moment in done.moments]
    assert all(not covers(*one, *other) for i, one in enumerate(spans) for other in spans[:i])
    start, end = spans[0]
    assert any(first < end and start < last for first, last in whistles)
    assert len({moment.id for moment in done.moments}) == len(done.moments)
    assert there.refined(there.moments()) == done
