"""Which disk a root is on, and whether the whole folder was asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    # Null: not looked at yet, and as asked for: most roots are folders.
    op.add_column("root", sa.Column("volume", sa.Text))
    op.add_column("root", sa.Column("is_walked", sa.Boolean))
