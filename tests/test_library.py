"""Whole libraries through the public face: real files, a real store, and the hand-computed model of toy.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy

from audiosearch import Library
from audiosearch.audio import read_span
from audiosearch.errors import LibraryEmpty, LibraryNotFound, SpaceMismatch, UsageError
from audiosearch.library import Models
from audiosearch.store.store import Store


class HandModels:
    """Counts how often a model was described and loaded."""

    def __init__(self, **changes: object) -> None:
        self.changes = changes
        self.described: list[str] = []
        self.loaded: list[toy.HandEmbedder] = []

    def models(self) -> Models:
        def describe(name: str) -> Any:
            self.described.append(name)
            return toy.description(name, **self.changes)

        def load(name: str, *, device: str | None, dtype: str | None) -> Any:
            self.loaded.append(toy.HandEmbedder())
            return self.loaded[-1]

        return Models(describe, load)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith("AUDIOSEARCH_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(3)
    for i in range(6):
        parts = [toy.tone(frequency, 4.0, level=0.3) for frequency in rng.uniform(80, 7000, 3)]
        toy.write_wav(folder / f"clip{i}.wav", np.concatenate(parts) + toy.noise(i, 12.0, level=0.02))
    hum, whistle = toy.tone(100, 20.0), toy.tone(4000, 15.0)
    toy.write_wav(folder / "long.wav", np.concatenate([hum, whistle, hum]))
    return folder


@pytest.fixture(scope="module")
def filled(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of all of them. Read only."""
    directory = tmp_path_factory.mktemp("library")
    with Library.open(directory, create=True, models=HandModels().models()) as library:
        summary = library.ingest([sounds], workers=1)
    assert (summary.files_indexed, summary.failed) == (7, ())
    return directory


@pytest.fixture
def library(filled: Path) -> Iterator[Library]:
    with Library.open(filled, models=HandModels().models()) as library:
        yield library


def test_hits_are_those_of_brute_force_over_the_same_sound(library: Library, filled: Path):
    """Every stored chunk is decoded and embedded again; the engine must find the best of them, with the same score."""
    with Store.open(filled) as store:
        space = store.spaces()[0]
        chunks = store.resolve(store.changes_since(space.id, 0).added_ids)
    clips = [read_span(str(Path(*chunk.paths[0])), chunk.start_seconds, chunk.end_seconds) for chunk in chunks]
    embedder = toy.HandEmbedder()
    vectors = embedder.embed_audio(clips)
    for text in ("low hum", "whistle", "voice", "beep", "noise"):
        scores = vectors @ embedder.embed_text([text])[0]
        best = chunks[int(scores.argmax())]
        hit = library.query(text, k=1).hits[0]
        assert hit.score == pytest.approx(scores.max(), abs=1e-3)
        assert hit.path == str(Path(*best.paths[0]))
        assert hit.start_seconds <= best.start_seconds < best.end_seconds <= hit.end_seconds


def test_a_moment_in_a_long_recording_is_found_with_its_span(library: Library, sounds: Path):
    def spans(text: str) -> list[tuple[float, float]]:
        hits = [hit for hit in library.query(text, k=50).hits if hit.path == str(sounds / "long.wav")]
        return [(hit.start_seconds, hit.end_seconds) for hit in hits]

    assert spans("whistle")[0] == (20.0, 35.0)
    assert sorted(spans("hum")[:2]) == [(0.0, 20.0), (35.0, 55.0)]


def test_an_example_sound_finds_its_own_place(library: Library, sounds: Path):
    hit = library.query(audio=sounds / "clip3.wav", k=1).hits[0]
    assert hit.path == str(sounds / "clip3.wav")
    assert hit.score == pytest.approx(1.0, abs=1e-3)
    span = library.query(audio=str(sounds / "long.wav"), start_seconds=22, end_seconds=30, k=1).hits[0]
    assert (span.path, span.start_seconds, span.end_seconds) == (str(sounds / "long.wav"), 20.0, 35.0)


def test_an_instruction_is_heard_in_the_stored_sound_both_ways(filled: Path, sounds: Path, tmp_path: Path):
    """Re-embedding candidates and searching an aspect space give the same answer: they compute the same thing."""
    models = HandModels().models()
    with Library.open(filled, models=models, rerank_seconds=60.0) as library:
        reread = library.query("whistle", instruction="high whistle", k=7)
    assert (reread.instruction_route, reread.not_reread) == ("re-embedded", 0)
    assert reread.reread > 7
    with Library.open(tmp_path, create=True, models=models) as other:
        other.ingest([sounds], workers=1)
        plain = other.query("whistle", k=7)
        other.ingest([sounds], instruction="high whistle", workers=1)
        aspect = other.query("whistle", instruction="high whistle", k=7)
        assert other.query("whistle", k=7).hits == plain.hits, "the default space is as it was"
        assert [space.is_default for space in other.status().spaces] == [True, False]
    assert (aspect.instruction_route, aspect.reread, aspect.notes) == ("aspect-space", 0, ())
    assert [hit.id for hit in aspect.hits] == [hit.id for hit in reread.hits]
    assert [hit.score for hit in aspect.hits] == pytest.approx([hit.score for hit in reread.hits], abs=1e-3)
    assert [hit.score for hit in aspect.hits] != pytest.approx([hit.score for hit in plain.hits], abs=0.02)


def test_an_aspect_of_a_part_says_so(sounds: Path, tmp_path: Path):
    with Library.open(tmp_path, create=True, models=HandModels().models()) as library:
        library.ingest([sounds / "clip0.wav", sounds / "clip1.wav"], workers=1)
        library.ingest([sounds / "clip0.wav"], instruction="high", workers=1)
        assert "1 of 2 recordings" in library.query("hum", instruction="high").notes[0]


