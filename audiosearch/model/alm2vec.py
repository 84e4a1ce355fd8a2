"""ALM2Vec: encoder, projector, decoder, final-EOS pooling, optional projection, L2 norm. Assembly only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from audiosearch.features import n_patches, n_valid_patches
from audiosearch.model.config import Alm2VecConfig
from audiosearch.model.decoder import Decoder, SharedPrefix
from audiosearch.model.encoder import AudioEncoder
from audiosearch.model.pooling import pool_final_eos, unit_rows
from audiosearch.model.projector import AudioProjector, n_audio_tokens


@dataclass(slots=True)
class ModelInputs:
    """One right-padded batch. The audio rows belong, in order, to the batch rows that hold audio placeholders; `heard`
    says so where one sound stands in several rows: it is encoded once."""

    ids: Tensor  # (B, L) int64, without the shared prefix when one is given
    lengths: Tensor  # (B,) real tokens of each row
    mel: Tensor | None = None  # (A, 64, T) float32
    n_samples: Tensor | None = None  # (A,) true samples of each audio row, at least features.MIN_SAMPLES
    heard: tuple[int, ...] | None = None  # the audio row of each batch row that holds placeholders; None: 0, 1, 2 ...
    audio_tokens: Tensor | None = None  # what `Alm2VecModel.audio_tokens` made of them before, in place of both

    def to(self, device: torch.device) -> ModelInputs:
        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return ModelInputs(
            self.ids.to(device, non_blocking=True),
            self.lengths.to(device, non_blocking=True),
            move(self.mel),
            move(self.n_samples),
            self.heard,
            move(self.audio_tokens),
        )


class Alm2VecModel(PreTrainedModel):
    """An audio-LLM as an embedding model."""

    config: Alm2VecConfig
    config_class = Alm2VecConfig
    base_model_prefix = ""
    main_input_name = "ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _no_split_modules = ["Block", "Qwen2DecoderLayer"]  # noqa: RUF012 - transformers' own protocol

    def __init__(self, config: Alm2VecConfig, audio_token_id: int = -1) -> None:
        super().__init__(config)
        hidden = config.text_config.hidden_size
        self.audio_encoder = AudioEncoder(config.encoder)
        self.audio_projector = AudioProjector(config.encoder.embed_dim, hidden, config.subsample_factor)
        self.decoder = Decoder(config.text_config, lm_head=config.lm_head)
        self.projection = nn.Linear(hidden, config.projection_dim, bias=False) if config.projection_dim else None
        self.audio_token_id = audio_token_id
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        # Positional tables have their own initialisation; everything else is transformers' default.
        if isinstance(module, AudioEncoder):
            nn.init.normal_(module.time_pos_embed, std=0.02)
            nn.init.normal_(module.freq_pos_embed, std=0.02)
        else:
            super()._init_weights(module)

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
        embeddings = self.decoder.embed(inputs.ids)
        tokens = inputs.audio_tokens
        if tokens is None and inputs.mel is not None:
            assert inputs.n_samples is not None
            tokens = self.audio_tokens(inputs.mel, inputs.n_samples, inputs.heard)
        if tokens is not None:
            slots = (inputs.ids == self.audio_token_id).unsqueeze(-1)
            embeddings = embeddings.masked_scatter(slots, tokens.to(embeddings.dtype))
        pooled = pool_final_eos(self.decoder(embeddings, prefix), inputs.lengths)
        return unit_rows(self.projection(pooled) if self.projection is not None else pooled)
