"""A clip played faster or slower in the mel domain, judged by the same done to its samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scene_helpers import DOG, FLUTE, LEFT, RIGHT, make_pack, rngs

from audiosearch.features import SAMPLE_RATE, log_mel
from audiosearch.trainer.synthesis import signals
from audiosearch.trainer.synthesis.draw import ClipDraw
from audiosearch.trainer.synthesis.scenes import SceneMaker
from audiosearch.trainer.synthesis.speed import played


def decibels(samples: np.ndarray) -> np.ndarray:
    return log_mel(torch.from_numpy(samples)).numpy().T


def vowel() -> np.ndarray:
    """A gliding voice of three formants, one second."""
    rng = np.random.default_rng(0)
    at = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    phase = 2 * np.pi * np.cumsum(140 + 40 * at) / SAMPLE_RATE
    source = sum(np.cos(k * phase) / k for k in range(1, 40)) + 0.01 * rng.standard_normal(len(at))
    bands = [(500, 900), (1_100, 1_500), (2_300, 2_900)]
    parts = [signals.convolved(source.astype(np.float32), formant(low, high), len(source)) for low, high in bands]
    return signals.normalised(np.sum(parts, axis=0).astype(np.float32))


def formant(low_hz: float, high_hz: float) -> np.ndarray:
    at = np.arange(-256, 257) / SAMPLE_RATE
    window = np.hanning(len(at))
    return ((np.sinc(2 * high_hz * at) * high_hz - np.sinc(2 * low_hz * at) * low_hz) * window).astype(np.float32)


@pytest.mark.parametrize("percent", [75, 88, 115, 133])
def test_it_is_nearly_what_samples_played_so_give(percent: int):
    samples = vowel()
    wanted = decibels(signals.resampled(samples, percent))
    made = 10 * np.log10(played((10 ** (decibels(samples) / 10)).astype(np.float32), percent / 100) + 1e-12)
    frames = min(len(wanted), len(made))
    assert abs(len(wanted) - len(made)) <= 2
    wanted, made, as_it_was = wanted[:frames], made[:frames], np.resize(decibels(samples), (frames, 64))
    loud = wanted > wanted.max() - 40
    # The level moves with the width of the filters; nothing hears a clip's absolute level in training.
    error, without = (
        np.abs(wanted - other - np.median((wanted - other)[loud]))[loud].mean() for other in (made, as_it_was)
    )
    assert error < 4 and error < without / 2


def test_at_its_own_speed_nothing_changes():
    power = np.random.default_rng(0).random((20, 64), dtype=np.float32)
    assert played(power, 1.0) is power
    assert played(power[:1], 0.8).shape == (1, 64)


def test_two_voices_of_one_speaker_are_two_speeds():
    draw = ClipDraw(make_pack().rows, 0.0, np.array([LEFT, RIGHT]))  # one speaker, both words
    for rng in rngs(50):
        drawn = draw.square(rng)
        assert drawn is not None
        (one, two), clips = drawn
        assert one.family == two.family == "v1" and str(one) != str(two)
        assert max(one.speed / two.speed, two.speed / one.speed) > 1.18
        assert sorted(row[0] for row in clips) == sorted(row[1] for row in clips) == [LEFT, RIGHT]


def test_speeds_are_drawn_for_all_but_music_and_speech():
    pack = make_pack()
    maker = SceneMaker(pack, augment=1.0, speeds=(0.8, 1.25))
    drawn = {clip: {maker._speed(rng, clip) for rng in rngs(200)} for clip in (DOG, FLUTE, RIGHT)}
    assert drawn[FLUTE] == drawn[RIGHT] == {1.0}
    assert 0.8 <= min(drawn[DOG]) < 0.85 and 1.2 < max(drawn[DOG]) <= 1.25
    assert {SceneMaker(pack, augment=1.0)._speed(rng, DOG) for rng in rngs(20)} == {1.0}


def test_a_fast_clip_is_shorter_and_higher_in_a_scene():
    maker = SceneMaker(make_pack(), augment=0.0)
    slow, fast = (
        maker.single(np.random.default_rng(0), RIGHT, 40, keep_short=True, speed=speed).mel for speed in (0.8, 1.3)
    )
    assert slow.mean(axis=0).argmax() < fast.mean(axis=0).argmax()
    assert len(slow) == len(fast) == 40  # a window of the clip, as much of it as is heard in that time
