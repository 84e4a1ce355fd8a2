"""A seeded two-layer ALM2Vec with a small tokenizer: the whole path, sound to vector, in milliseconds.

Its weights are random but scaled so that different sounds and texts get clearly different vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

    from audiosearch.model.alm2vec import Alm2VecModel
    from audiosearch.model.config import Alm2VecConfig

SENTENCES = (
    "a dog barks in the rain while a car passes",
    "a low hum and a high whistle behind the wind",
    "somebody speaks, somebody laughs, a door closes",
    "music with a bass line and no voice",
    "Answer the question about the sound.",
    "Represent the user's input.",
)
Stem = Literal["conv", "patch"]


def make_tiny_checkpoint(
    directory: Path, *, seed: int = 0, stem: Stem = "conv", dtype: torch.dtype | None = None, **changes: Any
) -> Path:
    """Write the checkpoint and return its directory. `changes` are keyword arguments of Alm2VecConfig."""
    from audiosearch.model import weights

    tokenizer = directory.with_name(f"{directory.name}-tokenizer.json")
    make_tokenizer(tokenizer)
    weights.save(tiny_model(tiny_config(stem, **changes), seed), directory, tokenizer_file=tokenizer, dtype=dtype)
    tokenizer.unlink()
    return directory


def make_tokenizer(path: Path, vocab_size: int = 384) -> None:
    """Train a byte-level BPE with the special tokens on SENTENCES."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from audiosearch.model.prompt import SPECIAL_TOKENS

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.save(str(path))


def tiny_config(stem: Stem = "conv", **changes: Any) -> Alm2VecConfig:
    """Two layers each, 24 dimensions out."""
    from transformers import Qwen2Config

    from audiosearch.model.config import Alm2VecConfig, EncoderConfig

    settings: dict[str, Any] = {
        "audio_encoder_config": EncoderConfig(
            embed_dim=32, depth=2, num_heads=4, stem=stem, stem_channels=(8, 8, 16, 16) if stem == "conv" else ()
        ),
        "text_config": Qwen2Config(
            vocab_size=384,
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2_048,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            tie_word_embeddings=False,
        ),
        "projection_dim": 24,
        "query_instruction": "Answer the question about the sound.",
        "licence": "Apache-2.0",
    }
    return Alm2VecConfig(**{**settings, **changes})


def tiny_model(config: Alm2VecConfig, seed: int = 0) -> Alm2VecModel:
    """Seeded weights, in eval mode."""
    import torch

    from audiosearch.model.alm2vec import Alm2VecModel

    model = Alm2VecModel(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                fan_in = 1 if "embed_tokens" in name else weight[0].numel()
                weight.copy_(torch.randn(weight.shape, generator=generator) * (1.5 / fan_in**0.5))
            elif name.endswith("bias"):
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
        # Decibels of ordinary sound, so that the encoder sees values around zero.
        model.audio_encoder.init_bn.get_buffer("running_mean").copy_(torch.linspace(5.0, -25.0, 64))
        model.audio_encoder.init_bn.get_buffer("running_var").fill_(300.0)
    return model.eval()
