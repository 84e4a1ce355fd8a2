"""Generators of single instruments: a note or a few of them, plucked, struck, blown, bowed or drummed.

Each is physics in its crudest form, with what is not known drawn anew for every clip: no two collections agree on what
a guitar sounds like either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from audiosearch.trainer.synthesis import signals
from audiosearch.trainer.synthesis.signals import SAMPLE_RATE, Samples
from audiosearch.trainer.synthesis.sketch import Generated, Traits, compose, speed_of, speed_words
from audiosearch.trainer.synthesis.struck import burst, in_a_row, modal
from audiosearch.trainer.synthesis.tonal import oscillator

Play = Callable[[np.random.Generator, float, float], Samples]  # (rng, Hz, seconds) -> one note


def string(rng: np.random.Generator, hertz: float, seconds: float, *, damping: float, bright: float) -> Samples:
    """A plucked string: noise that runs round a delay line and is softened each time (Karplus and Strong, 1983)."""
    n, period = int(seconds * SAMPLE_RATE), max(2, round(SAMPLE_RATE / hertz - 0.5))
    line = signals.filtered(signals.noise(rng, period), signals.band(0, bright, 1)).astype(np.float64)
    line -= np.roll(line, max(1, int(period * rng.uniform(0.1, 0.4))))  # where it is plucked
    made = np.empty(n + period)
    loss = 10 ** (-3 / (damping * hertz))
    for first in range(0, n, period):
        made[first : first + period] = line[: len(made) - first]
        line = loss * 0.5 * (line + np.roll(line, 1))
    return signals.faded(made[:n].astype(np.float32), 0.001, 0.04)


def bass_guitar(rng: np.random.Generator, hertz: float, seconds: float) -> Samples:
    return string(rng, hertz, seconds, damping=float(rng.uniform(0.8, 3)), bright=signals.between(rng, 500, 2_500))


def acoustic_guitar(rng: np.random.Generator, hertz: float, seconds: float) -> Samples:
    made = string(rng, hertz, seconds, damping=float(rng.uniform(1.5, 4)), bright=signals.between(rng, 2_000, 6_000))
    body = signals.product(signals.peak(110, 0.4, 8), signals.peak(220, 0.4, 6))
    return signals.filtered(made, body)


def electric_guitar(rng: np.random.Generator, hertz: float, seconds: float) -> Samples:
    made = string(rng, hertz, seconds, damping=float(rng.uniform(3, 8)), bright=4_000)
    made = made + string(rng, 1.5 * hertz, seconds, damping=4.0, bright=4_000) * np.float32(rng.random() < 0.6)
    driven = np.tanh(signals.normalised(made) * np.float32(signals.between(rng, 1.5, 30)))
    return signals.faded(signals.filtered(driven, signals.band(80, 4_500, 2)), 0.001, 0.04)


def harp(rng: np.random.Generator, hertz: float, seconds: float) -> Samples:
    return string(rng, hertz, seconds, damping=float(rng.uniform(2, 5)), bright=signals.between(rng, 1_000, 3_000))


def bar(
    rng: np.random.Generator,
    hertz: float,
    seconds: float,
    *,
    ratios: tuple[float, ...],
    ring: float,
    tremolo: float = 0,
) -> Samples:
    """A bar or tine that is struck: partials in its own ratios, the higher the shorter."""
    ring *= float(rng.uniform(0.6, 1.4)) * (400 / hertz) ** 0.4
    levels = [float(rng.uniform(0.2, 0.7)) ** i for i in range(len(ratios))]
    partials = [
        (hertz * ratio, level, ring / (1 + 1.2 * i))
        for i, (ratio, level) in enumerate(zip(ratios, levels, strict=True))
    ]
    made = modal(rng, min(seconds, 1.3 * ring), partials)
    click = burst(rng, 0.015, 300, 4_000) * np.float32(rng.uniform(0.02, 0.2))
    made[: len(click)] += click[: len(made)]
    if tremolo and rng.random() < 0.6:
        turning = np.sin(2 * np.pi * rng.uniform(3, 7) * signals.seconds_of(len(made)))
        made = made * (1 - tremolo * (0.5 + 0.5 * turning)).astype(np.float32)
    return made


def piano(rng: np.random.Generator, hertz: float, seconds: float) -> Samples:
    """Stiff strings: partial n at n f sqrt(1 + B n^2) (Fletcher, 1964), two or three strings a little apart."""
    stiff, ring = rng.uniform(1e-4, 8e-4), float(rng.uniform(1.5, 4)) * (260 / hertz) ** 0.5
    soft = rng.uniform(0.55, 0.85)
    partials = [
        (hertz * n * (1 + stiff * n * n) ** 0.5 * detuned, soft**n, ring / n**0.6)
        for n in range(1, 16)
        for detuned in (1.0, 1 + rng.uniform(-8e-4, 8e-4))
    ]
    made = modal(rng, seconds, partials)
    hammer = burst(rng, 0.03, 80, 1_500) * np.float32(0.1 * np.abs(made).max())
    made[: len(hammer)] += hammer[: len(made)]
    return made


def organ(rng: np.random.Generator, hertz: float, seconds: float) -> Samples:
    """Drawbars: sines at the pipes' ratios, on and off at once."""
    n = int(seconds * SAMPLE_RATE)
    made = np.zeros(n, dtype=np.float32)
    for ratio in (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0):
        made += oscillator(hertz * ratio, n) * np.float32(rng.random() ** 2 * (hertz * ratio < 7_500))
    return signals.faded(made + np.float32(0.3) * oscillator(hertz, n), 0.02, 0.06)


