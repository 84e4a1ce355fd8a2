"""What a file says of itself beside its sound: tags, BWF and iXML, markers, chapters, its name -> `Metadata`.

    container's tags and chapters (PyAV) ──┐
    LIST INFO, bext, iXML, cue (wavinfo) ──┼── one vocabulary of fields ── with the name's ──> Metadata
    CatID_FXName_..., 20230714_053000 ─────┘

Nothing here makes a file fail: what is damaged is passed over with a line in `warnings`. A WAV file's chunks are taken
out of it one by one before wavinfo sees them: it reads whole files, so one bad chunk, or a cut at the end of the sound,
would cost all of them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from audiosearch.demux import Media, opened
from audiosearch.file_names import clean, moment, with_name
from audiosearch.types import Field, Marker, Metadata

if TYPE_CHECKING:
    from wavinfo import WavInfoReader

# Written beside every file's metadata; a higher number makes the next ingest read it again, without the model.
VERSION = 1

MAX_FIELDS, MAX_MARKERS = 128, 10_000  # of one file; what is more is left out

# FFmpeg's names for tags -> ours. Others keep theirs.
_TAGS = {
    "year": "date",
    "tyer": "date",
    "synopsis": "description",
    "keywords": "keyword",
    "keyw": "keyword",
    "ikey": "keyword",
    "com.apple.quicktime.keywords": "keyword",
    "com.apple.quicktime.title": "title",
    "com.apple.quicktime.artist": "artist",
    "com.apple.quicktime.album": "album",
    "com.apple.quicktime.comment": "comment",
    "com.apple.quicktime.description": "description",
    "com.apple.quicktime.location.iso6709": "location",
    "com.apple.quicktime.make": "make",
    "com.apple.quicktime.model": "model",
    "track": "track_number",
    "disc": "disc_number",
    "encoded_by": "originator",
}
# Of the container and not of the sound.
_NO_TAGS = frozenset(
    {
        "encoder",
        "major_brand",
        "minor_version",
        "compatible_brands",
        "handler_name",
        "vendor_id",
        "duration",
        "creation_time",
        "com.apple.quicktime.creationdate",
        "origination_date",
        "origination_time",
        "time_reference",
        "umid",
        "itunnorm",
        "itunsmpb",
        "itunpgap",
    }
)
_UNKNOWN = ("language", "und")
# FFmpeg mixes these of a WAV file's bext chunk into its tags; we have them from the chunk itself.
_FROM_BEXT = frozenset({"comment", "encoded_by", "date", "description", "originator", "originator_reference"})
_FROM_BEXT |= {"coding_history"}
_SEVERAL = frozenset({"artist", "composer", "genre", "keyword"})  # "A; B" are two

_INFO = {
    "title": "title",
    "artist": "artist",
    "album": "album",
    "comment": "comment",
    "genre": "genre",
    "keywords": "keyword",
    "created_date": "date",
    "copyright": "copyright",
    "engineer": "engineer",
    "technician": "technician",
    "subject": "subject",
    "source": "source",
    "tape": "tape",
}
_IXML = {
    "PROJECT": "project",
    "SCENE": "scene",
    "TAKE": "take",
    "TAPE": "tape",
    "NOTE": "note",
    "CIRCLED": "circled",
    "SPEED/TIMECODE_RATE": "timecode_rate",
    "SPEED/TIMECODE_FLAG": "timecode_flag",
    "LOCATION/LOCATION_NAME": "location",
    "LOCATION/LOCATION_GPS": "location_gps",
}
# What librarians' programs keep in iXML's <USER> and game studios in its <ASWG>; compared without case.
_IXML_LIBRARY = {
    "catid": "cat_id",
    "category": "category",
    "subcategory": "subcategory",
    "usercategory": "user_category",
    "vendorcategory": "vendor_category",
    "fxname": "fx_name",
    "creatorid": "creator_id",
    "sourceid": "source_id",
    "userdata": "user_data",
    "library": "library",
    "designer": "designer",
    "description": "description",
    "keywords": "keyword",
    "microphone": "microphone",
    "micperspective": "microphone_perspective",
    "location": "location",
    "tracktitle": "title",
    "notes": "note",
    "project": "project",
    "originator": "originator",
}
_AUDIOMOTH = re.compile(
    r"Recorded at (\d\d:\d\d:\d\d) (\d\d)/(\d\d)/(\d{4}) \(UTC(?:([+-])(\d{1,2})(?::(\d\d))?)?\)", re.ASCII
)
_MOV = "mov,mp4,m4a,3gp,3g2,mj2"

_MAX_CHUNKS = 1000  # looked at in a WAV file; a chunk of interest is read up to _MAX_CHUNK_BYTES
_MAX_CHUNK_BYTES = 4 << 20


def metadata_of(path: str, warnings: list[str]) -> Metadata:
    """What the file at `path` says of itself. Raises MediaError if it is no sound at all."""
    with opened(path) as media:
        return read_metadata(media, warnings)


def read_metadata(media: Media, warnings: list[str]) -> Metadata:
    """What an opened file says of itself; what is damaged in it is a line in `warnings`. Raises nothing."""
    found = _Found(warnings)
    chunks: dict[bytes, bytes] = {}
    found.attempt("WAV chunks", lambda: chunks.update(_riff_chunks(media)))
    rate = media.stream.codec_context.sample_rate or 0
    if b"bext" in chunks:
        found.attempt("bext chunk", lambda: _read_bext(_reader((b"bext", chunks[b"bext"])), found))
    if b"iXML" in chunks:
        found.attempt("iXML chunk", lambda: _read_ixml(_reader((b"iXML", chunks[b"iXML"])), found))
    if b"INFO" in chunks:
        found.attempt("INFO chunk", lambda: _read_info(_reader((b"LIST", b"INFO" + chunks[b"INFO"])), found))
    found.attempt("tags", lambda: _read_tags(media, found, has_bext=b"bext" in chunks))
    if b"cue " in chunks and rate:
        adtl = b"adtl" + _without_region_texts(chunks.get(b"adtl", b""))
        found.attempt(
            "cue chunk", lambda: _read_cues(_reader((b"cue ", chunks[b"cue "]), (b"LIST", adtl)), rate, found)
        )
    if not found.markers:  # FFmpeg makes chapters of a WAV file's labels, without lengths and notes
        found.attempt("chapters", lambda: _read_chapters(media, found))
    return with_name(found.metadata(), media.path)


@dataclass
class _Found:
    """What has been gathered so far, and where to say what was not."""

    warnings: list[str]
    fields: dict[tuple[str, str], Field] = field(default_factory=dict)  # by name and value: many tags say the same
    markers: list[Marker] = field(default_factory=list)
    moments: list[tuple[str, str]] = field(default_factory=list)  # (when, source), the best first
    time_reference: int | None = None

    def attempt(self, what: str, read: Callable[[], object]) -> None:
        try:
            read()
        except Exception as error:  # of a library fed with damaged bytes: whatever it is, the sound is there
            self.warnings.append(f"its {what} could not be read ({type(error).__name__}: {clean(str(error), 120)})")

    def add(self, name: str, value: str | None, source: str) -> None:
        """Keep a value, or several of a name that may have several."""
        for part in re.split(r"[;,]" if name == "keyword" else ";", value or "") if name in _SEVERAL else [value or ""]:
            text = clean(_repaired(part))
            if text and len(self.fields) < MAX_FIELDS:
                self.fields.setdefault((name, text), Field(name, text, source))

    def began(self, when: str | None, source: str) -> None:
        if when is not None:
            self.moments.append((when, source))

    def mark(self, marker: Marker) -> None:
        if len(self.markers) < MAX_MARKERS:
            self.markers.append(replace(marker, label=clean(marker.label, 400), note=clean(marker.note)))

    def metadata(self) -> Metadata:
        # A second is worth more than a day, whoever says it.
        when, source = min(self.moments, key=lambda each: len(each[0]) == 10, default=(None, None))
        markers = sorted(self.markers, key=lambda marker: marker.start_seconds)
        return Metadata(tuple(self.fields.values()), tuple(markers), when, source, self.time_reference)


# ── the container's tags and chapters ──


def _read_tags(media: Media, found: _Found, *, has_bext: bool) -> None:
    container = media.container
    tags = {**media.stream.metadata, **container.metadata}  # Ogg has them with the stream
    known = {key.lower(): value for key, value in tags.items()}
    for key, value in known.items():
        name = _TAGS.get(key, re.sub(r"[^\w.-]+", "_", key))[:64]
        if key in _NO_TAGS or key.startswith("_") or (has_bext and key in _FROM_BEXT) or (key, value) == _UNKNOWN:
            continue
        # "comment-eng", "title-de" of other languages are the same fields.
        found.add(re.sub(r"-[a-z]{2,3}$", "", name), value, "tag")
    if (match := _AUDIOMOTH.search(known.get("comment", ""))) is not None:
        found.began(_audiomoth_moment(match), "tag")
    if container.format.name == _MOV:
        for key in ("com.apple.quicktime.creationdate", "creation_time"):
            found.began(moment(known.get(key, "")), "tag")
    date = moment(known.get("date", "")) if not has_bext else None
    if date is not None and len(date) > 10:  # a day alone is when something was published
        found.began(date, "tag")


def _audiomoth_moment(match: re.Match[str]) -> str | None:
    clock, day, month, year, sign, hours, minutes = match.groups()
    return moment(f"{year}-{month}-{day}T{clock}{sign or '+'}{int(hours or 0):02d}:{minutes or '00'}")


def _read_chapters(media: Media, found: _Found) -> None:
    for chapter in media.container.chapters():
        unit = float(chapter["time_base"] or 0)
        start, end = chapter["start"] * unit, chapter["end"] * unit
        title = _repaired(chapter["metadata"].get("title", ""))
        found.mark(Marker(max(start, 0.0), end if end > start else None, title))


def _repaired(text: str) -> str:
    """Text as it was meant: bytes that are no UTF-8 (escaped by PyAV) are Windows' Western characters."""
    raw = text.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


