"""How well a model finds real sounds it was not trained on, by the whole path: files, ingest, store, index, query.

    python benchmarks/mini_quality.py [--model NAME_OR_DIR] [--data DIR] [--json FILE] [--write-card]

Ingests the `valid` clips of the labelled collection in $AUDIOSEARCH_DATA (default: `shared/data` beside the checkout)
into a temporary library and asks it for label names and for the paraphrases of `paraphrases.json`; every clip is
ranked. Then mixes pairs of clips, one 6 dB below the other, and embeds each mixture under questions about either.

Exit code 0 if the aims are met, 1 if one is missed or a paraphrase is not held out, 2 without data or a model.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from audiosearch import Library, metrics
from audiosearch.config import DEFAULT_MODEL
from audiosearch.errors import AudioSearchError

if TYPE_CHECKING:
    from audiosearch.embed import AudioTextEmbedder
    from audiosearch.types import Samples

REPOSITORY = Path(__file__).resolve().parent.parent
PARAPHRASES = REPOSITORY / "benchmarks" / "paraphrases.json"
LEAST_CLIPS = 3  # of a label, to be asked for among all clips
MIXTURES, MIXTURE_SECONDS, QUIETER_DB, SEED = 100, 5.0, 6.0, 20_240_601
# Question, whether it asks for what is behind, whether training used the very words.
QUESTIONS = (
    ("main sound", False, True),
    ("what is in the background?", True, True),
    ("which sound stands out?", False, False),
    ("what do you hear far away?", True, False),
)
NO_DATA = 2


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip of the collection; `is_esc` if it carries an ESC-50 fold."""

    path: str
    label: str
    is_esc: bool


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: what was measured, what guessing reaches, what must be reached."""

    name: str
    value: float
    random: float
    aim: float | None = None


# -- data ----------------------------------------------------------------------------------------------------------


def data_folder(chosen: str | None) -> Path:
    """`chosen`, else $AUDIOSEARCH_DATA, else `shared/data` beside the checkout; absolute."""
    place = chosen or os.environ.get("AUDIOSEARCH_DATA") or REPOSITORY.parent / "shared" / "data"
    return Path(place).expanduser().resolve()


def valid_clips(data: Path) -> list[Clip]:
    """The clips that are never trained on. Raises FileNotFoundError without `manifest.csv`."""
    with (data / "manifest.csv").open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["split"] == "valid"]
    return [Clip(str(data / row["file"]), row["label"], bool(row["fold"])) for row in rows]


def training_texts(data: Path) -> tuple[str, ...]:
    """Every caption, phrase and category text that training may see."""
    from audiosearch.trainer.captions import build_corpus, read_phrases
    from audiosearch.trainer.converters import labelled_clips
    from audiosearch.trainer.recipe import find_recipe

    book = read_phrases(find_recipe("mini").parent / "phrases.yaml")
    rows = labelled_clips(data / "manifest.csv", tiers=("A", "B"))
    return build_corpus(rows, book, data / "text" / "ucs-8.2.1-en.json", (), seed=0).texts


def words_of(text: str) -> list[str]:
    """The words of `text`, small, without punctuation."""
    return re.findall(r"[a-z0-9]+", text.lower().replace("'", ""))


def not_held_out(paraphrases: Iterable[dict[str, str]], texts: Iterable[str]) -> list[str]:
    """What is wrong with `paraphrases` ({"text", "label"}): a text that training sees too, or a word of its label.

    A word counts as the label's also if one is the other's beginning (of at least four letters): chirp, chirping.
    """
    seen = {" ".join(words_of(text)) for text in texts}
    wrong = []
    for each in paraphrases:
        words, label = words_of(each["text"]), words_of(each["label"])
        if " ".join(words) in seen:
            wrong.append(f"{each['text']!r} ({each['label']}) is a training text")
        shared = [word for word in words if any(_same_word(word, own) for own in label)]
        wrong += [f"{each['text']!r} shares {word!r} with its label {each['label']!r}" for word in shared]
    return wrong


def _same_word(a: str, b: str) -> bool:
    short, long = sorted((a, b), key=len)
    return a == b or (len(short) >= 4 and long.startswith(short))


# -- retrieval -----------------------------------------------------------------------------------------------------


def file_scores(library: Library, texts: Sequence[str], clips: Sequence[Clip]) -> NDArray[np.float64]:
    """Scores (texts, clips): of each file its best moment's, minus infinity where it has none."""
    column = {clip.path: i for i, clip in enumerate(clips)}
    scores = np.full((len(texts), len(clips)), -np.inf)
    for row, text in enumerate(texts):
        for hit in library.query(text, k=len(clips)).hits:
            at = column[hit.path]
            scores[row, at] = max(scores[row, at], hit.score)
    return scores


