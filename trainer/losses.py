"""The ALM2Vec objective (arXiv 2606.30682, eqs. 1-3) and the distillation terms of the small model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Temperature(nn.Module):
    """The learnable tau of eq. 2, kept as its logarithm and never below `floor` (0.01, as CLIP clips its scale)."""

    def __init__(self, initial: float = 0.07, floor: float = 0.01) -> None:
        super().__init__()
        self.log_tau = nn.Parameter(torch.tensor(math.log(initial)))
        self.log_floor = math.log(floor)

    def reset(self, tau: float) -> None:
        """Set tau."""
        with torch.no_grad():
            self.log_tau.fill_(math.log(tau))

    def forward(self) -> Tensor:
        return self.log_tau.clamp(min=self.log_floor).exp()


@dataclass(frozen=True, slots=True)
class ContrastiveResult:
    """`loss` with gradient; `accuracy` is in-batch query-to-document top-1; `masked_share` the negatives left out."""

    loss: Tensor
    accuracy: float
    masked_share: float


def contrastive(
    queries: Tensor,
    documents: Tensor,
    tau: Tensor,
    *,
    same: Tensor | None = None,
    different: Tensor | None = None,
    false_negative_margin: float | None = None,
    false_negative_threshold: float | None = None,
) -> ContrastiveResult:
    """Symmetric InfoNCE over in-batch negatives (eq. 3): query-to-document plus document-to-query cross-entropy.

    Args:
        queries, documents: unit rows, (B, D); row i of each belong together.
        tau: temperature of eq. 2.
        same: (B, B) bool, pairs known to mean the same (equal content): never used as negatives.
        different: (B, B) bool, pairs known not to: negatives however near they are, unless they are `same`.
        false_negative_margin: a negative whose cosine exceeds its positive's by more than this is taken for a false
            negative and left out (the rule of Qwen3-Embedding); None keeps all.
        false_negative_threshold: the same for a cosine above this, whatever the positive's.
    """
    cosine = queries @ documents.T
    positives = torch.eye(len(queries), dtype=torch.bool, device=cosine.device)
    masked = torch.zeros_like(positives) if same is None else same & ~positives
    doubtful = ~positives if different is None else ~(positives | different)
    fixed = cosine.detach()
    if false_negative_threshold is not None:
        masked = masked | ((fixed > false_negative_threshold) & doubtful)
    forward_mask = backward_mask = masked
    if false_negative_margin is not None:
        own = fixed.diagonal()
        forward_mask = masked | ((fixed > own[:, None] + false_negative_margin) & doubtful)
        backward_mask = masked | ((fixed > own[None, :] + false_negative_margin) & doubtful)
    logits = cosine / tau
    targets = torch.arange(len(queries), device=logits.device)
    to_document = F.cross_entropy(logits.masked_fill(forward_mask, -torch.inf), targets)
    to_query = F.cross_entropy(logits.T.masked_fill(backward_mask.T, -torch.inf), targets)
    with torch.no_grad():
        guessed = cosine.masked_fill(forward_mask, -torch.inf).argmax(dim=1)
        accuracy = (guessed == targets).float().mean().item()
        negatives = max(1, len(queries) * (len(queries) - 1))
        masked_share = (forward_mask | backward_mask).float().sum().item() / negatives
    return ContrastiveResult(to_document + to_query, accuracy, masked_share)


def distillation(students: Tensor, targets: Tensor, tau: Tensor) -> Tensor:
    """Text embeddings towards a sentence encoder's: one minus cosine, plus InfoNCE of each text with its own target.

    Args:
        students: unit rows (B, D); targets: unit rows (B, D), the teacher's vectors lifted into the same space.
    """
    cosine = 1 - (students * targets).sum(dim=1).mean()
    same = targets @ targets.T > 0.98
    return cosine + 0.5 * contrastive(students, targets, tau, same=same).loss


def label_bank(embeddings: Tensor, bank: Tensor, soft_targets: Tensor, tau: float) -> Tensor:
    """Cross-entropy of audio embeddings over every label's teacher vector.

    Args:
        embeddings: unit rows (B, D); bank: unit rows (labels, D); soft_targets: (B, labels), rows sum to 1.
    """
    return -(soft_targets * F.log_softmax(embeddings @ bank.T / tau, dim=1)).sum(dim=1).mean()


def within_groups(queries: Tensor, documents: Tensor, tau: Tensor, group: Tensor, same: Tensor | None = None) -> Tensor:
    """Contrastive loss among the rows of one group alone, both ways: one scene under several questions.

    In the whole batch a row's partners are a few of many negatives, and most of the gradient goes into telling scenes
    apart; here only what the question asks can.

    Args:
        queries, documents: unit rows, (B, D); row i of each belong together.
        group: (B,) integers; a row that has no other in its group counts nothing.
        same: (B, B) bool, pairs known to mean the same: no negatives.
    """
    positives = torch.eye(len(queries), dtype=torch.bool, device=queries.device)
    candidates = group[:, None] == group
    if same is not None:
        candidates = candidates & ~same
    candidates = candidates | positives
    rows = candidates.sum(dim=1) > 1
    if not rows.any():
        return queries.sum() * 0.0
    logits = (queries @ documents.T / tau).masked_fill(~candidates, -torch.inf)
    targets = torch.arange(len(queries), device=queries.device)[rows]
    return F.cross_entropy(logits[rows], targets) + F.cross_entropy(logits.T[rows], targets)
