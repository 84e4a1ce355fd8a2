"""Filters: what is read, what is refused and where, and that the catalogue answers as a walk over all files does."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import select
from store_helpers import DIM, chunks, file_record, key, spec, unit

from audiosearch.errors import QuerySyntaxError
from audiosearch.query import conditions
from audiosearch.query.filters import (
    FIELDS,
    MAX_CHARACTERS,
    MAX_DEPTH,
    MAX_VALUES,
    RANGES,
    STORED,
    AllOf,
    AnyOf,
    Filter,
    Not,
    Pattern,
    Within,
    Words,
    parse_filter,
)
from audiosearch.query.ranges import Bounds, channels, date, duration, sample_rate
from audiosearch.store import tables
from audiosearch.store.records import (
    ChunkRecord,
    CommitBatch,
    FileRecord,
    FinishedRecording,
    LabelRecord,
    RecordingInfo,
)
from audiosearch.store.store import Store
from audiosearch.types import Field, Marker, MediaInfo, Metadata, Space

ROOTS = ("/sounds", "/mnt/Ärchiv (2)")
LONG = "dusk " * 60 + "Owl"  # what is stored without case ends before the owl


@dataclass(frozen=True)
class Item:
    """One file, as a judge sees it."""

    root: str
    path: bytes
    recording: str
    fields: tuple[tuple[str, str], ...] = ()
    markers: tuple[tuple[str, str], ...] = ()  # label, note
    recorded_at: str | None = None
    container: str = "wav"
    codec: str = "pcm_s16le"
    sample_rate: int = 48_000
    channels: int = 2
    duration: float | None = 12.0


ITEMS = (
    Item(ROOTS[0], b"birds/dawn/Rain_Heavy-01.wav", "a", (("keyword", "rain"), ("keyword", "Heavy Rain"))),
    Item(ROOTS[0], b"birds/Train 10.WAV", "b", (("title", "The Night Train"), ("scene", "12A"), ("take", "3"))),
    Item(ROOTS[0], b"birds dawn.wav", "c", (("comment", LONG),), recorded_at="2024-05-03T05:30:00", duration=9.5),
    Item(ROOTS[0], "Straße/Über den Dächern.flac".encode(), "d", (("artist", "ÉLAN"), ("keyword", "Straße")),
         container="flac", codec="flac", channels=1, sample_rate=44_100, duration=30.0),
    Item(ROOTS[0], unicodedata.normalize("NFD", "Straße/über’s Café.wav").encode(), "e", recorded_at="2024-07-31",
         duration=10.49),
    Item(ROOTS[0], b"field/\xff\xfe rain.wav", "f", (("bpm", "120"), ("keyword", "wind, rain")), duration=None),
    Item(ROOTS[1], b"DOORWood_Knock Slow_ABC_001.wav", "g", (("cat_id", "DOORWood"), ("fx_name", "Knock Slow"))),
    Item(ROOTS[1], b"birds/dawn/copy of a.wav", "a", (("keyword", "copy"),), recorded_at="2024-06-01T00:00:00+02:00"),
    Item(ROOTS[1], b"clips/movie.mp4", "h", (("title", "100% *real*"), ("note", 'says "hi"')),
         (("Rain starts", ""), ("", "the door")), container="mov,mp4,m4a,3gp,3g2,mj2", codec="aac", channels=6,
         sample_rate=96_000, duration=3_600.0, recorded_at="2023-12-31T23:59:59"),
    Item(ROOTS[1], b"a-b_c--d\n.wav", "i", (("take", "10"), ("scene", "12"), ("genre", "drone")), duration=0.3),
    Item(ROOTS[1], "Sturm–Regen.ogg".encode(), "j", (("album", "-dash"),), codec="vorbis", container="ogg"),
)  # fmt: skip


@dataclass
class Catalogue:
    store: Store
    space: Space
    items: dict[int, Item]  # by file id

    def files(self, filter_: Filter) -> set[int]:
        """Ids of the files that the database says fit."""
        with self.store.connected() as connection:
            query = select(tables.file.c.id).where(conditions.file_condition(filter_))
            return set(connection.execute(query).scalars())

    def paths(self, text: str) -> set[bytes]:
        return {self.items[id_].path for id_ in self.files(parse_filter(text))}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalogue]:
    """Read only."""
    with Store.create(tmp_path_factory.mktemp("filters") / "library") as store:
        space = store.add_space(spec(), default=True)
        other = store.add_space(spec("another"))
        roots = {path: store.add_root(path) for path in ROOTS}
        recordings: list[RecordingInfo] = []
        spans: list[ChunkRecord] = []
        finished: list[FinishedRecording] = []
        files: list[FileRecord] = []
        for number, item in enumerate(ITEMS):
            if all(item.recording != before.recording for before in ITEMS[:number]):
                info = MediaInfo("", item.container, item.codec, item.sample_rate, item.channels, None)
                recordings.append(RecordingInfo(key(item.recording), info))
                spans.extend(chunks(item.recording, list(unit(number, 2))))
                if item.duration is not None:
                    finished.append(FinishedRecording(key(item.recording), item.duration))
            fields = tuple(Field(name, value, "tag") for name, value in item.fields)
            markers = tuple(Marker(1.0, None, label, note) for label, note in item.markers)
            said = Metadata(fields, markers, item.recorded_at, "tag" if item.recorded_at else None)
            record = file_record(roots[item.root], "", item.recording)
            files.append(replace(record, path=item.path, metadata=said))
        store.commit(space.id, CommitBatch(recordings=recordings, chunks=spans, finished=finished, files=files))
        store.commit(other.id, CommitBatch(chunks=chunks("a", list(unit(0, 2)))))
        with store.connected() as connection:
            query = select(tables.file.c.id, tables.root.c.path, tables.file.c.path).join(tables.root)
            by_place = {(item.root.encode(), item.path): item for item in ITEMS}
            items = {id_: by_place[folder, path] for id_, folder, path in connection.execute(query)}
        yield Catalogue(store, space, items)


# ── the judge: no regular expressions, no database ──


def fold(text: str) -> str:
    return unicodedata.normalize("NFC", text.casefold())


def path_text(path: bytes) -> str:
    return unicodedata.normalize("NFC", path.decode("utf-8", "surrogateescape")).lower()


def ends_of(pieces: tuple[str, ...], text: str, start: int) -> set[int]:
    """Where the pieces, in order and with anything between, can end; a blank is any run of separators."""

    def ends(piece: str, at: int) -> list[int]:
        for index, char in enumerate(piece):
            if char == " ":
                stop = at
                while stop < len(text) and not text[stop].isalnum():
                    stop += 1
                return [end for cut in range(at + 1, stop + 1) for end in ends(piece[index + 1 :], cut)]
            if not text.startswith(char, at):
                return []
            at += 1
        return [at]

    reached = set(ends(pieces[0], start))
    for piece in pieces[1:]:
        starts = range(min(reached), len(text) + 1) if reached else ()
        reached = {end for each in starts for end in ends(piece, each)}
    return reached


def has_words(pieces: tuple[str, ...], text: str) -> bool:
    """Whether the pieces are somewhere in `text`, no letters or digits cut in two."""

    def cuts(at: int, edge: str) -> bool:
        around = text[at - 1 : at + 1]
        return edge.isalnum() and 0 < at < len(text) and (around.isalpha() or around.isdecimal())

    first, last = pieces[0][:1], pieces[-1][-1:]
    starts = [at for at in range(len(text) + 1) if not cuts(at, first)]
    return any(not cuts(end, last) for start in starts for end in ends_of(pieces, text, start))


def is_value(pattern: Pattern, text: str, folding=fold) -> bool:
    pieces = tuple(folding(piece) for piece in pattern.pieces)
    if pattern.is_whole:
        return len(text) in ends_of(pieces, text, 0)
    short = text if len(text) < 100 else text[:20] + text[-20:]  # of a long one the ends: the middle repeats
    return has_words(pieces, short)


def fits(filter_: Filter, item: Item) -> bool:
    if isinstance(filter_, Not):
        return not fits(filter_.part, item)
    if isinstance(filter_, AllOf):
        return all(fits(part, item) for part in filter_.parts)
    if isinstance(filter_, AnyOf):
        return any(fits(part, item) for part in filter_.parts)
    if isinstance(filter_, Within):
        known = {"duration": item.duration, "sample_rate": item.sample_rate, "channels": item.channels}
        value = item.recorded_at if filter_.field == "date" else known[filter_.field]
        return value is not None and is_within(value, filter_.bounds)
    name, pattern = filter_.field, filter_.pattern
    path = path_text(item.path)
    if name == "name" or (name is None and pattern.is_whole):
        last = path.rpartition("/")[2]
        stem = last.rpartition(".")[0] or last
        if any(is_value(pattern, each, str.lower) for each in ([last, stem] if pattern.is_whole else [last])):
            return True
    elif name is None and is_value(pattern, path, str.lower):
        return True
    if name == "marker":
        return any(is_value(pattern, fold(text)) for each in item.markers for text in each)
    if name in ("container", "codec"):
        return is_value(pattern, item.container if name == "container" else item.codec)
    stored = STORED.get(name or "", (str(name).removeprefix("field."),))
    return any(is_value(pattern, fold(value)) for each, value in item.fields if name is None or each in stored)


def is_within(value: float | str, bounds: Bounds) -> bool:
    low, high = bounds.low, bounds.high
    above = low is None or (value > low if bounds.low_open else value >= low)  # type: ignore[operator]
    below = high is None or (value < high if bounds.high_open else value <= high)  # type: ignore[operator]
    return above and below


# ── what a string means ──


def word(text: str) -> Words:
    return Words(None, Pattern((text,)))


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("rain", word("rain")),
        ("a b, c", AnyOf((AllOf((word("a"), word("b"))), word("c")))),
        ("a -b", AllOf((word("a"), Not(word("b"))))),
        ("- (b)", Not(word("b"))),
        ("a(b)", AllOf((word("a"), word("b")))),
        ("pop*", Words(None, Pattern(("pop", "")))),
        ('"heavy, rain"*x', Words(None, Pattern(("heavy, rain", "x")))),
        ('"*"', word("*")),
        ("**", Words(None, Pattern(("", "")))),
        ('Tag:(a, "b\\"")', AnyOf((Words("tag", Pattern(("a",))), Words("tag", Pattern(('b"',)))))),
        ("ucs:=X", Words("category", Pattern(("X",), is_whole=True))),
        ("12:30", word("12:30")),
        ("well-known", word("well-known")),
        ("field.BPM:9", Words("field.bpm", Pattern(("9",)))),
        ("length:>10", Within("duration", ">10", Bounds(low=10.0, low_open=True))),
    ],
)  # fmt: skip
def test_what_a_filter_means(text: str, tree: Filter):
    assert parse_filter(text) == tree
    assert parse_filter(str(tree)) == tree


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("", 0, "a word"),
        ("  ", 2, "a word"),
        ("a,", 2, "a word"),
        ("a,,b", 2, "a word"),
        ("a ) b", 2, "without"),
        ("(a b", 0, "closing"),
        ("tag:(a", 4, "closing"),
        ("x -", 3, "a word"),
        ("--x", 1, "a word"),
        ("tag: x", 4, "right after tag:"),
        ("a colour:red", 2, "album, artist"),
        ("tag:(title:x)", 5, "only values of tag:"),
        ('a "b', 2, "closing"),
        ('""', 1, "text between"),
        ("duration:soon", 9, ">10"),
        ("duration:30-5", 9, ">10"),
        ("date:2023-02-29", 5, "2024-05"),
        ("channels:many", 9, "mono"),
        ("rate:x", 5, "48k"),
        ("a\0b", 1, "null"),
        ("title:=", 7, "right after title:"),
        ('"a"b c"d', 6, "closing"),
        ("(" * (MAX_DEPTH + 2) + "a", MAX_DEPTH + 1, "at most"),
        ("a " * (MAX_VALUES + 1), 2 * MAX_VALUES, "at most"),
        ("a" * (MAX_CHARACTERS + 1), MAX_CHARACTERS, "at most"),
    ],
)
def test_what_is_refused_and_where(text: str, position: int, expected: str):
    with pytest.raises(QuerySyntaxError, match="filter cannot be read") as caught:
        parse_filter(text)
    assert caught.value.position == position
    assert expected in caught.value.expected
    assert caught.value.drawing.splitlines()[1].endswith("^")


def test_an_unknown_field_is_answered_with_those_there_are():
    with pytest.raises(QuerySyntaxError) as caught:
        parse_filter("mood:sad")
    assert set(FIELDS) <= set(caught.value.expected.replace(",", "").split())


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (duration("10"), Bounds(9.5, 10.5, high_open=True)),
        (duration("1:30"), Bounds(89.5, 90.5, high_open=True)),
        (duration("1-2min"), Bounds(60.0, 120.0)),
        (duration("500ms..1h"), Bounds(0.5, 3600.0)),
        (duration("<=0:01:00.5"), Bounds(high=60.5)),
        (duration(">2 min"), None),
        (duration("-5"), None),
        (duration(".."), None),
        (duration("9" * 400), None),
        (sample_rate("44.1kHz"), Bounds(44_100.0, 44_100.0)),
        (sample_rate("44100-48k"), Bounds(44_100.0, 48_000.0)),
        (channels("5.1"), Bounds(6.0, 6.0)),
        (channels("stereo.."), Bounds(low=2.0)),
        (date("2024"), Bounds("2024", "2025", high_open=True)),
        (date("2024-12"), Bounds("2024-12", "2025-01", high_open=True)),
        (date("2024-05..2024-07"), Bounds("2024-05", "2024-08", high_open=True)),
        (date(">2024-02-28"), Bounds(low="2024-02-29")),
        (date("<2024-05"), Bounds(high="2024-05", high_open=True)),
        (date("<=2023-12-31T23:59"), Bounds(high="2024-01-01T00:00", high_open=True)),
        (date("2024-05-03t05:30:59"), Bounds("2024-05-03T05:30:59", "2024-05-03T05:31:00", high_open=True)),
        (date("9999-12-31"), Bounds("9999-12-31", ":", high_open=True)),
        (date("2024-13"), None),
        (date("2024-07..2024-05"), None),
    ],
)
def test_ranges(bounds: Bounds | None, expected: Bounds | None):
    assert bounds == expected


# ── what the catalogue answers ──


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rain -train", "a f"),
        ("train", "b"),
        ("*rain", "a b f"),
        ("rain*", "a f"),
        ("tag:rain", "a f"),
        ("tag:=rain", "a"),
        ('tag:"heavy rain"', "a"),
        ("name:rain", "a f"),
        ("path:dawn", "a a2"),
        ("path:birds/dawn", "a a2"),
        ("path:birds", "a b a2"),
        ("path:/sounds/birds", "a b"),
        ("path:*.wav -path:*dawn*", "b e f g i"),
        ("tag:STRASSE", "d"),
        ("path:straße", "d e"),
        ("name:café", "e"),
        ("name:über", "d e"),
        ("artist:élan", "d"),
        ("owl", "c"),
        ("comment:=*owl", "c"),
        ("scene:12", "b i"),
        ("scene:=12", "i"),
        ("take:1", ""),
        ("category:door*", "g"),
        ("duration:10", "c e"),
        ("-duration:<1000", "f h"),
        ("channels:mono", "d"),
        ("rate:>=48k -rate:>50k -codec:vorbis duration:12", "a b g a2"),
        ("date:2024-05..2024-07", "c e a2"),
        ("date:<2024", "h"),
        ("container:mp4", "h"),
        ("codec:pcm channels:2 take:*", "b i"),
        ("marker:rain", "h"),
        ("marker:door, album:*dash", "h j"),
        ('title:"100% *real*"', "h"),
        ("regen", "j"),
        ("field.bpm:120", "f"),
        ("tag:copy -tag:rain", "a2"),
        ('note:"says \\"hi\\""', "h"),
    ],
)
def test_examples(catalogue: Catalogue, text: str, expected: str):
    names = {("a2" if item.path.endswith(b"of a.wav") else item.recording): item.path for item in ITEMS}
    wanted = {names[each] for each in expected.split()}
    assert catalogue.paths(text) == wanted


VOCABULARY = (
    *(
        "rain",
        "Heavy",
        "heavy rain",
        "train",
        "01",
        "1",
        "10",
        "12",
        "a",
        "straße",
        "ÜBER",
        "café",
        "wav",
        "dash",
        "owl",
    ),
    *("dusk owl", "wood", "b_c", "-", "100%", "\udcff", "flac", "mov", "mp4", "dawn", "sturm", "'s"),
)


def random_filter(draw: random.Random, depth: int = 0) -> Filter:
    kind = draw.random()
    if depth < 3 and kind < 0.45:
        if kind < 0.15:
            return Not(random_filter(draw, depth + 1))
        parts = tuple(random_filter(draw, depth + 1) for _ in range(draw.randint(2, 3)))
        return AllOf(parts) if kind < 0.3 else AnyOf(parts)
    if kind < 0.6:
        name = draw.choice(sorted(RANGES))
        points = {
            "duration": ("0.3", "9.5", "10", "30", "1h", "10.5s"),
            "sample_rate": ("44.1k", "48000", "96kHz"),
            "channels": ("mono", "2", "5.1"),
            "date": ("2023", "2024-05", "2024-06-01", "2024-05-03T05", "2024-07-31"),
        }[name]
        written = draw.choice(("{}", ">{}", ">={}", "<{}", "<={}", "{}..", "..{}")).format(draw.choice(points))
        bounds = RANGES[name](written)
        assert bounds is not None
        return Within(name, written, bounds)
    pieces = draw.choice(VOCABULARY)
    pattern = draw.choice(((pieces,), (pieces, ""), ("", pieces), (pieces[:2], pieces[2:]), ("", pieces[1:2], "a", "")))
    name = draw.choice((None, None, "name", "marker", "container", "codec", *STORED, "field.bpm"))
    return Words(name, Pattern(pattern, draw.random() < 0.15)) if any(pattern) else Words(name, Pattern((pieces,)))


def test_random_filters_fit_the_files_that_a_walk_says(catalogue: Catalogue):
    draw = random.Random(6)
    answers: set[frozenset[int]] = set()
    for _ in range(300):
        filter_ = random_filter(draw)
        text = str(filter_)
        expected = {id_ for id_, item in catalogue.items.items() if fits(filter_, item)}
        assert catalogue.files(parse_filter(text)) == expected, ascii(text)
        answers.add(frozenset(expected))
    assert len(answers) > 30  # they do not all say the same


def test_fuzzed_filters_are_read_or_refused_with_a_position(catalogue: Catalogue):
    draw = random.Random(7)
    parts = [
        *(
            "rain",
            "-",
            "(",
            ")",
            ",",
            " ",
            '"',
            "*",
            "tag:",
            "duration:",
            ">10",
            "5-30s",
            "path:",
            "\\",
            "=",
            "é",
            "\0",
        ),
        *("date:", "2024-05", "..", "label:", "x:", "\udcff", "%", "_", "/", "[", "\n", "field.a:"),
    ]
    read = 0
    for _ in range(800):
        text = "".join(draw.choices(parts, k=draw.randint(1, 12)))
        try:
            filter_ = parse_filter(text)
        except QuerySyntaxError as error:
            assert 0 <= error.position <= len(text)
            assert error.expected
            continue
        read += 1
        assert parse_filter(str(filter_)) == filter_, text
        if "label:" not in text and read % 4 == 0:
            catalogue.files(filter_)
    assert 80 < read < 700


@pytest.mark.parametrize("few", [0, 2000])
def test_the_vectors_that_may_be_found(catalogue: Catalogue, few: int, monkeypatch: pytest.MonkeyPatch):
    """By either way: from a few recordings to their vectors, or through all vectors."""
    monkeypatch.setattr(conditions, "_FEW", few)
    with catalogue.store.connected() as connection:
        every = conditions.vector_ids(connection, parse_filter("*"), catalogue.space.id)
        assert len(every) == 2 * len({item.recording for item in ITEMS})
        some = conditions.vector_ids(connection, parse_filter("tag:copy"), catalogue.space.id)
        resolved = catalogue.store.resolve(some)
        assert {each.packet_hash for each in resolved} == {key("a")}  # a copy of it fits, so the recording may be found
        assert len(some) == 2
        assert some.tolist() == sorted(set(every.tolist()) & set(some.tolist()))
        shown = conditions.places(connection, parse_filter("tag:copy"), [resolved[0].recording_id])
    assert shown == {(ROOTS[1], "birds/dawn/copy of a.wav")}
    assert catalogue.space.spec.dim == DIM


def test_labels_are_of_the_recording(catalogue: Catalogue):
    """A label is of the content: every file that holds it has it."""
    rain, wind = list(dict.fromkeys(item.recording for item in ITEMS))[:2]
    catalogue.store.add_labels(
        [
            LabelRecord(key(rain), 0.0, 5.0, True, "Heavy  Rain", "", "00000000aaaa"),
            LabelRecord(key(rain), 2.0, 3.0, False, "thunder", "", "00000000bbbb"),
            LabelRecord(key(wind), 0.0, 5.0, True, "", "wind, yes", "00000000cccc"),
        ]
    )
    of = {name: {item.path for item in ITEMS if item.recording == name} for name in (rain, wind)}
    every = {item.path for item in ITEMS}
    for text, expected in {
        "label:rain": of[rain],
        'label:"HEAVY RAIN"': of[rain],
        'label:="heavy rain"': of[rain],
        "label:=rain": set(),
        "label:thunder": set(),  # was said not to be there
        "label:no": of[rain],
        "label:yes": of[rain] | of[wind],
        "label:*yes": of[wind],
        "label:*": of[rain] | of[wind],
        "-label:*": every - of[rain] - of[wind],
        "label:(wind, rain)": of[rain] | of[wind],
    }.items():
        assert catalogue.paths(text) == expected, text
    for digits in ("aaaa", "bbbb", "cccc"):
        assert catalogue.store.remove_labels(f"00000000{digits}") == 1


def test_many_stars_cost_no_more_than_one(catalogue: Catalogue):
    """Backtracking over forty stars would not end."""
    assert catalogue.paths("comment:" + "*u*s*k" * 40 + "*z") == set()
    assert catalogue.paths("comment:" + "*u*s*k" * 15 + "*l") == {b"birds dawn.wav"}


def test_a_path_below_the_user_s_home(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/sounds")
    assert catalogue.paths("path:~/birds") == {b"birds/dawn/Rain_Heavy-01.wav", b"birds/Train 10.WAV"}
    assert catalogue.paths(f"path:{Path('/')}mnt/*") == {item.path for item in ITEMS if item.root == ROOTS[1]}
