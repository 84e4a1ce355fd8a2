"""Which clips a scene is made of: balanced by class, of one topic, of one sound, of words and voices that cross."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from audiosearch.trainer.manifest import ManifestRow
from audiosearch.trainer.synthesis.facts import PRESENCES, content_of, topic_of, word_of

_TRIES = 40
# Topics that are told apart in one scene more often than others.
_THEMES = (("speech", "music"), ("vehicle", "weather"), ("animal", "water"), ("speech", "household"))
# Two things that a scene may hold or not, each without the other.
_PRESENCE_PAIRS = (
    ("speech", "music"),
    ("vehicle", "wind"),
    ("animal", "water"),
    ("rain", "speech"),
    ("music", "vehicle"),
)

# A voice played so much faster or slower is another; two of one speaker lie at least as far apart.
_SPEEDS, _APART = (0.75, 1.33), 1.2

Clips = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Voice:
    """Who says a word: a speaker, played at a speed that makes another of them."""

    family: str
    speed: float

    def __str__(self) -> str:
        return f"{self.family} at {self.speed:.2f}"


class ClipDraw:
    """Draws clips with (clips of their class) ** `class_exponent`, times their rows' weights.

    Args:
        rows: what is known of the clips, `clips` being places among them.
        clips: the ones to draw from; None: all of them.

    `contents[i]`: what clip i shares with clips of the same sound. `squares`: pairs of words with the families that
    say both, which are speakers as far as families tell them apart.
    """

    def __init__(self, rows: Sequence[ManifestRow], class_exponent: float, clips: Clips | None = None) -> None:
        self.rows = rows
        self.clips = np.arange(len(rows)) if clips is None else clips
        _, indices = np.unique([row.sound_class or row.label for row in rows], return_inverse=True)
        counts = np.bincount(indices[self.clips], minlength=len(rows)).clip(min=1)
        self.weights = np.array([row.weight for row in rows]) * counts[indices] ** class_exponent
        self.contents = [content_of(row) for row in rows]
        self._ends: dict[str, tuple[Clips, NDArray[np.float64]]] = {}
        self._put("", self.clips)
        by_content, by_topic = defaultdict(list), defaultdict(list)
        voices: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for clip in self.clips.tolist():
            row = rows[clip]
            by_content[self.contents[clip]].append(clip)
            by_topic[topic_of(row)].append(clip)
            if word_of(row) and row.family:
                voices[row.family][word_of(row)].append(clip)
        self._alike = {content: np.array(clips) for content, clips in by_content.items()}
        self.topics = tuple(
            sorted(topic for topic, clips in by_topic.items() if topic and len({self.contents[i] for i in clips}) > 1)
        )
        for topic in self.topics:
            self._put(topic, np.array(by_topic[topic]))
        self.presences = tuple(pair for pair in _PRESENCE_PAIRS if self._put_presences(*pair))
        self.voices = voices
        families: dict[tuple[str, str], list[str]] = defaultdict(list)
        for family, words in sorted(voices.items()):
            for pair in combinations(sorted(words), 2):
                families[pair].append(family)
        self.squares = sorted(families.items())

    def _put(self, name: str, clips: Clips) -> None:
        self._ends[name] = clips, np.cumsum(self.weights[clips])

    def _put_presences(self, one: str, two: str) -> bool:
        """Sets of the clips that surely hold one of the two, the other, and neither. False if there are too few: two
        clips of either, which may be one sound's (all wind is wind), and two sounds that are neither."""
        known = [[PRESENCES[name].known(row) for row in self.rows] for name in (one, two)]
        found = True
        for holds in product((True, False), repeat=2):
            clips = [i for i in self.clips.tolist() if (known[0][i], known[1][i]) == holds]
            if holds != (True, True):
                sounds = clips if any(holds) else {self.contents[i] for i in clips}
                found = found and len(sounds) > 1
                self._put(self.presence_set(one, two, *holds), np.array(clips, dtype=np.int64))
        return found

    @staticmethod
    def presence_set(one: str, two: str, has_one: bool, has_two: bool) -> str:
        """The name of a set for `any` and `different`."""
        return f"{one}: {has_one}, {two}: {has_two}"

    def any(self, rng: np.random.Generator, topic: str = "") -> int:
        """A clip, of that topic or set if one is given."""
        clips, ends = self._ends[topic]
        return int(clips[min(int(np.searchsorted(ends, rng.random() * ends[-1], side="right")), len(clips) - 1)])

    def among(self, rng: np.random.Generator, clips: Clips) -> int:
        """One of `clips`, by their weights."""
        ends = np.cumsum(self.weights[clips])
        return int(clips[min(int(np.searchsorted(ends, rng.random() * ends[-1], side="right")), len(clips) - 1)])

    def like(self, rng: np.random.Generator, clip: int) -> int:
        """Another clip of the same sound, or the same where there is no other."""
        alike = self._alike[self.contents[clip]]
        if len(alike) == 1:
            return clip
        other = int(alike[int(rng.integers(len(alike) - 1))])
        return int(alike[-1]) if other == clip else other

    def different(self, rng: np.random.Generator, count: int, topics: Sequence[str] = ()) -> tuple[int, ...] | None:
        """`count` clips of different sounds and, while it can be, different classes; `topics` (or sets) of each, if
        given. None if the data have not so many."""
        for attempt in range(_TRIES):
            clips = tuple(self.any(rng, topics[i] if topics else "") for i in range(count))
            classes = {self.rows[clip].sound_class or self.contents[clip] for clip in clips}
            if len({self.contents[clip] for clip in clips}) == count and (
                len(classes) == count or topics or attempt > _TRIES // 2
            ):
                return clips
        return None

    def theme(self, rng: np.random.Generator) -> tuple[str, str] | None:
        """Two topics that a question can pick a sound by."""
        if len(self.topics) < 2:
            return None
        known = [pair for pair in _THEMES if set(pair) <= set(self.topics)]
        if known and rng.random() < 0.5:
            return known[int(rng.integers(len(known)))]
        one, two = rng.choice(len(self.topics), size=2, replace=False)
        return self.topics[int(one)], self.topics[int(two)]

    def square(self, rng: np.random.Generator) -> tuple[tuple[Voice, Voice], list[list[int]]] | None:
        """Two words in two voices: (voices, clips[word][voice]). Two speakers, or one whose clips are played at two
        speeds. None if nobody says two words."""
        if not self.squares:
            return None
        words, families = self.squares[int(rng.integers(len(self.squares)))]
        one, two = (families[int(i)] for i in rng.integers(len(families), size=2))
        speeds = _two_speeds(rng) if one == two or rng.random() < 0.5 else (1.0, 1.0)
        voices = Voice(one, speeds[0]), Voice(two, speeds[1])
        return voices, [[int(rng.choice(self.voices[voice.family][word])) for voice in voices] for word in words]


def _two_speeds(rng: np.random.Generator) -> tuple[float, float]:
    """In either order, at least `_APART` from each other on a scale of ratios; each as often fast as slow."""
    low, high = np.log(_SPEEDS)
    slow = rng.uniform(low, high - np.log(_APART))
    fast = rng.uniform(slow + np.log(_APART), high)
    first, second = (float(round(np.exp(speed), 2)) for speed in ((slow, fast) if rng.random() < 0.5 else (fast, slow)))
    return first, second
