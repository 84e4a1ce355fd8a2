"""How much a score is worth: compared with the best scores of queries for things that are most likely not there.

    impostor queries ──search this library──> their best scores ──> how often is one as high as this hit's?

A score alone says little: it depends on the model, on the kind of query (text lies farther from sound than sound from
sound), and on how much there is to find by accident. So a *bank* of impostor queries is asked of the very library once
(in speaker verification: cohort normalisation; Auckenthaler et al., 2000). What share of them finds something that
scores as high is the **false-alarm rate** of a hit, and its **confidence** is 1 minus that.

- **The bank.** `impostors.txt`: rare sounds, things without a sound, nonsense; written for this, and kept apart from
  what `benchmarks/absent.py` judges by. For examples: the library's own sounds, without their recordings and the best
  other one. For sums: sums of such in the same proportions.
- **The level of a query.** Some queries are near to everything. How much of its mean score over the library a query's
  best score owes is measured on the bank (`slope`), and taken off. Dividing by the spread of the scores too, as
  z-norm does, was worse where this was tuned: what is there makes the spread.
- **The tail.** Beyond the last tenth of the bank an exponential one (peaks over a threshold; Coles, 2001, 4), so that
  good scores differ in confidence. An impostor that stands out from the others by far has found what it asked for, and
  is left out. Others may have: then confidence is too low rather than too high.

A background is a cache, `indexes/<space>/background.npz`: built when it is missing, damaged, of another bank, or of a
library half or twice as large. It holds the bank's vectors, so the model is called once for a space.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from audiosearch.types import Vectors

if TYPE_CHECKING:
    from audiosearch.index_cache import LiveIndex
    from audiosearch.store.store import Store

FILE = "background.npz"
FORMAT = 1
TEXT, AUDIO = "text", "audio"
Kind = tuple[tuple[float, str], ...]  # the terms of a query: (weight, TEXT or AUDIO) each
TEXT_QUERY: Kind = ((1.0, TEXT),)
AUDIO_QUERY: Kind = ((1.0, AUDIO),)
# One input of sound and words. Impostors of that kind would need the sounds again, so sums of the two stand for them.
JOINT_QUERY: Kind = ((1.0, TEXT), (1.0, AUDIO))

SAMPLE = 4_096  # of the library's vectors: for the mean
SOUNDS = 256  # of them: impostors of the kind AUDIO
DEPTH = 32  # hits of an impostor sound that are looked at for one of another recording
DRAWS = 256  # impostors of a kind that is a sum
QUICK = 50_000  # vectors, among which impostors of one more kind are looked for at once
STALE = 2.0  # times as many vectors, or as few
TAIL_SHARE = 0.1
OUTLIER = 3.5  # standard deviations of the lower half
_LEAST_SCALE = 1e-4
_SAME = 0.9999  # cosine of two sounds that are one
_SEED = 20_261_123

Search = Callable[[Vectors, int], "tuple[NDArray[np.float32], NDArray[np.int64]]"]  # (queries [q, dim], k), see indexes
Recordings = Callable[[NDArray[np.int64]], NDArray[np.int64]]  # of vector ids [n]: recordings [n], -1 where unknown


@dataclass(frozen=True, slots=True)
class Null:
    """The best scores of impostors of one kind, ascending, less `slope` times their mean scores."""

    slope: float
    tops: NDArray[np.float64]

    def false_alarm_rate(self, adjusted: NDArray[np.float64]) -> NDArray[np.float64]:
        """The share of impostors that reach each of `adjusted` [n]: strictly falling beyond the bank."""
        count = len(self.tops)
        if not count:
            return np.ones(len(adjusted))
        # At the i-th of n the rate is (n - i) / (n + 1), i from 0: never 0, and straight lines in between.
        rates = (count - np.arange(count)) / (count + 1)
        found = np.interp(adjusted, self.tops, rates, left=1.0)
        tail = max(1, round(TAIL_SHARE * count))
        start = self.tops[-tail]
        scale = max(float(np.mean(self.tops[-tail:] - start)), _LEAST_SCALE)
        beyond = adjusted > start
        found[beyond] = rates[-tail] * np.exp(-(adjusted[beyond] - start) / scale)
        return found

    def percentile(self, adjusted: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of each of `adjusted` [n] the percentage of impostors that stay below it."""
        below = np.searchsorted(self.tops, adjusted, side="left")
        return 100.0 * below / max(len(self.tops), 1)


