"""The store: what goes in comes out, a crash or a bad batch leaves nothing behind, readers never disturb nor are."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from store_helpers import DIM, MEDIA, chunks, file_record, key, spec, unit, whole

from audiosearch.errors import LibraryError, LibraryLocked, LibraryNotFound, SpaceMismatch
from audiosearch.store import vectors as vectors_module
from audiosearch.store.records import (
    ChunkRecord,
    CommitBatch,
    FailureRecord,
    FinishedRecording,
    RecordingInfo,
)
from audiosearch.store.store import Store


@pytest.fixture
def store(tmp_path: Path):
    with Store.create(tmp_path / "library") as made:
        made.add_space(spec())
        made.add_root("/data")
        yield made


def reopened(store: Store) -> Store:
    store.close()
    return Store.open(store.directory, write=True)


def alive(store: Store, space_id: int = 1) -> list[int]:
    return store.changes_since(space_id, 0).added_ids.tolist()


def shard_size(store: Store) -> int:
    return sum(path.stat().st_size for path in (store.directory / "vectors").rglob("*.f16"))


def test_a_commit_comes_back(store: Store):
    vectors = unit(1, 5)
    seq = store.commit(1, whole(1, "rain", list(vectors)))
    assert seq == store.max_seq(1) == 1
    changes = store.changes_since(1, 0)
    assert changes.seq == 1 and changes.added_ids.tolist() == [1, 2, 3, 4, 5] and not len(changes.deleted_ids)
    with Store.open(store.directory) as reader:
        ids = np.array([4, 1, 4, 2])
        read = reader.vectors(1, ids)
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, vectors[ids - 1], atol=1e-3)
        np.testing.assert_allclose(np.linalg.norm(read, axis=1), 1, atol=1e-6)
        np.testing.assert_array_equal(read, reader.vectors_at(1, changes.shards, changes.rows)[ids - 1])
        found = reader.resolve([3, 99, 1])
    assert [each.vector_id for each in found] == [3, 1]
    assert (found[0].start_seconds, found[0].end_seconds) == (10.0, 20.0)
    assert found[0].packet_hash == key("rain") and found[0].paths == (("/data", "rain.wav"),)


def test_unknown_vector_ids_are_an_error(store: Store):
    store.commit(1, whole(1, "rain", list(unit(1, 2))))
    store.add_space(spec("space-two"))
    with pytest.raises(KeyError):
        store.vectors(1, np.array([1, 3]))
    with pytest.raises(KeyError):  # another space's
        store.vectors(2, np.array([1]))
    assert store.vectors(1, np.array([], np.int64)).shape == (0, DIM)


def test_spaces(store: Store):
    aspect = store.add_space(spec("space-two", is_aspect=True, document_instruction="What room is it?"))
    assert not aspect.is_default and store.default_space() == store.space("space-one")
    assert store.add_space(spec("space-two", is_aspect=True, document_instruction="What room is it?")) == aspect
    assert store.add_space(aspect.spec, default=True).is_default
    assert [each.is_default for each in store.spaces()] == [False, True]
    assert store.space("space-three") is None
    with pytest.raises(ValueError, match="folder"):
        store.add_space(spec("../escape"))


def test_roots_keep_any_name(store: Store):
    odd = os.fsdecode(b"/data/\xff\xfe sound")
    id_ = store.add_root(odd)
    assert store.add_root(odd + "/") == id_ != 1
    assert store.roots() == [(1, "/data"), (id_, odd)]
    with pytest.raises(ValueError, match="absolute"):
        store.add_root("data")


def test_file_states(store: Store):
    store.add_space(spec("space-two"))
    batch = whole(1, "rain", list(unit(1, 2)))
    odd = replace(batch.files[0], path=b"caf\xe9.wav", inode=(1 << 64) - 3)
    store.commit(1, replace(batch, files=[*batch.files, odd]))
    store.commit(1, CommitBatch(failures=[FailureRecord(1, b"bad.wav", 0, 7, 8, "empty", "no bytes")]))
    states = store.file_states(1, 1)
    assert set(states) == {b"rain.wav", b"caf\xe9.wav", b"bad.wav"}
    assert states[b"caf\xe9.wav"][:5] == (1000, 1_700_000_000_123_456_789, (1 << 64) - 3, True, None)
    assert states[b"bad.wav"][:5] == (0, 7, 8, False, "empty")
    assert not store.file_states(1, 2)[b"rain.wav"].done
    assert store.file_states(2, 1) == {}


def test_the_same_sound_is_stored_once(store: Store):
    vectors = unit(1, 3)
    store.commit(1, whole(1, "rain", list(vectors)))
    size = shard_size(store)
    sounds = [key("sound", "rain", i) for i in range(3)]
    assert store.hashes_present(1, [*sounds, key("other")]) == set(sounds)
    loop = [ChunkRecord(key("loop"), 5.0 * i, 5.0 * i + 5, sounds[1], silent=False) for i in range(4)]
    store.commit(1, CommitBatch(recordings=[RecordingInfo(key("loop"), MEDIA)], chunks=loop))
    assert shard_size(store) == size
    np.testing.assert_array_equal(store.vectors(1, np.array([4, 5, 6, 7])), store.vectors(1, np.array([2] * 4)))
    # Twice in one batch: the first brings the vector, and a second vector for the same sound is not written.
    new = unit(2, 1)[0]
    twins = [
        ChunkRecord(key("twin"), 5.0 * i, 5.0 * i + 5, key("new"), False, v) for i, v in enumerate([new, None, new])
    ]
    store.commit(1, CommitBatch(recordings=[RecordingInfo(key("twin"), MEDIA)], chunks=twins))
    assert shard_size(store) == size + DIM * 2
    np.testing.assert_allclose(store.vectors(1, np.array([8, 9, 10])), np.stack([new] * 3), atol=1e-3)


def test_a_vector_never_crosses_spaces(store: Store):
    store.add_space(spec("space-two"))
    store.commit(1, whole(1, "rain", list(unit(1, 2))))
    assert store.hashes_present(2, [key("sound", "rain", 0)]) == set()
    assert not store.recording_state(2, key("rain")).complete
    store.commit(2, whole(1, "rain", list(unit(2, 2))))
    assert store.status().chunks == 2 and [each.vectors for each in store.status().spaces] == [2, 2]
    assert alive(store, 1) == [1, 2] and alive(store, 2) == [3, 4]
    np.testing.assert_allclose(store.vectors(2, np.array([3, 4])), unit(2, 2), atol=1e-3)


def test_silence_has_no_vector(store: Store):
    silent = replace(chunks("rain", [None])[0], silent=True)
    store.commit(1, CommitBatch(recordings=[RecordingInfo(key("rain"), MEDIA)], chunks=[silent]))
    assert alive(store) == [] and store.max_seq(1) == 0


def test_work_done_twice_is_stored_once(store: Store):
    vectors = list(unit(1, 6))
    info = [RecordingInfo(key("rain"), MEDIA)]
    store.commit(1, CommitBatch(recordings=info, chunks=chunks("rain", vectors[:4])))
    assert store.recording_state(1, key("rain")) == (store.recording_state(1, key("rain")))
    assert not store.recording_state(1, key("rain")).complete
    store.commit(1, whole(1, "rain", vectors))
    size = shard_size(store)
    store.commit(1, whole(1, "rain", vectors))
    assert shard_size(store) == size == 6 * DIM * 2
    assert len(alive(store)) == 6 and store.status().chunks == 6
    assert store.recording_state(1, key("rain")).complete
    np.testing.assert_allclose(store.vectors(1, np.arange(1, 7)), vectors, atol=1e-3)


def test_changed_content_replaces_the_old(store: Store):
    store.commit(1, whole(1, "rain", list(unit(1, 3)), path="a.wav"))
    store.commit(1, CommitBatch(files=[file_record(1, "copy.wav", "rain")]))
    before = store.commit(1, whole(1, "wind", list(unit(2, 2)), path="a.wav"))
    assert store.changes_since(1, 1).deleted_ids.tolist() == []  # a copy still holds it
    assert store.resolve([1])[0].paths == (("/data", "copy.wav"),)
    seq = store.commit(1, CommitBatch(files=[file_record(1, "copy.wav", "wind")]))
    changes = store.changes_since(1, before)
    assert changes.deleted_ids.tolist() == [1, 2, 3] and changes.seq == seq and not len(changes.added_ids)
    assert store.resolve([1, 4])[0].vector_id == 4
    assert not store.recording_state(1, key("rain")).complete
    assert store.status().recordings == 1 and store.status().files == 2
    # What an index that never saw them must not be told.
    assert store.changes_since(1, 0).deleted_ids.tolist() == [] and alive(store) == [4, 5]
    # The old sound comes back: it is still on the disk, and gets new ids.
    assert store.hashes_present(1, [key("sound", "rain", 0)])
    store.commit(1, whole(1, "rain", [None] * 3, path="b.wav"))
    assert alive(store) == [4, 5, 6, 7, 8]
    np.testing.assert_allclose(store.vectors(1, np.array([6, 7, 8])), unit(1, 3), atol=1e-3)


def test_deletion_reaches_every_space(store: Store):
    store.add_space(spec("space-two"))
    for space_id in (1, 2):
        store.commit(space_id, whole(1, "rain", list(unit(space_id, 2)), path="a.wav"))
    seen = store.max_seq(2)
    store.commit(1, whole(1, "wind", list(unit(3, 1)), path="a.wav"))
    assert store.changes_since(2, seen).deleted_ids.tolist() == [3, 4]


def test_failures(store: Store):
    bad = FailureRecord(1, b"a.wav", 9, 7, 8, "unreadable", "I/O error")
    store.commit(1, whole(1, "rain", list(unit(1, 2)), path="a.wav"))
    store.commit(1, CommitBatch(failures=[bad]))
    store.commit(1, CommitBatch(failures=[bad]))
    (failed,) = store.failures()
    assert (failed.path, failed.cause, failed.attempts) == ("/data/a.wav", "unreadable", 2)
    assert failed.last_attempt_at.endswith("+00:00")
    # That may pass: what is known of the file stays searchable. No sound in it any more: it does not.
    assert alive(store) == [1, 2] and store.file_states(1, 1)[b"a.wav"].failed_cause == "unreadable"
    store.commit(1, CommitBatch(failures=[replace(bad, cause="not-audio", detail="text")]))
    assert alive(store) == [] and store.status().files == 0 and store.failures()[0].attempts == 3
    changed = replace(bad, size=10, cause="crashed", detail="it ended")  # another file: its attempts are counted anew
    store.commit(1, CommitBatch(failures=[changed]))
    assert [(f.attempts, f.will_retry) for f in store.failures()] == [(1, True)]
    assert store.status().failed_by_cause == {"crashed": 1}
    for _ in range(2):
        store.commit(1, CommitBatch(failures=[changed]))
    assert [(f.attempts, f.will_retry) for f in store.failures()] == [(3, False)]
    store.commit(1, whole(1, "rain", [None, None], path="a.wav"))
    assert store.failures() == [] and store.status().failed == 0 and len(alive(store)) == 2


def test_a_file_as_it_was_keeps_its_vectors_when_it_fails(store: Store):
    batch = whole(1, "rain", list(unit(1, 2)), path="a.wav")
    store.commit(1, batch)
    known = batch.files[0]
    failure = FailureRecord(1, known.path, known.size, known.mtime_ns, known.inode, "too-large", "a lower limit")
    store.commit(1, CommitBatch(failures=[failure]))
    assert alive(store) == [1, 2] and store.status().files == 1
    store.commit(1, CommitBatch(failures=[replace(failure, size=1)]))
    assert alive(store) == []


def test_prune_takes_what_no_file_holds(store: Store):
    store.commit(1, whole(1, "rain", list(unit(1, 2))))
    store.commit(
        1, CommitBatch(recordings=[RecordingInfo(key("cut off"), MEDIA)], chunks=chunks("cut off", list(unit(2, 3))))
    )
    assert store.resolve([3]) == [] and len(alive(store)) == 5
    assert store.prune(1) == 1 and alive(store) == [1, 2] and store.prune(1) == 0


def test_status(store: Store):
    store.commit(1, whole(1, "rain", list(unit(1, 3))))
    store.commit(1, CommitBatch(files=[file_record(1, "copy.wav", "rain")]))
    status = store.status()
    assert (status.files, status.recordings, status.chunks, status.failed) == (2, 1, 3, 0)
    assert status.audio_seconds == 20.0 and status.roots == ("/data",) and status.bytes_on_disk > 3 * DIM * 2
    assert (status.spaces[0].recordings, status.spaces[0].chunks, status.spaces[0].vectors) == (1, 3, 3)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"chunks": chunks("rain", [None])}, ValueError, "no vector"),
        ({"chunks": chunks("rain", [unit(1, 1)[0] * 2])}, ValueError, "length"),
        ({"chunks": chunks("rain", [np.full(DIM, np.nan, np.float32)])}, ValueError, "length"),
        ({"chunks": chunks("rain", list(unit(1, 1, DIM + 1)))}, SpaceMismatch, "dimensions"),
        ({"chunks": chunks("rain", list(unit(1, 1))) * 2}, ValueError, "twice"),
        ({"finished": [FinishedRecording(key("unknown"), 1.0)]}, ValueError, "neither stored"),
    ],
)
def test_a_bad_batch_leaves_nothing(store: Store, change, error, words):
    with pytest.raises(error, match=words):
        store.commit(1, replace(whole(1, "rain", list(unit(1, 2))), **change))
    assert store.status().files == store.status().recordings == shard_size(store) == store.max_seq(1) == 0
    store.commit(1, whole(1, "rain", list(unit(1, 2))))
    np.testing.assert_allclose(store.vectors(1, np.array([1, 2])), unit(1, 2), atol=1e-3)


def test_a_full_disk_loses_only_the_batch(store: Store, monkeypatch: pytest.MonkeyPatch):
    store.commit(1, whole(1, "rain", list(unit(1, 2))))
    real = os.write

    def write_half(handle: int, data: memoryview) -> int:
        if len(data) < DIM:
            raise OSError(28, "No space left on device")
        return real(handle, data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(vectors_module.os, "write", write_half)
        with pytest.raises(LibraryError, match=r"the disk is full .No space .+; what was committed is kept"):
            store.commit(1, whole(1, "wind", list(unit(2, 3))))
    assert shard_size(store) == 2 * DIM * 2 and alive(store) == [1, 2]
    store.commit(1, whole(1, "wind", list(unit(2, 3))))
    with reopened(store) as again:
        np.testing.assert_allclose(again.vectors(1, np.arange(3, 6)), unit(2, 3), atol=1e-3)


def test_shards_roll(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vectors_module, "SHARD_BYTES", 4 * DIM * 2)
    vectors = unit(1, 12)
    for first in range(0, 12, 3):
        store.commit(1, whole(1, f"r{first}", list(vectors[first : first + 3])))
    names = sorted(path.name for path in (store.directory / "vectors/space-one").iterdir())
    assert names == ["000001.f16", "000002.f16"]
    with reopened(store) as again:
        again.commit(1, whole(1, "last", list(unit(2, 1))))
        np.testing.assert_allclose(again.vectors(1, np.arange(12, 0, -1)), vectors[::-1], atol=1e-3)
        np.testing.assert_allclose(again.vectors(1, np.array([13])), unit(2, 1), atol=1e-3)


CRASH = """
import os, sys
from store_helpers import unit, whole
from audiosearch.store import vectors, writing
from audiosearch.store.store import Store
where, directory = sys.argv[1:]
store = Store.open(directory, write=True)
store.commit(1, whole(1, "kept", list(unit(1, 3))))
if where == "half written":
    real = os.write
    def write(handle, data):
        real(handle, data[: len(data) // 2 + 1])
        os._exit(9)
    vectors.os.write = write
elif where == "appended":
    real = vectors.Shards.append
    def append(self, *arguments):
        real(self, *arguments)
        os._exit(9)
    vectors.Shards.append = append
elif where == "before the end of the transaction":
    writing.forget = lambda *_: os._exit(9)
store.commit(1, whole(1, "lost", list(unit(2, 4))))
os._exit(9)
"""


@pytest.mark.parametrize("where", ["half written", "appended", "before the end of the transaction", "after"])
def test_a_crash_loses_at_most_the_batch(store: Store, where: str):
    store.close()
    ended = subprocess.run(
        [sys.executable, "-c", CRASH, where, store.directory],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert ended.returncode == 9
    rows = 7 if where == "after" else 3
    with Store.open(store.directory) as reader:  # a reader leaves the crash's bytes alone
        before = shard_size(reader)
        assert len(alive(reader)) == rows and before >= rows * DIM * 2
        assert (before > rows * DIM * 2) == (where != "after")
        reader.vectors(1, np.array(alive(reader)))
        assert shard_size(reader) == before
    with Store.open(store.directory, write=True) as again:
        assert shard_size(again) == rows * DIM * 2 and again.status().recordings == (2 if where == "after" else 1)
        again.commit(1, whole(1, "lost", list(unit(2, 4))))
        assert len(alive(again)) == 7
        np.testing.assert_allclose(again.vectors(1, np.array(alive(again))), [*unit(1, 3), *unit(2, 4)], atol=1e-3)


def test_missing_rows_are_noticed(store: Store):
    store.commit(1, whole(1, "rain", list(unit(1, 4))))
    store.close()
    shard = store.directory / "vectors/space-one/000001.f16"
    os.truncate(shard, 3 * DIM * 2)
    with Store.open(store.directory) as reader:
        with pytest.raises(LibraryError, match="backup"):
            reader.vectors(1, np.array([4]))
        assert reader.vectors(1, np.array([3])).shape == (1, DIM)
    with pytest.raises(LibraryError, match="backup"):
        Store.open(store.directory, write=True)
    shard.unlink()
    with pytest.raises(LibraryError, match="missing"):
        Store.open(store.directory, write=True)
    with Store.open(store.directory) as reader, pytest.raises(LibraryError, match="backup"):
        reader.vectors(1, np.array([3]))


def test_opening_what_is_not_there(tmp_path: Path, store: Store):
    with pytest.raises(LibraryNotFound, match="ingest"):
        Store.open(tmp_path / "nowhere")
    with pytest.raises(LibraryLocked):
        Store.open(store.directory, write=True)
    with pytest.raises(LibraryLocked):
        Store.create(store.directory)
    store.close()
    with pytest.raises(LibraryError, match="already"):
        Store.create(store.directory)
    Store.open(store.directory, write=True).close()


def test_a_reader_cannot_write(store: Store):
    with Store.open(store.directory) as reader:
        with pytest.raises(AssertionError):
            reader.commit(1, whole(1, "rain", list(unit(1, 1))))
        with pytest.raises(AssertionError):
            reader.add_root("/other")


def test_a_snapshot_stays_while_the_writer_goes_on(store: Store):
    store.commit(1, whole(1, "rain", list(unit(1, 2)), path="a.wav"))
    with Store.open(store.directory) as reader:
        with reader.snapshot():
            assert reader.max_seq(1) == 1
            store.commit(1, whole(1, "wind", list(unit(2, 2)), path="a.wav"))
            assert reader.max_seq(1) == 1 and alive(reader) == [1, 2] and len(reader.resolve([1, 2, 3])) == 2
        assert alive(reader) == [3, 4] and [each.vector_id for each in reader.resolve([1, 2, 3])] == [3]


def test_readers_come_and_go_during_commits(tmp_path: Path):
    """Two threads and a process open, read everything and close, while one thread commits and reopens."""
    directory = tmp_path / "library"
    with Store.create(directory) as store:
        store.add_space(spec())
        store.add_root("/data")
    expected = unit(7, 160)
    stop, errors, rounds = threading.Event(), [], [0, 0]

    def read(number: int) -> None:
        last = 0
        try:
            while not stop.is_set():
                with Store.open(directory) as reader, reader.snapshot():
                    changes = reader.changes_since(1, 0)
                    assert len(changes.added_ids) >= last and len(changes.added_ids) % 4 == 0
                    last = len(changes.added_ids)
                    found = reader.vectors_at(1, changes.shards, changes.rows)
                    np.testing.assert_allclose(found, expected[:last], atol=1e-3)
                    assert len(reader.resolve(changes.added_ids[:20])) == min(last, 20)
                rounds[number] += 1
        except BaseException as error:
            errors.append(error)

    code = (
        "import sys, time\nfrom audiosearch.store.store import Store\n"
        "end = time.monotonic() + 60\n"
        "while time.monotonic() < end:\n"
        "    with Store.open(sys.argv[1]) as reader, reader.snapshot():\n"
        "        c = reader.changes_since(1, 0)\n"
        "        reader.vectors_at(1, c.shards, c.rows)\n"
        "        if len(c.added_ids) == 160: print('all'); break\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, directory], stdout=subprocess.PIPE, text=True)
    threads = [threading.Thread(target=read, args=(number,)) for number in range(2)]
    for each in threads:
        each.start()
    for first in range(0, 160, 40):
        with Store.open(directory, write=True) as store:  # closing takes the log away under the readers
            for at in range(first, first + 40, 4):
                store.commit(1, whole(1, f"r{at}", list(expected[at : at + 4])))
    assert other.communicate(timeout=60)[0] == "all\n" and other.returncode == 0
    stop.set()
    for each in threads:
        each.join()
    assert not errors and min(rounds) >= 3


READ_ONLY = """
import os, shutil, sys, tempfile
from audiosearch.store.store import Store

def read(directory):
    with Store.open(directory) as store:
        ids = store.changes_since(1, 0).added_ids
        return len(store.resolve(ids)), store.vectors(1, ids).shape[0], store.status().files

with tempfile.TemporaryDirectory() as folder:  # of a copy, for all that is imported on first use: another user may
    read(shutil.copytree(sys.argv[1], folder + "/copy"))  # not be allowed to read the environment
if os.getuid() == 0:  # the superuser may write anywhere
    os.setuid(65534)
print(*read(sys.argv[1]))
"""


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_a_read_only_directory_can_be_read():
    # Not tmp_path: that is closed to other users.
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "library"
        with Store.create(directory) as store:
            store.add_space(spec())
            store.add_root("/data")
            store.commit(1, whole(1, "rain", list(unit(1, 3))))
        Path(folder).chmod(0o755)
        for path in [directory, *directory.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = sorted(directory.rglob("*"))
        ended = subprocess.run([sys.executable, "-c", READ_ONLY, directory], capture_output=True, text=True)
        for path in [directory, *directory.rglob("*")]:
            path.chmod(0o755)
        assert ended.stdout == "3 3 1\n", ended.stderr
        assert sorted(directory.rglob("*")) == before


def test_nothing_heavy_is_imported(store: Store):
    store.commit(1, whole(1, "rain", list(unit(1, 2))))
    store.close()
    code = (
        "import sys\nfrom audiosearch.store.store import Store\nfrom audiosearch import index_cache\n"
        f"s = Store.open({str(store.directory)!r}, write=True)\n"
        "s.file_states(1, 1); s.status(); s.failures(); s.roots()\n"
        "print(index_cache.save_generation(s, s.default_space()))\n"
        "print([m for m in ('torch', 'faiss', 'alembic', 'av', 'transformers') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == "False\n[]\n", ended.stderr


def test_many_files_are_quick(store: Store):
    one = file_record(1, "", "rain")
    files = [replace(one, path=b"folder/%06d.wav" % i) for i in range(100_000)]
    store.commit(1, whole(1, "rain", list(unit(1, 1))))
    store.commit(1, CommitBatch(files=files))
    begin = time.process_time()
    states = store.file_states(1, 1)
    assert time.process_time() - begin < 2.0  # about 0.3 on a free core
    assert len(states) == 100_001 and all(each.done for each in states.values())
