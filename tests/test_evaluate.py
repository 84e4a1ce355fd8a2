"""The evaluation protocols: answers by hand, plain references, reports."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
from evaluate_helpers import BEEP, HISS, HUM, CountingEmbedder, triplet, write_lines, write_scenes, write_sounds

from audiosearch import metrics
from audiosearch.errors import UsageError
from audiosearch.trainer.converters import MmauItem
from audiosearch.trainer.evaluate import report
from audiosearch.trainer.evaluate.audio_qa import evaluate_audio_qa
from audiosearch.trainer.evaluate.encoder import Clip, Item, encode, scores
from audiosearch.trainer.evaluate.published import FIGURES, published
from audiosearch.trainer.evaluate.retrieval import direction, evaluate_retrieval
from audiosearch.trainer.evaluate.triplets import evaluate_triplets, read_triplets
from audiosearch.trainer.manifest import ManifestRow
from audiosearch.types import Samples, Vectors


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    return write_sounds(tmp_path / "sounds")


def unit(rows: np.ndarray) -> Vectors:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


# --- metrics ---


def plain_map_at_10(row: np.ndarray, relevant: np.ndarray) -> float:
    """Average precision at 10 in so many words, ties in favour of what is not relevant."""
    order = sorted(range(len(row)), key=lambda i: (-row[i], relevant[i]))
    hits, total = 0, 0.0
    for rank, item in enumerate(order[:10], 1):
        if relevant[item]:
            hits += 1
            total += hits / rank
    return total / min(10, int(relevant.sum()))


def test_average_precision_at_by_hand():
    ranked = np.zeros((3, 20), bool)
    ranked[0, [1, 3, 15]] = True  # ranks 2, 4 and 16: (1/2 + 2/4) / 3
    ranked[1, 11] = True  # rank 12
    ranked[2, :] = True  # 20 relevant, ten of them are all that fits: divided by ten, not by twenty
    assert metrics.average_precision_at(ranked, 10) == pytest.approx([1 / 3, 0, 1])
    assert metrics.hit_at(ranked, 1).tolist() == [0, 0, 1]
    assert metrics.hit_at(ranked, 2).tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="at least 1"):
        metrics.average_precision_at(ranked, 0)


def test_directions_equal_a_plain_reference():
    """Five captions a clip: both directions against loops over sorted lists."""
    rng = np.random.default_rng(0)
    clips, captions = unit(rng.normal(size=(30, 8))), unit(rng.normal(size=(150, 8)))
    owner, each = np.repeat(np.arange(30), 5), np.arange(30)
    similarity = clips.astype(np.float64) @ captions.astype(np.float64).T
    relevant = each[:, None] == owner

    a2t = direction(clips, captions, each, owner)
    ranks = [[sorted(-row).index(-row[i]) + 1 for i in np.flatnonzero(relevant[n])] for n, row in enumerate(similarity)]
    for k, found in ((1, a2t.recall_at_1), (5, a2t.recall_at_5), (10, a2t.recall_at_10)):
        assert found == pytest.approx(np.mean([min(r) <= k for r in ranks]))
    assert a2t.map_at_10 == pytest.approx(
        np.mean([plain_map_at_10(s, r) for s, r in zip(similarity, relevant, strict=True)])
    )
    assert (a2t.queries, a2t.candidates) == (30, 150)

    t2a = direction(captions, clips, owner, each)
    places = [sorted(-row).index(-row[owner[n]]) + 1 for n, row in enumerate(similarity.T)]
    assert t2a.recall_at_5 == pytest.approx(np.mean([place <= 5 for place in places]))
    assert t2a.map_at_10 == pytest.approx(np.mean([1 / place if place <= 10 else 0 for place in places]))
    assert t2a.mean_recall == pytest.approx((t2a.recall_at_1 + t2a.recall_at_5 + t2a.recall_at_10) / 3)


def test_directions_by_hand():
    """Two clips at 0 and 90 degrees; captions of the first at 10, 20 and 80, of the second at 85 and 60."""

    def at(*degrees: float) -> Vectors:
        angle = np.radians(degrees)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)

    clips, captions, each, owner = at(0, 90), at(10, 20, 80, 85, 60), np.arange(2), np.array([0, 0, 0, 1, 1])
    a2t = direction(clips, captions, each, owner)
    assert a2t.recall_at_1 == 1
    # The first clip's captions rank 1, 2 and 4, the second's 1 and 3.
    assert a2t.map_at_10 == pytest.approx(((1 + 1 + 3 / 4) / 3 + (1 + 2 / 3) / 2) / 2)
    t2a = direction(captions, clips, owner, each)
    assert t2a.recall_at_1 == pytest.approx(4 / 5)  # the one at 80 degrees finds the second clip first
    assert t2a.map_at_10 == pytest.approx((4 + 1 / 2) / 5)


def test_long_tables_are_scored_in_parts(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(1)
    queries, candidates = unit(rng.normal(size=(25, 4))), unit(rng.normal(size=(25, 4)))
    whole = direction(queries, candidates, np.arange(25), np.arange(25))
    monkeypatch.setattr("audiosearch.trainer.evaluate.retrieval.QUERIES_AT_ONCE", 7)
    assert direction(queries, candidates, np.arange(25), np.arange(25)) == whole


def test_a_collapsed_model_earns_nothing():
    """Equal vectors must score equal whatever order the matrix product sums in."""
    same = np.tile(unit(np.random.default_rng(2).normal(size=(1, 301))), (37, 1))
    assert len(np.unique(scores(same, same))) == 1
    found = direction(same, same, np.arange(37), np.arange(37))
    assert (found.recall_at_1, found.recall_at_10, found.map_at_10) == (0, 0, 0)


# --- retrieval ---


def test_five_captions_by_hand(sounds: Path):
    """The hum's captions are told apart, of the beep's one says hiss; `hiss` has one caption, and it is right."""
    rows = [
        ManifestRow("hum.wav", "hum", alternatives=("a bass", "low hum")),
        ManifestRow("beep.wav", "beep", alternatives=("hiss",)),
        ManifestRow("hiss.wav", "a hiss"),
    ]
    found = evaluate_retrieval(toy.HandEmbedder(), rows, sounds)
    assert (found.items, found.texts, found.dropped) == (3, 6, ())
    assert (found.text_to_audio.queries, found.text_to_audio.candidates) == (6, 3)
    # All but the beep's "hiss" find their clip first, and with three clips everything is among the first five.
    assert found.text_to_audio.recall_at_1 == pytest.approx(5 / 6)
    assert found.text_to_audio.recall_at_5 == 1
    # hiss.wav meets "hiss" and "a hiss" with equal scores; the one that is not its own counts as first.
    assert (found.audio_to_text.queries, found.audio_to_text.candidates) == (3, 6)
    assert found.audio_to_text.recall_at_1 == pytest.approx(2 / 3)
    assert found.audio_to_text.recall_at_5 == 1


def test_rows_of_one_clip_are_one_clip(sounds: Path):
    """LibriSQA has a row a question; two questions about one recording are two texts of it."""
    rows = [
        ManifestRow("hum.wav", "t", question="who is low", answer="bass"),
        ManifestRow("hum.wav", "t", question="what hum", answer="hum"),
        ManifestRow("hiss.wav", "high", question="what hiss", answer="x"),
    ]
    found = evaluate_retrieval(toy.HandEmbedder(), rows, sounds, text_field="question")
    assert (found.items, found.texts) == (2, 3)
    assert found.text_to_audio.recall_at_1 == found.audio_to_text.recall_at_1 == 1
    assert evaluate_retrieval(toy.HandEmbedder(), rows, sounds, text_field="answer").text_to_audio.recall_at_1 < 1


def test_spans_are_clips_of_their_own(tmp_path: Path):
    toy.write_wav(tmp_path / "both.wav", np.concatenate([toy.tone(HUM, 2.0), toy.tone(HISS, 2.0)]))
    rows = [
        ManifestRow("both.wav", "hum", end_seconds=2.0),
        ManifestRow("both.wav", "hiss", start_seconds=2.0, end_seconds=4.0),
    ]
    found = evaluate_retrieval(toy.HandEmbedder(), rows, tmp_path)
    assert found.text_to_audio.recall_at_1 == found.audio_to_text.recall_at_1 == 1


def test_what_cannot_be_read_leaves_with_its_texts(sounds: Path):
    (sounds / "broken.wav").write_bytes(b"no sound at all")
    rows = [
        *(ManifestRow(f"{name}.wav", name) for name in ("hum", "beep", "hiss", "broken", "gone")),
        ManifestRow("hum.wav", "hum", start_seconds=50.0),
        ManifestRow("beep.wav", "  "),
    ]
    found = evaluate_retrieval(toy.HandEmbedder(), rows, sounds)
    assert (found.items, found.texts, found.audio_to_text.candidates) == (3, 3, 3)
    assert [(Path(item.audio).name, item.reason) for item in found.dropped] == [
        ("broken.wav", "not-audio"),
        ("gone.wav", "vanished"),
        ("hum.wav", "span"),
        ("beep.wav", "empty-text"),
    ]
    assert all(item.detail for item in found.dropped)
    with pytest.raises(UsageError, match=r"1 clips.*gone\.wav"):
        evaluate_retrieval(toy.HandEmbedder(), [rows[0], rows[4]], sounds)


def test_long_clips_are_cut_and_said(tmp_path: Path):
    toy.write_wav(tmp_path / "long.wav", np.concatenate([toy.tone(HUM, 30.0), toy.tone(HISS, 60.0)]))
    toy.write_wav(tmp_path / "beep.wav", toy.tone(BEEP, 1.0))
    rows = [ManifestRow("long.wav", "hum"), ManifestRow("beep.wav", "beep")]
    found = evaluate_retrieval(toy.HandEmbedder(), rows, tmp_path)
    assert [Path(path).name for path in found.cut] == ["long.wav"]
    assert found.audio_to_text.recall_at_1 == 1  # the hiss comes after the cut


def test_the_asking_side_may_carry_an_instruction(sounds: Path):
    """Only queries are embedded under it; what is searched is a plain document."""
    calls: list[tuple[str, str | None, str]] = []

    class Spy(toy.HandEmbedder):
        def embed_audio(self, clips: Iterable[Samples], *, instruction: Any = None, task: Any = "document") -> Vectors:
            calls.append(("audio", instruction, task))
            return super().embed_audio(clips, instruction=instruction, task=task)

        def embed_text(self, texts: Iterable[str], *, instruction: Any = None, task: Any = "document") -> Vectors:
            calls.append(("text", instruction, task))
            return super().embed_text(texts, instruction=instruction, task=task)

    rows = [ManifestRow("hum.wav", "hum"), ManifestRow("beep.wav", "beep")]
    evaluate_retrieval(Spy(), rows, sounds, queries="query", instruction="Find it")
    assert calls == [
        ("audio", None, "document"),
        ("text", None, "document"),
        ("audio", "Find it", "query"),
        ("text", "Find it", "query"),
    ]
    calls.clear()
    evaluate_retrieval(Spy(), rows, sounds)
    assert calls == [("audio", None, "document"), ("text", None, "document")]


def test_on_a_tiny_model_the_rows_are_those_of_the_seam(sounds: Path, tiny_checkpoint: Path, tmp_path: Path):
    """Windows, reading ahead and the cache change no vector, and the figures are those of the plain way."""
    from audiosearch.audio import read_span
    from audiosearch.embed import load_embedder

    embedder = load_embedder(str(tiny_checkpoint), device="cpu", dtype="float32")
    names, texts = ("hum", "beep", "hiss"), ("a low hum", "a car passes", "somebody laughs")
    rows = [ManifestRow(f"{name}.wav", text) for name, text in zip(names, texts, strict=True)]
    audio = embedder.embed_audio([read_span(str(sounds / f"{name}.wav")) for name in names])
    expected = direction(embedder.embed_text(texts), audio, np.arange(3), np.arange(3))
    for _ in range(2):  # computed, then from the cache
        found = evaluate_retrieval(embedder, rows, sounds, cache=tmp_path / "cache")
        assert found.text_to_audio == expected
    encoded = encode(embedder, [Item(Clip(str(sounds / "hum.wav")))], cache=tmp_path / "cache")
    np.testing.assert_allclose(encoded.matrix(list(encoded.vectors))[0], audio[0], atol=1e-5)


# --- the cache ---


def test_a_stopped_evaluation_goes_on(sounds: Path, tmp_path: Path):
    items = [Item(Clip(str(sounds / "hum.wav"), 0.0, 0.1 + 0.02 * n)) for n in range(40)]
    items += [Item(text=f"hum number {n}") for n in range(40)]
    with pytest.raises(KeyboardInterrupt):
        encode(CountingEmbedder(stop_after=30), items, cache=tmp_path / "cache")
    again = CountingEmbedder()
    found = encode(again, items, cache=tmp_path / "cache")
    assert 80 - 30 <= again.items <= 80 - 8  # at least the first window was kept
    third = CountingEmbedder()
    np.testing.assert_array_equal(encode(third, items, cache=tmp_path / "cache").matrix(items), found.matrix(items))
    assert third.items == 0
    np.testing.assert_array_equal(encode(CountingEmbedder(), items).matrix(items), found.matrix(items))


def test_the_cache_knows_content_not_names(sounds: Path, tmp_path: Path):
    def count(embedder: CountingEmbedder, *items: Item) -> int:
        encode(embedder, items, cache=tmp_path / "cache")
        return embedder.items

    hum = Item(Clip(str(sounds / "hum.wav")))
    assert count(CountingEmbedder(), hum, hum) == 1
    (sounds / "hum.wav").rename(sounds / "renamed.wav")
    assert count(CountingEmbedder(), Item(Clip(str(sounds / "renamed.wav")))) == 0
    toy.write_wav(sounds / "renamed.wav", toy.tone(BEEP, 1.0))
    assert count(CountingEmbedder(), Item(Clip(str(sounds / "renamed.wav")))) == 1
    # Another mode, another instruction, a text: not the same vector.
    for item in (Item(hum.clip, task="query"), Item(hum.clip, instruction="low?"), Item(hum.clip, text="low")):
        beep = Item(Clip(str(sounds / "beep.wav")), item.text, item.instruction, item.task)
        assert count(CountingEmbedder(), beep) == 1
        assert count(CountingEmbedder(), beep) == 0
    # Another model, or the same at another precision.
    for change in ({"fingerprint": "other"}, {"placement": "cuda:0, bfloat16: as asked"}):
        other = CountingEmbedder()
        for name, value in change.items():
            setattr(other, name, value)
        assert count(other, Item(Clip(str(sounds / "beep.wav")))) == 1


def test_a_damaged_cache_is_computed_again(sounds: Path, tmp_path: Path):
    items = [Item(text="hum"), Item(text="hiss")]
    expected = encode(toy.HandEmbedder(), items, cache=tmp_path / "cache").matrix(items)
    (shard,) = (tmp_path / "cache").rglob("*.npz")
    for damage in (b"", b"PK nonsense", shard.read_bytes()[:-40]):
        shard.write_bytes(damage)
        embedder = CountingEmbedder()
        np.testing.assert_array_equal(encode(embedder, items, cache=tmp_path / "cache").matrix(items), expected)
        assert embedder.items == 2
    assert [path.suffix for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [".npz"]


def test_a_cache_that_cannot_be_made_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="no cache can be made"):
        encode(toy.HandEmbedder(), [Item(text="hum")], cache=tmp_path / "file" / "cache")


def test_progress_counts_to_the_end(sounds: Path):
    seen: list[tuple[int, int]] = []
    items = [Item(Clip(str(sounds / name))) for name in ("hum.wav", "gone.wav")] + [Item(text="hum"), Item(text="hum")]
    encode(toy.HandEmbedder(), items, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 3)
    assert seen[-1] == (3, 3)
    assert seen == sorted(seen)


# --- audio questions ---


def question(sounds: Path, name: str, choices: tuple[str, ...], answer: str, **fields: str) -> MmauItem:
    given = {"id": name, "audio": str(sounds / f"{name}.wav"), "question": "what is it", "task": "sound"}
    rest = {"difficulty": "easy", "category": "", "sub_category": "", "dataset": ""}
    return MmauItem(**{**given, **rest, **fields}, choices=choices, answer=answer)  # type: ignore[arg-type]


def test_nearest_answer_by_hand(sounds: Path):
    questions = [
        question(sounds, "hum", ("hum", "hiss", "beep", "whistle"), "hum"),
        question(sounds, "hum", ("hiss", "bass"), "bass", difficulty="hard"),
        question(sounds, "beep", ("beep", "hiss"), "hiss", task="music"),  # the model says beep
        question(sounds, "hiss", ("unknown", "words"), "words", task="speech"),  # neither is told from the other
    ]
    found = evaluate_audio_qa(toy.HandEmbedder(), questions)
    assert (found.items, found.accuracy) == (4, 0.5)
    assert {name: (of.items, of.accuracy) for name, of in found.by_task.items()} == {
        "sound": (2, 1.0),
        "music": (1, 0.0),
        "speech": (1, 0.0),  # a tie is wrong
    }
    assert {name: (of.items, of.accuracy) for name, of in found.by_difficulty.items()} == {
        "easy": (3, pytest.approx(1 / 3)),
        "hard": (1, 1.0),
    }
    assert found.chance == pytest.approx((1 / 4 + 3 / 2) / 4)


def test_the_question_is_heard_with_the_clip(sounds: Path):
    """What the question names weighs in the joint vector, so it can turn an answer."""
    unasked = question(sounds, "beep", ("hum", "noise"), "hum")
    asked = question(sounds, "beep", ("hum", "noise"), "hum", question="is there a hum, a hum, a hum?")
    assert evaluate_audio_qa(toy.HandEmbedder(), [unasked]).accuracy == 0
    assert evaluate_audio_qa(toy.HandEmbedder(), [asked]).accuracy == 1


def test_a_question_without_its_clip_is_left_out(sounds: Path):
    gone = question(sounds, "gone", ("hum", "hiss"), "hum")
    found = evaluate_audio_qa(toy.HandEmbedder(), [gone, question(sounds, "hum", ("hum", "hiss"), "hum")])
    assert (found.items, found.accuracy, [item.reason for item in found.dropped]) == (1, 1.0, ["vanished"])
    with pytest.raises(UsageError, match=r"none of 1 questions.*gone\.wav"):
        evaluate_audio_qa(toy.HandEmbedder(), [gone])


# --- triplets ---


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "scenes")


def test_triplets_by_hand(scenes: Path):
    """The beep is louder, so plainly heard it is nearer; under an instruction that asks for the hum, the hum is."""
    table = write_lines(
        scenes / "t.jsonl",
        triplet("hum.wav", "beep.wav", "Is there a hum?", kind="wanted"),
        triplet("beep.wav", "hum.wav", "Is there a beep?", kind="plain"),
        triplet({"text": "hum"}, {"text": "beep"}, "Is there a hum?", kind="wanted"),
        triplet("beep.wav", {"audio": "beep.wav", "start_seconds": 0, "end_seconds": 1.0}, "Is there a beep?"),
    )
    found = evaluate_triplets(toy.HandEmbedder(), read_triplets(table))
    assert (found.items, found.accuracy, found.accuracy_without_instruction) == (4, 0.75, 0.25)  # the last is a tie
    assert {kind: (of.items, of.accuracy, of.accuracy_without_instruction) for kind, of in found.by_kind.items()} == {
        "wanted": (2, 1.0, 0.0),
        "plain": (1, 1.0, 1.0),
    }


def test_triplets_are_heard_in_query_mode_under_their_instruction(scenes: Path):
    calls: list[tuple[str | None, str]] = []

    class Spy(toy.HandEmbedder):
        def embed_audio(self, clips: Iterable[Samples], *, instruction: Any = None, task: Any = "document") -> Vectors:
            calls.append((instruction, task))
            return super().embed_audio(clips, instruction=instruction, task=task)

    rows = [triplet("hum.wav", "beep.wav", "Is it low?"), triplet("hum.wav", "beep.wav", "Is it high?")]
    evaluate_triplets(Spy(), read_triplets(write_lines(scenes / "t.jsonl", *rows)))
    assert calls == [("Is it low?", "query"), ("Is it high?", "query"), (None, "document")]


def test_a_triplet_without_its_sound_is_left_out(scenes: Path):
    rows = [triplet("hum.wav", "beep.wav", "Is there a hum?"), triplet("gone.wav", "beep.wav", "Is there a hum?")]
    table = write_lines(scenes / "t.jsonl", *rows)
    found = evaluate_triplets(toy.HandEmbedder(), read_triplets(table))
    assert (found.items, [Path(item.audio).name for item in found.dropped]) == (1, ["gone.wav"])
    with pytest.raises(UsageError, match=r"none of 2 triplets.*--audio"):
        evaluate_triplets(toy.HandEmbedder(), read_triplets(table, scenes / "elsewhere"))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("no json", "not a JSON object"),
        ({"query": "a.wav"}, "instruction is missing"),
        (triplet("a.wav", "b.wav", " "), "instruction is missing"),
        (triplet("a.wav", None, "x"), "hard_negative is missing"),
        (triplet("a.wav", {}, "x"), "hard_negative has neither"),
        (triplet({"audio": 3}, "b.wav", "x"), "target: audio is 3, expected a text"),
        (triplet({"audio": "a.wav", "end": 3}, "b.wav", "x"), "target has the unknown key 'end'"),
        (triplet({"audio": "a.wav", "start_seconds": 3, "end_seconds": 2}, "b.wav", "x"), "target: a span"),
        (triplet("a.wav", "b.wav", "x", king="y"), "unknown key 'king'"),
        (triplet("a.wav", "b.wav", "x", kind=3), "kind is 3, expected a text"),
        ({**triplet({"text": "a"}, {"text": "b"}, "x"), "query": {"text": "c"}}, "none of its sides has audio"),
    ],
)
def test_a_wrong_triplet_is_named_by_its_line(tmp_path: Path, row: Any, says: str):
    table = tmp_path / "t.jsonl"
    table.write_text("\n" + (row if isinstance(row, str) else json.dumps(row)) + "\n")
    with pytest.raises(UsageError, match=f"t.jsonl:2: .*{says}"):
        read_triplets(table)


def test_an_empty_file_of_triplets_is_refused(tmp_path: Path):
    (tmp_path / "t.jsonl").write_text("\n")
    with pytest.raises(UsageError, match="no triplet"):
        read_triplets(tmp_path / "t.jsonl")


# --- published figures and reports ---


def test_published_figures_are_sound():
    for item in FIGURES:
        assert 0 < item.value < 1
        assert item.source
    names = [(item.task, item.figure, item.system, item.source) for item in FIGURES]
    assert len(names) == len(set(names))
    # The radar's reading must agree with what it was derived from: FT's axis value times WavCaps' mean recall.
    for task, figure, axis in (("audiocaps", "text_to_audio", 1.015), ("clotho", "audio_to_text", 1.02)):
        (recalled,) = (i for i in published(task, f"{figure}.mean_recall", "recalled") if i.system == "WavCaps")
        (inferred,) = (i for i in published(task, f"{figure}.mean_recall", "inferred") if i.system == "ALM2Vec-FT")
        assert inferred.value == pytest.approx(axis * recalled.value, abs=0.01)


RESULT: dict[str, Any] = {
    "task": "clotho",
    "model": "hand",
    "items": 1045,
    "texts": 5225,
    "text_field": "caption",
    "text_to_audio": {"queries": 5225, "recall_at_1": 0.1234, "mean_recall": 0.3},
    "audio_to_text": {"queries": 1045, "recall_at_1": 0.2, "mean_recall": 0.4},
    "dropped": [],
    "cut": ["a.wav"],
    "notes": ["a | note"],
}


def test_the_table_keeps_quoted_and_inferred_apart():
    lines = report.table(RESULT).splitlines()
    assert lines[0] == "clotho: 1,045 items, 5,225 texts (caption), 1 clips cut to the model's longest; model hand"
    head = lines[2]
    row = next(line for line in lines if line.startswith("text -> audio R@1"))
    assert row.split()[4] == "12.3"
    quoted, other = head.index("published"), head.index("recalled or inferred")
    assert row[quoted:other].strip() == "ALM2Vec 24.8 [1]"
    assert row[other:].startswith("LAION-CLAP 16.1 [2]; WavCaps 19.7 [2]")
    mean = next(line for line in lines if line.startswith("text -> audio mean"))
    assert mean[quoted:other].strip() == ""
    assert "ALM2Vec-FT >= 47.5" in mean[other:]
    assert "[1] quoted: third-party digest of arXiv 2606.30682; stage not said" in lines
    assert not any("inferred" in line for line in lines if line.startswith("[1]"))


def test_a_part_of_the_set_has_nothing_beside_it():
    text = report.table({**RESULT, "limit": 100})
    assert "ALM2Vec" not in text
    assert "limited to the first 100 rows: not comparable" in text


def test_markdown_is_a_table_a_result():
    mmau = {
        "task": "mmau",
        "model": "hand",
        "items": 4,
        "accuracy": 0.5,
        "by_task": {"sound": {"items": 2, "accuracy": 1.0}},
    }
    text = report.markdown([RESULT, mmau])
    assert text.count("### ") == 2
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert "| figure | ours | published | recalled or inferred |" in tables
    assert any(line.startswith("| accuracy | 50.0 | ALM2Vec 63.0 [1]; GPT-4o Audio 60.8 [2] |") for line in tables)
    assert any(line.startswith("| sound (2) accuracy | 100.0 |") for line in tables)
    assert "- a | note" in text
    assert report.heading({**mmau, "model": "/home/me/runs/mine"}).endswith("model mine")
    assert report.heading({**mmau, "model": "cara-ai/ALM2Vec-FT"}).endswith("model cara-ai/ALM2Vec-FT")


def test_unknown_figures_are_shown_as_they_are():
    goldens = {
        "task": "goldens",
        "model": "m",
        "items": 2,
        "mean_deviation": 0.00123,
        "missing": {"a.wav": "not there"},
    }
    text = report.table(goldens)
    assert "mean deviation  0.0012" in text
    assert "1 left out" in text
    assert "published" not in text


def test_results_are_written_whole(tmp_path: Path):
    path = tmp_path / "results" / "clotho.json"
    report.write_json(RESULT, path)
    assert report.read_json(path) == RESULT
    assert [p.name for p in path.parent.iterdir()] == ["clotho.json"]
    with pytest.raises(UsageError, match="cannot be written"):
        report.write_json(RESULT, path / "below.json")
    (tmp_path / "other.json").write_text('{"hits": []}')
    with pytest.raises(UsageError, match="no result"):
        report.read_json(tmp_path / "other.json")
