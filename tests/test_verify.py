"""`verify` sees every kind of damage, calls nothing damaged that is not, and `--repair` costs just what was lost."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import toy
from store_helpers import DIM, chunks, key, spec, unit, whole

from audiosearch import index_cache
from audiosearch.cli import cli, run
from audiosearch.errors import LibraryError, LibraryLocked
from audiosearch.library import Library, Models
from audiosearch.store import verify
from audiosearch.store.records import CommitBatch, RecordingInfo
from audiosearch.store.store import Store
from audiosearch.types import Verification

ROW = DIM * 2


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Six recordings of four vectors, a commit each: rows 0 to 23 of one shard; an index of all of them."""
    with Store.create(tmp_path / "library") as store:
        store.add_space(spec())
        store.add_root("/data")
        for n in range(6):
            store.commit(1, whole(1, f"r{n}", list(unit(n, 4))))
        index_cache.save_generation(store, store.default_space(), force=True)
    return tmp_path / "library"


def check(library: Path, *, repair: bool = False) -> Verification:
    with Library.open(library) as opened:
        return opened.verify(repair=repair)


def kinds(result: Verification) -> list[str]:
    return [each.kind for each in result.problems]


def shard_of(library: Path) -> Path:
    return library / "vectors/space-one/000001.f16"


def change(library: Path, sql: str) -> None:
    with closing(sqlite3.connect(library / "library.db")) as connection:
        connection.execute(sql)
        connection.commit()


def uncovered(library: Path) -> list[int]:
    with Store.open(library) as store:
        return [n for n in range(6) if not store.recording_state(1, key(f"r{n}")).complete]


def test_a_whole_library_is_clean(library: Path):
    result = check(library)
    assert result.problems == result.notes == result.repaired == ()
    assert (result.commit_groups, result.vectors, result.indexes, result.bytes_read) == (6, 24, 1, 24 * ROW)
    assert check(library, repair=True).repaired == ()


def test_what_is_normal_is_no_problem(library: Path):
    with Store.open(library, write=True) as store:
        silent = chunks("quiet", [None])[0]
        store.commit(1, whole(1, "r5", list(unit(5, 4)), path="twin.wav"))  # a copy
        store.commit(1, whole(1, "new", list(unit(9, 2)), path="r0.wav"))  # replaces r0
        store.commit(1, CommitBatch(recordings=[RecordingInfo(key("half"), whole(1, "half", []).recordings[0].media)],
                                    chunks=chunks("half", list(unit(8, 2)))))  # an ingest is under way  # fmt: skip
        store.add_space(spec("space-two", window_seconds=3.0, hop_seconds=3.0))  # other windows of the same recording
        other = [type(silent)(key("r1"), 3.0 * i, 3.0 * i + 3.0, key("3 s", i), False, unit(50 + i, 1)[0])
                 for i in range(9)]  # fmt: skip
        store.commit(2, CommitBatch(chunks=other, finished=whole(1, "r1", [None] * 4).finished))
        with shard_of(library).open("ab") as file:  # a commit that has not ended
            file.write(b"x" * 10)
        result = check(library)
    assert result.problems == ()
    assert any("10 bytes past the last commit" in note for note in result.notes)
    with Store.open(library, write=True):
        pass
    assert check(library).notes == ()


@pytest.mark.parametrize(
    ("row", "lost"), [(0, [0]), (9, [2]), (23, [5])], ids=["the first group", "in the middle", "the last"]
)
def test_a_changed_byte_costs_its_commit_group(library: Path, row: int, lost: list[int]):
    content = bytearray(shard_of(library).read_bytes())
    content[row * ROW] ^= 1
    shard_of(library).write_bytes(content)
    result = check(library)
    assert (
        kinds(result) == ["shard"] and "bytes are not those that were written: 4 vectors" in result.problems[0].detail
    )
    assert result.problems[0].where == str(shard_of(library)) and result.problems[0].is_repairable
    repaired = check(library, repair=True)
    assert repaired.problems == () and [each.kind for each in repaired.repaired] == ["shard"]
    assert check(library).problems == () and uncovered(library) == lost
    with Store.open(library) as store:
        assert len(store.changes_since(1, 0).added_ids) == 20
        assert store.status().spaces[0].vectors == 20
        assert store.hashes_present(1, [key("sound", f"r{n}", 0) for n in range(6)]) == {
            key("sound", f"r{n}", 0) for n in range(6) if n not in lost
        }
    with Store.open(library, write=True) as store:  # the next ingest
        store.commit(1, whole(1, f"r{lost[0]}", list(unit(lost[0], 4))))
        ids = store.changes_since(1, 0).added_ids
        assert len(ids) == 24 and not uncovered(library)
        pairs = zip(store.resolve(ids), store.vectors(1, ids), strict=True)
        sounds = {(each.packet_hash, each.start_seconds): vector for each, vector in pairs}
        for n in range(6):
            for i, vector in enumerate(unit(n, 4)):
                np.testing.assert_allclose(sounds[key(f"r{n}"), 5.0 * i], vector, atol=1e-3)
    assert check(library).problems == ()