def labels_relevant(labels: Sequence[str], clips: Sequence[Clip]) -> NDArray[np.bool_]:
    """Relevance (labels, clips)."""
    return np.array([[clip.label == label for clip in clips] for label in labels], dtype=bool)


def nearest_label_accuracy(scores: NDArray[np.float64], relevant: NDArray[np.bool_]) -> float:
    """Share of clips (columns) whose own label (row) scores above every other; a tie is a miss."""
    own = np.where(relevant, scores, -np.inf).max(axis=0)
    others = np.where(relevant, -np.inf, scores).max(axis=0)
    return float((own > others).mean())


def random_level(relevant: NDArray[np.bool_], draws: int = 20) -> metrics.Retrieval:
    """What guessing reaches, over that many random rankings."""
    rng = np.random.default_rng(SEED)
    found = [metrics.retrieval(rng.random(relevant.shape), relevant) for _ in range(draws)]
    mean = {name: float(np.mean([getattr(one, name) for one in found])) for name in asdict(found[0])}
    return metrics.Retrieval(**{**mean, "queries": relevant.shape[0], "items": relevant.shape[1]})


def retrieval_figures(library: Library, clips: Sequence[Clip], paraphrases: Sequence[dict[str, str]]) -> list[Figure]:
    """Label names over the ESC-50 clips, label names over all clips, paraphrases over the ESC-50 clips."""
    is_esc = np.array([clip.is_esc for clip in clips])
    esc = [clip for clip in clips if clip.is_esc]
    esc_labels = sorted({clip.label for clip in esc})
    counts = Counter(clip.label for clip in clips)
    all_labels = sorted(label for label, count in counts.items() if count >= LEAST_CLIPS)
    asked = list(dict.fromkeys((*esc_labels, *all_labels, *(each["text"] for each in paraphrases))))
    table = dict(zip(asked, file_scores(library, asked, clips), strict=True))

    def scores(texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([table[text] for text in texts])

    figures = []
    by_name, relevant = scores(esc_labels)[:, is_esc], labels_relevant(esc_labels, esc)
    found, chance = metrics.retrieval(by_name, relevant), random_level(relevant)
    what = f"ESC-50 names ({found.queries} queries, {found.items} clips)"
    figures += [
        Figure(f"{what}: precision@1", found.precision_at_1, chance.precision_at_1, 0.75),
        Figure(f"{what}: precision@5", found.precision_at_5, chance.precision_at_5, 0.55),
        Figure(f"{what}: mAP", found.mean_average_precision, chance.mean_average_precision),
        Figure(
            f"ESC-50 clips ({found.items}): nearest name is the clip's own",
            nearest_label_accuracy(by_name, relevant),
            1 / found.queries,
        ),
    ]
    relevant = labels_relevant(all_labels, clips)
    found, chance = metrics.retrieval(scores(all_labels), relevant), random_level(relevant)
    what = f"All names with {LEAST_CLIPS}+ clips ({found.queries} queries, {found.items} clips)"
    figures.append(Figure(f"{what}: mAP", found.mean_average_precision, chance.mean_average_precision))

    relevant = labels_relevant([each["label"] for each in paraphrases], esc)
    found = metrics.retrieval(scores([each["text"] for each in paraphrases])[:, is_esc], relevant)
    chance = random_level(relevant)
    what = f"Paraphrases without a word of the name ({found.queries} queries, {found.items} clips)"
    figures.append(Figure(f"{what}: precision@1", found.precision_at_1, chance.precision_at_1, 0.3))
    figures.append(Figure(f"{what}: mAP", found.mean_average_precision, chance.mean_average_precision))
    return figures


# -- instructions --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pair:
    """What a mixture is made of."""

    front: Clip
    back: Clip


def draw_pairs(clips: Sequence[Clip], count: int, seed: int) -> list[Pair]:
    """`count` pairs of clips with different labels, each label as likely as any other."""
    rng = np.random.default_rng(seed)
    by_label = {label: [c for c in clips if c.label == label] for label in sorted({c.label for c in clips})}
    pairs = []
    for _ in range(count):
        front, back = rng.choice(list(by_label), size=2, replace=False)
        chosen = [by_label[label][int(rng.integers(len(by_label[label])))] for label in (front, back)]
        pairs.append(Pair(*chosen))
    return pairs


def mixture(front: Samples, back: Samples, rate: int) -> Samples:
    """Both sounds, looped with a short pause to MIXTURE_SECONDS, `back` QUIETER_DB below `front` in RMS."""

    def filled(clip: Samples) -> NDArray[np.float64]:
        pause = np.zeros(rate // 4)
        long = np.resize(np.concatenate([clip.astype(np.float64), pause]), int(MIXTURE_SECONDS * rate))
        return long / np.sqrt(np.mean(long**2))

    mixed = filled(front) + 10 ** (-QUIETER_DB / 20) * filled(back)
    return (0.7 * mixed / np.abs(mixed).max()).astype(np.float32)


def share_nearer(sounds: NDArray[np.float32], wanted: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Of n unit rows (n, dim) each: the share of sounds nearer to their `wanted` than to their `other`."""
    return float((np.einsum("nd,nd->n", sounds, wanted) > np.einsum("nd,nd->n", sounds, other)).mean())


def instruction_figures(embedder: AudioTextEmbedder, clips: Sequence[Clip]) -> list[Figure]:
    """For each question the share of mixtures that lie nearer to the right name, with and without the question."""
    from audiosearch.audio import read_span

    pairs = draw_pairs([clip for clip in clips if clip.is_esc], MIXTURES, SEED)
    rate = embedder.sample_rate
    sounds = [mixture(read_span(pair.front.path), read_span(pair.back.path), rate) for pair in pairs]
    front = embedder.embed_text([pair.front.label for pair in pairs])
    back = embedder.embed_text([pair.back.label for pair in pairs])
    plain = embedder.embed_audio(sounds, task="document")
    figures = []
    for question, is_behind, was_trained in QUESTIONS:
        wanted, other = (back, front) if is_behind else (front, back)
        asked = embedder.embed_audio(sounds, instruction=question, task="query")
        what = f"Mixtures ({len(pairs)}), {'quieter' if is_behind else 'louder'} sound wanted"
        new = "" if was_trained else ", words not used in training"
        if was_trained:
            figures.append(Figure(f"{what}: without a question", share_nearer(plain, wanted, other), 0.5))
        figures.append(Figure(f"{what}: “{question}”{new}", share_nearer(asked, wanted, other), 0.5))
    return figures


# -- report --------------------------------------------------------------------------------------------------------


def markdown(figures: Sequence[Figure]) -> str:
    """The table."""
    lines = ["| | value | random | aim |", "|---|---|---|---|"]
    for each in figures:
        aim = "" if each.aim is None else f"{each.aim:.2f}"
        lines.append(f"| {each.name} | {each.value:.3f} | {each.random:.3f} | {aim} |")
    return "\n".join(lines)


def with_figures(card: str, body: str) -> str:
    """The model card with `body` between its headings Figures and Limits. Raises ValueError if it lacks them."""
    pattern = re.compile(r"(?ms)^## Figures$.*?(?=^## Limits$)")
    if len(pattern.findall(card)) != 1:
        raise ValueError("the model card has no headings '## Figures' and '## Limits', in this order, once each")
    return pattern.sub(lambda _: f"## Figures\n\n{body}\n\n", card)


def card_body(figures: Sequence[Figure], clips: Collection[Clip]) -> str:
    """The section of the model card."""
    return (
        f"Measured by `python benchmarks/mini_quality.py --write-card` on the {len(clips)} held-out (`valid`) clips: "
        "ingested as files, every clip ranked by query.\n\n" + markdown(figures)
    )


def measure(
    model: str, device: str | None, clips: Sequence[Clip], paraphrases: Sequence[dict[str, str]]
) -> list[Figure]:
    """Every figure of the model. Raises AudioSearchError if it does not load or a clip cannot be read."""
    from audiosearch.embed import load_embedder

    with (
        tempfile.TemporaryDirectory() as place,
        Library.open(place, create=True, model=model, device=device) as library,
    ):
        summary = library.ingest([clip.path for clip in clips])
        print(
            f"{summary.files_indexed} clips, {summary.audio_seconds / 60:.1f} min, ingested in "
            f"{summary.elapsed_seconds:.1f} s on {summary.device}",
            file=sys.stderr,
        )
        if summary.failed or summary.recordings_shared:
            raise AudioSearchError(
                f"{len(summary.failed)} clips could not be read and {summary.recordings_shared} hold the same sound as "
                "another: the figures would not be of the whole set"
            )
        figures = retrieval_figures(library, clips, paraphrases)
    return figures + instruction_figures(load_embedder(model, device=device), clips)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME_OR_DIR")
    parser.add_argument("--device")
    parser.add_argument("--data", metavar="DIR", help="the folder that holds manifest.csv")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--write-card", action="store_true", help="put the table into the model's README.md")
    options = parser.parse_args()
    started = time.perf_counter()
    data = data_folder(options.data)
    if not (data / "manifest.csv").is_file():
        print(f"skipped: {data} has no manifest.csv: name the folder in AUDIOSEARCH_DATA or --data", file=sys.stderr)
        return NO_DATA
    clips, paraphrases = valid_clips(data), json.loads(PARAPHRASES.read_text(encoding="utf-8"))
    wrong = not_held_out(paraphrases, training_texts(data))
    for line in wrong:
        print(f"error: not held out: {line}", file=sys.stderr)
    try:
        from audiosearch.model.fingerprint import describe_model

        model = describe_model(options.model)
        figures = measure(options.model, options.device, clips, paraphrases)
    except AudioSearchError as error:
        print(f"mini_quality: {error}", file=sys.stderr)
        return NO_DATA
    print(f"{Path(model.name).name}\n\n{markdown(figures)}\n")
    seconds = time.perf_counter() - started
    if options.json:
        result = {"model": model.name, "fingerprint": model.fingerprint, "seconds": round(seconds, 1)}
        text = json.dumps({**result, "figures": [asdict(each) for each in figures], "not_held_out": wrong}, indent=2)
        Path(options.json).write_text(text + "\n", encoding="utf-8")
    if options.write_card:
        card = Path(model.directory, "README.md")
        card.write_text(with_figures(card.read_text(encoding="utf-8"), card_body(figures, clips)), encoding="utf-8")
    missed = [each.name for each in figures if each.aim is not None and each.value < each.aim]
    for name in missed:
        print(f"MISSED: {name}", file=sys.stderr)
    print(f"{seconds:.0f} s, {'aims met' if not missed else f'{len(missed)} aims missed'}")
    return 1 if missed or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
