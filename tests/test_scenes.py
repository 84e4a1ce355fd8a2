"""Scenes: what is said of one is true of its mel; questions have answers that differ; nothing held out is said."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from audiosearch.errors import UsageError
from audiosearch.model.prompt import Prompt
from audiosearch.trainer.captions import PhraseBook, build_corpus, read_phrases
from audiosearch.trainer.manifest import ManifestRow
from audiosearch.trainer.pack import FeaturePack, Sound, quantise
from audiosearch.trainer.recipe import MixRecipe, ScratchRecipe, find_recipe
from audiosearch.trainer.synthesis import questions, templates
from audiosearch.trainer.synthesis.draw import ClipDraw
from audiosearch.trainer.synthesis.facts import PRESENCES, SceneFacts, aspects, differ, is_there
from audiosearch.trainer.synthesis.groups import GroupMaker, frames_of
from audiosearch.trainer.synthesis.mixer import MixedBatches
from audiosearch.trainer.synthesis.renditions import Facts
from audiosearch.trainer.synthesis.scenes import LOUD_DB, QUIET_DB, SceneMaker
from audiosearch.trainer.synthesis.sketch import Traits
from audiosearch.trainer.synthesis.squares import SquareMaker
from audiosearch.trainer.synthesis.wording import (
    Wording,
    as_clause,
    corpus_samples,
    random_facts,
    two_aspects,
    with_adjective,
)

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
BAND = 4  # mel bins of a clip, every clip its own
# name, group, class, frames, bursts (start, stop); the rest of a clip is 70 dB down
CLIPS = [
    ("dog bark", "animals", "dog", 60, [(10, 30)]),
    ("dog bark", "animals", "dog", 500, [(0, 500)]),
    ("cat meow", "animals", "cat", 400, [(0, 400)]),
    ("wind", "nature", "wind", 500, [(0, 500)]),
    ("rain", "nature", "rain", 450, [(0, 450)]),
    ("engine", "vehicles", "car/truck engine", 420, [(0, 420)]),
    ("train", "vehicles", "train & subway", 420, [(0, 420)]),
    ("piano", "music", "piano", 90, [(5, 60)]),
    ("flute", "music", "flute", 480, [(0, 480)]),
    ("door knock", "domestic", "door", 100, [(5, 20), (60, 75)]),
    ("clapping", "human", "clapping", 50, [(5, 25)]),
    ("speech word left", "speech", "speech", 70, [(5, 55)]),
    ("speech word right", "speech", "speech", 70, [(5, 55)]),
    ("speech word left", "speech", "speech", 70, [(5, 55)]),
    ("speech word right", "speech", "speech", 70, [(5, 55)]),
]
DOG, DOG_LONG, CAT, WIND, RAIN, ENGINE, TRAIN, PIANO, FLUTE, KNOCKS, CLAP, LEFT, RIGHT, LEFT_2, RIGHT_2 = range(15)
BOOK = PhraseBook(
    labels={"rain": ("a downpour", "rain falling on a roof"), "dog bark": ("a dog barking", "woof")},
    classes={"speech": ("someone speaking",)},
    clauses={"rain": ("it rains",), "dog": ("a dog barks",)},
)


def make_pack(**changes) -> FeaturePack:
    """Each clip a band of its own, so that a scene shows where and how loud each is."""
    rows, mels = [], []
    for number, (label, group, kind, frames, bursts) in enumerate(CLIPS):
        mel = np.full((frames, 64), -90.0, dtype=np.float32)
        for start, stop in bursts:
            mel[start:stop, band(number)] = 20 + 2 * (number % 3)
        mels.append(quantise(mel))
        family = ("v1", "v2")[number // LEFT_2] if group == "speech" else f"f{number}"
        rows.append(
            ManifestRow(f"{number}.wav", f"a {label}", label=label, sound_class=kind, group=group, family=family)
        )
    pack = FeaturePack(mel=np.concatenate(mels), offsets=np.cumsum([0, *map(len, mels)]), rows=tuple(rows), dropped=())
    return replace(pack, **changes)


def band(clip: int) -> slice:
    return slice(clip * BAND, (clip + 1) * BAND)


def band_levels(mel: np.ndarray, clip: int) -> np.ndarray:
    """Level of a clip's band in each frame, in dB."""
    return 10 * np.log10((10 ** (mel[:, band(clip)].astype(np.float64) / 10)).sum(axis=1))


