"""What the user said of hits."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "label",
        sa.Column("id", _ID, nullable=False),
        sa.Column("packet_hash", sa.LargeBinary, nullable=False),
        sa.Column("start_seconds", sa.Float, nullable=False),
        sa.Column("end_seconds", sa.Float, nullable=False),
        sa.Column("verdict", sa.Boolean, nullable=False),
        sa.Column("tag", sa.Text, nullable=False),
        sa.Column("query", sa.Text, nullable=False),
        sa.Column("folded", sa.Text, nullable=False),
        sa.Column("hit_id", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_label"),
        sa.UniqueConstraint(
            "packet_hash",
            "start_seconds",
            "end_seconds",
            "folded",
            name="uq_label_packet_hash_start_seconds_end_seconds_folded",
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_label_folded", "label", ["folded"])
    op.create_index("ix_label_hit_id", "label", ["hit_id"])