def _bent(rng: np.random.Generator, hertz: float, n: int, cents: float) -> np.ndarray:
    """The frequency of a player's note: vibrato that sets in, and drift."""
    time = signals.seconds_of(n)
    vibrato = np.sin(2 * np.pi * rng.uniform(4.5, 6.5) * time) * np.minimum(1, time / 0.4)
    return np.asarray(hertz * 2 ** ((cents * vibrato + 6 * signals.slow_curve(rng, n, 1.5)) / 1200))


def _breathed(rng: np.random.Generator, tone: Samples, hertz: float, *, breath: float, attack: float) -> Samples:
    """Opened with the breath's noise, darker while it is soft."""
    n = len(tone)
    swell = np.minimum(1, signals.seconds_of(n) / attack).astype(np.float32)
    air = signals.noise(rng, n, signals.band(hertz, min(7_000, hertz * 5), 1)) * np.float32(breath)
    dark = signals.filtered(tone, signals.band(0, 2 * hertz, 1))
    return signals.faded(swell * (swell * tone + (1 - swell) * dark + air * signals.rms(tone)), 0.005, 0.08)


def flute(rng: np.random.Generator, hertz: float, seconds: float) -> Samples:
    n = int(seconds * SAMPLE_RATE)
    pitch = _bent(rng, hertz, n, rng.uniform(0, 30))
    tone = oscillator(pitch, n) + np.float32(rng.uniform(0.1, 0.4)) * oscillator(2 * pitch, n)
    tone += np.float32(rng.uniform(0.02, 0.15)) * oscillator(3 * pitch, n)
    return _breathed(rng, tone, hertz, breath=float(rng.uniform(0.1, 0.5)), attack=float(rng.uniform(0.04, 0.15)))


def brass(rng: np.random.Generator, hertz: float, seconds: float, *, bright: float) -> Samples:
    n = int(seconds * SAMPLE_RATE)
    tone = oscillator(_bent(rng, hertz, n, rng.uniform(0, 20)), n, "saw")
    tone = signals.filtered(tone, signals.band(0, hertz * bright * rng.uniform(0.7, 1.4), 1))
    return _breathed(rng, tone, hertz, breath=0.03, attack=float(rng.uniform(0.03, 0.12)))


def reed(rng: np.random.Generator, hertz: float, seconds: float, *, shape: str, formant: float) -> Samples:
    n = int(seconds * SAMPLE_RATE)
    tone = oscillator(_bent(rng, hertz, n, rng.uniform(0, 35)), n, shape)
    shaped = signals.product(signals.peak(formant * rng.uniform(0.8, 1.2), 0.6, 10), signals.band(0, 4_000, 1))
    tone = signals.filtered(tone, shaped)
    return _breathed(rng, tone, hertz, breath=float(rng.uniform(0.05, 0.25)), attack=float(rng.uniform(0.02, 0.08)))


def bowed(rng: np.random.Generator, hertz: float, seconds: float, *, players: int, body: float) -> Samples:
    """Stick and slip: a saw through the body's resonance; several players never agree."""
    n = int(seconds * SAMPLE_RATE)
    tone = np.zeros(n, dtype=np.float32)
    for _ in range(players):
        off = hertz * 2 ** (rng.normal(0, 5) / 1200 if players > 1 else 0)
        tone += oscillator(_bent(rng, off, n, rng.uniform(10, 35)), n, "saw")
    shaped = signals.product(signals.peak(body * rng.uniform(0.8, 1.2), 0.7, 8), signals.band(0, 5_000, 1))
    tone = signals.filtered(tone, shaped)
    rosin = signals.noise(rng, n, signals.band(1_500, 6_000, 1)) * np.float32(rng.uniform(0.01, 0.08))
    attack = float(rng.uniform(0.05, 0.4))
    return _breathed(rng, tone + rosin * np.float32(signals.rms(tone)), hertz, breath=0.0, attack=attack)


