"""What a generator returns, and how it finds its words: templates filled with synonyms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from audiosearch.trainer.synthesis.signals import Samples

HIGH = ("high", "high-pitched", "shrill", "treble", "piercing")
LOW = ("low", "low-pitched", "deep", "bass", "dark")
FAST = ("fast", "rapid", "quick", "hurried", "brisk")
SLOW = ("slow", "unhurried", "leisurely", "slow-paced")
# The first three may stand before a noun.
RISING = ("rising", "ascending", "climbing", "going up", "sliding upwards")
FALLING = ("falling", "descending", "dropping", "going down", "sliding downwards")
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@dataclass(frozen=True, slots=True)
class Traits:
    """What is true of a generated sound. Empty and 0: neither one nor the other, or not to be told."""

    pitch: str = ""  # "high", "low"
    direction: str = ""  # of its pitch: "rising", "falling", "steady"
    speed: str = ""  # "fast", "slow"
    loudness: str = ""  # "growing", "fading"
    count: int = 0  # of `counted`, or of the sound itself, when the whole is heard once
    counted: str = ""  # a plural: "knocks"


@dataclass(frozen=True, slots=True)
class Generated:
    """A sound of ours. `phrases` are true of any part of it, however often repeated; `whole_phrases` (with a count, a
    beginning, an end) only when the whole is heard once."""

    samples: Samples
    phrases: tuple[str, ...]
    whole_phrases: tuple[str, ...]
    label: str
    sound_class: str
    group: str
    traits: Traits = field(default_factory=Traits)


def compose(
    rng: np.random.Generator, templates: Sequence[str], count: int = 6, **words: Sequence[str]
) -> tuple[str, ...]:
    """Up to `count` different sentences: a template each, every {slot} filled with one of its words.

    Each template is used before one is used again; "a" becomes "an" where it must, and empty words leave no gap.
    """
    found: dict[str, None] = {}
    for number in (int(i) for _ in range(4) for i in rng.permutation(len(templates))):
        picks = {name: str(options[int(rng.integers(len(options)))]) for name, options in words.items()}
        found[tidy(templates[number].format(**picks))] = None
        if len(found) == count:
            break
    return tuple(found)


def tidy(sentence: str) -> str:
    """Single spaces, and the right article."""
    sentence = re.sub(r"\s+", " ", sentence).strip().replace(" ,", ",")
    return re.sub(r"\ba (?=[aeio]|un(?!i)|up)", "an ", sentence)


def counted_phrases(
    rng: np.random.Generator, count: int, one: Sequence[str], many: Sequence[str], adjective: Sequence[str] = ("",)
) -> tuple[str, ...]:
    """Sentences that say how many: "three slow knocks in a row", "a single knock"."""
    if count == 1:
        templates: tuple[str, ...] = (
            "a single {one}",
            "one {one}",
            "just one {one}",
            "a {one}, once",
            "only one {one}",
        )
        return compose(rng, templates, 4, one=one)
    templates = (
        *(("a {one}, {n} times",) if one else ()),
        "{n} {many}",
        "{n} {adjective} {many}",
        "{n} {many} in a row",
        "{many}, {n} of them",
        "exactly {n} {many}",
        "a series of {n} {many}",
        "{n} {adjective} {many}, one after another",
    )
    return compose(
        rng,
        templates,
        5,
        n=(COUNTS[count], COUNTS[count], str(count)),
        one=one or ("",),
        many=many,
        adjective=adjective,
    )


def speed_of(interval_seconds: float, fast_below: float, slow_above: float) -> str:
    """What to call that rate; nothing between the two."""
    return "fast" if interval_seconds < fast_below else "slow" if interval_seconds > slow_above else ""


def speed_words(speed: str) -> tuple[str, ...]:
    return {"fast": FAST, "slow": SLOW}.get(speed, ("",))


def pitch_words(pitch: str) -> tuple[str, ...]:
    return {"high": HIGH, "low": LOW}.get(pitch, ("",))


def row_of(
    rng: np.random.Generator, seconds: float, fastest: float, slowest: float, most: int = 8
) -> tuple[int, float]:
    """A count and an interval in seconds that fit into `seconds`: at least one."""
    interval = float(np.exp(rng.uniform(np.log(fastest), np.log(slowest))))
    return int(rng.integers(1, max(1, min(most, int(seconds / interval))) + 1)), interval
