"""Names and metadata as words: what is found, why, and that it is in step with the catalogue whatever happens."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_helpers import MEDIA, file_record, key, spec

from audiosearch.errors import SchemaError
from audiosearch.query.conditions import file_condition
from audiosearch.query.filters import parse_filter
from audiosearch.store import fulltext, schema
from audiosearch.store.records import CommitBatch, DescribedFile, FileMove, FileRecord, RecordingInfo
from audiosearch.store.store import Store
from audiosearch.types import Field, Marker, Metadata

STAT = (1000, 1_700_000_000_123_456_789, 42)
FILES: dict[str, Metadata] = {
    "weather/DOGBark_Rain01.wav": Metadata((Field("title", "Heavy Rain", "tag"), Field("artist", "A. Storm", "tag"))),
    "weather/thunder.wav": Metadata((Field("keyword", "rain", "tag"), Field("keyword", "far away", "tag"))),
    "animals/dogs/a-dog_barking.flac": Metadata(),
    "animals/Öl und Möwe.wav": Metadata((Field("comment", "crying gulls", "tag"),)),
    "field/雨の音.wav": Metadata(),
    "field/take 2.wav": Metadata((Field("date", "2024", "tag"),), (Marker(1.0, None, "door slam", "metal"),)),
}


def add(store: Store, path: str | bytes, metadata: Metadata | None = None, root_id: int = 1) -> None:
    """A file at `path`, of a recording of its own."""
    name = path if isinstance(path, str) else path.decode("latin-1")
    raw = path.encode() if isinstance(path, str) else path
    record = file_record(root_id, "x", name)
    record = FileRecord(root_id, raw, *STAT, record.packet_hash, metadata=metadata)
    store.commit(1, CommitBatch(recordings=[RecordingInfo(key(name), MEDIA)], files=[record]))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "library") as store:
        store.add_space(spec())
        store.add_root("/data")
        for path, metadata in FILES.items():
            add(store, path, metadata)
        yield store


def found(store: Store, words: str, condition: str | None = None) -> list[str]:
    wanted = None if condition is None else file_condition(parse_filter(condition))
    return [match.place[1] for match in store.text_matches(words, condition=wanted)]


def differing(store: Store) -> int:
    with store.connected() as connection:
        return fulltext.differing(connection)


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        ("dog", {"weather/DOGBark_Rain01.wav", "animals/dogs/a-dog_barking.flac"}),
        ("DOGS", {"weather/DOGBark_Rain01.wav", "animals/dogs/a-dog_barking.flac"}),
        ("dogbark", {"weather/DOGBark_Rain01.wav"}),
        ("DogBark", {"weather/DOGBark_Rain01.wav", "animals/dogs/a-dog_barking.flac"}),
        ("rain", {"weather/DOGBark_Rain01.wav", "weather/thunder.wav"}),
        ("rain01", {"weather/DOGBark_Rain01.wav"}),
        ("01", {"weather/DOGBark_Rain01.wav"}),
        ("the sound of thunders", {"weather/thunder.wav"}),
        ("mowe", {"animals/Öl und Möwe.wav"}),
        ("mo\u0308we", {"animals/Öl und Möwe.wav"}),
        ("cry", {"animals/Öl und Möwe.wav"}),
        ("雨", {"field/雨の音.wav"}),
        ("の音", {"field/雨の音.wav"}),
        ("音雨", set()),
        ("take 3", {"field/take 2.wav"}),
        ("slammed doors", {"field/take 2.wav"}),
        ("animals", {"animals/dogs/a-dog_barking.flac", "animals/Öl und Möwe.wav"}),
        ("data", set()),  # the root's own name is above all of its files
        ("wav", set()),
        ("2024", set()),
        ("ain", set()),
        ("a", {"animals/dogs/a-dog_barking.flac", "weather/DOGBark_Rain01.wav"}),  # a small word, and no other
        ("", set()),
        ("!?* --", set()),
    ],
)
def test_words_are_found_in_names_folders_and_metadata(store: Store, words: str, paths: set[str]):
    assert set(found(store, words)) == paths


def test_what_has_all_words_comes_first_and_says_so(store: Store):
    matches = store.text_matches("heavy rain with a dog")
    assert [(each.place, each.is_complete) for each in matches] == [
        (("/data", "weather/DOGBark_Rain01.wav"), True),
        (("/data", "animals/dogs/a-dog_barking.flac"), False),
        (("/data", "weather/thunder.wav"), False),
    ]
    assert matches[0].matched == ("name: DOG Rain", "title: Heavy Rain")
    assert matches[1].matched == ("name: dog", "folder: dogs")
    assert matches[2].matched == ("keyword: rain",)
    assert all(each.score > 0 for each in matches)
    assert store.text_matches("door")[0].matched == ("marker: door",)


def test_ties_are_ordered_by_path_and_the_limit_holds(store: Store):
    for number in (3, 1, 2):
        add(store, f"same/whistle {number}.wav", Metadata())
    matches = store.text_matches("whistle")
    assert [each.place[1] for each in matches] == [f"same/whistle {number}.wav" for number in (1, 2, 3)]
    assert len({each.score for each in matches}) == 1
    assert store.text_matches("whistle", limit=2) == matches[:2]


def test_a_filter_leaves_files_out(store: Store):
    assert found(store, "dog rain", "path:weather") == ["weather/DOGBark_Rain01.wav", "weather/thunder.wav"]
    assert found(store, "dog rain", "-path:weather") == ["animals/dogs/a-dog_barking.flac"]
    assert found(store, "dog rain", "tag:rain") == ["weather/thunder.wav"]


def test_names_that_are_no_text_are_found_by_what_is(store: Store):
    add(store, b"m\xf6we \xff whistle.wav", Metadata())
    (match,) = store.text_matches("whistle \udcff")
    assert match.place[1].encode("utf-8", "surrogateescape") == b"m\xf6we \xff whistle.wav"
    assert match.matched == ("name: whistle",)
    add(store, b"line\nbreak\x02whistling\x1f.wav", None)
    assert len(found(store, "whistle")) == 2


_SIGNS = [*"\"*^():+-.,{}\\'\0\x02\x1f%_@ \ud800é雨", " OR ", " AND ", "NOT ", "NEAR(", " dog ", "name :", "A"]
SIGNS = st.lists(st.sampled_from(_SIGNS)).map("".join)


@given(words=SIGNS | st.text())
@settings(max_examples=300, deadline=None)
def test_nothing_in_the_words_is_a_sign(store_of_all: Store, words: str):
    matches = store_of_all.text_matches(words)
    assert all(match.matched for match in matches)
    if "dog" in words.split():
        assert "animals/dogs/a-dog_barking.flac" in [match.place[1] for match in matches]


@pytest.fixture(scope="module")
def store_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.create(tmp_path_factory.mktemp("all") / "library") as store:
        store.add_space(spec())
        store.add_root("/data")
        for path, metadata in FILES.items():
            add(store, path, metadata)
        yield store


def test_a_file_that_goes_changes_or_moves_is_followed(store: Store):
    assert differing(store) == 0
    add(store, "weather/thunder.wav", Metadata((Field("title", "whistle", "tag"),)))  # the file holds another sound
    assert found(store, "rain") == ["weather/DOGBark_Rain01.wav"] and found(store, "whistle")
    store.describe([DescribedFile(1, b"weather/thunder.wav", STAT, Metadata((Field("title", "gong", "tag"),)))])
    assert found(store, "whistle") == [] and found(store, "gong") == ["weather/thunder.wav"]
    with store.connected() as connection:
        rows = connection.exec_driver_sql("SELECT path, id FROM file").fetchall()
    ids = {path.decode(): id_ for path, id_ in rows}
    store.move_files(1, [FileMove(ids["weather/thunder.wav"], 1, b"calm/breeze.wav", 42)])
    assert found(store, "breeze") == found(store, "gong") == ["calm/breeze.wav"]
    assert found(store, "thunder") == []
    store.add_root("/elsewhere")
    store.move_files(1, [FileMove(ids["weather/thunder.wav"], 2, b"calm/breeze.wav", 42)])
    assert [each.place for each in store.text_matches("gong")] == [("/elsewhere", "calm/breeze.wav")]
    store.relocate_root(2, "/new place")
    assert [each.place for each in store.text_matches("gong")] == [("/new place", "calm/breeze.wav")]
    store.remove_files(1, [(2, b"calm/breeze.wav"), (1, b"weather/DOGBark_Rain01.wav")])
    assert found(store, "gong rain") == []
    assert differing(store) == 0


def test_files_that_take_each_others_places_are_followed(store: Store):
    with store.connected() as connection:
        rows = connection.exec_driver_sql("SELECT path, id FROM file").fetchall()
    ids = {path.decode(): id_ for path, id_ in rows}
    first, second = "weather/thunder.wav", "field/take 2.wav"
    store.move_files(1, [FileMove(ids[first], 1, second.encode(), 1), FileMove(ids[second], 1, first.encode(), 2)])
    assert found(store, "far away") == [second] and found(store, "door") == [first]
    assert found(store, "thunder") == [first] and differing(store) == 0


def test_a_commit_that_fails_leaves_no_words(store: Store, monkeypatch: pytest.MonkeyPatch):
    from audiosearch.store import writing

    def fail(*_: object) -> None:
        raise RuntimeError("half way")

    monkeypatch.setattr(writing, "forget", fail)
    with pytest.raises(RuntimeError):
        add(store, "new/whistle.wav", Metadata())
    with pytest.raises(RuntimeError):
        add(store, "weather/thunder.wav", Metadata())
    monkeypatch.undo()
    assert found(store, "whistle") == [] and "weather/thunder.wav" in found(store, "rain")
    assert differing(store) == 0


def test_an_older_library_is_indexed_by_its_upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A library as schema 0004 made it; what the upgrade writes equals what a commit writes."""
    home = tmp_path / "library"
    home.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "REVISIONS", schema.REVISIONS[: schema.REVISIONS.index("0005")])
        schema.create(home / "library.db")
    with closing(sqlite3.connect(home / "library.db")) as old:
        old.execute("INSERT INTO root (path) VALUES (?)", (b"/data",))
        for number, (path, metadata) in enumerate(FILES.items(), 1):
            row = (key(path), "wav", "pcm_s16le", 8000, 1, 1.0)
            names = "packet_hash, container, codec, sample_rate, channels, duration_seconds"
            old.execute(f"INSERT INTO recording ({names}) VALUES (?, ?, ?, ?, ?, ?)", row)
            row = (path.encode(), *STAT, number)
            old.execute(
                "INSERT INTO file (root_id, path, size, mtime_ns, inode, recording_id) VALUES (1,?,?,?,?,?)", row
            )
            names = "file_id, name, value, folded, source"
            rows = [(number, each.name, each.value, "", each.source) for each in metadata.fields]
            old.executemany(f"INSERT INTO field ({names}) VALUES (?, ?, ?, ?, ?)", rows)
            rows = [(number, each.start_seconds, each.label, each.note) for each in metadata.markers]
            old.executemany("INSERT INTO marker (file_id, start_seconds, label, note) VALUES (?, ?, ?, ?)", rows)
        assert "file_text" not in str(old.execute("SELECT name FROM sqlite_master").fetchall())
        old.commit()
    with Store.open(home, write=True) as upgraded, Store.create(tmp_path / "new") as made:
        made.add_space(spec())
        made.add_root("/data")
        for path, metadata in FILES.items():
            add(made, path, metadata)
        assert _rows(upgraded) == _rows(made)
        assert found(upgraded, "heavy rain")[0] == "weather/DOGBark_Rain01.wav"


