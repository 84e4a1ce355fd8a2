"""Long recordings with short events in them at known places: what it is to find a moment, drawn, rendered and judged.

background   ten minutes: clips of one ambience end to end, cross-faded, or synthesised noise that swells and ebbs
event        1 to 9 s: clips of one label, one after the other, 5 to 15 dB above the background around it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audiosearch.audio import SAMPLE_RATE
from audiosearch.types import Samples
from quality.data import Clip
from quality.sounds import clips_by_label, read

AMBIENCES = ("crickets", "rain", "sea waves", "wind")
NOISES = {"brown noise": 1.0, "pink noise": 0.5}  # name -> amplitude falls with frequency to the power of
RECORDING_SECONDS = 600.0
EVENT_SECONDS = (1.0, 9.0)  # drawn evenly in the logarithm: a second more means more to a short event
LOUDER_DB = (5.0, 15.0)
APART_SECONDS = 15.0  # between events, more than a window of ten seconds
FADE_SECONDS, EVENT_FADE_SECONDS = 0.5, 0.02
QUIET_DB = 40.0  # the ends of a clip that are this far below its loudest are not part of what one hears
LEAST_SECONDS = 0.15  # a shorter clip is a click
_FRAME = SAMPLE_RATE // 100

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Event:
    """`clips` of one label, end to end in `[start_seconds, end_seconds)`."""

    label: str
    start_seconds: float
    end_seconds: float
    clips: tuple[Clip, ...]
    louder_db: float


@dataclass(frozen=True, slots=True)
class Recording:
    """What to render. `background` names an ambience, made of `clips`, or a kind of noise, made from `seed`."""

    number: int
    background: str
    clips: tuple[Clip, ...]
    events: tuple[Event, ...]
    seconds: float
    seed: int


def draw(
    clips: Sequence[Clip],
    recordings: int,
    *,
    seed: int,
    events_each: int = 8,
    seconds: float = RECORDING_SECONDS,
) -> list[Recording]:
    """Recordings of ESC-50 `clips`, each with `events_each` events of different labels."""
    rng = np.random.default_rng(seed)
    by_label = clips_by_label([clip for clip in clips if clip.is_esc])
    labels = [label for label in by_label if label not in AMBIENCES]
    kinds = [label for label in AMBIENCES if label in by_label] + list(NOISES)
    drawn = []
    for number in range(recordings):
        background = kinds[number % len(kinds)]
        own = by_label.get(background, [])
        order = tuple(own[int(i)] for i in rng.permutation(len(own)))
        chosen = [labels[int(i)] for i in rng.choice(len(labels), size=events_each, replace=False)]
        low, high = np.log(EVENT_SECONDS)
        lengths = np.exp(rng.uniform(low, high, events_each))
        starts = _starts(rng, lengths, seconds)
        events = tuple(
            _event(rng, label, float(start), float(length), by_label[label])
            for label, start, length in zip(chosen, starts, lengths, strict=True)
        )
        drawn.append(Recording(number, background, order, events, seconds, int(rng.integers(2**31))))
    return drawn


def render(recording: Recording) -> Samples:
    """The sound, mono float32 at 16 kHz."""
    sound = _background(recording)
    for event in recording.events:
        first, last = round(event.start_seconds * SAMPLE_RATE), round(event.end_seconds * SAMPLE_RATE)
        sound[first:last] += 10 ** (event.louder_db / 20) * _level(sound[first:last]) * _rendered(event, last - first)
    return (0.7 * sound / np.abs(sound).max()).astype(np.float32)


def overlap(one: Span, other: Span) -> float:
    """Intersection over union of two spans."""
    shared = min(one[1], other[1]) - max(one[0], other[0])
    return max(0.0, shared) / (max(one[1], other[1]) - min(one[0], other[0]))


def best_overlap(span: Span, events: Sequence[Event]) -> float:
    """The largest overlap of `span` with one of `events`."""
    return max((overlap(span, (each.start_seconds, each.end_seconds)) for each in events), default=0.0)


def by_label(recordings: Sequence[Recording]) -> Mapping[str, list[tuple[int, Event]]]:
    """Of every label the events with the number of their recording."""
    found: dict[str, list[tuple[int, Event]]] = {}
    for recording in recordings:
        for event in recording.events:
            found.setdefault(event.label, []).append((recording.number, event))
    return found


def _starts(rng: np.random.Generator, lengths: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
    """Where events of `lengths` begin, in order, at least `APART_SECONDS` from each other and from both ends."""
    spare = seconds - lengths.sum() - APART_SECONDS * (len(lengths) + 1)
    if spare < 0:
        raise ValueError(f"{len(lengths)} events do not fit into {seconds:g} s")
    before = np.sort(rng.uniform(0, spare, len(lengths)))
    taken = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    starts: NDArray[np.float64] = before + taken + APART_SECONDS * np.arange(1, len(lengths) + 1)
    return starts


def _event(rng: np.random.Generator, label: str, start: float, seconds: float, clips: Sequence[Clip]) -> Event:
    chosen, held = [], 0.0
    while held < seconds:  # another clip of the label goes on where one is too short
        for i in rng.permutation(len(clips)):
            clip = clips[int(i)]
            if held < seconds:
                chosen.append(clip)
                held += max(len(_audible(read(clip.path))) / SAMPLE_RATE, LEAST_SECONDS)
    louder = float(rng.uniform(*LOUDER_DB))
    return Event(label, start, start + seconds, tuple(chosen), louder)


def _rendered(event: Event, length: int) -> NDArray[np.float64]:
    """The event's clips, (length,) at an RMS of 1 with short fades."""
    parts = [_audible(read(clip.path)) for clip in event.clips]
    sound = np.resize(np.concatenate([part / max(_level(part), 1e-6) for part in parts]), length)
    fade = np.linspace(0, 1, min(round(EVENT_FADE_SECONDS * SAMPLE_RATE), length // 2))
    sound[: len(fade)] *= fade
    sound[length - len(fade) :] *= fade[::-1]
    return sound / max(_level(sound), 1e-6)


def _audible(sound: Samples) -> NDArray[np.float64]:
    """`sound` without the quiet at both ends."""
    n = max(1, len(sound) // _FRAME)
    levels = np.array([_level(part) for part in np.array_split(sound.astype(np.float64), n)])
    loud = np.flatnonzero(levels >= levels.max() * 10 ** (-QUIET_DB / 20))
    step = len(sound) / n
    return sound[int(loud[0] * step) : int((loud[-1] + 1) * step)].astype(np.float64)


def _background(recording: Recording) -> NDArray[np.float64]:
    length = round(recording.seconds * SAMPLE_RATE)
    if recording.clips:
        return _strung([read(clip.path).astype(np.float64) for clip in recording.clips], length)
    rng = np.random.default_rng(recording.seed)
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequencies = np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 20.0)
    noise = np.fft.irfft(spectrum / frequencies ** NOISES[recording.background], length)
    points = np.arange(0, recording.seconds + 5.0, 5.0)
    swell_db = np.interp(np.arange(length) / SAMPLE_RATE, points, rng.uniform(-3, 3, len(points)))
    sound: NDArray[np.float64] = noise / _level(noise) * 10 ** (swell_db / 20)
    return sound


def _strung(parts: Sequence[NDArray[np.float64]], length: int) -> NDArray[np.float64]:
    """`parts` over and over, each at the same level, cross-faded, (length,)."""
    sound = np.zeros(length)
    at = number = 0
    while at < length:
        part = parts[number % len(parts)]
        n_fade = min(round(FADE_SECONDS * SAMPLE_RATE), len(part) // 3)
        fade = np.sin(np.linspace(0, np.pi / 2, n_fade))
        part = part / max(_level(part), 1e-6)
        part[:n_fade] *= fade
        part[len(part) - n_fade :] *= fade[::-1]
        end = min(length, at + len(part))
        sound[at:end] += part[: end - at]
        at, number = at + len(part) - n_fade, number + 1
    return sound


def _level(sound: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))
