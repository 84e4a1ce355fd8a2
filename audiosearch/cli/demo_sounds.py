"""The demo's sounds, synthesised: each a function of a seeded generator, so that every demo makes the same files."""

from __future__ import annotations

import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiosearch.cli.demo_synthesis import (
    RATE,
    Rng,
    Signal,
    convolve,
    curve,
    filtered,
    formants,
    harmonics,
    hit,
    level,
    limited,
    noise,
    peak,
    place,
    ringing,
    room,
    samples,
    sparse,
    swell,
    times,
    tone,
    wander,
)

# -- weather, water, fire ------------------------------------------------------------------------------------------


def rain(rng: Rng, seconds: float = 12.0) -> Signal:
    """A wash of far drops and a patter of near ones."""
    drop = noise(rng, 0.012, 1_500, 9_000) * hit(0.012, 0.003, 0.0003)
    patter = convolve(sparse(rng, seconds, 220, 0.6), drop)
    return noise(rng, seconds, 300, 10_000, 1.5) * (0.85 + 0.3 * wander(rng, seconds, 1.5)) + 1.1 * level(patter)


def wind(rng: Rng, seconds: float = 14.0) -> Signal:
    """Gusts: the louder, the brighter."""
    gust = wander(rng, seconds, 1.8) ** 1.5
    low = noise(rng, seconds, 40, 350, 3) * (0.25 + gust)
    middle = noise(rng, seconds, 250, 900, 3) * gust**1.5
    whistle = noise(rng, seconds, 550, 750) * gust**3
    return low + 0.7 * middle + 0.35 * whistle


def sea_waves(rng: Rng, seconds: float = 18.0) -> Signal:
    """Breakers that roll in, crash and fizz out."""
    out = 0.12 * noise(rng, seconds, 60, 4_000, 3)
    for at in np.arange(0.0, seconds, 5.5) + rng.uniform(-0.6, 0.6, int(np.ceil(seconds / 5.5))):
        shape = curve(7.0, [(0, 0), (1.6, 0.35), (2.3, 1), (3.5, 0.5), (7, 0)])
        roar = noise(rng, 7.0, 80, 2_500, 3) * shape**1.3
        fizz = noise(rng, 7.0, 1_500, 9_000, 1) * curve(7.0, [(0, 0), (2.0, 0.1), (2.8, 0.6), (7, 0)])
        place(out, roar + 0.5 * fizz, max(at, 0.0), rng.uniform(0.7, 1.0))
    return out


def thunder(rng: Rng, seconds: float = 10.0) -> Signal:
    """A crack, then rumbles that get lower and weaker."""
    out = np.zeros(samples(seconds))
    place(out, noise(rng, 1.2, 60, 3_500, 3) * hit(1.2, 0.25, 0.01), 0.5, 1.2)
    for at in np.sort(rng.uniform(0.6, seconds - 3, 14)):
        fade = np.exp(-(at - 0.6) / 3.5)
        place(out, noise(rng, 3.0, 25, 90 + 350 * fade, 3) * swell(3.0, 0.15, 2.6), at, rng.uniform(0.4, 1.0) * fade)
    return out * swell(seconds, 0.05, 1.5)


def fire(rng: Rng, seconds: float = 10.0) -> Signal:
    """A soft roar with crackles and a few pops."""
    out = 0.1 * noise(rng, seconds, 40, 500, 4) * (0.5 + wander(rng, seconds, 0.4))
    out += 0.025 * noise(rng, seconds, 1_500, 8_000)
    for count, length, low, loud in ((17 * seconds, 0.006, 1_500, 0.45), (2 * seconds, 0.03, 500, 0.9)):
        for at in rng.uniform(0, seconds, int(count)):
            snap = noise(rng, 2 * length, low, 9_000, 1) * hit(2 * length, length / 3, 0.0002)
            place(out, snap, at, loud * min(rng.exponential(0.5), 2.0))
    return out


