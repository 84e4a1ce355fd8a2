"""The arithmetic of benchmarks/mini_quality.py on data made by hand, and that its queries are held out."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import toy

from audiosearch.errors import AudioSearchError, UsageError
from audiosearch.library import Library, Models

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
# Imported in the order of the walk; `bench.figures` and so on below.
MODULES = ("figures", "data", "retrieval", "sounds", "mixtures", "confused", "baseline", "held_out", "speed")


class Bench:
    """The script and its modules, imported as a run of the script does: its folder is on the path."""

    def __init__(self) -> None:
        self.script = importlib.import_module("mini_quality")
        for name in MODULES:
            setattr(self, name, importlib.import_module(f"quality.{name}"))

    def __getattr__(self, name: str) -> ModuleType:
        raise AttributeError(name)


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield Bench()


def clip(bench: Any, label: str, number: int = 0, **changes: Any) -> Any:
    """A clip that says where it is from."""
    made = bench.data.Clip(f"{label}{number}", label, True, sound_class=label, family=f"{label}{number}", source="s")
    return replace(made, **changes)


# -- held out ------------------------------------------------------------------------------------------------------


def test_paraphrases(bench: Any) -> None:
    from audiosearch.trainer.captions import build_corpus, read_phrases
    from audiosearch.trainer.recipe import find_recipe

    book = read_phrases(find_recipe("mini").parent / "phrases.yaml")
    paraphrases = bench.data.read_paraphrases()
    counts = Counter(each["label"] for each in paraphrases)
    assert len(paraphrases) == len({bench.data.plain(each["text"]) for each in paraphrases}) >= 110
    assert len(counts) == 50 and set(counts.values()) == {2, 3}  # every ESC-50 class, nearly alike
    assert set(counts) <= set(book.labels)
    assert bench.data.not_held_out(paraphrases, build_corpus([], book, None, (), seed=0).texts) == []


def test_generated_sounds_are_not_called_as_the_paraphrases_call_them(bench: Any) -> None:
    from audiosearch.trainer.synthesis import blows, stirred, throats
    from audiosearch.trainer.synthesis.generators import render_bank
    from audiosearch.trainer.synthesis.sketch import tidy

    said = {phrase for sound in render_bank(416, seed=3) for phrase in (*sound.phrases, *sound.whole_phrases)}
    for effect in (effect for module in (blows, stirred, throats) for effect in module.EFFECTS.values()):
        for chosen in product(*effect.words.values()):
            words = dict(zip(effect.words, chosen, strict=True))
            said |= {tidy(template.format(**words)) for template in effect.templates}
    assert len(said) > 2_000
    assert bench.data.not_held_out(bench.data.read_paraphrases(), sorted(said)) == []


def test_absent_queries(bench: Any) -> None:
    absent = bench.data.read_absent()
    assert len(absent) == len(set(absent)) == 100
    named = sorted({each["label"] for each in bench.data.read_paraphrases()})
    assert bench.data.not_absent(absent, named) == []
    found = bench.data.not_absent(["a cat on a mat", "the of and"], ["cat meow", "synth in the dark", "tom"])
    assert found == ["'a cat on a mat' shares 'cat' with the label 'cat meow'"]


def test_not_held_out_is_seen(bench: Any) -> None:
    paraphrases = [
        {"text": "A  puppy, yapping!", "label": "dog bark"},
        {"text": "some dogs outside", "label": "dog bark"},
        {"text": "a chirp at dawn", "label": "birds chirping"},
        {"text": "it barks", "label": "dog bark"},
        {"text": "an infant cries", "label": "baby crying"},
        {"text": "laughter in the hall", "label": "laughing"},
        {"text": "a catalogue", "label": "cat meow"},  # three letters of a name are no word of it
        {"text": "a passport", "label": "train passing"},  # nor are four of a stem
    ]
    found = bench.data.not_held_out(paraphrases, ["a puppy yapping", "rain"])
    assert "training text" in found[0] and "puppy" in found[0]
    for line, word in zip(found[1:], ("dogs", "chirp", "barks", "cries", "laughter"), strict=True):
        assert f"'{word}'" in line


def test_unseen_instructions_are_unseen(bench: Any) -> None:
    from audiosearch.trainer.captions import build_corpus, read_phrases
    from audiosearch.trainer.recipe import find_recipe

    book = read_phrases(find_recipe("mini").parent / "phrases.yaml")
    trained = {bench.data.plain(text) for text in build_corpus([], book, None, (), seed=0).texts}
    confused = bench.confused
    assert set(confused.OTHER_WORDS) <= set(confused.INSTRUCTIONS)
    other = [bench.data.plain(text) for pair in confused.OTHER_WORDS.values() for text in pair]
    assert not trained & set(other)
    # The check can see one that is trained.
    assert trained & {bench.data.plain(text) for pair in confused.INSTRUCTIONS.values() for text in pair}


# -- retrieval -----------------------------------------------------------------------------------------------------


def test_nearest_label(bench: Any) -> None:
    scores = np.array([[0.9, 0.2, 0.5, -np.inf], [0.1, 0.3, 0.5, -np.inf]])
    relevant = np.array([[True, True, True, True], [False, False, False, False]])
    # Right, wrong, a tie, a clip without a vector.
    assert bench.retrieval.nearest_label_accuracy(scores, relevant) == 0.25


def test_random_level_of_precision_is_the_share_of_relevant_clips(bench: Any) -> None:
    relevant = np.zeros((40, 50), dtype=bool)
    relevant[:, :5] = True
    found = bench.retrieval.random_level(relevant, draws=50)
    assert found.precision_at_1 == pytest.approx(0.1, abs=0.02)
    assert found.precision_at_5 == pytest.approx(0.1, abs=0.01)
    assert (found.queries, found.items) == (40, 50)


def test_names_of_a_perfect_and_of_a_blind_model(bench: Any) -> None:
    clips = [clip(bench, label, number) for label in "abcd" for number in range(5)]
    relevant = bench.retrieval.labels_relevant(bench.retrieval.frequent_labels(clips), clips)
    for figures in (
        bench.retrieval.name_figures(relevant.astype(float), clips),
        bench.retrieval.label_figures(relevant.astype(float), clips),
    ):
        assert [each.value for each in figures] == [1.0] * len(figures)
        assert not any(each.is_missed for each in figures)
    assert all(each.is_missed for each in bench.retrieval.name_figures(np.zeros((4, 20)), clips))


def test_paraphrases_are_judged_by_what_names_reach(bench: Any) -> None:
    clips = [clip(bench, "a"), clip(bench, "b")]
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]])  # right, right, second: mAP (1 + 1 + 1/2) / 3
    figures = bench.retrieval.paraphrase_figures(scores, clips, ["a", "a", "b"], name_map=1.0)
    found = {each.key: each for each in figures}
    assert found["paraphrase_map"].value == pytest.approx(2.5 / 3)
    assert found["paraphrase_ratio"].value == pytest.approx(2.5 / 3) and not found["paraphrase_ratio"].is_missed
    assert bench.retrieval.paraphrase_figures(scores, clips, ["a", "b", "b"], name_map=1.0)[2].is_missed


def test_absent_queries_above_the_median_true_hit(bench: Any) -> None:
    names = np.array([[0.9, 0.1], [0.8, 0.5], [0.3, 0.2]])
    relevant = np.array([[True, False], [False, True], [True, True]])  # best true hits 0.9, 0.5, 0.3: median 0.5
    absent = np.array([[0.5, 0.1], [0.2, 0.6], [0.1, 0.1]])
    figure = bench.retrieval.absent_figures(absent, names, relevant)[0]
    assert figure.value == 1 and figure.is_missed  # one of three is more than a tenth
    assert not bench.retrieval.absent_figures(np.tile(absent[:1], (10, 1)), names, relevant)[0].is_missed


def test_an_example_does_not_find_itself_or_its_recording(bench: Any) -> None:
    # Clips 0 and 1 are of one recording; all of label a are near each other.
    clips = [clip(bench, "a", n, family="x" if n < 2 else str(n)) for n in range(4)]
    clips += [clip(bench, "b", n) for n in range(4)]
    same = bench.retrieval.labels_relevant([each.label for each in clips], clips)
    others, other_recordings = bench.retrieval.example_figures(same.astype(float), clips)
    assert others.value == pytest.approx(3 / 5)
    # The first two have two left to find, the six others three.
    assert other_recordings.value == pytest.approx((2 * 2 + 6 * 3) / 8 / 5)


def test_scores_are_those_of_the_library(bench: Any, tmp_path: Path) -> None:
    """A column a clip, in the order given, whatever the ranking; a clip without a vector has minus infinity."""
    files = {"high.wav": toy.tone(2_000, 1.0), "low.wav": toy.tone(200, 1.0), "none.wav": np.zeros(16_000, np.float32)}
    for name, sound in files.items():
        toy.write_wav(tmp_path / name, sound)
    clips = [bench.data.Clip(str(tmp_path / name), name, True) for name in files]
    models = Models(lambda name: toy.description(), lambda name, **_: toy.HandEmbedder())
    with Library.open(tmp_path / "library", create=True, models=models, workers=1) as library:
        assert bench.retrieval.ingest(library, clips).files_indexed == 3
        scores = bench.retrieval.text_scores(library, ["low", "high"], clips)
        assert scores.shape == (2, 3)
        assert np.isneginf(scores[:, 2]).all()
        assert scores[0].argmax() == 1 and scores[1].argmax() == 0
        for row, text in enumerate(("low", "high")):
            for hit in library.query(text).hits:
                assert scores[row, list(files).index(Path(hit.path).name)] == hit.score
        examples = bench.retrieval.example_scores(library, clips[:2], clips)
        assert examples[:, :2].diagonal() == pytest.approx(1.0, abs=1e-3) and (examples[[0, 1], [1, 0]] < 0.5).all()


def test_a_clip_that_is_not_there_by_itself_stops_the_run(bench: Any, tmp_path: Path) -> None:
    for name in ("a.wav", "copy of a.wav"):
        toy.write_wav(tmp_path / name, toy.tone(2_000, 1.0))
    clips = [bench.data.Clip(str(path), "a", True) for path in sorted(tmp_path.glob("*.wav"))]
    models = Models(lambda name: toy.description(), lambda name, **_: toy.HandEmbedder())
    with (
        Library.open(tmp_path / "library", create=True, models=models, workers=1) as library,
        pytest.raises(AudioSearchError, match="1 hold the same sound"),
    ):
        bench.retrieval.ingest(library, clips)


# -- mixtures ------------------------------------------------------------------------------------------------------


def test_layers_have_the_levels_asked_for(bench: Any) -> None:
    front, back = toy.tone(500, 1.5), toy.tone(3_000, 2.0)
    mixed = bench.sounds.layered([front, 0.01 * back], (0.0, 6.0))  # how loud the clips were does not matter
    assert mixed.dtype == np.float32 and mixed.size == 4 * 16_000 and np.abs(mixed).max() == pytest.approx(0.7)
    power = np.abs(np.fft.rfft(mixed)) ** 2
    middle = int(1_500 * mixed.size / 16_000)
    assert 10 * np.log10(power[:middle].sum() / power[middle:].sum()) == pytest.approx(6.0, abs=0.1)
    with pytest.raises(ValueError, match="silent"):
        bench.sounds.layered([front, np.zeros(100, np.float32)], (0.0, 6.0))


def test_layers_begin_where_they_are_told(bench: Any) -> None:
    ramp = np.linspace(0.1, 1, 16_000, dtype=np.float32)
    (whole,) = (bench.sounds.layered([ramp], (0.0,)),)
    shifted = bench.sounds.layered([ramp], (0.0,), (0.5,))
    period = 16_000 + 4_000  # with its pause
    assert np.array_equal(whole[:16_000] > 0, ramp > 0) and not whole[16_000:period].any()
    assert np.allclose(shifted[: period // 2], whole[period // 2 : period], atol=0.01)


def test_wav_files_are_read_back(bench: Any, tmp_path: Path) -> None:
    sound = toy.noise(1, 0.5)
    assert np.allclose(bench.sounds.read(bench.sounds.write_wav(tmp_path / "a.wav", sound)), sound, atol=1e-4)


def test_mixtures_and_distractors_are_what_they_say(bench: Any) -> None:
    clips = [clip(bench, label, number) for label in "abcdx" for number in range(5)]
    drawn = bench.mixtures.draw(clips, ("a", "b"), ("c", "d"), per_pair=3, per_label=20)
    assert drawn == bench.mixtures.draw(clips, ("a", "b"), ("c", "d"), per_pair=3, per_label=20)
    mixtures = [each for each in drawn if each.is_mixture]
    assert Counter((each.front, each.back) for each in mixtures) == dict.fromkeys(
        [("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")], 3
    )
    for each in drawn:
        assert len(each.clips) == len(each.quieter_db) == len(each.starts)
        if each.is_mixture:
            assert [one.label for one in each.clips] == [each.front, each.back] and each.quieter_db == (0.0, 6.0)
        else:
            assert {one.label for one in each.clips} == {each.front} and len(set(each.clips)) == len(each.clips)
    assert Counter(each.front for each in drawn if not each.is_mixture) == dict.fromkeys("abcd", 20)
    assert {len(each.clips) for each in drawn if not each.is_mixture} == {1, 2}


def test_mixture_recall_counts_only_distractors_of_its_own_labels(bench: Any) -> None:
    layers = bench.mixtures.Layers
    drawn = [
        layers("m", "a", "b", (), (), ()),
        layers("1", "a", "a", (), (), ()),
        layers("2", "b", "b", (), (), ()),
        layers("3", "c", "c", (), (), ()),
        layers("n", "a", "c", (), (), ()),
    ]
    queries = [("a", "b"), ("a", "c")]
    #                  m    a    b    c    n
    scores = np.array([[0.5, 0.6, 0.4, 0.9, 0.9], [0.9, 0.7, 0.9, 0.8, 0.6]])
    assert bench.mixtures.mixture_recall(scores, queries, drawn, k=1) == 0.0
    assert bench.mixtures.mixture_recall(scores, queries, drawn, k=2) == 0.5  # m is second of three, n third
    assert bench.mixtures.mixture_recall(scores, queries, drawn, k=3) == 1.0
    scores[0, 1] = 0.5  # a tie is lost
    assert bench.mixtures.mixture_recall(scores, queries, drawn, k=1) == 0.0


def test_mixture_labels_are_asked_for_in_paraphrases_too(bench: Any) -> None:
    labels = {each["label"] for each in bench.data.read_paraphrases()}  # the ESC-50 classes
    assert {*bench.mixtures.FRONTS, *bench.mixtures.BACKS} <= labels
    assert not set(bench.mixtures.FRONTS) & set(bench.mixtures.BACKS)


# -- triplets ------------------------------------------------------------------------------------------------------


def collection(bench: Any) -> list[Any]:
    """A few clips of everything that triplets are made of."""
    clips = [clip(bench, label, n, group="animals") for label in ("cow moo", "pig", "hen", "frog") for n in range(3)]
    clips += [clip(bench, label, n, group="vehicles") for label in ("train", "airplane", "siren") for n in range(3)]
    clips += [clip(bench, "wind", n, group="nature") for n in range(4)]
    clips += [clip(bench, label, n, is_esc=False, group="music") for label in ("flute", "cello") for n in range(3)]
    clips += [clip(bench, "church bells", n, group="music", sound_class="bells & gongs") for n in range(3)]
    for source, speakers in (("digits", ("fsdd_x", "fsdd_y")), ("words", ("sc_1", "sc_2"))):
        for speaker in speakers:
            for word in ("one", "two"):
                said = f"speech {word} of {source}"
                clips.append(clip(bench, said, len(clips), is_esc=False, group="speech", family=speaker, source=source))
    clips.append(clip(bench, "speech one of digits", 99, is_esc=False, group="speech", family="pv_9", source="digits"))
    return clips


def test_triplets_share_what_they_should(bench: Any) -> None:
    confused = bench.confused
    drawn = confused.draw(collection(bench), per_kind=12)
    assert drawn == confused.draw(collection(bench), per_kind=12) and len(set(drawn)) == len(drawn)
    assert set(Counter(each.kind for each in drawn)) == set(confused.INSTRUCTIONS)
    for each in drawn:
        assert not {*each.query} & {*each.a, *each.b}
        q, a, b = ([one.label for one in side] for side in (each.query, each.a, each.b))
        if each.kind == confused.LAYERED:
            assert q[0] == a[0] and q[1] == b[1] and len({q[0], q[1], a[1], b[0]}) == 4 and each.quieter_db > 0
        elif each.kind == confused.SPOKEN:
            assert each.query[0].group == each.a[0].group == "speech" and each.query[0].family != each.a[0].family
            assert each.query[1].sound_class == each.b[0].sound_class in ("flute", "cello") and q[0] != a[0]
            assert each.a[1] == each.b[1] and each.a[1].group == "animals"
        elif each.kind == confused.DRIVEN:
            assert q[0] == a[0] in confused.VEHICLES and q[1] == b[0] == "wind" and each.a[1] == each.b[1]
            assert each.query[1].family != each.b[0].family
        else:
            assert q == a != b and each.query[0].family == each.b[0].family != each.a[0].family
            assert len({one.source for one in (*each.query, *each.a, *each.b)}) == 1


def test_a_collection_that_has_not_all_kinds(bench: Any) -> None:
    drawn = bench.confused.draw([each for each in collection(bench) if each.group in ("animals", "speech")])
    assert {each.kind for each in drawn} == {bench.confused.LAYERED, bench.confused.VOICED}
    assert bench.confused.draw([]) == []


def test_no_instruction_is_right_half_of_the_time(bench: Any, tmp_path: Path) -> None:
    """By the band-energy model: an instruction that names the bands of one layer brings the sound that shares it."""
    from audiosearch.trainer.evaluate.triplets import evaluate_triplets

    confused = bench.confused
    low, high, middle, hiss = 150.0, 4_000.0, 900.0, 7_500.0
    clips = {}
    for name, frequency in (("low", low), ("high", high), ("middle", middle), ("hiss", hiss)):
        toy.write_wav(tmp_path / f"{name}.wav", toy.tone(frequency, 1.0))
        clips[name] = clip(bench, name, path=str(tmp_path / f"{name}.wav"))
    sounds = confused.Sounds(
        "bands", (clips["low"], clips["high"]), (clips["low"], clips["middle"]), (clips["hiss"], clips["high"])
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(confused.INSTRUCTIONS, "bands", ("low", "high"))
        made = confused.triplets([sounds], tmp_path)
        result = evaluate_triplets(toy.HandEmbedder(), made)
        figures = {each.key: each.value for each in confused.figures_of(result, {"low", "high"})}
    assert [each.instruction for each in made] == ["low", "high"]
    assert made[0].target == made[1].hard_negative and made[0].hard_negative == made[1].target
    assert figures == {"triplets": 1.0, "triplets_plain": 0.5, "triplets_bands": 1.0}


def test_triplet_figures_name_what_was_not_trained(bench: Any) -> None:
    from audiosearch.trainer.evaluate.triplets import TripletAccuracy, TripletResult

    confused = bench.confused
    kinds = {
        confused.LAYERED: TripletAccuracy(80, 0.9, 0.5),
        confused.VOICED: TripletAccuracy(20, 0.5, 0.5),
        f"{confused.LAYERED}, other words": TripletAccuracy(80, 0.1, 0.5),
        f"{confused.LAYERED}, by name": TripletAccuracy(80, 0.2, 0.5),
    }
    trained = {bench.data.plain(text) for text in confused.INSTRUCTIONS[confused.LAYERED]}
    figures = confused.figures_of(TripletResult("triplets", 260, 0.0, 0.0, kinds, (), ()), trained)
    assert figures[0].value == pytest.approx(0.7) and figures[0].is_missed  # kinds alike, the variants apart
    assert "(100)" in figures[0].name
    new = [each.key for each in figures if "not words of training" in each.name]
    assert new == ["triplets_word_or_voice", "triplets_foreground_or_background_other_words"]


# -- held-out collections ------------------------------------------------------------------------------------------


def test_class_means_find_their_classes(bench: Any) -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    names = ["a", "b", "c"] * 50
    rows = np.tile(centres, (50, 1)) + rng.normal(size=(150, 2)) * [0.1, 2.0]  # the second axis tells little
    means = bench.baseline.ClassMeans(rows, names)
    table = means.log_probabilities(np.array([[3.0, 3.0], [0.0, 3.0]]))
    assert means.names == ["a", "b", "c"]
    assert np.exp(table).sum(axis=1) == pytest.approx(1.0)
    assert table.argmax(axis=1).tolist() == [1, 2]


def test_baseline_falls_back_to_class_and_group(bench: Any) -> None:
    known = [clip(bench, "dog", n, sound_class="dog", group="animals") for n in range(4)]
    known += [clip(bench, "oboe", n, sound_class="woodwind", group="music") for n in range(4)]
    rng = np.random.default_rng(0)
    rows = np.repeat([[0.0, 0.0], [5.0, 5.0]], 4, axis=0) + 0.1 * rng.normal(size=(8, 2))
    baseline = bench.baseline.Baseline(rows, known)
    asked = [
        clip(bench, "dog", sound_class="?", group="?"),
        clip(bench, "bassoon", sound_class="woodwind", group="?"),
        clip(bench, "violin", sound_class="strings", group="music"),
        clip(bench, "laser", sound_class="laser", group="science fiction"),
    ]
    scores = baseline.scores(asked, np.array([[0.0, 0.1], [5.0, 4.9]]))
    assert scores[0, 0] > scores[0, 1] and (scores[1:3, 1] > scores[1:3, 0]).all() and not scores[3].any()


def test_held_out_task_leaves_other_collections_of_the_label_out(bench: Any) -> None:
    clips = [
        clip(bench, "rain", 0, source="new"),
        clip(bench, "wind", 0, source="new"),
        clip(bench, "rain", 1, source="old"),
        clip(bench, "dog", 1, source="old"),
    ]
    task = bench.held_out.Task.of("new", clips)
    assert [each.label for each in task.labels] == ["rain", "wind"]
    scores = np.array([[0.5, 0.1, 0.9, 0.2], [0.3, 0.5, 0.1, 0.9]])
    # rain: first, as the other rain does not count; wind: behind the dog.
    assert task.mean_average_precision(scores) == pytest.approx((1 + 1 / 2) / 2)
    assert task.mean_average_precision_alone(scores) == 1.0
    figures = bench.held_out.figures_of("new", task, scores, baseline=np.array([[0.1, 0.5, 0.9, 0.2], [0.0] * 4]))
    # The baseline has rain third (wind, dog, rain) and wind nowhere, a tie with two others: third.
    assert figures[0].floor == pytest.approx(2 * (1 / 3 + 1 / 4) / 2) and not figures[0].is_missed
    assert figures[1].floor is None


def test_held_out_task_of_a_whole_collection(bench: Any) -> None:
    clips = [clip(bench, label, n, source="new") for label, count in (("rain", 3), ("wind", 2)) for n in range(count)]
    task = bench.held_out.Task.of("new", clips, least=3)
    assert [each.label for each in task.labels] == ["rain"] and not task.left_out.any() and task.is_own.all()
    scores = np.array([[0.9, 0.8, 0.1, 0.5, 0.2]])
    figures = bench.held_out.figures_of("new", task, scores, baseline=np.zeros((1, 5)))
    assert [each.value for each in figures] == [pytest.approx((1 + 1 + 3 / 5) / 3)]  # one figure: all clips are its own


def test_the_baseline_hears_what_the_model_heard(bench: Any) -> None:
    clips = [clip(bench, "rain", n, source="new" if n < 3 else "old", split="train") for n in range(6)]
    clips += [clip(bench, "wind", n, source="old", split="train") for n in range(3)]
    clips += [clip(bench, "hail", n, source="old", split="valid") for n in range(3)]
    clips += [clip(bench, "snow", n, source="old", split="train", licence="CC BY-SA") for n in range(3)]
    rows = np.arange(30.0).reshape(15, 2) ** 2
    trained = bench.held_out.trained_on({("", "", "old")}, clips, rows)
    labels = trained.levels[0]
    assert labels.names == ["rain", "wind"]  # neither `valid`, nor another licence, nor the collection's rain
    assert np.allclose(labels.scale, rows[3:9].std(axis=0), atol=1e-4)


def test_a_model_that_heard_the_collection_is_refused(bench: Any, tmp_path: Path) -> None:
    held_out = bench.held_out
    clips = [clip(bench, "rain", source="new")]
    each = held_out.HeldOut(str(tmp_path), "new")
    with pytest.raises(UsageError, match=r"CREDITS\.csv"):
        held_out.credits_of(each, clips)
    header = "attribution,licence,collection,clips\n"
    (tmp_path / "CREDITS.csv").write_text(header + "me,CC0,old,3\nyou,CC BY,old,1\n", encoding="utf-8")
    assert held_out.credits_of(each, clips) == {("me", "CC0", "old"), ("you", "CC BY", "old")}
    (tmp_path / "CREDITS.csv").write_text(header + "me,CC0,new,3\n", encoding="utf-8")
    with pytest.raises(UsageError, match="was trained on new"):
        held_out.credits_of(each, clips)
    with pytest.raises(UsageError, match="there are new"):
        held_out.credits_of(held_out.HeldOut(str(tmp_path), "other"), clips)


def test_list_of_held_out_models(bench: Any, tmp_path: Path) -> None:
    table = tmp_path / "models.json"
    table.write_text(json.dumps([{"model": "a/model", "source_repo": "x/y"}]), encoding="utf-8")
    assert bench.held_out.read_list(table) == [bench.held_out.HeldOut(str(tmp_path / "a/model"), "x/y")]
    for bad in ("[1]", '[{"model": "a"}]', "{", '{"model": 1}'):
        table.write_text(bad, encoding="utf-8")
        with pytest.raises(UsageError, match=r"models\.json"):
            bench.held_out.read_list(table)


# -- speed ---------------------------------------------------------------------------------------------------------


def test_speed_figures(bench: Any) -> None:
    speed = bench.speed
    slow, fast = speed.Seconds(2.0, 4.0), speed.Seconds(0.01, 0.02)
    figures = {each.key: each for each in speed.speed_figures(speed.Speed(slow, fast, slow, fast))}
    assert figures["speed"].value == pytest.approx(16 * 10 / 2.0) and figures["speed"].is_missed
    assert figures["open_seconds"].value == 2.0 and figures["open_seconds"].is_missed
    assert figures["text_ms"].value == pytest.approx(10.0) and not figures["text_ms"].is_missed


def test_processor_time_does_not_count_waiting(bench: Any) -> None:
    import time

    found = bench.speed.timed(lambda: time.sleep(0.2))
    assert found.wall >= 0.19 and found.processor < 0.1


# -- report --------------------------------------------------------------------------------------------------------


def test_card(bench: Any) -> None:
    with_figures = bench.figures.with_figures
    card = "# A\n\n## Data\n\nd\n\n## Figures\n\nNot measured.\n## deeper\n\n## Limits\n\n- l\n"
    once = with_figures(card, r"| \1 | 0.5 |")
    assert once == "# A\n\n## Data\n\nd\n\n## Figures\n\n| \\1 | 0.5 |\n\n## Limits\n\n- l\n"
    assert with_figures(once, r"| \1 | 0.5 |") == once
    for bad in ("# A\n", "## Limits\n\n## Figures\n", "## Figures\n"):
        with pytest.raises(ValueError, match="Figures"):
            with_figures(bad, "x")


def test_the_trainer_writes_such_a_card(bench: Any) -> None:
    # Its text, without the half minute that importing the trainer's export takes on a busy machine.
    spec = importlib.util.find_spec("audiosearch.trainer.export")
    assert spec and spec.origin
    lines = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
    named = [line for line in lines if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "CARD"]
    assert "| a |" in bench.figures.with_figures(ast.literal_eval(named[0].value), "| a |")


def test_bounds(bench: Any) -> None:
    figure = bench.figures.Figure
    assert not figure("k", "n", 0.5).is_missed and not figure("k", "n", 0.5).is_aim_met
    assert not figure("k", "n", 0.5, floor=0.5, aim=0.6).is_missed and figure("k", "n", 0.4, floor=0.5).is_missed
    assert figure("k", "n", 0.6, floor=0.5, aim=0.6).is_aim_met
    assert not figure("k", "n", 10, floor=10, at_most=True).is_missed
    assert figure("k", "n", 11, floor=10, at_most=True).is_missed
    assert figure("k", "n", float("nan"), floor=0.1).is_missed
    assert figure("k", "n", float("nan"), floor=0.1, at_most=True).is_missed


def test_markdown(bench: Any) -> None:
    figure = bench.figures.Figure
    table = bench.figures.markdown(
        [
            figure("a", "one", 0.5, 0.02, 0.75, 0.9),
            figure("b", "two", 0.95, 0.5, 0.75, 0.9),
            figure("c", "three", 3, floor=10, at_most=True, decimals=0),
            figure("d", "four", 0.1, floor=2 * 0.0923),
            figure("e", "five", 0.25),
        ]
    )
    assert table.splitlines()[2:] == [
        "| one | 0.500 (missed) | 0.020 | ≥ 0.75 | ≥ 0.9 |",
        "| two | **0.950** | 0.500 | ≥ 0.75 | ≥ 0.9 |",
        "| three | 3 |  | ≤ 10 |  |",
        "| four | 0.100 (missed) |  | ≥ 0.185 |  |",
        "| five | 0.250 |  |  |  |",
    ]


@pytest.fixture
def small_data(tmp_path: Path) -> Path:
    (tmp_path / "manifest.csv").write_text(
        "file,label,fold,split,class,group,family,source_repo,seconds\na.opus,rain,5,valid,rain,nature,f,s,5.0\n"
        "b.opus,rain,,train,rain,nature,g,s,4.0\n",
        encoding="utf-8",
    )
    return tmp_path


@pytest.mark.parametrize(("value", "wrong", "code"), [(0.9, [], 0), (0.1, [], 1), (0.9, ["a paraphrase"], 1)])
def test_the_exit_code_tells(
    bench: Any,
    small_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    value: float,
    wrong: list[str],
    code: int,
) -> None:
    figure = bench.figures.Figure("k", "a figure", value, floor=0.5, aim=0.95)
    asked: list[list[str]] = []

    def part(run: Any) -> list[Any]:
        asked.append([each.path for each in run.valid])
        return [figure]

    monkeypatch.setattr(bench.script, "PARTS", {"texts": part, "speed": part})
    monkeypatch.setattr(bench.data, "training_texts", lambda data: ())
    monkeypatch.setattr(bench.data, "not_held_out", lambda *_: wrong)
    out = small_data / "out.json"
    monkeypatch.setattr(sys, "argv", ["m", "--data", str(small_data), "--json", str(out), "--only", "speed"])
    assert bench.script.main() == code
    assert asked == [[str(small_data / "a.opus")]]  # never a clip of `train`
    content = json.loads(out.read_text(encoding="utf-8"))
    assert content["not_held_out"] == wrong and content["figures"][0]["value"] == value
    assert content["figures"][0]["missed"] == (value < 0.5)
    said = capsys.readouterr()
    assert ("MISSED: a figure: 0.100, floor 0.5" in said.err) == (value < 0.5)
    assert "0 of 1 aims reached" in said.out


def test_the_card_needs_every_part(bench: Any) -> None:
    with pytest.raises(SystemExit):
        bench.script.options_of(["--write-card", "--only", "texts"])
    options = bench.script.options_of(["--held-out", "a", "x", "--held-out", "b", "y"])
    assert options.held_out == [["a", "x"], ["b", "y"]] and bench.script.options_of([]).held_out == []


def test_without_data_it_says_so(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUDIOSEARCH_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setattr(sys, "argv", ["mini_quality.py"])
    assert bench.script.main() == 2
    said = capsys.readouterr().err
    assert "nowhere" in said and "AUDIOSEARCH_DATA" in said


# -- tuning ----------------------------------------------------------------------------------------------------------


def test_tuning_looks_at_what_was_left_out_and_never_at_valid(bench: Any) -> None:
    clips = [
        clip(bench, "dog", 0, split="train", fold="4"),
        clip(bench, "dog", 1, split="train", fold="1"),
        clip(bench, "dog", 2, split="valid", fold="5"),
        clip(bench, "bell", 0, split="train", source="bells/bells"),
        clip(bench, "bell", 1, split="valid", source="bells/bells"),
    ]
    judged = bench.data.judged_on(clips, ["fold 4", "bells/bells"])
    assert [(each.path, each.split) for each in judged] == [("dog0", "valid"), ("dog1", "train"), ("bell0", "valid")]
    with pytest.raises(UsageError, match="no `train` clip is of fold 5"):
        bench.data.judged_on(clips, ["fold 5"])
