"""Kill -9 at any change to the disk, a power cut at any moment, a disk that is full, read-only or gone: the library
opens, is whole, and has every commit that had returned. `benchmarks/crash.py` tries every point; here are some."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import crash_scenario
import disk_shim
import pytest
import toy
from store_helpers import spec, unit, whole

from audiosearch.library import Library, Models
from audiosearch.store import connection as connections
from audiosearch.store import filesystem
from audiosearch.store.store import Store

SCRIPT = Path(crash_scenario.__file__)
needs_shim = pytest.mark.skipif(disk_shim.why_not() is not None, reason=disk_shim.why_not() or "")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder where fsync costs nothing, if there is one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shim")


@pytest.fixture(scope="module")
def logged(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[disk_shim.Record]]:
    """The folder of an uninterrupted run, and what it did to the disk."""
    folder = tmp_path_factory.mktemp("logged")
    run(shim, "log", folder, folder / "changes.log")
    return folder / "logged", disk_shim.read_log(folder / "changes.log")


@pytest.fixture(scope="module")
def expected(logged: tuple[Path, list[disk_shim.Record]]) -> crash_scenario.Contents:
    found = crash_scenario.contents(logged[0] / "library")
    assert len(found) == 6 * 4
    return found


def run(shim: Path, *arguments: object) -> str:
    done = disk_shim.preloaded(SCRIPT, *arguments, folder=shim)
    assert done.returncode == 0, done.stderr[-2000:]
    return str(done.stdout)


def some(points: int, wanted: int, seed: int) -> list[int]:
    """`wanted` of the numbers 1 to `points`."""
    return sorted(random.Random(seed).sample(range(1, points + 1), min(wanted, points)))


def noted(folder: Path, at: int) -> list[int]:
    return [int(line) for line in (folder / f"{at}.noted").read_text().split()]


def changes_of(records: list[disk_shim.Record]) -> int:
    return sum(record.op != disk_shim.MARK for record in records)


@needs_shim
def test_the_log_holds_what_the_disk_holds(logged):
    """The replay is a judge only if it ends where the real disk ended."""
    top, records = logged
    disk = disk_shim.Disk(top)
    for record in records:
        disk.play(record)
    assert disk.marks == [str(n) for n in range(crash_scenario.COMMITS)]
    assert {1, 2, 3, 4, 5, 6, 7} <= {record.op for record in records}
    target = top.parent / "replayed"
    target.mkdir()
    disk.cut(target, random.Random(0), 1.0)
    real = {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()}
    replayed = {path.relative_to(target): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert replayed == real


@needs_shim
def test_the_replay_would_notice_a_missing_fsync(logged, expected, tmp_path: Path):
    """Without the shards' fsyncs commits are lost: if that went unnoticed, nothing here would prove anything."""
    top, records = logged
    careless = [each for each in records if not (each.op == disk_shim.SYNC and each.path.endswith(".f16"))]
    disk = disk_shim.Disk(top)
    for record in careless:
        disk.play(record)
    disk.cut(tmp_path, random.Random(0), 0.0)
    assert crash_scenario.faults(tmp_path / "library", [int(each) for each in disk.marks], expected)


@needs_shim
@pytest.mark.parametrize("journal", ["wal", "network"])
def test_a_power_cut_loses_no_commit(shim: Path, logged, expected, place: Path, journal: str):
    top, records = logged
    if journal == "network":
        run(shim, "log", place, place / "changes.log", "network")
        top, records = place / "logged", disk_shim.read_log(place / "changes.log")
        assert not any(record.path.endswith("-wal") for record in records)
    points = set(some(len(records), 14, seed=len(journal)))
    wrong = []
    for number, disk in disk_shim.states(records, top):
        if number in points:
            luck = random.Random(number)
            for kept in (0.0, luck.choice((0.3, 0.7))):
                left = place / f"cut-{number}-{kept}"
                left.mkdir()
                disk.cut(left, luck, kept)
                found = crash_scenario.faults(left / "library", [int(each) for each in disk.marks], expected)
                wrong += [f"after change {number}, {kept:.0%} kept: {fault}" for fault in found]
    assert not wrong, "\n".join(wrong)


@needs_shim
def test_kill_at_any_change(shim: Path, logged, expected, place: Path):
    points = some(changes_of(logged[1]), 16, seed=1)
    codes = json.loads(run(shim, "kill", place, *points))
    assert set(codes.values()) == {-9}
    wrong = []
    for at in points:
        found = crash_scenario.faults(place / str(at) / "library", noted(place, at), expected)
        wrong += [f"killed at change {at}: {fault}" for fault in found]
    assert not wrong, "\n".join(wrong)


