"""A small checkpoint without transformers: the same model for inference, with a Qwen2 decoder in plain PyTorch.

Importing transformers' model code takes several seconds, which is most of what a query costs that a person waits for.
Nothing else is saved by it, so large checkpoints, adapters and training use `weights` and `alm2vec`, which can place,
shard, quantise and adapt. Names of tensors are the same; tests hold the embeddings of the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from audiosearch.errors import ModelError
from audiosearch.model import files, published
from audiosearch.model.assembly import Assembly, SharedPrefix, aligned
from audiosearch.model.encoder import AudioEncoder
from audiosearch.model.projector import AudioProjector
from audiosearch.model.prompt import PromptEncoder
from audiosearch.model.spec import EncoderConfig, PromptTemplate

LARGEST_BYTES = 512 << 20
_PLAIN_ROPE = {"rope_type", "rope_theta"}


@dataclass(frozen=True, slots=True)
class TextConfig:
    """The decoder's dimensions, under Qwen2Config's names."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    head_dim: int

    @classmethod
    def of(cls, text: dict[str, Any]) -> TextConfig:
        heads = text["num_attention_heads"]
        plain = {name: text[name] for name in cls.__slots__ if name in text}
        plain.setdefault("head_dim", text["hidden_size"] // heads)
        return cls(**plain, rope_theta=text["rope_parameters"]["rope_theta"])


@dataclass(frozen=True, slots=True)
class Config:
    """What `Alm2VecConfig` says, as far as inference asks for it."""

    encoder: EncoderConfig
    text_config: TextConfig
    template: PromptTemplate
    subsample_factor: int
    projection_dim: int | None
    query_instruction: str
    document_instruction: str
    max_audio_seconds: float

    @property
    def embedding_dim(self) -> int:
        return self.projection_dim or self.text_config.hidden_size


class RMSNorm(nn.Module):
    """Root mean square normalisation (arXiv 1910.07467), computed in float32 as Qwen2's."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)).to(x.dtype)


class Attention(nn.Module):
    """Causal attention whose query heads share fewer key and value heads, with rotary positions."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        queries, keys = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
        self.q_proj = nn.Linear(config.hidden_size, queries)
        self.k_proj = nn.Linear(config.hidden_size, keys)
        self.v_proj = nn.Linear(config.hidden_size, keys)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor | None, before: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What each position takes from those up to it, and the keys and values of all of them."""
        batch, length, _ = x.shape

        def heads(projection: nn.Linear) -> Tensor:
            return projection(x).view(batch, length, -1, self.head_dim).transpose(1, 2)

        q, k, v = _rotated(heads(self.q_proj), turn), _rotated(heads(self.k_proj), turn), heads(self.v_proj)
        if before is not None:
            k, v = torch.cat([before[0], k], dim=2), torch.cat([before[1], v], dim=2)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1)), (k, v)


class Mlp(nn.Module):
    """Gated by SiLU."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention, then MLP, each on normalised input and added to it."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(config), Mlp(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor | None, before: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        out, known = self.self_attn(self.input_layernorm(x), turn, mask, before)
        x = x + out
        return x + self.mlp(self.post_attention_layernorm(x)), known


class Qwen2(nn.Module):
    """Embedding, layers, final norm (arXiv 2407.10671); names as in transformers' `Qwen2Model`."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        # Its own initialisation, on the meta device, would import torch's compiler: two seconds.
        table = torch.empty(config.vocab_size, config.hidden_size)
        self.embed_tokens = nn.Embedding.from_pretrained(table, freeze=False)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, prefix: SharedPrefix | None) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Last hidden states, and keys and values of every layer, the prefix's before the batch's own."""
        batch, length, _ = x.shape
        offset = prefix.length if prefix else 0
        turn = self._turn(offset, length, x)
        mask = None
        if offset:
            # The prefix is behind every position; among their own they see only what came before.
            mask = torch.ones(length, offset + length, dtype=torch.bool, device=x.device).tril(offset)
        before: list[Any] = list(prefix.expanded(batch)) if prefix else [None] * len(self.layers)
        known = []
        for layer, kept in zip(self.layers, before, strict=True):
            x, keys_and_values = layer(x, turn, mask, kept)
            known.append(keys_and_values)
        return self.norm(x), known

    def _turn(self, offset: int, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the rotary angles (arXiv 2104.09864), (length, head dim) each, float32 until rounded."""
        dim, device = self.config.head_dim, like.device
        rates = self.config.rope_theta ** -(torch.arange(0, dim, 2, device=device, dtype=torch.float32) / dim)
        angles = torch.arange(offset, offset + length, device=device, dtype=torch.float32)[:, None] * rates
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


class Decoder(nn.Module):
    """What `audiosearch.model.decoder.Decoder` is, without cache classes."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.model = Qwen2(config)

    def embed(self, ids: Tensor) -> Tensor:
        return self.model.embed_tokens(ids)

    def forward(self, embeddings: Tensor, prefix: SharedPrefix | None = None) -> Tensor:
        hidden: Tensor = self.model(embeddings, prefix)[0]
        return hidden

    def prefix(self, ids: Tensor) -> SharedPrefix:
        return SharedPrefix(self.model(self.embed(ids[None]), None)[1], len(ids))


class StandaloneModel(Assembly):
    """The model of a small checkpoint."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        hidden = config.text_config.hidden_size
        self.config = config
        self.audio_encoder = AudioEncoder(config.encoder)
        self.audio_projector = AudioProjector(config.encoder.embed_dim, hidden, config.subsample_factor)
        self.decoder = Decoder(config.text_config)
        self.projection = nn.Linear(hidden, config.projection_dim, bias=False) if config.projection_dim else None


def can_open(directory: Path) -> bool:
    """Whether a checkpoint is small, whole, in one file, and of a plain Qwen2. Raises ModelError if it is none."""
    if files.is_adapter(directory):
        return False
    weights = files.weight_files(directory)
    settings = published.read_settings(directory)
    text = settings["text_config"]
    rope = text["rope_parameters"]
    return (
        len(weights) == 1
        and weights[0].stat().st_size <= LARGEST_BYTES
        and not settings["lm_head"]
        and text["hidden_act"] == "silu"
        and rope["rope_type"] == "default"
        and rope.keys() <= _PLAIN_ROPE
        and text["num_attention_heads"] % text["num_key_value_heads"] == 0
    )


def load(
    directory: Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> tuple[StandaloneModel, PromptEncoder]:
    """The model of a checkpoint that `can_open`, in eval mode, and its prompt encoder. Raises ModelError."""
    settings = published.read_settings(directory)
    config = Config(
        encoder=EncoderConfig(**settings["audio_encoder_config"]),
        text_config=TextConfig.of(settings["text_config"]),
        template=PromptTemplate(**settings["prompt"]),
        **{name: settings[name] for name in _AS_THEY_ARE},
    )
    try:
        with torch.device("meta"):
            model = StandaloneModel(config)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ModelError(f"the configuration does not describe a model ({error}); check config.json") from error
    (weights,) = files.weight_files(directory)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    files.check_tensors(expected, files.stored_tensors([weights]), directory)
    prompts = PromptEncoder.of_checkpoint(config, directory)
    try:
        stored = files.bare_names(load_file(weights, device=str(device)))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{weights} does not load ({error}); download or export it again") from error
    state = {
        name: tensor.to(dtype if tensor.is_floating_point() else None)
        for name, tensor in stored.items()
        if name in expected
    }
    # The batch counter of the frozen input norm may be missing; no embedding depends on it.
    for name in expected.keys() - state.keys():
        state[name] = torch.zeros(expected[name], dtype=torch.int64, device=device)
    model.load_state_dict(state, assign=True)
    model.audio_token_id = prompts.audio_id
    return aligned(model).eval().requires_grad_(False), prompts


_AS_THEY_ARE = (
    "subsample_factor",
    "projection_dim",
    "query_instruction",
    "document_instruction",
    "max_audio_seconds",
)


def _rotated(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Each pair (i, i + half) of the head dimension turned by its angle."""
    one, two = x.chunk(2, dim=-1)
    return x * turn[0] + torch.cat([-two, one], dim=-1) * turn[1]
