"""Whether a library is whole: the catalogue by itself, the shards against its commit groups, its vectors against both.

Finding out reads one snapshot, needs no lock and may run beside an ingest. Repairing is for the holder of the writer
lock and invents nothing: sound whose vectors are lost is uncovered again, so that the next ingest embeds just that.

A lost commit group keeps its rows in the shard, so that every other row keeps its number: its `crc32c` becomes NULL,
and its vectors are deleted and moved to shard 0, which no file has.
"""

from __future__ import annotations

import itertools
import math
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, and_, bindparam, delete, or_, select, update

from audiosearch.store import fulltext, reading
from audiosearch.store.connection import DATABASE, connect_reader, select_in
from audiosearch.store.store import Store
from audiosearch.store.tables import chunk, commit_group, coverage, recording, vector
from audiosearch.store.vectors import Shards, crc32c, row_bytes
from audiosearch.store.writing import CommitGroup
from audiosearch.types import Problem, Space, StepProgress

Progress = Callable[[StepProgress], None]
AGAIN = "takes them back, and the next `audiosearch ingest` (or `spaces resume`) embeds just them"
_MOST_SHOWN = 20  # of SQLite's own complaints
_BLOCK = 20_000
_TOLERANCE_SECONDS = 0.005  # the duration was decoded at some sample rate, perhaps another space's


@dataclass(frozen=True, slots=True)
class Group:
    """A commit group in the shards."""

    seq: int
    shard: int
    first_row: int
    rows: int
    crc32c: int | None  # None: given up by an earlier repair


@dataclass
class Findings:
    """What is wrong, as a repair needs it; `problems` says it in words."""

    database: list[str] = field(default_factory=list)  # SQLite's complaints
    lost: dict[int, list[tuple[Group, str]]] = field(default_factory=lambda: defaultdict(list))  # by space, with reason
    short: dict[int, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))  # by space: shard -> rows due
    strays: dict[int, list[int]] = field(default_factory=dict)  # by space: vectors whose row no commit group has
    holes: dict[int, list[int]] = field(default_factory=dict)  # by space: recordings called complete that are not
    spaces: dict[int, Space] = field(default_factory=dict)
    files: dict[int, Shards] = field(default_factory=dict)  # by space
    unnamed: int = 0  # files that their words do not find, or words of files that are gone
    notes: list[str] = field(default_factory=list)
    groups: int = 0
    vectors: int = 0
    bytes_read: int = 0

    @property
    def is_beyond_repair(self) -> bool:
        """Whether the database itself is damaged, so that nothing else was looked at."""
        return any(not _is_index_complaint(each) for each in self.database)

    def problems(self) -> list[Problem]:
        """In words, worst first."""
        found = [
            Problem("database", "library.db", text, "restores a backup: `audiosearch restore`", False)
            if not _is_index_complaint(text)
            else Problem("database", "library.db", text, "builds SQLite's own indexes again", True)
            for text in self.database
        ]
        if self.unnamed:
            what = f"{self.unnamed:,} files are not as they should be in the index of their words"
            found.append(Problem("database", "library.db", what, "writes that index again", True))
        for space_id, groups in self.lost.items():
            for path, reason, rows in _by_shard(self.files[space_id], groups):
                found.append(Problem("shard", path, f"{reason}: {rows:,} vectors are lost", AGAIN, True))
        for space_id, shards in self.short.items():
            given_up = shards.keys() - {group.shard for group, _ in self.lost[space_id]}
            for shard in sorted(given_up):
                where = str(self.files[space_id].path(shard))
                found.append(Problem("shard", where, "rows that were given up before are missing", "fills them", True))
        for kind, by_space, what in (
            ("vector", self.strays, "vectors are at rows that no commit wrote"),
            ("coverage", self.holes, "recordings are called complete and lack vectors"),
        ):
            for space_id, ids in by_space.items():
                where = f"space {self.spaces[space_id].spec.fingerprint[:12]}"
                found.append(Problem(kind, where, f"{len(ids):,} {what}", AGAIN, True))
        return found


def check(store: Store, progress: Progress | None = None) -> Findings:
    """Look at everything but the indexes. Reads every byte of the shards."""
    told = progress or (lambda _: None)
    found = Findings()
    found.database = _database(store.directory / DATABASE, told)
    if found.is_beyond_repair:
        found.notes.append("shards were not compared with a catalogue that is damaged itself")
        return found
    with store.connected() as connection:
        found.unnamed = fulltext.differing(connection)
        found.spaces = {each.id: each for each in reading.spaces(connection)}
        found.files = {each: store.shard_files(each) for each in found.spaces}
        groups = {each: _groups(connection, each) for each in found.spaces}
        for number, (space_id, space) in enumerate(found.spaces.items()):
            told(StepProgress("catalogue", number, len(found.spaces)))
            strays, found.vectors = _strays(connection, space_id, groups[space_id], found.vectors)
            if strays:
                found.strays[space_id] = strays
            if holes := list(_holes(connection, space)):
                found.holes[space_id] = holes
    _shards(store, groups, found, told)
    _leftovers(store.directory, found)
    return found


