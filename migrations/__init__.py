"""Alembic revisions of the catalogue. Loaded only to make a library or to upgrade one."""
