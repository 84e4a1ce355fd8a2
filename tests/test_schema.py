"""The schema: revisions and tables agree, older libraries are upgraded after a backup, others refused untouched."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy
from store_helpers import spec, unit, whole

from audiosearch.errors import LibraryLocked, SchemaError
from audiosearch.store import schema
from audiosearch.store.store import Store
from audiosearch.store.tables import metadata

LATEST = schema.REVISIONS[-1]
NEXT = f"""
import sqlalchemy as sa
from alembic import op
revision, down_revision = "9001", {LATEST!r}
def upgrade():
    with op.batch_alter_table("recording") as table:
        table.add_column(sa.Column("title", sa.Text))
    op.execute("UPDATE recording SET title = codec")
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    with Store.create(tmp_path / "library") as store:
        store.add_space(spec())
        store.add_root("/data")
        store.commit(1, whole(1, "rain", list(unit(1, 3))))
    return tmp_path / "library"


@pytest.fixture
def newer_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This program as if it had one revision more; returns that revision's file."""
    folder = tmp_path / "migrations"
    shutil.copytree(schema.scripts(), folder)
    file = folder / "versions" / "9001_titles.py"
    file.write_text(NEXT)
    monkeypatch.setattr(schema, "scripts", lambda: str(folder))
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "9001"))
    return file


def query(library: Path, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(library / "library.db")) as connection:
        return connection.execute(sql).fetchall()


def words(sql: str) -> list[str]:
    """What a statement says, whatever the order in which it lists columns and constraints."""
    return sorted(sql.replace(",", " ").split())


def files(library: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in library.iterdir() if path.is_file()}


def test_the_revisions_make_the_tables(library: Path):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = sqlalchemy.create_engine("sqlite://", creator=lambda: sqlite3.connect(library / "library.db"))
    with engine.connect() as connection:
        options = {"compare_type": True, "include_name": lambda name, *_: not str(name).startswith("file_text")}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
    # What the comparison does not look at: AUTOINCREMENT, partial indexes, names.
    select = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"
    made = dict(query(library, f"{select} AND name NOT LIKE 'file_text%'"))  # FTS5's own: test_fulltext
    direct = sqlalchemy.create_engine("sqlite://")
    metadata.create_all(direct)
    with direct.connect() as connection:
        expected = dict(connection.exec_driver_sql(select).fetchall())
    assert made.keys() - expected.keys() == {"alembic_version"} and expected.keys() <= made.keys()
    for name, sql in expected.items():
        assert words(made[name]) == words(sql), name


def test_the_list_of_revisions_is_what_there_is():
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", schema.scripts())
    found = [each.revision for each in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(found)) == schema.REVISIONS


def test_foreign_keys_and_durability_are_on(library: Path):
    with Store.open(library, write=True) as store, store._read() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("foreign_keys", "journal_mode", "synchronous")
        }
    assert pragmas == {"foreign_keys": 1, "journal_mode": "wal", "synchronous": 3}


def test_an_older_library_is_upgraded_after_a_backup(library: Path, newer_program: Path):
    with pytest.raises(SchemaError, match="older version"):
        Store.open(library)
    assert query(library, "SELECT version_num FROM alembic_version") == [(LATEST,)]
    with Store.open(library, write=True) as store:
        assert len(store.resolve([1, 2, 3])) == 3
        store.commit(1, whole(1, "wind", list(unit(2, 2))))
    with Store.open(library) as reader:
        assert reader.status().recordings == 2
    assert query(library, "SELECT title FROM recording ORDER BY id") == [("pcm_s16le",), (None,)]
    with closing(sqlite3.connect(library / "library.db.before-9001")) as backup:
        assert backup.execute("SELECT version_num FROM alembic_version").fetchall() == [(LATEST,)]
        assert backup.execute("SELECT count(*) FROM vector").fetchall() == [(3,)]
        assert backup.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize(
    "mistake",
    ["\n    raise RuntimeError('half way')\n", "\n    op.execute('DELETE FROM recording')\n"],
    ids=["exception", "broken references"],
)
def test_a_failed_upgrade_changes_nothing(library: Path, newer_program: Path, mistake: str):
    newer_program.write_text(NEXT + mistake)
    with pytest.raises((RuntimeError, SchemaError), match=r"half way|nothing changed"):
        Store.open(library, write=True)
    assert query(library, "SELECT version_num FROM alembic_version") == [(LATEST,)]
    assert query(library, "SELECT count(*) FROM recording") == [(1,)]
    assert "title" not in str(query(library, "SELECT sql FROM sqlite_master"))
    newer_program.write_text(NEXT)
    Store.open(library, write=True).close()  # the lock was let go, and the corrected revision runs


def test_only_the_writer_upgrades(library: Path, newer_program: Path, monkeypatch: pytest.MonkeyPatch):
    from audiosearch.store.lock import WriterLock

    lock = WriterLock(library)
    with pytest.raises(LibraryLocked):
        Store.open(library, write=True)
    lock.release()
    assert query(library, "SELECT version_num FROM alembic_version") == [(LATEST,)]


@pytest.mark.parametrize("write", [False, True])
def test_a_newer_library_is_refused_before_anything_is_written(library: Path, write: bool):
    with closing(sqlite3.connect(library / "library.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    before = files(library)
    with pytest.raises(SchemaError, match="newer audiosearch"):
        Store.open(library, write=write)
    after = files(library)
    # SQLite's own files beside a database in WAL mode come with any connection; there is nothing in the log.
    after.pop("library.db-shm", None)
    assert after.pop("library.db-wal", b"") == b""
    assert after == before


@pytest.mark.parametrize(
    "content", [b"", b"no database at all" * 100, None], ids=["empty", "text", "another program's"]
)
def test_what_is_no_library_is_refused(tmp_path: Path, content: bytes | None):
    database = tmp_path / "library.db"
    if content is None:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("CREATE TABLE alembic_version (other TEXT)")
    else:
        database.write_bytes(content)
    before = files(tmp_path)
    for write in (False, True):
        with pytest.raises(SchemaError, match=r"not a.* library"):
            Store.open(tmp_path, write=write)
    assert files(tmp_path) == before


def test_a_crash_while_making_a_library_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(database: Path) -> None:
        database.write_bytes(b"half a database")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(schema, "_run", fail)
        with pytest.raises(KeyboardInterrupt):
            Store.create(tmp_path)
    assert not (tmp_path / "library.db").exists()
    with Store.create(tmp_path) as store:
        assert store.spaces() == []


def test_alembic_is_loaded_only_to_change_a_schema(library: Path):
    code = (
        "import sys\nfrom audiosearch.store.store import Store\n"
        "for write in (False, True): Store.open(sys.argv[1], write=write).close()\n"
        "assert 'alembic' not in sys.modules\nStore.create(sys.argv[2]).close()\nassert 'alembic' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, library, library.with_name("new")], check=True)