def bursts(levels: np.ndarray) -> list[tuple[int, int]]:
    """Runs of frames within 20 dB of the loudest."""
    loud = np.flatnonzero(levels > levels.max() - 20)
    parts = np.split(loud, np.flatnonzero(np.diff(loud) > 1) + 1)
    return [(int(part[0]), int(part[-1]) + 1) for part in parts]


@pytest.fixture(scope="module")
def pack() -> FeaturePack:
    return make_pack()


@pytest.fixture
def maker(pack) -> SceneMaker:
    return SceneMaker(pack, augment=0.0)


class StandInPrompts:
    """Tokens do not matter where only the sounds are looked at."""

    def encode(self, text: str | None, audio_tokens: int, **options: object) -> Prompt:
        return Prompt((1, 2), 1)


def rngs(count: int):
    return (np.random.default_rng((5, number)) for number in range(count))


# -- scenes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [0.0, 1.5, 6.0, 12.0])
def test_a_background_lies_its_gap_below_the_foreground(maker, gap):
    for rng in rngs(6):
        scene = maker.layered(rng, WIND, FLUTE, 300, gap_db=gap)
        front, back = (10 * np.log10(np.mean(10 ** (band_levels(scene.mel, clip) / 10))) for clip in (WIND, FLUTE))
        assert front - back == pytest.approx(gap, abs=0.1)
        assert [event.level_db for event in scene.events] == pytest.approx([front, back], abs=0.1)
        assert [row.label for row in scene.facts.rows] == ["wind", "flute"]
        assert scene.facts.told_apart == (gap >= 1.5)
        assert scene.mel.shape == (300, 64) and scene.mel.dtype == np.float32


def test_gaps_are_drawn_from_the_range_and_clear_ones_are_clear(pack):
    maker = SceneMaker(pack, level_gap_db=(0.0, 8.0), augment=0.0)
    gaps = [
        scene.events[0].level_db - scene.events[1].level_db
        for scene in (maker.layered(r, WIND, FLUTE, 100) for r in rngs(60))
    ]
    assert -0.01 < min(gaps) < 1.5 and 6.5 < max(gaps) < 8.01
    assert all(1.5 <= maker.clear_gap(rng) <= 8 for rng in rngs(60))


def test_colouring_a_clip_leaves_its_level_true(pack):
    maker = SceneMaker(pack, augment=1.0)
    for rng in rngs(8):
        events = maker.layered(rng, WIND, FLUTE, 300, gap_db=6.0).events
        assert events[0].level_db - events[1].level_db == pytest.approx(6.0, abs=1e-3)


@pytest.mark.parametrize("clips", [(WIND, DOG), (PIANO, RAIN), (CAT, WIND, PIANO)])
def test_ordered_sounds_come_one_after_the_other(maker, clips):
    for rng in rngs(10):
        scene = maker.ordered(rng, clips, 300)
        assert len(scene.mel) == 300 and [event.clip for event in scene.events] == list(clips)
        assert [row.label for row in scene.facts.rows] == [CLIPS[clip][0] for clip in clips]
        spans = [bursts(band_levels(scene.mel, clip)) for clip in clips]
        for before, after in pairwise(spans):
            assert before[-1][1] <= after[0][0]
        for clip, event, span in zip(clips, scene.events, spans, strict=True):
            lead = CLIPS[clip][4][0][0] if CLIPS[clip][3] < 100 else 0  # silence before its burst, where it is whole
            assert span[0][0] == pytest.approx(event.start_seconds * 100 + lead, abs=4)
        levels = [band_levels(scene.mel, clip).max() for clip in clips]
        assert max(levels) - min(levels) < 6 + 4 * 0.7  # at most 6 dB in RMS; a part's pauses count there


@pytest.mark.parametrize("augment", [0.0, 1.0])
def test_an_event_is_heard_as_often_as_the_facts_say(pack, augment):
    maker = SceneMaker(pack, augment=augment)
    counts = Counter()
    for rng in rngs(60):
        scene = maker.counted(rng, DOG, 400)
        found = bursts(band_levels(scene.mel, DOG))
        assert len(found) == scene.facts.count == scene.events[0].count
        assert found[0][0] == pytest.approx(scene.events[0].start_seconds * 100 + 2, abs=1)
        assert all(b[0] - a[1] >= 12 for a, b in pairwise(found))
        counts[scene.facts.count] += 1
    assert sorted(counts) == [1, 2, 3, 4, 5]