def repair(store: Store, found: Findings) -> list[Problem]:
    """Do for the findings what can be done; what that was. The store is open with `repair`."""
    if found.is_beyond_repair:
        return []
    done = [each for each in found.problems() if each.is_repairable]
    if found.database:
        store.reindex()
    for space_id, files in found.files.items():
        for shard, rows in found.short[space_id].items():
            files.fill(shard, rows)
    with store.changing() as connection:
        if found.unnamed or found.database:
            fulltext.rebuild(connection)
        for space_id in found.spaces:
            _take_back(connection, space_id, found)
    store.cut_shards()
    return done


def _database(database: Path, told: Progress) -> list[str]:
    told(StepProgress("database", 0, 1))
    complaints: list[str] = []
    # By a connection of its own: one that has met damage cannot even end its transaction.
    with closing(connect_reader(database)) as connection:
        try:
            rows = connection.execute(f"PRAGMA integrity_check({_MOST_SHOWN})").fetchall()
            complaints += [" ".join(str(row[0]).split()) for row in rows if row[0] != "ok"]
            broken = connection.execute("PRAGMA foreign_key_check").fetchmany(_MOST_SHOWN)
            complaints += [f"row {row[1]} of {row[0]} names a row of {row[2]} that is not there" for row in broken]
        except sqlite3.DatabaseError as error:
            complaints.append(str(error))
    return complaints


def _is_index_complaint(text: str) -> bool:
    return "missing from index" in text or "FTS5" in text or text.startswith("wrong # of entries in index")


def _groups(connection: Connection, space_id: int) -> list[Group]:
    columns = (getattr(commit_group.c, name) for name in ("seq", "shard", "first_row", "rows", "crc32c"))
    order = commit_group.c.shard, commit_group.c.first_row
    rows = connection.execute(
        select(*columns).where(commit_group.c.space_id == space_id, commit_group.c.rows > 0).order_by(*order)
    )
    return [Group(*row) for row in rows]


def _strays(connection: Connection, space_id: int, groups: list[Group], count: int) -> tuple[list[int], int]:
    """Vectors that lie in no group; and `count` with the vectors of this space added."""
    ends: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for shard, members in itertools.groupby((g for g in groups if g.crc32c is not None), key=lambda g: g.shard):
        spans = np.array([(each.first_row, each.first_row + each.rows) for each in members], np.int64)
        ends[shard] = spans[:, 0], spans[:, 1]
    strays: list[int] = []
    rows = connection.execute(
        select(vector.c.id, vector.c.shard, vector.c.row).where(
            vector.c.space_id == space_id, vector.c.deleted_seq.is_(None)
        )
    )
    while block := rows.fetchmany(_BLOCK):
        count += len(block)
        ids, shards, places = np.array([tuple(row) for row in block], np.int64).T
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            if shard not in ends:
                strays.extend(ids[here].tolist())
                continue
            first, end = ends[shard]
            at = np.searchsorted(first, places[here], side="right") - 1
            strays.extend(ids[here[(at < 0) | (places[here] >= end[np.maximum(at, 0)])]].tolist())
    return strays, count


def _holes(connection: Connection, space: Space) -> Iterator[int]:
    """Recordings that are called complete in a space where a window of theirs has no vector and is not silent."""
    window, hop = space.spec.window_seconds, space.spec.hop_seconds
    here = and_(vector.c.chunk_id == chunk.c.id, vector.c.space_id == space.id, vector.c.deleted_seq.is_(None))
    rows = connection.execute(
        select(recording.c.id, recording.c.duration_seconds, chunk.c.start_seconds)
        .select_from(
            coverage.join(recording, recording.c.id == coverage.c.recording_id)
            .outerjoin(chunk, chunk.c.recording_id == recording.c.id)
            .outerjoin(vector, here)
        )
        .where(coverage.c.space_id == space.id, or_(vector.c.id.is_not(None), chunk.c.silent, chunk.c.id.is_(None)))
        .order_by(recording.c.id)
    )
    covered = set()
    for (recording_id, seconds), members in itertools.groupby(rows, key=lambda row: (row[0], row[1])):
        covered.add(recording_id)
        starts = {round(row[2] / hop) for row in members if row[2] is not None and _is_whole(row[2] / hop)}
        # The last windows may be joined with a tail or be one themselves: `chunk.plan`.
        full = math.floor((seconds - window - _TOLERANCE_SECONDS) / hop) + 1 if seconds and seconds > window else 1
        if not starts.issuperset(range(max(full, 1))):
            yield recording_id
    named = connection.execute(select(coverage.c.recording_id).where(coverage.c.space_id == space.id)).scalars()
    yield from (each for each in named if each not in covered)  # not one of its chunks is left


