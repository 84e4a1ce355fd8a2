"""`ingest --watch`: what becomes ready when, what is passed over, and whole runs with real files and real events."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import toy

from audiosearch.errors import LibraryLocked, MediaError, UsageError
from audiosearch.ingest import watch as watching
from audiosearch.ingest.events import Events
from audiosearch.ingest.watch import Watcher, due_again
from audiosearch.library import Library, Models
from audiosearch.store.filesystem import mount_of, mounts_below
from audiosearch.store.store import Store
from audiosearch.types import FailedFile, IngestSummary

PATIENCE = 120.0  # seconds; nothing here takes one, on a machine that is not busy


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def no_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network file system."""
    monkeypatch.setattr(watching, "_needs_looking", lambda folder: "it is on a network file system (nfs4)")


def names(paths: list[str]) -> list[str]:
    return sorted(Path(path).name for path in paths)


def after(watcher: Watcher, clock: Clock, seconds: float) -> list[str]:
    clock.now += seconds
    return names(watcher.ready())


@pytest.fixture
def polled(tmp_path: Path, clock: Clock, no_events: None) -> Iterator[Watcher]:
    """A folder with one file in it that is looked at every 30 s."""
    (tmp_path / "old.wav").write_bytes(b"old")
    with Watcher([str(tmp_path)], settle_seconds=5.0, poll_seconds=30.0, clock=clock) as watcher:
        yield watcher


# ── looking ──


def test_a_new_file_is_ready_once_it_has_settled_and_only_once(polled: Watcher, clock: Clock, tmp_path: Path):
    assert after(polled, clock, 1) == []
    (tmp_path / "new.wav").write_bytes(b"1")
    assert after(polled, clock, 5) == [], "nobody has looked yet"
    assert after(polled, clock, 25) == [], "seen for the first time"
    assert after(polled, clock, 4) == []
    assert after(polled, clock, 1) == ["new.wav"]
    assert after(polled, clock, 1000) == []
    assert after(polled, clock, 1000) == []


def test_a_file_that_grows_waits_until_it_has_stopped(polled: Watcher, clock: Clock, tmp_path: Path):
    target = tmp_path / "new.wav"
    target.write_bytes(b"1")
    assert after(polled, clock, 31) == []
    for size in range(2, 6):
        target.write_bytes(b"1" * size)
        assert after(polled, clock, 5) == [], "it has just grown"
    assert after(polled, clock, 5) == ["new.wav"]


def test_a_file_that_goes_before_it_settles_is_forgotten(polled: Watcher, clock: Clock, tmp_path: Path):
    (tmp_path / "brief.wav").write_bytes(b"1")
    assert after(polled, clock, 31) == []
    (tmp_path / "brief.wav").unlink()
    assert after(polled, clock, 10) == []
    assert after(polled, clock, 31) == []


def test_touched_changed_renamed_and_replaced_files_are_ready(polled: Watcher, clock: Clock, tmp_path: Path):
    os.utime(tmp_path / "old.wav", ns=(1, 1))
    assert after(polled, clock, 31) == []
    assert after(polled, clock, 5) == ["old.wav"]
    (tmp_path / "old.wav").rename(tmp_path / "renamed.wav")
    assert after(polled, clock, 31) == []
    assert after(polled, clock, 5) == ["renamed.wav"]
    (tmp_path / "renamed.wav").chmod(0o600)  # neither its content nor its time
    assert after(polled, clock, 31) == []
    assert after(polled, clock, 31) == []


def test_what_a_walk_leaves_out_is_left_out(polled: Watcher, clock: Clock, tmp_path: Path):
    for name in (
        "@eaDir/a.wav",
        ".git/b.wav",
        "._c.wav",
        "#recycle/d.wav",
        ".Trash-1000/e.wav",
        "notes.txt",
        "x/@eaDir/f.wav",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "x" / "good.wav").write_bytes(b"x")
    after(polled, clock, 31)
    assert after(polled, clock, 5) == ["good.wav"]
    assert not polled.covers(str(tmp_path / "@eaDir" / "a.wav"))
    assert not polled.covers(str(tmp_path.parent / "elsewhere.wav"))
    assert polled.covers(str(tmp_path / "x" / "any.wav"))


