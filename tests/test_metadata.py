"""What files say of themselves: read from real files, kept in step with them, and never the reason for a failure."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
from make_media import sound, write
from store_helpers import spec, unit, whole

from audiosearch.audio import packet_hash
from audiosearch.errors import MediaError
from audiosearch.file_names import name_fields, name_moment, with_name
from audiosearch.ingest.pipeline import ingest
from audiosearch.metadata import MAX_MARKERS, metadata_of
from audiosearch.model.fingerprint import space_spec
from audiosearch.store import schema
from audiosearch.store.records import CommitBatch, DescribedFile, FileMove
from audiosearch.store.store import Store
from audiosearch.types import Field, Marker, Metadata

IXML = """<?xml version="1.0" encoding="UTF-8"?><BWFXML><PROJECT>Stürme</PROJECT><SCENE>12A</SCENE><TAKE>3</TAKE>
<NOTE>wind &amp; rain</NOTE><SPEED><TIMECODE_RATE>25/1</TIMECODE_RATE></SPEED>
<TRACK_LIST><TRACK><NAME>Boom</NAME></TRACK><TRACK><NAME/></TRACK><TRACK><NAME>Lav 1</NAME></TRACK></TRACK_LIST>
<USER><CATID>RAINConc</CATID><KEYWORDS>rain, heavy</KEYWORDS></USER></BWFXML>"""


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def bext(description: bytes = b"a storm", day: bytes = b"2023-07-14", time: bytes = b"05:30:00") -> bytes:
    """EBU Tech 3285: text, originator, reference, date, time, samples since midnight, version, the rest, history."""
    head = struct.pack("<256s32s32s10s8sQH", description, b"Recorder", b"REF1", day, time, 48_000 * 3600 * 5, 1)
    return chunk(b"bext", head + bytes(64 + 10 + 180) + b"A=PCM,F=48000\r\n")


def cues(*points: tuple[int, int], adtl: bytes = b"") -> bytes:
    """(name, sample) points and their list of labels."""
    rows = b"".join(struct.pack("<II4sIII", name, at, b"data", 0, 0, at) for name, at in points)
    return chunk(b"cue ", struct.pack("<I", len(points)) + rows) + chunk(b"LIST", b"adtl" + adtl)


def wav(path: Path, *before: bytes, after: bytes = b"", rate: int = 8000, data_size: int | None = None) -> Path:
    samples = np.round(sound(1.0, rate)[0] * 20_000).astype("<i2").tobytes()
    form = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
    body = b"WAVE" + chunk(b"fmt ", form) + b"".join(before) + chunk(b"data", samples, data_size) + after
    path.write_bytes(chunk(b"RIFF", body))
    return path


def read(path: Path) -> tuple[Metadata, list[str]]:
    warnings: list[str] = []
    return metadata_of(str(path), warnings), warnings


def values(metadata: Metadata, name: str) -> list[str]:
    return [field.value for field in metadata.fields if field.name == name]


# ── names ──


def test_ucs_names():
    found = {f.name: f.value for f in name_fields("/x/GUNAuto-EXT_UZI 9mm-Rapid Fire_TN_NONE_416-MKH8040-Dual_2.wav")}
    assert found == {
        "cat_id": "GUNAuto",
        "user_category": "EXT",
        "vendor_category": "UZI 9mm",
        "fx_name": "Rapid Fire",
        "creator_id": "TN",
        "source_id": "NONE",
        "user_data": "416-MKH8040-Dual_2",
    }
    assert [f.name for f in name_fields("DOORWood_Slam_TN_DORY.wav")] == [
        "cat_id",
        "fx_name",
        "creator_id",
        "source_id",
    ]
    for other in ("IMG_1_2_3.wav", "DOORWood_Slam_TN.wav", "doorwood_a_b_c.wav", "take_1_of_3_b.wav", ".wav", ""):
        assert name_fields(other) == ()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("20190115_063000.WAV", "2019-01-15T06:30:00"),
        ("24F31901_20230714_053000T.WAV", "2023-07-14T05:30:00"),
        ("SMM01_20230714_053000.wav", "2023-07-14T05:30:00"),
        ("20191026T000000+1000_REC.flac", "2019-10-26T00:00:00+10:00"),
        ("2023-07-14T05:30:00Z.wav", "2023-07-14T05:30:00+00:00"),
        ("230714-053000.wav", "2023-07-14T05:30:00"),
        ("WhatsApp Audio 2021-07-14 at 05.30.00.ogg", "2021-07-14T05:30:00"),
        ("AUD-20210714-WA0001.m4a", "2021-07-14"),
        ("Meeting 2021-07-14.m4a", "2021-07-14"),
        ("5C3D7E58.WAV", "2019-01-15T06:31:52+00:00"),
        ("12345678.wav", None),
        ("20231345_993000.wav", None),
        ("1-100032-A-0.wav", None),
        ("19700101_000000.wav", None),
    ],
)
def test_recorders_names(name: str, expected: str | None):
    assert name_moment(f"/some/2001-01-01/{name}") == expected


def test_another_name_replaces_what_the_old_one_said_and_nothing_else():
    inside = Metadata((Field("title", "Slam", "tag"), Field("cat_id", "DOORWood", "ixml")))
    first = with_name(inside, "DOORWood_Slam_TN_DORY 2023-07-14.wav")
    assert values(first, "cat_id") == ["DOORWood"] and values(first, "creator_id") == ["TN"]
    assert (first.recorded_at, first.recorded_at_source) == ("2023-07-14", "name")
    assert with_name(first, "slam.wav") == inside
    dated = Metadata(recorded_at="2020-01-01", recorded_at_source="bext")
    assert with_name(dated, "2023-07-14.wav") == dated


# ── WAV ──


def test_the_chunks_of_a_wav_file(tmp_path: Path):
    adtl = chunk(b"labl", struct.pack("<I", 1) + b"splash\0") + chunk(b"note", struct.pack("<I", 1) + b"by the pier\0")
    # A region longer than 65,535 samples, with a text: wavinfo 4.0 takes a byte of its length for a code page.
    adtl += chunk(b"ltxt", struct.pack("<II4sHHHH", 2, 70_000, b"rgn ", 0, 0, 0, 0) + b"text\0")
    info = chunk(b"LIST", b"INFO" + chunk(b"INAM", "Café".encode("cp1252")) + chunk(b"IKEY", b"sea; storm\0"))
    path = wav(
        tmp_path / "a.wav",
        bext("Sturm über See".encode()),
        chunk(b"iXML", IXML.encode()),
        after=info + cues((2, 6000), (1, 4000), adtl=adtl),
    )
    metadata, warnings = read(path)
    assert warnings == []
    assert metadata.recorded_at == "2023-07-14T05:30:00" and metadata.recorded_at_source == "bext"
    assert metadata.time_reference_samples == 48_000 * 3600 * 5
    assert metadata.markers == (
        Marker(0.5, None, "splash", "by the pier"),
        Marker(0.75, 0.75 + 70_000 / 8000),
    )
    expected = {
        "description": ["Sturm über See"],
        "originator": ["Recorder"],
        "originator_reference": ["REF1"],
        "coding_history": ["A=PCM,F=48000"],
        "project": ["Stürme"],
        "scene": ["12A"],
        "take": ["3"],
        "note": ["wind & rain"],
        "timecode_rate": ["25/1"],
        "track_name": ["Boom", "Lav 1"],
        "cat_id": ["RAINConc"],
        "keyword": ["rain", "heavy", "sea", "storm"],
        "title": ["Café"],
    }
    assert {name: values(metadata, name) for name in {f.name for f in metadata.fields}} == expected


def test_one_damaged_chunk_costs_one_line_and_no_other_chunk(tmp_path: Path):
    broken = chunk(b"cue ", struct.pack("<I", 1000) + b"far too short")
    path = wav(tmp_path / "a.wav", chunk(b"bext", b"short"), chunk(b"iXML", b"<BWFXML><SCENE>7</SC"), after=broken)
    metadata, warnings = read(path)
    assert values(metadata, "scene") == ["7"]
    assert len(warnings) == 2 and "bext" in warnings[0] and "cue" in warnings[1]
    assert metadata.markers == () and metadata.recorded_at is None
    path = wav(tmp_path / "b.wav", bext(day=b"0000-00-00", time=b"00:00:00"), chunk(b"iXML", b"\xff\xfe no xml at all"))
    metadata, _ = read(path)
    assert metadata.recorded_at is None and values(metadata, "description") == ["a storm"]


@pytest.mark.parametrize("data_size", [0, 0xFFFFFFFF, 1_000_000])
def test_a_recording_that_was_cut_off_still_says_what_it_is(tmp_path: Path, data_size: int):
    metadata, _ = read(wav(tmp_path / "a.wav", bext(), data_size=data_size))
    assert metadata.recorded_at == "2023-07-14T05:30:00" and values(metadata, "originator") == ["Recorder"]


def test_hostile_chunks_cost_nothing(tmp_path: Path):
    bomb = '<!DOCTYPE b [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {b} "{"&" + a + ";" * 1}{"&" + a + ";"}{"&" + a + ";"}">'
        for a, b in zip("abcdefghijklmn", "bcdefghijklmno", strict=True)
    )
    entity = bomb + "]><BWFXML><SCENE>&o;</SCENE><TAKE>1</TAKE></BWFXML>"
    outside = '<!DOCTYPE b [<!ENTITY x SYSTEM "file:///etc/hostname">]><BWFXML><SCENE>&x;</SCENE></BWFXML>'
    for name, text in (("bomb", entity), ("outside", outside)):
        metadata, _ = read(wav(tmp_path / f"{name}.wav", chunk(b"iXML", text.encode())))
        assert all(len(scene) <= 4000 and "a" * 5000 not in scene for scene in values(metadata, "scene"))
    assert values(metadata, "scene") == []
    many = b"".join(chunk(b"junk", b"") for _ in range(5000))
    assert read(wav(tmp_path / "many.wav", bext(), after=many))[0].recorded_at is not None
    claims = wav(tmp_path / "claims.wav", after=chunk(b"iXML", b"<BWFXML/>", size=0xFFFFFFF0))
    assert read(claims)[0].fields == ()
    points = cues(*((i, i) for i in range(MAX_MARKERS + 50)))
    assert len(read(wav(tmp_path / "points.wav", after=points))[0].markers) == MAX_MARKERS
    odd = chunk(b"LIST", b"INFO" + chunk(b"INAM", b"one\nline\x07 \xff\xfe\0rest"))
    assert values(read(wav(tmp_path / "odd.wav", odd))[0], "title") == ["one\nline ÿþ"]


def test_an_audiomoth_says_when_and_in_which_zone(tmp_path: Path):
    comment = b"Recorded at 19:17:30 13/07/2022 (UTC-3:30) by AudioMoth 24F319055FDF28B4 at medium gain"
    info = chunk(b"LIST", b"INFO" + chunk(b"ICMT", comment + b"\0") + chunk(b"IART", b"AudioMoth 24F319055FDF28B4\0"))
    metadata, _ = read(wav(tmp_path / "20000101_000000.WAV", info))
    assert (metadata.recorded_at, metadata.recorded_at_source) == ("2022-07-13T19:17:30-03:30", "info")


def test_no_damage_raises_anything_but_a_media_error(tmp_path: Path):
    rng = np.random.default_rng(5)
    adtl = chunk(b"labl", struct.pack("<I", 1) + b"splash\0")
    info = chunk(b"LIST", b"INFO" + chunk(b"INAM", b"Title\0"))
    whole_file = wav(tmp_path / "a.wav", bext(), chunk(b"iXML", IXML.encode()), info, cues((1, 10), adtl=adtl))
    content = np.frombuffer(whole_file.read_bytes(), np.uint8)
    damaged, read_well = tmp_path / "b.wav", 0
    for _ in range(150):
        changed = content.copy()
        places = rng.integers(0, 2200, rng.integers(1, 30))  # the chunks before the sound
        changed[places] = rng.choice([0, 0xFF, 0x7F, 0x20], len(places))
        damaged.write_bytes(changed[: rng.integers(200, len(changed))].tobytes())
        try:
            metadata, _ = read(damaged)
        except MediaError:
            continue
        read_well += bool(metadata.fields)
    assert read_well > 50


# ── other containers; mutagen and FFmpeg write what PyAV has to read ──


def test_tags_of_every_container_have_the_same_names(tmp_path: Path):
    tags = {"title": "Tïtle", "artist": "A;B", "album": "Alb", "comment": "Com", "genre": "Gen", "date": "2021"}
    for name, codec in {
        "a.flac": "flac",
        "a.mp3": "libmp3lame",
        "a.m4a": "aac",
        "a.opus": "libopus",
        "a.mkv": "flac",
        "a.wv": "wavpack",
        "a.wav": "pcm_s16le",
    }.items():
        path = write(tmp_path / name, sound(0.5, 48000), 48000, codec=codec, tags={**tags, "keywords": "rain, wind"})
        metadata, warnings = read(path)
        found = {field.name: values(metadata, field.name) for field in metadata.fields}
        keywords = {} if name == "a.wav" else {"keyword": ["rain", "wind"]}  # FFmpeg writes none there
        single = {key: [value] for key, value in tags.items()} | {"artist": ["A", "B"]}
        assert (found, warnings) == ({**single, **keywords}, []), name
        assert metadata.recorded_at is None  # a year is when something was published


def test_what_mutagen_writes_is_read(tmp_path: Path):
    mutagen = pytest.importorskip("mutagen")
    from mutagen import id3

    mp3 = write(tmp_path / "a.mp3", sound(0.5), codec="libmp3lame")
    tagged: Any = id3.ID3()
    tagged.add(id3.TIT2(encoding=1, text=["Ночь"]))
    tagged.add(id3.COMM(encoding=3, lang="eng", desc="", text=["quiet"]))
    tagged.add(id3.TXXX(encoding=3, desc="Microphone", text=["MKH 8040"]))
    tagged.add(
        id3.CHAP(element_id="c1", start_time=100, end_time=300, sub_frames=[id3.TIT2(encoding=3, text=["Bell"])])
    )
    tagged.save(mp3)
    metadata, _ = read(mp3)
    assert values(metadata, "title") == ["Ночь"] and values(metadata, "comment") == ["quiet"]
    assert values(metadata, "microphone") == ["MKH 8040"]
    assert metadata.markers == (Marker(0.1, 0.3, "Bell"),)
    flac = write(tmp_path / "a.flac", sound(0.5), codec="flac")
    file = mutagen.File(flac)
    file["artist"], file["KEYWORDS"] = ["One", "Two"], ["rain", "storm"]
    file.save()
    assert values(read(flac)[0], "artist") == ["One", "Two"] and values(read(flac)[0], "keyword") == ["rain", "storm"]


def test_quicktimes_creation_date(tmp_path: Path):
    path = write(
        tmp_path / "a.m4a", sound(0.5), codec="aac", tags={"creation_time": "2023-07-14T03:30:00Z", "date": "2001"}
    )
    metadata, _ = read(path)
    assert (metadata.recorded_at, metadata.recorded_at_source) == ("2023-07-14T03:30:00+00:00", "tag")


def test_what_is_no_sound_raises(tmp_path: Path):
    (tmp_path / "a.wav").write_text("no sound")
    with pytest.raises(MediaError):
        read(tmp_path / "a.wav")


# ── the catalogue ──

SAID = Metadata(
    (Field("title", "Regen", "tag"), Field("keyword", "b", "tag"), Field("keyword", "A", "tag")),
    (Marker(1.0, 2.0, "drop", "loud"), Marker(3.0)),
    "2023-07-14T05:30:00",
    "bext",
    123,
)


@pytest.fixture
def store(tmp_path: Path):
    with Store.create(tmp_path / "library") as made:
        made.add_space(spec())
        made.add_root("/data")
        yield made


def said(store: Store, *paths: str) -> list[Metadata | None]:
    found = store.metadata({("/data", path) for path in paths})
    return [found.get(("/data", path)) for path in paths]


def with_metadata(name: str, metadata: Metadata | None, path: str | None = None) -> CommitBatch:
    from dataclasses import replace

    batch = whole(1, name, list(unit(len(name), 1)), path)
    return replace(batch, files=[replace(batch.files[0], metadata=metadata)])


def rows(store: Store, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(store.directory / "library.db")) as connection:
        return connection.execute(sql).fetchall()


def test_metadata_goes_with_its_file(store: Store):
    store.commit(1, with_metadata("rain", SAID))
    store.commit(1, with_metadata("wind", None))
    store.commit(1, with_metadata("sun", Metadata()))
    assert said(store, "rain.wav", "wind.wav", "sun.wav", "none.wav") == [SAID, None, Metadata(), None]
    described = {path: state.described for path, state in store.file_states(1, 1).items()}
    assert described == {b"rain.wav": True, b"wind.wav": False, b"sun.wav": True}
    assert rows(store, "SELECT folded FROM field ORDER BY id") == [("regen",), ("b",), ("a",)]
    other = Metadata((Field("title", "Wind", "tag"),))
    stat = (1000, 1_700_000_000_123_456_789, 42)
    stale = DescribedFile(1, b"sun.wav", (999, *stat[1:]), other)
    store.describe([DescribedFile(1, b"wind.wav", stat, other, "one tag was damaged"), stale])
    assert said(store, "wind.wav", "sun.wav") == [other, Metadata()]
    assert rows(store, "SELECT warning FROM file WHERE path = CAST('wind.wav' AS BLOB)") == [("one tag was damaged",)]
    store.commit(1, with_metadata("snow", other, path="rain.wav"))  # the path holds another recording now
    assert said(store, "rain.wav") == [other]
    assert rows(store, "SELECT count(*) FROM field") == [(2,)] and rows(store, "SELECT count(*) FROM marker") == [(0,)]


def test_a_moved_file_is_known_by_its_new_name(store: Store):
    first = with_name(SAID, "DOORWood_Slam_TN_DORY.wav")
    store.commit(1, with_metadata("rain", first, path="DOORWood_Slam_TN_DORY.wav"))
    store.move_files(1, [FileMove(1, 1, b"below/DOORWood_Slam_TN_DORY.wav", 42)])
    assert said(store, "below/DOORWood_Slam_TN_DORY.wav") == [first]
    store.move_files(1, [FileMove(1, 1, b"GUNAuto_Shot_TN_NEMO.wav", 42)])
    assert said(store, "GUNAuto_Shot_TN_NEMO.wav") == [with_name(SAID, "GUNAuto_Shot_TN_NEMO.wav")]
    assert rows(store, "SELECT count(*) FROM field WHERE name = 'cat_id'") == [(1,)]


def test_filters_find_an_index(store: Store):
    """What filters will ask: no pass over all rows."""
    for query, index in {
        "SELECT file_id FROM field WHERE name = 'scene' AND folded = '12a'": "ix_field_name_folded",
        "SELECT id FROM field WHERE name = 'cat_id' AND folded >= 'door' AND folded < 'doos'": "ix_field_name_folded",
        "SELECT id FROM file WHERE recorded_at >= '2023-07' AND recorded_at < '2023-08'": "ix_file_recorded_at",
        "SELECT id FROM recording WHERE duration_seconds BETWEEN 2 AND 5": "ix_recording_duration_seconds",
    }.items():
        plan = rows(store, f"EXPLAIN QUERY PLAN {query}")
        assert f"INDEX {index}" in str(plan), plan


# ── ingest ──


def no_model() -> Any:
    raise AssertionError("the model was loaded")


def run(store: Store, folder: Path, load: Any = toy.HandEmbedder) -> Any:
    return ingest(store, toy.description(), load, [str(folder)], window_seconds=10.0, hop_seconds=5.0, workers=1)


def test_retagging_costs_no_model_and_damaged_metadata_no_file(tmp_path: Path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    wav(folder / "RAINConc_Yard_TN_STORM.wav", bext(), chunk(b"iXML", IXML.encode()))
    wav(folder / "broken.wav", chunk(b"bext", b"short"), rate=4000)
    with Store.create(tmp_path / "library") as store:
        summary = run(store, folder)
        assert (summary.files_indexed, summary.failed) == (2, ())
        assert len(summary.warnings) == 1 and "broken.wav: its bext chunk" in summary.warnings[0]
        info = store.file_info(str(folder / "RAINConc_Yard_TN_STORM.wav"))
        assert info is not None and info.metadata is not None
        assert values(info.metadata, "scene") == ["12A"] and values(info.metadata, "creator_id") == ["TN"]
        assert (info.codec, info.sample_rate, info.channels) == ("pcm_s16le", 8000, 1)
        before = info.recording_id
        wav(folder / "RAINConc_Yard_TN_STORM.wav", bext(b"another text", day=b"2024-02-29"))
        os.utime(folder / "RAINConc_Yard_TN_STORM.wav", ns=(1, 1))
        summary = run(store, folder, no_model)
        assert (summary.files_indexed, summary.recordings_shared, summary.chunks_embedded) == (1, 1, 0)
        info = store.file_info(str(folder / "RAINConc_Yard_TN_STORM.wav"))
        assert info is not None and info.metadata is not None and info.recording_id == before
        assert values(info.metadata, "description") == ["another text"] and values(info.metadata, "scene") == []
        assert info.metadata.recorded_at == "2024-02-29T05:30:00"
        assert store.file_info(str(folder / "absent.wav")) is None


def test_an_older_library_gets_its_metadata_without_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A library as schema 0001 made it: upgraded, then described by the next ingest, once."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    file = wav(folder / "a.wav", bext(), chunk(b"iXML", IXML.encode()))
    home = tmp_path / "library"
    home.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "REVISIONS", ("0001",))
        schema.create(home / "library.db")
    space = space_spec(toy.description(), instruction=None, window_seconds=10.0, hop_seconds=5.0)
    stat = file.stat()
    with closing(sqlite3.connect(home / "library.db")) as old:
        assert "metadata_version" not in str(old.execute("SELECT sql FROM sqlite_master").fetchall())
        old.execute("INSERT INTO root (path) VALUES (?)", (os.fsencode(folder),))
        sound_row = (packet_hash(str(file)), "wav", "pcm_s16le", 8000, 1, 1.0)
        old.execute(
            "INSERT INTO recording (packet_hash, container, codec, sample_rate, channels, duration_seconds) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            sound_row,
        )
        old.execute(
            "INSERT INTO file (root_id, path, size, mtime_ns, inode, recording_id) VALUES (1, ?, ?, ?, ?, 1)",
            (b"a.wav", stat.st_size, stat.st_mtime_ns, stat.st_ino),
        )
        names = list(type(space).__dataclass_fields__)
        marks = ", ".join("?" * len(names))
        values_ = [getattr(space, name) for name in names]
        old.execute(f"INSERT INTO space ({', '.join(names)}, is_default) VALUES ({marks}, 1)", values_)
        old.execute("INSERT INTO coverage (space_id, recording_id) VALUES (1, 1)")
        old.commit()
    with Store.open(home, write=True) as store:
        assert store.metadata({(str(folder), "a.wav")}) == {}
        summary = run(store, folder, no_model)
        assert (summary.files_unchanged, summary.files_indexed, summary.warnings) == (1, 0, ())
        found = store.metadata({(str(folder), "a.wav")})[str(folder), "a.wav"]
        assert values(found, "take") == ["3"] and found.recorded_at == "2023-07-14T05:30:00"
        shutil.copyfile(file, folder / "b.wav")
        assert run(store, folder, no_model).recordings_shared == 1
        assert all(state.described for state in store.file_states(1, 1).values())