def test_ids_and_scores_are_the_same_in_another_library(library: Library, sounds: Path, tmp_path: Path):
    copies = tmp_path / "elsewhere"
    copies.mkdir()
    for path in sounds.iterdir():
        (copies / f"copy of {path.name}").write_bytes(path.read_bytes())
    with Library.open(tmp_path / "library", create=True, models=HandModels().models()) as other:
        other.ingest([copies], workers=1, progress=lambda state: None)
        for text in ("whistle", "low voice"):
            here, there = library.query(text).hits, other.query(text).hits
            assert [hit.id for hit in here] == [hit.id for hit in there]
            assert [hit.score for hit in here] == [hit.score for hit in there]


def test_new_commits_are_seen_without_reopening_and_the_model_is_loaded_once(sounds: Path, tmp_path: Path):
    hand = HandModels()
    Library.open(tmp_path, create=True).close()
    with Library.open(tmp_path, models=hand.models()) as reader:
        with pytest.raises(LibraryEmpty):
            reader.query("hum")
        with Library.open(tmp_path, models=HandModels().models()) as writer:
            writer.ingest([sounds / "clip0.wav"], workers=1)
        assert len(reader.query("hum").hits) == 1
        with Library.open(tmp_path, models=HandModels().models()) as writer:
            writer.ingest([sounds / "clip1.wav"], workers=1)
        assert {Path(hit.path).name for hit in reader.query("hum").hits} == {"clip0.wav", "clip1.wav"}
        assert len(hand.loaded) == 1
        assert reader.status().recordings == 2


def test_ingest_again_loads_no_model_and_nothing_heavy(filled: Path, sounds: Path):
    """In a process of its own: what is unchanged needs neither a model nor a decoder nor an index."""
    code = (
        "import sys, toy\nfrom audiosearch.library import Library, Models\n"
        "def load(*_, **__): raise AssertionError('a model was loaded')\n"
        "with Library.open(sys.argv[1], create=True, models=Models(toy.description, load)) as library:\n"
        "    summary = library.ingest([sys.argv[2]])\n"
        "print(summary.files_unchanged, summary.device)\n"
        "print(*sorted({'torch', 'transformers', 'faiss', 'av'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(filled), str(sounds)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert done.stdout.splitlines() == ["7 None", ""]


def test_what_is_not_said_is_as_in_the_default_space(sounds: Path, tmp_path: Path):
    """Another window or model in the environment of one ingest must not split the library for the next one."""
    hand = HandModels()
    with Library.open(tmp_path, create=True, model="first", models=hand.models()) as library:
        library.ingest([sounds / "clip0.wav"], window_seconds=4.0, hop_seconds=2.0, workers=1)
    with Library.open(tmp_path, models=hand.models()) as library:
        library.ingest([sounds / "clip1.wav"], workers=1)
        assert [space.model for space in library.status().spaces] == ["first"]
        assert {Path(hit.path).name for hit in library.query("hum", k=20).hits} == {"clip0.wav", "clip1.wav"}
    assert set(hand.described) == {"first"}


def test_vectors_of_another_model_are_never_compared(filled: Path):
    retrained = HandModels(fingerprint="retrained").models()
    with Library.open(filled, models=retrained) as library, pytest.raises(SpaceMismatch, match="ingest"):
        library.query("hum")
    described_one_loaded_another = Models(toy.description, lambda name, **_: toy.HandEmbedder())
    with Library.open(filled, models=described_one_loaded_another) as library:
        library.query("hum")
        library._models.close()
        toy_fingerprint, toy.HandEmbedder.fingerprint = toy.HandEmbedder.fingerprint, "swapped"
        try:
            with pytest.raises(SpaceMismatch):
                library.query("hum")
        finally:
            toy.HandEmbedder.fingerprint = toy_fingerprint


def test_a_retrained_model_searches_what_was_ingested_again(sounds: Path, tmp_path: Path, monkeypatch):
    with Library.open(tmp_path, create=True, models=HandModels().models()) as library:
        library.ingest([sounds / "clip0.wav"], workers=1)
    monkeypatch.setattr(toy.HandEmbedder, "fingerprint", "retrained")
    with Library.open(tmp_path, create=True, models=HandModels(fingerprint="retrained").models()) as library:
        library.ingest([sounds / "clip0.wav"], workers=1)
        assert len(library.query("hum").hits) == 1
        assert len(library.status().spaces) == 2


def test_errors_that_name_the_remedy(tmp_path: Path, sounds: Path):
    with pytest.raises(LibraryNotFound, match="audiosearch ingest"):
        Library.open(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with Library.open(tmp_path / "new", create=True, models=HandModels().models()) as library:
        with pytest.raises(LibraryEmpty, match="audiosearch ingest"):
            library.query("hum")
        with pytest.raises(UsageError):
            library.ingest([])
        with pytest.raises(UsageError):
            library.ingest([tmp_path / "absent"])
        with pytest.raises(UsageError):
            library.ingest([sounds], instruction=" ")
        with pytest.raises(UsageError):
            library.query()


def test_failures_are_listed_and_the_rest_is_found(tmp_path: Path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    toy.write_wav(folder / "good.wav", toy.tone(100, 3.0))
    (folder / "bad.wav").write_text("no sound")
    with Library.open(tmp_path / "library", create=True, models=HandModels().models()) as library:
        summary = library.ingest([folder], workers=1)
        assert [failed.path for failed in summary.failed] == [str(folder / "bad.wav")]
        assert library.failures() == summary.failed
        assert library.query("hum").hits[0].path == str(folder / "good.wav")
