"""Which schema a database has, and how it gets the current one. Alembic is loaded only to make or upgrade a library.

A database of a version this program does not know is refused before anything is written. An older one is upgraded by
the holder of the writer lock, in one transaction, after a copy was put beside it.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from audiosearch.errors import SchemaError
from audiosearch.store import connection as connections
from audiosearch.store.faults import database_fault
from audiosearch.store.filesystem import sync_directory

if TYPE_CHECKING:
    from sqlalchemy import Connection

REVISIONS = ("0001", "0002", "0003", "0004", "0005")  # oldest first; a test holds this equal to what `migrations/` has


def revision(connection: sqlite3.Connection) -> str | None:
    """The database's revision, or None if it is not a library's."""
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if not str(error).startswith("no such"):
            raise
        return None
    return str(row[0]) if row else None


def needs_upgrade(database: Path) -> bool:
    """Whether the database has an older schema. Writes nothing.

    Raises:
        SchemaError: it is not a library's, or a newer version wrote it.
    """
    try:
        with closing(connections.connect_reader(database)) as connection:
            found = revision(connection)
    except sqlite3.DatabaseError as error:
        # One that begins like a database and then is not is damaged; one that never was is something else's.
        fault = None if "not a database" in str(error) else database_fault(database, error)
        raise fault or SchemaError(f"{database} is not a library ({error}); choose another directory") from error
    if found is None:
        raise SchemaError(f"{database} is not an audiosearch library; choose another directory")
    if found not in REVISIONS:
        raise SchemaError(
            f"{database} was written by a newer audiosearch (schema {found}, this one knows up to {REVISIONS[-1]}); "
            "upgrade audiosearch"
        )
    return found != REVISIONS[-1]


def check_current(connection: Connection, database: Path) -> None:
    """For a transaction without the writer lock, beside which another program may have upgraded the library.

    Raises:
        SchemaError: it has.
    """
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if found != REVISIONS[-1]:
        raise SchemaError(f"{database} is of schema {found} meanwhile, not {REVISIONS[-1]}; upgrade audiosearch")


def create(database: Path) -> None:
    """Make a new, empty database; under its name it is complete or not there."""
    aside = database.with_name(database.name + ".new")
    for suffix in ("", "-journal", "-wal", "-shm"):  # what a crash left
        aside.with_name(aside.name + suffix).unlink(missing_ok=True)
    aside.touch()
    _run(aside)
    with aside.open("rb+") as file:
        os.fsync(file.fileno())
    aside.rename(database)
    sync_directory(database.parent)


def upgrade(database: Path) -> Path:
    """Bring an older database to the current schema and return where the copy of the old one is."""
    with closing(connections.connect_writer(database)) as connection:
        backup = database.with_name(f"{database.name}.before-{REVISIONS[-1]}")
        # Written aside, so that a copy under this name is a whole one.
        aside = backup.with_name(backup.name + ".new")
        aside.unlink(missing_ok=True)
        with closing(sqlite3.connect(aside)) as copy:
            connection.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(backup)
        sync_directory(database.parent)
    _run(database)
    return backup


def scripts() -> str:
    """The folder of the Alembic revisions."""
    spec = find_spec("audiosearch.migrations")
    assert spec is not None and spec.submodule_search_locations
    return next(iter(spec.submodule_search_locations))


def _run(database: Path) -> None:
    """Run every missing revision in one transaction."""
    import sqlalchemy
    from alembic import command
    from alembic.config import Config

    def connect() -> sqlite3.Connection:
        # Tables are made again under their old names: keys are checked once, at the end.
        connection = sqlite3.connect(database, isolation_level=None)
        connection.execute("PRAGMA foreign_keys=OFF")
        return connection

    engine = sqlalchemy.create_engine("sqlite+pysqlite://", creator=connect, poolclass=sqlalchemy.NullPool)
    sqlalchemy.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    config = Config()
    config.set_main_option("script_location", scripts().replace("%", "%%"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, REVISIONS[-1])
        except sqlalchemy.exc.OperationalError as error:
            if "fts5" not in str(error.orig):
                raise
            raise SchemaError(
                f"{database}: the SQLite of this Python has no full-text search (FTS5); use another build of Python"
            ) from error
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise SchemaError(f"{database}: the upgrade would leave {len(broken)} broken references; nothing changed")
