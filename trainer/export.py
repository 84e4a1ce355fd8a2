"""A finished run as checkpoint directories that `audiosearch ingest --model DIR` opens, with a model card.

OUT/adapter/   of an adapted base: the LoRA weights and head, naming the base
OUT/model/     the whole model; of an adapted base with the adapters merged in
"""

from __future__ import annotations

import csv
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from audiosearch.errors import UsageError
from audiosearch.model import weights
from audiosearch.model.alm2vec import Alm2VecModel
from audiosearch.trainer.base import BaseSetup
from audiosearch.trainer.checkpoint import read_state

if TYPE_CHECKING:
    from peft import PeftModel

    from audiosearch.trainer.loop import Run

CARD = """---
license: {licence_tag}
library_name: audiosearch
tags: [audio, text, embedding, retrieval, alm2vec]
---
# {name}

An ALM2Vec model (arXiv 2606.30682) of {parameters:.1f} M parameters: Dasheng encoder, projector, Qwen2 decoder,
final-EOS pooling, {dim} dimensions. Sound, text and sound with a question go into one space.
{origin}

## Data

{clips:,} rows, {hours:.1f} hours{labels}; {dropped} dropped before training. By licence:

{licences}

By collection:

{sources}

{credits}
{words}
## Recipe

{recipe}; the whole recipe is in `config.json` under `training`.
Loss: the paper's contrastive loss (eqs. 1-3){extra_loss}. Trained: {trained}. {averaged}

## Figures

{figures}

## Limits

{limits}
"""

_SCRATCH_WORDS = """
ESC-50 clips are those whose authors chose CC0 or CC BY; the collector licenses that collection as a whole CC BY-NC 3.0.
Captions are made from label names and a phrase book written for this project, not by ear. The text side is distilled
from all-MiniLM-L6-v2 (Apache-2.0) on these captions, the Universal Category System 8.2.1 (CC0) and single words.
`valid` rows were never trained on.
"""
_SCRATCH_LIMITS = """\
- Trained on short single sounds: words for scenes, moods and music are known only through the text teacher.
- No female, child or emotional speech with a clear licence was available; what is *said* is hardly understood.
- Questions and instructions steer it only in part: see the figures on confused triplets and mixtures.
- Clips of collections it has never seen are much harder than the held-out clips of the same collections."""
_ADAPTED_LIMITS = """\
- It knows what its base knows and what is above; other collections may be found less well than by the base.
- Its vectors belong to a space of their own: a library keeps the base's beside them, and the two never mix."""


def export_run(run: Run, out: Path, best: Path | None, say: Callable[[str], None]) -> None:
    """Write the checkpoint directories of a finished run.

    Of an adapted base the weights are the best held-out checkpoint's, if there was one to choose, else the last; of a
    model from nothing they are the moving average, where the recipe keeps one.
    """
    recipe, chosen = run.recipe, "the last step"
    if recipe.lora is not None and best is not None:
        try:
            state = read_state(best)
        except UsageError as error:
            say(f"{error}; the last step's weights are exported in place of the best")
        else:
            run.load_weights(state["average"] or state["weights"])
            chosen = f"step {state['step']} of stage {state['stage_name']}, the best on held-out retrieval"
    elif run.average:
        run.load_weights({name: value.to(run.device) for name, value in run.average.items()})
        chosen = "the exponential moving average over the last steps"
    model = run.model
    torch.nn.Module.to(model, "cpu")
    model.eval()
    model.config.licence = run.setup.licence
    model.config.training = {
        "recipe": recipe.to_dict(),
        "base": run.setup.base,
        "base_fingerprint": run.setup.identity,
        "weights": chosen,
        "steps": {stage.name: stage.steps for stage in recipe.stages},
        "last_log": run.history[-1] if run.history else {},
    }
    card = _card(run, chosen)
    if recipe.lora is not None:
        _export_adapter(run, out / "adapter", card)
        say(f"LoRA checkpoint: {out / 'adapter'}")
    if recipe.lora is None or recipe.export_merged:
        whole = model if recipe.lora is None else _adapted(run).merge_and_unload(safe_merge=True)
        assert isinstance(whole, Alm2VecModel)
        dtype = torch.float16 if recipe.lora is None else None
        weights.save(whole, out / "model", tokenizer_file=run.setup.tokenizer_file, dtype=dtype)
        _write_beside(out / "model", card, run)
        say(f"checkpoint: {out / 'model'}")


