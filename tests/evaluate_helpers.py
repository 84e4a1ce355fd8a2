"""An embedder that counts, sounds it can tell apart, and tables of triplets, for the tests of the evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import toy

from audiosearch.types import Samples, Vectors

# HandEmbedder hears which band a tone is in and reads which bands a text names.
HUM, BEEP, HISS = 100.0, 1_500.0, 7_500.0  # Hz


class CountingEmbedder(toy.HandEmbedder):
    """Counts every item it embeds; `stop_after` makes it fail once that many are done, as a power cut would."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.items, self.stop_after = 0, stop_after

    def _count(self, rows: Vectors) -> Vectors:
        self.items += len(rows)
        if self.stop_after is not None and self.items > self.stop_after:
            raise KeyboardInterrupt
        return rows

    def embed_audio(self, clips: Iterable[Samples], **how: Any) -> Vectors:
        return self._count(super().embed_audio(clips, **how))

    def embed_text(self, texts: Iterable[str], **how: Any) -> Vectors:
        return self._count(super().embed_text(texts, **how))

    def embed_audio_text(self, pairs: Iterable[tuple[Samples, str]], **how: Any) -> Vectors:
        pairs = list(pairs)
        before = self.items
        rows = super().embed_audio_text(pairs, **how)
        self.items = before
        return self._count(rows)


def write_sounds(folder: Path) -> Path:
    """hum.wav, beep.wav and hiss.wav."""
    folder.mkdir()
    for name, frequency in (("hum", HUM), ("beep", BEEP), ("hiss", HISS)):
        toy.write_wav(folder / f"{name}.wav", toy.tone(frequency, 1.0))
    return folder


def write_scenes(folder: Path) -> Path:
    """`both` is a hum under a loud beep; the instruction says which of the two counts."""
    folder.mkdir()
    hum, beep = toy.tone(HUM, 1.0), toy.tone(BEEP, 1.0)
    toy.write_wav(folder / "both.wav", 0.5 * hum + beep * 0.9)
    toy.write_wav(folder / "hum.wav", hum)
    toy.write_wav(folder / "beep.wav", beep)
    return folder


def write_lines(path: Path, *rows: Any) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def triplet(target: Any, negative: Any, instruction: str, **more: Any) -> dict[str, Any]:
    """A line of a file of triplets that asks about both.wav."""
    return {"query": "both.wav", "target": target, "hard_negative": negative, "instruction": instruction, **more}