@needs_shim
@pytest.mark.parametrize(
    ("error", "says"),
    [
        (errno.ENOSPC, "the disk is full|is it full"),  # SQLite does not always say why
        (errno.EROFS, "cannot be written|cannot write here|cannot make a library|disk I/O error|read-only"),
        (errno.EIO, "does not answer|cannot be read|cannot be opened|cannot make|cannot write"),
        (errno.ESTALE, "does not answer|cannot be read|cannot be opened|cannot make|cannot write"),
    ],
    ids=["full", "read-only", "broken", "gone"],
)
def test_a_disk_that_fails_says_so_and_loses_nothing(shim: Path, logged, expected, place: Path, error: int, says: str):
    points = some(changes_of(logged[1]), 7, seed=error)
    done = disk_shim.preloaded(SCRIPT, "fail", place, error, *points, folder=shim)
    assert done.returncode == 0 and set(json.loads(done.stdout).values()) == {0}, done.stderr[-2000:]
    for line in (place / "said").read_text().splitlines():
        assert re.search(says, line), line
    wrong = []
    for at in points:
        found = crash_scenario.faults(place / str(at) / "library", noted(place, at), expected)
        wrong += [f"failed at change {at}: {fault}" for fault in found]
    assert not wrong, "\n".join(wrong)


INGEST = """
import json, sys
from pathlib import Path
import disk_shim, toy
from audiosearch.ingest import writer
from audiosearch.library import Library, Models
writer.GROUP_SECONDS = 0.0
folder, at = Path(sys.argv[1]), int(sys.argv[2])
disk_shim.arm(folder / "library", disk_shim.KILL if at else 0, at=at)
models = Models(lambda name: toy.description(), lambda name, **_: toy.HandEmbedder())
if __name__ == "__main__":
    with Library.open(folder / "library", create=True, models=models) as library:
        summary = library.ingest([folder / "sounds"], workers=1)
    print(json.dumps([summary.files_indexed, summary.chunks_embedded]))
"""


@needs_shim
def test_an_ingest_that_is_killed_goes_on_where_it_was(shim: Path, place: Path):
    sounds, script = place / "sounds", place / "script.py"
    sounds.mkdir()
    script.write_text(INGEST)
    for n in range(8):
        toy.write_wav(sounds / f"{n}.wav", 0.5 * toy.tone(90.0 * (n + 1), 12) + 0.1 * toy.noise(n, 12))  # three chunks
    (sounds / "twin.wav").write_bytes((sounds / "3.wav").read_bytes())
    luck = random.Random(5)
    for _ in range(4):
        done = disk_shim.preloaded(script, place, luck.randrange(60, 140), folder=shim)
        assert done.returncode in (-9, 0), done.stderr[-2000:]
    done = disk_shim.preloaded(script, place, 0, folder=shim)
    assert done.returncode == 0, done.stderr[-2000:]
    _, embedded = json.loads(done.stdout)
    assert embedded < 24  # something was kept
    with Library.open(place / "library", models=MODELS) as library:
        assert library.verify().problems == () and library.status().files == 9
    with Library.open(place / "judge", create=True, models=MODELS) as judge:
        judge.ingest([sounds], workers=1)
    assert findable(place / "library") == findable(place / "judge")
    assert len(findable(place / "judge")) == 24


MODELS = Models(lambda name: toy.description(), lambda name, **_: toy.HandEmbedder())


def findable(library: Path) -> dict[tuple[bytes, float, float], list[float]]:
    with Store.open(library) as store:
        (space,) = store.spaces()
        ids = store.changes_since(space.id, 0).added_ids
        pairs = zip(store.resolve(ids), store.vectors(space.id, ids), strict=True)
        found = [((each.packet_hash, each.start_seconds, each.end_seconds), vector.tolist()) for each, vector in pairs]
    assert len(dict(found)) == len(found)
    return dict(found)


