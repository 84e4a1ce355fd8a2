"""A model small enough to compute by hand, and sounds to go with it: no torch, no downloads.

`HandEmbedder` describes a clip by the share of its energy in BANDS geometric frequency bands, and a text by the bands
its words name, so that "a low hum" meets a 80 Hz tone and a test can say beforehand which hit comes first.
"""

from __future__ import annotations

import hashlib
import wave
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from audiosearch.types import ModelDescription, Samples, Task, Vectors

SAMPLE_RATE = 16000
BANDS = 16
EDGES = np.geomspace(40.0, SAMPLE_RATE / 2, BANDS + 1)  # Hz
WORDS: dict[str, range] = {
    "rumble": range(0, 2),
    "low": range(0, 6),
    "bass": range(1, 5),
    "hum": range(1, 4),
    "middle": range(6, 11),
    "voice": range(5, 11),
    "beep": range(9, 12),
    "high": range(11, 16),
    "whistle": range(11, 15),
    "hiss": range(14, 16),
    "noise": range(0, 16),
}
MODEL_FINGERPRINT = "hand-" + hashlib.blake2b(repr(WORDS).encode(), digest_size=8).hexdigest()


def description(name: str = "hand", **changes: object) -> ModelDescription:
    """What the library is told about the hand-computed model."""
    fields: dict[str, object] = {
        "name": name,
        "directory": "",
        "fingerprint": MODEL_FINGERPRINT,
        "dim": BANDS,
        "sample_rate": SAMPLE_RATE,
        "max_seconds": 30.0,
        "document_instruction": "Describe the sound.",
        "licence": "Apache-2.0",
    }
    return ModelDescription(**{**fields, **changes})  # type: ignore[arg-type]


def band_of(frequency: float) -> int:
    """The band a frequency in Hz falls into."""
    return int(np.clip(np.searchsorted(EDGES, frequency, side="right") - 1, 0, BANDS - 1))


class HandEmbedder:
    """An `AudioTextEmbedder` of band energies. An instruction that names bands makes those four times as heavy.

    Counts its calls: `clips_embedded`, and `batches` (clips in each call of embed_audio).
    """

    dim = BANDS
    sample_rate = SAMPLE_RATE
    max_seconds = 30.0
    fingerprint = MODEL_FINGERPRINT
    licence = "Apache-2.0"
    placement = "cpu, fp32: computed by hand"

    def __init__(self) -> None:
        self.batches: list[int] = []

    @property
    def clips_embedded(self) -> int:
        return sum(self.batches)

    def embed_audio(
        self, clips: Iterable[Samples], *, instruction: str | None = None, task: Task = "document"
    ) -> Vectors:
        rows = [_band_energies(clip) * _emphasis(instruction) for clip in clips]
        self.batches.append(len(rows))
        return _unit(rows)

    def embed_text(self, texts: Iterable[str], *, instruction: str | None = None, task: Task = "document") -> Vectors:
        return _unit([_bands_named(text) for text in texts])

    def embed_audio_text(
        self, pairs: Iterable[tuple[Samples, str]], *, instruction: str | None = None, task: Task = "query"
    ) -> Vectors:
        pairs = list(pairs)
        audio = self.embed_audio([clip for clip, _ in pairs], instruction=instruction, task=task)
        return _unit(list(audio + self.embed_text([text for _, text in pairs])))


def _band_energies(clip: Samples) -> np.ndarray:
    power = np.abs(np.fft.rfft(clip.astype(np.float64))) ** 2
    frequencies = np.fft.rfftfreq(len(clip), 1.0 / SAMPLE_RATE)
    bands = np.clip(np.searchsorted(EDGES, frequencies, side="right") - 1, 0, BANDS - 1)
    return np.sqrt(np.bincount(bands, weights=power, minlength=BANDS))


def _bands_named(text: str) -> np.ndarray:
    row = np.zeros(BANDS)
    for word in text.lower().split():
        row[list(WORDS.get(word.strip(".,;:!?"), ()))] += 1.0
    return row


def _emphasis(instruction: str | None) -> np.ndarray:
    return 1.0 + 3.0 * (_bands_named(instruction or "") > 0)


def _unit(rows: list[np.ndarray]) -> Vectors:
    matrix = np.asarray(rows, dtype=np.float64).reshape(-1, BANDS)
    matrix = np.where(matrix.any(axis=1, keepdims=True), matrix, 1.0)  # nothing heard or named: no band stands out
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def tone(frequency: float, seconds: float, *, rate: int = SAMPLE_RATE, level: float = 0.5) -> Samples:
    """A sine at `frequency` Hz."""
    return (level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def noise(seed: int, seconds: float, *, rate: int = SAMPLE_RATE, level: float = 0.3) -> Samples:
    """White noise, the same for a seed every time."""
    return (level * np.random.default_rng(seed).uniform(-1, 1, round(seconds * rate))).astype(np.float32)


def write_wav(path: str | bytes | Path, samples: Samples, *, rate: int = SAMPLE_RATE) -> None:
    """Samples [n] or [n, channels] in [-1, 1] as a 16-bit WAV file; `path` may be bytes of any encoding."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with open(path, "wb") as file, wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
