"""Sounds of our own, with captions that are true of them because the parameters are known.

kind, rng, seconds ──> parameters ──> samples
                            └───────> phrases (synonyms, word order), label, traits (pitch, speed, count ...)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from audiosearch.trainer.synthesis import (
    blows,
    creatures,
    instruments,
    machines,
    musical,
    signals,
    stirred,
    struck,
    textures,
    throats,
    tonal,
)
from audiosearch.trainer.synthesis.sketch import Generated

VERSION = 4  # part of a pack's key: another number, other sounds
KINDS: dict[str, Callable[[np.random.Generator, float], Generated]] = {
    **tonal.KINDS,
    **struck.KINDS,
    **musical.KINDS,
    **machines.KINDS,
    **creatures.KINDS,
    **textures.KINDS,
    **instruments.KINDS,
    **blows.KINDS,
    **throats.KINDS,
    **stirred.KINDS,
}


def generate(kind: str, rng: np.random.Generator, seconds: float) -> Generated:
    """A sound of that kind, at most about `seconds` long, its peak at full scale. Raises KeyError for no such kind."""
    made = KINDS[kind](rng, seconds)
    samples = signals.normalised(made.samples)
    return Generated(samples, made.phrases, made.whole_phrases, made.label, made.sound_class, made.group, made.traits)


def generate_numbered(number: int, seed: int) -> Generated:
    """Clip `number` of the endless bank of that seed: kinds in turn, lengths and parameters drawn."""
    rng = np.random.default_rng((seed, 11, number))
    kind = list(KINDS)[number % len(KINDS)]
    return generate(kind, rng, signals.between(rng, 0.6, 6.0))


def render_bank(n: int, seed: int) -> Iterator[Generated]:
    """The first `n` clips of the bank."""
    return (generate_numbered(number, seed) for number in range(n))
