"""Slots of a batch that belong together: a scene under two questions, a scene and one that differs in one thing. They
are each other's hardest negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audiosearch.features import HOP_LENGTH, SAMPLE_RATE
from audiosearch.trainer.batch import Decibels
from audiosearch.trainer.captions import PAIR_TEMPLATES, fill
from audiosearch.trainer.manifest import ManifestRow
from audiosearch.trainer.recipe import MixRecipe
from audiosearch.trainer.synthesis.draw import ClipDraw
from audiosearch.trainer.synthesis.facts import Aspect, SceneFacts, word_of
from audiosearch.trainer.synthesis.questions import closed_answers
from audiosearch.trainer.synthesis.scenes import Scene, SceneMaker
from audiosearch.trainer.synthesis.wording import Wording, two_aspects

_TRIES = 12  # scenes drawn until two things can be asked of one


@dataclass(slots=True)
class Slot:
    """One query-document pair: a sound (under a question, or not) and the text or the sound it belongs to. A document
    that is a sound is heard under the same question.

    Slots of equal `content` are never each other's negatives; one without is like no other.
    """

    mel: Decibels
    document: str | Decibels
    question: str | None = None
    content: str = ""
    bank_rows: tuple[int, ...] = ()  # of the bank of answers, where what belongs to the query is in there
    document_row: int = -1  # likewise of a document that is a sound, where there is no question


def frames_of(seconds: float) -> int:
    """Mel frames of a crop."""
    return 1 + int(seconds * SAMPLE_RATE) // HOP_LENGTH


class AnswerBank:
    """Rows of the bank of answers: the clips' labels first, then the answers of closed questions."""

    def __init__(self, rows: Sequence[ManifestRow]) -> None:
        self.labels = sorted({row.label for row in rows})
        self.closed = closed_answers()
        self._row = {label: i for i, label in enumerate(self.labels)}
        self._closed = {meaning: i for i, meaning in enumerate(self.closed, start=len(self.labels))}

    def of_label(self, label: str) -> int:
        return self._row[label]

    def of_scene(self, facts: SceneFacts) -> tuple[int, ...]:
        """The rows of all that is heard in a scene."""
        return tuple(dict.fromkeys(self._row[row.label] for row in facts.rows))

    def of(self, aspect: Aspect, facts: SceneFacts) -> tuple[int, ...]:
        """The row of what is asked of a scene; none if it is not in there."""
        if aspect.row is not None:
            return (self._row[aspect.row.label],)
        if aspect.name == "word":
            return tuple(self._row[row.label] for row in facts.rows if word_of(row) == aspect.value)[:1]
        found = self._closed.get(aspect.meaning)
        return () if found is None else (found,)


