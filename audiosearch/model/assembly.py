"""How ALM2Vec's parts work together, whatever library the decoder is from: encoder, projector, decoder, final-EOS
pooling, optional projection, L2 norm. Assembly only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from audiosearch.features import n_patches, n_valid_patches
from audiosearch.model.encoder import AudioEncoder
from audiosearch.model.pooling import pool_final_eos, unit_rows
from audiosearch.model.projector import AudioProjector, n_audio_tokens

Model = TypeVar("Model", bound=nn.Module)


@dataclass(slots=True)
class ModelInputs:
    """One right-padded batch. The audio rows belong, in order, to the batch rows that hold audio placeholders; `heard`
    says so where one sound stands in several rows: it is encoded once."""

    ids: Tensor  # (B, L) int64, without the shared prefix when one is given
    lengths: Tensor  # (B,) real tokens of each row
    mel: Tensor | None = None  # (A, 64, T) float32
    n_samples: Tensor | None = None  # (A,) true samples of each audio row, at least features.MIN_SAMPLES
    heard: tuple[int, ...] | None = None  # the audio row of each batch row that holds placeholders; None: 0, 1, 2 ...
    audio_tokens: Tensor | None = None  # what `Assembly.audio_tokens` made of them before, in place of both

    def to(self, device: torch.device) -> ModelInputs:
        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return ModelInputs(
            self.ids.to(device, non_blocking=True),
            self.lengths.to(device, non_blocking=True),
            move(self.mel),
            # Stays where it is: it is read below, and a number on a GPU is there only once all work before it is done.
            self.n_samples,
            self.heard,
            move(self.audio_tokens),
        )


class SharedPrefix:
    """Keys and values of an instruction prefix, computed once; every batch gets a copy of its own."""

    def __init__(self, layers: list[tuple[Tensor, Tensor]], length: int) -> None:
        self._layers = layers
        self.length = length

    def expanded(self, batch: int) -> list[tuple[Tensor, Tensor]]:
        """Of each layer, keys and values (batch, heads, length, head dim), each row the shared prefix."""
        return [(k.expand(batch, -1, -1, -1), v.expand(batch, -1, -1, -1)) for k, v in self._layers]


class TextDecoder(Protocol):
    """A causal decoder over embeddings: transformers' Qwen2 (`decoder`) or the same without it (`standalone`)."""

    def embed(self, ids: Tensor) -> Tensor: ...

    def prefix(self, ids: Tensor) -> SharedPrefix: ...

    def __call__(self, embeddings: Tensor, prefix: SharedPrefix | None = None) -> Tensor: ...


class Assembly(nn.Module):
    """An audio-LLM as an embedding model. Whoever derives from it makes the parts."""

    config: Any  # Alm2VecConfig, or standalone.Config
    audio_encoder: AudioEncoder
    audio_projector: AudioProjector
    decoder: Any  # a module, and a TextDecoder
    projection: nn.Linear | None
    audio_token_id: int

    def audio_tokens(self, mel: Tensor, n_samples: Tensor, heard: Sequence[int] | None = None) -> Tensor:
        """Audio tokens of all rows, or of those in `heard`, after one another, (sum of n_audio_tokens, H)."""
        lengths = n_samples.tolist()
        # Equal lengths need no mask at all unless the last patch is only partly sound.
        unpadded = len(set(lengths)) == 1 and n_patches(lengths[0]) == n_valid_patches(lengths[0])
        features, _ = self.audio_encoder(mel, None if unpadded else n_samples)
        tokens = self.audio_projector(features)
        factor = self.audio_projector.factor
        rows = range(len(lengths)) if heard is None else heard
        return torch.cat([tokens[row, : n_audio_tokens(lengths[row], factor)] for row in rows])

    def forward(self, inputs: ModelInputs, prefix: SharedPrefix | None = None) -> Tensor:
        """Unit embeddings (B, embedding_dim), float32."""
        decoder: TextDecoder = self.decoder
        embeddings = decoder.embed(inputs.ids)
        tokens = inputs.audio_tokens
        if tokens is None and inputs.mel is not None:
            assert inputs.n_samples is not None
            tokens = self.audio_tokens(inputs.mel, inputs.n_samples, inputs.heard)
        if tokens is not None:
            slots = (inputs.ids == self.audio_token_id).unsqueeze(-1)
            embeddings = embeddings.masked_scatter(slots, tokens.to(embeddings.dtype))
        pooled = pool_final_eos(decoder(embeddings, prefix), inputs.lengths)
        return unit_rows(self.projection(pooled) if self.projection is not None else pooled)


def aligned(model: Model) -> Model:
    """The model, its weights on the CPU in memory of their own. Where a tensor lies in a mapped file depends on the
    file's other tensors, and on whether its address is a multiple of 64 depends which kernel multiplies it: last bits
    would differ between two files of the same weights."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % 64:
            tensor.data = tensor.data.clone()
    return model