# ── the chunks of a WAV file ──


def _riff_chunks(media: Media) -> dict[bytes, bytes]:
    """The bodies of a WAV file's chunks that concern us, the first of each; lists by their type."""
    if media.head[:4] not in (b"RIFF", b"RF64", b"BW64") or media.head[8:12] != b"WAVE":
        return {}
    found: dict[bytes, bytes] = {}
    with open(media.path, "rb") as file:
        file.seek(12)
        long_data = 0
        for _ in range(_MAX_CHUNKS):
            header = file.read(8)
            # After an unfinished sound chunk come samples, hardly ever text.
            if len(header) < 8 or not header[:4].isascii() or b"\0" in header[:4]:
                break
            name, size = header[:4], int.from_bytes(header[4:], "little")
            if name == b"data" and size == 0xFFFFFFFF:
                size = long_data
            start = file.tell()
            if name == b"ds64":
                long_data = int.from_bytes(file.read(16)[8:], "little")
            elif name in (b"bext", b"iXML", b"cue ", b"LIST") and size <= _MAX_CHUNK_BYTES:
                body = file.read(size)
                if name == b"LIST":
                    name, body = body[:4], body[4:]
                found.setdefault(name, body)
            file.seek(start + size + size % 2)
    return found


def _reader(*chunks: tuple[bytes, bytes]) -> WavInfoReader:
    """wavinfo over a WAV file of no sound with just these chunks. Its text is Latin-1: any bytes, to be repaired."""
    from wavinfo import WavInfoReader

    body = b"WAVE" + _chunk(b"fmt ", bytes.fromhex("01000100 80bb0000 00770100 02001000"))
    body += _chunk(b"data", b"\0\0") + b"".join(_chunk(name, data) for name, data in chunks)
    return WavInfoReader(io.BytesIO(_chunk(b"RIFF", body)), info_encoding="latin_1", bext_encoding="latin_1")


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + len(body).to_bytes(4, "little") + body + b"\0" * (len(body) % 2)


