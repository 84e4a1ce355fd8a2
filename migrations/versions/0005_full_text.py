"""Words of file names, folders and metadata, to be searched by SQLite's FTS5. On another database nothing is made."""

from alembic import op

from audiosearch.store import fulltext

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    # A later revision that makes `file` again loses this with the old table, and must make it again as well.
    op.execute(
        "CREATE TRIGGER file_text_goes AFTER DELETE ON file BEGIN DELETE FROM file_text WHERE rowid = old.id; END"
    )
    # The table and its rows, a copy of what the catalogue has, are as today's program makes them: `fulltext.CREATE`.
    fulltext.rebuild(op.get_bind())