def test_the_library_inside_a_watched_folder_is_not_watched(tmp_path: Path, clock: Clock, no_events: None):
    inside = tmp_path / "library"
    inside.mkdir()
    with Watcher([str(tmp_path)], exclude=[str(inside)], settle_seconds=5, poll_seconds=30, clock=clock) as watcher:
        (inside / "a.wav").write_bytes(b"x")
        after(watcher, clock, 31)
        assert after(watcher, clock, 31) == []
        assert not watcher.covers(str(inside / "a.wav"))


def test_a_file_by_name_is_watched_whatever_it_is_called(tmp_path: Path, clock: Clock, no_events: None):
    (tmp_path / "sound.bin").write_bytes(b"1")
    (tmp_path / "other.wav").write_bytes(b"1")
    with Watcher([str(tmp_path / "sound.bin")], settle_seconds=5, poll_seconds=30, clock=clock) as watcher:
        for name in ("sound.bin", "other.wav"):
            (tmp_path / name).write_bytes(b"22")
        after(watcher, clock, 31)
        assert after(watcher, clock, 5) == ["sound.bin"]


def test_a_folder_that_goes_and_comes_back_loses_nothing(tmp_path: Path, clock: Clock, no_events: None):
    """As a disk that is unmounted and mounted again: nothing is new but what is."""
    folder, away = tmp_path / "disk", tmp_path / "away"
    folder.mkdir()
    (folder / "old.wav").write_bytes(b"x")
    said: list[str] = []
    with Watcher([str(folder)], settle_seconds=5, poll_seconds=30, say=said.append, clock=clock) as watcher:
        folder.rename(away)
        assert after(watcher, clock, 31) == []
        assert "it is gone" in said[-1]
        after(watcher, clock, 31)
        (away / "new.wav").write_bytes(b"x")
        away.rename(folder)
        after(watcher, clock, 31)
        assert after(watcher, clock, 5) == ["new.wav"]
        assert any("it is back" in note for note in said)
        assert len([note for note in said if "it is gone" in note]) == 1


def test_a_folder_that_cannot_be_listed_keeps_its_files(polled: Watcher, clock: Clock, tmp_path: Path, monkeypatch):
    real = watching.scan.scan

    def failing(root: str, *, warnings: list[str], **options: Any) -> Any:
        warnings.append("sub: folder passed over: Permission denied")
        return iter(())

    monkeypatch.setattr(watching.scan, "scan", failing)
    after(polled, clock, 31)
    monkeypatch.setattr(watching.scan, "scan", real)
    after(polled, clock, 31)
    assert after(polled, clock, 5) == [], "old.wav was there all the time"


def test_a_walk_that_takes_long_is_made_less_often(tmp_path: Path, clock: Clock, no_events: None, monkeypatch):
    looks = []

    def slow(folder: str, *_: Any) -> Any:
        looks.append(clock.now)
        clock.now += 20.0
        return []

    monkeypatch.setattr(watching, "_walk", slow)
    with Watcher([str(tmp_path)], poll_seconds=30, clock=clock) as watcher:
        for _ in range(200):
            after(watcher, clock, 5)
    assert len(looks) > 2
    assert min(later - earlier for earlier, later in pairwise(looks)) >= 200


def test_put_back_comes_again(polled: Watcher, clock: Clock, tmp_path: Path):
    (tmp_path / "new.wav").write_bytes(b"1")
    after(polled, clock, 31)
    clock.now += 5
    ready = polled.ready()
    polled.put_back(ready)
    assert after(polled, clock, 1) == []
    assert after(polled, clock, 5) == ["new.wav"]


# ── events ──