@dataclass(frozen=True, slots=True)
class Judged:
    """Of each score [n]: what `percentile` of impostors stays below it, and how often (`false_alarm_rate`) a query for
    something that is not there would score as high; `confidence` is 1 minus that."""

    percentile: NDArray[np.float64]
    false_alarm_rate: NDArray[np.float64]

    @property
    def confidence(self) -> NDArray[np.float64]:
        """In [0, 1], rising with the score."""
        return 1.0 - self.false_alarm_rate


@dataclass(frozen=True, slots=True)
class Background:
    """What impostors find in one space. `texts` [t, dim] and `sounds` [s, dim] are their vectors, `sound_recordings`
    [s] the sounds' recordings, `mean` [dim] that of the library's vectors, of which there were `count`."""

    space: str  # fingerprint
    bank: str  # what the texts were, hashed
    count: int
    mean: NDArray[np.float32]
    texts: Vectors
    sounds: Vectors
    sound_recordings: NDArray[np.int64]
    nulls: dict[Kind, Null] = field(default_factory=dict)

    def judge(self, query: NDArray[np.float32], scores: Sequence[float], kind: Kind = TEXT_QUERY) -> Judged:
        """What `scores` [n] of hits of a unit vector [dim] are worth. Raises KeyError for a kind not `knowing`."""
        null = self.nulls[kind]
        adjusted = np.asarray(scores, np.float64) - null.slope * float(self.mean @ query)
        return Judged(null.percentile(adjusted), null.false_alarm_rate(adjusted))

    def knowing(self, kind: Kind, search: Search, recordings_of: Recordings) -> Background:
        """The same, with what impostors of this kind find; itself if it knows that."""
        if kind in self.nulls:
            return self
        queries, own = self.impostors(kind)
        null = fit_null(best_of_others(queries, own, search, recordings_of), queries @ self.mean)
        return replace(self, nulls={**self.nulls, kind: null})

    def over(self, rows: Vectors) -> Background:
        """The background of text queries among `rows` [n, dim] only: candidates that were embedded under an
        instruction, of which the library has no others."""
        mean = rows.mean(axis=0)
        null = fit_null((self.texts @ rows.T).max(axis=1), self.texts @ mean)
        return replace(self, count=len(rows), mean=mean, nulls={TEXT_QUERY: null})

    def impostors(self, kind: Kind) -> tuple[Vectors, NDArray[np.int64]]:
        """Unit rows [q, dim] like queries of a kind, and the recordings [q, n] that their sounds are from, else -1."""
        if kind == TEXT_QUERY:
            return self.texts, np.full((len(self.texts), 1), -1, np.int64)
        if kind == AUDIO_QUERY:
            return self.sounds, self.sound_recordings[:, None]
        rng = np.random.default_rng(_SEED)
        total = np.zeros((DRAWS, len(self.mean)), np.float64)
        own = np.full((DRAWS, len(kind)), -1, np.int64)
        for column, (weight, what) in enumerate(kind):
            rows = self.texts if what == TEXT else self.sounds
            if not len(rows):
                return np.empty((0, len(self.mean)), np.float32), own[:0]
            drawn = rng.integers(len(rows), size=DRAWS)
            total += weight * rows[drawn]
            if what == AUDIO:
                own[:, column] = self.sound_recordings[drawn]
        lengths = np.linalg.norm(total, axis=1)
        kept = lengths > 1e-3
        return (total[kept] / lengths[kept, None]).astype(np.float32), own[kept]

    def is_stale(self, count: int) -> bool:
        """Whether it is of a library half or twice as large, or of another bank."""
        return self.bank != bank_mark() or not self.count / STALE < max(count, 1) < self.count * STALE

    def save(self, folder: Path) -> bool:
        """Write it into a space's folder of indexes, whole or not at all; says whether that was possible."""
        about = {"format": FORMAT, "space": self.space, "bank": self.bank, "count": self.count}
        kinds = list(self.nulls)
        about["nulls"] = [{"kind": kind, "slope": self.nulls[kind].slope} for kind in kinds]
        arrays = {f"tops_{i}": self.nulls[kind].tops for i, kind in enumerate(kinds)}
        aside = folder / f".{FILE}.{os.getpid()}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                np.savez(
                    file,
                    about=np.array(json.dumps(about)),
                    mean=self.mean,
                    texts=self.texts,
                    sounds=self.sounds,
                    sound_recordings=self.sound_recordings,
                    **arrays,  # type: ignore[arg-type]
                )
            aside.replace(folder / FILE)
        except OSError:
            with suppress(OSError):
                aside.unlink()
            return False
        return True


