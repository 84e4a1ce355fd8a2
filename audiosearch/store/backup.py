"""A copy of a library in another place, made while the library is in use; and the way back.

A backup is a library itself, without the indexes, which are a cache: it can be searched where it lies. What is copied
is one snapshot: the database through SQLite, then of each shard the rows that the copied database knows. Shards only
grow, so a second backup into the same place copies only what is new. Each commit group is held against its checksum on
the way.

At any moment the place holds the old backup or the new one: rows are added behind the ones it has, and the database
that knows them is renamed into place last.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import audiosearch
from audiosearch.config import CONFIG_NAME
from audiosearch.errors import LibraryError, LibraryNotFound, UsageError
from audiosearch.store import verify
from audiosearch.store.connection import DATABASE, connect_reader, database_faults
from audiosearch.store.faults import disk_faults
from audiosearch.store.filesystem import make_directories, sync_directory
from audiosearch.store.lock import WriterLock
from audiosearch.store.store import Store
from audiosearch.store.vectors import Shards, crc32c, row_bytes
from audiosearch.types import Copied, StepProgress

MARKER = "backup.json"  # makes a directory a backup, which the next one may add to
_OURS = {"vectors", "indexes", "writer.lock", "writer.json", CONFIG_NAME, MARKER, f"{CONFIG_NAME}.new", f"{MARKER}.new"}
_HITS = "hits.db"  # what queries of the backup wrote (query/remembered.py): not copied, it is no truth
_PAGES = 4096  # of the database at a time
_TRIES = 3

Progress = Callable[[StepProgress], None]


@dataclass(frozen=True, slots=True)
class _Group:
    first_row: int
    rows: int
    crc32c: int | None


@dataclass(frozen=True, slots=True)
class _Shard:
    """A shard as a database knows it; groups by row."""

    space: str
    dim: int
    number: int
    groups: list[_Group]

    @property
    def rows(self) -> int:
        return self.groups[-1].first_row + self.groups[-1].rows


def backup(source: Path, target: Path, progress: Progress | None = None) -> Copied:
    """Copy the library `source` into `target`: a new or empty directory, or one that holds an earlier backup of it.

    Raises:
        LibraryNotFound: there is no library at `source`.
        UsageError: `target` is no place for it.
        LibraryLocked: another backup is being written there.
        LibraryError: the library is damaged, or the disk full or gone; an earlier backup in `target` is as it was.
    """
    source, target = _apart(source, target)
    _check_place(target)
    with disk_faults(target):
        make_directories(target)
    lock = WriterLock(target)
    try:
        return _copy(source, target, progress or (lambda _: None), marker=True)
    finally:
        lock.release()


def restore(source: Path, target: Path, *, force: bool = False, progress: Progress | None = None) -> Copied:
    """Make the library that `source` is a backup of again, at `target`, which is new or empty.

    It is built and verified beside `target`, then put there. With `force` a library that is there is moved aside first,
    whole; the answer says where to.

    Raises:
        LibraryNotFound: there is no backup at `source`.
        UsageError: `target` is no place for it.
        LibraryLocked: the library there is being written.
        LibraryError: the backup is damaged, or the disk full or gone; `target` is as it was.
    """
    source, target = _apart(source, target)
    occupied = target.exists() and any(target.iterdir())
    if occupied and not (target / DATABASE).exists():
        raise UsageError(f"{target} holds something else than a library: choose an empty or new directory")
    if occupied and not force:
        raise UsageError(f"{target} is a library already: choose another with --library, or move it aside with --force")
    aside = target.with_name(target.name + ".restoring")
    try:
        with disk_faults(aside):
            shutil.rmtree(aside, ignore_errors=True)
            make_directories(aside)
        copied = _copy(source, aside, progress or (lambda _: None), marker=False)
        with Store.open(aside, write=True) as store:  # upgrades one of an older version
            if problems := verify.check(store, progress).problems():
                raise LibraryError(f"{source} is damaged ({problems[0].where}: {problems[0].detail}); nothing restored")
        with disk_faults(target):
            replaced = _put(aside, target, occupied)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return Copied(str(target), copied.commit_seq, copied.bytes_copied, 0, replaced)


def _put(aside: Path, target: Path, occupied: bool) -> str | None:
    """Rename `aside` to `target`; where what was there is now."""
    replaced = None
    if occupied:
        lock = WriterLock(target)
        replaced = target.with_name(f"{target.name}.before-restore-{datetime.now():%Y%m%d-%H%M%S}")
        try:
            target.rename(replaced)
            aside.rename(target)
        finally:
            lock.release()
    else:
        if target.exists():
            target.rmdir()
        aside.rename(target)
    sync_directory(target.parent)
    return None if replaced is None else str(replaced)


def _apart(source: Path, target: Path) -> tuple[Path, Path]:
    source, target = source.absolute(), target.absolute()
    if not (source / DATABASE).exists():
        raise LibraryNotFound(f"{source}: no library here")
    one, other = source.resolve(), target.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise UsageError(f"{target} and {source} lie in each other: choose a directory elsewhere")
    return source, target


def _check_place(target: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise UsageError(f"{target} is not a directory")
    if (target / DATABASE).exists() and not (target / MARKER).exists():
        raise UsageError(f"{target} is a library in use, not a backup: choose another directory")
    others = [
        path.name for path in target.iterdir() if path.name not in _OURS and not path.name.startswith((DATABASE, _HITS))
    ]
    if others:
        raise UsageError(f"{target} holds other things ({min(others)}): choose an empty or new directory")


def _copy(source: Path, target: Path, progress: Progress, *, marker: bool) -> Copied:
    """Copy one snapshot, again if a space was dropped while it was copied."""
    for attempt in range(1, _TRIES + 1):
        try:
            with disk_faults(target), database_faults(target / DATABASE):
                return _copy_once(source, target, progress, marker=marker)
        except _ShardGone as gone:
            if attempt == _TRIES:
                raise LibraryError(f"{gone} is missing; see `audiosearch verify`") from gone
    raise AssertionError


class _ShardGone(Exception):
    """A shard of the snapshot is not there."""


def _copy_once(source: Path, target: Path, progress: Progress, *, marker: bool) -> Copied:
    fresh = target / f"{DATABASE}.new"
    _copy_database(source / DATABASE, fresh, progress)
    with _catalogue(fresh) as connection:
        shards, seq = _shards(connection), _last_seq(connection)
    known: dict[tuple[str, int], _Shard] = {}
    if (target / DATABASE).exists():
        with _catalogue(target / DATABASE) as connection:
            known = {(each.space, each.number): each for each in _shards(connection)}
    kept = {id(each): _rows_kept(target, each, known.get((each.space, each.number))) for each in shards}
    total = sum((each.rows - kept[id(each)]) * row_bytes(each.dim) for each in shards)
    if total > (free := shutil.disk_usage(target).free):
        raise LibraryError(f"{target}: {total:,} bytes are needed and {free:,} are free; make room")
    done = 0
    for shard in shards:
        for size in _copy_shard(source, target, shard, kept[id(shard)]):
            done += size
            progress(StepProgress("vectors", done, total, "bytes"))
    _copy_text(target / CONFIG_NAME, source / CONFIG_NAME)
    if marker:
        _write_marker(target, source, seq)
    for folder in {(target / "vectors" / each.space) for each in shards}:
        sync_directory(folder)
    if (target / "vectors").is_dir():
        sync_directory(target / "vectors")
    sync_directory(target)
    fresh.replace(target / DATABASE)
    sync_directory(target)
    _remove_unknown(target, shards)
    bytes_kept = sum(kept[id(each)] * row_bytes(each.dim) for each in shards)
    return Copied(str(target), seq, done + (target / DATABASE).stat().st_size, bytes_kept)


def _copy_database(source: Path, fresh: Path, progress: Progress) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)

    def tell(_status: int, remaining: int, total: int) -> None:
        progress(StepProgress("database", total - remaining, total, "pages"))

    with closing(connect_reader(source)) as connection, closing(sqlite3.connect(fresh, isolation_level=None)) as copy:
        with database_faults(source):
            # Inside a transaction, so that a writer between two portions does not make it begin again.
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.backup(copy, pages=_PAGES, progress=tell)
        copy.execute("PRAGMA journal_mode=DELETE")
    with fresh.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def _catalogue(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect_reader(database)) as connection:
        yield connection


def _shards(connection: sqlite3.Connection) -> list[_Shard]:
    """In plain SQL: a backup may be of an older version."""
    rows = connection.execute(
        "SELECT fingerprint, dim, shard, first_row, rows, crc32c FROM commit_group "
        "JOIN space ON space.id = space_id WHERE rows > 0 ORDER BY fingerprint, shard, first_row"
    )
    found: dict[tuple[str, int, int], list[_Group]] = defaultdict(list)
    for fingerprint, dim, shard, *group in rows:
        found[fingerprint, dim, shard].append(_Group(*group))
    return [_Shard(*key, groups) for key, groups in found.items()]


def _last_seq(connection: sqlite3.Connection) -> int:
    (seq,) = connection.execute("SELECT coalesce(max(seq), 0) FROM commit_group").fetchone()
    return int(seq)


def _rows_kept(target: Path, shard: _Shard, earlier: _Shard | None) -> int:
    """How many rows of a shard an earlier backup has."""
    if earlier is None:
        return 0
    now = {(each.first_row, each.rows): each.crc32c for each in shard.groups}
    for group in earlier.groups:
        # None: given up by a repair since; nothing names those rows any more.
        if now.get((group.first_row, group.rows), -1) not in (group.crc32c, None):
            raise UsageError(
                f"{target} holds a backup of another library, or of this one before a backup was restored: choose "
                "another directory"
            )
    path = Shards(target / "vectors" / shard.space, shard.dim).path(shard.number)
    is_whole = path.exists() and path.stat().st_size >= earlier.rows * row_bytes(shard.dim)
    return earlier.rows if is_whole else 0


def _copy_shard(source: Path, target: Path, shard: _Shard, kept: int) -> Iterator[int]:
    """Copy the groups behind row `kept`; the size of each as it is done."""
    origin = Shards(source / "vectors" / shard.space, shard.dim)
    copy = Shards(target / "vectors" / shard.space, shard.dim)
    make_directories(copy.directory)
    if kept == shard.rows:
        return
    path = copy.path(shard.number)
    with path.open("rb+" if path.exists() else "wb") as file:
        file.truncate(kept * row_bytes(shard.dim))
        file.seek(kept * row_bytes(shard.dim))
        for group in shard.groups:
            if group.first_row < kept:
                continue
            size = group.rows * row_bytes(shard.dim)
            file.write(_sound_bytes(origin, shard.number, group, size))
            yield size
        file.flush()
        os.fsync(file.fileno())


def _sound_bytes(origin: Shards, number: int, group: _Group, size: int) -> bytes:
    """A group's bytes, which are what was committed."""
    try:
        data = origin.group(number, group.first_row, group.rows)
    except FileNotFoundError as error:
        raise _ShardGone(str(origin.path(number))) from error
    if group.crc32c is None:
        return data.ljust(size, b"\0")
    if len(data) < size or crc32c(data) != group.crc32c:
        raise LibraryError(
            f"{origin.path(number)} is damaged, so no backup was made of it: run `audiosearch verify --repair`, or "
            "restore an earlier backup"
        )
    return data


def _copy_text(target: Path, source: Path) -> None:
    if source.exists():
        _replace(target, source.read_bytes())
    else:
        target.unlink(missing_ok=True)


def _write_marker(target: Path, source: Path, seq: int) -> None:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    about = {"version": 1, "of": str(source), "made_at": now, "commit_seq": seq, "audiosearch": audiosearch.__version__}
    _replace(target / MARKER, json.dumps(about, indent=1).encode())


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _remove_unknown(target: Path, shards: list[_Shard]) -> None:
    """What an earlier backup had of spaces that were dropped since."""
    known = {target / "vectors" / each.space / f"{each.number:06d}.f16" for each in shards}
    for path in (target / "vectors").glob("*/*.f16"):
        if path not in known:
            path.unlink(missing_ok=True)
    for folder in (target / "vectors").glob("*"):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
