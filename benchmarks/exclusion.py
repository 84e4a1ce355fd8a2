"""Does leaving out work by meaning? "A - B" over labelled mixtures of `valid` clips.

    python benchmarks/exclusion.py [--model NAME_OR_DIR] [--data DIR] [--json FILE] [--pairs N] [--tune]

A pair is one clip of A, mixed with a clip of B, and mixed with a clip of another label C, as loud as B. Right is
the mixture without B above the one with it, under the query `"A" - "B"`. The query `"A"` alone is the baseline: about
a half. Exit code 0 if 85 % are right, 1 if not, 2 without data.
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

from audiosearch import Library, metrics
from audiosearch.config import DEFAULT_MODEL
from audiosearch.errors import AudioSearchError

LOUDEST_DB, QUIETEST_DB = 0.0, 6.0  # of the second sound, below the first
AIM = 0.85
RANKED = 100  # queries whose whole ranking is looked at


@dataclass(frozen=True, slots=True)
class Pair:
    """Two WAV files, both with `wanted`; one has `left_out` too, and one `other` instead."""

    wanted: str
    left_out: str
    other: str
    without: str
    having: str

    def files(self) -> list[tuple[str, str]]:
        """(file, what it has beside `wanted`)."""
        return [(self.without, self.other), (self.having, self.left_out)]


def make_pairs(clips: Sequence[Clip], count: int, folder: Path) -> list[Pair]:
    """Drawn by a fixed seed, three different labels each."""
    rng = np.random.default_rng(SEED)
    by_label = clips_by_label(clips)

    def one(label: str) -> Clip:
        return by_label[label][int(rng.integers(len(by_label[label])))]

    made = []
    for number in range(count):
        wanted, left_out, other = (str(label) for label in rng.choice(list(by_label), size=3, replace=False))
        first, levels, starts = one(wanted), (0.0, float(rng.uniform(LOUDEST_DB, QUIETEST_DB))), tuple(rng.random(2))
        paths = [
            write_wav(
                folder / f"{number:04d}{name}.wav", layered([read(first.path), read(one(label).path)], levels, starts)
            )
            for name, label in (("a", other), ("b", left_out))
        ]
        made.append(Pair(wanted, left_out, other, *paths))
    return made


def share_right(library: Library, pairs: Sequence[Pair], query: str) -> float:
    """How often `query`, a template of A and B, puts the mixture without B first."""
    right = 0
    for pair in pairs:
        folder = Path(pair.without).parent
        names = f'path:("{folder / Path(pair.without).name}", "{folder / Path(pair.having).name}")'
        hits = library.query(
            query.format(a=pair.wanted, b=pair.left_out), filter=names, by="file", k=2, names="off"
        ).hits
        right += hits[0].path == pair.without
    return right / len(pairs)


def precision_of(library: Library, pairs: Sequence[Pair], query: str) -> float:
    """Mean average precision over all mixtures, where those with A and without B are right: leaving B out must not cost
    A its place."""
    labels = {path: (pair.wanted, other) for pair in pairs for path, other in pair.files()}
    found = []
    for pair in pairs[:RANKED]:
        hits = library.query(query.format(a=pair.wanted, b=pair.left_out), by="file", k=len(labels), names="off").hits
        right = [pair.wanted in labels[hit.path] and pair.left_out not in labels[hit.path] for hit in hits]
        found.append(metrics.average_precision(np.array([right]))[0])
    return float(np.mean(found))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--device")
    parser.add_argument("--data")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--tune", action="store_true", help="mix clips of `train`, to choose settings by")
    options = parser.parse_args()
    try:
        clips = data.read_clips(data.data_folder(options.data))
    except FileNotFoundError as error:
        print(f"no data: {error}", file=sys.stderr)
        return 2
    split = "train" if options.tune else "valid"
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        pairs = make_pairs([clip for clip in clips if clip.is_esc and clip.split == split], options.pairs, Path(folder))
        try:
            with Library.open(
                Path(folder, "library"), create=True, model=options.model, device=options.device
            ) as library:
                ingest(library, [Clip(path, "", True) for pair in pairs for path in (pair.without, pair.having)])
                for query in ('"{a}"', '"{a}" - 0.5*"{b}"', '"{a}" - "{b}"', '"{a}" - 2*"{b}"', '"{a}" - 5*"{b}"'):
                    figures[query.format(a="A", b="B")] = {
                        "right": share_right(library, pairs, query),
                        "map": precision_of(library, pairs, query),
                    }
        except AudioSearchError as error:
            print(error, file=sys.stderr)
            return 2
    print(f"{len(pairs)} pairs of mixtures of `{split}` clips: the one without B is above the one with it\n")
    print("| query | right | mAP of A without B |\n|---|---|---|")
    for query, each in figures.items():
        print(f"| `{query}` | {each['right']:.3f} | {each['map']:.3f} |")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if figures['"A" - "B"']["right"] >= AIM else 1


if __name__ == "__main__":
    sys.exit(main())