def water_drops(rng: Rng, seconds: float = 8.0) -> Signal:
    """Single drops into a basin: each a bubble whose pitch rises."""
    out = 0.004 * noise(rng, seconds, 300, 8_000, 2)
    at = 0.3
    while at < seconds - 0.3:
        pitch = rng.uniform(900, 1_800)
        bubble = tone(pitch * (1 + 14 * times(0.07)), 0.07) * hit(0.07, 0.014, 0.001)
        place(out, noise(rng, 0.01, 2_000, 9_000) * hit(0.01, 0.002), at, 0.3)
        place(out, bubble, at + 0.012, rng.uniform(0.5, 1.0))
        at += rng.uniform(0.35, 0.95)
    return room(rng, out, 0.5, 0.25)


# -- animals -------------------------------------------------------------------------------------------------------


def birds(rng: Rng, seconds: float = 10.0) -> Signal:
    """Two songbirds in turns over a quiet garden."""
    out = 0.008 * noise(rng, seconds, 200, 6_000, 3)
    for base, gain, gap in ((4_200.0, 0.9, 1.3), (3_000.0, 0.45, 1.9)):
        at = rng.uniform(0.1, 0.6)
        while at < seconds - 1.0:
            up = rng.choice([-1, 1])
            for _ in range(rng.integers(3, 8)):
                length = rng.uniform(0.06, 0.14)
                t = times(length) / length
                sweep = base * (1 + 0.22 * up * (t - 0.5)) * (1 + 0.05 * np.sin(2 * np.pi * 3 * t))
                chirp = tone(sweep * rng.uniform(0.93, 1.07), length, ((1, 1), (2, 0.12)))
                place(out, chirp * swell(length, 0.3 * length, 0.5 * length), at, gain * rng.uniform(0.6, 1.0))
                at += length + rng.uniform(0.03, 0.09)
            at += gap * rng.uniform(0.5, 1.2)
    return room(rng, out, 0.4, 0.1)


def crickets(rng: Rng, seconds: float = 10.0) -> Signal:
    """A summer night: several insects, each with its pitch and pace."""
    out = 0.02 * noise(rng, seconds, 3_000, 6_000) + 0.01 * noise(rng, seconds, 100, 2_000, 3)
    for pitch, gain in ((4_350.0, 0.8), (4_900.0, 0.4), (3_950.0, 0.25)):
        pulse = tone(pitch, 0.018, ((1, 1), (2, 0.08))) * swell(0.018, 0.006, 0.01)
        at, every = rng.uniform(0, 0.3), rng.uniform(0.36, 0.55)
        while at < seconds:
            for n in range(4):
                place(out, pulse, at + 0.027 * n, gain * (0.6 + 0.13 * n))
            at += every * rng.uniform(0.95, 1.05)
    return out


def dog(rng: Rng, seconds: float = 5.0) -> Signal:
    """Barks in twos and threes."""
    out = np.zeros(samples(seconds))
    at = 0.15
    while at < seconds - 0.4:
        for _ in range(rng.integers(2, 4)):
            length = rng.uniform(0.17, 0.24)
            arch = curve(length, [(0, 0.75), (0.25 * length, 1.25), (length, 0.7)])
            voice = tone(430 * rng.uniform(0.92, 1.08) * arch, length, harmonics(14, 0.55))
            rough = voice * (1 + 0.4 * noise(rng, length, 20, 120)) + 1.1 * noise(rng, length, 400, 5_000, 1)
            bark = formants(rough, [(750, 500, 1), (1_500, 600, 0.8), (2_700, 900, 0.35), (4_000, 1500, 0.1)])
            place(out, peak(bark * swell(length, 0.015, 0.6 * length)), at, rng.uniform(0.75, 1.0))
            at += length + rng.uniform(0.12, 0.22)
        at += rng.uniform(0.5, 0.9)
    return room(rng, out, 0.35, 0.15)


# -- engines and tools ---------------------------------------------------------------------------------------------


def engine(rng: Rng, seconds: float = 9.0) -> Signal:
    """A four-cylinder engine idling, one cylinder a little weak."""
    firing = 27 * (1 + 0.04 * (wander(rng, seconds, 0.5) - 0.5))
    ratios = [(k / 4, (0.25 if k % 4 else 1.0) * (k / 4 + 0.4) ** -1.1) for k in range(1, 100)]
    tones = tone(firing, seconds, [(r, a * rng.uniform(0.5, 1.2)) for r, a in ratios])
    beat = 0.6 + 0.4 * np.sin(2 * np.pi * np.cumsum(firing) / RATE)
    return level(tones) + 0.35 * noise(rng, seconds, 150, 4_000, 3) * beat


