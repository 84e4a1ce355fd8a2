"""Which hits were shown: found again by the beginning of their ids, never at the cost of a query."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from store_helpers import key

from audiosearch.errors import UsageError
from audiosearch.query import remembered
from audiosearch.query.remembered import NAME, Shown, recall, remember
from audiosearch.store.backup import backup
from audiosearch.store.store import Store


def hit(number: int, **changes: object) -> Shown:
    """A hit whose id begins with its number, in six digits."""
    values = {"hit_id": f"{number:06x}{key(number).hex()[:6]}", "packet_hash": key(number), "start_seconds": 5.0}
    return Shown(**{**values, "end_seconds": 15.0 + number, "query": "rain", **changes})  # type: ignore[arg-type]


def count(directory: Path) -> int:
    with closing(sqlite3.connect(directory / NAME)) as connection:
        return int(connection.execute("SELECT count(*) FROM shown").fetchone()[0])


def test_a_hit_is_found_by_the_beginning_of_its_id(tmp_path: Path):
    assert remember(tmp_path, [hit(1), hit(2)])
    assert remember(tmp_path, [])
    for prefix in (hit(1).hit_id, hit(1).hit_id.upper(), "000001", " hit:000001\n"):
        assert recall(tmp_path, prefix) == hit(1)
    assert remember(tmp_path, [hit(1, query="wind, or rain", end_seconds=7.5)])  # the last time counts
    assert recall(tmp_path, "000001") == hit(1, query="wind, or rain", end_seconds=7.5)
    assert count(tmp_path) == 2


def test_what_cannot_be_found_says_what_to_do(tmp_path: Path):
    with pytest.raises(UsageError, match=r"no hit 00ab was shown .* run the query"):
        recall(tmp_path, "00ab")
    assert list(tmp_path.iterdir()) == []  # asking makes no file
    remember(tmp_path, [hit(number) for number in range(16, 32)])
    with pytest.raises(UsageError, match=r"more than one hit begins with 0000: give more digits of 000010.*, \.\.\."):
        recall(tmp_path, "0000")
    two = Shown("abcd00000001", key(1), 0.0, 1.0), Shown("abcd00000002", key(2), 0.0, 1.0)
    remember(tmp_path, two)
    with pytest.raises(UsageError, match=r"more digits of abcd00000001, abcd00000002$"):
        recall(tmp_path, "abcd")
    for wrong in ("", "abc", "hit:", "ghij", "0" * 13, "00 01"):
        with pytest.raises(UsageError, match="is no hit's id"):
            recall(tmp_path, wrong)


def test_the_oldest_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remembered, "KEPT", 30)
    monkeypatch.setattr(remembered, "PRUNED_EVERY", 10)
    for number in range(100):
        remember(tmp_path, [hit(number), hit(0)])  # shown again and again, so it stays
    assert 30 <= count(tmp_path) <= 40
    for number in (0, 75, 99):
        assert recall(tmp_path, hit(number).hit_id).packet_hash == key(number)
    with pytest.raises(UsageError, match="lately"):
        recall(tmp_path, hit(50).hit_id)


@pytest.mark.parametrize("content", [b"no database at all, " * 100, b"SQLite format 3\0" + b"\xff" * 5000, b""])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, content: bytes):
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(UsageError):
        recall(tmp_path, hit(1).hit_id)
    assert remember(tmp_path, [hit(1)])
    assert recall(tmp_path, "000001") == hit(1)


def test_a_file_damaged_in_its_middle_is_begun_anew(tmp_path: Path):
    for first in range(0, 3000, 500):
        remember(tmp_path, [hit(number) for number in range(first, first + 500)])
    file = tmp_path / NAME
    content = bytearray(file.read_bytes())
    content[4096:-4096] = b"\x5a" * (len(content) - 8192)
    file.write_bytes(content)
    for number in range(3000, 3200):
        remember(tmp_path, [hit(number)])
    assert recall(tmp_path, hit(3199).hit_id) == hit(3199)


def test_a_file_of_another_version_is_begun_anew(tmp_path: Path):
    remember(tmp_path, [hit(1)])
    with closing(sqlite3.connect(tmp_path / NAME)) as connection:
        connection.execute("PRAGMA user_version=99")
    assert remember(tmp_path, [hit(2)])
    assert count(tmp_path) == 1


def test_where_it_cannot_be_written_nothing_happens(tmp_path: Path):
    assert not remember(tmp_path / "not there", [hit(1)])
    remember(tmp_path, [hit(1)])
    with closing(sqlite3.connect(tmp_path / NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert not remember(tmp_path, [hit(2)])
        assert recall(tmp_path, "000001") == hit(1)
    assert remember(tmp_path, [hit(2)])
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / NAME).mkdir()
    assert not remember(tmp_path / "folder", [hit(1)])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_library(tmp_path: Path):
    tmp_path.chmod(0o555)
    try:
        assert not remember(tmp_path, [hit(1)])
    finally:
        tmp_path.chmod(0o755)


WRITER = """
import sys
from audiosearch.query.remembered import Shown, remember
directory, first = sys.argv[1], int(sys.argv[2])
for number in range(first, first + 40):
    if remember(directory, [Shown(f"{number:012x}", b"%d" % number, 0.0, float(number))]):
        print(number)
"""


def test_many_processes_and_threads_write(tmp_path: Path):
    """What was said to be written is there, whoever else was writing; the file is sound."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(1000 * each)], stdout=subprocess.PIPE, text=True
        )
        for each in range(3)
    ]
    written: list[int] = []

    def write(first: int) -> None:
        for number in range(first, first + 40):
            if remember(tmp_path, [Shown(f"{number:012x}", b"%d" % number, 0.0, float(number))]):
                written.append(number)

    threads = [threading.Thread(target=write, args=(10_000 * each,)) for each in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in running:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        written += map(int, out.split())
    assert len(written) >= 40
    for number in written:
        assert recall(tmp_path, f"{number:012x}").packet_hash == b"%d" % number
    with closing(sqlite3.connect(tmp_path / NAME)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_backup_leaves_it_out_and_may_be_searched(tmp_path: Path):
    with Store.create(tmp_path / "library"):
        remember(tmp_path / "library", [hit(1)])
    backup(tmp_path / "library", tmp_path / "copy")
    assert not (tmp_path / "copy" / NAME).exists()
    remember(tmp_path / "copy", [hit(2)])  # someone searched the backup
    backup(tmp_path / "library", tmp_path / "copy")
    assert recall(tmp_path / "copy", "000002") == hit(2)
