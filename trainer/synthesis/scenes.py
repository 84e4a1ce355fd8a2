"""Scenes made of packed clips, in the mel domain: layered, one after the other, counted, loud or quiet; and what is
true of them.

    clip ──take──> window ──colour──> level ──┐
    clip ──take──> window ──colour──> level ──┴─ powers add ──> floor ──> dB ──> Scene(mel, events, facts)

Power spectra of independent sounds add, so a scene is a sum of scaled copies. A sound's level is the mean power of its
frames, summed over the mel bins, in dB: its RMS, but for the overlap of the filters. All that is drawn comes from the
generator that is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from audiosearch.features import HOP_LENGTH, SAMPLE_RATE, TOP_DB
from audiosearch.trainer.batch import Decibels
from audiosearch.trainer.pack import DB_HIGH, DB_LOW, FeaturePack
from audiosearch.trainer.synthesis.facts import SceneFacts
from audiosearch.trainer.synthesis.speed import played

Power = NDArray[np.float32]  # (frames, 64)

FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH
MOST_REPEATS = 5
# Loud and quiet, as levels in dB of a scene's loudest twentieth; a full-scale sine has about 44. In between, and where
# neither was wanted, nothing is said.
LOUD_DB, QUIET_DB = (33.0, 42.0), (-28.0, 2.0)
TOLD_APART_DB = 1.5  # a foreground is clearly one from this gap on

_LOOKUP = (10 ** (np.linspace(DB_LOW, DB_HIGH, 256) / 10)).astype(np.float32)
_DB_PER_NEPER = np.float32(10 / np.log(10))
_TINY = np.float32(1e-12)
# A clip is one short event if all that lies within EVENT_DB of its loudest frame is one run of this many frames,
# shorter pauses (a plosive's closure) counted in; between repeats there is a pause longer than that.
EVENT_DB, EVENT_FRAMES, EVENT_PAUSE = 25.0, (4, 120), 12
# Several of what these clips hold would not be "the same, three times".
_UNCOUNTABLE = {"footsteps", "crowd", "clapping", "keyboard typing", "insects", "rustling leaves", "drum loop", "fire"}
# Played faster, a note would be another note, and a speaker another speaker.
_KEEP_SPEED = {"music", "speech"}
_FADE = np.linspace(0, 1, 6, dtype=np.float32)[:, None]


@dataclass(frozen=True, slots=True)
class Event:
    """A clip in a scene, `count` times, the first at `start_seconds`. `level_db` is its own RMS where it sounds."""

    clip: int
    start_seconds: float
    level_db: float
    count: int = 1


@dataclass(frozen=True, slots=True)
class Scene:
    """A made sound. `events` are in the order of `facts.rows`."""

    mel: Decibels
    events: tuple[Event, ...]
    facts: SceneFacts


@dataclass(frozen=True, slots=True)
class _Part:
    """A clip's window, coloured, not yet in place."""

    clip: int
    power: Power
    place: str
    is_whole: bool

    @property
    def level_db(self) -> float:
        return level_db(self.power)


def level_db(power: Power) -> float:
    """RMS level in dB of mel powers (frames, bins)."""
    return float(10 * np.log10(power.sum() / max(1, len(power)) + _TINY))