def helicopter(rng: Rng, seconds: float = 9.0) -> Signal:
    """Blades that slap the air thirteen times a second, a turbine behind them."""
    phase = (times(seconds) * 13.0) % 1.0
    slap = np.exp(-phase / 0.16) * (0.8 + 0.4 * wander(rng, seconds, 1.0))
    low = noise(rng, seconds, 30, 260, 1) * slap
    chop = noise(rng, seconds, 250, 2_500, 3) * (0.25 + slap)
    turbine = tone(2_150 * (1 + 0.002 * wander(rng, seconds, 0.6)), seconds, ((1, 1), (1.5, 0.4)))
    return low + 0.7 * chop + 0.02 * turbine + 0.12 * noise(rng, seconds, 200, 6_000, 3)


def airplane(rng: Rng, seconds: float = 16.0) -> Signal:
    """A jet that comes, passes overhead and goes."""
    near = np.exp(-(((times(seconds) - 0.5 * seconds) / (0.22 * seconds)) ** 2))
    doppler = curve(seconds, [(0, 1.08), (0.4 * seconds, 1.06), (0.6 * seconds, 0.94), (seconds, 0.92)])
    dull = noise(rng, seconds, 40, 700, 3) * (0.15 + near)
    bright = noise(rng, seconds, 500, 5_000, 3) * near**2
    return dull + 0.8 * bright + 0.1 * tone(160 * doppler, seconds, harmonics(6, 1)) * (0.2 + near)


def chainsaw(rng: Rng, seconds: float = 8.0) -> Signal:
    """A two-stroke at idle, then twice at full throttle."""
    revs = curve(seconds, [(0, 62), (1.2, 60), (1.7, 155), (3.6, 130), (4.2, 70), (4.8, 160), (7.4, 125), (8, 110)])
    revs = revs * (1 + 0.06 * (wander(rng, seconds, 0.05) - 0.5))
    buzz = tone(revs, seconds, harmonics(45, 0.55))
    rasp = np.tanh(1.5 * level(buzz) + 0.5 * noise(rng, seconds, 200, 6_000, 1))
    return rasp * (0.45 + revs / 250) + 0.25 * noise(rng, seconds, 800, 8_000, 1) * (revs > 100)


def vacuum_cleaner(rng: Rng, seconds: float = 9.0) -> Signal:
    """Switched on: the motor's whine climbs, then air roars steadily."""
    start = 1 - np.exp(-times(seconds) / 0.35)
    whine = tone(310 * start, seconds, [(1, 0.5), (2, 1), (3, 0.25), (4, 0.5), (6, 0.3), (8, 0.12)])
    air = noise(rng, seconds, 150, 7_000, 1.5) * (0.97 + 0.06 * wander(rng, seconds, 0.3))
    return start**2 * (air + 0.35 * whine)


# -- signals and alarms --------------------------------------------------------------------------------------------


def siren(rng: Rng, seconds: float = 12.0) -> Signal:
    """The wail of an emergency vehicle in a street."""
    wail = 650 + 850 * (0.5 - 0.5 * np.cos(2 * np.pi * times(seconds) / 2.6)) ** 0.8
    horn = formants(tone(wail, seconds, harmonics(14, 0.45)), [(1_300, 1_500, 1), (3_000, 2_500, 0.7)])
    street = 0.08 * noise(rng, seconds, 50, 2_500, 3)
    return room(rng, level(horn, 0.5) * swell(seconds, 0.8, 1.0), 0.4, 0.12) + street


