"""What can be said of a clip: phrase book, templates over it, questions, and the corpus the text side learns from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from audiosearch.errors import UsageError
from audiosearch.trainer.manifest import ManifestRow

TEMPLATES = ("{}", "the sound of {}", "a recording of {}", "{} can be heard", "sound effect of {}", "i hear {}")
BACKGROUND_TEMPLATES = ("{0} with {1} in the background", "{0} over {1}", "{1} behind {0}", "{0} while {1}")
PAIR_TEMPLATES = ("{0} and {1}", "{1} together with {0}", "both {0} and {1}")
FOREGROUND_QUESTIONS = (
    "what is the main sound?",
    "main sound",
    "foreground sound",
    "what is loudest?",
    "what is in the foreground?",
    "the most prominent sound",
)
BACKGROUND_QUESTIONS = (
    "what is in the background?",
    "background sounds",
    "background",
    "what can be heard behind the main sound?",
    "the quieter sound",
    "ambient sound in the background",
)
CATEGORY_QUESTIONS = ("what kind of sound is this?", "sound category", "what category of sound is it?")
GROUP_ANSWERS = {
    "animals": ("an animal sound", "sounds of animals"),
    "nature": ("a sound of nature", "natural environment"),
    "vehicles": ("a vehicle", "sounds of transport and vehicles"),
    "human": ("a human sound without words", "sounds people make"),
    "domestic": ("a household sound", "sounds inside a home"),
    "music": ("music", "a musical instrument"),
    "speech": ("speech", "a person talking"),
    "impacts": ("an impact sound", "something being hit"),
    "tools": ("a tool or machine", "sounds of tools"),
    "ui": ("a user interface sound", "an electronic notification"),
    "weapons": ("a weapon", "sounds of weapons"),
}


@dataclass(frozen=True)
class PhraseBook:
    """Phrases by exact label, and by class for labels without their own."""

    labels: dict[str, tuple[str, ...]]
    classes: dict[str, tuple[str, ...]]

    def phrases(self, row: ManifestRow) -> tuple[str, ...]:
        """Everything that may be said of a row, its caption first; never empty."""
        own = self.labels.get(row.label)
        more = own if own is not None else self.classes.get(row.sound_class, ())
        return (row.text, row.label or row.text, *more)


def read_phrases(path: Path) -> PhraseBook:
    """The phrase book at `path`. Raises UsageError naming the file and the key that is wrong."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        sections = {
            section: {key: tuple(str(phrase) for phrase in phrases) for key, phrases in content[section].items()}
            for section in ("labels", "classes")
        }
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such phrase book") from error
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: not a phrase book: {error}") from error
    return PhraseBook(sections["labels"], sections["classes"])


def fill(template: str, *parts: str) -> str:
    return template.format(*parts)


@dataclass(frozen=True)
class Corpus:
    """Texts for the distillation of the text side. The first `n_sounds` are descriptions of sounds, used for centring;
    the rest are compositions, category descriptions and single words."""

    texts: tuple[str, ...]
    n_sounds: int


def build_corpus(
    rows: Sequence[ManifestRow], book: PhraseBook, categories: Path | None, words: Sequence[str], *, seed: int
) -> Corpus:
    """Captions, phrases, templates over them, pairs, Universal Category System entries and a broad set of words."""
    rng = np.random.default_rng(seed)
    sounds: dict[str, None] = {}
    for row in rows:
        sounds.update(dict.fromkeys(book.phrases(row)))
    sounds.update(dict.fromkeys(phrase for phrases in book.classes.values() for phrase in phrases))
    described = list(sounds)
    extra: dict[str, None] = {}
    for text in described:
        extra.update(dict.fromkeys(fill(template, text) for template in TEMPLATES[1:]))
    for row in rows:
        extra.update(dict.fromkeys(row.alternatives))
    for answers in GROUP_ANSWERS.values():
        extra.update(dict.fromkeys(answers))
    extra.update(dict.fromkeys((*FOREGROUND_QUESTIONS, *BACKGROUND_QUESTIONS, *CATEGORY_QUESTIONS)))
    for template in (*BACKGROUND_TEMPLATES, *PAIR_TEMPLATES):
        picks = rng.integers(len(described), size=(2_500, 2))
        extra.update(dict.fromkeys(fill(template, described[a], described[b]) for a, b in picks))
    if categories is not None:
        extra.update(dict.fromkeys(_category_texts(categories)))
    extra.update(dict.fromkeys(words))
    extra.update(dict.fromkeys(f"the sound of {word}" for word in words[::3]))
    rest = [text for text in extra if text not in sounds]
    return Corpus((*described, *rest), len(described))


def _category_texts(path: Path) -> list[str]:
    """Names, explanations and synonyms of the Universal Category System (CC0)."""
    texts = []
    for entry in json.loads(path.read_text(encoding="utf-8")):
        name = f"{entry['Category']} {entry['SubCategory']}".lower()
        texts += [name, entry["Explanations"].strip().rstrip(".").lower()]
        synonyms = [str(word).lower() for word in entry["Synonyms"]]
        texts += [f"{entry['SubCategory'].lower()} {word}" for word in synonyms]
        texts += [" ".join(synonyms[i : i + 4]) for i in range(0, len(synonyms), 4)]
    return [text for text in texts if text]


def teacher_words() -> list[str]:
    """Whole English words of at least three letters in the teacher's own vocabulary, most frequent first."""
    from audiosearch.trainer.teacher import model_directory

    vocabulary = (model_directory() / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return [word for word in vocabulary if word.isascii() and word.isalpha() and len(word) >= 3]
