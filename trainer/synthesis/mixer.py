"""Batches of scenes with words for them. Batch k of a stage is a pure function of (seed, stage, k): a resumed run sees
the same data, whatever ran before it, and no stage hears again what another one drew.

    step ──plan──> groups of slots ──those of this process──> scenes, words ──> PairBatch
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from audiosearch.features import HOP_LENGTH, MIN_SAMPLES
from audiosearch.model.projector import n_audio_tokens
from audiosearch.model.prompt import PromptEncoder
from audiosearch.trainer.batch import Decibels, Item, PairBatch, content_key, share
from audiosearch.trainer.captions import PhraseBook
from audiosearch.trainer.objectives import LABEL_KEYS
from audiosearch.trainer.pack import FeaturePack
from audiosearch.trainer.recipe import ScratchRecipe
from audiosearch.trainer.synthesis.draw import ClipDraw
from audiosearch.trainer.synthesis.groups import GroupMaker, Slot, frames_of
from audiosearch.trainer.synthesis.scenes import SceneMaker
from audiosearch.trainer.synthesis.squares import SLOTS, SquareMaker
from audiosearch.trainer.synthesis.wording import Wording

SQUARES = 4  # under the same questions, where a batch is large enough: of one the questions were not learnt
# Slots of each kind of group; a small batch has fewer squares to a group.
SIZES = {"squares": SLOTS * SQUARES, "asked": 2, "scene": 2, "example": 1, "joint": 1, "clean": 1}
_KEYS = ("query", "document", *LABEL_KEYS, "document_label", "text_row", "scene")


class MixedBatches:
    """`text_row`: the row of each text that the teacher knows. `size`: pairs of a batch over all processes. `stage`:
    the stage's number. `without`: collections and folds that are not heard; their labels stay in the bank, as words."""

    def __init__(
        self,
        pack: FeaturePack,
        book: PhraseBook,
        prompts: PromptEncoder,
        recipe: ScratchRecipe,
        text_row: dict[str, int],
        *,
        size: int,
        seed: int,
        stage: int = 0,
        without: Sequence[str] = (),
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.prompts, self.mix, self.text_row, self.size = prompts, recipe.mix, text_row, size
        self.seed = (seed, 1, stage)
        self.mine = range(size)[share(size, rank, world_size)]
        self.sizes = SIZES | {"squares": SLOTS * min(SQUARES, max(1, size // (2 * SLOTS)))}
        (low, high), (slow, fast) = self.mix.level_gap_db, self.mix.speeds
        heard = np.array([i for i, row in enumerate(pack.rows) if not row.parts & {*without}])
        maker = SceneMaker(pack, level_gap_db=(low, high), augment=self.mix.augment, speeds=(slow, fast), clips=heard)
        clips, wording = ClipDraw(pack.rows, recipe.class_exponent, heard), Wording(book)
        self.groups = GroupMaker(maker, clips, wording, self.mix)
        self.squares = SquareMaker(maker, clips, wording)

    def __getitem__(self, step: int) -> PairBatch:
        seconds, kinds = self.plan(step)
        slots: list[tuple[int, int, Slot]] = []  # place in the batch, group, slot
        first = 0
        for group, kind in enumerate(kinds):
            places = range(first, first + self.sizes[kind])
            first = places.stop
            if places.stop > self.mine.start and places.start < self.mine.stop:
                made = self._make(kind, np.random.default_rng((*self.seed, step, group)), seconds)
                slots += [(at, group, slot) for at, slot in zip(places, made, strict=True) if at in self.mine]
        return self._batch(step, slots)

    def plan(self, step: int) -> tuple[float, list[str]]:
        """Of one batch, the length of its crops in seconds, and the kinds of its groups in their order."""
        rng, mix = np.random.default_rng((*self.seed, step)), self.mix
        seconds, shares = list(mix.crop_seconds), np.array(list(mix.crop_seconds.values()))
        length = float(rng.choice(seconds, p=shares / shares.sum()))

        def some(share_of_slots: float, kind: str) -> list[str]:
            return [kind] * int(
                share_of_slots * self.size / self.sizes[kind] + rng.random()
            )  # the share in the long run

        # Clean clips last: they make room where the others, rounded up, would be too many.
        kinds = [
            *some(mix.questions * mix.sound_answers, "squares"),
            *some(mix.questions * (1 - mix.sound_answers), "asked"),
            *some(mix.scenes, "scene"),
            *some(mix.examples, "example"),
            *some(mix.joint, "joint"),
        ]
        while sum(self.sizes[kind] for kind in kinds) > self.size:
            kinds.pop(int(rng.integers(len(kinds))))
        kinds += ["clean"] * (self.size - sum(self.sizes[kind] for kind in kinds))
        return length, [kinds[i] for i in rng.permutation(len(kinds))]

    def _make(self, kind: str, rng: np.random.Generator, seconds: float) -> Sequence[Slot]:
        groups = self.groups
        if kind in ("example", "joint", "clean"):
            return [{"example": groups.example, "joint": groups.joint, "clean": groups.clean}[kind](rng, seconds)]
        if kind == "squares":
            slots = self.squares.make(rng, frames_of(seconds), self.sizes[kind] // SLOTS)
        else:
            slots = groups.asked(rng, seconds) if kind == "asked" else groups.scene(rng, seconds)
        return slots or [groups.clean(rng, seconds) for _ in range(self.sizes[kind])]

    def _batch(self, step: int, slots: Sequence[tuple[int, int, Slot]]) -> PairBatch:
        sides: dict[str, list[Item]] = {"queries": [], "documents": []}
        columns: dict[str, list[int]] = {name: [] for name in _KEYS}
        for place, group, slot in slots:
            sides["queries"].append(self._heard(slot.mel, slot.question))
            # A slot without a content of its own equals no other.
            content = content_key(slot.content or f"{step} {place}")
            columns["query"].append(content)
            rows = [*slot.bank_rows, -1, -1, -1]
            for name, row in zip(LABEL_KEYS, rows, strict=False):
                columns[name].append(row)
            # What is asked for is the same on both sides; without a question each has a label of its own.
            heard_alike = slot.question is not None and not isinstance(slot.document, str)
            columns["document_label"].append(rows[0] if heard_alike else slot.document_row)
            columns["scene"].append(content_key(f"{step} {group}"))
            if isinstance(slot.document, str):
                sides["documents"].append(Item(self.prompts.encode(text=slot.document, audio_tokens=0)))
                columns["document"].append(content_key(slot.document))
                columns["text_row"].append(self.text_row.get(slot.document, -1))
            else:
                sides["documents"].append(self._heard(slot.document, slot.question))
                columns["document"].append(content)
                columns["text_row"].append(-1)
        return PairBatch(sides, {name: torch.tensor(column) for name, column in columns.items()})

    def _heard(self, mel: Decibels, question: str | None) -> Item:
        """A sound, under a question if there is one."""
        n_samples = max(MIN_SAMPLES, (len(mel) - 1) * HOP_LENGTH)
        prompt = self.prompts.encode(text=None, audio_tokens=n_audio_tokens(n_samples), instruction=question)
        return Item(prompt, mel, n_samples)


class TextBatches:
    """Rows of the text corpus: half of each batch descriptions of sounds, half everything else."""

    def __init__(
        self,
        texts: Sequence[str],
        n_sounds: int,
        prompts: PromptEncoder,
        *,
        size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.texts, self.n_sounds, self.prompts, self.size, self.seed = texts, n_sounds, prompts, size, seed
        self.mine = share(size, rank, world_size)

    def __getitem__(self, step: int) -> PairBatch:
        rng = np.random.default_rng((self.seed, 0, step))
        half = self.size // 2
        sounds = rng.integers(self.n_sounds, size=half)
        rows = np.concatenate([sounds, rng.integers(self.n_sounds, len(self.texts), size=self.size - half)])[self.mine]
        items = [Item(self.prompts.encode(text=self.texts[row], audio_tokens=0)) for row in rows]
        return PairBatch({"queries": items}, {"text_row": torch.from_numpy(rows)})