class SceneMaker:
    """Makes scenes of a pack's clips.

    Args:
        level_gap_db: how far a background lies below its foreground, drawn evenly between the two.
        augment: the chance of each change of colour, of another speed, and of each mask.
        speeds: the slowest and the fastest that a clip is played, but for music and speech.
        clips: those that may be laid below others or repeated; None: all.
    """

    def __init__(
        self,
        pack: FeaturePack,
        *,
        level_gap_db: tuple[float, float] = (0.0, 12.0),
        augment: float = 0.25,
        speeds: tuple[float, float] = (1.0, 1.0),
        clips: NDArray[np.int64] | None = None,
    ) -> None:
        self.pack, self.level_gap_db, self.augment, self.speeds = pack, level_gap_db, augment, speeds
        self.clips = np.arange(len(pack)) if clips is None else clips
        # A fixed field of noise; scenes take windows of it, which is far cheaper than drawing it anew.
        self._noise = np.random.default_rng(0).standard_exponential((4_096, 64), dtype=np.float32)
        self.lengths = np.diff(pack.offsets)
        self.spans = self._short_events()

    def _short_events(self) -> dict[int, tuple[int, int]]:
        """Of each clip that is one short event, its frames [start, stop)."""
        spans = {}
        for clip in self.clips.tolist():
            row = self.pack.rows[clip]
            generated = self.pack.sound(clip)
            if row.sound_class in _UNCOUNTABLE or self.lengths[clip] > 3 * EVENT_FRAMES[1]:
                continue
            if generated is not None and generated.traits.count > 1:
                continue
            levels = _DB_PER_NEPER * np.log(self._power(clip).sum(axis=1) + _TINY)
            heard = np.flatnonzero(levels > levels.max() - EVENT_DB)
            start, stop = int(heard[0]), int(heard[-1]) + 1
            if np.diff(heard, append=stop).max() <= EVENT_PAUSE and EVENT_FRAMES[0] <= stop - start <= EVENT_FRAMES[1]:
                spans[clip] = max(0, start - 2), min(int(self.lengths[clip]), stop + 6)
        return spans

    def countable(self, frames: int) -> NDArray[np.int64]:
        """Clips that fit at least twice, with a pause between, into so many frames."""
        fits = [clip for clip, (start, stop) in self.spans.items() if 2 * (stop - start) + 2 * EVENT_PAUSE <= frames]
        return np.array(fits, dtype=np.int64)

    def clear_gap(self, rng: np.random.Generator) -> float:
        """A level gap by which a foreground is clearly one."""
        low, high = self.level_gap_db
        return float(rng.uniform(max(low, TOLD_APART_DB), max(high, TOLD_APART_DB)))

    # -- scenes ------------------------------------------------------------------------------------------------------

    def single(
        self,
        rng: np.random.Generator,
        clip: int,
        frames: int,
        *,
        loudness: str = "",
        keep_short: bool = False,
        speed: float | None = None,
    ) -> Scene:
        """One clip; `loudness` "loud" or "quiet" makes it so. A short one is looped or padded unless it may stay.
        `speed`: how fast it is played, pitch and formants with it; drawn if not given."""
        part = self._part(rng, clip, frames, speed)
        once = True
        if len(part.power) == frames or keep_short:
            power, start = part.power, 0
        else:
            power, start, once = self._filled(rng, part.power, frames)
        sound = self.pack.sound(clip)
        facts = SceneFacts("single", (self.pack.rows[clip],), place=part.place)
        if sound is not None and part.is_whole and once:
            facts = replace(facts, whole_phrases=sound.whole_phrases)
        events = (Event(clip, start / FRAMES_PER_SECOND, part.level_db),)
        return self._finished(rng, power, events, facts, loudness, rest=None if loudness else self._beside(rng, frames))

    def layered(
        self, rng: np.random.Generator, front: int, back: int, frames: int, *, gap_db: float | None = None
    ) -> Scene:
        """`front` and `back` at the same time, `back` the quieter by `gap_db` (drawn if not given)."""
        gap = float(rng.uniform(*self.level_gap_db)) if gap_db is None else gap_db
        parts = self._part(rng, front, frames), self._part(rng, back, frames)
        parts = parts[0], _scaled(parts[1], parts[0].level_db - gap - parts[1].level_db)
        total, events = np.zeros((frames, 64), np.float32), []
        for part in parts:
            power, start, _ = self._filled(rng, part.power, frames)
            total += power
            events.append(Event(part.clip, start / FRAMES_PER_SECOND, part.level_db))
        facts = SceneFacts(
            "layered",
            tuple(self.pack.rows[part.clip] for part in parts),
            place=_common(parts),
            told_apart=gap >= TOLD_APART_DB,
        )
        return self._finished(rng, total, tuple(events), facts)

    def ordered(self, rng: np.random.Generator, clips: Sequence[int], frames: int) -> Scene:
        """`clips` one after the other, each whole or cut to its share of the time, at most 6 dB apart in level."""
        gap = int(rng.integers(3, max(4, frames // 12)))
        room = (frames - gap * (len(clips) - 1)) // len(clips)
        parts = [self._part(rng, clip, room) for clip in clips]
        slack = frames - gap * (len(clips) - 1) - sum(len(part.power) for part in parts)
        before = np.diff(np.sort(rng.integers(0, slack + 1, size=len(clips))), prepend=0)
        total, events, position = np.zeros((frames, 64), np.float32), [], 0
        for part, more in zip(parts, before, strict=True):
            other = parts[0].level_db + float(rng.uniform(-3, 3)) - part.level_db
            placed = _scaled(part, other if part is not parts[0] else 0.0)
            position += int(more)
            total[position : position + len(placed.power)] += _faded(placed.power)
            events.append(Event(part.clip, position / FRAMES_PER_SECOND, placed.level_db))
            position += len(placed.power) + gap
        facts = SceneFacts("ordered", tuple(self.pack.rows[clip] for clip in clips), place=_common(parts))
        return self._finished(rng, total, tuple(events), facts)

    def counted(self, rng: np.random.Generator, clip: int, frames: int, *, count: int | None = None) -> Scene:
        """A clip of `countable` `count` times (drawn if not given), with pauses. Fewer where more do not fit."""
        start, stop = self.spans[clip]
        power = self._coloured(rng, self._power(clip, start, stop))
        length = len(power)
        most = min(MOST_REPEATS, (frames + 2 * EVENT_PAUSE) // (length + 2 * EVENT_PAUSE))
        count = min(most, count if count is not None else int(rng.integers(1, most + 1)))
        slack = frames - count * length - (count - 1) * 2 * EVENT_PAUSE
        # Evenly spaced as often as at random; long rests between the events are as likely as short ones.
        pause = 2 * EVENT_PAUSE + int(rng.integers(0, slack // count + 1)) * (count > 1)
        slack = frames - count * length - (count - 1) * pause
        first = int(rng.integers(0, slack + 1))
        shifts = np.zeros(count, np.int64)
        if rng.random() < 0.5 and count > 1:
            shifts = np.sort(rng.integers(0, slack - first + 1, size=count))
        total = np.zeros((frames, 64), np.float32)
        for i in range(count):
            at = first + i * (length + pause) + int(shifts[i])
            total[at : at + length] += power * np.float32(10 ** (rng.uniform(-1.5, 1.5) / 10))
        facts = SceneFacts("counted", (self.pack.rows[clip],), count=count)
        events = (Event(clip, (first + int(shifts[0])) / FRAMES_PER_SECOND, level_db(power), count),)
        return self._finished(rng, total, events, facts)

    # -- parts -------------------------------------------------------------------------------------------------------

    def _power(self, take: int, start: int = 0, stop: int | None = None) -> Power:
        first, last = int(self.pack.offsets[take]), int(self.pack.offsets[take + 1])
        return np.take(_LOOKUP, self.pack.mel[first + start : last if stop is None else min(last, first + stop)])

    def _part(self, rng: np.random.Generator, clip: int, frames: int, speed: float | None = None) -> _Part:
        """At most `frames` of one take of a clip, played at `speed` (drawn if not given), coloured."""
        take = self.pack.variant(clip, rng)
        speed = self._speed(rng, clip) if speed is None else speed
        total, first = int(self.lengths[take]), int(self.pack.offsets[take])
        start, wanted = 0, max(1, int(frames * speed))
        if total > wanted:
            starts = rng.integers(0, total - wanted + 1, size=3)
            # A random window of a sparse clip is mostly pause: take the liveliest of three, or the first at times.
            means = [self.pack.mel[first + s : first + s + wanted : 4].mean() for s in starts]
            start = int(starts[int(np.argmax(means)) if rng.random() < 0.7 else 0])
        power = self._coloured(rng, played(self._power(take, start, start + wanted), speed)[:frames])
        return _Part(clip, power, self.pack.facts(take).place, total <= wanted)

    def _speed(self, rng: np.random.Generator, clip: int) -> float:
        """At times another dog, another engine."""
        if rng.random() >= self.augment or self.pack.rows[clip].group in _KEEP_SPEED:
            return 1.0
        return float(round(np.exp(rng.uniform(*np.log(self.speeds))), 2))

    def _coloured(self, rng: np.random.Generator, power: Power) -> Power:
        """With a tilt, without the highest or the lowest bins, each with the chance `augment`: no source may betray
        itself by its bandwidth. It comes before the levels are set, so that those stay true."""
        gains = np.zeros(64, np.float32)
        if rng.random() < self.augment:
            gains += np.linspace(-1, 1, 64, dtype=np.float32) * np.float32(rng.uniform(-6, 6))
        if rng.random() < self.augment * 0.7:  # a telephone, an 8 kHz original, a far microphone
            cut = int(rng.integers(32, 60))
            gains[cut:] -= np.minimum(np.arange(1, 65 - cut) * 6, 60)
        if rng.random() < self.augment * 0.5:
            cut = int(rng.integers(1, 8))
            gains[:cut] -= np.arange(cut, 0, -1) * 6
        return power * (10 ** (gains / 10)).astype(np.float32) if gains.any() else power

    def _filled(self, rng: np.random.Generator, power: Power, frames: int) -> tuple[Power, int, bool]:
        """A part in `frames`, looped or once, with the frame it starts at and whether it is there just once."""
        length = len(power)
        if length >= frames:
            return power[:frames], 0, True
        out = np.zeros((frames, 64), np.float32)
        first = 0 if rng.random() < 0.5 else int(rng.integers(0, frames - length + 1))
        step = length + int(rng.integers(0, 60))
        starts = range(first, frames, step) if rng.random() < 0.6 else range(first, first + 1)
        for start in starts:
            piece = power[: frames - start]
            out[start : start + len(piece)] = piece
        return out, first, len(starts) == 1

    def _beside(self, rng: np.random.Generator, frames: int) -> _Part | None:
        """At times another sound, to be laid far below."""
        if rng.random() >= self.augment:
            return None
        return self._part(rng, int(self.clips[rng.integers(len(self.clips))]), frames)

    def _finished(
        self,
        rng: np.random.Generator,
        power: Power,
        events: tuple[Event, ...],
        facts: SceneFacts,
        loudness: str = "",
        rest: _Part | None = None,
    ) -> Scene:
        """Powers to dB: noise floor, level, masks."""
        frames, bins = power.shape
        level = level_db(power)
        if rest is not None:
            below = _scaled(rest, level - float(rng.uniform(15, 30)) - rest.level_db).power[:frames]
            power = power.copy()
            power[: len(below)] += below
        at = int(rng.integers(0, len(self._noise) - frames + 1))
        slope = np.linspace(0, float(rng.uniform(-20, 5)), bins)
        floor = 10 ** ((level - float(rng.uniform(55, 110)) + slope) / 10)
        mel = _DB_PER_NEPER * np.log(power + self._noise[at : at + frames] * floor.astype(np.float32) + _TINY)
        shift = float(rng.uniform(-10, 6))
        if loudness:
            low, high = LOUD_DB if loudness == "loud" else QUIET_DB
            loudest = float(np.percentile(power.sum(axis=1), 95))
            shift = float(rng.uniform(low, high)) - 10 * np.log10(loudest + _TINY)
        mel += np.float32(shift)
        if facts.kind in ("single", "layered") and not facts.whole_phrases:  # elsewhere an event could be lost
            self._mask(rng, mel)
        # What the front end would have done: a floor 120 dB below the item's own peak.
        np.maximum(mel, max(DB_LOW, float(mel.max()) - TOP_DB), out=mel)
        moved = tuple(replace(event, level_db=event.level_db + shift) for event in events)
        heard: Literal["", "loud", "quiet"] = "loud" if loudness == "loud" else "quiet" if loudness else ""
        return Scene(mel, moved, replace(facts, loudness=heard))

    def _mask(self, rng: np.random.Generator, mel: Decibels) -> None:
        """SpecAugment, the scene's own mean in the place of what is masked."""
        frames, bins = mel.shape
        if rng.random() < self.augment and frames > 60:
            width = int(rng.integers(8, frames // 4))
            start = int(rng.integers(0, frames - width))
            mel[start : start + width] = mel.mean(axis=0)
        if rng.random() < self.augment:
            width = int(rng.integers(2, 12))
            start = int(rng.integers(0, bins - width))
            mel[:, start : start + width] = mel[:, start : start + width].mean(axis=0)


def _scaled(part: _Part, gain_db: float) -> _Part:
    return replace(part, power=part.power * np.float32(10 ** (gain_db / 10)))


def _faded(power: Power) -> Power:
    """Without a click at either end."""
    if len(power) < 3 * len(_FADE):
        return power
    out = power.copy()
    out[: len(_FADE)] *= _FADE
    out[-len(_FADE) :] *= _FADE[::-1]
    return out


def _common(parts: Sequence[_Part]) -> str:
    """The place that all parts say, or nothing."""
    places = {part.place for part in parts}
    return places.pop() if len(places) == 1 else ""
