"""The arithmetic of benchmarks/mini_quality.py, and that the paraphrases it asks are held out."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import toy

from audiosearch.library import Library, Models

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "mini_quality.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mini_quality", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["mini_quality"] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


# -- held out ------------------------------------------------------------------------------------------------------


def test_no_paraphrase_is_in_the_phrase_book_or_names_its_label(bench: ModuleType):
    from audiosearch.trainer.captions import read_phrases
    from audiosearch.trainer.recipe import find_recipe

    book = read_phrases(find_recipe("mini").parent / "phrases.yaml")
    texts = [phrase for section in (book.labels, book.classes) for said in section.values() for phrase in said]
    paraphrases = json.loads(bench.PARAPHRASES.read_text(encoding="utf-8"))
    assert len(paraphrases) == len({each["label"] for each in paraphrases}) == 30
    assert {each["label"] for each in paraphrases} <= set(book.labels)
    assert bench.not_held_out(paraphrases, texts) == []


def test_not_held_out_is_seen(bench: ModuleType):
    paraphrases = [
        {"text": "A  puppy, yapping!", "label": "dog bark"},
        {"text": "some dogs outside", "label": "dog bark"},
        {"text": "a chirp at dawn", "label": "birds chirping"},
        {"text": "it barks", "label": "dog bark"},
        {"text": "a catalogue", "label": "cat meow"},  # three letters of a name are no word of it
    ]
    found = bench.not_held_out(paraphrases, ["a puppy yapping", "rain"])
    assert len(found) == 3
    assert "training text" in found[0] and "puppy" in found[0]
    assert "'chirp'" in found[1]
    assert "'barks'" in found[2]


def test_unseen_questions_are_unseen(bench: ModuleType):
    from audiosearch.trainer import captions

    trained = {*captions.FOREGROUND_QUESTIONS, *captions.BACKGROUND_QUESTIONS, *captions.CATEGORY_QUESTIONS}
    assert [question in trained for question, _, _ in bench.QUESTIONS] == [seen for _, _, seen in bench.QUESTIONS]
    assert {seen for _, _, seen in bench.QUESTIONS} == {True, False}


# -- figures -------------------------------------------------------------------------------------------------------


def test_nearest_label(bench: ModuleType):
    scores = np.array([[0.9, 0.2, 0.5, -np.inf], [0.1, 0.3, 0.5, -np.inf]])
    relevant = np.array([[True, True, True, True], [False, False, False, False]])
    # Right, wrong, a tie, a clip without a vector.
    assert bench.nearest_label_accuracy(scores, relevant) == 0.25


def test_random_level_of_precision_is_the_share_of_relevant_clips(bench: ModuleType):
    relevant = np.zeros((40, 50), dtype=bool)
    relevant[:, :5] = True
    found = bench.random_level(relevant, draws=50)
    assert found.precision_at_1 == pytest.approx(0.1, abs=0.02)
    assert found.precision_at_5 == pytest.approx(0.1, abs=0.01)
    assert (found.queries, found.items) == (40, 50)


def test_share_nearer(bench: ModuleType):
    sounds = np.array([[1, 0], [0.6, 0.8], [0, 1]], dtype=np.float32)
    wanted, other = np.tile(np.float32([1, 0]), (3, 1)), np.tile(np.float32([0, 1]), (3, 1))
    assert bench.share_nearer(sounds, wanted, other) == pytest.approx(1 / 3)


def test_file_scores_are_those_of_the_library(bench: ModuleType, tmp_path: Path):
    """A column a clip, in the order given, whatever the ranking; a clip without a vector has minus infinity."""
    files = {"high.wav": toy.tone(2_000, 1.0), "low.wav": toy.tone(200, 1.0), "none.wav": np.zeros(16_000, np.float32)}
    for name, sound in files.items():
        toy.write_wav(tmp_path / name, sound)
    clips = [bench.Clip(str(tmp_path / name), name, True) for name in files]
    models = Models(lambda name: toy.description(), lambda name, **_: toy.HandEmbedder())
    with Library.open(tmp_path / "library", create=True, models=models) as library:
        library.ingest([clip.path for clip in clips], workers=1)
        scores = bench.file_scores(library, ["a", "b"], clips)
        assert scores.shape == (2, 3)
        assert np.isneginf(scores[:, 2]).all()
        for row, text in enumerate(("a", "b")):
            for hit in library.query(text).hits:
                assert scores[row, list(files).index(Path(hit.path).name)] == hit.score


# -- mixtures ------------------------------------------------------------------------------------------------------


def test_mixture_level(bench: ModuleType):
    rate = 16_000
    t = np.arange(2 * rate) / rate
    front, back = np.sin(2 * np.pi * 500 * t).astype(np.float32), np.sin(2 * np.pi * 3_000 * t).astype(np.float32)
    mixed = bench.mixture(front, 0.01 * back, rate)  # how loud the clips were does not matter
    assert mixed.dtype == np.float32 and mixed.size == 5 * rate and np.abs(mixed).max() == pytest.approx(0.7)
    power = np.abs(np.fft.rfft(mixed)) ** 2
    middle = int(1_500 * mixed.size / rate)
    assert 10 * np.log10(power[:middle].sum() / power[middle:].sum()) == pytest.approx(6.0, abs=0.1)


def test_pairs_differ_and_repeat(bench: ModuleType):
    clips = [bench.Clip(f"{label}{n}", label, True) for label in "abcde" for n in range(3)]
    pairs = bench.draw_pairs(clips, 50, seed=1)
    assert pairs == bench.draw_pairs(clips, 50, seed=1) != bench.draw_pairs(clips, 50, seed=2)
    assert len(pairs) == 50
    assert all(pair.front.label != pair.back.label for pair in pairs)


# -- report --------------------------------------------------------------------------------------------------------


def test_card(bench: ModuleType):
    card = "# A\n\n## Data\n\nd\n\n## Figures\n\nNot measured.\n## deeper\n\n## Limits\n\n- l\n"
    once = bench.with_figures(card, r"| \1 | 0.5 |")
    assert once == "# A\n\n## Data\n\nd\n\n## Figures\n\n| \\1 | 0.5 |\n\n## Limits\n\n- l\n"
    assert bench.with_figures(once, r"| \1 | 0.5 |") == once
    for bad in ("# A\n", "## Limits\n\n## Figures\n", "## Figures\n"):
        with pytest.raises(ValueError, match="Figures"):
            bench.with_figures(bad, "x")


def test_the_trainer_writes_such_a_card(bench: ModuleType):
    from audiosearch.trainer.export import CARD

    assert "| a |" in bench.with_figures(CARD, "| a |")


def test_markdown(bench: ModuleType):
    table = bench.markdown([bench.Figure("one", 0.5, 0.02, 0.75), bench.Figure("two", 1.0, 0.5)])
    assert table.splitlines()[2:] == ["| one | 0.500 | 0.020 | 0.75 |", "| two | 1.000 | 0.500 |  |"]


def test_without_data_it_says_so(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("AUDIOSEARCH_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setattr(sys, "argv", ["mini_quality.py"])
    assert bench.main() == 2
    said = capsys.readouterr().err
    assert "nowhere" in said and "AUDIOSEARCH_DATA" in said
