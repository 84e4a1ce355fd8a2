"""Words of file names, folders and metadata, to be searched: SQLite's FTS5. Elsewhere nothing is made."""

from alembic import op

from audiosearch.store import fulltext

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    op.execute(
        "CREATE VIRTUAL TABLE file_text USING fts5(name, folder, said, fields UNINDEXED, "
        "tokenize = 'porter unicode61 remove_diacritics 2')"
    )
    # A later revision that makes `file` again loses this with the old table, and must make it again as well.
    op.execute(
        "CREATE TRIGGER file_text_goes AFTER DELETE ON file BEGIN DELETE FROM file_text WHERE rowid = old.id; END"
    )
    # The rows are a copy of what the catalogue has, written as today's program writes them.
    fulltext.rebuild(op.get_bind())