def church_bell(rng: Rng, seconds: float = 12.0) -> Signal:
    """Three tower bells, each at its own pace."""
    out = np.zeros(samples(seconds))
    # Hum, prime, minor third, fifth, nominal and what is above it: not harmonic, which is what makes it a bell.
    modes = [(0.5, 0.5, 5.0), (1.0, 0.6, 3.0), (1.19, 1.0, 2.6), (1.5, 0.5, 1.6), (2.0, 1.0, 1.8)]
    modes += [
        (2.52, 0.5, 1.1),
        (2.66, 0.5, 1.0),
        (3.01, 0.7, 0.9),
        (4.17, 0.5, 0.6),
        (5.43, 0.35, 0.4),
        (6.8, 0.2, 0.3),
    ]
    for pitch, first, gain, every in ((466.0, 0.2, 1.0, 1.9), (587.0, 0.9, 0.8, 1.7), (392.0, 1.4, 0.8, 2.3)):
        for at in np.arange(first, seconds, every):
            length = min(6.0, seconds - at)
            beating = [(pitch * r * d, a / 2, t) for r, a, t in modes for d in (0.9993, 1.0008)]
            place(out, ringing(length, beating), at, gain * rng.uniform(0.85, 1.0))
            place(out, noise(rng, 0.05, 1_500, 7_000) * hit(0.05, 0.01), at, 0.3 * gain)
    return room(rng, out, 1.6, 0.2)


def alarm_clock(rng: Rng, seconds: float = 6.0) -> Signal:
    """A digital alarm: four beeps, a pause."""
    out = 0.002 * noise(rng, seconds)
    beep = tone(2_050, 0.075, harmonics(5, 1.3, odd=True)) * swell(0.075, 0.003, 0.003)
    for bar in np.arange(0.2, seconds - 0.6, 1.0):
        for n in range(4):
            place(out, beep, bar + 0.13 * n, 0.8)
    return out


def telephone(rng: Rng, seconds: float = 8.0) -> Signal:
    """An old telephone: a clapper between two bells, two rings."""
    out = np.zeros(samples(seconds))
    for ring_at in (0.3, 4.3):
        for n, at in enumerate(np.arange(ring_at, ring_at + 2.0, 0.04)):
            pitch = 1_480.0 if n % 2 else 1_210.0
            modes = [(pitch, 1.0, 0.35), (2.76 * pitch, 0.6, 0.18), (5.2 * pitch, 0.2, 0.08)]
            place(out, ringing(1.0, modes), at, 0.3 * rng.uniform(0.8, 1.0))
    return room(rng, out, 0.3, 0.12)


def car_horn(rng: Rng, seconds: float = 4.0) -> Signal:
    """Three honks of a two-tone horn."""
    out = 0.01 * noise(rng, seconds, 50, 1_500, 3)
    for at, length in ((0.2, 0.35), (0.75, 0.35), (1.5, 1.7)):
        honk = tone(415, length, harmonics(24, 0.6)) + tone(520, length, harmonics(20, 0.6))
        honk = formants(honk, [(500, 500, 0.6), (1_300, 900, 1), (2_600, 1_400, 0.7)])
        place(out, peak(honk) * swell(length, 0.02, 0.04), at, 0.8)
    return room(rng, out, 0.5, 0.12)


# -- at home -------------------------------------------------------------------------------------------------------


def clock_ticking(rng: Rng, seconds: float = 8.0) -> Signal:
    """Tick, tock, twice a second."""
    out = 0.0015 * noise(rng, seconds, 100, 5_000, 3)
    for n, at in enumerate(np.arange(0.1, seconds - 0.1, 0.5)):
        pitch = 2_900.0 if n % 2 else 2_350.0
        tick = ringing(0.1, [(pitch, 1, 0.006), (1.7 * pitch, 0.7, 0.004), (620, 0.25, 0.015)])
        place(out, tick + 0.5 * noise(rng, 0.1, 2_000, 9_000) * hit(0.1, 0.002, 0.0003), at, 0.5)
    return room(rng, out, 0.2, 0.08)


def typing(rng: Rng, seconds: float = 8.0) -> Signal:
    """Keys pressed and let go, now and then the space bar."""
    out = 0.003 * noise(rng, seconds, 80, 4_000, 3)
    at = 0.2
    while at < seconds - 0.3:
        is_space = rng.random() < 0.16
        body = 190.0 if is_space else rng.uniform(320, 480)
        for delay, gain in ((0.0, 1.0), (rng.uniform(0.06, 0.1), 0.45)):
            click = 0.8 * noise(rng, 0.05, 1_800, 8_000, 1) * hit(0.05, 0.004, 0.0005)
            place(out, click + ringing(0.05, [(body, 0.5, 0.012)]), at + delay, gain * rng.uniform(0.25, 0.5))
        at += rng.uniform(0.09, 0.2) if rng.random() < 0.85 else rng.uniform(0.3, 0.6)
    return room(rng, out, 0.25, 0.1)


