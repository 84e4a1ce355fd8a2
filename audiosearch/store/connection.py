"""Database connections: one kind that writes, one that cannot."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy
from sqlalchemy import event, exc, pool

from audiosearch.errors import LibraryError, LibraryNotFound
from audiosearch.store.faults import database_fault
from audiosearch.store.filesystem import file_system_type, is_network

DATABASE = "library.db"
_BUSY_SECONDS = 60.0
_OPENING_SECONDS = 5.0
_IN_LIST = 900  # values in one IN list: every SQLite allows 999 parameters


def engine(database: Path, *, write: bool) -> sqlalchemy.Engine:
    """An engine over the library's database; any number of threads may use it.

    Transactions are begun by `begin` alone, never by the driver, so that one that only reads is one snapshot.
    """

    def connect(*_: Any) -> sqlite3.Connection:
        return connect_writer(database) if write else connect_reader(database)

    made = sqlalchemy.create_engine(
        "sqlite+pysqlite://", creator=connect, poolclass=pool.QueuePool, pool_size=4, max_overflow=-1
    )

    @event.listens_for(made, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        immediate = connection.get_execution_options().get("immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    if not write:

        @event.listens_for(made, "connect")
        def remember(connection: Any, record: Any) -> None:
            record.info["seen"] = _identity(database) if isinstance(connection, _Immutable) else None

        @event.listens_for(made, "checkout")
        def check(_: Any, record: Any, __: Any) -> None:
            # An immutable connection does not notice a writer; replace it when there was one.
            if record.info["seen"] is not None and record.info["seen"] != _identity(database):
                raise exc.DisconnectionError

    return made


def connect_writer(database: Path) -> sqlite3.Connection:
    """A connection for the holder of the writer lock: write-ahead log, every commit forced to the disk."""
    connection = _connect(f"file:{quote(os.fsencode(database))}?mode=rw")
    # Where SQLite finds no shared memory it stays with its rollback journal by itself: see `journal_note`.
    connection.execute(f"PRAGMA journal_mode={'DELETE' if is_network(database) else 'WAL'}")
    connection.execute("PRAGMA synchronous=EXTRA")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA cache_size=-65536")
    return connection


def journal_note(database: Path) -> str | None:
    """What to tell a user whose library is where a write-ahead log cannot work; for the holder of the writer lock."""
    connection = connect_writer(database)
    try:
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    finally:
        connection.close()
    if mode == "wal":
        return None
    kind = file_system_type(database)
    where = f" ({kind})" if kind else ""
    return (
        f"{database.parent} is on a file system where a write-ahead log cannot work{where}: queries wait while a "
        "commit is written. A local disk would do better"
    )


def connect_reader(database: Path) -> sqlite3.Connection:
    """A connection that cannot write. On a read-only medium it is opened as immutable, if no log waits to be read.

    Raises:
        LibraryNotFound: there is no database.
        LibraryError: it cannot be opened.
    """
    uri = f"file:{quote(os.fsencode(database))}"
    give_up = time.monotonic() + _OPENING_SECONDS
    while True:
        try:
            return _probed(_connect(f"{uri}?mode=ro"))
        except sqlite3.OperationalError as error:
            problem = error
        if "readonly" in str(problem) and _roll_back(database):
            continue
        if not database.exists():
            raise LibraryNotFound(f"{database.parent}: no library here; make one with `audiosearch ingest FOLDER`")
        if not os.access(database.parent, os.W_OK) and _log_size(database) == 0:
            return _probed(_connect(f"{uri}?immutable=1", _Immutable))
        # A writer that closes takes its log away; opening in that moment fails, and a little later does not.
        if time.monotonic() > give_up:
            raise database_fault(database, problem) or LibraryError(
                f"{database} cannot be opened: {problem}"
            ) from problem
        time.sleep(0.01)


@contextmanager
def database_faults(database: Path) -> Iterator[None]:
    """Raise what the disk did to the database as a LibraryError that says so."""
    try:
        yield
    except (exc.DBAPIError, sqlite3.Error) as error:
        original = error.orig if isinstance(error, exc.DBAPIError) else error
        fault = database_fault(database, original) if isinstance(original, sqlite3.Error) else None
        if fault is None:
            raise
        raise fault from error


class _Immutable(sqlite3.Connection):
    """A connection that takes the file for unchanging: no locks, no log."""


def _connect(uri: str, kind: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    # isolation_level None: the driver begins nothing by itself.
    return sqlite3.connect(
        uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, factory=kind
    )


def _probed(connection: sqlite3.Connection) -> sqlite3.Connection:
    try:
        connection.execute("PRAGMA query_only=ON")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _roll_back(database: Path) -> bool:
    """Undo a transaction that a crash cut off, where there is no write-ahead log: whoever may only read cannot."""
    if not database.with_name(database.name + "-journal").exists() or not os.access(database.parent, os.W_OK):
        return False
    connection = _connect(f"file:{quote(os.fsencode(database))}?mode=rw")
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    finally:
        connection.close()
    return True


def _log_size(database: Path) -> int:
    try:
        return database.with_name(database.name + "-wal").stat().st_size
    except FileNotFoundError:
        return 0


def _identity(database: Path) -> tuple[int, int, int]:
    stat = database.stat()
    return stat.st_mtime_ns, stat.st_size, _log_size(database)


def insert_rows(
    connection: sqlalchemy.Connection, table: sqlalchemy.Table, names: str, rows: list[tuple[Any, ...]]
) -> None:
    """Insert rows as tuples, in the order of `names` ("a b c"): a third of the time that dictionaries take."""
    if rows:
        columns = names.split()
        marks = ", ".join([_mark(connection)] * len(columns))
        connection.exec_driver_sql(f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({marks})", rows)


def select_in(
    connection: sqlalchemy.Connection,
    query: sqlalchemy.Select[Any],
    column: sqlalchemy.ColumnElement[Any],
    values: Iterable[Any],
) -> Iterator[Any]:
    """Rows of `query` whose `column` is one of `values`, which may be many; in no order, without type conversions.

    An IN list of SQLAlchemy's own costs ten times what the database takes to answer it, and to compile a statement as
    much as to answer it for a few: one that is asked often should be the same object each time.
    """
    wanted = sorted(set(values))
    for first in range(0, len(wanted), _IN_LIST):
        some = wanted[first : first + _IN_LIST]
        # Filled up with the last value: few lengths, so few statements.
        some += some[-1:] * (min(_IN_LIST, 1 << (len(some) - 1).bit_length()) - len(some))
        text = _with_in_list(query, column, len(some), connection.dialect)
        yield from connection.exec_driver_sql(text, tuple(some)).fetchall()


@lru_cache(maxsize=256)
def _with_in_list(
    query: sqlalchemy.Select[Any], column: sqlalchemy.ColumnElement[Any], values: int, dialect: sqlalchemy.Dialect
) -> str:
    mark = "?" if dialect.paramstyle == "qmark" else "%s"
    marks: sqlalchemy.ColumnElement[Any] = sqlalchemy.literal_column(", ".join([mark] * values))
    return str(query.where(column.in_([marks])).compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


def _mark(connection: sqlalchemy.Connection) -> str:
    return "?" if connection.dialect.paramstyle == "qmark" else "%s"
