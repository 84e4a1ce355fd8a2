"""The prompt template: an item's instruction, text and audio to token ids.

A rendered item is ChatML, newlines included:

    <|im_start|>system NL {instruction}<|im_end|> NL
    <|im_start|>user NL {audio and text parts}<|im_end|> [NL] [<|im_start|>assistant NL] {eos}

and an audio part is `<|audio_bos|><|AUDIO|>...<|audio_eos|>` with `<|AUDIO|>` once for each audio token. Everything up
to the user turn's `<|im_start|>` is the prefix that a batch under one instruction shares; it ends on a special token,
so that its ids do not depend on what follows.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from audiosearch.errors import ModelError
from audiosearch.model.files import TOKENIZER
from audiosearch.model.spec import PromptTemplate
from audiosearch.types import Task

IM_START, IM_END, END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
AUDIO, AUDIO_BOS, AUDIO_EOS = "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"
SPECIAL_TOKENS = (END_OF_TEXT, IM_START, IM_END, AUDIO, AUDIO_BOS, AUDIO_EOS)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids of one item; the first `prefix_length` are the shared instruction prefix."""

    ids: tuple[int, ...]
    prefix_length: int


class ModelWords(Protocol):
    """What of a model's configuration is asked for beside its prompts: `Alm2VecConfig`, or `standalone.Config`."""

    @property
    def template(self) -> PromptTemplate: ...
    @property
    def query_instruction(self) -> str: ...
    @property
    def document_instruction(self) -> str: ...
    @property
    def text_config(self) -> Any: ...
    @property
    def subsample_factor(self) -> int: ...
    @property
    def embedding_dim(self) -> int: ...


class PromptEncoder:
    """Renders and tokenises items for one model."""

    def __init__(self, config: ModelWords, tokenizer_file: str | Path) -> None:
        from tokenizers import Tokenizer

        try:
            self.tokenizer: Any = Tokenizer.from_file(str(tokenizer_file))
        except Exception as error:  # tokenizers raises bare Exception
            raise ModelError(f"{tokenizer_file}: not a readable tokenizer ({error})") from error
        ids = {token: self.tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
        missing = [token for token, index in ids.items() if index is None]
        if missing:
            raise ModelError(f"{tokenizer_file}: the tokenizer lacks {', '.join(missing)}; it belongs to another model")
        self.config = config
        self.template = config.template
        known = {token: index for token, index in ids.items() if index is not None}
        self.audio_id, self.pad_id = known[AUDIO], known[END_OF_TEXT]
        self._last_prefix: tuple[str, list[int]] = ("", [])

    @classmethod
    def of_checkpoint(cls, config: ModelWords, directory: Path) -> PromptEncoder:
        """With the tokenizer in a checkpoint directory. Raises ModelError if there is none, or another model's."""
        path = directory / TOKENIZER
        if not path.is_file():
            raise ModelError(f"{directory} has no {TOKENIZER}; copy the one that belongs to the model there")
        prompts = cls(config, path)
        highest, rows = max(prompts.tokenizer.get_vocab().values()), config.text_config.vocab_size
        if highest >= rows:
            raise ModelError(f"{path} has token {highest} and the model only {rows} rows; it belongs to another model")
        return prompts

    def encode(
        self, *, text: str | None, audio_tokens: int, instruction: str | None = None, task: Task = "document"
    ) -> Prompt:
        """Token ids of one item.

        Args:
            text: the item's text, or None.
            audio_tokens: length of its audio in tokens, 0 for none.
            instruction: the user's own instruction, or None for the model's default of `task`.
            task: which default instruction the item carries.
        """
        system = self.config.query_instruction if task == "query" else self.config.document_instruction
        if instruction is not None:
            # An item with sound asks the user's instruction as a question beside it, as the paper trained it; a text
            # alone has nothing to be asked about, so there it is the system turn.
            if audio_tokens and self.template.user_instruction_as == "text":
                system = self.config.query_instruction
                text = f"{instruction} {text}" if text else instruction
            else:
                system = instruction
        if not self.template.system_turn:
            text = f"{_sentence(system)} {text or ''}".rstrip()
        if text is None and not audio_tokens:
            text = self.template.empty_text
        prefix = self._prefix(system)
        return Prompt(ids=(*prefix, *self._body(text, audio_tokens)), prefix_length=len(prefix))

    def _prefix(self, system: str) -> list[int]:
        rendered = IM_START
        if self.template.system_turn:
            rendered = f"{IM_START}system\n{_plain(_sentence(system))}{IM_END}\n{IM_START}"
        # Most items come under the instruction of the one before.
        last, ids = self._last_prefix
        if rendered != last:
            ids = self._ids(rendered)
            self._last_prefix = rendered, ids
        return ids

    def _body(self, text: str | None, audio_tokens: int) -> list[int]:
        audio = AUDIO_BOS + AUDIO * audio_tokens + AUDIO_EOS if audio_tokens else ""
        words = _plain(text) if text else ""
        parts = audio + words if self.template.audio_first else words + audio
        tail = IM_END
        if self.template.newline_after_end:
            tail += "\n"
        if self.template.assistant_header:
            tail += f"{IM_START}assistant\n"
        tail += "".join(self.template.eos)
        return self._ids(f"user\n{parts}{tail}")

    def _ids(self, rendered: str) -> list[int]:
        return self.tokenizer.encode(rendered, add_special_tokens=False).ids


def _sentence(instruction: str) -> str:
    """Qwen3-VL-Embedding ends an instruction without punctuation with a full stop."""
    instruction = instruction.strip()
    closed = not instruction or unicodedata.category(instruction[-1]).startswith("P")
    return instruction if closed else f"{instruction}."


def _plain(text: str) -> str:
    """A user's text cannot forge a special token."""
    return text.replace("<|", "< |")
