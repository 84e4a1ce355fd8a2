"""`audiosearch evaluate`: public layouts of small sounds, what it prints, its exit codes."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import toy
from evaluate_helpers import HUM, CountingEmbedder, triplet, write_lines, write_scenes, write_sounds

from audiosearch.cli import run
from audiosearch.trainer.evaluate.encoder import scores
from audiosearch.types import Vectors


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    return write_sounds(tmp_path / "sounds")


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "scenes")


@pytest.fixture
def hand_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CountingEmbedder:
    embedder = CountingEmbedder()
    monkeypatch.setenv("AUDIOSEARCH_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setattr("audiosearch.embed.load_embedder", lambda name, **_: embedder)
    return embedder


def write_csv(path: Path, *rows: Iterable[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows(rows)
    return path


def write_clotho(folder: Path, sounds: Path) -> Path:
    head = ["file_name", *(f"caption_{n}" for n in range(1, 6))]
    said = {
        "hum": ["hum", "bass", "a hum", "one hum", "low hum"],
        "hiss": ["hiss", "a hiss", "the hiss", "hiss hiss", "so hiss"],
    }
    return write_csv(
        folder / "clotho_captions_evaluation.csv", head, *([f"{name}.wav", *t] for name, t in said.items())
    )


def test_clotho_from_the_command_line(hand_model: CountingEmbedder, sounds: Path, tmp_path: Path, capfd):
    table = write_clotho(tmp_path, sounds)
    argv = ["evaluate", "clotho", "--table", str(table), "--audio", str(sounds), "--cache", str(tmp_path / "cache")]
    assert run([*argv, "--json", "--out", str(tmp_path / "out.json")]) == 0
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert result == json.loads((tmp_path / "out.json").read_text())
    assert (result["version"], result["task"], result["items"], result["texts"]) == (1, "clotho", 2, 10)
    assert (result["model"], result["fingerprint"]) == ("alm2vec-mini", toy.MODEL_FINGERPRINT)
    assert result["table"]["file"] == table.name
    assert len(result["table"]["sha256"]) == 64
    assert result["text_to_audio"]["recall_at_1"] == result["audio_to_text"]["recall_at_1"] == 1.0
    assert result["audio_to_text"]["map_at_10"] == 1.0  # all five of each before any of the other's
    assert "2 of 2 clips" in " ".join(result["notes"]) and "note: " in err

    embedded = hand_model.items
    assert run(argv) == 0
    out, _ = capfd.readouterr()
    assert hand_model.items == embedded  # all from the cache
    assert out.startswith("clotho: 2 items, 10 texts (caption)")
    assert "ALM2Vec 24.8" in out
    assert run([*argv, "--limit", "1"]) == 2  # one clip is no retrieval


def test_audiocaps_with_a_broken_clip_is_exit_3(hand_model: CountingEmbedder, sounds: Path, tmp_path: Path, capfd):
    (sounds / "Ybroken00000.wav").write_bytes(b"nothing")
    for name in ("hum", "hiss"):
        (sounds / f"{name}.wav").rename(sounds / f"Y{name:0<11}.wav")
    rows = [[str(n), f"{name:0<11}", "30", text] for n, (name, text) in enumerate(
        [("hum", "hum"), ("hum", "a bass"), ("hiss", "hiss"), ("broken", "beep"), ("gone", "beep")]
    )]  # fmt: skip
    table = write_csv(tmp_path / "test.csv", ["audiocap_id", "youtube_id", "start_time", "caption"], *rows)
    assert run(["-q", "evaluate", "audiocaps", "--table", str(table), "--audio", str(sounds), "--json"]) == 3
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert (result["items"], result["texts"]) == (2, 3)
    assert [Path(item["audio"]).name for item in result["dropped"]] == ["Ybroken00000.wav"]
    assert err.count("\n") == 1 and "left out: " in err and "Ybroken00000.wav" in err
    assert any("3 of 4 clips" in note for note in result["notes"])  # `gone` never was there: a note, not a failure


def write_librisqa(folder: Path) -> Path:
    rows = [
        {"speech_path": "hum.wav", "question": "Which hum?", "answer": "hiss", "text": "bass", "duration": 1.0},
        {
            "speech_path": "hiss.wav",
            "question": "Which hiss?",
            "answer": "hum",
            "text": "whistle hiss",
            "duration": 1.0,
        },
    ]
    (folder / "LibriSQA-PartI-test.json").write_text(json.dumps(rows))
    return folder / "LibriSQA-PartI-test.json"


@pytest.mark.parametrize(("text", "recall"), [(None, 1.0), ("question", 1.0), ("transcript", 1.0), ("answer", 0.0)])
def test_librisqa_text_is_a_choice(hand_model, sounds: Path, tmp_path: Path, capfd, text: str | None, recall: float):
    argv = ["evaluate", "librisqa", "--table", str(write_librisqa(tmp_path)), "--audio", str(sounds), "--json"]
    assert run([*argv, *(["--text", text] if text else [])]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["text_field"] == (text or "question")
    assert result["text_to_audio"]["recall_at_1"] == result["audio_to_text"]["recall_at_1"] == recall


@pytest.mark.parametrize("with_id", [True, False])
def test_mmau_records_its_version(hand_model, sounds: Path, tmp_path: Path, capfd, with_id: bool):
    rows = [
        {
            **({"id": f"u{n}"} if with_id else {}),
            "audio_id": f"./test-mini-audios/{name}.wav",
            "question": "What is it?",
            "choices": ["hum", "hiss"],
            "answer": answer,
            "dataset": "d",
            "task": task,
            "split": "test-mini",
            "category": "c",
            "sub-category": "s",
            "difficulty": "easy",
        }
        for n, (name, answer, task) in enumerate([("hum", "hum", "sound"), ("hiss", "hum", "music")])
    ]
    (tmp_path / "mmau-test-mini.json").write_text(json.dumps(rows))
    argv = ["evaluate", "mmau", "--table", str(tmp_path / "mmau-test-mini.json"), "--audio", str(sounds)]
    assert run([*argv, "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["accuracy"] == 0.5
    assert result["by_task"] == {"sound": {"items": 1, "accuracy": 1.0}, "music": {"items": 1, "accuracy": 0.0}}
    version = " ".join(result["notes"])
    assert ("rows have an `id`" in version) is with_id
    assert result["table"]["sha256"] in version
    assert run(argv) == 0
    out = capfd.readouterr().out
    assert "accuracy" in out and "ALM2Vec 63.0" in out and "sound (1) accuracy" in out


def test_triplets_from_the_command_line(hand_model, scenes: Path, capfd):
    table = write_lines(scenes / "t.jsonl", triplet("hum.wav", "beep.wav", "Is there a hum?", kind="loudness"))
    assert run(["evaluate", "triplets", "--table", str(table)]) == 0
    out = capfd.readouterr().out
    assert "accuracy without the instruction" in out
    assert "loudness (1) accuracy" in out


def test_goldens_from_the_command_line(hand_model, sounds: Path, tmp_path: Path, capfd):
    goldens = {"audio_to_text": [{"audio": ["hum.wav", "gone.wav"], "text": ["hum"], "similarity": [[0.5], [0.5]]}]}
    (tmp_path / "goldens.json").write_text(json.dumps(goldens))
    argv = ["evaluate", "goldens", "--table", str(tmp_path / "goldens.json"), "--audio", str(sounds)]
    assert run([*argv, "--json"]) == 3
    out, err = capfd.readouterr()
    result = json.loads(out)
    found = scores(hand_model.embed_audio([toy.tone(HUM, 1.0)]), hand_model.embed_text(["hum"]))[0, 0]
    assert result["largest_deviation"] == pytest.approx(abs(found - 0.5), abs=1e-3)
    assert "gone.wav" in err
    assert run(argv) == 3
    assert "largest deviation" in capfd.readouterr().out


def test_the_model_is_opened_as_asked(monkeypatch: pytest.MonkeyPatch, sounds: Path, tmp_path: Path, capfd):
    asked: list[tuple[str, dict[str, Any]]] = []

    def load(name: str, **how: Any) -> toy.HandEmbedder:
        asked.append((name, how))
        return toy.HandEmbedder()

    monkeypatch.setenv("AUDIOSEARCH_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setattr("audiosearch.embed.load_embedder", load)
    table = write_lines(sounds / "m.jsonl", {"audio": "hum.wav", "text": "hum"}, {"audio": "hiss.wav", "text": "hiss"})
    argv = ["--model", "jina:some/model", "evaluate", "manifest", "--table", str(table), "--device", "cpu"]
    assert run([*argv, "--dtype", "float32", "--trust-remote-code", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["model"] == "jina:some/model"
    assert run(["evaluate", "manifest", "--table", str(table)]) == 0
    assert asked == [
        ("jina:some/model", {"device": "cpu", "dtype": "float32", "trust_remote_code": True}),
        ("alm2vec-mini", {"device": None, "dtype": None, "trust_remote_code": False}),
    ]


def test_your_own_manifest(hand_model, sounds: Path, capfd):
    table = write_lines(sounds / "m.jsonl", {"audio": "hum.wav", "text": "hum"}, {"audio": "hiss.wav", "text": "hiss"})
    assert run(["evaluate", "manifest", "--table", str(table), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["text_to_audio"]["recall_at_1"] == 1.0


def test_an_instruction_makes_the_asking_side_a_query(
    monkeypatch: pytest.MonkeyPatch, sounds: Path, tmp_path: Path, capfd
):
    calls: list[Any] = []

    class Spy(toy.HandEmbedder):
        def embed_text(self, texts: Iterable[str], *, instruction: Any = None, task: Any = "document") -> Vectors:
            calls.append((instruction, task))
            return super().embed_text(texts)

    monkeypatch.setenv("AUDIOSEARCH_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setattr("audiosearch.embed.load_embedder", lambda name, **_: Spy())
    argv = ["evaluate", "clotho", "--table", str(write_clotho(tmp_path, sounds)), "--audio", str(sounds), "--json"]
    assert run([*argv, "--instruct", "Find the sound."]) == 0
    assert json.loads(capfd.readouterr().out)["instruct"] == "Find the sound."
    assert set(calls) == {(None, "document"), ("Find the sound.", "query")}


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["sunday"], "sunday"),
        (["clotho"], "--table"),
        (["clotho", "--table", "none.csv"], "none.csv"),
        (["clotho", "--table", "{table}", "--text", "answer"], "--text means nothing to clotho"),
        (["triplets", "--table", "{table}", "--instruct", "x"], "--instruct means nothing to triplets"),
        (["goldens", "--table", "{table}", "--cache", "x"], "--cache means nothing to goldens"),
        (["clotho", "--table", "{table}", "--limit", "0"], "--limit"),
        (["clotho", "--table", "{table}"], "file_name"),
        (["mmau", "--table", "{table}"], "not JSON"),
    ],
)
def test_mistakes_are_one_line(hand_model: CountingEmbedder, tmp_path: Path, capfd, argv: list[str], says: str):
    """And they cost no model."""
    table = write_csv(tmp_path / "table.csv", ["name", "caption"], ["hum.wav", "hum"])
    assert run(["evaluate", *(word.format(table=table) for word in argv)]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("audiosearch: ") and err.count("\n") == 1 and says in err
    assert hand_model.items == 0


def test_a_stop_is_130_and_keeps_the_cache(hand_model: CountingEmbedder, sounds: Path, tmp_path: Path, capfd):
    argv = ["evaluate", "clotho", "--table", str(write_clotho(tmp_path, sounds)), "--audio", str(sounds)]
    hand_model.stop_after = 5
    assert run([*argv, "--cache", str(tmp_path / "cache")]) == 130
    hand_model.stop_after, before = None, hand_model.items
    assert run([*argv, "--cache", str(tmp_path / "cache")]) == 0
    assert 0 < hand_model.items - before < 12  # two clips and ten captions in all
