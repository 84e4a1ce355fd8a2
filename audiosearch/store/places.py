"""Where files are: roots, and files that moved or are gone. Functions of a connection."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, exists, select, update

from audiosearch.store import fulltext, metadata
from audiosearch.store.connection import select_in
from audiosearch.store.reading import signed, unsigned
from audiosearch.store.records import FileMove, KnownFile, Root
from audiosearch.store.tables import coverage, failure, file, root
from audiosearch.store.writing import CommitGroup, by_root, delete_rows, forget, unlink

_FEW_SIZES = 900  # one IN list; more of them cost less as one pass over all files


def roots(connection: Connection) -> list[Root]:
    """Every root, oldest first."""
    rows = connection.execute(select(root.c.id, root.c.path, root.c.volume, root.c.is_walked).order_by(root.c.id))
    return [Root(id_, os.fsdecode(path), volume, is_walked is not False) for id_, path, volume, is_walked in rows]


def describe_root(connection: Connection, root_id: int, volume: str | None, is_walked: bool | None) -> None:
    """Write down what is given of a root."""
    state: dict[str, Any] = {} if volume is None else {"volume": volume}
    if is_walked is not None:
        state["is_walked"] = is_walked
    if state:
        connection.execute(update(root).where(root.c.id == root_id).values(state))


def relocate_root(connection: Connection, root_id: int, path: bytes) -> None:
    """Say that a root with all its files is at another path now."""
    connection.execute(update(root).where(root.c.id == root_id).values(path=path, volume=None))


def forget_roots(connection: Connection, root_ids: Collection[int]) -> None:
    """Remove those of the roots that hold no file and no failure."""
    held = (exists().where(table.c.root_id == root.c.id) for table in (file, failure))
    connection.execute(delete(root).where(root.c.id.in_(root_ids), *(~each for each in held)))


def known_paths(connection: Connection, root_id: int) -> set[bytes]:
    """The paths in a root that hold a file or a failure."""
    return {
        path
        for table in (file, failure)
        for path in connection.execute(select(table.c.path).where(table.c.root_id == root_id)).scalars()
    }


def files_of_sizes(connection: Connection, space_id: int, sizes: Collection[int]) -> list[KnownFile]:
    """Every known file, in whatever root, that has one of these sizes in bytes."""
    covered = and_(coverage.c.recording_id == file.c.recording_id, coverage.c.space_id == space_id)
    query = select(
        file.c.id,
        file.c.root_id,
        root.c.path,
        file.c.path,
        file.c.size,
        file.c.mtime_ns,
        file.c.inode,
        coverage.c.space_id,
    ).select_from(file.join(root, root.c.id == file.c.root_id).outerjoin(coverage, covered))
    if len(sizes) <= _FEW_SIZES:
        rows = select_in(connection, query, file.c.size, sizes)
    else:
        wanted = frozenset(sizes)
        rows = (row for row in connection.execute(query) if row[4] in wanted)
    return [
        KnownFile(id_, root_id, os.fsdecode(folder), path, (size, mtime, unsigned(inode)), done is not None)
        for id_, root_id, folder, path, size, mtime, inode, done in rows
    ]


def move_files(connection: Connection, space_id: int, moves: Sequence[FileMove]) -> None:
    """Give files other places. What else was at a place is let go; files may take each other's."""
    moving = {each.file_id for each in moves}
    overwritten: list[tuple[int, bytes]] = []
    crosses = False
    for root_id, paths in by_root((each.root_id, each.path) for each in moves):
        query = select(file.c.path, file.c.id).where(file.c.root_id == root_id)
        for path, file_id in select_in(connection, query, file.c.path, paths):
            crosses = crosses or file_id in moving
            if file_id not in moving:
                overwritten.append((root_id, path))
        _clear_failures(connection, root_id, paths)
    let_go = unlink(connection, overwritten)
    metadata.rename(connection, {each.file_id: each.path for each in moves})
    before = dict(select_in(connection, select(file.c.id, file.c.path), file.c.id, moving))
    if crosses:  # no path of a file system begins with a zero byte
        away = [{"of": each.file_id, "to": b"\0%d" % each.file_id} for each in moves]
        connection.execute(update(file).where(file.c.id == bindparam("of")).values(path=bindparam("to")), away)
    if moves:
        connection.execute(
            update(file)
            .where(file.c.id == bindparam("of"))
            .values(root_id=bindparam("root"), path=bindparam("to"), inode=bindparam("number")),
            [{"of": m.file_id, "root": m.root_id, "to": m.path, "number": signed(m.inode)} for m in moves],
        )
    fulltext.refresh(connection, {each.file_id for each in moves if each.path != before.get(each.file_id)})
    forget(connection, CommitGroup(connection, space_id), let_go)


def remove_files(connection: Connection, space_id: int, keys: Collection[tuple[int, bytes]]) -> int:
    """Remove files and failures by (root, path); return how many recordings no file holds any more."""
    let_go = unlink(connection, keys)
    for root_id, paths in by_root(keys):
        _clear_failures(connection, root_id, paths)
    return forget(connection, CommitGroup(connection, space_id), let_go)


def _clear_failures(connection: Connection, root_id: int, paths: Collection[bytes]) -> None:
    query = select(failure.c.path, failure.c.id).where(failure.c.root_id == root_id)
    delete_rows(connection, failure, [row[1] for row in select_in(connection, query, failure.c.path, paths)])