def kick(rng: np.random.Generator, _: float, __: float) -> Samples:
    n, end = int(rng.uniform(0.2, 0.6) * SAMPLE_RATE), rng.uniform(38, 70)
    glide = end + rng.uniform(40, 200) * np.exp(-signals.seconds_of(n) * rng.uniform(20, 60))
    made = np.sin(2 * np.pi * np.cumsum(glide) / SAMPLE_RATE) * signals.decay(n, n / SAMPLE_RATE)
    click = burst(rng, 0.008, 800, 5_000) * np.float32(rng.uniform(0.05, 0.4))
    made[: len(click)] += click
    return signals.faded(made.astype(np.float32), 0.0005, 0.01)


def snare(rng: np.random.Generator, _: float, __: float) -> Samples:
    seconds, tuned = float(rng.uniform(0.12, 0.4)), rng.uniform(150, 260)
    wires = burst(rng, seconds, rng.uniform(500, 1_800), 7_500)
    skin = modal(rng, seconds, [(tuned, 1, 0.12), (tuned * 1.6, 0.6, 0.09), (tuned * 2.2, 0.3, 0.06)])
    return np.asarray(wires * np.float32(rng.uniform(0.3, 1.2)) + skin)


def hat(rng: np.random.Generator, _: float, __: float) -> Samples:
    seconds = float(rng.uniform(0.06, 0.12) if rng.random() < 0.6 else rng.uniform(0.3, 0.7))  # closed or open
    return metal_plate(rng, seconds, rng.uniform(4_500, 6_500))


def metal_plate(rng: np.random.Generator, seconds: float, low_hz: float) -> Samples:
    """Many partials in no order and noise above `low_hz`, dying together."""
    made = burst(rng, seconds, low_hz, 7_900)
    squares = [oscillator(rng.uniform(300, 1_200), len(made), "square") for _ in range(5)]
    ringing = signals.filtered(
        np.prod(squares[:2], axis=0) + np.sum(squares[2:], axis=0), signals.band(low_hz, 7_900, 3)
    )
    return np.asarray(made + rng.uniform(0.1, 0.8) * ringing * signals.decay(len(made), seconds), dtype=np.float32)


def crash(rng: np.random.Generator, _: float, __: float) -> Samples:
    return metal_plate(rng, float(rng.uniform(1.2, 3)), rng.uniform(1_500, 3_500))


def ride(rng: np.random.Generator, _: float, __: float) -> Samples:
    made = metal_plate(rng, float(rng.uniform(0.6, 1.6)), rng.uniform(3_000, 5_000)) * np.float32(0.4)
    ping = modal(rng, 0.4, [(rng.uniform(2_500, 5_500), 1, 0.4), (rng.uniform(3_000, 6_500), 0.6, 0.3)])
    made[: len(ping)] += ping
    return made


def tom(rng: np.random.Generator, _: float, __: float) -> Samples:
    n, end = int(rng.uniform(0.25, 0.6) * SAMPLE_RATE), rng.uniform(75, 190)
    glide = end * (1 + rng.uniform(0.1, 0.5) * np.exp(-signals.seconds_of(n) * 15))
    made = np.sin(2 * np.pi * np.cumsum(glide) / SAMPLE_RATE) * signals.decay(n, n / SAMPLE_RATE)
    slap = burst(rng, 0.04, 200, 3_000) * np.float32(rng.uniform(0.1, 0.4))
    made[: len(slap)] += slap
    return signals.faded(made.astype(np.float32), 0.0005, 0.01)


def hand_drum(rng: np.random.Generator, _: float, __: float) -> Samples:
    base, ring = rng.uniform(120, 420), rng.uniform(0.1, 0.35)
    made = modal(rng, ring + 0.1, [(base * r, rng.uniform(0.3, 1) / r, ring / r) for r in (1, 1.59, 2.14, 2.65)])
    slap = burst(rng, 0.03, 500, 5_000) * np.float32(rng.uniform(0.05, 0.8))
    made[: len(slap)] += slap
    return made


