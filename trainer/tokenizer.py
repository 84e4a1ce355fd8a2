"""The small model's tokenizer: byte-level BPE over lower-cased text, trained on the corpus of sound descriptions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from audiosearch.model.prompt import SPECIAL_TOKENS


def train_tokenizer(texts: Iterable[str], path: Path, *, vocab_size: int = 8_192) -> int:
    """Train on `texts` and write `tokenizer.json` to `path`; the size of the vocabulary comes back.

    A word at the start of a turn is made equal to the same word inside a sentence: a line break becomes a line break
    and a space, so that "dog" never exists in two spellings and a small vocabulary holds twice the words.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\n"), "\n ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["system\nuser\n", *texts], trainer)
    tokenizer.save(str(path))
    return tokenizer.get_vocab_size()