def wait_for(what: Callable[[], Any]) -> Any:
    """`what()` as soon as it is true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("nothing came")


@pytest.fixture(scope="module")
def events_work(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("events")
    events = Events()
    try:
        events.start(str(folder))
    except OSError as error:
        pytest.skip(f"the system tells of no changes here: {error}")
    (folder / "a.wav").write_bytes(b"x")
    end = time.monotonic() + 10.0
    while not events.take()[0]:
        if time.monotonic() > end:
            pytest.skip("the system tells of no changes here")
        time.sleep(0.02)
    events.close()


def test_events_name_what_was_written_moved_and_made(events_work: None, tmp_path: Path):
    events = Events()
    told: tuple[set[str], set[str]] = (set(), set())

    def tells(name: str, *, folder: bool = False) -> Callable[[], bool]:
        def ask() -> bool:
            for mine, new in zip(told, events.take(), strict=True):
                mine.update(new)
            return str(tmp_path / "link" / name) in told[folder]

        return ask

    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")  # told by the name that was asked for
    events.start(str(tmp_path / "link"))
    try:
        (tmp_path / "real" / "a.wav").write_bytes(b"1")
        wait_for(tells("a.wav"))
        (tmp_path / "real" / "a.wav").rename(tmp_path / "real" / "b.wav")
        wait_for(tells("b.wav"))
        (tmp_path / "real" / "sub").mkdir()
        wait_for(tells("sub", folder=True))
        (tmp_path / "real" / "sub" / "c.wav").write_bytes(b"1")
        wait_for(tells("sub/c.wav"))
        (tmp_path / "real" / "sub" / "d.wav").write_bytes(b"1")
        wait_for(tells("sub/d.wav"))  # events keep their order: all that c.wav's writing has to tell is told
        told[0].clear()
        (tmp_path / "real" / "sub" / "c.wav").read_bytes()
        (tmp_path / "real" / "b.wav").write_bytes(b"2")
        wait_for(tells("b.wav"))
        assert str(tmp_path / "link" / "sub" / "c.wav") not in told[0], "reading changes nothing"
    finally:
        events.close()


def test_with_events_nothing_waits_for_a_look(events_work: None, tmp_path: Path, clock: Clock):
    said: list[str] = []
    (tmp_path / "outside").mkdir()
    for name in ("in.wav", "deep.wav"):
        (tmp_path / "outside" / name).write_bytes(b"x")
    (tmp_path / "inside").mkdir()
    with Watcher([str(tmp_path / "inside")], settle_seconds=5, say=said.append, clock=clock) as watcher:
        assert watcher.ready() == []
        (tmp_path / "inside" / "new.wav").write_bytes(b"1")
        (tmp_path / "outside").rename(tmp_path / "inside" / "moved here")  # its files have no events of their own
        wait_for(lambda: watcher.ready() or len(watcher._pending) == 3)
        assert after(watcher, clock, 5.1) == ["deep.wav", "in.wav", "new.wav"]
        assert after(watcher, clock, 5.1) == []
    assert said == []


@pytest.mark.parametrize(
    ("number", "says"), [(errno.ENOSPC, "max_user_watches"), (errno.EMFILE, "max_user_instances"), (errno.ENOSYS, "")]
)
def test_where_no_more_can_be_watched_it_looks_and_says_so(
    tmp_path: Path, clock: Clock, monkeypatch, number: int, says: str
):
    import watchdog.observers

    def full(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(watchdog.observers.Observer, "start", full)
    said: list[str] = []
    with Watcher([str(tmp_path)], settle_seconds=5, poll_seconds=30, say=said.append, clock=clock) as watcher:
        (tmp_path / "new.wav").write_bytes(b"1")
        after(watcher, clock, 31)
        assert after(watcher, clock, 5) == ["new.wav"]
    assert len(said) == 1
    assert "every 30 s" in said[0] and says in said[0] and str(tmp_path) in said[0]


def test_network_file_systems_are_told_by_the_list_of_mounts(tmp_path: Path):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/sda1 / ext4 rw 0 0\nnas:/sounds /net/so\\040unds nfs4 rw 0 0\n//nas/x /data/inner cifs rw 0 0\n"
        "tmpfs /data/fast tmpfs rw 0 0\nshort line\n"
    )
    place = mount_of("/net/so unds/rain", mounts)
    assert place is not None and (place.source, place.folder, place.type) == ("nas:/sounds", "/net/so unds", "nfs4")
    root = mount_of("/net/so", mounts)
    assert root is not None and root.type == "ext4"
    assert [mount.type for mount in mounts_below("/data", mounts)] == ["cifs", "tmpfs"]
    assert mounts_below("/data/inner", mounts) == []
    assert mounts_below("/data", tmp_path / "none") == []


def test_a_share_inside_a_watched_folder_is_enough_to_look(tmp_path: Path, monkeypatch):
    from audiosearch.store.filesystem import Mount

    monkeypatch.setattr(watching, "mount_of", lambda _: Mount("/dev/sda1", "/", "ext4"))
    monkeypatch.setattr(watching, "mounts_below", lambda _: [Mount("proc", "/data/proc", "proc")])
    assert watching._needs_looking("/data") is None
    monkeypatch.setattr(watching, "mounts_below", lambda _: [Mount("//nas/x", "/data/x", "cifs")])
    reason = watching._needs_looking("/data")
    assert reason is not None and "/data/x" in reason and "cifs" in reason


# ── the ledger ──


def test_passing_failures_are_due_again_later_and_later():
    now = datetime(2026, 11, 23, tzinfo=timezone.utc)

    def failed(cause: str, attempts: int, minutes_ago: float) -> list[str]:
        at = (now - timedelta(minutes=minutes_ago)).isoformat(timespec="seconds")
        will_retry = MediaError.is_tried_again(cause, attempts)
        return due_again([FailedFile("/a.wav", cause, "", attempts, at, will_retry)], now)

    assert failed("unreadable", 1, 6) == ["/a.wav"]
    assert failed("unreadable", 1, 4) == []
    assert failed("unreadable", 3, 19) == []
    assert failed("unreadable", 3, 21) == ["/a.wav"]
    assert failed("unreadable", 1000, 60 * 24) == ["/a.wav"]
    assert failed("corrupt", 1, 10_000) == []


# ── whole runs ──


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "sounds"
    folder.mkdir()
    toy.write_wav(folder / "old.wav", toy.tone(100, 3.0))
    return folder


class Run:
    """A library that watches a folder in a thread. `rounds` are the summaries so far."""

    def __init__(self, home: Path, folder: Path, **options: Any) -> None:
        self.loaded: list[toy.HandEmbedder] = []
        self.rounds: list[IngestSummary] = []
        self.notes: list[str] = []
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self.library = Library.open(home, create=True, models=Models(toy.description, self._load))
        self._thread = threading.Thread(target=self._run, args=(folder, options))

    def _load(self, name: str, **_: Any) -> Any:
        self.loaded.append(toy.HandEmbedder())
        return self.loaded[-1]

    def _run(self, folder: Path, options: dict[str, Any]) -> None:
        try:
            self.library.watch(
                [folder],
                on_round=self.rounds.append,
                on_note=self.notes.append,
                settle_seconds=0.05,
                poll_seconds=0.05,
                workers=1,
                cancelled=self._stop.is_set,
                **options,
            )
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Run:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)
        self.library.close()
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error

    def indexed(self, n: int) -> None:
        """Wait until so many files have been indexed altogether."""
        wait_for(lambda: self.error or sum(each.files_indexed for each in self.rounds) >= n)

    @property
    def clips(self) -> int:
        return sum(each.chunks_embedded for each in self.rounds)


def paths_in(home: Path) -> set[str]:
    with Store.open(home) as store:
        space = store.default_space()
        assert space is not None
        chunks = store.resolve(store.changes_since(space.id, 0).added_ids)
    return {path for chunk in chunks for _, path in chunk.paths}


@pytest.mark.parametrize("how", ["events", "polling"])
def test_files_come_in_while_it_watches(
    how: str, tmp_path: Path, folder: Path, request: pytest.FixtureRequest, monkeypatch
):
    request.getfixturevalue("events_work" if how == "events" else "no_events")
    with Run(tmp_path / "library", folder) as run:
        run.indexed(1)
        toy.write_wav(folder / "new.wav", toy.tone(4000, 3.0))
        run.indexed(2)
        assert (len(run.loaded), run.clips) == (1, 2), "the model stays loaded between rounds"
        with Library.open(
            tmp_path / "library", models=Models(toy.description, lambda *_, **__: toy.HandEmbedder())
        ) as o:
            assert Path(o.query("whistle", k=1).hits[0].path).name == "new.wav"
        with Store.open(tmp_path / "library", write=True):
            pass  # between rounds the library is free for others to write

        (folder / "new.wav").write_bytes((folder / "new.wav").read_bytes())
        os.utime(folder / "new.wav", ns=(10**18, 10**18))
        run.indexed(3)
        (folder / "sub").mkdir()
        (folder / "old.wav").rename(folder / "sub" / "moved.wav")
        wait_for(lambda: run.error or "sub/moved.wav" in paths_in(tmp_path / "library"))
        assert paths_in(tmp_path / "library") == {"new.wav", "sub/moved.wav"}
        assert run.clips == 2, "neither a touch nor a move costs the model anything"
        toy.write_wav(folder / "new.wav", toy.tone(1500, 3.0))
        wait_for(lambda: run.error or run.clips == 3)
    assert not any(each.interrupted or each.failed for each in run.rounds)
    assert bool(run.notes) == (how == "polling")


def test_another_writer_is_waited_for(tmp_path: Path, folder: Path):
    with Run(tmp_path / "library", folder) as run:
        run.indexed(1)
        with wait_for_lock(tmp_path / "library"):
            toy.write_wav(folder / "new.wav", toy.tone(4000, 3.0))
            wait_for(lambda: any("waiting" in note for note in run.notes))
            assert len(run.rounds) == 1
        run.indexed(2)
    assert len([note for note in run.notes if "waiting" in note]) == 1


def wait_for_lock(home: Path) -> Store:
    def ask() -> Store | None:
        try:
            return Store.open(home, write=True)
        except LibraryLocked:
            return None

    opened = wait_for(ask)
    assert isinstance(opened, Store)
    return opened


def test_what_failed_for_now_is_read_again(tmp_path: Path, folder: Path, monkeypatch):
    """Its time and size stay the same, so nothing but the ledger remembers it."""
    from audiosearch.ingest import pipeline
    from audiosearch.ingest.scan import ScannedFile

    monkeypatch.setattr(watching, "RETRY_SECONDS", 0.2)
    find = pipeline.find_changes
    denied = [True]

    def deny(*given: Any, **options: Any) -> Any:
        findings = find(*given, **options)
        if denied[0]:
            findings.unreadable += [(file, "Permission denied") for file in findings.changed]
            findings.changed = []
        return findings

    assert ScannedFile  # the reason comes from a scan
    monkeypatch.setattr(pipeline, "find_changes", deny)
    with Run(tmp_path / "library", folder) as run:
        wait_for(lambda: run.error or (run.rounds and run.rounds[0].failed))
        denied[0] = False
        run.indexed(1)
        assert run.library.failures() == ()


def test_a_path_that_is_not_there_is_an_error(tmp_path: Path):
    with Library.open(tmp_path / "library", create=True) as library, pytest.raises(UsageError, match="none"):
        library.watch([tmp_path / "none"], on_round=print)


PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
import toy, audiosearch.library as library
library._installed_models = lambda: library.Models(toy.description, lambda name, **_: toy.HandEmbedder())
from audiosearch.cli import run
if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize("ends_by", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_a_line_a_round_and_ends_cleanly(tmp_path: Path, folder: Path, ends_by: signal.Signals):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(tests=str(Path(__file__).parent)))
    argv = [
        sys.executable,
        str(program),
        "ingest",
        str(folder),
        "--watch",
        "--settle",
        "0.1",
        "--json",
        "--workers",
        "1",
    ]
    environ = {**os.environ, "AUDIOSEARCH_LIBRARY": str(tmp_path / "library")}

    def interruptible() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    with subprocess.Popen(
        argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        first = json.loads(process.stdout.readline())
        assert (first["version"], first["files_indexed"]) == (1, 1)
        shutil.copy(folder / "old.wav", folder / "copy.wav")
        second = json.loads(process.stdout.readline())
        assert (second["files_indexed"], second["chunks_embedded"]) == (1, 0)
        process.send_signal(ends_by)
        rest = process.stdout.read()
        errors = process.stderr.read()
    assert (process.returncode, rest) == (0, "")
    assert "Traceback" not in errors


def test_settle_and_poll_need_watch(capfd, tmp_path: Path):
    from audiosearch.cli import run

    assert run(["--library", str(tmp_path / "library"), "ingest", str(tmp_path), "--settle", "3"]) == 2
    assert "--watch" in capfd.readouterr().err