def _rows(store: Store) -> list[tuple]:
    with store.connected() as connection:
        return connection.exec_driver_sql("SELECT rowid, * FROM file_text ORDER BY rowid").fetchall()


def test_a_rebuild_changes_nothing(store: Store):
    before = _rows(store)
    with store.changing() as connection:
        connection.exec_driver_sql("UPDATE file_text SET name = 'x' WHERE rowid = 1")
        fulltext.rebuild(connection)
    assert _rows(store) == before and len(before) == len(FILES)


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM file_text WHERE rowid = 2", "INSERT INTO file_text (rowid, name) VALUES (99, 'x')"],
    ids=["missing", "too many"],
)
def test_verify_finds_and_repairs_what_differs(store: Store, damage: str):
    from audiosearch.store import verify

    before = _rows(store)
    assert verify.check(store).problems() == []
    with store.changing() as connection:
        connection.exec_driver_sql(damage)
    (problem,) = verify.repair(store, verify.check(store))
    assert problem.kind == "database" and "1 files" in problem.detail
    assert _rows(store) == before and verify.check(store).problems() == []


def test_a_sqlite_without_full_text_search_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fulltext, "CREATE", fulltext.CREATE.replace("fts5", "fts5_that_is_missing"))
    with pytest.raises(SchemaError, match="no full-text search"):
        Store.create(tmp_path / "library")


