"""What is asked and said of a scene: answers that differ, wordings of the usual form, nothing that is held out."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scene_helpers import BOOK, CAT, DOG, ENGINE, LEFT, PIANO, RAIN, RIGHT, TRAIN, WIND, make_pack, rngs

from audiosearch.errors import UsageError
from audiosearch.trainer.captions import PhraseBook, build_corpus, read_phrases
from audiosearch.trainer.manifest import ManifestRow
from audiosearch.trainer.pack import FeaturePack
from audiosearch.trainer.recipe import find_recipe
from audiosearch.trainer.synthesis import questions, templates
from audiosearch.trainer.synthesis.facts import PRESENCES, SceneFacts, aspects, differ, is_there
from audiosearch.trainer.synthesis.wording import (
    Wording,
    as_clause,
    corpus_samples,
    random_facts,
    two_aspects,
    with_adjective,
)

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def pack() -> FeaturePack:
    return make_pack()


# -- what can be asked -----------------------------------------------------------------------------------------------


def names(facts: SceneFacts) -> dict[str, str]:
    return {aspect.name: aspect.meaning for aspect in aspects(facts)}


def scene_of(kind: str, *clips: int, **more) -> SceneFacts:
    rows = make_pack().rows
    return SceneFacts(kind, tuple(rows[clip] for clip in clips), **more)  # type: ignore[arg-type]


def test_a_layered_scene_is_asked_for_front_and_back_only_where_they_can_be_told_apart():
    told = names(scene_of("layered", DOG, RAIN))
    assert (told["main"], told["background"]) == ("sound dog bark", "sound rain")
    assert (told["topic animal"], told["topic weather"]) == ("sound dog bark", "sound rain")
    unclear = names(scene_of("layered", DOG, RAIN, told_apart=False))
    assert "main" not in unclear and "background" not in unclear and "besides" in unclear
    assert not [name for name in names(scene_of("layered", DOG, CAT)) if name.startswith("topic")], "two animals"


def test_order_count_word_loudness_place_and_kind():
    ordered = names(scene_of("ordered", DOG, RAIN, PIANO))
    assert (ordered["first"], ordered["last"]) == ("sound dog bark", "sound piano")
    after = {(a.other.label, a.row.label) for a in aspects(scene_of("ordered", DOG, RAIN, PIANO)) if a.name == "after"}
    assert after == {("dog bark", "rain"), ("rain", "piano")}
    counted = names(scene_of("counted", DOG, count=3))
    assert counted["count"] == "count 3" and counted["kind"] == "kind animals"
    single = names(scene_of("single", LEFT, loudness="quiet", place="indoor"))
    assert (single["word"], single["loudness"], single["place"]) == ("word left", "loudness quiet", "place indoor")
    assert "word" not in names(scene_of("layered", LEFT, RIGHT)), "two words"


def test_presence_is_asked_for_only_where_it_is_known():
    rows = make_pack().rows
    assert is_there("speech", [rows[LEFT], rows[RAIN]]) is True
    assert is_there("speech", [rows[DOG], rows[PIANO]]) is False
    assert is_there("speech", [rows[DOG], ManifestRow("x", "x", group="other")]) is None
    assert is_there("music", [rows[LEFT], rows[PIANO]]) is True
    assert is_there("vehicle", [rows[ENGINE], rows[WIND]]) is True
    assert is_there("wind", [rows[ENGINE]]) is False and is_there("wind", [rows[PIANO]]) is False
    assert is_there("music", [ManifestRow("x", "x", sound_class="synth & electronic", group="music")]) is None
    assert names(scene_of("layered", LEFT, PIANO))["presence music"] == "presence music yes"
    assert set(PRESENCES) == set(questions.PRESENCE_NOUNS)


def test_two_questions_of_a_scene_have_different_answers(pack):
    asked = Counter()
    for rng in rngs(300):
        facts = random_facts(pack.rows, rng)
        pair = two_aspects(facts, rng)
        if pair is None:
            continue
        one, two = pair
        assert one.meaning != two.meaning and differ(one, two)
        asked[one.name, two.name] += 1
    assert asked["main", "background"] > 20 and asked["first", "last"] > 10


def every_template() -> list[str]:
    tables = [value for name, value in vars(templates).items() if name.isupper()]
    lists = [texts for table in tables for texts in (table.values() if isinstance(table, dict) else [table])]
    return [text for texts in lists for text in texts]


# -- wording ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noun", "clause"),
    [
        ("a dog barking in the yard", "a dog is barking in the yard"),
        ("people clapping hands", "people are clapping hands"),
        ("an alarm clock beeping", "an alarm clock is beeping"),
        ("it's raining", "it's raining"),
        ("the pitch is rising", "the pitch is rising"),
        ("a crying baby", ""),
        ("the sound of breaking glass", ""),
        ("a guitar string", ""),
        ("a baby who won't stop crying", ""),
        ("rain", ""),
    ],
)
def test_clauses_are_made_of_nouns_with_a_participle(noun, clause):
    assert as_clause(noun) == clause


def test_an_adjective_goes_behind_the_article():
    assert with_adjective("a dog barking", "faint") == "a faint dog barking"
    assert with_adjective("an engine", "loud") == "a loud engine"
    assert with_adjective("a dog", "audible") == "an audible dog"
    assert with_adjective("the bells", "soft") == "the soft bells"
    assert with_adjective("rain", "soft") == "soft rain"


def test_captions_are_whole_sentences_of_the_scene_s_own_words(pack):
    wording = Wording(BOOK)
    for rng in rngs(500):
        facts = random_facts(pack.rows, rng)
        caption = wording.caption(facts, rng)
        assert "{" not in caption and "  " not in caption and caption == caption.strip()
        said = [*wording.nouns(row), *wording.clauses(row), row.label.split()[-1]] if (row := facts.rows[0]) else []
        assert any(phrase.split(" ")[-1] in caption for phrase in said), (facts, caption)


def test_clauses_come_from_the_book_and_from_nouns_but_never_as_nouns(pack):
    wording = Wording(replace(BOOK, labels={**BOOK.labels, "rain": ("a downpour", "it's raining")}))
    assert wording.clauses(pack.rows[RAIN]) == ("it rains", "it's raining")
    assert wording.nouns(pack.rows[RAIN]) == ("a rain", "rain", "a downpour")
    assert wording.clauses(pack.rows[DOG]) == ("a dog barks", "a dog is barking")
    said = {wording.caption(scene_of("layered", DOG, RAIN), rng) for rng in rngs(400)}
    assert any(text.endswith(" while it rains") for text in said)
    assert not any(re.search(r"(over|behind|by|of|under|amid) it's raining", text) for text in said)


def test_the_usual_form_is_said_most():
    said = Counter()
    for rng in rngs(400):
        text = Wording(BOOK).caption(scene_of("layered", DOG, WIND), rng)
        said[text.endswith(" with wind in the background") or text.endswith(" with a wind in the background")] += 1
    assert 0.1 < said[True] / 400 < 0.3


def test_captions_count_and_order_as_the_facts_do():
    wording = Wording(BOOK)
    words = {1: "once|one|single|nothing more", 2: "twice|two|2|couple", 3: "three|3|thrice", 4: "four|4", 5: "five|5"}
    for count, pattern in words.items():
        for rng in rngs(40):
            assert re.search(rf"\b({pattern})\b", wording.caption(scene_of("counted", DOG, count=count), rng))
    for rng in rngs(60):
        text = wording.caption(scene_of("ordered", WIND, TRAIN), rng)
        swapped = re.search(r"^a?\s?(train) (after|once|preceded)|but first|^after", text)
        starts = text.index("wind") < text.index("train")
        assert starts != bool(swapped and not text.startswith("after")), text


def test_every_question_has_many_wordings_and_every_answer_some():
    for name, texts in questions.QUESTIONS.items():
        assert len(texts) == len(set(texts)) >= 12, name
    assert all(len(nouns) >= 2 for nouns in questions.TOPIC_NOUNS.values())
    assert all(len(nouns) >= 2 and more for nouns, more in questions.PRESENCE_NOUNS.values())
    assert len(set(questions.every_question())) == len(questions.every_question())
    for group in questions.ANSWERS.values():
        assert all(len(texts) >= 4 for texts in group.values())
    texts = every_template()
    assert len(texts) > 150
    assert set(re.findall(r"{(\w+)}", " ".join(texts))) == {*"abcABCwtn", "label", "loud", "quiet"}


def test_questions_and_answers_of_a_scene_are_filled(pack):
    wording = Wording(BOOK)
    for rng in rngs(150):
        for question, answer in wording.questions(random_facts(pack.rows, rng), rng):
            assert question and answer and "{" not in question + answer


# -- held out --------------------------------------------------------------------------------------------------------

SMALL = re.findall(
    r"\w+",
    """a an and are at be by do does for from hear heard i in is it its of on one or s someone something sound sounds
    that the there to up what which who with you""",
)


def content_words(text: str) -> frozenset[str]:
    words = re.findall(r"[a-z0-9]+", text.lower().replace("'", ""))
    return frozenset(re.sub(r"(ing|ed|es|s)$", "", word) or word for word in words if word not in SMALL)


def near(one: str, two: str) -> bool:
    """Whether two texts have most of their content words in common."""
    a, b = content_words(one), content_words(two)
    return one == two or (bool(a and b) and len(a & b) / len(a | b) >= 0.6)


def test_no_wording_is_a_held_out_one_or_nearly(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from quality.confused import OTHER_WORDS

    held_out = [text for pair in OTHER_WORDS.values() for text in pair]
    assert held_out and near("which sound does stand out", held_out[0]), "the check can see one"
    held_out += [each["text"] for each in json.loads((BENCHMARKS / "paraphrases.json").read_text(encoding="utf-8"))]
    book = read_phrases(find_recipe("mini").parent / "phrases.yaml")
    said = [
        *questions.every_question(),
        *questions.every_answer(),
        *(c for all_ in book.clauses.values() for c in all_),
    ]
    said += [text for texts in questions.QUESTIONS.values() for text in texts]
    said += every_template()
    found = [(text, other) for text in said for other in held_out if near(text, other)]
    assert not found


# -- the corpus ------------------------------------------------------------------------------------------------------


def test_scene_texts_go_into_the_corpus_and_come_again(pack):
    texts = corpus_samples(pack.rows, BOOK, 200, np.random.default_rng(3))
    assert len(texts) == len(set(texts)) == 200
    assert texts == corpus_samples(pack.rows, BOOK, 200, np.random.default_rng(3))
    corpus = build_corpus(pack.rows, BOOK, None, [], seed=1, scenes=texts)
    known = set(corpus.texts)
    assert known >= set(texts) and known >= {"it rains", "a dog barks"}
    assert known >= set(questions.every_answer()) and known >= set(questions.every_question())
    assert corpus_samples(pack.rows[:1], PhraseBook({}, {}), 0, np.random.default_rng(0)) == ()


def test_categories_are_taken_apart_into_texts(tmp_path):
    entry = {
        "Category": "AIR",
        "SubCategory": "BURST",
        "Explanations": "Sharp air releases, a can popping open (soda, beer); hiss.",
        "Synonyms": ["airgun", "poof"],
    }
    (tmp_path / "ucs.json").write_text(json.dumps([entry]))
    plain = set(build_corpus([], BOOK, None, [], seed=1).texts)
    more = set(build_corpus([], BOOK, tmp_path / "ucs.json", [], seed=1).texts) - plain
    assert {"air burst", "sharp air releases", "a can popping open (soda, beer)", "burst airgun"} <= more
    assert any(text.startswith("the sound of ") for text in more) and any("poof" in text for text in more)


def test_a_phrase_book_s_clauses_are_optional_and_checked(tmp_path):
    (tmp_path / "p.yaml").write_text("labels: {a: [b]}\nclasses: {}\n")
    assert read_phrases(tmp_path / "p.yaml").clauses == {}
    (tmp_path / "p.yaml").write_text("labels: {}\nclasses: {}\nclauses: {rain: [it rains]}\n")
    assert read_phrases(tmp_path / "p.yaml").clauses == {"rain": ("it rains",)}
    (tmp_path / "p.yaml").write_text("labels: {}\nclasses: {}\nclauses: [x]\n")
    with pytest.raises(UsageError, match="not a phrase book"):
        read_phrases(tmp_path / "p.yaml")
