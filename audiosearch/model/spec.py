"""What describes a model without needing one: encoder dimensions, prompt template, default instructions.

Plain data that imports nothing heavy, because a library must know its model's fingerprint without loading torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Both from the ALM2Vec README; the second is also Qwen3-VL-Embedding's default.
QUERY_INSTRUCTION = (
    "Based on the question asked in the text query and context in the audio query, "
    "retrieve the relevant text document associated with that question."
)
DOCUMENT_INSTRUCTION = "Represent the user's input."


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The Dasheng encoder. Defaults are MiDashengLM-7B's (Dasheng-0.6B)."""

    embed_dim: int = 1280
    depth: int = 32
    num_heads: int = 16
    mlp_ratio: float = 4.0
    target_length: int = 1008  # mel frames in one encoder chunk: 10.08 s
    stem: Literal["patch", "conv"] = "patch"  # `patch`: the published (64, 4) patch embedding
    stem_channels: tuple[int, ...] = ()  # `conv` only: four layers, mel / 16, time / 4
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        object.__setattr__(self, "stem_channels", tuple(self.stem_channels))


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """How instruction, text and audio become tokens: data, never code. See `audiosearch.model.prompt`."""

    system_turn: bool = True  # the instruction is the system turn; without one it opens the user's text
    audio_first: bool = True  # inside the user turn
    assistant_header: bool = False
    newline_after_end: bool = False  # between the user turn's <|im_end|> and what follows
    eos: tuple[str, ...] = ("<|endoftext|>",)  # appended last; the embedding is the state at the final one
    empty_text: str = "NULL"
    user_instruction_as: Literal["text", "system"] = "text"

    def __post_init__(self) -> None:
        object.__setattr__(self, "eos", tuple(self.eos))
