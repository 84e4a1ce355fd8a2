"""The writer lock: one holder, a message that says who, and notes that lie change nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from audiosearch.errors import LibraryError, LibraryLocked
from audiosearch.store.lock import WriterLock

HOLD = """
import sys
from pathlib import Path
from audiosearch.store.lock import WriterLock
lock = WriterLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def hold(directory: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock until its input ends or it is killed."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    return holder


def test_the_second_writer_is_told_who_holds_it(tmp_path: Path):
    holder = hold(tmp_path)
    try:
        with pytest.raises(LibraryLocked, match=rf"process {holder.pid} \(`-c .+` of .+\) on .+, since 20"):
            WriterLock(tmp_path)
    finally:
        holder.communicate()
    WriterLock(tmp_path).release()


def test_a_killed_holder_holds_nothing(tmp_path: Path):
    holder = hold(tmp_path)
    holder.kill()
    holder.communicate()
    assert (tmp_path / "writer.json").exists()  # a stale note
    lock = WriterLock(tmp_path)
    with pytest.raises(LibraryLocked, match=f"process {os.getpid()} .*on "):
        WriterLock(tmp_path)
    lock.release()
    lock.release()
    WriterLock(tmp_path).release()


@pytest.mark.parametrize("note", ["", "{", "[]", '{"pid": null}', "\xff"])
def test_a_broken_note_does_not_matter(tmp_path: Path, note: str):
    lock = WriterLock(tmp_path)
    (tmp_path / "writer.json").write_text(note, encoding="latin-1")
    with pytest.raises(LibraryLocked, match="left no name"):
        WriterLock(tmp_path)
    lock.release()


def test_any_thread_may_release(tmp_path: Path):
    lock = WriterLock(tmp_path)
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    WriterLock(tmp_path).release()


def test_a_place_that_cannot_be_written_to(tmp_path: Path):
    (tmp_path / "writer.lock").mkdir()
    with pytest.raises(LibraryError, match="cannot write"):
        WriterLock(tmp_path)
