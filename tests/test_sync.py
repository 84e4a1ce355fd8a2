"""Files that move, change and go: what they cost, and what is held back."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import toy
from store_helpers import spec, unit, whole

from audiosearch.cli import run as run_cli
from audiosearch.errors import LibraryEmpty, UsageError
from audiosearch.ingest import volumes as volumes_module
from audiosearch.ingest import workers
from audiosearch.ingest.scan import scan
from audiosearch.ingest.volumes import Volume, Volumes, is_other
from audiosearch.library import Library, Models
from audiosearch.store.filesystem import Mount
from audiosearch.store.records import CommitBatch, FileMove, FileRecord
from audiosearch.store.store import Store
from audiosearch.types import Metadata

HAND = Models(toy.description, lambda name, **_: toy.HandEmbedder())
NO_MODEL = Models(toy.description, lambda name, **_: pytest.fail("the model was loaded"))


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four short sounds, two of them in a folder, and a library of them."""
    home = tmp_path_factory.mktemp("made once")
    (home / "sounds" / "sub").mkdir(parents=True)
    for n, name in enumerate(("a.wav", "b.wav", "sub/c.wav", "sub/d.wav")):
        toy.write_wav(home / "sounds" / name, toy.noise(n, 1.0 + n / 10))
    with Library.open(home / "library", create=True, models=HAND, workers=1) as opened:
        assert opened.ingest([home / "sounds"]).files_indexed == 4
    return home


@pytest.fixture
def sounds(made_once: Path, tmp_path: Path) -> Path:
    """The four sounds."""
    shutil.copytree(made_once / "sounds", tmp_path / "sounds")
    return tmp_path / "sounds"


@pytest.fixture
def library(made_once: Path, sounds: Path, tmp_path: Path) -> Iterator[Library]:
    """A library of the sounds. Its model is gone: what follows must do without, or say `with_model`."""
    shutil.copytree(made_once / "library", tmp_path / "library")
    with Store.open(tmp_path / "library", write=True) as store:
        (root,) = store.root_states()
        store.relocate_root(root.id, str(sounds))
        known = store.files_of_sizes(1, {path.stat().st_size for path in sounds.rglob("*.wav")})
        inodes = {each.id: (sounds / os.fsdecode(each.path)).stat().st_ino for each in known}
        store.move_files(1, [FileMove(each.id, root.id, each.path, inodes[each.id]) for each in known])
        assert store.add_root(str(sounds)) == root.id
    with Library.open(tmp_path / "library", models=NO_MODEL, workers=1) as opened:
        yield opened


def with_model(library: Library) -> Library:
    return Library.open(library.directory, models=HAND, workers=1)


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "DecodePool", lambda *_, **__: pytest.fail("a file was read"))


def contents(library: Library) -> dict[str, np.ndarray]:
    """path -> the vector of its one chunk, for every file that a search can find."""
    with Store.open(library.directory) as store:
        space = store.default_space()
        assert space is not None
        ids = store.changes_since(space.id, 0).added_ids
        return {
            f"{root}/{path}": vector
            for chunk, vector in zip(store.resolve(ids), store.vectors(space.id, ids), strict=True)
            for root, path in chunk.paths
        }


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], renamed: dict[str, str]) -> None:
    """The vectors of `wanted`, under the names of `renamed` where those are given."""
    assert found.keys() == {renamed.get(path, path) for path in wanted}
    for path, vector in wanted.items():
        np.testing.assert_array_equal(found[renamed.get(path, path)], vector)


def names(paths: Iterable[str]) -> list[str]:
    return sorted(Path(path).name for path in paths)


