"""Spaces as things one lists, chooses, fills up and drops: functions of a connection, and the files they leave.

A dropped space leaves the catalogue in one transaction. Its files go when the library is next opened for writing: until
then whoever is reading it by an older snapshot can go on.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection, and_, delete, exists, select, update

from audiosearch.errors import UsageError
from audiosearch.store.tables import chunk, commit_group, coverage, file, root, space, vector
from audiosearch.types import Space

FOLDER_NAME = re.compile(r"[0-9A-Za-z_-]+")  # what a space's fingerprint looks like
_SHORTEST_PREFIX = 4


def named(spaces: Sequence[Space], name: str) -> Space:
    """The one space whose fingerprint begins with `name`, or whose model or instruction that is.

    Raises:
        UsageError: there is none, or more than one; says which there are.
    """
    found = [each for each in spaces if len(name) >= _SHORTEST_PREFIX and each.spec.fingerprint.startswith(name)]
    if not found:
        found = [
            each
            for each in spaces
            if name == (each.spec.document_instruction if each.spec.is_aspect else each.spec.model_name)
        ]
    if len(found) == 1:
        return found[0]
    which = ", ".join(each.spec.fingerprint[:12] for each in found or spaces)
    if found:
        raise UsageError(f"more than one space is called {name!r}: say which of {which} (see `audiosearch spaces`)")
    known = f"there are {which} (see `audiosearch spaces`)" if which else "there is none yet: run `audiosearch ingest`"
    raise UsageError(f"no space is called {name!r}: {known}")


def set_default(connection: Connection, chosen: Space) -> None:
    """Make a space the one that is searched when none is named.

    Raises:
        UsageError: it is an aspect.
    """
    if chosen.spec.is_aspect:
        raise UsageError(
            f"space {chosen.spec.fingerprint[:12]} answers only `audiosearch query --instruct "
            f"{chosen.spec.document_instruction!r}`: choose one that was ingested without --instruct"
        )
    connection.execute(update(space).values(is_default=space.c.id == chosen.id))


def drop(connection: Connection, dropped: Space) -> None:
    """Take a space, its vectors and what is known of no other space's chunks out of the catalogue.

    Raises:
        UsageError: it is the default, and others could be.
    """
    others = connection.execute(
        select(space.c.id, space.c.fingerprint, space.c.is_aspect).where(space.c.id != dropped.id).order_by(space.c.id)
    ).fetchall()
    heirs = [fingerprint[:12] for _, fingerprint, is_aspect in others if not is_aspect]
    if dropped.is_default and heirs:
        raise UsageError(
            f"space {dropped.spec.fingerprint[:12]} is the one that queries search: first choose another, e.g. "
            f"`audiosearch spaces default {heirs[-1]}`"
        )
    connection.execute(delete(coverage).where(coverage.c.space_id == dropped.id))
    connection.execute(delete(vector).where(vector.c.space_id == dropped.id))
    # A chunk without a vector is silent, and then free to make again, or it was this space's alone.
    connection.execute(delete(chunk).where(chunk.c.silent.is_(False), ~exists().where(vector.c.chunk_id == chunk.c.id)))
    mine = commit_group.c.space_id == dropped.id
    if others:
        # The numbers stay: deletions in other spaces may be of these commits, and readers count on their order.
        nothing = {"shard": None, "first_row": None, "rows": 0, "crc32c": None}
        connection.execute(update(commit_group).where(mine).values(space_id=others[0][0], **nothing))
    else:
        connection.execute(delete(commit_group).where(mine))
    connection.execute(delete(space).where(space.c.id == dropped.id))


def missing_files(connection: Connection, space_id: int) -> list[tuple[int, bytes, bytes]]:
    """(recording, root, path in it) of every file whose recording is known and not complete in the space; ordered, so
    that the copies of a recording are side by side."""
    covered = exists().where(and_(coverage.c.space_id == space_id, coverage.c.recording_id == file.c.recording_id))
    rows = connection.execute(
        select(file.c.recording_id, root.c.path, file.c.path)
        .join(root, root.c.id == file.c.root_id)
        .where(~covered)
        .order_by(file.c.recording_id, root.c.path, file.c.path)
    )
    return [(row[0], row[1], row[2]) for row in rows]


def sweep(library: Path, known: Collection[str]) -> None:
    """Remove the shards and indexes of spaces that are not `known` any more. For the holder of the writer lock.

    What cannot be removed now, a later writer will remove; what does not look like ours stays.
    """
    for folder in _folders(library / "vectors", known):
        for path in folder.glob("[0-9]*.f16"):
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):
            folder.rmdir()
    for folder in _folders(library / "indexes", known):
        shutil.rmtree(folder, ignore_errors=True)


def _folders(parent: Path, known: Collection[str]) -> list[Path]:
    try:
        below = list(parent.iterdir())
    except OSError:
        return []
    return [path for path in below if FOLDER_NAME.fullmatch(path.name) and path.name not in known and path.is_dir()]