def knocking(rng: Rng, seconds: float = 4.0) -> Signal:
    """Knuckles on a wooden door: three knocks, and three again."""
    out = np.zeros(samples(seconds))
    for first in (0.3, 2.2):
        for n in range(3):
            modes = [(95, 0.6, 0.05), (178, 1, 0.045), (310, 0.7, 0.03), (520, 0.4, 0.02), (1_150, 0.15, 0.01)]
            knock = ringing(0.3, [(f * rng.uniform(0.98, 1.02), a, d) for f, a, d in modes])
            place(out, knock + 0.4 * noise(rng, 0.3, 300, 3_000, 2) * hit(0.3, 0.006), first + 0.26 * n, 0.6)
    return room(rng, out, 0.35, 0.15)


def footsteps(rng: Rng, seconds: float = 9.0) -> Signal:
    """Hard shoes on a gritty pavement: heel, then sole."""
    out = 0.004 * noise(rng, seconds, 100, 3_000, 3)
    for at in np.arange(0.2, seconds - 0.4, 0.56):
        at += rng.uniform(-0.02, 0.02)
        for delay, length, gain in ((0.0, 0.06, 0.5), (0.11, 0.12, 1.0)):
            grit = convolve(sparse(rng, length, 700), noise(rng, 0.006, 700, 7_000, 1) * hit(0.006, 0.0015, 0.0002))
            place(out, peak(grit) * swell(length, 0.01, 0.8 * length), at + delay, 0.22 * gain * rng.uniform(0.7, 1.0))
        place(out, ringing(0.15, [(110, 0.5, 0.03), (240, 0.6, 0.02), (900, 0.3, 0.008)]), at, rng.uniform(0.4, 0.6))
        place(out, noise(rng, 0.08, 150, 2_500, 2) * hit(0.08, 0.012), at, 0.25)
        place(out, noise(rng, 0.1, 80, 900, 2) * hit(0.1, 0.02, 0.004), at + 0.11, 0.14)
    return room(rng, out, 0.4, 0.12)


def breaking_glass(rng: Rng, seconds: float = 3.0) -> Signal:
    """A pane bursts, its pieces fall and tinkle."""
    out = np.zeros(samples(seconds))
    place(out, noise(rng, 0.35, 1_000, 11_000) * hit(0.35, 0.05, 0.001), 0.2, 0.6)
    for _ in range(90):
        at = 0.2 + min(rng.exponential(0.4), seconds - 0.6)
        modes = [(rng.uniform(2_000, 9_500), rng.uniform(0.3, 1), rng.uniform(0.01, 0.06)) for _ in range(4)]
        place(out, ringing(0.25, modes), at, 0.3 * rng.random() * np.exp(-(at - 0.2) / 0.8))
    return room(rng, out, 0.4, 0.12)


def applause(rng: Rng, seconds: float = 8.0) -> Signal:
    """Many hands."""
    out = np.zeros(samples(seconds))
    for _ in range(45):
        clap = noise(rng, 0.05, rng.uniform(500, 1_000), rng.uniform(1_800, 4_000)) * hit(0.05, 0.008, 0.001)
        at, every, gain = rng.uniform(0, 0.6), rng.uniform(0.19, 0.3), rng.uniform(0.05, 0.35)
        while at < seconds:
            place(out, clap, at, gain * rng.uniform(0.7, 1.0))
            at += every * rng.uniform(0.9, 1.1)
    return room(rng, out, 0.9, 0.3) * swell(seconds, 0.8, 2.0)


# -- music ---------------------------------------------------------------------------------------------------------


