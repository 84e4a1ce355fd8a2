"""Scenes: what is said of one is true of its mel; clips are drawn fairly; groups cross."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scene_helpers import (
    BOOK,
    CAT,
    CLIPS,
    DOG,
    DOG_LONG,
    ENGINE,
    FLUTE,
    LEFT,
    LEFT_2,
    PIANO,
    RAIN,
    RIGHT,
    RIGHT_2,
    TRAIN,
    WIND,
    band_levels,
    bursts,
    make_pack,
    rngs,
)

from audiosearch.model.prompt import Prompt
from audiosearch.trainer.manifest import ManifestRow
from audiosearch.trainer.pack import FeaturePack, Sound
from audiosearch.trainer.recipe import MixRecipe, ScratchRecipe
from audiosearch.trainer.synthesis import scenes
from audiosearch.trainer.synthesis.draw import ClipDraw
from audiosearch.trainer.synthesis.facts import SceneFacts
from audiosearch.trainer.synthesis.groups import GroupMaker, frames_of
from audiosearch.trainer.synthesis.mixer import MixedBatches
from audiosearch.trainer.synthesis.renditions import Facts
from audiosearch.trainer.synthesis.scenes import LOUD_DB, QUIET_DB, SceneMaker
from audiosearch.trainer.synthesis.sketch import Traits
from audiosearch.trainer.synthesis.squares import SquareMaker
from audiosearch.trainer.synthesis.wording import (
    Wording,
)


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


def test_a_generated_clip_that_holds_several_is_not_counted_as_one(pack):
    def with_last(count: int) -> SceneMaker:
        return SceneMaker(replace(pack, sounds=(Sound(Traits(count=count), ()),) * (len(pack) - DOG)))

    assert DOG in with_last(1).spans and DOG in with_last(0).spans
    assert DOG not in with_last(2).spans


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


def test_what_a_stage_does_not_hear_is_in_no_scene(pack, monkeypatch):
    """The bands of the clips held out stay silent, whatever a batch is made of."""
    monkeypatch.setattr(scenes, "played", lambda power, speed: power)  # which would move one clip into another's band
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
    assert {voice.family for voice in voices} <= {"v1", "v2"} and len({str(voice) for voice in voices}) == 2
    assert {frozenset(row) <= {LEFT, LEFT_2} for row in clips} == {True, False}  # a row a word


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
