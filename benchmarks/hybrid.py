"""What names are worth beside the sound: rankings by vectors alone, and fused with the words of file names.

    python benchmarks/hybrid.py [--model NAME_OR_DIR] [--data DIR] [--every N] [--json FILE]

Takes the `valid` clips of the labelled collection in $AUDIOSEARCH_DATA (default: `shared/data` beside the checkout),
ingests them once, and gives their files other names (they move, and keep their vectors):

    neutral     a number in a folder that says nothing
    class       its label, in one of several ways of writing it
    half        half of the files as in `class`, the others a number
    mixed       half as in `class`, a quarter a number, a quarter the name of another class
    wrong       every file has the name of another class
    original    as the clip was called where it comes from

Asked are labels, one caption of each label, and paraphrases without a word of the label. `auto` trusts files that have
all words of the query, `any` all that have one. Exit code 2 without data or a model.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from quality import data
from quality.data import Clip
from quality.retrieval import SEED, frequent_labels, ingest, labels_relevant, text_scores

from audiosearch import Library, metrics
from audiosearch.config import DEFAULT_MODEL
from audiosearch.errors import AudioSearchError
from audiosearch.query.fusion import Words, fuse, levels, trusted
from audiosearch.store.store import Store

MODES: tuple[Words, ...] = ("off", "auto", "any")
Name = Callable[[int, Clip], str]  # a path below the root, without extension, that is the clip's alone


def numbered(at: int, _: Clip) -> str:
    return f"{at % 20:02}/{at:06}"


def scenarios(clips: Sequence[Clip], originals: dict[str, str]) -> dict[str, Name]:
    """How the files are called in each."""
    rng = np.random.default_rng(SEED)
    style, luck = rng.integers(4, size=len(clips)), rng.random(len(clips))
    labels = sorted({clip.label for clip in clips})
    others = {label: [each for each in labels if each != label] for label in labels}
    wrong = [others[clip.label][rng.integers(len(labels) - 1)] for clip in clips]

    def written(at: int, label: str) -> str:
        words = label.split()
        forms = (
            "_".join(words) + f"_{at:03}",
            "".join(word.capitalize() for word in words) + f"{at:03}",
            "-".join(words).upper() + f" {at}",
            f"{label.capitalize()} (take {at})",
        )
        return f"{at % 20:02}/{forms[style[at]]}"

    def mixed(at: int, clip: Clip) -> str:
        if 0.5 <= luck[at] < 0.75:
            return numbered(at, clip)
        return written(at, clip.label if luck[at] < 0.5 else wrong[at])

    return {
        "neutral": numbered,
        "class": lambda at, clip: written(at, clip.label),
        "half": lambda at, clip: written(at, clip.label) if luck[at] < 0.5 else numbered(at, clip),
        "mixed": mixed,
        "wrong": lambda at, clip: written(at, wrong[at]),
        "original": lambda at, clip: f"{PurePath(originals[clip.path]).with_suffix('')} {at}",
    }


def queries(clips: Sequence[Clip], captions: dict[str, str]) -> dict[str, list[tuple[str, str]]]:
    """(text, label) of each kind of query."""
    labels = frequent_labels(clips)
    said = {label: Counter(captions[clip.path] for clip in clips if clip.label == label) for label in labels}
    return {
        "labels": [(label, label) for label in labels],
        "captions": [(said[label].most_common(1)[0][0], label) for label in labels],
        "paraphrases": [(each["text"], each["label"]) for each in data.read_paraphrases() if each["label"] in labels],
    }


def rename(library: Library, root: Path, clips: Sequence[Clip], paths: Sequence[Path], name: Name) -> list[Path]:
    """Move every file to its name; the library follows without embedding anything. Returns where they are."""
    new = [root / f"{name(at, clip)}{paths[at].suffix}" for at, clip in enumerate(clips)]
    for before, after in zip(paths, new, strict=True):
        after.parent.mkdir(parents=True, exist_ok=True)
        before.rename(after)
    summary = library.sync(prune_all=True)
    if summary.ingest is not None and summary.ingest.chunks_embedded:
        raise AudioSearchError("files that only moved were embedded again")
    return new


def fused_scores(
    store: Store, texts: Sequence[str], vectors: NDArray[np.float64], paths: Sequence[Path], root: Path
) -> dict[Words, NDArray[np.float64]]:
    """A table (queries, clips) for each mode: minus the place in the ranking."""
    column = {str(path.relative_to(root)): at for at, path in enumerate(paths)}
    tables: dict[Words, NDArray[np.float64]] = {mode: np.empty_like(vectors) for mode in MODES}
    for row, text in enumerate(texts):
        matches = store.text_matches(text)
        by_sound = [int(at) for at in np.argsort(-vectors[row], kind="stable")]
        for mode in MODES:
            kept = trusted(mode, matches)
            fused = fuse(by_sound, [column[match.place[1]] for match in kept], text_scores=levels(kept))
            tables[mode][row, [each.key for each in fused]] = -np.arange(len(fused))
    return tables


def measure(
    library: Library, root: Path, clips: Sequence[Clip], rows: dict[str, dict[str, str]]
) -> list[dict[str, Any]]:
    """A line for each scenario, kind of query and mode."""
    paths = [Path(clip.path) for clip in clips]
    captions = {clip.path: rows[clip.path]["caption"] for clip in clips}
    originals = {clip.path: rows[clip.path]["source_paths"] for clip in clips}
    asked = queries(clips, captions)
    vectors = {kind: text_scores(library, [text for text, _ in pairs], clips) for kind, pairs in asked.items()}
    relevant = {kind: labels_relevant([label for _, label in pairs], clips) for kind, pairs in asked.items()}
    lines = []
    for scenario, name in scenarios(clips, originals).items():
        paths = rename(library, root, clips, paths, name)
        with Store.open(library.directory) as store:
            for kind, pairs in asked.items():
                tables = fused_scores(store, [text for text, _ in pairs], vectors[kind], paths, root)
                for mode, table in tables.items():
                    found = metrics.retrieval(table, relevant[kind])
                    lines.append(
                        {
                            "names": scenario,
                            "queries": kind,
                            "n": len(pairs),
                            "words": mode,
                            "p1": found.precision_at_1,
                            "p5": found.precision_at_5,
                            "map": found.mean_average_precision,
                        }
                    )
                    print_line(lines[-1])
    return lines


def print_line(line: dict[str, Any]) -> None:
    print(
        f"| {line['names']:9} | {line['queries']:11} ({line['n']}) | {line['words']:5} | "
        f"{line['p1']:.3f} | {line['p5']:.3f} | {line['map']:.3f} |",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME_OR_DIR")
    parser.add_argument("--data", metavar="DIR", help="the folder that holds manifest.csv")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th clip, to try")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    folder = data.data_folder(options.data)
    if not (folder / "manifest.csv").is_file():
        print(f"skipped: {folder} has no manifest.csv: name the folder in AUDIOSEARCH_DATA or --data", file=sys.stderr)
        return 2
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as lines:
        of_file = {str(folder / row["file"]): row for row in csv.DictReader(lines)}
    valid = [clip for clip in data.read_clips(folder) if clip.split == "valid"][:: options.every]
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "sounds")
        root.mkdir()
        clips = [replace(clip, path=str(root / Path(clip.path).name)) for clip in valid]
        for original, copy in zip(valid, clips, strict=True):
            shutil.copyfile(original.path, copy.path)
        rows = {copy.path: of_file[original.path] for original, copy in zip(valid, clips, strict=True)}
        try:
            with Library.open(Path(place, "library"), create=True, model=options.model) as library:
                ingest(library, [replace(clips[0], path=str(root))])
                print("| names | queries | words | P@1 | P@5 | mAP |\n|---|---|---|---|---|---|", flush=True)
                found = measure(library, root, clips, rows)
        except AudioSearchError as error:
            print(f"hybrid: {error}", file=sys.stderr)
            return 2
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
