"""Where the model runs in training: placing, precision, processes. The loop says what, this says how.

PairBatch ──> micro-batches ──place──> (frozen encoder: audio tokens) ──encode──> embeddings ──gather──> whole batch
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from audiosearch.model.alm2vec import Alm2VecModel
from audiosearch.model.assembly import ModelInputs
from audiosearch.model.prompt import PromptEncoder
from audiosearch.trainer.adapters import Trainable
from audiosearch.trainer.batch import Item, PairBatch, micro_batches
from audiosearch.trainer.corpus import Corpus
from audiosearch.trainer.data import BatchSource
from audiosearch.trainer.gradcache import MicroBatch, gradient_step, refuse_batch_statistics
from audiosearch.trainer.losses import Temperature
from audiosearch.trainer.objectives import Objective
from audiosearch.trainer.recipe import Recipe, StageRecipe


class Setup(Protocol):
    """A model, and what its stages learn from and minimise: `BaseSetup` or `ScratchSetup`."""

    recipe: Recipe
    corpus: Corpus
    model: Alm2VecModel
    trainable: Trainable
    base: str
    identity: str
    frozen_sound: bool

    @property
    def licence(self) -> str: ...
    @property
    def prompts(self) -> PromptEncoder: ...
    @property
    def tokenizer_file(self) -> Path: ...
    def batches(self, stage: StageRecipe, number: int, rank: int, world_size: int) -> BatchSource: ...
    def objective(self, stage: StageRecipe, temperature: Temperature, device: torch.device) -> Objective: ...
    def train_mode(self) -> None: ...


def precision(recipe: Recipe, device: torch.device) -> torch.dtype | None:
    """The dtype of autocast, None for plain float32."""
    if recipe.precision == "auto":
        able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if able else None
    return torch.bfloat16 if recipe.precision == "bfloat16" else None


class Float32Attention(TorchFunctionMode):
    """Attention in float32 wherever it is called, with its result in the dtype of the queries.

    For bfloat16 on a CPU: torch 2.11's backward pass of attention is there four times as slow as in float32, and takes
    back a good part of what faster matrix products gain (docs/training.md).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):  # which would make it bfloat16 again
            out = func(*map(_float32, args), **{name: _float32(value) for name, value in (kwargs or {}).items()})
        return out.to((args[0] if args else kwargs["query"]).dtype)


def _float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


class Compute:
    """One process's model and its connection to the others."""

    def __init__(self, setup: Setup, accelerator: Accelerator) -> None:
        self.setup, self.accelerator = setup, accelerator
        self.recipe, self.device = setup.recipe, accelerator.device
        self.rank, self.world_size = accelerator.process_index, accelerator.num_processes
        self.model, self.pad_id = setup.model, setup.prompts.pad_id
        self.frozen_sound = setup.frozen_sound  # a stage may freeze it too
        torch.nn.Module.to(self.model, self.device)  # the typed one: transformers wraps its own
        self.autocast_dtype = precision(self.recipe, self.device)

    def gradient(
        self, batch: PairBatch, objective: Objective, micro_batch_size: int | None
    ) -> tuple[Tensor, dict[str, float], dict[str, Tensor]]:
        """Put the whole batch's gradient into `.grad`; what `gradient_step` returns comes back.

        Args:
            batch: this process's share.
            objective: of the whole batch.
            micro_batch_size: items of a side that go through the model together; None: all of them.

        Raises:
            UsageError: GradCache, and a layer that normalises over the batch.
        """
        n = len(next(iter(batch.sides.values())))
        shared_prefix = not self.recipe.gradient_checkpointing  # which cannot keep the keys and values of a prefix
        parts = micro_batches(batch, micro_batch_size, self.pad_id, shared_prefix=shared_prefix)
        parts = [self.placed(part) for part in parts]
        if self.recipe.grad_cache:
            refuse_batch_statistics(self.model)
        keys = {name: self._gather(column.to(self.device)) for name, column in batch.keys.items()}
        result = gradient_step(
            parts,
            self.encode,
            lambda embeddings: objective(embeddings, keys),
            cached=self.recipe.grad_cache,
            gather=self._gather,
            own=slice(self.rank * n, (self.rank + 1) * n),
        )
        self._sum_gradients()
        return result

    def embed(self, items: Sequence[Item], micro_batch_size: int) -> np.ndarray:
        """Unit rows (n, dim) of items under the current weights, without gradient or dropout."""
        self.model.eval()
        parts = micro_batches(PairBatch({"items": list(items)}, {}), micro_batch_size, self.pad_id, shared_prefix=True)
        rows = np.empty((len(items), self.model.config.embedding_dim), dtype=np.float32)
        with torch.no_grad():
            for part in parts:
                rows[part.rows.numpy()] = self.encode(self.placed(part)).float().cpu().numpy()
        self.setup.train_mode()
        return rows

    def placed(self, part: MicroBatch) -> MicroBatch:
        """On the device; of a frozen encoder the audio tokens at once, so that no pass has to make them again."""
        inputs = part.inputs.to(self.device)
        if self.frozen_sound and inputs.mel is not None and inputs.n_samples is not None:
            with torch.no_grad(), self._autocast():
                tokens = self.model.audio_tokens(inputs.mel, inputs.n_samples, inputs.heard)
            inputs = ModelInputs(inputs.ids, inputs.lengths, audio_tokens=tokens)
        prefix = None if part.prefix is None else part.prefix.to(self.device)
        return MicroBatch(part.side, part.rows, inputs, prefix)

    def encode(self, part: MicroBatch) -> Tensor:
        """The embeddings (b, dim) of a placed micro-batch."""
        with self._autocast():
            prefix = None if part.prefix is None else self.model.decoder.prefix(part.prefix)
            embeddings: Tensor = self.model(part.inputs, prefix)
        return embeddings

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.autocast_dtype is None:
            return contextlib.nullcontext()
        stack = contextlib.ExitStack()
        stack.enter_context(torch.autocast(self.device.type, dtype=self.autocast_dtype))
        if self.device.type == "cpu":
            stack.enter_context(Float32Attention())
        return stack

    def _gather(self, rows: Tensor) -> Tensor:
        return rows if self.world_size == 1 else self.accelerator.gather(rows)

    def _sum_gradients(self) -> None:
        """Add up the processes' parts of the gradient; of tau each process has the whole already.

        One reduction after the last micro-batch, in place of DDP's hooks: those want every parameter in the one
        backward pass that they reduce in, and here a micro-batch of texts leaves the sound's out.
        """
        if self.world_size == 1:
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                by_dtype.setdefault(parameter.dtype, []).append(parameter.grad)
        for gradients in by_dtype.values():
            total = self.accelerator.reduce(torch.cat([g.flatten() for g in gradients]), reduction="sum")
            for gradient, part in zip(gradients, total.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))