def many(folder: Path, numbers: Iterable[int]) -> Path:
    """A sound for each number; all of one length and time, so that only the inode tells them apart."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in numbers:
        toy.write_wav(folder / f"{n:03}.wav", toy.noise(1000 + n, 0.1))
        os.utime(folder / f"{n:03}.wav", (1_700_000_000, 1_700_000_000))
    return folder


# ── what moved ──


def test_a_moved_tree_is_not_read(library: Library, sounds: Path, monkeypatch):
    before = contents(library)
    moved = sounds.rename(sounds.with_name("moved"))
    forbid_reading(monkeypatch)
    summary = library.ingest([moved])
    assert (summary.files_seen, summary.files_moved, summary.files_indexed, summary.chunks_embedded) == (4, 4, 0, 0)
    assert_same(contents(library), before, {path: path.replace("/sounds/", "/moved/") for path in before})
    assert library.status().roots == (str(moved),), "nothing is left of the old root"
    assert library.ingest([moved]).files_unchanged == 4


def test_files_moved_between_roots_and_renamed_keep_their_rows(library: Library, sounds: Path, tmp_path: Path):
    other = many(tmp_path / "other", [1])
    with with_model(library) as more:
        more.ingest([other])
    before = contents(library)
    with Store.open(library.directory) as store:
        rows = {
            each.path: each.id for each in store.files_of_sizes(1, {p.stat().st_size for p in sounds.rglob("*.wav")})
        }
    (sounds / "sub" / "c.wav").rename(other / "c.wav")
    (sounds / "a.wav").rename(sounds / "renamed.wav")
    summary = library.sync()
    assert {(m.before, m.after) for m in summary.moved} == {
        (str(sounds / "sub" / "c.wav"), str(other / "c.wav")),
        (str(sounds / "a.wav"), str(sounds / "renamed.wav")),
    }
    assert (summary.gone, summary.new, summary.held_back, summary.ingest.recordings_shared) == ((), (), (), 0)
    assert_same(contents(library), before, {m.before: m.after for m in summary.moved})
    with Store.open(library.directory) as store:
        after = {
            each.path: each.id for each in store.files_of_sizes(1, {p.stat().st_size for p in other.glob("c.wav")})
        }
    assert after[b"c.wav"] == rows[b"sub/c.wav"]


def test_files_that_take_each_others_names(library: Library, sounds: Path, monkeypatch):
    before = contents(library)
    a, b = sounds / "a.wav", sounds / "b.wav"
    a.rename(sounds / "x")
    b.rename(a)
    (sounds / "x").rename(b)
    monkeypatch.setattr("audiosearch.ingest.pipeline._Run.process", lambda *_: pytest.fail("a file was read"))
    assert library.ingest([sounds]).files_moved == 2
    assert_same(contents(library), before, {str(a): str(b), str(b): str(a)})


def test_a_file_moved_over_another_lets_that_go(library: Library, sounds: Path):
    before = contents(library)
    (sounds / "a.wav").replace(sounds / "b.wav")
    assert library.sync().ingest.files_moved == 1
    del before[str(sounds / "b.wav")]
    assert_same(contents(library), before, {str(sounds / "a.wav"): str(sounds / "b.wav")})


def test_a_new_file_in_the_old_place_does_not_hide_a_move(library: Library, sounds: Path):
    before = contents(library)
    (sounds / "a.wav").rename(sounds / "older.wav")
    toy.write_wav(sounds / "a.wav", toy.tone(300, 1.0))
    with with_model(library) as more:
        summary = more.ingest([sounds])
    assert (summary.files_moved, summary.files_indexed, summary.chunks_embedded) == (1, 1, 1)
    found = contents(library)
    np.testing.assert_array_equal(found[str(sounds / "older.wav")], before[str(sounds / "a.wav")])
    assert found[str(sounds / "a.wav")] @ toy.HandEmbedder().embed_audio([toy.tone(300, 1.0)])[0] > 0.99


def test_a_copy_and_a_hard_link_share_and_the_original_stays(library: Library, sounds: Path):
    os.link(sounds / "a.wav", sounds / "link.wav")
    shutil.copy2(sounds / "b.wav", sounds / "copy.wav")
    summary = library.ingest([sounds])
    assert (summary.files_moved, summary.recordings_shared, summary.chunks_embedded) == (0, 2, 0)
    assert names(contents(library)) == ["a.wav", "b.wav", "c.wav", "copy.wav", "d.wav", "link.wav"]


def test_a_tree_moved_to_where_inodes_differ_costs_packet_hashes_only(library: Library, sounds: Path):
    before = contents(library)
    shutil.copytree(sounds, sounds.with_name("moved"))
    shutil.rmtree(sounds)
    summary = library.ingest([sounds.with_name("moved")])
    assert (summary.recordings_shared, summary.chunks_embedded, summary.audio_seconds) == (4, 0, 0.0)
    found = contents(library)
    for path, vector in before.items():
        np.testing.assert_array_equal(found[path.replace("/sounds/", "/moved/")], vector)


def test_a_number_given_to_a_second_file_of_the_same_size_and_time_is_no_move(tmp_path: Path, library: Library):
    """An archive of equally long clips, deleted and unpacked again: inode numbers are given out anew."""
    old = many(tmp_path / "old", range(3))
    with with_model(library) as more:
        more.ingest([old])
        inodes = {path.stat().st_ino: path for path in old.iterdir()}
        # What a reuse of the number looks like: another name, another sound, everything else the same.
        new = tmp_path / "new"
        new.mkdir()
        for number, path in inodes.items():
            target = new / f"9{path.name}"
            path.rename(target)
            with target.open("r+b") as file:
                file.seek(44)
                file.write(np.round(toy.noise(number, 0.1) * 32767).astype("<i2").tobytes())
            os.utime(target, (1_700_000_000, 1_700_000_000))
            assert target.stat().st_ino == number
        summary = more.ingest([new])
    assert (summary.files_moved, summary.files_indexed, summary.chunks_embedded) == (0, 3, 3)


def test_inode_numbers_that_mean_nothing_are_not_trusted(library: Library, sounds: Path, monkeypatch):
    monkeypatch.setattr(Volumes, "of", lambda self, folder: Volume(None, keeps_inodes=False))
    moved = sounds.rename(sounds.with_name("moved"))
    summary = library.ingest([moved])
    assert (summary.files_moved, summary.recordings_shared, summary.chunks_embedded) == (0, 4, 0)


def test_a_root_at_another_path_is_said_once(library: Library, sounds: Path, monkeypatch):
    before = contents(library)
    shutil.copytree(sounds, sounds.with_name("elsewhere"))  # copies times, gives new inodes: another machine
    shutil.rmtree(sounds)
    forbid_reading(monkeypatch)
    where = {str(sounds): str(sounds.with_name("elsewhere"))}
    plan = library.sync(relocate=where, dry_run=True)
    assert (plan.files_unchanged, plan.moved, plan.new, plan.gone, plan.held_back) == (4, (), (), (), ())
    assert library.status().roots == (str(sounds),)
    summary = library.sync(relocate=where)
    assert (summary.files_unchanged, summary.moved, summary.gone) == (4, (), ())
    assert library.status().roots == (str(sounds.with_name("elsewhere")),)
    assert_same(contents(library), before, {path: path.replace("/sounds/", "/elsewhere/") for path in before})
    again = library.sync()
    assert (again.files_unchanged, again.held_back) == (4, ())


def test_a_root_inside_a_relocated_one_goes_with_it(library: Library, sounds: Path, tmp_path: Path):
    outer = tmp_path / "outer"
    outer.mkdir()
    shutil.move(sounds, outer / "sounds")
    with with_model(library) as more:
        more.ingest([outer / "sounds"])
        more.ingest([many(outer, [1])])
    assert library.status().roots == (str(outer / "sounds"), str(outer))
    outer.rename(tmp_path / "new")
    assert library.sync(relocate={str(outer): str(tmp_path / "new")}).files_unchanged == 5
    assert library.status().roots == (str(tmp_path / "new" / "sounds"), str(tmp_path / "new"))


@pytest.mark.parametrize(
    ("old", "new", "says"), [("nowhere", "sub", "not a root"), (".", "gone", "is no folder"), (".", ".", "already")]
)
def test_where_a_root_cannot_be(library: Library, sounds: Path, old: str, new: str, says: str):
    with pytest.raises(UsageError, match=says):
        library.sync(relocate={os.path.normpath(sounds / old): os.path.normpath(sounds / new)})


# ── what changed ──


def test_changed_content_replaces_the_old_in_one_commit(library: Library, sounds: Path, monkeypatch):
    """At every commit a reader finds either all of the old recording or all of the new one."""
    path = sounds / "long.wav"
    monkeypatch.setattr("audiosearch.ingest.writer.GROUP_ROWS", 4)
    states: list[frozenset[float]] = []
    commit = Store.commit

    def spans() -> frozenset[float]:
        with Store.open(library.directory) as reader:
            ids = reader.changes_since(1, 0).added_ids
            return frozenset(c.end_seconds for c in reader.resolve(ids) if any("long.wav" in p for _, p in c.paths))

    def watched(self, *batch):
        seq = commit(self, *batch)
        states.append(spans())
        return seq

    with with_model(library) as more:
        toy.write_wav(path, toy.noise(1, 62.0))
        more.ingest([sounds])
        old = spans()
        toy.write_wav(path, toy.noise(2, 93.0))
        monkeypatch.setattr(Store, "commit", watched)
        assert more.sync().changed == (str(path),)
    new = spans()
    assert len(old) == 12 and len(new) == 18
    assert len(states) >= 2 and set(states) == {old, new}
    assert states == sorted(states, key=len), "and never back"


def test_a_touched_file_costs_a_packet_hash(library: Library, sounds: Path):
    os.utime(sounds / "a.wav", (5, 5))
    summary = library.sync()
    assert summary.changed == (str(sounds / "a.wav"),)
    assert (summary.ingest.recordings_shared, summary.ingest.chunks_embedded) == (1, 0)
    assert library.sync().files_unchanged == 4


# ── what is gone ──


def test_deleted_files_are_removed_and_copies_stay(library: Library, sounds: Path, monkeypatch):
    shutil.copy2(sounds / "a.wav", sounds / "copy.wav")
    (sounds / "text.wav").write_text("no sound at all " * 50)
    assert len(library.ingest([sounds]).failed) == 1
    for name in ("a.wav", "b.wav", "text.wav"):
        (sounds / name).unlink()
    forbid_reading(monkeypatch)
    plan = library.sync(dry_run=True)
    assert names(plan.gone) == ["a.wav", "b.wav", "text.wav"] and plan.ingest is None
    assert len(contents(library)) == 5, "nothing is done yet"
    summary = library.sync()
    assert (summary.files_removed, summary.recordings_removed, summary.held_back) == (3, 1, ())
    assert names(contents(library)) == ["c.wav", "copy.wav", "d.wav"]
    status = library.status()
    assert (status.files, status.failed, status.recordings) == (3, 0, 3)
    again = library.sync()
    assert (again.gone, again.files_unchanged) == ((), 3)


def test_an_ingest_removes_nothing(library: Library, sounds: Path):
    (sounds / "a.wav").unlink()
    library.ingest([sounds])
    assert len(contents(library)) == 4


def test_only_the_part_that_was_named_is_followed(library: Library, sounds: Path, tmp_path: Path, monkeypatch):
    (sounds / "a.wav").unlink()
    (sounds / "sub" / "c.wav").unlink()
    forbid_reading(monkeypatch)
    summary = library.sync([sounds / "sub"])
    assert summary.gone == (str(sounds / "sub" / "c.wav"),)
    assert names(contents(library)) == ["a.wav", "b.wav", "d.wav"]
    assert library.sync([sounds / "a.wav"]).gone == (str(sounds / "a.wav"),)
    shutil.rmtree(sounds / "sub")
    assert library.sync([sounds / "sub"]).files_removed == 1, "a folder that is gone can be named"
    with pytest.raises(UsageError, match="in no folder that was ingested"):
        library.sync([tmp_path / "elsewhere"])


def test_a_folder_that_cannot_be_listed_holds_its_files(library: Library, sounds: Path, monkeypatch):
    listing = os.scandir

    def deny(path):
        if os.fsencode(path).endswith(b"sub"):
            raise PermissionError(13, "Permission denied")
        return listing(path)

    monkeypatch.setattr(os, "scandir", deny)
    summary = library.sync()
    assert (summary.gone, summary.held_back) == ((), ()) and "sub" in summary.ingest.warnings[0]
    assert len(contents(library)) == 4


def test_files_asked_for_one_by_one_do_not_bring_their_folder(tmp_path: Path):
    folder = many(tmp_path / "downloads", range(3))
    (folder / "odd.name").write_bytes((folder / "000.wav").read_bytes())
    with Library.open(tmp_path / "library", create=True, models=HAND, workers=1) as library:
        library.ingest([folder / "001.wav", folder / "odd.name"])
        summary = library.sync()
        assert (summary.files_unchanged, summary.new, summary.gone) == (2, (), ())
        (folder / "odd.name").unlink()
        assert names(library.sync().gone) == ["odd.name"]
        many(folder / "sub", range(5, 7))
        library.ingest([folder / "sub"])
        assert library.status().roots == (str(folder), str(folder / "sub")), "a folder inside is a root of its own"
        many(folder / "sub", [8])
        assert names(library.sync().new) == ["008.wav"]


def test_a_folder_becomes_a_root_of_its_own_and_takes_its_files_along(tmp_path: Path, monkeypatch):
    folder = many(tmp_path / "downloads" / "sub", range(2)).parent
    with Library.open(tmp_path / "library", create=True, models=HAND, workers=1) as library:
        many(folder, [7])
        library.ingest([folder / "007.wav"])
        library.ingest([folder / "sub" / "000.wav"])
        before = contents(library)
        summary = library.ingest([folder / "sub"])
        assert (summary.files_moved, summary.files_indexed) == (1, 1)
        found = contents(library)
        assert names(found) == ["000.wav", "001.wav", "007.wav"] and before.keys() < found.keys()
        assert library.sync().gone == ()


def test_an_empty_library_cannot_be_followed(tmp_path: Path):
    with (
        Library.open(tmp_path / "library", create=True, models=HAND) as library,
        pytest.raises(LibraryEmpty, match="audiosearch ingest"),
    ):
        library.sync()


def test_an_interrupted_sync_removes_nothing(library: Library, sounds: Path):
    (sounds / "a.wav").unlink()
    summary = library.sync(cancelled=lambda: True)
    assert summary.ingest.interrupted and summary.files_removed == 0
    assert len(contents(library)) == 4


# ── what may only be away ──


@pytest.fixture
def stock(library: Library, tmp_path: Path) -> Path:
    """A folder of sixty files more, in the library as if all held what a.wav holds; nobody has to read them for it."""
    folder = many(tmp_path / "stock", range(45))
    many(folder / "disk", range(45, 60))
    with Store.open(library.directory, write=True) as store:
        chunks = store.resolve(store.changes_since(1, 0).added_ids)
        packet_hash = next(chunk.packet_hash for chunk in chunks if chunk.paths[0][1] == "a.wav")
        root_id = store.add_root(str(folder))
        store.describe_root(root_id, is_walked=True)
        records = [
            FileRecord(root_id, file.path, file.size, file.mtime_ns, file.inode, packet_hash, metadata=Metadata())
            for file in scan(str(folder))
        ]
        store.commit(1, CommitBatch(files=records))
    return folder


def held(library: Library, **options) -> dict[str, tuple[str, int, int]]:
    summary = library.sync(**options)
    assert summary.files_removed == 0 or options
    return {Path(each.root).name: (each.reason, each.gone, each.known) for each in summary.held_back}


def test_a_missing_root_is_kept_until_someone_means_it(library: Library, sounds: Path, stock: Path):
    away = stock.rename(stock.with_name("away"))
    (sounds / "a.wav").unlink()
    summary = library.sync()
    assert [(each.root, each.reason, each.gone, each.known) for each in summary.held_back] == [
        (str(stock), "missing", 60, 60)
    ]
    assert summary.files_removed == 1, "the other root is followed"
    away.rename(stock)
    assert library.sync().files_unchanged == 63
    shutil.rmtree(stock)
    assert library.sync(prune_all=True).files_removed == 60
    assert library.status().roots == (str(sounds),)
    assert library.sync().held_back == ()


def test_an_empty_root_is_a_disk_that_is_not_mounted(library: Library, stock: Path):
    stock.rename(stock.with_name("away"))
    stock.mkdir()
    assert held(library) == {"stock": ("empty", 60, 60)}
    (stock / "readme.txt").touch()
    assert held(library) == {"stock": ("empty", 60, 60)}


def test_many_files_at_once_are_kept_and_few_are_not(library: Library, sounds: Path, stock: Path):
    for path in sorted(stock.glob("*.wav"))[:13]:
        path.unlink()
    assert held(library) == {"stock": ("many", 13, 60)}
    many(stock, [0])  # 12 of 60 are 20 %, and not more
    with with_model(library) as more:
        summary = more.sync()
    assert (summary.held_back, summary.files_removed) == ((), 12)
    for name in ("a.wav", "b.wav", "sub/c.wav"):  # most of them, but not many
        (sounds / name).unlink()
    assert library.sync().files_removed == 3


def test_an_empty_folder_inside_a_root_may_be_a_disk_too(library: Library, stock: Path, monkeypatch):
    monkeypatch.setattr("audiosearch.ingest.guard.MASS_SHARE", 0.5)
    shutil.rmtree(stock / "disk")
    (stock / "disk").mkdir()
    summary = library.sync()
    assert [(each.reason, each.gone) for each in summary.held_back] == [("empty-folder", 15)]
    assert str(stock / "disk") in summary.held_back[0].detail
    (stock / "disk").rmdir()
    assert library.sync().files_removed == 15


def test_another_disk_in_the_same_place_is_read_and_the_first_one_kept(library: Library, sounds: Path, monkeypatch):
    with Store.open(library.directory, write=True) as store:
        (root,) = store.root_states()
        store.describe_root(root.id, volume="uuid:first")
    monkeypatch.setattr(Volumes, "of", lambda self, folder: Volume("uuid:second"))
    (sounds / "a.wav").unlink()
    stat = (sounds / "b.wav").stat()
    toy.write_wav(sounds / "b.wav", toy.noise(77, 1.1))  # as a second recorder's card would have it
    os.utime(sounds / "b.wav", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (sounds / "b.wav").stat().st_size == stat.st_size
    with with_model(library) as more:
        summary = more.sync()
    assert [(each.reason, each.gone) for each in summary.held_back] == [("other-disk", 1)]
    assert (summary.ingest.files_unchanged, summary.ingest.files_indexed, summary.ingest.chunks_embedded) == (0, 3, 1)
    assert names(contents(library)) == ["a.wav", "b.wav", "c.wav", "d.wav"]
    assert library.sync(prune_all=True).files_removed == 1
    assert library.sync().files_unchanged == 3, "now the second disk is the one that is known"


def test_a_root_that_cannot_be_read_is_left_alone_even_with_yes(library: Library, sounds: Path, monkeypatch):
    listing, status = os.scandir, os.lstat

    def lost(call):
        def answer(path, *rest, **options):
            if os.fsencode(path).startswith(os.fsencode(sounds)):
                raise OSError(116, "Stale file handle")
            return call(path, *rest, **options)

        return answer

    monkeypatch.setattr(os, "scandir", lost(listing))
    monkeypatch.setattr(os, "lstat", lost(status))
    summary = library.sync(prune_all=True)
    assert [(each.reason, each.gone) for each in summary.held_back] == [("unreadable", 0)]
    assert len(contents(library)) == 4


# ── disks ──


def test_ids_of_volumes_are_compared_with_their_like_only():
    assert is_other("uuid:a", "uuid:b")
    assert not is_other("uuid:a", "uuid:a")
    assert not is_other("uuid:a", "fs:b")
    assert not is_other(None, "uuid:b") and not is_other("uuid:a", None)


@pytest.mark.parametrize(
    ("mount", "wanted"),
    [
        (Mount("server:/export", "/", "nfs4"), Volume("share:server:/export", True)),
        (Mount("//nas/media", "/", "cifs"), Volume("share://nas/media", True)),
        (Mount("tmpfs", "/", "tmpfs"), Volume(None, True)),
        (Mount("/dev/no-such-card", "/", "vfat"), Volume(None, False)),
        (Mount("rclone:", "/", "fuse.rclone"), Volume("share:rclone:", False)),
        (None, Volume(None, True)),
    ],
)
def test_what_a_mount_says_of_a_volume(mount: Mount | None, wanted: Volume, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(volumes_module, "mount_of", lambda folder: mount)
    assert Volumes().of(str(tmp_path)) == wanted
    assert Volumes().of(str(tmp_path / "not there")) == Volume()


# ── the store ──


def test_moves_are_one_transaction_and_let_go_of_what_they_replace(tmp_path: Path):
    with Store.create(tmp_path / "library") as store:
        store.add_space(spec())
        first, second = store.add_root("/data"), store.add_root("/more")
        for name in ("rain", "wind", "sea"):
            store.commit(1, whole(first, name, list(unit(1, 2))))
        ids = {each.path: each.id for each in store.files_of_sizes(1, {1000})}
        moves = [
            FileMove(ids[b"rain.wav"], first, b"wind.wav", 42),
            FileMove(ids[b"wind.wav"], first, b"rain.wav", 42),
            FileMove(ids[b"sea.wav"], second, b"deep/sea.wav", 2**64 - 1),
        ]
        store.move_files(1, moves)
        found = {(each.root, each.path): (each.id, each.stat[2]) for each in store.files_of_sizes(1, range(2000))}
        assert found == {
            ("/data", b"wind.wav"): (ids[b"rain.wav"], 42),
            ("/data", b"rain.wav"): (ids[b"wind.wav"], 42),
            ("/more", b"deep/sea.wav"): (ids[b"sea.wav"], 2**64 - 1),
        }
        assert len(store.changes_since(1, 0).added_ids) == 6
        store.move_files(1, [FileMove(ids[b"sea.wav"], first, b"rain.wav", 42)])
        changes = store.changes_since(1, 3)
        assert len(changes.deleted_ids) == 2 and store.status().recordings == 2
        assert store.remove_files(1, [(first, b"rain.wav"), (first, b"no such.wav")]) == 1
        store.forget_roots([first, second])
        assert store.roots() == [(first, "/data")]


# ── the command ──


def test_the_command(library: Library, sounds: Path, stock: Path, monkeypatch, capfd):
    monkeypatch.setenv("AUDIOSEARCH_LIBRARY", library.directory)
    monkeypatch.setattr("audiosearch.library._installed_models", lambda: HAND)
    (sounds / "a.wav").rename(sounds / "z.wav")
    (sounds / "b.wav").unlink()
    toy.write_wav(sounds / "new.wav", toy.tone(400, 1))
    assert run_cli(["sync", "--dry-run"]) == 0
    out = capfd.readouterr().out
    assert out.splitlines() == [
        f"moved    {sounds / 'a.wav'} -> {sounds / 'z.wav'}",
        f"new      {sounds / 'new.wav'}",
        f"gone     {sounds / 'b.wav'}",
        "would do: 62 unchanged, 1 moved, 1 new, 0 changed, 0 again, 1 gone",
    ]
    stock.rename(stock.with_name("away"))
    assert run_cli(["sync", "--workers", "1"]) == 4
    out, err = capfd.readouterr()
    assert "1 moved" in out and "1 deleted file removed, and 1 recording that no other file holds" in out
    assert f"kept: {stock}: 60 of 60 files gone, none removed: " in err and "--yes" in err and "--root OLD=NEW" in err
    assert run_cli(["sync", "--json", "--root", f"{stock}={stock.with_name('away')}"]) == 0
    summary = json.loads(capfd.readouterr().out)
    assert (summary["version"], summary["dry_run"], summary["files_unchanged"]) == (1, False, 64)
    assert summary["ingest"]["chunks_embedded"] == 0
    assert run_cli(["sync", "--root", "nonsense"]) == 2
    assert "OLD=NEW" in capfd.readouterr().err
    shutil.rmtree(stock.with_name("away"))
    assert run_cli(["sync", "--yes", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["files_removed"] == 60


def test_a_root_with_an_equals_sign_in_its_name(tmp_path: Path, monkeypatch, capfd):
    monkeypatch.setenv("AUDIOSEARCH_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setattr("audiosearch.library._installed_models", lambda: HAND)
    folder = many(tmp_path / "a=b", [1])
    assert run_cli(["ingest", str(folder), "--workers", "1", "-q"]) == 0
    folder.rename(tmp_path / "c=d")
    capfd.readouterr()
    assert run_cli(["sync", "--root", f"{folder}={tmp_path / 'c=d'}", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["files_unchanged"] == 1
