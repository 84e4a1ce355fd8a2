"""Backup and restore: one moment of a library in use, only what is new, and nothing lost however it ends."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from store_helpers import DIM, key, spec, unit, whole

from audiosearch import index_cache
from audiosearch.cli import run
from audiosearch.errors import LibraryError, LibraryLocked, LibraryNotFound, UsageError
from audiosearch.library import Library
from audiosearch.store import backup as backups
from audiosearch.store import vectors as vectors_module
from audiosearch.store.lock import WriterLock
from audiosearch.store.spaces import drop
from audiosearch.store.store import Store

ROW = DIM * 2


@pytest.fixture
def library(tmp_path: Path) -> Path:
    with Store.create(tmp_path / "library") as store:
        store.add_space(spec())
        store.add_root("/data")
        add(store, 0, 1, 2)
        index_cache.save_generation(store, store.default_space(), force=True)
    (tmp_path / "library/config.toml").write_text("workers = 3\n")
    return tmp_path / "library"


def add(store: Store, *numbers: int) -> None:
    for n in numbers:
        store.commit(1, whole(1, f"r{n}", list(unit(n, 4))))


def write(library: Path, *numbers: int) -> None:
    with Store.open(library, write=True) as store:
        add(store, *numbers)


def contents(library: Path) -> dict[tuple[bytes, float], np.ndarray]:
    with Store.open(library) as store:
        ids = store.changes_since(1, 0).added_ids
        vectors = store.vectors(1, ids)
        return {(each.packet_hash, each.start_seconds): v for each, v in zip(store.resolve(ids), vectors, strict=True)}


def holds(library: Path, *numbers: int) -> None:
    """The library has these recordings, with their vectors, and is whole."""
    found = contents(library)
    assert set(found) == {(key(f"r{n}"), 5.0 * i) for n in numbers for i in range(4)}
    for n in numbers:
        for i, vector in enumerate(unit(n, 4)):
            np.testing.assert_allclose(found[key(f"r{n}"), 5.0 * i], vector, atol=1e-3)
    with Library.open(library) as opened:
        assert opened.verify().problems == ()


def test_there_and_back(library: Path, tmp_path: Path):
    with Library.open(library) as opened:
        copied = opened.backup(tmp_path / "backup")
    assert (copied.commit_seq, copied.bytes_kept, copied.replaced) == (3, 0, None)
    assert not (tmp_path / "backup/indexes").exists()
    holds(tmp_path / "backup", 0, 1, 2)
    restored = Library.restore(tmp_path / "backup", tmp_path / "new")
    assert restored.directory == str(tmp_path / "new") and restored.commit_seq == 3
    holds(tmp_path / "new", 0, 1, 2)
    assert (tmp_path / "new/config.toml").read_text() == "workers = 3\n" and not (tmp_path / "new/backup.json").exists()
    write(tmp_path / "new", 3)
    holds(tmp_path / "new", 0, 1, 2, 3)
    assert {path.name for path in tmp_path.iterdir()} == {"library", "backup", "new"}


def test_the_second_backup_copies_what_is_new(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vectors_module, "SHARD_BYTES", 10 * ROW)  # three commits a shard
    backups.backup(library, tmp_path / "backup")
    write(library, 3, 4)
    seen = []
    copied = backups.backup(library, tmp_path / "backup", seen.append)
    assert copied.bytes_kept == 12 * ROW and [each.done for each in seen if each.step == "vectors"] == [
        4 * ROW,
        8 * ROW,
    ]
    assert len(list((tmp_path / "backup/vectors/space-one").iterdir())) == 2
    holds(tmp_path / "backup", 0, 1, 2, 3, 4)
    assert backups.backup(library, tmp_path / "backup").bytes_kept == 20 * ROW
    (tmp_path / "backup/vectors/space-one/000001.f16").unlink()  # what is missing there is copied again
    assert backups.backup(library, tmp_path / "backup").bytes_kept == 8 * ROW
    holds(tmp_path / "backup", 0, 1, 2, 3, 4)


def test_while_a_writer_goes_on(library: Path, tmp_path: Path):
    """Each backup is one moment: whole recordings, in the order of their commits."""
    stop = threading.Event()
    written = [3]

    def keep_writing() -> None:
        with Store.open(library, write=True) as store:
            while not stop.is_set():
                add(store, written[0])
                written[0] += 1

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        sizes = []
        for _ in range(4):
            backups.backup(library, tmp_path / "backup")
            numbers = len(contents(tmp_path / "backup")) // 4
            sizes.append(numbers)
            holds(tmp_path / "backup", *range(numbers))
    finally:
        stop.set()
        writer.join()
    assert sizes == sorted(sizes) and sizes[-1] > 3
    backups.backup(library, tmp_path / "backup")
    holds(tmp_path / "backup", *range(written[0]))


def test_a_place_that_is_something_else(library: Path, tmp_path: Path):
    with Store.create(tmp_path / "other") as store:
        store.add_space(spec())
        store.add_root("/data")
        add(store, 7, 8)
    for place, words in (
        (tmp_path / "other", "a library in use"),
        (library, "lie in each other"),
        (library / "inside", "lie in each other"),
        (tmp_path, "lie in each other"),
    ):
        with pytest.raises(UsageError, match=words):
            backups.backup(library, place)
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents/thesis.txt").write_text("x")
    with pytest.raises(UsageError, match=r"holds other things .thesis\.txt"):
        backups.backup(library, tmp_path / "documents")
    with pytest.raises(LibraryNotFound, match="no library here"):
        backups.backup(tmp_path / "nowhere", tmp_path / "backup")
    backups.backup(library, tmp_path / "backup")
    with pytest.raises(UsageError, match="another library"):
        backups.backup(tmp_path / "other", tmp_path / "backup")
    lock = WriterLock(tmp_path / "backup")
    with pytest.raises(LibraryLocked):
        backups.backup(library, tmp_path / "backup")
    lock.release()
    holds(tmp_path / "backup", 0, 1, 2)


def test_another_history_is_refused(library: Path, tmp_path: Path):
    backups.backup(library, tmp_path / "early")
    write(library, 3)
    backups.backup(library, tmp_path / "late")
    backups.restore(tmp_path / "early", library, force=True)
    write(library, 4)
    with pytest.raises(UsageError, match="before a backup was restored"):
        backups.backup(library, tmp_path / "late")
    backups.backup(library, tmp_path / "early")
    holds(tmp_path / "early", 0, 1, 2, 4)
    holds(tmp_path / "late", 0, 1, 2, 3)


def test_a_damaged_library_does_not_spoil_its_backup(library: Path, tmp_path: Path):
    backups.backup(library, tmp_path / "backup")
    write(library, 3)
    shard = library / "vectors/space-one/000001.f16"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(LibraryError, match="damaged, so no backup"):
        backups.backup(library, tmp_path / "backup")
    holds(tmp_path / "backup", 0, 1, 2)
    with Library.open(library) as opened:
        opened.verify(repair=True)
    backups.backup(library, tmp_path / "backup")
    holds(tmp_path / "backup", 0, 1, 2)
    with Library.open(tmp_path / "backup") as opened:
        assert opened.status().recordings == 4  # the fourth is known, and waits for its vectors


@pytest.mark.parametrize("where", ["os.fsync", "Path.replace"])
def test_a_full_disk_leaves_the_earlier_backup(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
):
    backups.backup(library, tmp_path / "backup")
    write(library, 3)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if where == "os.fsync" else (Path, "replace")), full)
        with pytest.raises(LibraryError, match="the disk is full"):
            backups.backup(library, tmp_path / "backup")
    holds(tmp_path / "backup", 0, 1, 2)
    backups.backup(library, tmp_path / "backup")
    holds(tmp_path / "backup", 0, 1, 2, 3)


def test_a_dropped_space_is_dropped_from_the_backup(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with Store.open(library, write=True) as store:
        other = store.add_space(spec("space-two"))
        store.commit(other.id, whole(1, "r0", list(unit(30, 4))))
    backups.backup(library, tmp_path / "backup")
    assert (tmp_path / "backup/vectors/space-two/000001.f16").exists()
    real = backups._copy_shard
    dropped = []

    def drop_meanwhile(*arguments):
        if not dropped:
            dropped.append(True)
            with Store.open(library, write=True) as store, store.changing() as connection:
                drop(connection, other)
            Store.open(library, write=True).close()  # which removes the files
        return real(*arguments)

    backups.backup(library, tmp_path / "fresh")
    monkeypatch.setattr(backups, "_copy_shard", drop_meanwhile)
    backups.backup(library, tmp_path / "another")
    for place in ("backup", "another"):
        backups.backup(library, tmp_path / place)
        assert not (tmp_path / place / "vectors/space-two").exists()
        holds(tmp_path / place, 0, 1, 2)


def test_restore_keeps_what_was_there(library: Path, tmp_path: Path):
    backups.backup(library, tmp_path / "backup")
    write(library, 3)
    with pytest.raises(UsageError, match="--force"):
        backups.restore(tmp_path / "backup", library)
    with Store.open(library, write=True), pytest.raises(LibraryLocked):
        backups.restore(tmp_path / "backup", library, force=True)
    holds(library, 0, 1, 2, 3)
    restored = backups.restore(tmp_path / "backup", library, force=True)
    holds(library, 0, 1, 2)
    assert restored.replaced is not None
    holds(Path(restored.replaced), 0, 1, 2, 3)
    (tmp_path / "documents").mkdir()
    backups.restore(tmp_path / "backup", tmp_path / "documents")  # empty
    holds(tmp_path / "documents", 0, 1, 2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="something else"):
        backups.restore(tmp_path / "backup", tmp_path / "full", force=True)
    with pytest.raises(LibraryNotFound):
        backups.restore(tmp_path / "full", tmp_path / "elsewhere")


def test_a_damaged_backup_is_not_restored(library: Path, tmp_path: Path):
    backups.backup(library, tmp_path / "backup")
    shard = tmp_path / "backup/vectors/space-one/000001.f16"
    shard.write_bytes(bytes([shard.read_bytes()[0] ^ 1]) + shard.read_bytes()[1:])
    with pytest.raises(LibraryError, match="damaged"):
        backups.restore(tmp_path / "backup", library, force=True)
    holds(library, 0, 1, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"library", "backup"}


def test_the_commands(library: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    to = str(tmp_path / "backup")
    assert run(["backup", "--library", str(library), to]) == 0
    assert capfd.readouterr().out.startswith(f"backed up to {to}: ")
    assert run(["backup", "--library", str(library), to, "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["version"] == 1 and answer["bytes_kept"] == 12 * ROW and answer["commit_seq"] == 3
    assert run(["restore", "--library", str(library), to]) == 2
    assert "--force" in capfd.readouterr().err
    assert run(["restore", "--library", str(library), to, "--force"]) == 0
    said = capfd.readouterr()
    assert said.out.startswith(f"restored to {library}") and "before-restore-" in said.err
    assert run(["restore", "--library", str(tmp_path / "new"), to, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["directory"] == str(tmp_path / "new")
    assert run(["backup", "--library", str(tmp_path / "nowhere"), to]) == 2
