"""Features packed once: every clip's log-mel as uint8 in one memory-mapped file, with renditions and generated clips.

    takes   clips of the manifest | generated clips | renditions of clip 0, of clip 1, ...
            0 ............................ len(pack)

A mel in dB lies between the floor of -100 dB and about +60; 8 bits give steps of 0.63 dB, far below
the changes of level that training applies anyway. The decoder and the front end are those of ingest.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiosearch.trainer.manifest import ManifestRow
from audiosearch.trainer.render import DB_HIGH, DB_LOW, STEP_DB, Clip, Plan, Shard, quantise, render
from audiosearch.trainer.synthesis.renditions import Facts
from audiosearch.trainer.synthesis.sketch import Traits

__all__ = ["DB_HIGH", "DB_LOW", "FeaturePack", "Sound", "build_pack", "quantise"]
_BLOCK = 1 << 16  # frames counted at a time


@dataclass(frozen=True)
class Sound:
    """What is known of a generated clip beyond its row. `whole_phrases` are true of it only when it is heard whole and
    once: a crop or a loop has another count. The row's `text` and `alternatives` are true of every part."""

    traits: Traits
    whole_phrases: tuple[str, ...]


@dataclass(frozen=True)
class FeaturePack:
    """`mel` (total frames, 64) uint8; take i is rows `offsets[i]:offsets[i + 1]`. `rows` are the clips that could be
    read, then the generated ones; `dropped` says which could not be read, and why. Takes from `len(pack)` on are
    renditions, `renditions` of each clip of the manifest."""

    mel: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    rows: tuple[ManifestRow, ...]
    dropped: tuple[str, ...]
    renditions: int = 0
    sounds: tuple[Sound, ...] = ()  # of the generated clips
    rendered: tuple[Facts, ...] = ()  # of the generated clips, then of the renditions

    def __len__(self) -> int:
        """Clips: the manifest's and the generated ones, renditions not counted."""
        return len(self.rows)

    @property
    def n_recorded(self) -> int:
        """Clips of the manifest; those from here to `len(pack)` are generated."""
        return len(self.rows) - len(self.sounds)

    def variants(self, index: int) -> tuple[int, ...]:
        """The takes of a clip: itself, then its renditions. A generated clip has one."""
        first = len(self.rows) + index * self.renditions
        return (index, *range(first, first + self.renditions)) if index < self.n_recorded else (index,)

    def variant(self, index: int, rng: np.random.Generator) -> int:
        """One take of a clip, each as likely. Nothing is drawn where there is but one."""
        takes = self.variants(index)
        return takes[int(rng.integers(len(takes)))] if len(takes) > 1 else index

    def facts(self, take: int) -> Facts:
        """What its rendering did to a take; nothing, for a clip as it was recorded."""
        return self.rendered[take - self.n_recorded] if take >= self.n_recorded else Facts()

    def sound(self, index: int) -> Sound | None:
        """What is known of a generated clip; None for a recorded one."""
        return self.sounds[index - self.n_recorded] if self.n_recorded <= index < len(self.rows) else None

    def frames(self, take: int) -> int:
        return int(self.offsets[take + 1] - self.offsets[take])

    def decibels(self, take: int, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Mel frames [start, stop) of a take in dB, shape (frames, 64)."""
        first, last = int(self.offsets[take]), int(self.offsets[take + 1])
        window = self.mel[first + start : last if stop is None else min(last, first + stop)]
        return window.astype(np.float32) * np.float32(STEP_DB) + np.float32(DB_LOW)

    def mean_and_variance(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Per mel bin, over all frames of all takes, in dB."""
        return self._mean_and_variance

    @cached_property
    def _mean_and_variance(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        bins = self.mel.shape[1]
        counts = np.zeros(bins * 256, dtype=np.int64)
        for first in range(0, len(self.mel), _BLOCK):
            cells = self.mel[first : first + _BLOCK].astype(np.int32) + np.arange(bins, dtype=np.int32) * 256
            counts += np.bincount(cells.ravel(), minlength=bins * 256)
        values = np.arange(256) * STEP_DB + DB_LOW
        share = counts.reshape(bins, 256) / len(self.mel)
        mean = share @ values
        return mean.astype(np.float32), ((share @ values**2) - mean**2).astype(np.float32)


def build_pack(
    rows: Sequence[ManifestRow],
    root: Path,
    directory: Path,
    *,
    max_seconds: float = 10.0,
    renditions: int = 0,
    generated: int = 0,
    generated_weight: float = 1.0,
    seed: int = 0,
    workers: int | None = None,
) -> FeaturePack:
    """Open the pack of these rows in `directory`, making it first where it is missing.

    A clip longer than `max_seconds` is packed up to there. An unreadable clip is left out and listed in `dropped`.
    Making it may be killed at any time; the next call goes on. What comes out depends neither on that nor on `workers`.

    Args:
        renditions: how many of each clip are made beside it (`synthesis.renditions`).
        generated: clips of the bank of `synthesis.generators` that are put behind those of `rows`.
        generated_weight: the `weight` of their rows.
        seed: of both.
        workers: processes; None: one a processor where that pays, up to 8.

    Raises:
        UsageError: a worker process was ended from outside.
    """
    clips = tuple(Clip(row.audio, row.start_seconds, row.end_seconds, row.group) for row in rows)
    plan = Plan(clips, os.fspath(root), max_seconds, renditions, generated, seed)
    mel_file, index_file = directory / f"mel-{plan.key}.u8", directory / f"mel-{plan.key}.json"
    if not index_file.exists():
        shards = directory / f"mel-{plan.key}.shards"
        render(plan, shards, workers)
        _assemble(plan, shards, mel_file, index_file)
        shutil.rmtree(shards)
    index = json.loads(index_file.read_text(encoding="utf-8"))
    # An empty file cannot be mapped.
    mel = np.memmap(mel_file, dtype=np.uint8, mode="r") if index["offsets"][-1] else np.empty(0, np.uint8)
    sounds = index.get("sounds", [])
    return FeaturePack(
        mel=mel.reshape(-1, 64),
        offsets=np.asarray(index["offsets"], dtype=np.int64),
        rows=(*(rows[i] for i in index["kept"]), *(_row(sound, generated_weight) for sound in sounds)),
        dropped=tuple(index["dropped"]),
        renditions=renditions,
        sounds=tuple(Sound(Traits(**sound["traits"]), tuple(sound["whole_phrases"])) for sound in sounds),
        rendered=tuple(Facts(**facts) for facts in index.get("rendered", [])),
    )


def _row(sound: dict[str, Any], weight: float) -> ManifestRow:
    text, *more = sound["phrases"]
    kind = {name: sound[name] for name in ("label", "sound_class", "group")}
    return ManifestRow("", text, alternatives=tuple(more), weight=weight, source="generated", licence="CC0-1.0", **kind)


def _assemble(plan: Plan, shards: Path, mel_file: Path, index_file: Path) -> None:
    """String the shards together, clips and generated ones first, then the renditions; the index is written last."""
    index: dict[str, list[Any]] = {"kept": [], "dropped": [], "sounds": [], "rendered": []}
    lengths: dict[str, list[NDArray[np.int64]]] = {"own": [], "more": []}
    renditions: list[Any] = []
    partial = mel_file.with_suffix(".part")
    with partial.open("wb") as out:
        for part in ("own", "more"):
            for shard, content in _read(plan, shards):
                out.write(content[part].tobytes())
                lengths[part].append(content[f"{part}_frames"])
                if part == "more":
                    continue
                for number, about in enumerate(json.loads(content["about"].tobytes()), shard.first):
                    if "sound" in about:
                        index["sounds"].append(about["sound"])
                        index["rendered"] += about["facts"]
                    elif "dropped" in about:
                        index["dropped"].append(about["dropped"])
                    else:
                        index["kept"].append(number)
                        renditions += about["facts"]
    index["rendered"] += renditions
    own = np.concatenate([np.zeros(0, np.int64), *lengths["own"]])
    frames = np.concatenate([own[own > 0], *lengths["more"]])  # a dropped clip has no frames
    partial.replace(mel_file)
    offsets = [0, *np.cumsum(frames).tolist()]
    aside = index_file.with_suffix(".part.json")
    aside.write_text(json.dumps({"offsets": offsets, **index}), encoding="utf-8")
    aside.replace(index_file)


def _read(plan: Plan, shards: Path) -> Iterator[tuple[Shard, Any]]:
    for shard in plan.shards():
        with np.load(shards / shard.name) as content:
            yield shard, content
