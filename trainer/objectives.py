"""What a stage minimises: a batch's embeddings and keys to a loss and what to report of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from audiosearch.trainer.losses import Temperature, contrastive, distillation, label_bank, within_groups
from audiosearch.trainer.recipe import LossRecipe, ScratchRecipe

QUERIES, DOCUMENTS = "queries", "documents"
LABEL_KEYS = ("label", "label_2", "label_3")  # of a query, a row of the bank for each sound that is in it


class Objective(Protocol):
    """`embeddings`: unit rows (B, D) of each side; `keys`: integers (B,) that came with the whole batch."""

    def __call__(
        self, embeddings: Mapping[str, Tensor], keys: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, float]]: ...


@dataclass(frozen=True)
class PairObjective:
    """The paper's: eqs. 1-3 with masks. Pairs that share a `query`, `document` or `clip` key are no negatives; others
    that share a `scene` always are.

    A scene under two questions: where a question is not heeded, the answer to the other one is nearer than the right
    one, and the rules for false negatives would leave out just what has to be learnt.
    """

    recipe: LossRecipe
    temperature: Temperature

    def __call__(self, embeddings: Mapping[str, Tensor], keys: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        tau = self.temperature()
        result = contrastive(
            embeddings[QUERIES],
            embeddings[DOCUMENTS],
            tau,
            same=same_content(keys),
            different=keys["scene"][:, None] == keys["scene"] if "scene" in keys else None,
            false_negative_margin=self.recipe.false_negative_margin,
            false_negative_threshold=self.recipe.false_negative_threshold,
        )
        report = {"accuracy": result.accuracy, "masked": result.masked_share, "tau": tau.item()}
        return result.loss, report


def same_content(keys: Mapping[str, Tensor]) -> Tensor:
    """(B, B) bool: which pairs have a query, a document or a clip in common."""
    columns = [keys[name] for name in ("query", "document", "clip") if name in keys]
    return torch.stack([column[:, None] == column for column in columns]).any(dim=0)


@dataclass(frozen=True)
class Teacher:
    """What a sentence encoder says, in the student's space."""

    targets: Tensor  # (texts, D) unit rows
    bank: Tensor  # (answers, D) unit rows: labels, then the answers of closed questions
    soft_bank: Tensor  # (answers, answers), rows sum to 1

    def to(self, device: torch.device) -> Teacher:
        return Teacher(self.targets.to(device), self.bank.to(device), self.soft_bank.to(device))


@dataclass(frozen=True)
class TextObjective:
    """Texts to where the sentence encoder places them; key `text_row` is their row of `targets`."""

    teacher: Teacher
    temperature: Temperature

    def __call__(self, embeddings: Mapping[str, Tensor], keys: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        students, targets = embeddings[QUERIES], self.teacher.targets[keys["text_row"]]
        loss = distillation(students, targets, self.temperature())
        cosine = (students.detach() * targets).sum(dim=1).mean().item()
        return loss, {"teacher_cosine": cosine, "tau": self.temperature().item()}


@dataclass(frozen=True)
class ScratchObjective:
    """The paper's loss beside two that keep a small model's words in place: the texts stay near the teacher's vectors
    (key `text_row`), and sounds find their labels, or the answer to their question, among all there are (LABEL_KEYS of
    the queries, in equal parts; `document_label` of documents that are sounds). A key of -1 is none. A third makes it
    heed questions: a scene under one finds its answer among those to the others (key `scene`)."""

    pairs: PairObjective
    teacher: Teacher
    recipe: ScratchRecipe

    def __call__(self, embeddings: Mapping[str, Tensor], keys: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        loss, report = self.pairs(embeddings, keys)
        report["contrastive"] = loss.item()
        known = keys["text_row"] >= 0
        if self.recipe.text_teacher and known.any():
            targets = self.teacher.targets[keys["text_row"][known]]
            distance = 1 - (embeddings[DOCUMENTS][known] * targets).sum(dim=1).mean()
            loss = loss + self.recipe.text_teacher * distance
            report["teacher_cosine"] = 1 - distance.item()
        sounds = torch.cat([embeddings[QUERIES], embeddings[DOCUMENTS]])
        labels = torch.stack([keys[name] for name in LABEL_KEYS], dim=1)
        only = torch.full_like(labels, -1)
        only[:, 0] = keys["document_label"]
        labels = torch.cat([labels, only])
        labelled = (labels >= 0).any(dim=1)
        if self.recipe.label_bank and labelled.any():
            soft = self._targets(labels[labelled])
            bank = label_bank(sounds[labelled], self.teacher.bank, soft, self.recipe.label_bank_tau)
            loss = loss + self.recipe.label_bank * bank
            report["label_bank"] = bank.item()
        if self.recipe.heed and "scene" in keys:
            heed = within_groups(
                embeddings[QUERIES], embeddings[DOCUMENTS], self.pairs.temperature(), keys["scene"], same_content(keys)
            )
            loss = loss + self.recipe.heed * heed
            report["heed"] = heed.item()
        return loss, report

    def _targets(self, labels: Tensor) -> Tensor:
        """The mean of the rows of `soft_bank` that `labels` (n, k) name."""
        named = (labels >= 0).to(self.teacher.soft_bank.dtype)[..., None]
        return (self.teacher.soft_bank[labels.clamp(min=0)] * named).sum(dim=1) / named.sum(dim=1)
