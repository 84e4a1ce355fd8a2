"""Generators of throats: a source of pulses or of breath, through the resonances of a mouth (Fant, 1960)."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from audiosearch.trainer.synthesis import signals
from audiosearch.trainer.synthesis.effects import Effect, kinds_of
from audiosearch.trainer.synthesis.signals import SAMPLE_RATE, Samples
from audiosearch.trainer.synthesis.tonal import oscillator

# First three formants of a man's vowels in Hz (Peterson and Barney, 1952).
_VOWELS = {"a": (730, 1_090, 2_440), "o": (570, 840, 2_410), "u": (300, 870, 2_240), "e": (530, 1_840, 2_480)}


def mouth(rng: np.random.Generator, vowel: str, size: float = 1.0) -> signals.Response:
    """The resonances of a vowel; `size` 1.2 is a smaller head, 0.6 a giant's."""
    peaks = [
        signals.peak(hertz * size * rng.uniform(0.92, 1.08), 0.25, 26 - 5 * i) for i, hertz in enumerate(_VOWELS[vowel])
    ]
    return signals.product(*peaks)


def glottis(rng: np.random.Generator, hertz: NDArray[np.float64], rough: float, breath: float) -> Samples:
    """Pulses at `hertz` (n,), their length trembling by `rough` (a share), and breath."""
    n = len(hertz)
    trembling = signals.noise(rng, n, signals.band(0, 60, 1)).astype(np.float64)
    made = oscillator(hertz * np.clip(1 + rough * trembling, 0.5, 1.6), n, "saw")
    return np.asarray(made + breath * signals.noise(rng, n), dtype=np.float32)


def _arch(rng: np.random.Generator, n: int, rise: float) -> Samples:
    """Loudness of one utterance: up within a share of it, and down."""
    at = np.linspace(0, 1, n)
    return (np.minimum(1, at / rise) * np.minimum(1, (1 - at) / rng.uniform(0.2, 0.7))).astype(np.float32)


def utterance(
    rng: np.random.Generator,
    _: float,
    *,
    hertz: tuple[float, float],
    seconds: tuple[float, float],
    bend: tuple[float, float],
    rough: tuple[float, float],
    breath: tuple[float, float],
    size: tuple[float, float],
    vowels: str,
) -> Samples:
    """One cry, groan or growl: ranges of pitch, length, the octaves it slides by, roughness, breath and size."""
    n = int(signals.between(rng, *seconds) * SAMPLE_RATE)
    slide = rng.uniform(*bend) * np.linspace(0, 1, n) ** rng.uniform(0.5, 2)
    pitch = signals.between(rng, *hertz) * 2 ** (slide + 0.08 * signals.slow_curve(rng, n, 4.0))
    voice = glottis(rng, pitch.astype(np.float64), rng.uniform(*rough), rng.uniform(*breath))
    shaped = signals.filtered(voice, mouth(rng, str(rng.choice(list(vowels))), rng.uniform(*size)))
    return signals.faded(shaped * _arch(rng, n, rng.uniform(0.05, 0.3)), 0.01, 0.03)


def laughter(rng: np.random.Generator, _: float) -> Samples:
    """Ha ha ha: some five a second, each a little lower and softer."""
    base, size, vowel = signals.between(rng, 110, 420), rng.uniform(0.95, 1.3), str(rng.choice(["a", "e", "o"]))
    shape, pieces, at = mouth(rng, vowel, size), [], 0.0
    for number in range(int(rng.integers(3, 12))):
        n = int(rng.uniform(0.08, 0.16) * SAMPLE_RATE)
        pitch = np.full(n, base * 0.97**number) * np.linspace(rng.uniform(1.0, 1.3), 1, n)
        ha = signals.filtered(glottis(rng, pitch, 0.05, rng.uniform(0.2, 0.9)), shape)
        pieces.append((at, signals.faded(ha * _arch(rng, n, 0.15), 0.005, 0.02) * np.float32(0.94**number)))
        at += float(rng.uniform(0.16, 0.26))
    return signals.placed(int((at + 0.2) * SAMPLE_RATE), pieces)


