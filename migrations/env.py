"""Runs revisions over the connection that `store.schema` hands in: one transaction, the caller's."""

from alembic import context

from audiosearch.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by making it again
)
context.run_migrations()
