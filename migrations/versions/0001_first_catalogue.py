"""The first catalogue: roots, files, recordings, chunks, spaces, vectors, commit groups, coverage, failures."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "root",
        sa.Column("id", _ID, nullable=False),
        sa.Column("path", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_root"),
        sa.UniqueConstraint("path", name="uq_root_path"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "recording",
        sa.Column("id", _ID, nullable=False),
        sa.Column("packet_hash", sa.LargeBinary, nullable=False),
        sa.Column("container", sa.Text, nullable=False),
        sa.Column("codec", sa.Text, nullable=False),
        sa.Column("sample_rate", sa.Integer, nullable=False),
        sa.Column("channels", sa.Integer, nullable=False),
        sa.Column("duration_seconds", sa.Float),
        sa.PrimaryKeyConstraint("id", name="pk_recording"),
        sa.UniqueConstraint("packet_hash", name="uq_recording_packet_hash"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "file",
        sa.Column("id", _ID, nullable=False),
        sa.Column("root_id", _ID, nullable=False),
        sa.Column("path", sa.LargeBinary, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("inode", sa.BigInteger, nullable=False),
        sa.Column("recording_id", _ID, nullable=False),
        sa.Column("warning", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_file"),
        sa.ForeignKeyConstraint(["root_id"], ["root.id"], name="fk_file_root_id"),
        sa.ForeignKeyConstraint(["recording_id"], ["recording.id"], name="fk_file_recording_id"),
        sa.UniqueConstraint("root_id", "path", name="uq_file_root_id_path"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_file_recording_id", "file", ["recording_id"])
    op.create_table(
        "failure",
        sa.Column("id", _ID, nullable=False),
        sa.Column("root_id", _ID, nullable=False),
        sa.Column("path", sa.LargeBinary, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("inode", sa.BigInteger, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("last_attempt_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_failure"),
        sa.ForeignKeyConstraint(["root_id"], ["root.id"], name="fk_failure_root_id"),
        sa.UniqueConstraint("root_id", "path", name="uq_failure_root_id_path"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "chunk",
        sa.Column("id", _ID, nullable=False),
        sa.Column("recording_id", _ID, nullable=False),
        sa.Column("start_seconds", sa.Float, nullable=False),
        sa.Column("end_seconds", sa.Float, nullable=False),
        sa.Column("chunk_hash", sa.LargeBinary, nullable=False),
        sa.Column("silent", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_chunk"),
        sa.ForeignKeyConstraint(["recording_id"], ["recording.id"], name="fk_chunk_recording_id"),
        sa.UniqueConstraint(
            "recording_id", "start_seconds", "end_seconds", name="uq_chunk_recording_id_start_seconds_end_seconds"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_chunk_chunk_hash", "chunk", ["chunk_hash"])
    op.create_table(
        "space",
        sa.Column("id", _ID, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("model_name", sa.Text, nullable=False),
        sa.Column("model_fingerprint", sa.Text, nullable=False),
        sa.Column("document_instruction", sa.Text, nullable=False),
        sa.Column("is_aspect", sa.Boolean, nullable=False),
        sa.Column("dim", sa.Integer, nullable=False),
        sa.Column("window_seconds", sa.Float, nullable=False),
        sa.Column("hop_seconds", sa.Float, nullable=False),
        sa.Column("resampler", sa.Text, nullable=False),
        sa.Column("channel_policy", sa.Text, nullable=False),
        sa.Column("front_end", sa.Text, nullable=False),
        sa.Column("licence", sa.Text, nullable=False),
        sa.Column("is_default", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_space"),
        sa.UniqueConstraint("fingerprint", name="uq_space_fingerprint"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "commit_group",
        sa.Column("seq", _ID, nullable=False),
        sa.Column("space_id", _ID, nullable=False),
        sa.Column("shard", sa.Integer),
        sa.Column("first_row", sa.BigInteger),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("crc32c", sa.BigInteger),
        sa.PrimaryKeyConstraint("seq", name="pk_commit_group"),
        sa.ForeignKeyConstraint(["space_id"], ["space.id"], name="fk_commit_group_space_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_commit_group_space_id_seq", "commit_group", ["space_id", "seq"])
    op.create_table(
        "vector",
        sa.Column("id", _ID, nullable=False),
        sa.Column("space_id", _ID, nullable=False),
        sa.Column("chunk_id", _ID, nullable=False),
        sa.Column("shard", sa.Integer, nullable=False),
        sa.Column("row", sa.BigInteger, nullable=False),
        sa.Column("commit_seq", _ID, nullable=False),
        sa.Column("deleted_seq", _ID),
        sa.PrimaryKeyConstraint("id", name="pk_vector"),
        sa.ForeignKeyConstraint(["space_id"], ["space.id"], name="fk_vector_space_id"),
        sa.ForeignKeyConstraint(["chunk_id"], ["chunk.id"], name="fk_vector_chunk_id"),
        sa.ForeignKeyConstraint(["commit_seq"], ["commit_group.seq"], name="fk_vector_commit_seq"),
        sa.ForeignKeyConstraint(["deleted_seq"], ["commit_group.seq"], name="fk_vector_deleted_seq"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_vector_chunk_id_space_id", "vector", ["chunk_id", "space_id"])
    op.create_index("ix_vector_space_id_commit_seq", "vector", ["space_id", "commit_seq"])
    alive, dead = sa.text("deleted_seq IS NULL"), sa.text("deleted_seq IS NOT NULL")
    op.create_index(
        "uq_vector_alive",
        "vector",
        ["space_id", "chunk_id"],
        unique=True,
        sqlite_where=alive,
        postgresql_where=alive,
    )
    op.create_index(
        "ix_vector_deleted", "vector", ["space_id", "deleted_seq"], sqlite_where=dead, postgresql_where=dead
    )
    op.create_table(
        "coverage",
        sa.Column("space_id", _ID, nullable=False),
        sa.Column("recording_id", _ID, nullable=False),
        sa.PrimaryKeyConstraint("space_id", "recording_id", name="pk_coverage"),
        sa.ForeignKeyConstraint(["space_id"], ["space.id"], name="fk_coverage_space_id"),
        sa.ForeignKeyConstraint(["recording_id"], ["recording.id"], name="fk_coverage_recording_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_coverage_recording_id", "coverage", ["recording_id"])