def _latin(text: str | None) -> str:
    """What wavinfo took for Latin-1, as bytes that `_repaired` understands."""
    return (text or "").split("\0")[0].encode("latin_1").decode("utf-8", "surrogateescape")


def _read_bext(reader: WavInfoReader, found: _Found) -> None:
    bext = reader.bext
    assert bext is not None
    found.add("description", _latin(bext.description), "bext")
    found.add("originator", _latin(bext.originator), "bext")
    found.add("originator_reference", _latin(bext.originator_ref), "bext")
    found.add("coding_history", _latin(bext.coding_history), "bext")
    found.began(_day_and_time(bext.originator_date, bext.originator_time), "bext")
    if 0 < bext.time_reference < 1 << 62:
        found.time_reference = bext.time_reference


def _read_info(reader: WavInfoReader, found: _Found) -> None:
    info = reader.info
    assert info is not None
    for attribute, name in _INFO.items():
        found.add(name, _latin(getattr(info, attribute)), "info")
    if (match := _AUDIOMOTH.search(info.comment or "")) is not None:
        found.began(_audiomoth_moment(match), "info")
    date = moment(info.created_date or "")
    if date is not None and len(date) > 10:
        found.began(date, "info")


def _read_ixml(reader: WavInfoReader, found: _Found) -> None:
    assert reader.ixml is not None
    tree: Any = reader.ixml.raw_xml
    for path, name in _IXML.items():
        found.add(name, tree.findtext("./" + path), "ixml")
    for track in tree.iterfind("./TRACK_LIST/TRACK/NAME"):
        found.add("track_name", track.text, "ixml")
    for element in _children(tree, "USER", "ASWG"):
        name = _IXML_LIBRARY.get(str(element.tag).lower().replace("_", ""), "")
        if name:
            found.add(name, element.text, "ixml")
    stated = tree.findtext("./BEXT/BWF_ORIGINATION_DATE"), tree.findtext("./BEXT/BWF_ORIGINATION_TIME")
    found.began(_day_and_time(stated[0] or "", stated[1] or ""), "ixml")
    if found.time_reference is None:
        low, high = (tree.findtext(f"./SPEED/TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_{each}") or "" for each in ("LO", "HI"))
        samples = (int(high) << 32 if high.strip().isdigit() else 0) + (int(low) if low.strip().isdigit() else 0)
        found.time_reference = samples if 0 < samples < 1 << 62 else None