def drum_loop(rng: Rng, seconds: float = 8.0) -> Signal:
    """Kick, snare and hi-hat at 120 beats a minute."""
    out = np.zeros(samples(seconds))
    kick = tone(48 + 110 * np.exp(-times(0.35) / 0.03), 0.35) * hit(0.35, 0.11)
    snare = ringing(0.3, [(185, 0.6, 0.07), (330, 0.4, 0.05)]) + 0.9 * noise(rng, 0.3, 700, 9_000) * hit(0.3, 0.09)
    hat = noise(rng, 0.12, 6_500) * hit(0.12, 0.018)
    for step in range(int(seconds * 4)):
        at = step * 0.25
        place(out, hat, at, 0.2 if step % 2 else 0.35)
        if step % 8 in (0, 5):
            place(out, kick, at, 0.95)
        if step % 4 == 2:
            place(out, snare, at, 0.55)
    return room(rng, out, 0.25, 0.08)


def _note(number: float) -> float:
    """Hz of a MIDI note."""
    return float(440.0 * 2 ** ((number - 69) / 12))


def piano(rng: Rng, seconds: float = 10.0) -> Signal:
    """Four chords, broken and then struck together."""
    out = np.zeros(samples(seconds))
    for bar, chord in enumerate(((48, 67, 72, 76), (45, 64, 69, 72), (41, 65, 69, 72), (43, 62, 67, 71))):
        for n, number in enumerate((*chord, *chord[1:])):
            at = bar * 2.4 + (0.2 * n if n < 4 else 1.2)
            pitch, length = _note(number), min(3.0, seconds - at)
            partials = [(k * np.sqrt(1 + 4e-4 * k * k), k**-1.2, 1.1 / (1 + 0.35 * k)) for k in range(1, 13)]
            modes = [(pitch * r * d, a / 2, t) for r, a, t in partials if pitch * r < 9_000 for d in (0.9997, 1.0004)]
            place(out, ringing(length, modes), at, 0.25)
            place(out, noise(rng, 0.04, 200, 2_500, 2) * hit(0.04, 0.008), at, 0.03)
    return room(rng, out, 0.9, 0.15)


def flute(rng: Rng, seconds: float = 8.0) -> Signal:
    """A slow melody with breath and vibrato."""
    out = np.zeros(samples(seconds))
    at = 0.1
    for number, length in ((74, 0.8), (76, 0.4), (79, 1.2), (78, 0.4), (76, 0.8), (74, 0.8), (71, 0.8), (74, 2.2)):
        t = times(length)
        pitch = _note(number) * (1 + 0.006 * np.minimum(t / 0.4, 1) * np.sin(2 * np.pi * 5.3 * t))
        body = tone(pitch, length, ((1, 1), (2, 0.35), (3, 0.14), (4, 0.04)))
        breath = noise(rng, length, 700, 6_000, 1) * (0.02 + 0.05 * hit(length, 0.05, 0.01))
        place(out, (body * (1 + 0.1 * np.sin(2 * np.pi * 5.3 * t)) + breath) * swell(length, 0.06, 0.08), at, 0.5)
        at += length
    return room(rng, out, 1.0, 0.2)


def guitar(rng: Rng, seconds: float = 7.0) -> Signal:
    """A plucked pattern on a steel-string guitar."""
    out = np.zeros(samples(seconds))
    for n, number in enumerate((52, 59, 64, 67, 64, 59, 57, 60, 64, 69, 64, 60, 55, 59, 62, 67, 62, 59, 50, 57)):
        at, pitch = 0.1 + 0.32 * n, _note(number)
        # Plucked at a seventh of the string: partials with a node there are missing.
        modes = [(k * pitch, abs(np.sin(np.pi * k / 7)) / k**0.7, 0.9 / (1 + 0.2 * k)) for k in range(1, 22)]
        place(out, ringing(min(1.8, seconds - at), [m for m in modes if m[0] < 8_000]), at, 0.3 * rng.uniform(0.8, 1))
        place(out, noise(rng, 0.02, 1_000, 6_000) * hit(0.02, 0.003), at, 0.06)
    return room(rng, out, 0.4, 0.1)


# -- scenes --------------------------------------------------------------------------------------------------------


def rain_and_bells(rng: Rng) -> Signal:
    """Rain in front, a church bell behind it."""
    bell = church_bell(rng, 12.0)
    return level(rain(rng, 12.0)) + 0.5 * level(filtered(bell, 0, 3_000))


def waves_and_steps(rng: Rng) -> Signal:
    """Breakers in front, somebody's steps behind them."""
    return level(sea_waves(rng, 10.0)) + 0.9 * level(footsteps(rng, 10.0))