def mark(folder: Path) -> object:
    """Changes when another background is saved there; None if there is none."""
    try:
        about = (folder / FILE).stat()
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns


def load(folder: Path, space: str) -> Background | None:
    """The background that was saved in a space's folder, or None if there is none that can be used."""
    try:
        with np.load(folder / FILE, allow_pickle=False) as saved:
            about = json.loads(str(saved["about"]))
            if about["format"] != FORMAT or about["space"] != space:
                return None
            nulls = {
                tuple((float(weight), str(what)) for weight, what in each["kind"]): Null(
                    float(each["slope"]), saved[f"tops_{i}"]
                )
                for i, each in enumerate(about["nulls"])
            }
            found = Background(
                space=space,
                bank=about["bank"],
                count=about["count"],
                mean=saved["mean"],
                texts=saved["texts"],
                sounds=saved["sounds"],
                sound_recordings=saved["sound_recordings"],
                nulls=nulls,
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    whole = found.mean.ndim == 1 and found.texts.shape[1:] == found.sounds.shape[1:] == found.mean.shape
    return found if whole and np.isfinite(found.mean).all() else None


def build(
    space: str,
    count: int,
    sample: Vectors,
    sounds: Vectors,
    sound_recordings: NDArray[np.int64],
    *,
    embed_text: Callable[[list[str]], Vectors],
    search: Search,
    recordings_of: Recordings,
    earlier: Background | None = None,
) -> Background:
    """The background of a space of `count` vectors, for queries by text and by a sound; others are added by `knowing`.

    `sample` [n, dim] are some of the library's vectors, `sounds` [s, dim] fewer, with their recordings. An `earlier`
    background of the same space and bank saves the calls of the model. The same in gives the same out.
    """
    known = earlier is not None and earlier.space == space and earlier.bank == bank_mark()
    texts = earlier.texts if known and earlier is not None else np.asarray(embed_text(list(bank())), np.float32)
    mean = sample.mean(axis=0) if len(sample) else np.zeros(texts.shape[1], np.float32)
    background = Background(space, bank_mark(), count, mean, texts, sounds, sound_recordings)
    for kind in (TEXT_QUERY, AUDIO_QUERY):
        background = background.knowing(kind, search, recordings_of)
    return background


def of_space(
    store: Store, index: LiveIndex, folder: Path, embed_text: Callable[[list[str]], Vectors], *, save: bool
) -> Background:
    """The background of an index's space: the one in its `folder` of indexes, or built now and, with `save`, written
    there. The caller holds a snapshot that the index was refreshed to."""
    space = index.space
    found = load(folder, space.spec.fingerprint)
    if found is not None and not found.is_stale(len(index)):
        return found
    changes = store.changes_since(space.id, 0)
    some = spread(len(changes.added_ids), SAMPLE)
    sample = store.vectors_at(space.id, changes.shards[some], changes.rows[some])
    few = spread(len(some), SOUNDS)
    recordings = recordings_in(store)
    built = build(
        space.spec.fingerprint,
        len(index),
        sample,
        sample[few],
        recordings(changes.added_ids[some][few]),
        embed_text=embed_text,
        search=index.search,
        recordings_of=recordings,
        earlier=found,
    )
    if save:
        built.save(folder)
    return built


def recordings_in(store: Store) -> Recordings:
    """Tells the recordings of vector ids from the catalogue."""

    def recordings_of(ids: NDArray[np.int64]) -> NDArray[np.int64]:
        known = {each.vector_id: each.recording_id for each in store.resolve(np.unique(ids[ids >= 0]))}
        return np.array([known.get(int(each), -1) for each in ids], np.int64)

    return recordings_of


def best_of_others(
    queries: Vectors, own: NDArray[np.int64], search: Search, recordings_of: Recordings
) -> NDArray[np.float64]:
    """What each of queries [q, dim] finds at best; minus infinity if there is nothing.

    For one with sounds of the library, `own` [q, n] are their recordings (-1: none). These do not count, nor does the
    best other recording: of most sounds that somebody keeps there is another of the kind, which is what they ask for.
    """
    if not len(queries):
        return np.empty(0)
    queries = np.ascontiguousarray(queries, np.float32)
    if not (own >= 0).any():
        return search(queries, 1)[0][:, 0].astype(np.float64)
    scores, ids = search(queries, DEPTH)
    recordings = recordings_of(ids.ravel()).reshape(ids.shape)
    usable = (recordings >= 0) & (scores < _SAME)
    for column in own.T:
        usable &= recordings != column[:, None]
    best = recordings[np.arange(len(queries)), usable.argmax(axis=1)]
    others = usable & (recordings != best[:, None])
    counted = np.where(others.any(axis=1, keepdims=True), others, usable)  # only one other recording: that one
    found = np.where(counted, scores, -np.inf).max(axis=1)
    # Where own and best fill the whole depth, the next one scores at most as high as the last of them.
    cut_off = ~others.any(axis=1) & (ids[:, -1] >= 0)
    return np.where(cut_off, scores[:, -1], found).astype(np.float64)


def fit_null(tops: NDArray[np.float64], means: NDArray[np.float32]) -> Null:
    """The null of impostors with these best scores [q] and mean scores [q] over the library."""
    found = np.isfinite(tops)
    top, mean = tops[found].astype(np.float64), means[found].astype(np.float64)
    if not len(top):
        return Null(0.0, np.empty(0))
    spread_of_means = float(np.var(mean))
    slope = float(np.mean((mean - mean.mean()) * (top - top.mean()))) / max(spread_of_means, 1e-9)
    slope = min(max(slope, 0.0), 1.0)  # 0: raw scores are comparable already; 1: only the distance to the mean counts
    adjusted = np.sort(top - slope * mean)
    middle, low = np.quantile(adjusted, (0.5, 0.1587))  # the lower half is free of those that found what they asked for
    kept = adjusted[adjusted <= middle + OUTLIER * max(float(middle - low), _LEAST_SCALE)]
    return Null(slope, kept)


def spread(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of `count` positions, evenly spread."""
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).astype(np.int64)


@cache
def bank() -> tuple[str, ...]:
    """The texts of the impostors, one a line of `impostors.txt`."""
    lines = (Path(__file__).with_name("impostors.txt")).read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


@cache
def bank_mark() -> str:
    """What tells this bank from another."""
    return hashlib.blake2b("\n".join(bank()).encode(), digest_size=8).hexdigest()
