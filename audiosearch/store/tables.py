"""The catalogue's tables. Rows stay inside `store`; what leaves it are the values of `records.py` and `types.py`.

    root ─< file >─ recording ─< chunk ─< vector >─ space ─< commit_group
             ├─< field, marker (what the file says of itself)
              failure (by root and path)     coverage (space × recording: all its chunks are in)
    label (by a recording's packet hash)

Ids are AUTOINCREMENT, so that an id is never given to a second thing: vector ids are the ids inside index files. A
deleted vector keeps its row, with the `deleted_seq` of the commit that deleted it, so that an index can catch up.
The schema itself is made by the revisions in `migrations/`; a test holds the two together.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

# SQLite gives out rowids, and AUTOINCREMENT, only for a column declared exactly INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")


def _id() -> Column[int]:
    return Column("id", _Id, primary_key=True)


root = Table(
    "root",
    metadata,
    _id(),
    Column("path", LargeBinary, nullable=False, unique=True),  # bytes: not every name is UTF-8
    Column("volume", Text),  # the disk it is on, where the system says which
    Column("is_walked", Boolean),  # the whole folder was asked for, not only files or parts of it; null: it was
    sqlite_autoincrement=True,
)

recording = Table(
    "recording",
    metadata,
    _id(),
    Column("packet_hash", LargeBinary, nullable=False, unique=True),
    Column("container", Text, nullable=False),
    Column("codec", Text, nullable=False),
    Column("sample_rate", Integer, nullable=False),
    Column("channels", Integer, nullable=False),
    # The container's claim until the recording was decoded to its end.
    Column("duration_seconds", Float, index=True),
    sqlite_autoincrement=True,
)

file = Table(
    "file",
    metadata,
    _id(),
    Column("root_id", ForeignKey("root.id"), nullable=False),
    Column("path", LargeBinary, nullable=False),  # relative to its root
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("inode", BigInteger, nullable=False),  # two's complement: some file systems use all 64 bits
    Column("recording_id", ForeignKey("recording.id"), nullable=False, index=True),
    Column("warning", Text),
    Column("metadata_version", Integer),  # null: not read yet; lower than `metadata.VERSION`: to be read again
    Column("recorded_at", Text, index=True),  # ISO 8601 by the clock on the wall, a day or a second
    Column("recorded_at_source", Text),
    Column("time_reference_samples", BigInteger),  # since midnight, at the recording's rate
    UniqueConstraint("root_id", "path"),
    sqlite_autoincrement=True,
)

# What a file says of itself, a row each: one index serves a filter by any name, and a name may have several values.
# The rows go with their file.
field = Table(
    "field",
    metadata,
    _id(),
    Column("file_id", ForeignKey("file.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("folded", Text, nullable=False),  # the value's beginning without case, for filters
    Column("source", Text, nullable=False),
    Index("ix_field_name_folded", "name", "folded"),
    sqlite_autoincrement=True,
)

marker = Table(
    "marker",
    metadata,
    _id(),
    Column("file_id", ForeignKey("file.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("start_seconds", Float, nullable=False),
    Column("end_seconds", Float),
    Column("label", Text, nullable=False),
    Column("note", Text, nullable=False),
    sqlite_autoincrement=True,
)

failure = Table(
    "failure",
    metadata,
    _id(),
    Column("root_id", ForeignKey("root.id"), nullable=False),
    Column("path", LargeBinary, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("inode", BigInteger, nullable=False),
    Column("cause", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("last_attempt_at", Text, nullable=False),  # ISO 8601, UTC
    UniqueConstraint("root_id", "path"),
    sqlite_autoincrement=True,
)

# What the user said of hits. Of the content, not of a row of `recording`: a label stays when that goes and comes again,
# whatever is embedded anew. What it is about is the tag or, without one, the words of the query that found the hit.
label = Table(
    "label",
    metadata,
    _id(),
    Column("packet_hash", LargeBinary, nullable=False),
    Column("start_seconds", Float, nullable=False),  # both to a millisecond, as in the hit's id
    Column("end_seconds", Float, nullable=False),
    Column("verdict", Boolean, nullable=False),
    Column("tag", Text, nullable=False),  # empty: none
    Column("query", Text, nullable=False),  # empty: not known, or there is a tag
    Column("folded", Text, nullable=False),  # what it is about, as it is compared: without case
    Column("hit_id", Text, nullable=False, index=True),
    Column("created_at", Text, nullable=False),  # ISO 8601, UTC
    UniqueConstraint("packet_hash", "start_seconds", "end_seconds", "folded"),
    Index("ix_label_folded", "folded"),
    sqlite_autoincrement=True,
)

chunk = Table(
    "chunk",
    metadata,
    _id(),
    Column("recording_id", ForeignKey("recording.id"), nullable=False),
    Column("start_seconds", Float, nullable=False),
    Column("end_seconds", Float, nullable=False),
    Column("chunk_hash", LargeBinary, nullable=False, index=True),
    Column("silent", Boolean, nullable=False),
    UniqueConstraint("recording_id", "start_seconds", "end_seconds"),
    sqlite_autoincrement=True,
)

space = Table(
    "space",
    metadata,
    _id(),
    Column("fingerprint", Text, nullable=False, unique=True),
    Column("model_name", Text, nullable=False),
    Column("model_fingerprint", Text, nullable=False),
    Column("document_instruction", Text, nullable=False),
    Column("is_aspect", Boolean, nullable=False),
    Column("dim", Integer, nullable=False),
    Column("window_seconds", Float, nullable=False),
    Column("hop_seconds", Float, nullable=False),
    Column("resampler", Text, nullable=False),
    Column("channel_policy", Text, nullable=False),
    Column("front_end", Text, nullable=False),
    Column("licence", Text, nullable=False),
    Column("is_default", Boolean, nullable=False),
    sqlite_autoincrement=True,
)

# One row for each commit that a search can see. `seq` counts over all spaces, so one number orders everything; a commit
# that appended no rows to a shard (only shared or deleted vectors) has no shard.
commit_group = Table(
    "commit_group",
    metadata,
    Column("seq", _Id, primary_key=True),
    Column("space_id", ForeignKey("space.id"), nullable=False),
    Column("shard", Integer),
    Column("first_row", BigInteger),
    Column("rows", Integer, nullable=False),
    Column("crc32c", BigInteger),  # of the appended bytes
    Index("ix_commit_group_space_id_seq", "space_id", "seq"),
    sqlite_autoincrement=True,
)

vector = Table(
    "vector",
    metadata,
    _id(),
    Column("space_id", ForeignKey("space.id"), nullable=False),
    Column("chunk_id", ForeignKey("chunk.id"), nullable=False),
    Column("shard", Integer, nullable=False),
    Column("row", BigInteger, nullable=False),  # chunks with the same sound share shard and row
    Column("commit_seq", ForeignKey("commit_group.seq"), nullable=False),
    Column("deleted_seq", ForeignKey("commit_group.seq")),
    Index("ix_vector_chunk_id_space_id", "chunk_id", "space_id"),
    Index("ix_vector_space_id_commit_seq", "space_id", "commit_seq"),
    sqlite_autoincrement=True,
)
# PostgreSQL's conditions are in the migration alone: naming them here would import that dialect, 0.1 s, for everyone.
_alive = vector.c.deleted_seq.is_(None)
Index(
    "uq_vector_alive",
    vector.c.space_id,
    vector.c.chunk_id,
    unique=True,
    sqlite_where=_alive,
)
_dead = vector.c.deleted_seq.is_not(None)
Index(
    "ix_vector_deleted",
    vector.c.space_id,
    vector.c.deleted_seq,
    sqlite_where=_dead,
)

# Every chunk of the recording has its vector (or is silent) in the space.
coverage = Table(
    "coverage",
    metadata,
    Column("space_id", ForeignKey("space.id"), primary_key=True),
    Column("recording_id", ForeignKey("recording.id"), primary_key=True, index=True),
    sqlite_with_rowid=False,
)