def breathing(rng: np.random.Generator, seconds: float) -> Samples:
    """In and out, or one gasp: breath alone through the mouth."""
    pieces, at = [], 0.0
    inward, shape = True, mouth(rng, str(rng.choice(["a", "u", "e"])), 1.1)
    for _ in range(1 if rng.random() < 0.3 else int(rng.integers(2, 7))):
        n = int(rng.uniform(0.25, 0.9) * SAMPLE_RATE)
        air = signals.filtered(signals.noise(rng, n), signals.product(shape, signals.sloped(4 if inward else 2)))
        pieces.append(
            (at, air / np.float32(signals.rms(air) or 1) * _arch(rng, n, 0.5) * np.float32(1 if inward else 0.6))
        )
        at, inward = at + n / SAMPLE_RATE + float(rng.uniform(0.05, 0.4)), not inward
    return signals.placed(int(at * SAMPLE_RATE), pieces)


_GRUNT = partial(utterance, seconds=(0.15, 0.6), bend=(-0.6, 0.1), rough=(0.03, 0.15), breath=(0.1, 0.5), vowels="aou")
_HUM = partial(utterance, seconds=(0.3, 1.0), rough=(0.0, 0.03), breath=(0.0, 0.05), vowels="u")

EFFECTS = {
    "male grunt": Effect(
        partial(_GRUNT, hertz=(85, 190), size=(0.9, 1.05)), "male grunt", "grunt/groan", "human",
        ("a man {grunts}", "a male {grunt}", "the {grunt} of a man", "a man in {effort}", "a man's {grunt}"),
        {"grunts": ("grunts", "groans", "moans"), "grunt": ("grunt", "groan", "ugh"), "effort": ("pain", "a fight")},
    ),
    "female grunt": Effect(
        partial(_GRUNT, hertz=(210, 420), size=(1.12, 1.3)), "female grunt", "grunt/groan", "human",
        ("a woman {grunts}", "a female {grunt}", "the {grunt} of a woman", "a woman in {effort}", "a woman's {grunt}"),
        {"grunts": ("grunts", "groans", "moans"), "grunt": ("grunt", "groan", "ugh"), "effort": ("pain", "a fight")},
    ),
    "hmm": Effect(
        partial(_HUM, hertz=(85, 260), bend=(-0.5, 0.5), size=(0.85, 1.2)), "hmm", "grunt/groan", "human",
        ("a thoughtful {hmm}", "someone says {hmm}", "a hummed {hmm}", "{hmm}, with the mouth closed"),
        {"hmm": ("hmm", "mhm", "mm")},
    ),
    "scream": Effect(
        partial(
            utterance, hertz=(380, 1_100), seconds=(0.4, 1.8), bend=(-0.5, 0.4), rough=(0.02, 0.2), breath=(0.2, 0.9),
            size=(1.0, 1.3), vowels="ae",
        ), "scream", "scream", "human",
        ("a {loud} scream", "someone {screaming}", "a person {screaming} in {terror}", "a cry of {terror}", "a scream"),
        {"loud": ("loud", "shrill", "terrified"), "screaming": ("screaming", "shrieking", "yelling"),
         "terror": ("terror", "fear", "agony")},
    ),
    "monster": Effect(
        partial(
            utterance, hertz=(35, 110), seconds=(0.5, 2.5), bend=(-0.4, 0.4), rough=(0.15, 0.5), breath=(0.3, 1.5),
            size=(0.45, 0.85), vowels="aoue",
        ), "monster", "monster", "other",
        ("a monster {growling}", "the {roar} of a {beast}", "a {beast} {growling}", "a deep {roar}",
         "a {beast}'s {roar}"),
        {"growling": ("growling", "roaring", "snarling"), "roar": ("growl", "roar", "snarl"),
         "beast": ("monster", "beast", "big creature", "zombie", "dragon")},
    ),
    "laughing": Effect(
        laughter, "laughing", "laughing", "human",
        ("someone {laughing}", "{laughter}", "a person {laughing}", "{how} {laughter}", "ha ha ha"),
        {"laughing": ("laughing", "giggling", "chuckling"), "laughter": ("laughter", "a laugh"),
         "how": ("loud", "merry")},
    ),
    "breathing": Effect(
        breathing, "heavy breathing", "breathing", "human",
        ("{heavy} breathing", "someone {panting}", "a person who breathes {heavily}", "{breaths}", "{heavy} {breaths}"),
        {"heavy": ("heavy", "laboured", "audible"), "panting": ("panting", "gasping", "out of breath"),
         "heavily": ("heavily", "hard"), "breaths": ("breaths", "gasps")},
    ),
}  # fmt: skip

KINDS = kinds_of(EFFECTS)
