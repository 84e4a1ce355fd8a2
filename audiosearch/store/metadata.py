"""What files say of themselves, in the catalogue: functions of a connection.

The rows of a file go with it. What was taken from its name is computed anew when it gets another one.
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, delete, select, update

from audiosearch.file_names import with_name
from audiosearch.metadata import VERSION
from audiosearch.store import fulltext
from audiosearch.store.connection import insert_rows, select_in
from audiosearch.store.records import DescribedFile
from audiosearch.store.tables import coverage, failure, field, file, marker, recording, root, space
from audiosearch.types import Field, FileInfo, Marker, Metadata

COLUMNS = "metadata_version recorded_at recorded_at_source time_reference_samples"  # of `file`
_SEPARATOR = os.fsencode(os.sep)
FOLDED_CHARACTERS = 200  # of a value that a filter looks at


# What every query asks of its hits, built once: see `select_in`.
_HEADS: Select[Any] = select(
    file.c.id, file.c.recorded_at, file.c.recorded_at_source, file.c.time_reference_samples
).where(file.c.metadata_version.is_not(None))
_FIELDS: Select[Any] = select(field.c.id, field.c.file_id, field.c.name, field.c.value, field.c.source)
_MARKERS: Select[Any] = select(
    marker.c.id, marker.c.file_id, marker.c.start_seconds, marker.c.end_seconds, marker.c.label, marker.c.note
)
_BY_PATH = select(file.c.path, file.c.id)


def columns(metadata: Metadata | None) -> tuple[Any, ...]:
    """The values of COLUMNS; without metadata, as of a file that nothing has been read of."""
    if metadata is None:
        return (None, None, None, None)
    return (VERSION, metadata.recorded_at, metadata.recorded_at_source, metadata.time_reference_samples)


def folded(value: str) -> str:
    """A value as filters compare it: without case, composed, its beginning only."""
    return unicodedata.normalize("NFC", value[:FOLDED_CHARACTERS].casefold())


def insert_details(connection: Connection, described: Sequence[tuple[int, Metadata]]) -> None:
    """Fields and markers of files that have none yet, by file id."""
    fields = [(id_, f.name, f.value, folded(f.value), f.source) for id_, each in described for f in each.fields]
    insert_rows(connection, field, "file_id name value folded source", fields)
    markers = [(id_, m.start_seconds, m.end_seconds, m.label, m.note) for id_, each in described for m in each.markers]
    insert_rows(connection, marker, "file_id start_seconds end_seconds label note", markers)


def replace(connection: Connection, described: Mapping[int, Metadata]) -> None:
    """Give files, by id, other metadata."""
    if not described:
        return
    for table in (field, marker):
        connection.execute(delete(table).where(table.c.file_id == bindparam("of")), [{"of": id_} for id_ in described])
    names = COLUMNS.split()
    connection.execute(
        update(file).where(file.c.id == bindparam("of")).values({name: bindparam(f"new_{name}") for name in names}),
        [
            {"of": id_, **{f"new_{name}": value for name, value in zip(names, columns(each), strict=True)}}
            for id_, each in described.items()
        ],
    )
    insert_details(connection, list(described.items()))


def describe(connection: Connection, described: Iterable[DescribedFile]) -> None:
    """Write what was read of known files; one that is no longer as it was then, or not known, is passed over."""
    by_root: dict[int, dict[bytes, DescribedFile]] = defaultdict(dict)
    for each in described:
        by_root[each.root_id][each.path] = each
    found: dict[int, Metadata] = {}
    warnings: list[dict[str, Any]] = []
    for root_id, files in by_root.items():
        query = select(file.c.path, file.c.id, file.c.size, file.c.mtime_ns).where(file.c.root_id == root_id)
        for path, id_, size, mtime_ns in select_in(connection, query, file.c.path, files):
            if (size, mtime_ns) == files[path].stat[:2]:
                found[id_] = files[path].metadata
                if files[path].warning:
                    warnings.append({"of": id_, "said": files[path].warning})
    replace(connection, found)
    fulltext.refresh(connection, found)
    if warnings:
        connection.execute(update(file).where(file.c.id == bindparam("of")).values(warning=bindparam("said")), warnings)


def rename(connection: Connection, names: Mapping[int, bytes]) -> None:
    """Files, by id, are about to get these paths: what was taken from the old name is replaced."""
    old = {row[0]: row[1] for row in select_in(connection, select(file.c.id, file.c.path), file.c.id, names)}
    renamed = {id_: names[id_] for id_, path in old.items() if _last_part(path) != _last_part(names[id_])}
    known = read(connection, renamed)
    again = {id_: with_name(each, os.fsdecode(renamed[id_])) for id_, each in known.items()}
    replace(connection, again)


def read(connection: Connection, file_ids: Collection[int]) -> dict[int, Metadata]:
    """The metadata of files, by id; without those of which nothing has been read."""
    heads = list(select_in(connection, _HEADS, file.c.id, file_ids))
    fields: dict[int, list[Field]] = defaultdict(list)
    for _, file_id, *values in sorted(select_in(connection, _FIELDS, field.c.file_id, file_ids)):
        fields[file_id].append(Field(*values))
    markers: dict[int, list[Marker]] = defaultdict(list)
    for _, file_id, *values in sorted(
        select_in(connection, _MARKERS, marker.c.file_id, file_ids), key=lambda row: row[0]
    ):
        markers[file_id].append(Marker(*values))
    return {id_: Metadata(tuple(fields[id_]), tuple(markers[id_]), *rest) for id_, *rest in heads}


def of_places(connection: Connection, places: Collection[tuple[str, str]]) -> dict[tuple[str, str], Metadata]:
    """The metadata of files by (root, path in the root), without those of which nothing has been read."""
    wanted: dict[bytes, dict[bytes, tuple[str, str]]] = defaultdict(dict)
    for folder, path in places:
        wanted[os.fsencode(folder)][os.fsencode(path)] = folder, path
    found: dict[int, tuple[str, str]] = {}
    for root_id, folder in connection.execute(select(root.c.id, root.c.path)).fetchall():
        if folder in wanted:
            # With the root, as the index begins with it: by its path alone a file is looked for among all.
            query = _BY_PATH.where(file.c.root_id == root_id)
            rows = select_in(connection, query, file.c.path, wanted[folder])
            found.update((id_, wanted[folder][path]) for path, id_ in rows)
    return {found[id_]: metadata for id_, metadata in read(connection, found).items()}


def file_info(connection: Connection, absolute: bytes) -> FileInfo | None:
    """All that is known of one file; None if nothing is."""
    for root_id, folder in connection.execute(select(root.c.id, root.c.path)).fetchall():
        inside = folder.rstrip(_SEPARATOR) + _SEPARATOR
        if absolute.startswith(inside):
            path = absolute[len(inside) :]
            found = _file_info(connection, root_id, folder, path)
            if found is not None:
                return found
    return None


def _file_info(connection: Connection, root_id: int, folder: bytes, path: bytes) -> FileInfo | None:
    query: Select[Any] = (
        select(file, recording)
        .join(recording, recording.c.id == file.c.recording_id)
        .where(file.c.root_id == root_id, file.c.path == path)
    )
    row = connection.execute(query).mappings().first()
    failed = connection.execute(
        select(failure.c.cause, failure.c.detail).where(failure.c.root_id == root_id, failure.c.path == path)
    ).first()
    if row is None and failed is None:
        return None
    place = os.fsdecode(os.path.join(folder, path)), os.fsdecode(folder)  # noqa: PTH118 - bytes
    failure_text = f"{failed[0]}: {failed[1]}" if failed else None
    if row is None:
        return FileInfo(*place, failure=failure_text)
    covering = select(space.c.fingerprint).join(
        coverage, and_(coverage.c.space_id == space.c.id, coverage.c.recording_id == row[recording.c.id])
    )
    return FileInfo(
        *place,
        recording_id=row[recording.c.id],
        container=row[recording.c.container],
        codec=row[recording.c.codec],
        sample_rate=row[recording.c.sample_rate],
        channels=row[recording.c.channels],
        duration_seconds=row[recording.c.duration_seconds],
        spaces=tuple(connection.execute(covering.order_by(space.c.id)).scalars()),
        metadata=read(connection, [row[file.c.id]]).get(row[file.c.id]),
        warning=row[file.c.warning],
        failure=failure_text,
    )


def _last_part(path: bytes) -> bytes:
    return os.path.basename(path)  # noqa: PTH119 - bytes