class GroupMaker:
    """Makes groups of slots. All that is drawn comes from the generator that is given."""

    def __init__(self, maker: SceneMaker, clips: ClipDraw, wording: Wording, mix: MixRecipe) -> None:
        self.maker, self.clips, self.wording, self.mix = maker, clips, wording, mix
        self.rows = clips.rows
        self.bank = AnswerBank(self.rows)
        self.label_of = [self.bank.of_label(row.label) for row in self.rows]
        self.shortest = min(mix.crop_seconds)
        self.countable = {seconds: maker.countable(frames_of(seconds)) for seconds in mix.crop_seconds}

    # -- one sound ---------------------------------------------------------------------------------------------------

    def clean(self, rng: np.random.Generator, seconds: float, clip: int | None = None) -> Slot:
        """A clip (drawn, if none is given) and what is said of it."""
        clip = self.clips.any(rng) if clip is None else clip
        scene = self._alone(rng, clip, seconds)
        text = self.wording.caption(scene.facts, rng)
        return Slot(scene.mel, text, content=self.clips.contents[clip], bank_rows=(self.label_of[clip],))

    def example(self, rng: np.random.Generator, seconds: float) -> Slot:
        """A clip and another of the same sound."""
        clip = self.clips.any(rng)
        other = self.clips.like(rng, clip)
        document = self._alone(rng, other, seconds).mel
        return Slot(
            self._alone(rng, clip, seconds).mel,
            document,
            content=self.clips.contents[clip],
            bank_rows=(self.label_of[clip],),
            document_row=self.label_of[other],
        )

    def joint(self, rng: np.random.Generator, seconds: float) -> Slot:
        """A clip and words beside it, and the text that says both."""
        clip = self.clips.any(rng)
        own, beside = (self.wording.say(self.rows[which], rng) for which in (clip, self.clips.any(rng)))
        text = fill(PAIR_TEMPLATES[int(rng.integers(len(PAIR_TEMPLATES)))], own, beside)
        return Slot(self._alone(rng, clip, seconds).mel, text, beside)

    def _alone(self, rng: np.random.Generator, clip: int, seconds: float) -> Scene:
        return self.maker.single(rng, clip, frames_of(seconds), keep_short=seconds == self.shortest)

    # -- scenes and their captions -----------------------------------------------------------------------------------

    def _kind(self, rng: np.random.Generator, seconds: float) -> str:
        shares = {kind: share for kind, share in self.mix.scene_kinds.items() if share > 0}
        if not len(self.countable[seconds]) and len(shares) > 1:
            shares.pop("counted", None)
        ends = np.cumsum(list(shares.values()))
        return list(shares)[int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))]

    def scene(self, rng: np.random.Generator, seconds: float) -> list[Slot] | None:
        """A scene with its caption, and what could be found in its place: a scene that differs from it in one thing.
        None where the data have not the different sounds that it takes."""
        frames, kind = frames_of(seconds), self._kind(rng, seconds)
        if kind == "layered":
            return self._layered(rng, seconds)
        if kind == "ordered":
            return self._ordered(rng, frames)
        if kind == "counted" and len(self.countable[seconds]):
            clip = self.clips.among(rng, self.countable[seconds])
            scene = self.maker.counted(rng, clip, frames)
            count = scene.facts.count
            others = (self.maker.counted(rng, clip, frames, count=n) for n in (count + 1, max(1, count - 1)))
            return self._captioned(rng, scene, next(other for other in others if other.facts.count != count))
        clip = self.clips.any(rng)
        loud, quiet = (self.maker.single(rng, clip, frames, loudness=loudness) for loudness in ("loud", "quiet"))
        return self._captioned(rng, loud, quiet)

    def _layered(self, rng: np.random.Generator, seconds: float) -> list[Slot] | None:
        """A over B beside A without B, B without A, A over C or, where it matters, B over A."""
        frames, drawn = frames_of(seconds), self.clips.different(rng, 3)
        if drawn is None:
            return None
        front, back, third = drawn
        scene = self.maker.layered(rng, front, back, frames)
        other = int(rng.integers(4 if scene.facts.told_apart else 3))
        if other < 2:
            return [*self._captioned(rng, scene), self._without(rng, (front, back)[other], seconds)]
        one, two = self._alike(rng, (front, third) if other == 2 else (back, front))
        return self._captioned(rng, scene, self.maker.layered(rng, one, two, frames, gap_db=self.maker.clear_gap(rng)))

    def _without(self, rng: np.random.Generator, clip: int, seconds: float) -> Slot:
        """One sound alone; half the time as layered as a scene of two, of clips of the same sound."""
        alike = self.clips.like(rng, clip)
        if rng.random() < 0.5 or alike == clip:
            return self.clean(rng, seconds, alike)
        facts = SceneFacts("single", (self.rows[clip],))
        mel = self.maker.layered(rng, clip, alike, frames_of(seconds)).mel
        text, content = self.wording.caption(facts, rng), self.clips.contents[clip]
        return Slot(mel, text, content=content, bank_rows=(self.label_of[clip],))

    def _ordered(self, rng: np.random.Generator, frames: int) -> list[Slot] | None:
        """A then B beside B then A, or A then C."""
        drawn = self.clips.different(rng, self._length(rng, frames) + 1)
        if drawn is None:
            return None
        *clips, other = drawn
        swapped = rng.random() < 0.6
        beside = self._alike(rng, clips[::-1] if swapped else [*clips[:-1], other])
        return self._captioned(rng, *(self.maker.ordered(rng, which, frames) for which in (clips, beside)))

    def _length(self, rng: np.random.Generator, frames: int) -> int:
        """How many sounds follow each other: now and then three, where there is time."""
        return 3 if frames >= 300 and rng.random() < 0.25 else 2

    def _captioned(self, rng: np.random.Generator, *scenes: Scene) -> list[Slot]:
        return [
            Slot(scene.mel, self.wording.caption(scene.facts, rng), bank_rows=self.bank.of_scene(scene.facts))
            for scene in scenes
        ]

    def _alike(self, rng: np.random.Generator, clips: Sequence[int]) -> list[int]:
        """Other clips of the same sounds."""
        return [self.clips.like(rng, clip) for clip in clips]

    # -- questions ---------------------------------------------------------------------------------------------------

    def asked(self, rng: np.random.Generator, seconds: float) -> list[Slot] | None:
        """One scene under two questions, with answers that differ. None where none was found."""
        for _ in range(_TRIES):
            scene = self._askable(rng, seconds)
            asked = two_aspects(scene.facts, rng) if scene else None
            if scene and asked:
                answers = [(each, self.wording.answer(each, rng), self.wording.ask(each, rng)) for each in asked]
                return [
                    Slot(scene.mel, text, question, each.meaning, self.bank.of(each, scene.facts))
                    for each, text, question in answers
                ]
        return None

    def _askable(self, rng: np.random.Generator, seconds: float) -> Scene | None:
        """A scene that something can be asked of."""
        frames, kind = frames_of(seconds), self._kind(rng, seconds)
        if kind == "layered":
            theme = self.clips.theme(rng) if rng.random() < 0.4 else None
            clips = self.clips.different(rng, 2, theme or ())
            if clips is None:
                return None
            # A theme names its topics in an order of its own; either may be in front.
            front, back = clips if rng.random() < 0.5 else clips[::-1]
            return self.maker.layered(rng, front, back, frames)
        if kind == "ordered":
            clips = self.clips.different(rng, self._length(rng, frames))
            return self.maker.ordered(rng, clips, frames) if clips else None
        if kind == "counted" and len(self.countable[seconds]):
            return self.maker.counted(rng, self.clips.among(rng, self.countable[seconds]), frames)
        spoken = "speech" in self.clips.topics and rng.random() < 0.4
        clip = self.clips.any(rng, "speech" if spoken else "")
        return self.maker.single(rng, clip, frames, loudness=("", "loud", "quiet")[int(rng.integers(3))])
