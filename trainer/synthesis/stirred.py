"""Generators of things that are rubbed, dug, splashed, crunched and flapped: many small contacts instead of one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from audiosearch.trainer.synthesis import signals
from audiosearch.trainer.synthesis.effects import Effect, kinds_of
from audiosearch.trainer.synthesis.signals import SAMPLE_RATE, Samples
from audiosearch.trainer.synthesis.struck import burst
from audiosearch.trainer.synthesis.textures import specks
from audiosearch.trainer.synthesis.tonal import oscillator


def _stroke(rng: np.random.Generator, n: int) -> Samples:
    """The force of one movement: it sets in, stays uneven, and lets go."""
    at = np.linspace(0, 1, n)
    shape = np.sin(np.pi * at ** rng.uniform(0.5, 1.5)) ** rng.uniform(0.5, 1.5)
    return (np.maximum(shape, 0) * np.exp(0.8 * signals.slow_curve(rng, n, 20))).astype(np.float32)


def _grains(rng: np.random.Generator, n: int, per_second: float, low_hz: float, high_hz: float) -> Samples:
    made = specks(rng, n, per_second, low_hz, high_hz, 0.9)
    return made / np.float32(signals.rms(made) or 1)


def digging(rng: np.random.Generator, _: float) -> Samples:
    """A blade into soil or gravel, and what falls from it."""
    n = int(rng.uniform(0.25, 0.7) * SAMPLE_RATE)
    low = signals.between(rng, 400, 2_000)
    cut = _grains(rng, n, signals.between(rng, 800, 6_000), low, low * 4) * _stroke(rng, n)
    fall = int(rng.uniform(0.2, 0.6) * SAMPLE_RATE)
    soil = _grains(rng, fall, signals.between(rng, 60, 500), low, 6_000) * signals.decay(fall, fall / SAMPLE_RATE)
    made = signals.placed(n + fall + 2_400, [(0.0, cut), ((n + 1_600) / SAMPLE_RATE, 0.4 * soil)])
    return signals.faded(made)


def crunch(rng: np.random.Generator, _: float) -> Samples:
    """Teeth or a boot: dense grains within a tenth of a second."""
    n = int(rng.uniform(0.06, 0.25) * SAMPLE_RATE)
    low = signals.between(rng, 400, 1_800)
    made = _grains(rng, n, signals.between(rng, 300, 3_000), low, low * 5) * signals.decay(n, 1.5 * n / SAMPLE_RATE)
    return signals.faded(made.astype(np.float32), 0.004)


def rustling(rng: np.random.Generator, seconds: float) -> Samples:
    """Leaves, cloth or a bag: bright, never twice the same."""
    n = int(max(0.8, seconds) * SAMPLE_RATE)
    low = signals.between(rng, 1_500, 4_000)
    fine = signals.noise(rng, n, signals.band(low, 7_800, 1)) * np.float32(rng.uniform(0.2, 1))
    moved = np.exp(2.0 * signals.slow_curve(rng, n, float(rng.uniform(3, 9))))
    return signals.faded((fine + _grains(rng, n, signals.between(rng, 80, 900), low, 7_800)) * moved)


def scraping(rng: np.random.Generator, _: float) -> Samples:
    """A hard edge drawn over stone or metal: noise in narrow bands."""
    n = int(rng.uniform(0.3, 1.4) * SAMPLE_RATE)
    base = signals.between(rng, 500, 2_500)
    bands = [signals.peak(base * r, 0.12, rng.uniform(12, 26)) for r in np.cumsum(rng.uniform(0.4, 1.0, 4)) + 0.4]
    noisy = signals.noise(rng, n, signals.product(signals.band(base / 2, 7_000, 1), *bands))
    return signals.faded(noisy * _stroke(rng, n), 0.02, 0.05)


def creak(rng: np.random.Generator, _: float) -> Samples:
    """Stick and slip, slow enough to be heard singly, through a board."""
    n = int(rng.uniform(0.4, 1.8) * SAMPLE_RATE)
    rate = signals.between(rng, 25, 220) * 2 ** (1.2 * signals.slow_curve(rng, n, 2.5).astype(np.float64))
    phase = np.cumsum(rate) / SAMPLE_RATE
    pulses = np.zeros(n, dtype=np.float32)
    slips = np.flatnonzero(np.diff(np.floor(phase))) + 1
    pulses[slips] = rng.uniform(0.4, 1, len(slips))
    base = signals.between(rng, 300, 1_100)
    modes = [signals.peak(base * r, 0.2, 24) for r in np.cumsum(rng.uniform(0.5, 1.1, 5)) + 0.3]
    board = signals.product(signals.band(200, 6_000, 1), *modes)
    return signals.faded(signals.filtered(pulses, board) * _stroke(rng, n), 0.02, 0.05)


def _bubble(rng: np.random.Generator, size: float) -> Samples:
    n = int(rng.uniform(0.02, 0.12) * SAMPLE_RATE)
    hertz: NDArray[np.float64] = size * (1 + rng.uniform(0.5, 5) * signals.seconds_of(n))
    tone = np.sin(2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE) * signals.decay(n, n / SAMPLE_RATE)
    return signals.faded(tone.astype(np.float32), 0.002)


def splash(rng: np.random.Generator, _: float) -> Samples:
    """The surface breaks, spray, and bubbles that come up."""
    n = int(rng.uniform(0.4, 1.2) * SAMPLE_RATE)
    slap = burst(rng, n / SAMPLE_RATE, 200, signals.between(rng, 2_000, 7_000))
    spray = signals.noise(rng, n, signals.band(2_000, 7_800, 1)) * _stroke(rng, n) * np.float32(rng.uniform(0.05, 0.3))
    bubbles = [
        (float(at), _bubble(rng, signals.between(rng, 250, 2_500)) * np.float32(rng.uniform(0.1, 0.8)))
        for at in rng.uniform(0.02, n / SAMPLE_RATE, int(rng.integers(8, 50)))
    ]
    return signals.faded(np.asarray(slap[:n] + spray[: len(slap)] + signals.placed(len(slap), bubbles)), 0.003, 0.1)


def swimming(rng: np.random.Generator, _: float) -> Samples:
    """Strokes through water, one after another."""
    at, pieces, soft = 0.0, [], np.float32(rng.uniform(0.3, 0.8))
    for _ in range(int(rng.integers(2, 5))):
        n = int(rng.uniform(0.4, 0.9) * SAMPLE_RATE)
        rush = signals.noise(rng, n, signals.band(150, signals.between(rng, 900, 4_000), 1)) * _stroke(rng, n)
        pieces.append((at, rush / np.float32(signals.rms(rush) or 1)))
        for start in rng.uniform(0, n / SAMPLE_RATE, int(rng.integers(6, 25))):
            pieces.append((at + float(start), _bubble(rng, signals.between(rng, 250, 1_600)) * soft))
        at += float(rng.uniform(0.6, 1.3))
    return signals.placed(int((at + 0.3) * SAMPLE_RATE), pieces)


def pop(rng: np.random.Generator, _: float) -> Samples:
    """A closed cavity that opens: one short tone, rising or not, and a click."""
    n = int(rng.uniform(0.02, 0.09) * SAMPLE_RATE)
    hertz = signals.between(rng, 200, 1_400) * (1 + rng.uniform(0, 12) * signals.seconds_of(n))
    made = np.sin(2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE) * signals.decay(n, n / SAMPLE_RATE)
    click = burst(rng, 0.006, 500, 6_000) * np.float32(rng.uniform(0.05, 0.5))
    made[: len(click)] += click
    return np.pad(signals.faded(made.astype(np.float32), 0.0005, 0.005), (160, 1_200))


def wings(rng: np.random.Generator, seconds: float) -> Samples:
    """Beats of air."""
    n, rate = int(max(0.6, min(seconds, 3.0)) * SAMPLE_RATE), signals.between(rng, 3, 16)
    beats = np.maximum(0, np.sin(2 * np.pi * rate * signals.seconds_of(n))) ** rng.uniform(1, 4)
    air = signals.noise(rng, n, signals.band(80, signals.between(rng, 700, 4_000), 1))
    return signals.faded(air * beats.astype(np.float32) * np.exp(0.4 * signals.slow_curve(rng, n, 3)))


def sparks(rng: np.random.Generator, seconds: float) -> Samples:
    """Mains that jump: a buzz of harmonics, gated at random, and cracks."""
    n = int(max(0.4, min(seconds, 2.5)) * SAMPLE_RATE)
    buzz = signals.filtered(oscillator(rng.choice([50.0, 60.0, 100.0, 120.0]), n, "saw"), signals.band(400, 7_000, 1))
    gate = (signals.slow_curve(rng, n, float(rng.uniform(6, 25))) > rng.uniform(-0.4, 0.4)).astype(np.float32)
    cracks = _grains(rng, n, signals.between(rng, 15, 150), 1_000, 7_800)
    return signals.faded(np.asarray(buzz / (signals.rms(buzz) or 1) * gate + cracks, dtype=np.float32))


EFFECTS = {
    "digging": Effect(
        digging, "digging", "digging", "tools",
        ("{digging} in {soil}", "a {shovel} in {soil}", "someone {digging} with a {shovel}",
         "a {shovel} cuts into {soil}"),
        {"digging": ("digging", "shovelling"), "soil": ("soil", "gravel", "earth", "sand"),
         "shovel": ("shovel", "spade")},
        (4, 0.8, 1.5),
    ),
    "crunch": Effect(
        crunch, "chewing", "eating & drinking", "human",
        ("something crunchy being {eaten}", "a {bite}", "someone {eating} {food}", "{eating} {food}",
         "a crunchy {bite}"),
        {"eaten": ("eaten", "bitten"), "eating": ("eating", "chewing", "biting into"), "bite": ("bite", "crunch"),
         "food": ("an apple", "biscuits", "a carrot", "toast")},
        (7, 0.25, 0.7),
    ),
    "rustling": Effect(
        rustling, "rustling", "rustling leaves", "nature",
        ("{rustling}", "{leaves} {rustling}", "something moves through {leaves}", "the rustle of {leaves}",
         "dry {leaves}"),
        {"rustling": ("rustling", "swishing", "crackling softly"), "leaves": ("leaves", "bushes", "grass", "foliage")},
    ),
    "scraping": Effect(
        scraping, "scrape", "squeak & scrape", "impacts",
        ("{scraping}", "something {scraping} over {stone}", "{stone} being scraped", "a {harsh} scrape on {stone}"),
        {"scraping": ("scraping", "grating", "scratching", "dragging"),
         "stone": ("stone", "metal", "concrete", "tiles"),
         "harsh": ("harsh", "rough", "long")},
        (3, 0.5, 1.6),
    ),
    "creak": Effect(
        creak, "wood creak", "squeak & scrape", "impacts",
        ("a {creak}", "{wood} {creaking}", "the {creak} of {wood}", "a {creak} of old hinges",
         "{wood} gives a {creak}"),
        {"creak": ("creak", "squeak", "groan"), "creaking": ("creaking", "squeaking"),
         "wood": ("wood", "a door", "a floorboard", "a rope", "a chair")},
        (3, 0.8, 2.0),
    ),
    "splash": Effect(
        splash, "water splash", "splash", "nature",
        ("a splash", "something {falls} into {water}", "a {big} splash", "{water} splashing", "a splash in {water}"),
        {"falls": ("falls", "plunges", "is thrown"), "water": ("water", "a pool", "a lake"),
         "big": ("big", "small", "loud")},
        (3, 0.6, 1.5),
    ),
    "swimming": Effect(
        swimming, "swimming", "splash", "nature",
        ("someone {swimming}", "{swimming} in {water}", "strokes of a swimmer", "a swimmer in {water}",
         "arms in {water}"),
        {"swimming": ("swimming", "paddling", "bathing"), "water": ("water", "a pool", "a lake", "the sea")},
    ),
    "pop": Effect(
        pop, "pop", "pop", "other",
        ("a {pop}", "a {cork} {popping}", "the {pop} of a {cork}", "a short {pop}", "something pops"),
        {"pop": ("pop", "plop"), "cork": ("cork", "bubble", "bottle"), "popping": ("popping", "being pulled")},
        (4, 0.2, 0.8),
    ),
    "wings": Effect(
        wings, "wings flapping", "wings", "animals",
        ("{wings} flapping", "the {beat} of {wings}", "a {bird} takes off", "a {bird} flapping its wings", "{wings}"),
        {"wings": ("wings", "big wings", "feathered wings"), "beat": ("beat", "flutter"),
         "bird": ("bird", "pigeon", "bat")},
    ),
    "sparks": Effect(
        sparks, "spark", "spark", "other",
        ("{electric} sparks", "electricity {arcing}", "an {electric} arc", "a short circuit", "a {electric} zap"),
        {"electric": ("electric", "electrical"), "arcing": ("arcing", "crackling", "sparking")},
    ),
}  # fmt: skip

KINDS = kinds_of(EFFECTS)