def _is_whole(number: float) -> bool:
    return abs(number - round(number)) < 1e-3


def _shards(store: Store, groups: dict[int, list[Group]], found: Findings, told: Progress) -> None:
    total = sum(
        each.rows * row_bytes(space.spec.dim) for id_, space in found.spaces.items() for each in groups[id_]
    )  # fmt: skip
    for space_id, files in found.files.items():
        sizes = files.sizes()
        for shard, members in itertools.groupby(groups[space_id], key=lambda each: each.shard):
            rows = 0
            for group in members:
                rows = group.first_row + group.rows
                told(StepProgress("shards", found.bytes_read, total, "bytes"))
                found.bytes_read += group.rows * row_bytes(files.dim)
                found.groups += 1
                if group.crc32c is not None and (reason := _fault(files, group)):
                    found.lost[space_id].append((group, reason))
            if sizes.get(shard, 0) < rows * row_bytes(files.dim):
                found.short[space_id][shard] = rows
            elif sizes[shard] > rows * row_bytes(files.dim):
                more = sizes[shard] - rows * row_bytes(files.dim)
                found.notes.append(
                    f"{files.path(shard)}: {more:,} bytes past the last commit, from a running ingest or a crash; the "
                    "next ingest cuts them off"
                )
    told(StepProgress("shards", total, total, "bytes"))
    if found.lost or found.short:
        _leave_what_was_dropped(store, found)


def _fault(files: Shards, group: Group) -> str | None:
    """Why a group's bytes are not what was committed."""
    try:
        data = files.group(group.shard, group.first_row, group.rows)
    except FileNotFoundError:
        return "the file is missing"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    if len(data) < group.rows * row_bytes(files.dim):
        return "the file is too short"
    return None if crc32c(data) == group.crc32c else "its bytes are not those that were written"


def _leave_what_was_dropped(store: Store, found: Findings) -> None:
    """A space may have been dropped, and its files removed, since the snapshot."""
    still = {each.id for each in store.spaces()}
    for space_id in found.spaces.keys() - still:
        found.lost.pop(space_id, None)
        found.short.pop(space_id, None)


def _leftovers(directory: Path, found: Findings) -> None:
    known = {space.spec.fingerprint for space in found.spaces.values()}
    folders = directory / "vectors"
    for path in sorted(folders.iterdir()) if folders.is_dir() else ():
        if path.is_dir() and path.name not in known:
            found.notes.append(f"{path}: of no space the library knows (dropped?); the next ingest removes it")


def _by_shard(files: Shards, groups: list[tuple[Group, str]]) -> Iterator[tuple[str, str, int]]:
    """(path, reason, rows lost) of each shard and reason."""
    sums: dict[tuple[int, str], int] = defaultdict(int)
    for group, reason in groups:
        sums[group.shard, reason] += group.rows
    for (shard, reason), rows in sums.items():
        yield str(files.path(shard)), reason, rows


def _take_back(connection: Connection, space_id: int, found: Findings) -> None:
    """Delete the vectors whose bytes are lost, and say of their recordings that they are not complete."""
    lost = [group for group, _ in found.lost[space_id]]
    holes = set(found.holes.get(space_id, ()))
    ids = set(found.strays.get(space_id, ()))
    for group in lost:
        rows = vector.c.row >= group.first_row, vector.c.row < group.first_row + group.rows
        mine = select(vector.c.id).where(vector.c.space_id == space_id, vector.c.shard == group.shard, *rows)
        ids.update(connection.execute(mine).scalars())
    if ids:
        query = select(chunk.c.recording_id).join(vector, vector.c.chunk_id == chunk.c.id)
        alive = query.where(vector.c.deleted_seq.is_(None))
        holes.update(row[0] for row in select_in(connection, alive, vector.c.id, ids))
        seq = CommitGroup(connection, space_id).seq()
        of = [{"of": id_} for id_ in ids]
        dead = update(vector).where(vector.c.id == bindparam("of"))
        connection.execute(dead.where(vector.c.deleted_seq.is_(None)).values(deleted_seq=seq), of)
        connection.execute(dead.values(shard=0, row=0), of)
    for recording_id in holes:
        this = and_(coverage.c.space_id == space_id, coverage.c.recording_id == recording_id)
        connection.execute(delete(coverage).where(this))
    for group in lost:
        connection.execute(update(commit_group).where(commit_group.c.seq == group.seq).values(crc32c=None))
