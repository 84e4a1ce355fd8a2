"""Single instruments, blows, throats and things that are stirred: what their physics promise can be heard."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from audiosearch.trainer.manifest import ManifestRow
from audiosearch.trainer.synthesis import blows, facts, instruments, stirred, throats
from audiosearch.trainer.synthesis.generators import KINDS, generate
from audiosearch.trainer.synthesis.signals import SAMPLE_RATE

DRUMS = [name for name, made in instruments.INSTRUMENTS.items() if made.hertz is None]
MELODIC = [name for name in instruments.INSTRUMENTS if name not in DRUMS]


def rng(number: int) -> np.random.Generator:
    return np.random.default_rng((9, number))


def centroid_hz(samples: np.ndarray) -> float:
    hertz, power = scipy.signal.welch(samples, SAMPLE_RATE, nperseg=min(1_024, len(samples)))
    return float((hertz * power).sum() / power.sum())


def ringing_seconds(samples: np.ndarray) -> float:
    """Until the level stays 30 dB below its peak."""
    level = np.sqrt(np.convolve(samples**2, np.ones(160) / 160, "same"))
    return float(np.flatnonzero(level > level.max() * 10 ** (-30 / 20)).max() / SAMPLE_RATE)


def median(measure, make, count: int = 12) -> float:
    return float(np.median([measure(make(rng(number))) for number in range(count)]))


def pitch_agreement(samples: np.ndarray, hertz: float) -> float:
    """How alike the sound is to itself a period later, or two, as an organ may sound an octave lower."""
    held = samples[len(samples) // 4 : len(samples) // 4 + 4_000].astype(np.float64)
    lags = {round(periods * SAMPLE_RATE / hertz + off) for periods in (1, 2) for off in (-0.5, 0, 0.5)}
    return float(max(np.corrcoef(held[:-lag], held[lag:])[0, 1] for lag in lags))


@pytest.mark.parametrize("name", MELODIC)
def test_an_instrument_plays_the_note_it_is_given(name):
    low, high = instruments.INSTRUMENTS[name].hertz
    for number in range(6):
        hertz = float(np.exp(rng(number).uniform(np.log(low), np.log(min(high, 800)))))
        samples = instruments.INSTRUMENTS[name].play(rng(number), hertz, 1.0)
        # A tritone off, nothing agrees.
        assert pitch_agreement(samples, hertz) > 0.8 > 0.7 > pitch_agreement(samples, hertz * 2**0.5), (number, hertz)


def test_drums_lie_where_they_should():
    heights = {name: median(centroid_hz, lambda r, n=name: instruments.INSTRUMENTS[n].play(r, 0, 0)) for name in DRUMS}
    assert heights["kick drum"] < 500 < heights["snare drum"] < heights["hi-hat"]
    assert heights["kick drum"] < heights["tom drum"] < heights["hand drum"]
    rings = {
        name: median(ringing_seconds, lambda r, n=name: instruments.INSTRUMENTS[n].play(r, 0, 0)) for name in DRUMS
    }
    assert rings["hi-hat"] < rings["ride cymbal"] < rings["crash cymbal"]


def test_materials_ring_as_long_and_as_bright_as_they_should():
    def of(material: str):
        return lambda r: blows.blow(r, 0, material=material)

    rings = {material: median(ringing_seconds, of(material), 24) for material in blows._MATERIALS}
    assert max(rings["wood"], rings["plastic"], rings["stone"]) < min(rings["glass"], rings["metal"])
    bright = {material: median(centroid_hz, of(material), 24) for material in blows._MATERIALS}
    assert bright["wood"] < bright["stone"] < bright["glass"] and bright["wood"] < bright["ceramic"]


def test_what_breaks_goes_on_in_pieces_and_an_explosion_is_deeper_than_a_shot():
    whole = median(ringing_seconds, lambda r: blows.blow(r, 0, material="ceramic"))
    assert median(ringing_seconds, lambda r: blows.breaking(r, 0, material="ceramic")) > 1.5 * whole
    assert median(centroid_hz, lambda r: blows.explosion(r, 0)) < 0.5 * median(
        centroid_hz, lambda r: blows.gunshot(r, 0)[:1_600]
    )


def test_a_machine_gun_fires_many_times_a_second():
    for number in range(6):
        samples = blows.machine_gun(rng(number), 2.0)
        level = np.convolve(samples**2, np.ones(80) / 80, "same")
        peaks, _ = scipy.signal.find_peaks(level, height=0.2 * level.max(), distance=int(0.04 * SAMPLE_RATE))
        assert len(peaks) >= 4 and 0.05 < np.median(np.diff(peaks)) / SAMPLE_RATE < 0.16


def test_vowels_are_where_the_mouth_puts_them_and_a_monster_is_lower_than_a_scream():
    hertz = np.full(16_000, 110.0)
    for vowel, (first, *_) in throats._VOWELS.items():
        shape = throats.mouth(rng(1), vowel)
        found, power = scipy.signal.welch(
            throats.signals.filtered(throats.glottis(rng(1), hertz, 0.02, 0.1), shape), SAMPLE_RATE, nperseg=1_024
        )
        assert abs(found[np.argmax(power)] - first) < 160, vowel
    monster, scream = (throats.EFFECTS[name].make for name in ("monster", "scream"))
    assert 1.3 * median(centroid_hz, lambda r: monster(r, 1.0)) < median(centroid_hz, lambda r: scream(r, 1.0))


def test_swimming_is_stroke_after_stroke_and_a_pop_is_short():
    assert median(ringing_seconds, lambda r: stirred.pop(r, 0)) < 0.12
    strokes = []
    for number in range(6):
        level = np.convolve(np.abs(stirred.swimming(rng(number), 0)), np.ones(2_400) / 2_400, "same")
        strokes.append(len(scipy.signal.find_peaks(level, height=0.4 * level.max(), distance=8_000)[0]))
    assert min(strokes) >= 2


def test_a_generated_sound_is_the_same_sound_as_its_recorded_namesake():
    for kind, label in (
        ("hi-hat", "hi-hat"),
        ("wood hit", "wood hit"),
        ("crunch", "chewing"),
        ("splash", "water splash"),
    ):
        made = generate(kind, rng(0), 1.0)
        ours = ManifestRow("", made.phrases[0], label=made.label, sound_class=made.sound_class, group=made.group)
        theirs = ManifestRow("a.wav", "another caption", label=label)
        assert facts.content_of(ours) == facts.content_of(theirs)


def test_half_of_the_clips_hold_one_and_the_others_as_many_as_their_traits_say():
    counts = []
    for number in range(24):
        made = generate("gunshot", rng(number), 1.0)
        counts.append(made.traits.count)
        level = np.convolve(made.samples**2, np.ones(160) / 160, "same")
        shots, _ = scipy.signal.find_peaks(level, height=0.2 * level.max(), distance=int(0.25 * SAMPLE_RATE))
        assert len(shots) == made.traits.count, number
    assert 6 <= counts.count(1) <= 18 and max(counts) == 3
    assert generate("explosion", rng(0), 1.0).traits.count == 0


def test_names_do_not_collide():
    modules = (instruments, blows, throats, stirred)
    assert sum(len(module.KINDS) for module in modules) == len(set().union(*(module.KINDS for module in modules)))
    assert len(KINDS) > 100  # none of the older ones is hidden by a newer
