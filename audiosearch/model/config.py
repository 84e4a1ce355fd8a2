"""Every dimension and every word of an ALM2Vec model, as saved in its `config.json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from transformers import PreTrainedConfig, Qwen2Config

from audiosearch.model.spec import DOCUMENT_INSTRUCTION, QUERY_INSTRUCTION, EncoderConfig, PromptTemplate


class Alm2VecConfig(PreTrainedConfig):
    """`model_type: alm2vec`. `text_config` holds Qwen2Config's fields; `projection_dim` None means no head."""

    model_type = "alm2vec"

    def __init__(
        self,
        audio_encoder_config: dict[str, Any] | EncoderConfig | None = None,
        text_config: dict[str, Any] | Qwen2Config | None = None,
        prompt: dict[str, Any] | PromptTemplate | None = None,
        subsample_factor: int = 5,
        projection_dim: int | None = None,
        lm_head: bool = False,
        query_instruction: str = QUERY_INSTRUCTION,
        document_instruction: str = DOCUMENT_INSTRUCTION,
        max_audio_seconds: float = 30.0,
        licence: str = "unknown",
        training: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        encoder = audio_encoder_config or EncoderConfig()
        self.encoder = encoder if isinstance(encoder, EncoderConfig) else EncoderConfig(**encoder)
        text = text_config or midashenglm_text_config()
        self.text_config = text if isinstance(text, Qwen2Config) else Qwen2Config(**text)
        template = prompt or PromptTemplate()
        self.template = template if isinstance(template, PromptTemplate) else PromptTemplate(**template)
        self.subsample_factor = subsample_factor
        self.projection_dim = projection_dim
        self.lm_head = lm_head
        self.query_instruction = query_instruction
        self.document_instruction = document_instruction
        self.max_audio_seconds = max_audio_seconds
        self.licence = licence
        self.training = training or {}
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)

    @property
    def embedding_dim(self) -> int:
        return self.projection_dim or self.text_config.hidden_size

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: the two dataclasses under their published keys."""
        out = super().to_dict()
        out.pop("encoder", None)
        out.pop("template", None)
        out["audio_encoder_config"] = _plain(self.encoder)
        out["prompt"] = _plain(self.template)
        out["text_config"] = self.text_config.to_dict()
        out["embedding_dim"] = self.embedding_dim
        return out

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        config_dict = {key: value for key, value in config_dict.items() if key != "embedding_dim"}
        return super().from_dict(config_dict, **kwargs)


def _plain(value: Any) -> dict[str, Any]:
    return {key: list(item) if isinstance(item, tuple) else item for key, item in asdict(value).items()}


def midashenglm_text_config() -> Qwen2Config:
    """Qwen2.5-Omni-7B's thinker text model. M-RoPE collapses to plain RoPE: text and audio have 1-D positions."""
    return Qwen2Config(
        vocab_size=152_064,
        hidden_size=3_584,
        intermediate_size=18_944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        max_position_embeddings=32_768,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=False,
    )


def midashenglm_7b(*, lm_head: bool = False) -> Alm2VecConfig:
    """MiDashengLM-7B as an embedding model; `lm_head` adds the output layer that an embedding does not need."""
    return Alm2VecConfig(lm_head=lm_head, licence="Apache-2.0")


@dataclass(frozen=True, slots=True)
class MiniDimensions:
    """Sizes of alm2vec-mini; the defaults are the shipped model's."""

    encoder_dim: int = 192
    encoder_depth: int = 4
    encoder_heads: int = 4
    stem_channels: tuple[int, ...] = (32, 64, 96, 128)
    decoder_dim: int = 256
    decoder_depth: int = 4
    decoder_heads: int = 4
    decoder_kv_heads: int = 2
    decoder_intermediate: int = 640
    projection_dim: int = 512
    extra: dict[str, Any] = field(default_factory=dict)


def alm2vec_mini(vocab_size: int, dims: MiniDimensions | None = None) -> Alm2VecConfig:
    """The small default: same architecture, convolutional stem, short instructions."""
    dims = dims or MiniDimensions()
    return Alm2VecConfig(
        audio_encoder_config=EncoderConfig(
            embed_dim=dims.encoder_dim,
            depth=dims.encoder_depth,
            num_heads=dims.encoder_heads,
            stem="conv",
            stem_channels=dims.stem_channels,
        ),
        text_config=Qwen2Config(
            vocab_size=vocab_size,
            hidden_size=dims.decoder_dim,
            intermediate_size=dims.decoder_intermediate,
            num_hidden_layers=dims.decoder_depth,
            num_attention_heads=dims.decoder_heads,
            num_key_value_heads=dims.decoder_kv_heads,
            max_position_embeddings=2_048,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            tie_word_embeddings=False,
        ),
        projection_dim=dims.projection_dim,
        query_instruction="Answer the question about the sound.",
        **dims.extra,
    )
