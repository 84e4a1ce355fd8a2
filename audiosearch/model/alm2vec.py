"""ALM2Vec as a transformers model: what is trained, adapted, quantised, sharded and placed."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from audiosearch.model.assembly import Assembly
from audiosearch.model.config import Alm2VecConfig
from audiosearch.model.decoder import Decoder
from audiosearch.model.encoder import AudioEncoder
from audiosearch.model.projector import AudioProjector


class Alm2VecModel(Assembly, PreTrainedModel):
    """The model with transformers' decoder."""

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
        self.decoder: Decoder = Decoder(config.text_config, lm_head=config.lm_head)
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
