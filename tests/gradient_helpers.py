"""A tiny adapted model in float64 and a batch for it: what the tests of gradients and of two processes share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from audiosearch.trainer.batch import PairBatch
    from audiosearch.trainer.loop import Run

PAIRS = 12
WORDS = ("a dog", "rain on a roof", "a door closes", "somebody speaks far away", "music", "a low hum and a whistle")


def make_run(
    folder: Path, *, dropout: float = 0.0, grad_cache: bool = True, micro_batch_size: int | None = 5, **options: Any
) -> Run:
    """A run on a tiny base whose adapters are not zero, everything in float64."""
    import torch
    from accelerate import Accelerator
    from tiny import make_tiny_checkpoint

    from audiosearch.model.weights import load
    from audiosearch.trainer.adapters import adapt, count_trainable, recompute_activations
    from audiosearch.trainer.base import BaseSetup
    from audiosearch.trainer.corpus import Corpus
    from audiosearch.trainer.loop import Run
    from audiosearch.trainer.recipe import DataRecipe, LoraRecipe, Recipe, SourceRecipe, StageRecipe
    from audiosearch.trainer.watch import Watch

    stage = StageRecipe("only", steps=4, batch_size=PAIRS, micro_batch_size=micro_batch_size, warmup_steps=1)
    lora = LoraRecipe(rank=4, alpha=8, dropout=dropout)
    data = DataRecipe(sources=[SourceRecipe("none")])
    recipe = Recipe("t", "CC0-1.0", data, [stage], base="tiny", lora=lora, grad_cache=grad_cache, **options)
    base = folder / "base"
    if not base.exists():
        make_tiny_checkpoint(base)
    model, prompts = load(base)
    torch.manual_seed(3)
    adapted, _ = adapt(model, lora)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:  # zero at first: nothing would reach lora_A
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    torch.nn.Module.double(model)
    if recipe.gradient_checkpointing:
        recompute_activations(model)
    corpus = Corpus((), np.zeros(0), np.zeros(0, np.int64), (1.0,), 0)
    trainable = count_trainable(model)
    setup = BaseSetup(
        recipe, corpus, model, prompts, trainable, "tiny", "x", "CC0-1.0", base / "tokenizer.json", adapted, None
    )
    run = Run(setup, folder, Accelerator(cpu=True), Watch(folder, writes=False))
    run.temperature.double()
    run.setup.train_mode()
    return run


def make_batch(run: Run, part: slice = slice(None), *, shared_sound: bool = False) -> PairBatch:
    """Twelve pairs of noise of several lengths and texts, some sound with a question; two of them share a text.

    With `shared_sound` two share their sound, and one of these is asked about it.
    """
    import torch

    from audiosearch.model.projector import n_audio_tokens
    from audiosearch.trainer.batch import Item, PairBatch, content_key

    rng = np.random.default_rng(2)
    queries, documents, keys = [], [], []
    for i in range(PAIRS):
        if i != 6 or not shared_sound:
            n_samples = int(rng.integers(4_000, 24_000))
            mel = rng.normal(-20, 15, size=(1 + n_samples // 160, 64)).astype(np.float32)
        question = None if i % 3 else "what is it?"
        task = "document" if i % 3 else "query"
        encode = run.setup.prompts.encode
        sound = encode(text=question, audio_tokens=n_audio_tokens(n_samples), task=task)
        text = "the same words" if i in (4, 9) else f"{WORDS[i % len(WORDS)]} {i}"
        queries.append(Item(sound, mel, n_samples))
        documents.append(Item(encode(text=text, audio_tokens=0)))
        keys.append(content_key(text))
    sides = {"queries": queries[part], "documents": documents[part]}
    numbers = torch.arange(PAIRS)[part]
    return PairBatch(sides, {"query": numbers, "document": torch.tensor(keys)[part]})


def gradients(run: Run, batch: PairBatch) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and every trained parameter's gradient, tau's among them."""
    stage = run.recipe.stages[0]
    objective = run.setup.objective(stage, run.temperature, run.device)
    for parameter in run._trained():
        parameter.grad = None
    loss, _, _ = run.compute.gradient(batch, objective, stage.micro_batch_size)
    named = [*run.model.named_parameters(), *run.temperature.named_parameters()]
    return loss.item(), {name: p.grad.clone() for name, p in named if p.requires_grad and p.grad is not None}


def relative_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """The largest of |a - b| / |b| over parameters, in Euclidean norms."""
    assert ours.keys() == theirs.keys()
    return max(((ours[name] - theirs[name]).norm() / theirs[name].norm()).item() for name in theirs)