def test_where_a_log_cannot_work_it_is_said_once_and_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "is_network", lambda _: True)
    (tmp_path / "sounds").mkdir()
    toy.write_wav(tmp_path / "sounds/a.wav", toy.tone(100, 3))
    library = tmp_path / "library"
    with Library.open(library, create=True, models=MODELS) as opened:
        summary = opened.ingest([tmp_path / "sounds"], workers=1)
        assert len(summary.warnings) == 1 and "a write-ahead log cannot work" in summary.warnings[0]
        assert opened.query("low hum").hits
    assert not (library / "library.db-wal").exists()
    with closing(sqlite3.connect(library / "library.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    with closing(connections.connect_writer(library / "library.db")) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA: the end of a journal is forced too
    monkeypatch.undo()
    with Store.open(library, write=True) as store:  # moved to a local disk
        assert store.journal_note is None


def test_a_reader_can_open_what_a_crash_left_without_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The journal of a transaction that was cut off has to be rolled back before anyone can read."""
    monkeypatch.setattr(connections, "is_network", lambda _: True)
    library, left = tmp_path / "library", tmp_path / "left"
    with Store.create(library) as store:
        store.add_space(spec())
        store.add_root("/data")
        store.commit(1, whole(1, "rain", list(unit(1, 3))))
    with closing(connections.connect_writer(library / "library.db")) as connection:
        connection.execute("PRAGMA cache_size=1")  # so that pages go to the file before the end
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE chunk SET start_seconds = start_seconds + 1000")
        for n in range(200):
            connection.execute("INSERT INTO root (path) VALUES (?)", (b"x" * 500 + b"%d" % n,))
        shutil.copytree(library, left)
        connection.execute("ROLLBACK")
    assert (left / "library.db-journal").stat().st_size > 0
    assert (left / "library.db").read_bytes() != (library / "library.db").read_bytes()
    with Store.open(left) as reader:
        assert [path for _, path in reader.roots()] == ["/data"]
        assert [each.start_seconds for each in reader.resolve([1, 2, 3])] == [0.0, 5.0, 10.0]


def test_which_file_system(tmp_path: Path):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "proc /proc proc rw 0 0\n/dev/sda1 / ext4 rw 0 0\nnas:/a /mnt nfs4 rw 0 0\n"
        "//nas/b /mnt/my\\040sounds cifs rw 0 0\n"
        "/dev/sdb1 /mnt/local ext4 rw 0 0\nother:/ /mnt/local nfs rw 0 0\n"
    )
    for path, kind in {
        "/home/me/library": "ext4",
        "/mnt/library": "nfs4",
        "/mntx": "ext4",
        "/mnt/my sounds/library": "cifs",
        "/mnt/local/library": "nfs",  # mounted over the other
        "/": "ext4",
    }.items():
        assert filesystem.file_system_type(path, mounts) == kind, path
    assert filesystem.file_system_type("/x", tmp_path / "nothing") is None
    assert not filesystem.is_network(tmp_path)


def test_an_index_that_cannot_be_saved_fails_no_ingest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from audiosearch import index_cache
    from audiosearch.indexes import generations

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(index_cache, "_WORTH_SAVING", 1)
    monkeypatch.setattr(generations, "save", full)
    (tmp_path / "sounds").mkdir()
    toy.write_wav(tmp_path / "sounds/a.wav", toy.tone(100, 3))
    with Library.open(tmp_path / "library", create=True, models=MODELS) as opened:
        summary = opened.ingest([tmp_path / "sounds"], workers=1)
        assert summary.files_indexed == 1 and summary.failed == ()
        assert len(summary.warnings) == 1 and "an index was not saved" in summary.warnings[0]
        assert "the disk is full" in summary.warnings[0]
        assert opened.query("low hum").hits


LIMITED = """
import resource, sys
from store_helpers import spec, unit, whole
from audiosearch.errors import LibraryError
from audiosearch.store.store import Store
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store.open(sys.argv[1], write=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
n = 0
try:
    while n < 1000:
        store.commit(1, whole(1, f"r{n}", list(unit(n, 50))))
        n += 1
except LibraryError as error:
    print(n, error)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of a process")
def test_a_file_that_may_not_grow(tmp_path: Path):
    """The same as a full disk, made by the system itself: a limit on the size of files."""
    library = tmp_path / "library"
    with Store.create(library) as store:
        store.add_space(spec())
        store.add_root("/data")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPT.parent), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", LIMITED, library], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    number, _, said = done.stdout.partition(" ")
    assert "disk" in said and "what was committed is kept" in said
    with Library.open(library) as opened:
        assert opened.verify().problems == () and opened.status().recordings == int(number) > 0
    with Store.open(library, write=True) as store:
        store.commit(1, whole(1, "more", list(unit(1, 50))))