def _export_adapter(run: Run, directory: Path, card: str) -> None:
    weights.save_adapter(_adapted(run), directory, base=_relative(run.setup.base, directory))
    shutil.copyfile(run.setup.tokenizer_file, directory / run.setup.tokenizer_file.name)
    _write_beside(directory, card, run)


def _adapted(run: Run) -> PeftModel:
    """The run's model as peft sees it."""
    assert isinstance(run.setup, BaseSetup)
    return run.setup.adapted


def _relative(base: str, directory: Path) -> str:
    """A base that is a directory, as seen from the adapter: the two can be moved together. Bundled names and hub ids
    stay as they are."""
    return os.path.relpath(base, directory.absolute()) if Path(base).is_dir() else base


def _write_beside(directory: Path, card: str, run: Run) -> None:
    (directory / "README.md").write_text(card, encoding="utf-8")
    rows = run.setup.corpus.rows
    counts = Counter((row.attribution, row.licence, row.source) for row in rows)
    with (directory / "CREDITS.csv").open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out)
        table.writerow(["attribution", "licence", "collection", "clips"])
        table.writerows([*key, count] for key, count in sorted(counts.items()))


def _card(run: Run, chosen: str) -> str:
    recipe, setup, corpus = run.recipe, run.setup, run.setup.corpus
    scratch = recipe.scratch is not None
    labels = {row.label for row in corpus.rows if row.label}
    held_out = [line for line in run.history if "score" in line]
    figures = "Not measured yet: run `audiosearch evaluate`."
    if scratch:
        figures = "Not measured yet: run `python benchmarks/mini_quality.py --write-card`."
    if held_out:
        best = max(held_out, key=lambda line: float(line["score"]))
        rows = [f"| {name} | {value:.3f} |" for name, value in best.items() if isinstance(value, float)]
        title = f"Held-out retrieval while training, step {best['step']}:"
        figures = "\n".join([title, "", "| figure | value |", "|---|---|", *rows])
    return CARD.format(
        licence_tag=setup.licence.lower(),
        name=recipe.name,
        parameters=setup.trainable.total / 1e6,
        dim=run.model.config.embedding_dim,
        origin="It is trained from nothing by audiosearch's own trainer; no published weights are in it."
        if scratch
        else f"It is `{Path(setup.base).name if Path(setup.base).is_dir() else setup.base}`, adapted with LoRA by "
        "audiosearch's trainer; the licence of that base goes on applying.",
        clips=len(corpus.rows),
        hours=float(corpus.seconds.sum()) / 3600,
        labels=f", in {len(labels)} labels" if labels else "",
        dropped=f"{corpus.n_dropped:,} row{'' if corpus.n_dropped == 1 else 's'}",
        licences=_table(Counter(row.licence for row in corpus.rows), "licence"),
        sources=_table(Counter(row.source for row in corpus.rows), "collection"),
        credits="Every author who asked for credit is in `CREDITS.csv`.",
        words=_SCRATCH_WORDS if scratch else "",
        recipe=f"`audiosearch train {recipe.name.removeprefix('alm2vec-') if scratch else 'RECIPE'}`",
        extra_loss=" beside two distillation terms, after the text side was distilled alone" if scratch else "",
        trained=str(setup.trainable),
        averaged=f"Weights: {chosen}" + (", in fp16." if scratch else "."),
        figures=figures,
        limits=_SCRATCH_LIMITS if scratch else _ADAPTED_LIMITS,
    )


def _table(counts: Counter[str], what: str) -> str:
    rows = [f"| {name or 'unknown'} | {count:,} |" for name, count in counts.most_common()]
    return "\n".join([f"| {what} | clips |", "|---|---|", *rows])