def test_a_count_that_was_asked_for_is_made_as_far_as_it_fits(maker):
    for rng in rngs(10):
        assert [maker.counted(rng, DOG, 400, count=n).facts.count for n in (1, 3, 5)] == [1, 3, 5]
        assert maker.counted(rng, DOG, 120, count=5).facts.count == 2


def test_only_single_short_events_are_counted(maker):
    assert set(maker.spans) == {DOG, PIANO, LEFT, RIGHT, LEFT_2, RIGHT_2}
    assert maker.spans[DOG] == (8, 36)
    assert set(maker.countable(100)) == {DOG}
    assert set(maker.countable(300)) == set(maker.spans)


@pytest.mark.parametrize(("loudness", "bounds"), [("loud", LOUD_DB), ("quiet", QUIET_DB)])
def test_loud_is_loud_and_quiet_is_quiet(maker, loudness, bounds):
    for rng in rngs(10):
        scene = maker.single(rng, DOG_LONG, 300, loudness=loudness)
        level = np.percentile(10 * np.log10((10 ** (scene.mel.astype(np.float64) / 10)).sum(axis=1)), 95)
        assert bounds[0] - 0.1 <= level <= bounds[1] + 0.1
        assert scene.facts.loudness == loudness
    assert not maker.single(np.random.default_rng(0), DOG_LONG, 300).facts.loudness


def test_a_short_clip_is_looped_or_placed_or_left_as_it_is(maker):
    seen = set()
    for rng in rngs(30):
        scene = maker.single(rng, DOG, 300)
        found = bursts(band_levels(scene.mel, DOG))
        assert len(scene.mel) == 300
        assert found[0][0] == pytest.approx(scene.events[0].start_seconds * 100 + 10, abs=1)
        seen.add(len(found))
        assert len(maker.single(rng, DOG, 300, keep_short=True).mel) == 60
    assert 1 in seen and max(seen) > 2


def test_masks_and_noise_never_reach_below_the_front_end_s_floor(pack):
    maker = SceneMaker(pack, augment=1.0)
    for rng in rngs(10):
        for scene in (maker.single(rng, WIND, 200), maker.layered(rng, WIND, CAT, 200)):
            assert scene.mel.min() >= max(-100.0, scene.mel.max() - 120) - 1e-3 and np.isfinite(scene.mel).all()