def clap(rng: np.random.Generator, _: float, __: float) -> Samples:
    low = rng.uniform(600, 1_200)
    claps = [(float(at), burst(rng, 0.02, low, 5_000)) for at in np.cumsum(rng.uniform(0.006, 0.02, 3))]
    return signals.placed(int(0.3 * SAMPLE_RATE), [*claps, (claps[-1][0], burst(rng, 0.2, low, 5_000) * 0.6)])


def shaker(rng: np.random.Generator, _: float, __: float) -> Samples:
    n = int(rng.uniform(0.06, 0.2) * SAMPLE_RATE)
    made = signals.noise(rng, n, signals.band(rng.uniform(3_000, 5_500), 7_900, 2))
    return np.asarray(made * np.sin(np.pi * np.arange(n) / n) ** rng.uniform(1, 3), dtype=np.float32)


def tambourine(rng: np.random.Generator, _: float, __: float) -> Samples:
    seconds = float(rng.uniform(0.15, 0.4))
    jingles = [(rng.uniform(4_500, 7_500), rng.uniform(0.2, 1), seconds * rng.uniform(0.4, 1)) for _ in range(12)]
    return np.asarray(
        modal(rng, seconds, jingles) + 2 * burst(rng, seconds, 4_000, 7_900)[: int(seconds * SAMPLE_RATE)]
    )


