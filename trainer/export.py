"""A finished run as a checkpoint directory: fp16 weights, tokenizer, configuration, credits, model card."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from audiosearch.model import weights
from audiosearch.model.alm2vec import Alm2VecModel

if TYPE_CHECKING:
    from audiosearch.trainer.loop import Materials

CARD = """---
license: {licence_tag}
library_name: audiosearch
tags: [audio, text, embedding, retrieval, alm2vec]
---
# {name}

An ALM2Vec model (arXiv 2606.30682) of {parameters:.1f} M parameters: Dasheng encoder with a convolutional stem,
projector, Qwen2 decoder, final-EOS pooling, {dim} dimensions. Sound, text and sound with a question go into one space.
It is trained from nothing by audiosearch's own trainer; no published weights are in it.

## Data

{clips:,} clips, {hours:.1f} hours, in {labels:,} labels and {classes} classes. By licence:

{licences}

By collection:

{sources}

Every author who asked for credit is in `CREDITS.csv`. ESC-50 clips are those whose authors chose CC0 or CC BY; the
collector licenses that collection as a whole CC BY-NC 3.0. Captions are made from label names and a phrase book written
for this project, not by ear. The text side is distilled from all-MiniLM-L6-v2 (Apache-2.0) on these captions, the
Universal Category System 8.2.1 (CC0) and single words. `valid` rows were never trained on.

## Recipe

`audiosearch train {recipe}`; the whole recipe is in `config.json` under `training`. Two stages: the text side is
distilled from a sentence encoder, then sound and text are trained with the paper's contrastive loss (eqs. 1-3) beside
two distillation terms. Weights are the exponential moving average, in fp16.

## Figures

{figures}

## Limits

- Trained on short single sounds: words for scenes, moods and music are known only through the text teacher.
- No female, child or emotional speech with a clear licence was available; what is *said* is hardly understood.
- Questions and instructions hardly steer it yet: see the figures on mixtures.
- Clips of collections it has never seen are much harder than the held-out clips of the same collections.
"""


def export_model(
    model: Alm2VecModel, tokenizer_file: Path, directory: Path, materials: Materials, history: list[dict[str, Any]]
) -> None:
    """Write the checkpoint directory of a finished run; `audiosearch ingest --model DIR` opens it."""
    recipe, pack = materials.recipe, materials.pack
    model.config.training = {**model.config.training, "last_log": history[-1] if history else {}}
    weights.save(model, directory, tokenizer_file=tokenizer_file, dtype=torch.float16)
    _write_credits(directory / "CREDITS.csv", materials)
    card = CARD.format(
        licence_tag=recipe.licence.lower(),
        name=recipe.name,
        recipe=recipe.name.removeprefix("alm2vec-"),
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        dim=model.config.embedding_dim,
        clips=len(pack),
        hours=len(pack.mel) / 100 / 3600,
        labels=len({row.label for row in pack.rows}),
        classes=len({row.sound_class for row in pack.rows}),
        licences=_table(Counter(row.licence for row in pack.rows), "licence"),
        sources=_table(Counter(row.source for row in pack.rows), "collection"),
        figures="Not measured yet: run `python benchmarks/mini_quality.py --write-card`.",
    )
    (directory / "README.md").write_text(card, encoding="utf-8")


def _table(counts: Counter[str], what: str) -> str:
    rows = [f"| {name or 'unknown'} | {count:,} |" for name, count in counts.most_common()]
    return "\n".join([f"| {what} | clips |", "|---|---|", *rows])


def _write_credits(path: Path, materials: Materials) -> None:
    counts = Counter((row.attribution, row.licence, row.source) for row in materials.pack.rows)
    with path.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out)
        table.writerow(["attribution", "licence", "collection", "clips"])
        table.writerows([*key, count] for key, count in sorted(counts.items()))
