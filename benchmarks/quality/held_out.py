"""Collections a model never heard, in training that left them out: it must find twice what mel statistics find that
were given the same clips to learn from.

For each model trained without a collection: the label names of that collection's `valid` clips are queries over all
`valid` clips. Relevant are its own clips of the label; other collections' clips of the same label leave the ranking,
as they are neither. The same is reported over the collection's own clips alone, which is little for a small one.

Such a model heard no row of the collection, so `rows="all"` asks for its frequent names over all its clips, of both
splits: for tuning, and for collections of which `valid` holds a dozen clips.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiosearch import Library, metrics
from audiosearch.errors import UsageError
from quality.baseline import Baseline, Statistics, mel_statistics
from quality.data import Clip
from quality.figures import Figure
from quality.retrieval import LEAST_CLIPS, SEED, Relevant, Scores, frequent_labels, ingest, text_scores

BETTER_THAN_BASELINE = 2.0


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A checkpoint and the collection (`source_repo`) it was trained without."""

    model: str
    source: str


def read_list(path: Path) -> list[HeldOut]:
    """The models of a JSON file: [{"model": DIR, "source_repo": NAME}]; directories are relative to the file.

    Raises:
        UsageError: the file cannot be read or is another.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [HeldOut(str(path.parent / row["model"]), row["source_repo"]) for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f'{path}: expected a list of {{"model": DIR, "source_repo": NAME}} ({error!r})') from error


Credit = tuple[str, str, str]  # attribution, licence, collection


def credits_of(each: HeldOut, clips: Sequence[Clip]) -> set[Credit]:
    """Whose clips the model was trained on, as its CREDITS.csv says.

    Raises UsageError without that file, if no clip is of the collection, or if the credits name the collection.
    """
    sources = sorted({clip.source for clip in clips})
    if each.source not in sources:
        raise UsageError(f"no `valid` clip is of the collection {each.source!r}; there are {', '.join(sources)}")
    table = Path(each.model, "CREDITS.csv")
    if not table.is_file():
        raise UsageError(f"{each.model} has no CREDITS.csv: what it was trained on is not known")
    with table.open(encoding="utf-8", newline="") as lines:
        found = {(row["attribution"], row["licence"], row["collection"]) for row in csv.DictReader(lines)}
    if any(collection == each.source for *_, collection in found):
        raise UsageError(f"{each.model} was trained on {each.source}: it is in its CREDITS.csv")
    return found


@dataclass(frozen=True, slots=True)
class Task:
    """The queries of a collection over `clips`: a clip of each label, what is relevant, what leaves the ranking, and
    which clips are the collection's own."""

    labels: tuple[Clip, ...]
    relevant: Relevant
    left_out: NDArray[np.bool_]
    is_own: NDArray[np.bool_]

    @classmethod
    def of(cls, source: str, clips: Sequence[Clip], least: int = 1) -> Task:
        """The task of the collection `source`: its labels of at least `least` clips."""
        is_own = np.array([clip.source == source for clip in clips])
        own = [clip for clip in clips if clip.source == source]
        frequent = frequent_labels(own, least)
        labels = tuple({clip.label: clip for clip in own if clip.label in frequent}.values())
        same = np.array([[clip.label == label.label for clip in clips] for label in labels], dtype=bool)
        return cls(labels, same & is_own, same & ~is_own, is_own)

    def mean_average_precision(self, scores: Scores) -> float:
        """Over all clips; `scores` (labels, clips)."""
        # What is last, and not relevant, changes no precision at a relevant rank.
        ranked = metrics.ranked_relevance(np.where(self.left_out, -np.inf, scores), self.relevant)
        return float(metrics.average_precision(ranked).mean())

    def mean_average_precision_alone(self, scores: Scores) -> float:
        """Over the collection's own clips."""
        ranked = metrics.ranked_relevance(scores[:, self.is_own], self.relevant[:, self.is_own])
        return float(metrics.average_precision(ranked).mean())


def figures_of(source: str, task: Task, scores: Scores, baseline: Scores) -> list[Figure]:
    """A model's `scores` (labels, clips) of a collection it did not hear, with those of the baseline."""
    chance = np.random.default_rng(SEED).random((20, *scores.shape))
    what, key = f"Held-out collection {source} ({len(task.labels)} names", source.replace("/", "_")
    own, everything = int(task.is_own.sum()), len(task.is_own)
    reached = task.mean_average_precision(baseline)
    figures = [
        Figure(
            f"held_out_{key}",
            f"{what}, {own} of {everything} clips): mAP (mel statistics of the same clips: {reached:.3f})",
            task.mean_average_precision(scores),
            float(np.mean([task.mean_average_precision(draw) for draw in chance])),
            floor=BETTER_THAN_BASELINE * reached,
        )
    ]
    if own < everything:
        reached = task.mean_average_precision_alone(baseline)
        figures.append(
            Figure(
                f"held_out_alone_{key}",
                f"{what}, its {own} clips alone): mAP (mel statistics of the same clips: {reached:.3f})",
                task.mean_average_precision_alone(scores),
                float(np.mean([task.mean_average_precision_alone(draw) for draw in chance])),
            )
        )
    return figures


def held_out_figures(
    models: Sequence[HeldOut], device: str | None, clips: Sequence[Clip], folder: Path, rows: str = "valid"
) -> list[Figure]:
    """The figures of each model. `clips` of both splits: the baseline is trained on those that the model heard.

    Raises AudioSearchError if a model does not load, a clip cannot be read, or a model was trained on its collection.
    """
    valid = [clip for clip in clips if clip.split == "valid"]
    heard = [credits_of(each, valid) for each in models]
    statistics = mel_statistics(clips) if models else np.zeros((0, 0))
    figures = []
    for number, each in enumerate(models):
        judged = [i for i, clip in enumerate(clips) if _is_judged(clip, each.source, rows)]
        items = [clips[i] for i in judged]
        task = Task.of(each.source, items, 1 if rows == "valid" else LEAST_CLIPS)
        place = folder / f"held-out-{number}.library"
        with Library.open(place, create=True, model=each.model, device=device) as library:
            ingest(library, items)
            scores = text_scores(library, [clip.label for clip in task.labels], items)
        baseline = trained_on(heard[number], clips, statistics).scores(task.labels, statistics[judged])
        figures += figures_of(each.source, task, scores, baseline)
    return figures


def trained_on(heard: Collection[Credit], clips: Sequence[Clip], statistics: Statistics) -> Baseline:
    """The baseline of the `train` clips of those credits: the model's own, neither fewer nor more."""
    known = [
        i
        for i, clip in enumerate(clips)
        if clip.split == "train" and (clip.attribution, clip.licence, clip.source) in heard
    ]
    return Baseline(statistics[known], [clips[i] for i in known])


def _is_judged(clip: Clip, source: str, rows: str) -> bool:
    return clip.split == "valid" if rows == "valid" else clip.source == source
