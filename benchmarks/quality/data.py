"""The clips that are never trained on, the queries written by hand, and the checks that they are held out."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from audiosearch.errors import UsageError

BENCHMARKS = Path(__file__).resolve().parent.parent
PARAPHRASES = BENCHMARKS / "paraphrases.json"
ABSENT = BENCHMARKS / "absent.json"
SCENE_TEXTS, GENERATED = 4_000, 200  # looked at, of what training composes
# Words that say nothing of a sound, in labels ("synth in minor thirds") and queries alike.
SMALL_WORDS = {"a", "an", "and", "at", "in", "of", "on", "the", "to"}
_ENDINGS = ("ing", "ers", "er", "ed", "es", "s", "e")


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip of the collection. `is_esc`: it carries an ESC-50 fold; `family`: clips of one original recording, of a
    spoken word the speaker's; `source`: the collection it comes from."""

    path: str
    label: str
    is_esc: bool
    split: str = "valid"
    sound_class: str = ""
    group: str = ""
    family: str = ""
    source: str = ""
    seconds: float = 0.0
    fold: str = ""  # of ESC-50
    attribution: str = ""
    licence: str = ""


def data_folder(chosen: str | None) -> Path:
    """`chosen`, else $AUDIOSEARCH_DATA, else `shared/data` beside the checkout; absolute."""
    place = chosen or os.environ.get("AUDIOSEARCH_DATA") or BENCHMARKS.parent.parent / "shared" / "data"
    return Path(place).expanduser().resolve()


def read_clips(data: Path) -> list[Clip]:
    """Every clip of the collection. Raises FileNotFoundError without `manifest.csv`."""
    with (data / "manifest.csv").open(encoding="utf-8", newline="") as lines:
        return [
            Clip(
                path=str(data / row["file"]),
                label=row["label"],
                is_esc=bool(row["fold"]),
                split=row["split"],
                sound_class=row["class"],
                group=row["group"],
                family=row["family"],
                source=row["source_repo"],
                seconds=float(row["seconds"]),
                fold=row["fold"],
                attribution=row.get("attribution", ""),
                licence=row.get("licence", ""),
            )
            for row in csv.DictReader(lines)
        ]


def judged_on(clips: Iterable[Clip], parts: Collection[str]) -> list[Clip]:
    """The clips without the `valid` ones, and in their place those of collections and folds ("fold 4") that a model was
    trained without: to tune by. Raises UsageError for a part that has no clip."""
    train = [clip for clip in clips if clip.split != "valid"]
    named = [{clip.source, f"fold {clip.fold}"} & {*parts} for clip in train]
    if unknown := sorted({*parts} - set().union(*named)):
        raise UsageError(f"no `train` clip is of {', '.join(unknown)}")
    return [replace(clip, split="valid") if of else clip for clip, of in zip(train, named, strict=True)]


def read_paraphrases() -> list[dict[str, str]]:
    """{"text", "label"} each."""
    found: list[dict[str, str]] = json.loads(PARAPHRASES.read_text(encoding="utf-8"))
    return found


def read_absent() -> list[str]:
    """What no clip holds: things that sound, things that do not, and no words at all."""
    found: list[str] = json.loads(ABSENT.read_text(encoding="utf-8"))
    return found


def training_texts(data: Path) -> tuple[str, ...]:
    """Every caption, phrase, question and category text that training may see, of both tiers; of what is composed
    without end, scenes and generated sounds, a sample."""
    from audiosearch.trainer.captions import build_corpus, read_phrases
    from audiosearch.trainer.converters import labelled_clips
    from audiosearch.trainer.recipe import find_recipe
    from audiosearch.trainer.synthesis.generators import render_bank
    from audiosearch.trainer.synthesis.wording import corpus_samples

    book = read_phrases(find_recipe("mini").parent / "phrases.yaml")
    rows = labelled_clips(data / "manifest.csv", tiers=("A", "B"))
    corpus = build_corpus(rows, book, data / "text" / "ucs-8.2.1-en.json", (), seed=0)
    scenes = corpus_samples(rows, book, SCENE_TEXTS, np.random.default_rng(0))
    generated = [text for sound in render_bank(GENERATED, seed=0) for text in (*sound.phrases, *sound.whole_phrases)]
    return (*corpus.texts, *scenes, *generated)


# -- held out ------------------------------------------------------------------------------------------------------


def words_of(text: str) -> list[str]:
    """The words of `text`, small, without punctuation."""
    return re.findall(r"[a-z0-9]+", text.lower().replace("'", "").replace("’", ""))


def plain(text: str) -> str:
    """`text` as two that say the same word for word compare equal."""
    return " ".join(words_of(text))


def not_held_out(paraphrases: Iterable[dict[str, str]], texts: Iterable[str]) -> list[str]:
    """What is wrong with `paraphrases` ({"text", "label"}): a text that training sees too, or a word of its label."""
    seen = {plain(text) for text in texts}
    wrong = []
    for each in paraphrases:
        if plain(each["text"]) in seen:
            wrong.append(f"{each['text']!r} ({each['label']}) is a training text")
        shared = shared_words(each["text"], each["label"])
        wrong += [f"{each['text']!r} shares {word!r} with its label {each['label']!r}" for word in shared]
    return wrong


def not_absent(queries: Iterable[str], labels: Sequence[str]) -> list[str]:
    """What is wrong with `queries` for things no clip holds: a word of a label that some clip has."""
    wrong = []
    for query in queries:
        for label in labels:
            wrong += [f"{query!r} shares {word!r} with the label {label!r}" for word in shared_words(query, label)]
    return wrong


def shared_words(text: str, label: str) -> list[str]:
    """The words of `text` that are words of `label` too, but for small words."""
    own = [word for word in words_of(label) if word not in SMALL_WORDS]
    return [word for word in words_of(text) if word not in SMALL_WORDS and any(_same_word(word, each) for each in own)]


def _same_word(a: str, b: str) -> bool:
    """Whether two words are one in another form (cry, cries), or one begins the other (rain, rainfall).

    What begins the other has at least four letters, as a stem five: "passing" is no form of "passport".
    """
    return _begins(a, b, 4) or _begins(_stem(a), _stem(b), 5)


def _begins(a: str, b: str, at_least: int) -> bool:
    short, long = sorted((a, b), key=len)
    return a == b or (len(short) >= at_least and long.startswith(short))


def _stem(word: str) -> str:
    """`word` without its ending, where three letters are left: crying, cries -> cry."""
    word = word[:-3] + "y" if word.endswith("ies") else word
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word
