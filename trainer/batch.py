"""What data sources hand to the loop, a process's share of a step's pairs, and how it becomes micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiosearch.features import N_MELS
from audiosearch.model.prompt import Prompt
from audiosearch.trainer.gradcache import MicroBatch

if TYPE_CHECKING:
    from audiosearch.model.assembly import ModelInputs

Decibels = NDArray[np.float32]  # (frames, 64)


@dataclass(frozen=True, slots=True)
class Item:
    """One item, ready for the model: token ids and, with sound, its log-mel and true length in samples."""

    prompt: Prompt
    mel: Decibels | None = None
    n_samples: int = 0


@dataclass(slots=True)
class PairBatch:
    """`sides["queries"][i]` and `sides["documents"][i]` belong together; `keys` are int64 (n,) columns beside them."""

    sides: dict[str, list[Item]]
    keys: dict[str, Tensor]
    warnings: list[str] = field(default_factory=list)


def content_key(*parts: str | bytes) -> int:
    """A number that equal contents share: 63 bits of their BLAKE2b."""
    digest = blake2b(digest_size=8)
    for part in parts:
        digest.update((part.encode() if isinstance(part, str) else part) + b"\0")
    return int.from_bytes(digest.digest(), "big") >> 1


def share(size: int, rank: int, world_size: int) -> slice:
    """Which rows of a batch of `size` belong to process `rank`."""
    return slice(size * rank // world_size, size * (rank + 1) // world_size)


def micro_batches(batch: PairBatch, size: int | None, pad_id: int, *, shared_prefix: bool) -> list[MicroBatch]:
    """The items of each side, sorted by instruction and length, `size` at a time (None: all of a kind together).

    `shared_prefix` lets a micro-batch whose items share their instruction run it once. Then no micro-batch mixes two
    instructions, or sounds with texts alone, which are a third as long; a sound under two questions is encoded twice.
    """
    out = []
    for side, items in batch.sides.items():
        order = sorted(range(len(items)), key=lambda i: _place(items[i]))
        kinds = [list(rows) for _, rows in groupby(order, key=lambda i: _kind(items[i]))] if shared_prefix else [order]
        for kind in kinds:
            for start in range(0, len(kind), size or len(kind)):
                rows = kind[start : start + (size or len(kind))]
                out.append(_micro_batch(side, rows, [items[i] for i in rows], pad_id, shared_prefix))
    return out


def _kind(item: Item) -> tuple[tuple[int, ...], bool]:
    return item.prompt.ids[: item.prompt.prefix_length], item.mel is not None


def _place(item: Item) -> tuple[tuple[int, ...], bool, int, int]:
    return *_kind(item), item.n_samples, len(item.prompt.ids)


def _micro_batch(side: str, rows: list[int], items: list[Item], pad_id: int, shared_prefix: bool) -> MicroBatch:
    first = items[0].prompt
    ids = first.ids[: first.prefix_length]
    shared = shared_prefix and all(item.prompt.ids[: len(ids)] == ids for item in items)
    inputs = collate_prompts([item.prompt for item in items], pad_id, skip=len(ids) if shared else 0)
    sounds = [item for item in items if item.mel is not None]
    if sounds:
        # One scene under several questions is one array: heard once.
        place: dict[int, int] = {}
        heard = tuple(place.setdefault(id(item.mel), len(place)) for item in sounds)
        inputs.mel, inputs.n_samples = collate_mels([sounds[heard.index(i)] for i in range(len(place))])
        inputs.heard = heard if len(place) < len(heard) else None
    return MicroBatch(side, torch.tensor(rows), inputs, torch.tensor(ids) if shared else None)


def collate_prompts(prompts: Sequence[Prompt], pad_id: int, *, skip: int = 0) -> ModelInputs:
    """Right-padded ids without the first `skip` of each."""
    # Here and not above: a process that only decodes starts in half the time without the model and transformers.
    from audiosearch.model.assembly import ModelInputs

    lengths = torch.tensor([len(prompt.ids) - skip for prompt in prompts])
    ids = torch.full((len(prompts), int(lengths.max())), pad_id)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt.ids) - skip] = torch.tensor(prompt.ids[skip:])
    return ModelInputs(ids, lengths)


def collate_mels(items: Sequence[Item]) -> tuple[Tensor, Tensor]:
    """Right-padded log-mels (A, 64, T), and the items' samples (A,). Padding is zero, as the embedder's."""
    frames = max(len(item.mel) for item in items if item.mel is not None)
    mel = np.zeros((len(items), N_MELS, frames), dtype=np.float32)
    for row, item in zip(mel, items, strict=True):
        assert item.mel is not None
        row[:, : len(item.mel)] = item.mel.T
    return torch.from_numpy(mel), torch.tensor([item.n_samples for item in items])