def dog_and_engine(rng: Rng) -> Signal:
    """An engine idles, a dog barks behind it."""
    return level(engine(rng, 9.0)) + 0.6 * level(dog(rng, 9.0))


@dataclass(frozen=True, slots=True)
class Event:
    """What happens in the long recording, from when to when."""

    name: str
    make: Callable[[Rng, float], Signal]
    start_seconds: float
    end_seconds: float
    loudness: float


WALK_SECONDS = 60.0
WALK_EVENTS = (
    Event("footsteps", footsteps, 2, 12, 0.5),
    Event("a dog barking", dog, 14, 20, 1.0),
    Event("church bells", church_bell, 23, 33, 0.9),
    Event("a siren", siren, 36, 45, 1.0),
    Event("thunder", thunder, 48, 58, 1.0),
)


def evening_walk(rng: Rng) -> Signal:
    """A minute outside: a light wind all along, and `WALK_EVENTS`."""
    out = 0.12 * level(wind(rng, WALK_SECONDS))
    for event in WALK_EVENTS:
        sound = event.make(rng, event.end_seconds - event.start_seconds)
        place(out, level(sound), event.start_seconds, event.loudness)
    return out


# -- files ---------------------------------------------------------------------------------------------------------

SOUNDS: dict[str, Callable[[Rng], Signal]] = {
    "weather/rain.wav": rain,
    "weather/wind.wav": wind,
    "weather/thunder.wav": thunder,
    "water/waves on the beach.opus": sea_waves,
    "water/dripping.wav": water_drops,
    "fire/fireplace.wav": fire,
    "animals/birds.flac": birds,
    "animals/crickets.wav": crickets,
    "animals/dog.wav": dog,
    "machines/engine idling.wav": engine,
    "machines/helicopter.wav": helicopter,
    "machines/airplane.opus": airplane,
    "machines/chainsaw.wav": chainsaw,
    "machines/vacuum cleaner.wav": vacuum_cleaner,
    "signals/siren.wav": siren,
    "signals/church bell.flac": church_bell,
    "signals/alarm clock.wav": alarm_clock,
    "signals/telephone.wav": telephone,
    "signals/car horn.wav": car_horn,
    "home/clock.wav": clock_ticking,
    "home/keyboard.wav": typing,
    "home/knocking.wav": knocking,
    "home/footsteps.wav": footsteps,
    "home/breaking glass.wav": breaking_glass,
    "people/applause.wav": applause,
    "music/drum loop.wav": drum_loop,
    "music/piano.flac": piano,
    "music/flute.wav": flute,
    "music/guitar.wav": guitar,
    "scenes/rain with bells behind.wav": rain_and_bells,
    "scenes/waves with footsteps behind.wav": waves_and_steps,
    "scenes/engine with a dog behind.wav": dog_and_engine,
    "scenes/evening walk.flac": evening_walk,
}
# Sounds to search with, made anew from another seed: alike, but in no file of the library.
EXAMPLES: dict[str, Callable[[Rng], Signal]] = {"another dog.wav": dog}


def write_sounds(sounds: dict[str, Callable[[Rng], Signal]], folder: Path) -> list[Path]:
    """Make every sound of `sounds` and write it below `folder`; the paths, in order. Raises OSError."""
    paths = []
    for name, make in sounds.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sound(path, make(np.random.default_rng(list(name.encode()))))
        paths.append(path)
    return paths


def write_sound(path: Path, signal: Signal) -> None:
    """Write `signal` (mono, at RATE) as 16-bit WAV or FLAC, or as Opus, by the suffix of `path`."""
    data = np.round(limited(signal) * 32767).astype("<i2")
    if path.suffix == ".wav":
        with wave.open(str(path), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(RATE)
            out.writeframes(data.tobytes())
        return
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream({".flac": "flac", ".opus": "libopus"}[path.suffix], rate=RATE, layout="mono")
        stream.codec_context.open()
        resampler = av.AudioResampler(stream.format, "mono", RATE, stream.codec_context.frame_size or 4096)
        frame = av.AudioFrame.from_ndarray(data.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = RATE
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
