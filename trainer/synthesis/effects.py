"""Sound effects as rows of a table: how one is made, what it is called, how many of it a clip holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from audiosearch.trainer.synthesis import signals
from audiosearch.trainer.synthesis.signals import Samples
from audiosearch.trainer.synthesis.sketch import Generated, Traits, compose
from audiosearch.trainer.synthesis.struck import in_a_row

Make = Callable[[np.random.Generator, float], Samples]  # (rng, seconds) -> samples


@dataclass(frozen=True, slots=True)
class Effect:
    """A sound that is made one way, and what it is called: templates, and the words of their slots.

    `several`: half of its clips hold more than one, at most so many, between so many and so many seconds apart.
    """

    make: Make
    label: str
    sound_class: str
    group: str
    templates: tuple[str, ...]
    words: Mapping[str, Sequence[str]]
    several: tuple[int, float, float] | None = None


def rendered(effect: Effect, rng: np.random.Generator, seconds: float) -> Generated:
    phrases = compose(rng, effect.templates, 6, **effect.words)
    count = 0
    if effect.several is None:
        samples = effect.make(rng, seconds)
    else:
        most, fastest, slowest = effect.several
        count = 1 if rng.random() < 0.5 else int(rng.integers(2, most + 1))
        interval = signals.between(rng, fastest, slowest)
        samples = in_a_row(rng, lambda: effect.make(rng, seconds), count, interval, 0.25)
    label, kind = f"synthetic {effect.label}", f"generated {effect.sound_class}"
    return Generated(samples, phrases, (), label, kind, effect.group, Traits(count=count))


def kinds_of(effects: Mapping[str, Effect]) -> dict[str, Callable[[np.random.Generator, float], Generated]]:
    return {name: partial(rendered, effect) for name, effect in effects.items()}