def cowbell(rng: np.random.Generator, _: float, __: float) -> Samples:
    base, seconds = rng.uniform(480, 800), float(rng.uniform(0.15, 0.5))
    made = oscillator(base, int(seconds * SAMPLE_RATE), "square") + oscillator(
        base * 1.48, int(seconds * SAMPLE_RATE), "square"
    )
    shaped = signals.filtered(made, signals.band(base, 4_000, 2))
    return np.asarray(shaped * signals.decay(len(shaped), seconds), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Instrument:
    """`hertz`: of its lowest and highest note; none: a drum, which has a rhythm and no melody."""

    play: Play
    sound_class: str
    names: tuple[str, ...]
    hertz: tuple[float, float] | None = None
    note_seconds: tuple[float, float] = (0.5, 2.0)


INSTRUMENTS = {
    "bass guitar": Instrument(
        bass_guitar, "guitar", ("bass guitar", "electric bass", "bass string", "slap bass"), (38, 150)
    ),
    "acoustic guitar": Instrument(
        acoustic_guitar,
        "guitar",
        ("acoustic guitar", "steel-string guitar", "classical guitar", "folk guitar"),
        (80, 500),
    ),
    "electric guitar": Instrument(
        electric_guitar, "guitar", ("electric guitar", "distorted guitar", "overdriven guitar"), (80, 600)
    ),
    "harp": Instrument(harp, "harp", ("harp", "plucked harp", "lyre"), (100, 1_200)),
    "marimba": Instrument(
        partial(bar, ratios=(1, 3.9, 9.2), ring=0.45), "mallets", ("marimba", "bass marimba"), (110, 900)
    ),
    "xylophone": Instrument(
        partial(bar, ratios=(1, 3, 6.1), ring=0.2), "mallets", ("xylophone", "toy xylophone", "balafon"), (350, 2_000)
    ),
    "vibraphone": Instrument(
        partial(bar, ratios=(1, 4, 10), ring=2.5, tremolo=0.6), "mallets", ("vibraphone", "vibraharp"), (170, 1_000)
    ),
    "glockenspiel": Instrument(
        partial(bar, ratios=(1, 2.76, 5.4), ring=2.0), "mallets", ("glockenspiel", "celesta", "music box"), (700, 3_000)
    ),
    "kalimba": Instrument(
        partial(bar, ratios=(1, 2, 5.7, 6.3), ring=0.9), "mallets", ("kalimba", "thumb piano", "mbira"), (200, 1_100)
    ),
    "steel drums": Instrument(
        partial(bar, ratios=(1, 2.01, 3.02, 4.1), ring=0.8, tremolo=0.3),
        "steel drums",
        ("steel drum", "steelpan", "Caribbean steel pan"),
        (220, 900),
    ),
    "piano": Instrument(piano, "piano", ("piano", "grand piano", "upright piano", "pianoforte"), (55, 1_500)),
    "organ": Instrument(
        organ, "organ & accordion", ("organ", "church organ", "drawbar organ", "electric organ"), (60, 700)
    ),
    "flute": Instrument(flute, "flute", ("flute", "recorder", "wooden flute"), (260, 1_600)),
    "trumpet": Instrument(partial(brass, bright=9), "trumpet", ("trumpet", "cornet", "bugle"), (180, 900)),
    "french horn": Instrument(
        partial(brass, bright=3.5), "french horn", ("french horn", "horn", "brass horn"), (80, 520)
    ),
    "trombone": Instrument(partial(brass, bright=6), "trombone & tuba", ("trombone", "tuba"), (45, 350)),
    "saxophone": Instrument(
        partial(reed, shape="saw", formant=900), "saxophone", ("saxophone", "tenor sax", "alto sax"), (110, 700)
    ),
    "clarinet": Instrument(
        partial(reed, shape="square", formant=1_200), "clarinet", ("clarinet", "bass clarinet"), (75, 1_100)
    ),
    "violin": Instrument(
        partial(bowed, players=1, body=900), "violin/viola", ("violin", "fiddle", "viola"), (200, 1_600)
    ),
    "cello": Instrument(
        partial(bowed, players=1, body=350), "cello", ("cello", "bowed double bass", "violoncello"), (50, 400)
    ),
    "string section": Instrument(
        partial(bowed, players=6, body=700),
        "music (full)",
        ("string section", "string orchestra", "group of violins", "string ensemble"),
        (80, 1_000),
        (1.0, 3.0),
    ),
    "kick drum": Instrument(kick, "kick/bass drum", ("kick drum", "bass drum", "kick")),
    "snare drum": Instrument(snare, "snare", ("snare drum", "snare", "side drum")),
    "hi-hat": Instrument(hat, "hi-hat", ("hi-hat", "hihat cymbal", "high hat")),
    "crash cymbal": Instrument(crash, "cymbal", ("crash cymbal", "cymbal crash", "big cymbal")),
    "ride cymbal": Instrument(ride, "cymbal", ("ride cymbal", "ride", "cymbal tapped with a stick")),
    "tom drum": Instrument(tom, "tom", ("tom drum", "tom-tom", "floor tom")),
    "hand drum": Instrument(hand_drum, "hand drums", ("hand drum", "conga", "bongo", "djembe", "tabla")),
    "hand claps": Instrument(clap, "clapping", ("hand clap", "clap", "drum machine clap")),
    "shaker": Instrument(shaker, "small percussion", ("shaker", "maraca", "egg shaker")),
    "tambourine": Instrument(tambourine, "small percussion", ("tambourine", "jingle ring")),
    "cowbell": Instrument(cowbell, "small percussion", ("cowbell", "agogo bell")),
}

_STEPS = (0, 2, 3, 4, 5, 7, 9, 12)


def played(name: str, rng: np.random.Generator, seconds: float) -> Generated:
    """One note, one stroke, or a few in a row."""
    made = INSTRUMENTS[name]
    single = bool(rng.random() < 0.5)
    if made.hertz is None:
        count = 1 if single else int(rng.integers(2, 9))
        interval = signals.between(rng, 0.12, 0.6)
        hit = made.play(rng, 0.0, 0.0)
        samples = in_a_row(rng, lambda: hit, count, interval, 0.03)
        templates: tuple[str, ...] = (
            "a {name}", "a {name} being hit", "the sound of a {name}", "a stroke on a {name}", "percussion: a {name}",
        )  # fmt: skip
        templates += () if count == 1 else ("a {speed} rhythm on a {name}", "a {name}, again and again")
    else:
        count = 1 if single else int(rng.integers(2, 6))
        interval = signals.between(rng, 0.18, 0.8)
        length = signals.between(rng, *made.note_seconds) if single else max(0.3, 1.2 * interval)
        root = signals.between(rng, made.hertz[0], made.hertz[1] / (1 if single else 1.5))
        notes = [
            made.play(rng, root * 2 ** (int(rng.choice(_STEPS[: 5 if i else 1])) / 12), length) for i in range(count)
        ]
        pieces = [(i * interval, one) for i, one in enumerate(notes)]
        samples = signals.placed(max(int(at * SAMPLE_RATE) + len(one) for at, one in pieces), pieces)
        templates = ("a {name}", "a note on a {name}", "a {name} playing", "someone plays the {name}", "{name} sound")
        templates += ("a single {name} note",) if count == 1 else ("a {speed} melody on a {name}", "notes of a {name}")
    speed = speed_of(interval, 0.2, 0.45) if count > 1 else ""
    phrases = compose(rng, templates, name=made.names, speed=speed_words(speed))
    traits = Traits(speed=speed, count=count)
    kind = f"generated {made.sound_class}"
    return Generated(samples, phrases, (), f"synthetic {name}", kind, "music", traits)


KINDS = {name: partial(played, name) for name in INSTRUMENTS}