def test_scenes_depend_on_the_generator_only(pack):
    def made(seed: int) -> list[np.ndarray]:
        maker, rng = SceneMaker(pack, augment=0.5), np.random.default_rng(seed)
        scenes = maker.layered(rng, WIND, CAT, 150), maker.ordered(rng, (WIND, CAT), 150), maker.counted(rng, DOG, 150)
        return [scene.mel for scene in (*scenes, maker.single(rng, PIANO, 150))]

    assert all(np.array_equal(a, b) for a, b in zip(made(1), made(1), strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(made(1), made(2), strict=True))


def test_renditions_are_takes_of_a_clip_and_tell_the_place():
    plain = make_pack()
    lower = np.clip(plain.mel.astype(np.int64) - 20, 0, 255).astype(np.uint8)
    pack = replace(
        plain,
        mel=np.concatenate([plain.mel, lower]),
        offsets=np.concatenate([plain.offsets, plain.offsets[-1] + plain.offsets[1:]]),
        renditions=1,
        rendered=tuple(Facts(place="indoor" if clip in (WIND, CAT) else "outdoor") for clip in range(len(CLIPS))),
    )
    maker = SceneMaker(pack, augment=0.0)
    places = Counter(maker.single(rng, WIND, 200).facts.place for rng in rngs(30))
    assert set(places) == {"", "indoor"}
    assert {maker.layered(rng, WIND, CAT, 200).facts.place for rng in rngs(30)} == {"", "indoor"}
    assert {maker.layered(rng, WIND, FLUTE, 200).facts.place for rng in rngs(30)} == {""}, "two places are none"


def test_what_is_true_of_a_whole_sound_is_said_only_of_it_whole_and_once():
    sound = Sound(Traits(), ("exactly one bark",))
    plain = make_pack()
    pack = FeaturePack(
        mel=plain.mel[: plain.offsets[2]],
        offsets=plain.offsets[:3],
        rows=tuple(replace(row, audio="", alternatives=("yap",)) for row in plain.rows[:2]),
        dropped=(),
        sounds=(sound, sound),
        rendered=(Facts(), Facts()),
    )
    maker = SceneMaker(pack, augment=0.0)
    said = 0
    for rng in rngs(40):
        scene = maker.single(rng, 0, 300)
        said += bool(scene.facts.whole_phrases)
        assert not scene.facts.whole_phrases or len(bursts(band_levels(scene.mel, 0))) == 1
        assert not maker.single(rng, 1, 300).facts.whole_phrases, "cropped"
        assert maker.single(rng, 0, 300, keep_short=True).facts.whole_phrases
    assert 10 < said < 30
    wording = Wording(BOOK)
    facts = SceneFacts("single", pack.rows[:1], whole_phrases=sound.whole_phrases)
    assert "exactly one bark" in {wording.caption(facts, rng) for rng in rngs(20)}


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


# -- drawing ---------------------------------------------------------------------------------------------------------


def test_clips_are_drawn_by_class_and_weight(pack):
    draw = ClipDraw(pack.rows, -1.0)
    rng = np.random.default_rng(1)
    found = Counter(pack.rows[draw.any(rng)].sound_class for _ in range(4_000))
    assert max(found.values()) / min(found.values()) < 1.6, "every class as often as another"
    heavy = ClipDraw([replace(row, weight=9.0 if row.label == "wind" else 1.0) for row in pack.rows], 0.0)
    share = np.mean([heavy.any(rng) == WIND for _ in range(4_000)])
    assert share == pytest.approx(9 / 23, abs=0.04)
    assert {draw.any(rng, "vehicle") for _ in range(50)} == {ENGINE, TRAIN}


def test_what_a_stage_does_not_hear_is_in_no_scene(pack):
    """The bands of the clips held out stay silent, whatever a batch is made of."""
    rows = tuple(replace(row, source="theirs", fold="4" if i == RAIN else "") for i, row in enumerate(pack.rows))
    rows = tuple(
        replace(row, source="ours") if i not in (DOG_LONG, FLUTE, LEFT_2) else row for i, row in enumerate(rows)
    )
    pack = replace(pack, rows=rows)
    recipe = ScratchRecipe(mix=MixRecipe(crop_seconds={3.0: 1.0}, augment=0.0))
    prompts = StandInPrompts()

    def heard(without: Sequence[str]) -> set[int]:
        batches = MixedBatches(pack, BOOK, prompts, recipe, {}, size=32, seed=1, without=without)
        items = [item for step in range(12) for side in batches[step].sides.values() for item in side]
        mels = [item.mel for item in items if item.mel is not None]
        return {clip for clip in range(15) if any(band_levels(mel, clip).max() > mel.max() - 25 for mel in mels)}

    assert heard(()) == set(range(15))
    assert heard(("theirs", "fold 4")) == set(range(15)) - {DOG_LONG, FLUTE, LEFT_2, RAIN}


def test_every_stage_draws_scenes_of_its_own(pack):
    """With the draws of the stage before it, a stage of a few hundred steps hears little that is new."""
    recipe, prompts = ScratchRecipe(mix=MixRecipe(crop_seconds={3.0: 1.0})), StandInPrompts()

    def mels(stage: int) -> list[bytes]:
        batch = MixedBatches(pack, BOOK, prompts, recipe, {}, size=16, seed=1, stage=stage)[3]
        return [item.mel.tobytes() for side in batch.sides.values() for item in side if item.mel is not None]

    assert mels(0) == mels(0)
    assert not set(mels(0)) & set(mels(1))


def test_alike_and_different_clips(pack):
    draw = ClipDraw(pack.rows, 0.0)
    for rng in rngs(50):
        assert draw.like(rng, DOG) == DOG_LONG and draw.like(rng, DOG_LONG) == DOG and draw.like(rng, CAT) == CAT
        clips = draw.different(rng, 4)
        assert clips is not None and len({draw.contents[clip] for clip in clips}) == 4
    assert draw.different(np.random.default_rng(0), 30) is None
    voices, clips = draw.square(np.random.default_rng(0))
    assert set(voices) == {"v1", "v2"}
    assert {tuple(sorted(row)) for row in clips} == {(LEFT, LEFT_2), (RIGHT, RIGHT_2)}


def test_a_synthetic_sound_is_the_sound_it_imitates():
    rows = [
        ManifestRow(str(i), label, label=label, sound_class=label) for i, label in enumerate(("wind", "synthetic wind"))
    ]
    draw = ClipDraw(rows, 0.0)
    assert draw.contents[0] == draw.contents[1]


def test_what_is_there_may_be_one_sound():
    kinds = [
        ("wind", "wind", "nature"),
        ("engine", "engine", "vehicles"),
        ("dog", "dog", "animals"),
        ("cat", "cat", "animals"),
    ]
    rows = [
        ManifestRow(f"{label} {n}", label, label=label, sound_class=kind, group=group)
        for label, kind, group in kinds
        for n in range(2)
    ]
    assert ("vehicle", "wind") in ClipDraw(rows, 0.0).presences
    assert ("vehicle", "wind") not in ClipDraw(rows[1:], 0.0).presences, "one clip of wind is no pair"
    assert ("vehicle", "wind") not in ClipDraw(rows[:6], 0.0).presences, "all that is neither is a dog"


# -- groups ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def parts(pack):
    mix = MixRecipe(crop_seconds={1.5: 0.5, 3.0: 0.5}, augment=0.2)
    maker, clips, wording = SceneMaker(pack, augment=0.2), ClipDraw(pack.rows, -0.6), Wording(BOOK)
    return GroupMaker(maker, clips, wording, mix), SquareMaker(maker, clips, wording)


def test_one_scene_under_two_questions(parts):
    groups, _ = parts
    for rng in rngs(60):
        one, two = groups.asked(rng, 3.0)
        assert one.mel is two.mel and one.question and two.question and one.question != two.question
        assert one.content != two.content and one.document != two.document


def test_a_scene_stands_beside_one_that_differs(parts):
    groups, _ = parts
    for rng in rngs(60):
        one, two = groups.scene(rng, 3.0)
        assert one.question is None and two.question is None
        assert one.document != two.document and not np.array_equal(one.mel, two.mel)


def test_squares_cross(parts):
    _, squares = parts
    seen = Counter()
    for rng in rngs(200):
        one, two, three, four = squares.make(rng, frames_of(3.0))
        assert one.mel is three.mel and two.mel is four.mel
        assert one.document is four.document and two.document is three.document
        assert one.question == two.question != three.question == four.question
        assert len({slot.content for slot in (one, two, three, four)}) == 4
        seen[re.sub(r"\W.*", "", one.content) + "/" + re.sub(r"\W.*", "", three.content)] += 1
    assert {"sound/sound", "presence/presence", "word/voice", "sound/loudness"} <= set(seen)


def test_squares_of_a_group_come_under_the_same_two_questions(parts):
    _, squares = parts
    for rng in rngs(40):
        slots = squares.make(rng, frames_of(3.0), 3)
        assert len(slots) == 12
        assert [slot.question for slot in slots] == [slot.question for slot in slots[:4]] * 3
        for i in (0, 1):  # one and the same thing is asked for
            asked = {
                re.sub(r" (yes|no)$", "", slot.content) for slot in slots if slot.question == slots[2 * i].question
            }
            assert len(asked) == 1 or not any(content.startswith("presence") for content in asked)
        assert len({id(slot.mel) for slot in slots}) == 6  # and each square has sounds of its own


def test_data_without_the_sounds_it_takes_give_nothing():
    plain = make_pack()
    pack = FeaturePack(mel=plain.mel[: plain.offsets[2]], offsets=plain.offsets[:3], rows=plain.rows[:2], dropped=())
    maker, clips, wording = SceneMaker(pack, augment=0.0), ClipDraw(pack.rows, 0.0), Wording(BOOK)
    assert SquareMaker(maker, clips, wording).make(np.random.default_rng(0), 200) is None
    layered = MixRecipe(scene_kinds={"layered": 1.0})
    assert GroupMaker(maker, clips, wording, layered).asked(np.random.default_rng(0), 3.0) is None
    assert GroupMaker(maker, clips, wording, layered).scene(np.random.default_rng(0), 3.0) is None


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
