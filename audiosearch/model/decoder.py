"""The decoder: transformers' Qwen2Model under the published names (`decoder.model.*`, `decoder.lm_head.weight`)."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, Qwen2Config, Qwen2Model

from audiosearch.model.assembly import SharedPrefix

# What Qwen2Model calls keys and values of earlier positions: `cache` in newer releases of transformers 5 (5.24 has it),
# which drop the old name in 5.40.
CACHE = "cache" if "cache" in inspect.signature(Qwen2Model.forward).parameters else "past_key_values"


class Decoder(nn.Module):
    """Causal transformer over text and audio embeddings. `lm_head` exists only to hold a full checkpoint.

    Every call gets a fresh cache: `DynamicCache` grows in place even with `use_cache=False`, and a second batch that
    met the first one's would attend to the first one's tokens.
    """

    def __init__(self, config: Qwen2Config, *, lm_head: bool) -> None:
        super().__init__()
        self.model = Qwen2Model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False) if lm_head else None

    def embed(self, ids: Tensor) -> Tensor:
        return self.model.embed_tokens(ids)

    def forward(self, embeddings: Tensor, prefix: SharedPrefix | None = None) -> Tensor:
        """Last hidden states (B, L, H) of right-padded embeddings.

        No padding mask is needed: attention is causal and padding lies behind every position that is read.
        """
        offset = prefix.length if prefix else 0
        positions = torch.arange(offset, offset + embeddings.shape[1], device=embeddings.device)
        return self.model(
            inputs_embeds=embeddings,
            position_ids=positions.expand(embeddings.shape[0], -1),
            use_cache=prefix is not None,
            **{CACHE: DynamicCache(prefix.expanded(embeddings.shape[0])) if prefix else None},
        ).last_hidden_state

    def prefix(self, ids: Tensor) -> SharedPrefix:
        """Run the prefix `ids` (P,) once and keep its keys and values."""
        cache = DynamicCache()
        positions = torch.arange(len(ids), device=ids.device)[None]
        self.model(input_ids=ids[None], position_ids=positions, use_cache=True, **{CACHE: cache})
        layers: Any = cache.layers  # of a full-attention decoder: keys and values, set by the run
        return SharedPrefix([(layer.keys, layer.values) for layer in layers], len(ids))
