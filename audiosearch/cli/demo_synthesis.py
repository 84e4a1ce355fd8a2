"""What the demo's sounds are built from: shaped noise, envelopes, partials, events in time. numpy only.

Signals are float64, mono, at `RATE`; times are seconds, frequencies Hz. Randomness comes from the generator passed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

RATE = 24_000  # Opus knows it, and what a model hears ends at 8 kHz

Signal = NDArray[np.float64]
Rng = np.random.Generator


def samples(seconds: float) -> int:
    """How many samples that is."""
    return round(seconds * RATE)


def times(seconds: float) -> Signal:
    """The time of each sample."""
    return np.arange(samples(seconds)) / RATE


def noise(rng: Rng, seconds: float, low: float = 0.0, high: float = RATE / 2, tilt_db: float = 0.0) -> Signal:
    """Noise of RMS one between `low` and `high`, falling by `tilt_db` an octave."""
    return level(filtered(rng.standard_normal(samples(seconds)), low, high, tilt_db))


def filtered(signal: Signal, low: float = 0.0, high: float = RATE / 2, tilt_db: float = 0.0) -> Signal:
    """`signal` between `low` and `high` (18 dB an octave outside), falling by `tilt_db` an octave inside."""
    frequencies = np.maximum(np.fft.rfftfreq(len(signal), 1 / RATE), 1e-3)
    gain = 1 / np.sqrt(1 + (frequencies / high) ** 6)
    if low:
        gain /= np.sqrt(1 + (low / frequencies) ** 6)
    gain *= np.maximum(frequencies, 20.0) ** (-tilt_db / 6.02)
    gain[0] = 0.0
    return np.fft.irfft(np.fft.rfft(signal) * gain, len(signal))


def level(signal: Signal, rms: float = 1.0) -> Signal:
    """`signal` scaled to that RMS."""
    return signal * (rms / max(float(np.sqrt(np.mean(signal**2))), 1e-12))


def peak(signal: Signal, value: float = 1.0) -> Signal:
    """`signal` scaled to that peak."""
    return signal * (value / max(float(np.abs(signal).max(initial=0.0)), 1e-12))


def wander(rng: Rng, seconds: float, every_seconds: float) -> Signal:
    """A smooth random curve within 0..1 with a new aim every `every_seconds`."""
    n = max(4, int(seconds / every_seconds) + 3)
    knots = rng.random(n)
    at = np.arange(samples(seconds)) / (every_seconds * RATE)
    left = np.minimum(at.astype(int), n - 2)
    part = 0.5 - 0.5 * np.cos(np.pi * np.minimum(at - left, 1.0))
    return knots[left] * (1 - part) + knots[left + 1] * part


def curve(seconds: float, points: Sequence[tuple[float, float]]) -> Signal:
    """Straight lines through `points` (time, value)."""
    at, values = zip(*points, strict=True)
    return np.interp(times(seconds), at, values)


def hit(seconds: float, decay: float, attack: float = 0.001) -> Signal:
    """An envelope: up within `attack`, down to 1/e within `decay`."""
    t = times(seconds)
    return np.minimum(t / attack, 1.0) * np.exp(-np.maximum(t - attack, 0.0) / decay)


def swell(seconds: float, fade_in: float, fade_out: float) -> Signal:
    """An envelope of one with smooth ends."""
    t = times(seconds)
    ends = np.minimum(np.clip(t / fade_in, 0, 1), np.clip((seconds - t) / fade_out, 0, 1))
    return 0.5 - 0.5 * np.cos(np.pi * ends)


def tone(frequency: ArrayLike, seconds: float, partials: Iterable[tuple[float, float]] = ((1.0, 1.0),)) -> Signal:
    """Partials (ratio, amplitude) over a constant or moving `frequency`; none above what `RATE` can hold."""
    moving = np.broadcast_to(np.asarray(frequency, dtype=np.float64), samples(seconds))
    phase = 2 * np.pi * np.cumsum(moving) / RATE
    out = np.zeros(len(moving))
    for ratio, amplitude in partials:
        out += amplitude * np.sin(ratio * phase) * (ratio * moving < 0.47 * RATE)
    return out


def harmonics(n: int, rolloff: float, *, odd: bool = False) -> list[tuple[float, float]]:
    """Partials 1..n with amplitude k**-rolloff, or the odd ones only."""
    return [(float(k), k**-rolloff) for k in range(1, n + 1, 2 if odd else 1)]


def formants(signal: Signal, peaks: Sequence[tuple[float, float, float]]) -> Signal:
    """`signal` through resonances (frequency, bandwidth, gain), as of a throat or a wooden box."""
    frequencies = np.fft.rfftfreq(len(signal), 1 / RATE)
    gain = sum(g / (1 + ((frequencies - centre) / (width / 2)) ** 2) for centre, width, g in peaks)
    return np.fft.irfft(np.fft.rfft(signal) * gain, len(signal))


def ringing(seconds: float, modes: Iterable[tuple[float, float, float]]) -> Signal:
    """Struck modes (frequency, amplitude, decay) added up."""
    n, block = samples(seconds), 256
    out = np.zeros(n)
    for frequency, amplitude, decay in modes:
        audible = min(n, samples(7 * decay))
        step = (2j * np.pi * frequency - 1 / decay) / RATE
        # Powers of one complex number, block by block: twenty times as fast as a sine and an exponential a sample.
        starts = np.exp(step * block * np.arange(audible // block + 1))
        mode = (starts[:, None] * np.exp(step * np.arange(block))).imag.ravel()
        out[:audible] += amplitude * mode[:audible]
    attack = min(n, samples(0.001))
    out[:attack] *= np.linspace(0, 1, attack)
    return out


def place(out: Signal, sound: Signal, at: float, gain: float = 1.0) -> None:
    """Add `sound` to `out` from time `at`; what goes past the end is cut off."""
    start = samples(at)
    part = sound[: max(0, len(out) - start)]
    out[start : start + len(part)] += gain * part


def sparse(rng: Rng, seconds: float, per_second: float, spread: float = 1.0) -> Signal:
    """Impulses at random times, their heights log-normal with that spread, none above four."""
    out = np.zeros(samples(seconds))
    count = rng.poisson(per_second * seconds)
    heights = np.minimum(rng.lognormal(0, spread, count), 4.0) * rng.choice([-1, 1], count)
    np.add.at(out, rng.integers(0, len(out), count), heights)
    return out


def convolve(signal: Signal, response: Signal) -> Signal:
    """`signal` through `response`, as long as `signal`."""
    size = -(-(len(signal) + len(response)) // 4096) * 4096  # a length without large prime factors is much faster
    return np.fft.irfft(np.fft.rfft(signal, size) * np.fft.rfft(response, size), size)[: len(signal)]


def room(rng: Rng, signal: Signal, seconds: float = 0.3, wet: float = 0.15) -> Signal:
    """`signal` with the echo of a room whose sound dies away in `seconds`."""
    tail = noise(rng, seconds, 150, 5_000, 2) * np.exp(-6.9 * times(seconds) / seconds)
    echo = convolve(signal, tail)
    return signal + wet * level(echo, float(np.sqrt(np.mean(signal**2))))


def limited(signal: Signal) -> Signal:
    """`signal` at a usual loudness: all but its rarest peaks below 0.6, those rounded off below 0.9."""
    usual = signal / max(float(np.quantile(np.abs(signal), 0.9995)), 1e-12)
    above = np.maximum(np.abs(usual) - 1.0, 0.0)
    return 0.6 * np.sign(usual) * (np.minimum(np.abs(usual), 1.0) + 0.5 * np.tanh(above / 0.5))
