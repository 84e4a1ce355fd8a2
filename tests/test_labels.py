"""Labels: what they are about, that they outlive what an ingest does, the command, exports, the trainer's layout."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import toy
from store_helpers import DIM, chunks, file_record, key, spec, unit, whole

from audiosearch import Library
from audiosearch.cli import run
from audiosearch.errors import LibraryError, SchemaError, UsageError
from audiosearch.library import Models
from audiosearch.query.remembered import Shown, remember
from audiosearch.store import schema
from audiosearch.store.records import CommitBatch, LabelRecord
from audiosearch.store.store import Store
from audiosearch.trainer.converters import convert
from audiosearch.types import Label

IDS = {"rain": "aaaa00000001", "wind": "aaaa00000002", "door": "bbbb00000003"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three recordings of four chunks each (windows of 10 s, 5 s apart), open to write."""
    store = Store.create(tmp_path / "library")
    store.add_space(spec())
    root = store.add_root("/data")
    for seed, name in enumerate(IDS):
        store.commit(1, whole(root, name, list(unit(seed, 4))))
    return store


@pytest.fixture
def library(store: Store, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same with nobody writing, and hits that were shown."""
    for name in [name for name in os.environ if name.startswith("AUDIOSEARCH_")]:
        monkeypatch.delenv(name)
    store.close()
    shown = [Shown(id_, key(name), 5.0, 15.0, f"{name} outside") for name, id_ in IDS.items()]
    assert remember(store.directory, shown)
    monkeypatch.setenv("AUDIOSEARCH_LIBRARY", str(store.directory))
    return store.directory


def record(name: str, verdict: bool = True, tag: str = "", query: str = "", start: float = 5.0, end: float = 15.0):
    return LabelRecord(key(name), start, end, verdict, tag, query, IDS[name])


def said(labels: list[Label]) -> list[tuple[str, bool, str | None]]:
    return [(each.hit_id, each.verdict, each.about) for each in labels]


def test_the_last_word_about_the_same_thing_counts(store: Store):
    store.add_labels([record("rain", tag="Heavy  rain"), record("rain", False, query="thunder"), record("wind")])
    store.add_labels([record("rain", False, query="heavy RAIN"), record("rain", start=5.0004, tag="thunder")])
    store.add_labels([record("rain", start=6.0, tag="thunder")])  # another span
    assert said(store.labels()) == [
        (IDS["wind"], True, None),
        (IDS["rain"], False, "heavy RAIN"),
        (IDS["rain"], True, "thunder"),
        (IDS["rain"], True, "thunder"),
    ]
    first = store.labels(tag=" heavy  rain")[0]
    assert (first.tag, first.query, first.verdict, first.path) == (None, "heavy RAIN", False, "/data/rain.wav")
    assert first.recording == key("rain").hex()
    assert [each.start_seconds for each in store.labels(hit_prefix="aaaa00000001", tag="Thunder")] == [5.0, 6.0]
    assert said(store.labels(hit_prefix="aaaa")) == said(store.labels())
    assert store.labels(hit_prefix="bbbb") == []
    assert store.remove_labels(IDS["rain"], "THUNDER") == 2
    assert store.remove_labels(IDS["rain"]) == 1
    assert store.remove_labels(IDS["rain"]) == 0
    assert said(store.labels()) == [(IDS["wind"], True, None)]


def test_labels_outlive_files_recordings_and_spaces(store: Store):
    store.add_labels([record("rain", tag="rain")])
    (root, _), *_ = store.roots()
    store.remove_files(1, [(root, b"rain.wav")])
    assert [each.path for each in store.labels()] == [None]
    assert store.judged_vectors(1, "rain").missing == 1
    other = store.add_space(spec("another"), default=True)
    store.drop_space(store.spaces()[0])
    store.commit(other.id, whole(root, "rain", list(unit(9, 4)), path="moved/here.wav"))
    assert [each.path for each in store.labels()] == ["/data/moved/here.wav"]
    found = store.judged_vectors(other.id, "rain")
    np.testing.assert_allclose(found.yes, unit(9, 4)[1:2], atol=1e-3)
    # Of several copies one is shown, always the same.
    store.commit(other.id, CommitBatch(files=[file_record(root, "a/copy.wav", "rain")]))
    assert [each.path for each in store.labels()] == ["/data/a/copy.wav"]


def test_the_vectors_of_a_labelled_span(store: Store):
    vectors = {name: unit(seed, 4) for seed, name in enumerate(IDS)}

    def mean(name: str, *at: int) -> np.ndarray:
        total = vectors[name][list(at)].sum(axis=0)
        return total / np.linalg.norm(total)

    whole_clip = chunks("door", [unit(7, 1)[0]])[0]
    store.commit(1, CommitBatch(chunks=[type(whole_clip)(key("door"), 0.0, 25.0, key("all"), False, unit(7, 1)[0])]))
    for name, start, end, expected in [
        ("rain", 5.0, 15.0, mean("rain", 1)),  # just a chunk's
        ("rain", 6.0, 14.0, mean("rain", 1)),  # a refined moment inside it
        ("rain", 7.0, 8.0, mean("rain", 0, 1)),  # inside two
        ("rain", 5.0, 20.0, mean("rain", 1, 2)),  # two that were merged
        ("rain", 0.0, 25.0, mean("rain", 0, 1, 2, 3)),
        ("door", 0.0, 25.0, unit(7, 1)[0]),  # a whole clip has its own, beside those of its windows
        ("door", 0.0, 9.0, mean("door", 0)),
    ]:
        store.add_labels([record(name, tag="this", start=start, end=end)])
        found = store.judged_vectors(1, "THIS")
        np.testing.assert_allclose(found.yes, expected[None], atol=2e-3, err_msg=f"{name} {start}-{end}")
        assert (found.no.shape, found.missing) == ((0, DIM), 0)
        store.remove_labels(IDS[name])
    store.add_labels([record("rain", tag="this", start=100.0, end=110.0), record("wind", False, tag="this")])
    found = store.judged_vectors(1, "this")
    assert (found.yes.shape, found.missing) == ((0, DIM), 1)
    np.testing.assert_allclose(found.no, vectors["wind"][1:2], atol=1e-3)
    none = store.judged_vectors(1, "that")
    assert (none.yes.shape, none.no.shape, none.missing) == ((0, DIM), (0, DIM), 0)


def test_of_one_sound_the_last_word_counts(store: Store):
    store.add_labels([record("rain", tag="this"), record("wind", False, tag="this")])
    store.add_labels([record("rain", False, tag="this", start=5.5, end=14.5)])  # the same chunk, refined
    found = store.judged_vectors(1, "this")
    assert (len(found.yes), len(found.no)) == (0, 2)


def test_a_label_waits_for_a_commit_and_not_for_an_ingest(store: Store):
    """The writer of `store` holds the library; readers label all the same."""
    with Store.open(store.directory) as reader:
        reader.add_labels([record("rain", tag="rain")])
        assert len(store.labels()) == len(reader.labels()) == 1
        inside, done = threading.Event(), threading.Event()

        def write() -> None:
            inside.wait(10)
            with Store.open(store.directory) as other:
                other.add_labels([record("wind", tag="wind")])
            done.set()

        thread = threading.Thread(target=write)
        thread.start()
        with store.changing() as connection:  # in the middle of a commit
            connection.exec_driver_sql("UPDATE recording SET codec = codec")
            inside.set()
            assert not done.wait(0.3)
        thread.join(30)
        assert done.is_set()
        store.commit(1, whole(1, "again", list(unit(11, 2))))
        assert {each.tag for each in reader.labels()} == {"rain", "wind"}


def test_a_library_that_was_upgraded_meanwhile_is_left_alone(library: Path):
    with Store.open(library) as reader:
        with closing(sqlite3.connect(library / "library.db")) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(SchemaError, match="9999"):
            reader.add_labels([record("rain")])
        assert reader.labels() == []


def test_a_full_disk_is_one_line(library: Path, monkeypatch: pytest.MonkeyPatch):
    with Store.open(library) as reader:

        def full(*_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(schema, "check_current", full)
        with pytest.raises(LibraryError, match="the disk is full"):
            reader.add_labels([record("rain")])


def test_the_library_s_methods(library: Path):
    with Library.open() as opened:
        made = opened.label("hit:aaaa00000001", True)
        assert (made.query, made.tag, made.verdict) == ("rain outside", None, True)
        assert (made.start_seconds, made.end_seconds) == (5.0, 15.0)
        assert opened.label("aaaa00000001", False, "thunder").about == "thunder"
        assert opened.label("aaaa00000001", False, "thunder").about == "thunder"
        assert said(list(opened.labels())) == [(IDS["rain"], True, "rain outside"), (IDS["rain"], False, "thunder")]
        assert said(list(opened.labels("Rain Outside"))) == [(IDS["rain"], True, "rain outside")]
        with pytest.raises(UsageError, match="more than one hit"):
            opened.label("aaaa", True)
        with pytest.raises(UsageError, match="tag is empty"):
            opened.label("aaaa00000001", True, " ")
        with pytest.raises(UsageError, match="no hit bbbb has a label"):
            opened.unlabel("bbbb")
        opened.label("aaaa00000002", True, "thunder")
        with pytest.raises(UsageError, match=r"more digits of aaaa00000001, aaaa00000002"):
            opened.unlabel("aaaa")
        assert said(list(opened.unlabel("aaaa00000001", "Thunder"))) == [(IDS["rain"], False, "thunder")]
        assert len(opened.unlabel("aaaa00000001")) == 1
        assert len(opened.labels()) == 1


def printed(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> str:
    assert run(["label", *argv]) == code
    streams = capsys.readouterr()
    return streams.out if code == 0 else streams.err


def test_the_command(library: Path, capsys: pytest.CaptureFixture[str]):
    out = printed(capsys, "aaaa00000001", "bbbb", "YES")
    assert out.splitlines() == [
        "aaaa00000001  yes  (rain outside)  00:05.0-00:15.0  /data/rain.wav",
        "bbbb00000003  yes  (door outside)  00:05.0-00:15.0  /data/door.wav",
    ]
    made = json.loads(printed(capsys, "aaaa00000002", "no", "heavy rain", "--json"))
    assert made["version"] == 1
    assert made["labels"][0] == {
        "hit_id": "aaaa00000002",
        "verdict": False,
        "tag": "heavy rain",
        "query": None,
        "path": "/data/wind.wav",
        "start_seconds": 5.0,
        "end_seconds": 15.0,
        "recording": key("wind").hex(),
        "created_at": made["labels"][0]["created_at"],
    }
    assert len(printed(capsys, "--list").splitlines()) == 3
    assert len(json.loads(printed(capsys, "--list", "--tag", "Heavy Rain", "--json"))["labels"]) == 1
    assert "aaaa00000002  no " in printed(capsys, "--remove", "aaaa00000002")
    assert len(printed(capsys, "--list").splitlines()) == 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "audiosearch label HIT yes|no"),
        (["aaaa00000001"], "audiosearch label HIT yes|no"),
        (["yes", "rain"], "audiosearch label HIT yes|no"),
        (["aaaa00000001", "yes", "heavy", "rain"], 'in quotes: "heavy rain"'),
        (["aaaa00000001", "yes", "--tag", "rain"], "the tag goes to the end"),
        (["--list", "--remove", "aaaa00000001"], "exclude each other"),
        (["--list", "aaaa00000001"], "takes no hits"),
        (["--remove"], "say which hits"),
        (["--export", "labels.wav"], "choose such a name"),
        (["cccc", "yes"], "run the query"),
    ],
)
def test_slips_are_answered(library: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str):
    assert message in printed(capsys, *argv, code=2)
    with Store.open(library) as store:
        assert store.labels() == []


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exports of a library of two real files, one of which went after it was labelled. Read only."""
    folder = tmp_path_factory.mktemp("exported")
    sounds = folder / "so, unds"
    sounds.mkdir()
    for name, frequency in (("low", 100), ("high", 4000)):
        toy.write_wav(sounds / f"{name}.wav", toy.tone(frequency, 3.0))
    hand = Models(toy.description, lambda name, **_: toy.HandEmbedder())
    with Library.open(folder / "library", create=True, models=hand) as library:
        library.ingest([sounds])
        low, high = (library.query(text).hits[0] for text in ("hum", "whistle"))
        with Store.open(library.directory) as store:
            of = {chunk.recording_id: chunk.packet_hash for chunk in store.resolve([1, 2])}
        shown = [Shown(hit.id, of[hit.recording_id], 0.5, 2.5, "a low hum") for hit in (low, high)]
        assert remember(library.directory, shown)
        library.label(low, True, "mains hum")
        library.label(low, True)
        library.label(low, True, "fridge")
        library.label(low, False, "wind")
        library.label(high, True, "kettle")
    for extension in ("json", "ndjson", "csv"):
        assert (
            run(["label", "--library", str(folder / "library"), "--export", str(folder / f"labels.{extension}")]) == 0
        )
    (sounds / "high.wav").unlink()
    return folder


@pytest.mark.parametrize("extension", ["json", "ndjson", "csv"])
def test_the_trainer_reads_an_export(exported: Path, extension: str):
    done = convert("labels", exported / f"labels.{extension}")
    assert len(done.rows) == 1
    row = done.rows[0]
    assert Path(row.audio) == exported / "so, unds" / "low.wav"
    assert (row.text, row.alternatives) == ("mains hum", ("a low hum", "fridge"))
    assert (row.start_seconds, row.end_seconds, row.source) == (0.5, 2.5, "labels")
    assert done.notes[0] == "labels: 1 said not to be it, left out"
    assert "the sound of 1 is not there" in done.notes[1]


def test_labels_of_sound_that_is_elsewhere_now(exported: Path, tmp_path: Path):
    table = tmp_path / "labels.json"
    table.write_text((exported / "labels.json").read_text().replace("so, unds", "gone"))
    with pytest.raises(UsageError, match="nothing to train on: the sound of 4 is not there"):
        convert("labels", table)
    (tmp_path / "moved" / "deep").mkdir(parents=True)
    shutil.copy(exported / "so, unds" / "low.wav", tmp_path / "moved" / "deep" / "low.wav")
    done = convert("labels", table, tmp_path / "moved" / "deep")
    assert [done.root / row.audio for row in done.rows] == [tmp_path / "moved" / "deep" / "low.wav"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "perhaps"}, "label 1: verdict is 'perhaps'"),
        ({"start_seconds": None}, "label 1: start_seconds is None"),
        ({"end_seconds": 0.25}, "label 1: the span 0.5-0.25 s"),
        ({"verdict": False}, "no label says yes"),
    ],
)
def test_what_is_no_export_is_refused(exported: Path, tmp_path: Path, change: dict[str, object], message: str):
    first = (exported / "labels.ndjson").read_text().splitlines()[0]
    table = tmp_path / "changed.ndjson"
    table.write_text(json.dumps({**json.loads(first), **change}) + "\n")
    with pytest.raises(UsageError, match=message):
        convert("labels", table)