def _children(tree: Any, *names: str) -> Iterator[Any]:
    for name in names:
        for parent in tree.iterfind("./" + name):
            yield from parent


def _day_and_time(day: str, time: str) -> str | None:
    """BWF's date and time of day; the day alone if the time is none."""
    return moment(f"{day.strip()}T{time.strip()}") or moment(day)


def _read_cues(reader: WavInfoReader, rate: int, found: _Found) -> None:
    cues = reader.cues
    assert cues is not None
    labels = {each.name: each.text for each in reversed(cues.labels)}
    notes = {each.name: each.text for each in reversed(cues.notes)}
    lengths = {each.name: each.length for each in reversed(cues.ranges)}
    for cue in cues.cues[:MAX_MARKERS]:
        start, length = cue.sample_offset / rate, lengths.get(cue.name, 0)
        end = start + length / rate if length else None
        label, note = (_repaired(_latin(texts.get(cue.name))) for texts in (labels, notes))
        found.mark(Marker(start, end, label, note))


def _without_region_texts(adtl: bytes) -> bytes:
    """A list of labels whose `ltxt` have only their lengths: wavinfo takes a byte of a long one for its code page."""
    return b"".join(_chunk(name, body[:20] if name == b"ltxt" else body) for name, body in _parts(adtl))


def _parts(body: bytes) -> Iterable[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(body):
        name, size = body[at : at + 4], int.from_bytes(body[at + 4 : at + 8], "little")
        yield name, body[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