@pytest.mark.parametrize("rows", [None, 0, 17])
def test_a_shard_that_is_missing_or_too_short(library: Path, rows: int | None):
    """Today's writer refuses it; after the repair it does not."""
    if rows is None:
        shard_of(library).unlink()
    else:
        with shard_of(library).open("rb+") as file:
            file.truncate(rows * ROW)
    kept = (rows or 0) // 4
    with pytest.raises(LibraryError, match="verify"):
        Store.open(library, write=True)
    result = check(library)
    assert kinds(result) == ["shard"] and f"{24 - 4 * kept} vectors" in result.problems[0].detail
    assert check(library, repair=True).problems == ()
    assert check(library).problems == () and uncovered(library) == list(range(kept, 6))
    with Store.open(library, write=True) as store:
        for n in range(6):
            store.commit(1, whole(1, f"r{n}", list(unit(n, 4))))
    assert check(library).problems == () and uncovered(library) == []
    shard_of(library).unlink()  # a second time: rows that were given up must be there too
    assert check(library, repair=True).problems == () == check(library).problems


def test_a_repair_is_seen_by_an_open_index(library: Path):
    with Store.open(library) as reader:
        live = index_cache.open_index(reader, reader.default_space())
        assert len(live) == 24
        content = bytearray(shard_of(library).read_bytes())
        content[0] ^= 1
        shard_of(library).write_bytes(content)
        check(library, repair=True)
        assert live.refresh() and len(live) == 20


def test_vectors_at_no_row_and_recordings_with_holes(library: Path):
    change(library, "UPDATE vector SET row = 900 WHERE id = 6")  # of r1
    change(library, "DELETE FROM vector WHERE id = 10")  # of r2: its coverage lies
    result = check(library)
    assert sorted(kinds(result)) == ["coverage", "index", "vector"]  # an id of the index is of no vector
    assert {each.detail for each in result.problems if each.kind != "index"} == {
        "1 vectors are at rows that no commit wrote",
        "1 recordings are called complete and lack vectors",
    }
    assert check(library, repair=True).problems == ()
    assert uncovered(library) == [1, 2] and check(library).problems == ()


def test_a_recording_without_any_chunk_is_not_complete(library: Path):
    change(library, "DELETE FROM vector WHERE chunk_id IN (SELECT id FROM chunk WHERE recording_id = 3)")
    change(library, "DELETE FROM chunk WHERE recording_id = 3")
    assert "coverage" in kinds(check(library))
    check(library, repair=True)
    assert uncovered(library) == [2]


def damaged_indexes(folder: Path) -> dict[str, object]:
    from audiosearch.indexes.flat import FlatIndex

    manifest = folder / "manifest.json"

    def swap_vectors() -> None:
        index = FlatIndex(DIM)
        index.add(np.arange(1, 25), unit(77, 24))
        index.save(folder / "index.faiss")
        data = (folder / "index.faiss").read_bytes()
        import zlib

        about = json.loads(manifest.read_text())
        manifest.write_text(json.dumps({**about, "size": len(data), "crc32": zlib.crc32(data)}))

    def flip() -> None:
        data = bytearray((folder / "index.faiss").read_bytes())
        data[-20] ^= 1
        (folder / "index.faiss").write_bytes(data)

    return {
        "manifest": lambda: manifest.write_text("{"),
        "bytes": flip,
        "missing": (folder / "index.faiss").unlink,
        "vectors": swap_vectors,
        "another space": lambda: manifest.write_text(manifest.read_text().replace("space-one", "space-two")),
    }


@pytest.mark.parametrize("what", ["manifest", "bytes", "missing", "vectors", "another space"])
def test_a_bad_index_is_removed(library: Path, what: str):
    folder = library / "indexes/space-one/gen-000001"
    damaged_indexes(folder)[what]()  # type: ignore[operator]
    result = check(library)
    assert kinds(result) == ["index"] and result.problems[0].where == str(folder)
    assert [each.kind for each in check(library, repair=True).repaired] == ["index"]
    assert not folder.exists() and check(library).problems == ()
    with Store.open(library) as store:
        assert len(index_cache.open_index(store, store.default_space())) == 24


def test_debris_is_a_note(library: Path):
    (library / "indexes/space-one/building-gen-000002").mkdir()
    (library / "indexes/space-one/gen-000000").mkdir()
    (library / "vectors/space-gone").mkdir()
    result = check(library)
    assert result.problems == () and len(result.notes) == 3
    assert check(library, repair=True).notes == ()
    assert not (library / "indexes/space-one/building-gen-000002").exists()


