"""Which hits were shown, so that `hit:ab12`, `similar HIT` and `label HIT` know what is meant.

A hit's id is a hash of recording and span, from which neither can be had back. So every answer's hits are written down
in `hits.db` beside the catalogue, the newest `KEPT` of them. It is a convenience and never the truth: where it cannot
be written (a read-only disk, another process at it for long) nothing happens, a damaged one is begun anew, and no
backup has it.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from audiosearch.errors import UsageError

NAME = "hits.db"
KEPT = 100_000
PRUNED_EVERY = 500  # hits: counting them costs milliseconds
MOST_DIGITS = 12

_VERSION = 1
_PATIENCE_SECONDS = 0.05  # of a query that finds another process writing, which takes that half a millisecond
_LISTED = 5
_PREFIX = re.compile(rf"[0-9a-f]{{4,{MOST_DIGITS}}}")
_T = TypeVar("_T")

# `seen` orders them; a hit that is shown again becomes the newest.
_TABLE = """
CREATE TABLE IF NOT EXISTS shown (
    seen INTEGER PRIMARY KEY AUTOINCREMENT,
    hit_id TEXT NOT NULL UNIQUE,
    packet_hash BLOB NOT NULL,
    start_seconds REAL NOT NULL,
    end_seconds REAL NOT NULL,
    query TEXT NOT NULL
)
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """A hit as it was shown last: a span of the recording with that packet hash, found by `query` (empty: by what is
    no words)."""

    hit_id: str
    packet_hash: bytes
    start_seconds: float
    end_seconds: float
    query: str = ""


def remember(directory: str | os.PathLike[str], shown: Sequence[Shown]) -> bool:
    """Write down that these hits were shown by the library in `directory`; whether that could be done."""
    rows = [(s.hit_id, s.packet_hash, s.start_seconds, s.end_seconds, s.query) for s in shown]
    if not rows:
        return True

    def write(connection: sqlite3.Connection) -> bool:
        connection.execute("BEGIN IMMEDIATE")
        before = _newest(connection)
        connection.executemany(
            "INSERT OR REPLACE INTO shown (hit_id, packet_hash, start_seconds, end_seconds, query) "
            "VALUES (?, ?, ?, ?, ?)",
            rows,
        )
        if before // PRUNED_EVERY != _newest(connection) // PRUNED_EVERY:
            (count,) = connection.execute("SELECT count(*) FROM shown").fetchone()
            oldest_kept = "SELECT seen FROM shown ORDER BY seen LIMIT 1 OFFSET ?"
            connection.execute(f"DELETE FROM shown WHERE seen < ({oldest_kept})", (max(count - KEPT, 0),))
        connection.execute("COMMIT")
        return True

    place = Path(directory) / NAME
    done = _tried(place, write)
    if done is None and not place.exists():  # it was damaged: a new one
        done = _tried(place, write)
    return done is not None


def recall(directory: str | os.PathLike[str], prefix: str) -> Shown:
    """The hit whose id begins with these 4 to 12 digits.

    Raises:
        UsageError: it was not shown lately, or more than one is meant.
    """
    prefix = prefix_of(prefix)

    def read(connection: sqlite3.Connection) -> list[Shown]:
        rows = connection.execute(
            "SELECT hit_id, packet_hash, start_seconds, end_seconds, query FROM shown "
            "WHERE hit_id >= ? AND hit_id < ? ORDER BY hit_id LIMIT ?",
            (prefix, prefix + "g", _LISTED + 1),
        )
        return [Shown(*row) for row in rows]

    found = _tried(Path(directory) / NAME, read, read_only=True) or []
    if not found:
        raise UsageError(
            f"no hit {prefix} was shown by this library lately: run the query that finds it once more, and take the id "
            "from its answer"
        )
    if len(found) > 1:
        ids = ", ".join(each.hit_id for each in found[:_LISTED]) + ", ..." * (len(found) > _LISTED)
        raise UsageError(f"more than one hit begins with {prefix}: give more digits of {ids}")
    return found[0]


def prefix_of(hit: str) -> str:
    """The beginning of a hit's id as it is compared: `hit:AB12` is ab12. Raises UsageError if it cannot be one."""
    prefix = hit.strip().lower().removeprefix("hit:")
    if not _PREFIX.fullmatch(prefix):
        raise UsageError(f"{hit!r} is no hit's id: give 4 to {MOST_DIGITS} of its digits, 0-9 and a-f")
    return prefix


def _tried(place: Path, use: Callable[[sqlite3.Connection], _T], *, read_only: bool = False) -> _T | None:
    """What `use` makes of the database; None if that cannot be had. One that is none is taken away."""
    patience = 40 * _PATIENCE_SECONDS if read_only else _PATIENCE_SECONDS  # a user waits for what was asked for
    try:
        uri = f"file:{quote(os.fsencode(place))}?mode={'ro' if read_only else 'rwc'}"
        with closing(sqlite3.connect(uri, uri=True, timeout=patience, isolation_level=None)) as connection:
            if not read_only:
                _prepare(connection)
            return use(connection)
    except sqlite3.OperationalError:  # locked, read-only, full, not there
        return None
    except (sqlite3.DatabaseError, sqlite3.Warning):
        if not read_only:
            with suppress(OSError):
                place.unlink()
        return None


def _prepare(connection: sqlite3.Connection) -> None:
    # A crash of the program loses nothing; after a power cut it may be damaged, and then begins anew.
    connection.execute("PRAGMA synchronous=OFF")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.executescript(f"BEGIN IMMEDIATE; {_TABLE}; PRAGMA user_version={_VERSION}; COMMIT")
    elif version != _VERSION:
        raise sqlite3.DatabaseError(f"version {version}")


def _newest(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'shown'").fetchone()
    return int(row[0]) if row else 0
