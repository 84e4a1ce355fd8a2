"""Spaces side by side: nothing mixes, no setting loses anything, a half-filled one fills up, a dropped one is gone."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
from store_helpers import chunks, file_record, key, spec, unit, whole

from audiosearch.cli import run
from audiosearch.errors import LibraryEmpty, LibraryError, SpaceMismatch, UsageError
from audiosearch.library import Library, Models
from audiosearch.store.records import CommitBatch
from audiosearch.store.store import Store


class Hands:
    """Hand-computed models by name: each has a fingerprint of its own. Remembers those it loaded."""

    def __init__(self) -> None:
        self.loaded: list[toy.HandEmbedder] = []
        self.suffix = ""  # a retrained model has another one

    def fingerprint(self, name: str) -> str:
        return f"{toy.MODEL_FINGERPRINT}-{name}{self.suffix}"

    def models(self) -> Models:
        def load(name: str, **_: Any) -> Any:
            embedder = toy.HandEmbedder()
            embedder.fingerprint = self.fingerprint(name)  # type: ignore[misc]
            self.loaded.append(embedder)
            return embedder

        return Models(lambda name: toy.description(name, fingerprint=self.fingerprint(name)), load)

    @property
    def clips(self) -> int:
        return sum(embedder.clips_embedded for embedder in self.loaded)


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hands:
    for name in [name for name in os.environ if name.startswith("AUDIOSEARCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AUDIOSEARCH_LIBRARY", str(tmp_path / "library"))
    hands = Hands()
    monkeypatch.setattr("audiosearch.library._installed_models", hands.models)
    return hands


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of 12 s: five windows of 4 s every 2 s each, or the whole clip and two of 10 s every 5 s."""
    folder = tmp_path_factory.mktemp("sounds")
    for n, frequency in enumerate((100.0, 1000.0, 5000.0)):
        toy.write_wav(folder / f"{n}.wav", toy.tone(frequency, 12.0) + toy.noise(n, 12.0, level=0.05))
    return folder