def test_a_damaged_database(library: Path, tmp_path: Path):
    """Its own indexes are made again; for more there is the backup."""
    copy = tmp_path / "copy"
    shutil.copytree(library, copy)
    with closing(sqlite3.connect(library / "library.db")) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("DELETE FROM sqlite_master WHERE name = 'ix_file_recording_id'")
        connection.commit()
    with closing(sqlite3.connect(library / "library.db")) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute("UPDATE file SET recording_id = 99 WHERE id = 1")
        connection.commit()
    result = check(library)
    assert "database" in kinds(result) and not result.problems[0].is_repairable
    assert "restore" in result.problems[0].remedy

    pages = bytearray((copy / "library.db").read_bytes())
    with closing(sqlite3.connect(copy / "library.db")) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'chunk'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    pages[(root - 1) * size : (root - 1) * size + 200] = b"\xa5" * 200
    (copy / "library.db").write_bytes(pages)
    result = check(copy)
    assert "database" in kinds(result)
    assert kinds(check(copy, repair=True)) == kinds(result)  # nothing is made worse


def test_an_index_of_the_database_is_made_again(library: Path):
    with closing(sqlite3.connect(library / "library.db")) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        sql = "SELECT sql FROM sqlite_master WHERE name = 'ix_file_recording_id'"
        (before,) = connection.execute(sql).fetchone()
        # Rows are added while SQLite takes the index for one of certain rows only: those are missing from it.
        away = before + " WHERE recording_id < 0"
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'ix_file_recording_id'", (away,))
        connection.commit()
    change(
        library, "INSERT INTO file (root_id, path, size, mtime_ns, inode, recording_id) VALUES (1, x'78', 1, 1, 1, 2)"
    )
    with closing(sqlite3.connect(library / "library.db")) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'ix_file_recording_id'", (before,))
        connection.commit()
    result = check(library)
    assert set(kinds(result)) == {"database"} and all(each.is_repairable for each in result.problems)
    assert check(library, repair=True).problems == () == check(library).problems


def test_repair_needs_the_writers_place(library: Path):
    with Store.open(library, write=True), Library.open(library) as opened:
        assert opened.verify().problems == ()  # looking does not
        with pytest.raises(LibraryLocked):
            opened.verify(repair=True)


def test_it_reads_one_moment_while_a_writer_goes_on(library: Path, monkeypatch: pytest.MonkeyPatch):
    with Store.open(library, write=True) as store:
        steps: list[str] = []

        def meanwhile(state: object) -> None:
            n = 10 + len(steps)
            steps.append(str(state))
            store.commit(1, whole(1, f"r{n}", list(unit(n, 3))))
            if n == 12:
                index_cache.save_generation(store, store.default_space(), force=True)

        with Store.open(library) as reader:
            found = verify.check(reader, meanwhile)
            indexes = index_cache.check(reader, meanwhile)
    assert found.problems() == [] and indexes.bad == [] and len(steps) > 3


MODELS = Models(lambda name: toy.description(), lambda name, **_: toy.HandEmbedder())


def test_after_a_repair_an_ingest_embeds_just_what_was_lost(tmp_path: Path):
    folder, library = tmp_path / "sounds", tmp_path / "library"
    folder.mkdir()
    for n in range(3):
        toy.write_wav(folder / f"{n}.wav", toy.noise(n, 12))  # three chunks each
    with Library.open(library, create=True, models=MODELS) as opened:
        opened.ingest([folder / "0.wav"], workers=1)
        opened.ingest([folder], workers=1)
    (shard,) = library.rglob("*.f16")
    content = bytearray(shard.read_bytes())
    content[0] ^= 1
    shard.write_bytes(content)
    with Library.open(library, models=MODELS) as opened:
        assert len(opened.verify(repair=True).repaired) == 1
        summary = opened.ingest([folder], workers=1)
        assert (summary.files_unchanged, summary.files_indexed, summary.chunks_embedded) == (2, 1, 3)
        assert opened.verify().problems == ()


def test_the_command(library: Path, capfd: pytest.CaptureFixture[str]):
    assert run(["verify", "--library", str(library)]) == 0
    assert capfd.readouterr().out == "all is well: 24 vectors in 6 commits (1.2 kB) and 1 index file checked\n"
    shard_of(library).unlink()
    assert run(["verify", "--library", str(library)]) == 1
    out = capfd.readouterr().out
    assert f"problem:  {shard_of(library)}: the file is missing: 24 vectors are lost; `audiosearch verify" in out
    assert run(["verify", "--library", str(library), "--json"]) == 1
    answer = json.loads(capfd.readouterr().out)
    assert answer["version"] == 1 and answer["problems"][0]["is_repairable"] and answer["commit_groups"] == 6
    assert run(["verify", "--library", str(library), "--repair"]) == 0
    assert "repaired: " in capfd.readouterr().out
    assert run(["verify", "--library", str(library / "nowhere")]) == 2
    assert "verify" in cli.list_commands(None)  # type: ignore[arg-type]
