"""What a few labels bring: a query's hits are judged as a user would, and the rest of the ranking is compared.

    python benchmarks/feedback.py [--model alm2vec-mini] [--data DIR] [--out FILE]

The library is the `valid` clips, the queries are their labels. The first n hits of a query are labelled, yes where a
clip carries the label and no where it does not, and left out of both rankings: the query's own and that of the vector
that `query.feedback` makes of it. Precision@10 is of what could be found. One minute on two cores; `--cache FILE` keeps
the vectors. Constants of `feedback.py` were chosen on `train` clips.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from quality.data import Clip, data_folder, read_clips

from audiosearch.audio import read_span
from audiosearch.embed import load_embedder
from audiosearch.query.feedback import adjusted

LABELS = (1, 3, 5)
LEAST_CLIPS = 6  # of a label that is asked for: some must be left after five were labelled
BACKGROUND = 200
SECONDS = 10.0  # of a clip
RESAMPLES = 2_000
SEED = 20_251_123

Rows = NDArray[np.float32]


def embedded(clips: Sequence[Clip], texts: Sequence[str], model: str, device: str | None) -> tuple[Rows, Rows]:
    """Unit rows of the clips and of the texts."""
    embedder = load_embedder(model, device=device)
    rows = []
    for first in range(0, len(clips), 64):
        sounds = [
            read_span(clip.path, 0.0, SECONDS, sample_rate=embedder.sample_rate) for clip in clips[first : first + 64]
        ]
        rows.append(embedder.embed_audio(sounds, task="document"))
    return np.concatenate(rows), embedder.embed_text(list(texts), task="document")


def figures(query: Rows, rows: Rows, relevant: NDArray[np.bool_], labelled: int) -> NDArray[np.float64] | None:
    """(P@10 before, after, AP before, after) beyond the first `labelled` hits; None if nothing is left to find."""
    shown = np.argsort(-(rows @ query), kind="stable")[:labelled]
    rest = np.setdiff1d(np.arange(len(rows)), shown)
    if not relevant[rest].any():
        return None
    background = rows[:: max(1, len(rows) // BACKGROUND)][:BACKGROUND]
    after = adjusted(query, rows[shown[relevant[shown]]], rows[shown[~relevant[shown]]], background)
    found = [relevant[rest][np.argsort(-(rows[rest] @ each), kind="stable")] for each in (query, after)]
    possible = min(10, int(relevant[rest].sum()))
    precision = [float(each[:10].sum()) / possible for each in found]
    return np.array([*precision, *(_average_precision(each) for each in found)])


def _average_precision(found: NDArray[np.bool_]) -> float:
    precision = np.cumsum(found) / np.arange(1, len(found) + 1)
    return float(precision[found].mean())


def report(rows: Rows, queries: Rows, labels: Sequence[str], texts: Sequence[str]) -> dict[str, object]:
    """The figures for each number of labels, with the 95 % interval of the gain over queries drawn again."""
    rng = np.random.default_rng(SEED)
    found: dict[str, object] = {}
    of_clip = np.array(labels)
    for labelled in LABELS:
        each = [
            figures(query, rows, of_clip == text, labelled)
            for query, text in zip(queries, texts, strict=True)
            if (of_clip == text).sum() >= LEAST_CLIPS
        ]
        values = np.array([row for row in each if row is not None])
        gains = values[:, [1, 3]] - values[:, [0, 2]]
        drawn = gains[rng.integers(0, len(gains), (RESAMPLES, len(gains)))].mean(axis=1)
        low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
        names = "precision_before", "precision_after", "map_before", "map_after"
        found[str(labelled)] = {
            "queries": len(values),
            **{name: round(float(value), 4) for name, value in zip(names, values.mean(axis=0), strict=True)},
            "precision_gain_95": [round(float(low[0]), 4), round(float(high[0]), 4)],
            "map_gain_95": [round(float(low[1]), 4), round(float(high[1]), 4)],
            "queries_with_lower_ap": round(float((gains[:, 1] < -1e-9).mean()), 3),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="alm2vec-mini")
    parser.add_argument("--device")
    parser.add_argument("--data", help="the labelled clips (default: $AUDIOSEARCH_DATA)")
    parser.add_argument("--split", default="valid")
    parser.add_argument("--cache", type=Path, help="keep the vectors here, or take them from here")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    clips = [clip for clip in read_clips(data_folder(options.data)) if clip.split == options.split]
    labels = [clip.label for clip in clips]
    texts = sorted(set(labels))
    if options.cache and options.cache.exists():
        kept = np.load(options.cache)
        rows, queries = kept["rows"], kept["queries"]
    else:
        rows, queries = embedded(clips, texts, options.model, options.device)
        if options.cache:
            np.savez(options.cache, rows=rows, queries=queries)
    found = report(rows, queries, labels, texts)
    for labelled, values in found.items():
        print(f"{labelled} labelled: {json.dumps(values)}")
    if options.out:
        options.out.write_text(json.dumps({"version": 1, "model": options.model, "labelled": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
