"""How well a model finds real sounds it was not trained on, by the whole path: files, ingest, store, index, query.

    python benchmarks/mini_quality.py [--model NAME_OR_DIR] [--data DIR] [--json FILE] [--write-card]
                                      [--held-out MODEL_DIR SOURCE_REPO]... [--held-out-list FILE] [--only PART]...
                                      [--tune-on COLLECTION_OR_FOLD]...

Takes the `valid` clips of the labelled collection in $AUDIOSEARCH_DATA (default: `shared/data` beside the checkout).

    texts     class names, all label names, the paraphrases of `paraphrases.json`, the absent things of `absent.json`
    examples  each ESC-50 clip as an example of its class
    mixtures  "A with B in the background" among sounds of A or B alone, mixed into WAV files
    triplets  what an instruction changes: foreground or background, speech or music, vehicle or wind, word or voice
    held-out  models trained without a collection, on that collection; a JSON list of {"model", "source_repo"}, or pairs
    speed     on one core of this machine, in a process of its own

To choose between models without looking at `valid`, train them without some collections or an ESC-50 fold (`without` in
a stage of the recipe) and judge them on those: `--tune-on "fold 4" --tune-on openclonk/openclonk`.

Exit code 0 if the floors are reached, 1 if one is missed or a query is not held out, 2 without data or a model.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from quality import data
from quality.data import Clip
from quality.figures import Figure, markdown, with_figures
from quality.held_out import HeldOut, held_out_figures, read_list

from audiosearch import Library
from audiosearch.config import DEFAULT_MODEL
from audiosearch.errors import AudioSearchError
from audiosearch.types import ModelDescription

NO_DATA = 2


@dataclass
class Run:
    """What the parts share: one library of the `valid` clips, made when it is first asked for."""

    model: str
    device: str | None
    clips: Sequence[Clip]  # of both splits
    texts: Collection[str]  # that training sees
    folder: Path
    held_out: Sequence[HeldOut] = ()
    held_out_rows: str = "valid"
    _opened: list[Library] = field(default_factory=list)

    @cached_property
    def valid(self) -> list[Clip]:
        """The clips that are never trained on."""
        return [clip for clip in self.clips if clip.split == "valid"]

    @cached_property
    def library(self) -> Library:
        """All of them, ingested. Raises AudioSearchError if one cannot be."""
        from quality.retrieval import ingest

        library = Library.open(self.folder / "valid.library", create=True, model=self.model, device=self.device)
        self._opened.append(library)
        summary = ingest(library, self.valid)
        say(
            f"{summary.files_indexed} clips, {summary.audio_seconds / 60:.1f} min, ingested in "
            f"{summary.elapsed_seconds:.1f} s on {summary.device}"
        )
        return library

    def close(self) -> None:
        """Let go of the library's files."""
        for library in self._opened:
            library.close()


def texts(run: Run) -> list[Figure]:
    from quality.retrieval import text_figures

    return text_figures(run.library, run.valid, data.read_paraphrases(), data.read_absent())


def examples(run: Run) -> list[Figure]:
    from quality.retrieval import example_figures, example_scores

    esc = [clip for clip in run.valid if clip.is_esc]
    is_esc = [clip.is_esc for clip in run.valid]
    return example_figures(example_scores(run.library, esc, run.valid)[:, is_esc], esc)


def mixtures(run: Run) -> list[Figure]:
    from quality.mixtures import mixture_figures

    return mixture_figures(run.model, run.device, run.valid, run.folder)


def triplets(run: Run) -> list[Figure]:
    from quality.confused import triplet_figures

    from audiosearch.embed import load_embedder

    return triplet_figures(load_embedder(run.model, device=run.device), run.valid, run.folder, run.texts)


def held_out(run: Run) -> list[Figure]:
    return held_out_figures(run.held_out, run.device, run.clips, run.folder, run.held_out_rows)


def speed(run: Run) -> list[Figure]:
    from quality.speed import measure_speed, speed_figures

    return speed_figures(measure_speed(run.model))


PARTS: dict[str, Callable[[Run], list[Figure]]] = {
    "texts": texts,
    "examples": examples,
    "mixtures": mixtures,
    "triplets": triplets,
    "held-out": held_out,
    "speed": speed,
}


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure(run: Run, parts: Sequence[str]) -> list[Figure]:
    """The figures of `parts`. Raises AudioSearchError if a model does not load or a clip cannot be read."""
    figures = []
    try:
        for part in parts:
            started = time.perf_counter()
            figures += PARTS[part](run)
            say(f"{part}: {time.perf_counter() - started:.1f} s")
    finally:
        run.close()
    return figures