def test_words_that_most_files_have_do_not_score(store: Store, monkeypatch: pytest.MonkeyPatch):
    """Beyond a number of files BM25 is not computed: the rarer words decide, and all words still say what is whole."""
    monkeypatch.setattr(fulltext, "_MOST_SCORED", 2)
    for number in range(4):
        add(store, f"many/bell {number}.wav", Metadata((Field("title", "gong", "tag"),) if number == 2 else ()))
    matches = store.text_matches("bell gong")
    assert [(each.place[1], each.is_complete) for each in matches] == [("many/bell 2.wav", True)]
    matches = store.text_matches("bell", limit=3)
    assert [(each.score, each.is_complete, each.matched) for each in matches] == [(0.0, True, ("name: bell",))] * 3


@given(text=st.text())
def test_spread_keeps_every_word(text: str):
    spread = fulltext.spread(text)
    assert "\x02" not in spread and "\x1f" not in spread
    assert fulltext.spread(text) == spread
    if text.isascii() and text.isalpha() and text.islower():
        assert spread == text


@pytest.mark.parametrize(
    ("text", "spread"),
    [
        ("DOGBark_Rain01", "DOGBark DOG Bark_Rain01 Rain 01"),
        ("McDonald's", "McDonalds Mc Donalds"),
        ("HTTPServer2go", "HTTPServer2go HTTP Server 2 go"),
        ("ÄpfelÖl", "ÄpfelÖl Äpfel Öl"),
        ("a plain name", "a plain name"),
        ("雨音A", " 雨  音 A"),
    ],
)
def test_capitals_digits_and_ideographs_divide_words(text: str, spread: str):
    assert fulltext.spread(text).split() == spread.split()