@pytest.fixture(scope="module")
def made_once(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made") / "library"
    with Library.open(directory, create=True, model="first", models=Hands().models()) as library:
        library.ingest([sounds], workers=1)
    return directory


@pytest.fixture
def home(made_once: Path, hands: Hands, tmp_path: Path) -> Path:
    """A library of all three, by the model `first`."""
    return Path(shutil.copytree(made_once, tmp_path / "library"))


def vectors_of(home: Path, name: str) -> dict[tuple[str, float, float], bytes]:
    """Every searchable chunk of a space with its vector."""
    with Store.open(home) as store:
        space = store.find_space(name)
        ids = store.changes_since(space.id, 0).added_ids
        rows = store.vectors(space.id, ids)
        return {
            (chunk.paths[0][1], chunk.start_seconds, chunk.end_seconds): row.tobytes()
            for chunk, row in zip(store.resolve(ids), rows, strict=True)
        }


def one_line(text: str) -> bool:
    return text.startswith("audiosearch: ") and text.count("\n") == 1


# ── settings make new spaces and take nothing away ──


def test_every_setting_makes_a_space_of_its_own_and_leaves_the_others(home: Path, sounds: Path):
    before = vectors_of(home, "first")
    with Library.open() as library:
        answer = library.query("low hum")
        default = library.spaces()[0]
    (home / "config.toml").write_text("window_seconds = 4.0\nhop_seconds = 2.0\n")
    for options, how in (({}, {}), ({"model": "second"}, {}), ({}, {"instruction": "high whistle"})):
        with Library.open(**options) as library:
            assert library.ingest([sounds], workers=1, **how).files_indexed == 3
    with Library.open() as library:
        spaces = library.spaces()
        assert [(s.model, s.window_seconds, s.is_aspect, s.recordings) for s in spaces] == [
            ("first", default.window_seconds, False, 3),
            ("first", 4.0, False, 3),
            ("second", 4.0, False, 3),
            ("first", 4.0, True, 3),
        ]
        assert [space.is_default for space in spaces] == [True, False, False, False]
        assert library.query("low hum") == answer
    assert vectors_of(home, default.name) == before


def test_the_default_decides_what_is_searched_and_how_is_ingested(home: Path, sounds: Path, tmp_path: Path):
    with Library.open() as library:
        library.ingest([sounds], window_seconds=4.0, hop_seconds=2.0, workers=1)
        wide, narrow = (space.name for space in library.spaces())
        assert library.query("hum", k=1).space.startswith(wide)
        library.set_default_space(narrow)
        assert library.query("hum", k=1).space.startswith(narrow)
        toy.write_wav(tmp_path / "more.wav", toy.tone(300, 5.0))
        assert library.ingest([tmp_path / "more.wav"], workers=1).space.startswith(narrow)
        with pytest.raises(UsageError, match=r"no space is called .ffff.: there are .*audiosearch spaces"):
            library.set_default_space("ffff")
        with pytest.raises(UsageError, match="more than one space is called 'first'"):
            library.set_default_space("first")


def test_an_aspect_cannot_be_the_default(home: Path, sounds: Path):
    with Library.open() as library:
        library.ingest([sounds], instruction="high whistle", workers=1)
        with pytest.raises(UsageError, match="query --instruct 'high whistle'"):
            library.set_default_space("high whistle")


def test_mixing_is_refused_and_the_message_says_what_to_do(home: Path, hands: Hands, sounds: Path):
    with (
        Library.open(model="other") as library,
        pytest.raises(SpaceMismatch, match="ingest --model other"),
    ):
        library.query("hum")
    hands.suffix = "-retrained"
    with Library.open() as library:
        with pytest.raises(SpaceMismatch, match=r"has changed.*run `audiosearch ingest`"):
            library.query("hum")
        with pytest.raises(SpaceMismatch, match=r"cannot be filled up.*--model.*audiosearch spaces drop"):
            library.resume_space("first")
        before = vectors_of(home, library.spaces()[0].name)
        library.ingest([sounds], workers=1)  # the remedy: a new space beside the old one
        assert len(library.query("hum").hits) > 0
        assert vectors_of(home, library.spaces()[0].name) == before
    with Store.open(home, write=True) as store, pytest.raises(SpaceMismatch, match="dimensions"):
        store.commit(1, whole(store.add_root("/data"), "wide", list(unit(1, 1, dim=99))))


# ── resume ──


@pytest.mark.parametrize("how", [{"window_seconds": 4.0, "hop_seconds": 2.0}, {"instruction": "high whistle"}])
def test_a_half_filled_space_fills_up_as_it_was_made(home: Path, hands: Hands, sounds: Path, tmp_path: Path, how: Any):
    with Library.open(tmp_path / "all at once", create=True, model="first") as library:
        whole_space = library.ingest([sounds], workers=1, **how).space
    with Library.open() as library:
        half = library.ingest([sounds / "1.wav"], workers=1, **how)
        status = next(space for space in library.spaces() if half.space.startswith(space.name))
        assert (status.recordings, library.status().recordings) == (1, 3)
    with Library.open() as library:
        clips = hands.clips
        summary = library.resume_space(half.space, workers=1)
        assert (summary.space, summary.recordings_added, summary.files_seen) == (half.space, 2, 2)
        assert hands.clips - clips == summary.chunks_embedded > 0
        assert vectors_of(home, half.space) == vectors_of(tmp_path / "all at once", whole_space)
        again = library.resume_space(half.space, workers=1)
        assert (again.files_seen, again.chunks_embedded, again.device) == (0, 0, None)
        assert library.spaces()[0].is_default


def test_resume_reads_a_copy_and_counts_what_is_not_there(hands: Hands, sounds: Path, tmp_path: Path):
    folder = tmp_path / "sounds"
    shutil.copytree(sounds, folder)
    shutil.copy(folder / "0.wav", folder / "copy of 0.wav")
    with Library.open(create=True, model="first") as library:
        library.ingest([folder], workers=1)
        library.ingest([folder / "2.wav"], workers=1, window_seconds=4.0, hop_seconds=2.0)
        (folder / "0.wav").unlink()
        (folder / "1.wav").unlink()
        summary = library.resume_space(library.spaces()[1].name, workers=1)
        assert (summary.recordings_added, summary.failed) == (1, ())
        assert len(summary.warnings) == 1 and "1 recording is still missing" in summary.warnings[0]
        assert library.failures() == ()
        assert [space.recordings for space in library.spaces()] == [3, 2]


def test_an_interrupted_resume_goes_on(home: Path, sounds: Path):
    with Library.open() as library:
        name = library.ingest([sounds / "0.wav"], workers=1, window_seconds=4.0, hop_seconds=2.0).space
        assert library.resume_space(name, workers=1, cancelled=lambda: True).interrupted
        assert library.resume_space(name, workers=1).recordings_added == 2


# ── drop ──


def test_what_is_dropped_is_gone_and_the_rest_is_as_it_was(home: Path, sounds: Path):
    with Library.open() as library:
        before = vectors_of(home, "first"), library.query("hum"), library.status()
        library.ingest([sounds], window_seconds=4.0, hop_seconds=2.0, workers=1)
        library.ingest([sounds], instruction="high whistle", workers=1)
        with Store.open(home, write=True) as store:
            from audiosearch import index_cache

            for space in store.spaces():
                index_cache.save_generation(store, space, force=True)
        narrow = library.spaces()[1].name
        folders = [folder for folder in home.glob(f"*/{narrow}*") if folder.is_dir()]
        assert {folder.parent.name for folder in folders} == {"vectors", "indexes"}
        library.drop_space(narrow)
        assert all(folder.is_dir() for folder in folders), "a reader may be at it"
        library.drop_space("high whistle")
        assert not any(folder.exists() for folder in folders)
        after = library.status()
        assert (after.spaces, after.chunks) == (before[2].spaces, before[2].chunks)
        assert library.query("hum") == before[1]
    assert vectors_of(home, "first") == before[0]
    with sqlite3.connect(home / "library.db") as database:
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        assert database.execute("SELECT count(*) FROM vector WHERE space_id != 1").fetchone() == (0,)


def test_a_dropped_space_can_be_made_again(home: Path, hands: Hands, sounds: Path):
    with Library.open() as library:
        how: Any = {"window_seconds": 4.0, "hop_seconds": 2.0, "workers": 1}
        name = library.ingest([sounds], **how).space
        before = vectors_of(home, name)
        library.drop_space(name)
        clips = hands.clips
        assert library.ingest([sounds], **how).space == name
        assert hands.clips > clips
        library.set_default_space(name)
        assert len(library.query("hum", k=100).hits) == len(library.query("hiss", k=100).hits) > 0
    assert vectors_of(home, name) == before


def test_the_default_is_not_dropped_before_another_is_chosen(home: Path, sounds: Path):
    with Library.open() as library:
        library.ingest([sounds], window_seconds=4.0, hop_seconds=2.0, workers=1)
        first, second = (space.name for space in library.spaces())
        with pytest.raises(UsageError, match=f"audiosearch spaces default {second}"):
            library.drop_space(first)
        library.set_default_space(second)
        library.drop_space(first)
        assert [hit.score > 0 for hit in library.query("hum").hits]
        library.drop_space(second)  # the last one may go
        with pytest.raises(LibraryEmpty, match="audiosearch ingest"):
            library.query("hum")
        library.ingest([sounds], workers=1)
        assert [(space.is_default, space.recordings) for space in library.spaces()] == [(True, 3)]
        assert library.query("hum").hits


def test_deletions_counted_for_a_dropped_space_keep_their_place(tmp_path: Path):
    """A deletion is of the commit that let go of the file, whatever space that was made in."""
    with Store.create(tmp_path / "library") as store:
        root = store.add_root("/data")
        kept, dropped = store.add_space(spec("kept")), store.add_space(spec("dropped"))
        store.commit(kept.id, whole(root, "rain", list(unit(1, 3))))
        seq = store.max_seq(kept.id)
        store.commit(dropped.id, whole(root, "wind", list(unit(2, 2)), path="rain.wav"))  # the file holds wind now
        assert len(store.changes_since(kept.id, seq).deleted_ids) == 3
        newest, mark = store.max_seq(kept.id), store.commit_mark(kept.id, seq)
        store.drop_space(dropped)
        assert (store.max_seq(kept.id), store.commit_mark(kept.id, seq)) == (newest, mark)
        assert len(store.changes_since(kept.id, seq).deleted_ids) == 3
        assert store.commit(kept.id, whole(root, "surf", list(unit(3, 1)))) > newest
    with Store.open(tmp_path / "library", write=True) as store:
        assert not (store.directory / "vectors" / "dropped").exists()
        assert [each.spec.fingerprint for each in store.spaces()] == ["kept"]


def test_sweeping_leaves_what_is_not_ours(tmp_path: Path):
    with Store.create(tmp_path / "library") as store:
        store.commit(store.add_space(spec("mine")).id, whole(store.add_root("/data"), "rain", list(unit(1, 3))))
    folder = tmp_path / "library" / "vectors" / "notes"
    folder.mkdir()
    (folder / "readme.txt").write_text("mine")
    with Store.open(tmp_path / "library", write=True) as store:
        assert len(store.changes_since(1, 0).added_ids) == 3
    assert (folder / "readme.txt").read_text() == "mine"


def test_a_query_whose_space_is_dropped_under_it_takes_another(home: Path, sounds: Path, monkeypatch):
    """The drop comes between choosing the space and searching it."""
    from audiosearch.query import engine

    choose = engine.choose_space
    with Library.open() as library, Library.open() as other:
        library.ingest([sounds], window_seconds=4.0, hop_seconds=2.0, workers=1)
        first, second = (space.name for space in library.spaces())
        library.query("hum")  # its index is loaded

        def choose_then_drop(*of: Any) -> Any:
            chosen = choose(*of)
            if other.spaces()[0].name == first:
                other.set_default_space(second)
                other.drop_space(first)
            return chosen

        monkeypatch.setattr(engine, "choose_space", choose_then_drop)
        answer = library.query("hum")
        assert answer.space.startswith(second)
        assert answer.hits


def test_an_error_that_no_drop_explains_is_raised(home: Path, monkeypatch):
    from audiosearch.query import engine

    calls = []

    def fail(*_: Any) -> Any:
        calls.append(1)
        raise LibraryError("the disk is gone")

    monkeypatch.setattr(engine, "find_candidates", lambda *_, **__: fail())
    with Library.open() as library, pytest.raises(LibraryError, match="the disk is gone"):
        library.query("hum")
    assert len(calls) == 1


# ── many threads, one library ──


def test_threads_of_one_library_see_every_commit_once(tmp_path: Path):
    """Snapshots of different age over one live index: a vector must not be added twice, nor one be lost."""
    from audiosearch.index_cache import open_index

    with Store.create(tmp_path / "library") as writer, Store.open(tmp_path / "library") as reader:
        space, root = writer.add_space(spec()), writer.add_root("/data")
        writer.commit(space.id, whole(root, "0", list(unit(0, 4))))
        index = open_index(reader, space)
        index.refresh()
        errors: list[BaseException] = []
        done = threading.Event()

        def read() -> None:
            try:
                while not done.is_set():
                    with reader.snapshot():
                        index.refresh()
                        _, ids = index.search(unit(9, 1), 1000)
                        found = ids[ids >= 0].tolist()
                        assert len(found) == len(set(found))
                        assert len(reader.resolve(found)) == len(reader.changes_since(space.id, 0).added_ids)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for n in range(1, 40):
            writer.commit(space.id, whole(root, str(n), list(unit(n, 4))))
        done.set()
        for thread in threads:
            thread.join()
        assert errors == []
        index.refresh()
        assert len(index) == 160


# ── the command ──


def test_spaces_lists_how_full_they_are(home: Path, sounds: Path, capfd):
    assert run(["ingest", str(sounds / "1.wav"), "--instruct", "high whistle", "--workers", "1", "-q"]) == 0
    capfd.readouterr()
    assert run(["spaces", "--json"]) == 0
    out = json.loads(capfd.readouterr().out)
    assert [(s["recordings"], s["recordings_missing"], s["is_default"]) for s in out["spaces"]] == [
        (3, 0, True),
        (1, 2, False),
    ]
    assert run(["spaces"]) == 0
    out, err = capfd.readouterr()
    assert "(default)  3 of 3 recordings" in out and "1 of 3 recordings, 2 to go" in out
    assert "listens for: high whistle" in out
    assert "audiosearch spaces resume" in err
    assert run(["spaces", "resume", "high whistle", "--json", "--workers", "1"]) == 0
    assert json.loads(capfd.readouterr().out)["recordings_added"] == 2


def test_drop_asks(home: Path, sounds: Path, capfd, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with Library.open() as library:
        name = library.ingest([sounds], instruction="high whistle", workers=1).space[:12]
    assert run(["spaces", "drop", name]) == 2
    err = capfd.readouterr().err
    assert one_line(err) and "--yes" in err
    assert run(["spaces", "--library", str(home), "drop", name, "--yes", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["name"] == name
    assert run(["spaces", "drop", name, "--yes"]) == 2
    assert "audiosearch spaces" in capfd.readouterr().err
    with Library.open() as library:
        assert [space.model for space in library.spaces()] == ["first"]


def test_default_and_ingest_say_how_to_choose(home: Path, sounds: Path, capfd):
    assert run(["ingest", str(sounds), "--window", "4", "--hop", "2", "--workers", "1"]) == 0
    err = capfd.readouterr().err
    assert "audiosearch spaces default" in err
    name = err.split("audiosearch spaces default ")[1][:12]
    assert run(["spaces", "default", name]) == 0
    assert f"queries search {name} now" in capfd.readouterr().out
    assert run(["query", "hum", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["space"].startswith(name)


def test_a_chunk_of_the_dropped_space_alone_goes_with_it(tmp_path: Path):
    with Store.create(tmp_path / "library") as store:
        root, kept, dropped = store.add_root("/data"), store.add_space(spec("kept")), store.add_space(spec("dropped"))
        store.commit(kept.id, whole(root, "rain", list(unit(1, 2))))
        both = chunks("rain", list(unit(2, 5)))  # the first two spans are the other space's too
        store.commit(dropped.id, CommitBatch(chunks=both, files=[file_record(root, "rain.wav", "rain")]))
        assert store.status().chunks == 5
        store.drop_space(dropped)
        assert store.status().chunks == 2
        assert np.array_equal(store.changes_since(kept.id, 0).added_ids, [1, 2])
        assert store.recording_state(kept.id, key("rain")).complete  # type: ignore[union-attr]
