"""What the user said of hits: functions of a connection.

A label belongs to content, by its packet hash, and to a span of it. It is about its tag or, if it has none, about the
query that found the hit; of one span there is one label about one thing. Nothing that an ingest does touches labels.
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, insert, select

from audiosearch.store.connection import select_in
from audiosearch.store.records import LabelRecord
from audiosearch.store.tables import chunk, file, label, recording, root, vector
from audiosearch.types import Label

_AS_GOOD = 0.8  # of the best overlap: chunks that fit a span as well as that stand for it together
_DIGITS = 3  # of the seconds in a hit's id


def folded(text: str) -> str:
    """Words as labels compare what they are about: without case, single spaces between them."""
    return " ".join(unicodedata.normalize("NFC", text.casefold()).split())


def put(connection: Connection, records: Iterable[LabelRecord]) -> None:
    """Write labels; each replaces what was said of the same span about the same thing."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    for each in records:
        tag, query = " ".join(each.tag.split()), " ".join(each.query.split())
        key = {
            "packet_hash": each.packet_hash,
            "start_seconds": round(each.start_seconds, _DIGITS),
            "end_seconds": round(each.end_seconds, _DIGITS),
            "folded": folded(tag or query),
        }
        connection.execute(delete(label).where(*(label.c[name] == value for name, value in key.items())))
        said = {"verdict": each.verdict, "tag": tag, "query": "" if tag else query, "hit_id": each.hit_id}
        connection.execute(insert(label).values(**key, **said, created_at=now))


def remove(connection: Connection, hit_id: str, tag: str | None = None) -> int:
    """Remove the labels of a hit: those about `tag`, or all; return how many that were."""
    query = select(label.c.id).where(label.c.hit_id == hit_id)
    if tag is not None:
        query = query.where(label.c.folded == folded(tag))
    ids = connection.execute(query).scalars().all()
    if ids:
        connection.execute(delete(label).where(label.c.id == bindparam("gone")), [{"gone": each} for each in ids])
    return len(ids)


def listed(connection: Connection, *, tag: str | None = None, hit_prefix: str | None = None) -> list[Label]:
    """Labels, oldest first: those about `tag`, those of hits whose id begins like this, or all."""
    query: Select[Any] = select(label).order_by(label.c.id)
    if tag is not None:
        query = query.where(label.c.folded == folded(tag))
    if hit_prefix is not None:
        query = query.where(label.c.hit_id >= hit_prefix, label.c.hit_id < hit_prefix + "g")  # digits are 0-9, a-f
    rows = connection.execute(query).mappings().all()
    places = _places(connection, {row["packet_hash"] for row in rows})
    return [
        Label(
            hit_id=row["hit_id"],
            verdict=row["verdict"],
            tag=row["tag"] or None,
            query=row["query"] or None,
            path=places.get(row["packet_hash"]),
            start_seconds=row["start_seconds"],
            end_seconds=row["end_seconds"],
            recording=row["packet_hash"].hex(),
            created_at=row["created_at"],
        )
        for row in rows
    ]


def judged(connection: Connection, space_id: int, tag: str) -> list[tuple[bool, list[int]]]:
    """(verdict, ids of the vectors that stand for its span in the space) of each label about `tag`, oldest first.

    Those are of the chunks that overlap the span best: one, or several alike. None where the space lacks the recording.
    """
    query = select(label.c.verdict, label.c.packet_hash, label.c.start_seconds, label.c.end_seconds)
    rows = connection.execute(query.where(label.c.folded == folded(tag)).order_by(label.c.id)).fetchall()
    spans: dict[bytes, list[tuple[int, float, float]]] = defaultdict(list)
    stored: Select[Any] = (
        select(recording.c.packet_hash, vector.c.id, chunk.c.start_seconds, chunk.c.end_seconds)
        .join(chunk, chunk.c.recording_id == recording.c.id)
        .join(vector, vector.c.chunk_id == chunk.c.id)
        .where(vector.c.space_id == space_id, vector.c.deleted_seq.is_(None))
    )
    for packet_hash, *rest in select_in(connection, stored, recording.c.packet_hash, {row[1] for row in rows}):
        spans[packet_hash].append(tuple(rest))
    return [(verdict, _nearest(spans[packet_hash], start, end)) for verdict, packet_hash, start, end in rows]


def _nearest(chunks: Sequence[tuple[int, float, float]], start: float, end: float) -> list[int]:
    """Ids of those (id, start, end) that fit a span best, by what they share of what both cover."""
    overlaps = {id_: _overlap(start, end, *span) for id_, *span in chunks}
    best = max(overlaps.values(), default=0.0)
    return sorted(id_ for id_, overlap in overlaps.items() if best > 0 and overlap >= _AS_GOOD * best)


def _overlap(start: float, end: float, other_start: float, other_end: float) -> float:
    shared = max(0.0, min(end, other_end) - max(start, other_start))
    covered = max(end, other_end) - min(start, other_start)
    return shared / covered if covered > 0 else 0.0


def _places(connection: Connection, hashes: Iterable[bytes]) -> dict[bytes, str]:
    """The absolute path of the first file that holds each recording."""
    query = (
        select(recording.c.packet_hash, root.c.path, file.c.path)
        .join(file, file.c.recording_id == recording.c.id)
        .join(root, root.c.id == file.c.root_id)
    )
    found: dict[bytes, tuple[bytes, bytes]] = {}
    for packet_hash, *place in select_in(connection, query, recording.c.packet_hash, hashes):
        found[packet_hash] = min(found.get(packet_hash, tuple(place)), tuple(place))
    return {key: os.fsdecode(os.path.join(*place)) for key, place in found.items()}  # noqa: PTH118 - bytes
