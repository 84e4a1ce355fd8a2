"""What files say of themselves: fields, markers, wall-clock start; an index for filters by duration."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    # All may be null: nothing has been read of the files that are there. Added in place, no table is made again.
    op.add_column("file", sa.Column("metadata_version", sa.Integer))
    op.add_column("file", sa.Column("recorded_at", sa.Text))
    op.add_column("file", sa.Column("recorded_at_source", sa.Text))
    op.add_column("file", sa.Column("time_reference_samples", sa.BigInteger))
    op.create_index("ix_file_recorded_at", "file", ["recorded_at"])
    op.create_index("ix_recording_duration_seconds", "recording", ["duration_seconds"])
    op.create_table(
        "field",
        sa.Column("id", _ID, nullable=False),
        sa.Column("file_id", _ID, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("folded", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_field"),
        sa.ForeignKeyConstraint(["file_id"], ["file.id"], name="fk_field_file_id", ondelete="CASCADE"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_field_file_id", "field", ["file_id"])
    op.create_index("ix_field_name_folded", "field", ["name", "folded"])
    op.create_table(
        "marker",
        sa.Column("id", _ID, nullable=False),
        sa.Column("file_id", _ID, nullable=False),
        sa.Column("start_seconds", sa.Float, nullable=False),
        sa.Column("end_seconds", sa.Float),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_marker"),
        sa.ForeignKeyConstraint(["file_id"], ["file.id"], name="fk_marker_file_id", ondelete="CASCADE"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_marker_file_id", "marker", ["file_id"])