def card_body(figures: Sequence[Figure], n_clips: int) -> str:
    """The section of the model card."""
    return (
        f"Measured by `python benchmarks/mini_quality.py --write-card` on the {n_clips} held-out (`valid`) clips: "
        "ingested as files, every clip ranked by query. What the benchmark fails below is the floor, what we want to "
        "be known for the aim (bold where it is reached).\n\n" + markdown(figures)
    )


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME_OR_DIR")
    parser.add_argument("--device")
    parser.add_argument("--data", metavar="DIR", help="the folder that holds manifest.csv")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--write-card", action="store_true", help="put the table into the model's README.md")
    parser.add_argument("--only", action="append", choices=tuple(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--held-out",
        nargs=2,
        action="append",
        default=[],
        metavar=("MODEL_DIR", "SOURCE_REPO"),
        help="a model trained without that collection",
    )
    parser.add_argument("--held-out-list", type=Path, metavar="FILE", help="the same as JSON")
    parser.add_argument(
        "--held-out-rows",
        choices=("valid", "all"),
        default="valid",
        help="all: every clip of the collection, which such a model never heard, not only its `valid` ones",
    )
    parser.add_argument(
        "--tune-on",
        action="append",
        default=[],
        metavar="PART",
        help="judge on these collections and folds (`fold 4`) of `train`, and on nothing of `valid`",
    )
    options = parser.parse_args(arguments)
    if options.write_card and (options.only or options.tune_on):
        parser.error("--write-card needs every part, on `valid`: leave --only and --tune-on out")
    return options


def main() -> int:
    options = options_of()
    started = time.perf_counter()
    folder = data.data_folder(options.data)
    if not (folder / "manifest.csv").is_file():
        say(f"skipped: {folder} has no manifest.csv: name the folder in AUDIOSEARCH_DATA or --data")
        return NO_DATA
    clips, seen = data.read_clips(folder), data.training_texts(folder)
    wrong = data.not_held_out(data.read_paraphrases(), seen)
    wrong += data.not_absent(data.read_absent(), sorted({clip.label for clip in clips if clip.split == "valid"}))
    for line in wrong:
        say(f"error: not held out: {line}")
    try:
        from audiosearch.model.fingerprint import describe_model

        model = describe_model(options.model)
        models = [HeldOut(*pair) for pair in options.held_out]
        models += read_list(options.held_out_list) if options.held_out_list else []
        if options.tune_on:
            clips = data.judged_on(clips, options.tune_on)
        with tempfile.TemporaryDirectory() as place:
            run = Run(options.model, options.device, clips, seen, Path(place), models, options.held_out_rows)
            figures = measure(run, options.only or list(PARTS))
    except AudioSearchError as error:
        say(f"mini_quality: {error}")
        return NO_DATA
    return report(options, model, figures, wrong, len(run.valid), time.perf_counter() - started)


def report(
    options: argparse.Namespace,
    model: ModelDescription,
    figures: Sequence[Figure],
    wrong: Sequence[str],
    n_clips: int,
    seconds: float,
) -> int:
    """Print the table, write what was asked for, and say what is missed: the exit code."""
    print(f"{Path(model.name).name}\n\n{markdown(figures)}\n")
    if options.json:
        result = {"model": model.name, "fingerprint": model.fingerprint, "seconds": round(seconds, 1)}
        content = {**result, "figures": [each.to_json() for each in figures], "not_held_out": list(wrong)}
        Path(options.json).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if options.write_card:
        card = Path(model.directory, "README.md")
        body = card_body(figures, n_clips)
        card.write_text(with_figures(card.read_text(encoding="utf-8"), body), encoding="utf-8")
    missed = [each for each in figures if each.is_missed]
    for each in missed:
        say(f"MISSED: {each.name}: {each.value:.{each.decimals}f}, floor {each.floor:g}")
    aims = [each for each in figures if each.aim is not None]
    print(
        f"{seconds:.0f} s, {f'{len(missed)} floors missed' if missed else 'floors reached'}, "
        f"{sum(each.is_aim_met for each in aims)} of {len(aims)} aims reached"
    )
    return 1 if missed or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
