"""Sound for sound, both under one question. Two things vary, each in two ways; of the scenes 00, 01, 10 and 11 each is
like one other under the first question, and like another under the second:

    00 ── first ── 01
     |              |
   second         second
     |              |
    10 ── first ── 11

Without its question a scene is as near to the one as to the other. Several squares come under the same two questions:
then what is asked for is all that tells many sounds apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from audiosearch.trainer.synthesis.draw import ClipDraw
from audiosearch.trainer.synthesis.facts import Aspect, aspects
from audiosearch.trainer.synthesis.groups import AnswerBank, Slot
from audiosearch.trainer.synthesis.scenes import Scene, SceneMaker
from audiosearch.trainer.synthesis.wording import Wording

Square = list[list[Scene]]
Meanings = tuple[Sequence[str], Sequence[str]]  # of its rows, of its columns
SLOTS = 4  # of one square
# How often each kind of square is tried first.
_SHARES = {"layered": 0.35, "presence": 0.36, "topics": 0.03, "voices": 0.2, "ordered": 0.03, "loudness": 0.03}
_NAMES = {
    "layered": ("main", "background"),
    "voices": ("word", "voice"),
    "ordered": ("first", "last"),
    "loudness": ("main", "loudness"),
}
_FIRST_PAIRS = 0.75  # more often than the others: the first two of `ClipDraw.presences`, which are asked for most
_TRIES = 3


class SquareMaker:
    """Makes squares. All that is drawn comes from the generator that is given."""

    def __init__(self, maker: SceneMaker, clips: ClipDraw, wording: Wording) -> None:
        self.maker, self.clips, self.wording = maker, clips, wording
        self.bank = AnswerBank(clips.rows)

    def make(self, rng: np.random.Generator, frames: int, squares: int = 1) -> list[Slot] | None:
        """The slots of `squares` squares, or None where the data have not the different sounds that it takes."""
        kind = str(rng.choice(list(_SHARES), p=list(_SHARES.values())))
        return self._group(kind, rng, frames, squares) or self._group("layered", rng, frames, squares)

    def _group(self, kind: str, rng: np.random.Generator, frames: int, squares: int) -> list[Slot] | None:
        names = self._names(kind, rng)
        if names is None:
            return None
        words = self.wording.ask(Aspect(names[0], ""), rng), self.wording.ask(Aspect(names[1], ""), rng)
        slots: list[Slot] = []
        for _ in range(_TRIES * squares):
            made = self._square(kind, names, rng, frames)
            if made is not None:
                slots += self._slots(*made, names, words)
            if len(slots) == SLOTS * squares:
                return slots
        return None

    def _names(self, kind: str, rng: np.random.Generator) -> tuple[str, str] | None:
        """The two aspects that are asked for; None where the data have not the sounds."""
        if kind == "presence":
            pairs = self.clips.presences
            if not pairs:
                return None
            one, two = pairs[int(rng.integers(min(2, len(pairs)) if rng.random() < _FIRST_PAIRS else len(pairs)))]
            return f"presence {one}", f"presence {two}"
        if kind == "topics":
            theme = self.clips.theme(rng)
            return (f"topic {theme[0]}", f"topic {theme[1]}") if theme else None
        return _NAMES[kind]

    def _square(
        self, kind: str, names: tuple[str, str], rng: np.random.Generator, frames: int
    ) -> tuple[Square, Meanings] | None:
        if kind == "voices":
            return self._voices(rng, frames)
        makers = {
            "layered": self._layered,
            "presence": self._presence,
            "topics": self._topics,
            "ordered": self._ordered,
            "loudness": self._loudness,
        }
        square = makers[kind](names, rng, frames)
        meanings = _meanings(square, names) if square else None
        return (square, meanings) if square and meanings else None

    def _layered(self, names: tuple[str, str], rng: np.random.Generator, frames: int) -> Square | None:
        def make(front: int, back: int) -> Scene:
            return self.maker.layered(rng, front, back, frames, gap_db=self.maker.clear_gap(rng))

        return self._crossed(rng, self.clips.different(rng, 4), make)

    def _presence(self, names: tuple[str, str], rng: np.random.Generator, frames: int) -> Square | None:
        """What is there and what is not: both, one, the other, none."""
        one, two = (name.removeprefix("presence ") for name in names)
        sets = [self.clips.presence_set(one, two, *holds) for holds in ((True, False), (False, True), (False, False))]
        drawn = self.clips.different(rng, 4, (*sets, sets[2]))
        if drawn is None:
            return None
        has_one, has_two, neither, nor = drawn
        again = [self.clips.any(rng, name) for name in sets[:2]]
        return [
            [self._mixed(rng, pair, frames) for pair in row]
            for row in (((has_one, has_two), (again[0], neither)), ((neither, again[1]), (neither, nor)))
        ]

    def _mixed(self, rng: np.random.Generator, clips: Sequence[int], frames: int) -> Scene:
        """Two clips, either of them the louder."""
        one, two = clips
        return self.maker.layered(rng, *((one, two) if rng.random() < 0.5 else (two, one)), frames)

    def _topics(self, names: tuple[str, str], rng: np.random.Generator, frames: int) -> Square | None:
        one, two = (name.removeprefix("topic ") for name in names)
        drawn = self.clips.different(rng, 4, (one, one, two, two))
        return self._crossed(rng, drawn, lambda one, two: self._mixed(rng, (one, two), frames))

    def _ordered(self, names: tuple[str, str], rng: np.random.Generator, frames: int) -> Square | None:
        drawn = self.clips.different(rng, 4)
        return self._crossed(rng, drawn, lambda one, two: self.maker.ordered(rng, (one, two), frames))

    def _loudness(self, names: tuple[str, str], rng: np.random.Generator, frames: int) -> Square | None:
        drawn = self.clips.different(rng, 2)
        if drawn is None:
            return None
        return [
            [
                self.maker.single(rng, self.clips.like(rng, clip), frames, loudness=loudness)
                for loudness in ("loud", "quiet")
            ]
            for clip in drawn
        ]

    def _voices(self, rng: np.random.Generator, frames: int) -> tuple[Square, Meanings] | None:
        """Words and who says them; only sound can tell of a voice who it is."""
        drawn = self.clips.square(rng)
        if drawn is None:
            return None
        voices, clips = drawn
        square = [
            [self.maker.single(rng, clip, frames, speed=voice.speed) for clip, voice in zip(row, voices, strict=True)]
            for row in clips
        ]
        words = [self.clips.contents[row[0]] for row in clips]
        return square, (words, [f"voice of {voice}" for voice in voices])

    def _crossed(
        self, rng: np.random.Generator, drawn: Sequence[int] | None, make: Callable[[int, int], Scene]
    ) -> Square | None:
        """The square of the first two and the last two of four clips; of each corner clips of its own, where there are
        several of a sound."""
        if drawn is None:
            return None
        like = self.clips.like
        return [[make(like(rng, one), like(rng, two)) for two in drawn[2:]] for one in drawn[:2]]

    def _slots(self, square: Square, meanings: Meanings, names: tuple[str, str], words: tuple[str, str]) -> list[Slot]:
        """Both sides of each side of a square. All its sounds come under the same words, or those would tell."""
        mel = [[scene.mel for scene in row] for row in square]
        first, second = words
        made = [
            Slot(mel[0][0], mel[0][1], first, meanings[0][0]),
            Slot(mel[1][1], mel[1][0], first, meanings[0][1]),
            Slot(mel[0][0], mel[1][0], second, meanings[1][0]),
            Slot(mel[1][1], mel[0][1], second, meanings[1][1]),
        ]
        for slot, name, corner in zip(made, (names[0], names[0], names[1], names[1]), (0, 1, 0, 1), strict=True):
            aspect = _of(square, name)[corner][corner]
            if aspect and aspect.meaning == slot.content:  # not of a voice that is one among many men's
                slot.bank_rows = self.bank.of(aspect, square[corner][corner].facts)
        return made


def _meanings(square: Square, names: tuple[str, str]) -> Meanings | None:
    """Of a square under two aspects of those names, what its rows and its columns mean. None where the answers are not
    those of a square."""
    first, second = (
        [[aspect.meaning if aspect else "" for aspect in row] for row in _of(square, name)] for name in names
    )
    rows = [first[i][0] for i in (0, 1)]
    columns = [second[0][j] for j in (0, 1)]
    if first != [[row, row] for row in rows] or second != [columns, columns]:
        return None
    if "" in (*rows, *columns) or rows[0] == rows[1] or columns[0] == columns[1]:
        return None
    return rows, columns


def _of(square: Square, name: str) -> list[list[Aspect | None]]:
    """One aspect of each scene."""
    return [[next((a for a in aspects(scene.facts) if a.name == name), None) for scene in row] for row in square]
