"""Does an instruction reach the stored side? Mixtures of `valid` clips, asked for what is in front, or behind.

    python benchmarks/instructions.py [--model NAME_OR_DIR] [--data DIR] [--json FILE] [--per-label N] [--tune]

Every mixture is X over Y, Y 6 dB below; each label is X in some and Y in as many. A query is a label's name and one of
two instructions; right is a mixture that has the label in that place. Without an instruction both places look alike, so
0.5 is what hearing the label alone gives. All arms rank the *same* candidates, the best of the default space by name:

    none            the default space's own scores
    query side      the instruction put to the query's text only, against the default space's vectors
    re-embedded     the candidates heard again under the instruction (`query --instruct`)
    aspect space    a library ingested under the instruction (`ingest --instruct`, then `query --instruct`)

The ceiling is the share of queries with a right candidate. Differences come with a paired bootstrap interval of 95 %.
Exit code 0 if both arms beat the query side by 15 points of precision@1, 1 if not, 2 without data.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from quality import data
from quality.data import Clip
from quality.retrieval import SEED, ingest
from quality.sounds import clips_by_label, layered, read, write_wav

from audiosearch import Library
from audiosearch.config import DEFAULT_MODEL
from audiosearch.embed import load_embedder
from audiosearch.errors import AudioSearchError
from audiosearch.types import Answer

INSTRUCTIONS = ("what is the main sound?", "what is in the background?")  # the place: 0 in front, 1 behind
QUIETER_DB = 6.0
CANDIDATES = 50
RESAMPLES = 10_000
AIM_POINTS = 15.0
ARMS = ("none", "query side", "re-embedded", "aspect space")


@dataclass(frozen=True, slots=True)
class Mixture:
    """A WAV file that holds two labels: in front, and behind."""

    path: str
    labels: tuple[str, str]


def make_mixtures(clips: Sequence[Clip], per_label: int, folder: Path) -> list[Mixture]:
    """Each label `per_label` times in front and as often behind; clips, pairs and starts are drawn by a fixed seed."""
    rng = np.random.default_rng(SEED)
    by_label = clips_by_label(clips)
    labels, made = list(by_label), []
    for number in range(per_label):
        order = [labels[i] for i in rng.permutation(len(labels))]
        for front, behind in zip(order, order[1:] + order[:1], strict=True):
            chosen = [by_label[label][int(rng.integers(len(by_label[label])))] for label in (front, behind)]
            sound = layered([read(clip.path) for clip in chosen], (0.0, QUIETER_DB), tuple(rng.random(2)))
            path = write_wav(folder / f"{number:02d}{len(made):05d}.wav", sound)
            made.append(Mixture(path, (front, behind)))
    return made


def scores_by_path(answer: Answer) -> dict[str, float]:
    """The score of each file's best moment."""
    found: dict[str, float] = {}
    for hit in answer.hits:
        found[hit.path] = max(found.get(hit.path, -np.inf), hit.score)
    return found


def measure(model: str, device: str | None, mixtures: Sequence[Mixture], folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(right [arms, queries] by the first in rank, reachable [queries])."""
    labels = sorted({label for each in mixtures for label in each.labels})
    held = {each.path: each.labels for each in mixtures}
    embedder = load_embedder(model, device=device)
    plain = Library.open(folder / "plain.library", create=True, model=model, device=device)
    clips = [Clip(each.path, each.labels[0], True) for each in mixtures]
    ingest(plain, clips)
    right, reachable = [], []
    for place, instruction in enumerate(INSTRUCTIONS):
        aspect = Library.open(folder / f"aspect{place}.library", create=True, model=model, device=device)
        aspect.ingest([clip.path for clip in clips], instruction=instruction)
        for label in labels:
            everything = scores_by_path(plain.query(label, k=len(mixtures), by="file"))
            candidates = sorted(everything, key=lambda path: -everything[path])[:CANDIDATES]
            heard = plain.query(
                label, instruction=instruction, k=CANDIDATES, by="file", rerank=CANDIDATES, budget_seconds=1e9
            )
            under = scores_by_path(heard)
            asked = embedder.embed_text([label], instruction=instruction, task="query")[0]
            query_side = dict(zip(candidates, stored_rows(plain, candidates) @ asked, strict=True))
            stored = scores_by_path(aspect.query(label, instruction=instruction, k=len(mixtures), by="file"))
            arms = (everything, query_side, under, stored)
            firsts = [max(candidates, key=lambda path: scores.get(path, -np.inf)) for scores in arms]
            right.append([held[first][place] == label for first in firsts])
            reachable.append(any(held[path][place] == label for path in candidates))
        aspect.close()
    plain.close()
    return np.array(right, bool).T, np.array(reachable, bool)


def stored_rows(library: Library, paths: Sequence[str]) -> np.ndarray:
    """The default space's vectors of files of one chunk each, in their order."""
    from audiosearch.store.store import Store

    with Store.open(library.directory) as store:
        space = store.spaces()[0]
        ids = store.changes_since(space.id, 0).added_ids
        place = {str(Path(*chunk.paths[0])): chunk.vector_id for chunk in store.resolve(ids)}
        return store.vectors(space.id, np.array([place[path] for path in paths], np.int64))


def interval(gain: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of the mean of `gain` (queries,), resampled."""
    rng = np.random.default_rng(SEED)
    means = gain[rng.integers(0, len(gain), size=(RESAMPLES, len(gain)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--device")
    parser.add_argument("--data")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--per-label", type=int, default=4, help="mixtures with a label in front, and as many behind")
    parser.add_argument("--tune", action="store_true", help="mix clips of `train`, to choose settings by")
    options = parser.parse_args()
    try:
        clips = data.read_clips(data.data_folder(options.data))
    except FileNotFoundError as error:
        print(f"no data: {error}", file=sys.stderr)
        return 2
    split = "train" if options.tune else "valid"
    with tempfile.TemporaryDirectory() as folder:
        mixtures = make_mixtures(
            [clip for clip in clips if clip.is_esc and clip.split == split], options.per_label, Path(folder)
        )
        try:
            right, reachable = measure(options.model, options.device, mixtures, Path(folder))
        except AudioSearchError as error:
            print(error, file=sys.stderr)
            return 2
    print(f"{len(mixtures)} mixtures of `{split}` clips, {right.shape[1]} queries, {CANDIDATES} candidates each")
    print(
        f"ceiling: {reachable.mean():.3f}\n\n| arm | precision@1 | over the query side, points (95 %) |\n|---|---|---|"
    )
    figures: dict[str, object] = {"ceiling": float(reachable.mean()), "queries": right.shape[1]}
    reached = []
    for arm, row in zip(ARMS, right, strict=True):
        gain = 100.0 * (row.astype(float) - right[1])
        low, high = interval(gain)
        print(f"| {arm} | {row.mean():.3f} | {gain.mean():+.1f} ({low:+.1f} to {high:+.1f}) |")
        figures[arm] = {"precision_at_1": float(row.mean()), "points": float(gain.mean()), "interval": [low, high]}
        reached.append(gain.mean() >= AIM_POINTS)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if all(reached[2:]) else 1


if __name__ == "__main__":
    sys.exit(main())
