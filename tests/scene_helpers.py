"""A pack of clips that each have a band of their own, and a phrase book, for the tests of scenes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from audiosearch.trainer.captions import PhraseBook
from audiosearch.trainer.manifest import ManifestRow
from audiosearch.trainer.pack import FeaturePack, quantise

BAND = 4  # mel bins of a clip, every clip its own
# name, group, class, frames, bursts (start, stop); the rest of a clip is 70 dB down
CLIPS = [
    ("dog bark", "animals", "dog", 60, [(10, 30)]),
    ("dog bark", "animals", "dog", 500, [(0, 500)]),
    ("cat meow", "animals", "cat", 400, [(0, 400)]),
    ("wind", "nature", "wind", 500, [(0, 500)]),
    ("rain", "nature", "rain", 450, [(0, 450)]),
    ("engine", "vehicles", "car/truck engine", 420, [(0, 420)]),
    ("train", "vehicles", "train & subway", 420, [(0, 420)]),
    ("piano", "music", "piano", 90, [(5, 60)]),
    ("flute", "music", "flute", 480, [(0, 480)]),
    ("door knock", "domestic", "door", 100, [(5, 20), (60, 75)]),
    ("clapping", "human", "clapping", 50, [(5, 25)]),
    ("speech word left", "speech", "speech", 70, [(5, 55)]),
    ("speech word right", "speech", "speech", 70, [(5, 55)]),
    ("speech word left", "speech", "speech", 70, [(5, 55)]),
    ("speech word right", "speech", "speech", 70, [(5, 55)]),
]
DOG, DOG_LONG, CAT, WIND, RAIN, ENGINE, TRAIN, PIANO, FLUTE, KNOCKS, CLAP, LEFT, RIGHT, LEFT_2, RIGHT_2 = range(15)
BOOK = PhraseBook(
    labels={"rain": ("a downpour", "rain falling on a roof"), "dog bark": ("a dog barking", "woof")},
    classes={"speech": ("someone speaking",)},
    clauses={"rain": ("it rains",), "dog": ("a dog barks",)},
)


def make_pack(**changes) -> FeaturePack:
    """Each clip a band of its own, so that a scene shows where and how loud each is."""
    rows, mels = [], []
    for number, (label, group, kind, frames, bursts) in enumerate(CLIPS):
        mel = np.full((frames, 64), -90.0, dtype=np.float32)
        for start, stop in bursts:
            mel[start:stop, band(number)] = 20 + 2 * (number % 3)
        mels.append(quantise(mel))
        family = ("v1", "v2")[number // LEFT_2] if group == "speech" else f"f{number}"
        rows.append(
            ManifestRow(f"{number}.wav", f"a {label}", label=label, sound_class=kind, group=group, family=family)
        )
    pack = FeaturePack(mel=np.concatenate(mels), offsets=np.cumsum([0, *map(len, mels)]), rows=tuple(rows), dropped=())
    return replace(pack, **changes)


def band(clip: int) -> slice:
    return slice(clip * BAND, (clip + 1) * BAND)


def band_levels(mel: np.ndarray, clip: int) -> np.ndarray:
    """Level of a clip's band in each frame, in dB."""
    return 10 * np.log10((10 ** (mel[:, band(clip)].astype(np.float64) / 10)).sum(axis=1))


def bursts(levels: np.ndarray) -> list[tuple[int, int]]:
    """Runs of frames within 20 dB of the loudest."""
    loud = np.flatnonzero(levels > levels.max() - 20)
    parts = np.split(loud, np.flatnonzero(np.diff(loud) > 1) + 1)
    return [(int(part[0]), int(part[-1]) + 1) for part in parts]


def rngs(count: int) -> Iterator[np.random.Generator]:
    """Generators, no two alike, the same each time."""
    return (np.random.default_rng((5, number)) for number in range(count))
