"""A filter's tree to a question to the catalogue: which files fit it, and so which recordings and vectors.

A filter is about *one file*: all its words fit the same file. A recording may be found if any of its files fits. Every
condition is either true or false of a file, never unknown, so what is not known of a file is outside of a range and
inside of its negation.

Words are compared by regular expressions, on SQLite by a function in Python, behind a cheaper LIKE that leaves few rows
to it. Paths are bytes, so that part is SQLite's alone; where the catalogue is another database's, `_path_fits` is to
be written for it.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    Select,
    Text,
    and_,
    cast,
    false,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    true,
)

from audiosearch.query.filters import ANY_STORED, STORED, AllOf, AnyOf, Filter, Not, Pattern, Within, Words
from audiosearch.store.metadata import FOLDED_CHARACTERS
from audiosearch.store.tables import chunk, field, file, label, marker, recording, root, vector

_RANGED = {
    "duration": recording.c.duration_seconds,
    "sample_rate": recording.c.sample_rate,
    "channels": recording.c.channels,
}
_OF_RECORDING = {"container": recording.c.container, "codec": recording.c.codec}
_VERDICTS = {"yes": True, "no": False}  # as values of `label`
_IN_LIST, _FEW = 500, 2000
_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")  # accents with their letters, and apart
_LIKED = re.compile(r"[\x21-\x7e]+")  # what LIKE compares without case, as we do


def file_condition(filter_: Filter) -> ColumnElement[bool]:
    """What `filter_` asks of a row of `file`."""
    if isinstance(filter_, Not):
        return not_(file_condition(filter_.part))
    if isinstance(filter_, (AllOf, AnyOf)):
        parts = [file_condition(part) for part in filter_.parts]
        return and_(*parts) if isinstance(filter_, AllOf) else or_(*parts)
    if isinstance(filter_, Within):
        return _within(filter_)
    if filter_.field == "label":
        return _labelled(filter_.pattern)
    return _words(filter_)


def recordings(filter_: Filter) -> Select[Any]:
    """Ids of the recordings of which a file fits."""
    return select(file.c.recording_id).where(file_condition(filter_)).distinct()


def vector_ids(connection: Connection, filter_: Filter, space_id: int) -> NDArray[np.int64]:
    """Ids of the space's vectors that a search under the filter may find, ascending."""
    fitting = recordings(filter_)
    # Given a question SQLite would look at every vector of the space; given few ids it begins with those.
    few = [row[0] for row in connection.execute(fitting.limit(_FEW + 1))]
    if len(few) <= _FEW:
        return vector_ids_of(connection, few, space_id)
    return _sorted_ids(connection, space_id, [chunk.c.recording_id.in_(fitting)])


def vector_ids_of(connection: Connection, recording_ids: Sequence[int], space_id: int) -> NDArray[np.int64]:
    """Ids of the vectors of some recordings in a space, ascending."""
    some = (recording_ids[at : at + _IN_LIST] for at in range(0, len(recording_ids), _IN_LIST))
    return _sorted_ids(connection, space_id, [chunk.c.recording_id.in_(each) for each in some])


def _sorted_ids(connection: Connection, space_id: int, wanted: Iterable[ColumnElement[bool]]) -> NDArray[np.int64]:
    query = (
        select(vector.c.id)
        .join(chunk, chunk.c.id == vector.c.chunk_id)
        .where(vector.c.space_id == space_id, vector.c.deleted_seq.is_(None))
    )
    found = [id_ for condition in wanted for id_ in connection.execute(query.where(condition)).scalars()]
    return np.sort(np.array(found, np.int64))


def places(connection: Connection, filter_: Filter, recording_ids: Collection[int]) -> set[tuple[str, str]]:
    """(root, path below it) of those files of some recordings that fit: a hit should show one of them."""
    query = select(root.c.path, file.c.path).join(root, root.c.id == file.c.root_id)
    query = query.where(file_condition(filter_))
    wanted = sorted(set(recording_ids))
    found: set[tuple[str, str]] = set()
    for first in range(0, len(wanted), _IN_LIST):
        some = file.c.recording_id.in_(wanted[first : first + _IN_LIST])
        found.update((os.fsdecode(folder), os.fsdecode(path)) for folder, path in connection.execute(query.where(some)))
    return found


def _within(wanted: Within) -> ColumnElement[bool]:
    column = file.c.recorded_at if wanted.field == "date" else _RANGED[wanted.field]
    bounds = wanted.bounds
    limits: list[ColumnElement[bool]] = [column.is_not(None)]
    if bounds.low is not None:
        limits.append(column > bounds.low if bounds.low_open else column >= bounds.low)
    if bounds.high is not None:
        limits.append(column < bounds.high if bounds.high_open else column <= bounds.high)
    if wanted.field == "date":
        return and_(*limits)
    return file.c.recording_id.in_(select(recording.c.id).where(*limits))


def _labelled(pattern: Pattern) -> ColumnElement[bool]:
    """Of a span of the recording the user said that it is what `pattern` names; of `yes`, `no` and `*` anything."""
    said = select(recording.c.id).join(label, label.c.packet_hash == recording.c.packet_hash)
    word = None if pattern.is_whole or len(pattern.pieces) > 1 else fold(pattern.pieces[0])
    if word in _VERDICTS:
        said = said.where(label.c.verdict.is_(_VERDICTS[word]))
    elif not pattern.is_anything:
        said = said.where(label.c.verdict.is_(True), _text_fits(label.c.folded, pattern))
    return file.c.recording_id.in_(said)


def _words(wanted: Words) -> ColumnElement[bool]:
    name, pattern = wanted.field, wanted.pattern
    if pattern.is_anything and name in (None, "path", "name"):
        return true()
    if name == "path":
        return _folder_fits(pattern)
    if name == "name":
        return _path_fits(_name_regex(pattern), pattern)
    if name in _OF_RECORDING:
        column = _OF_RECORDING[name]
        return file.c.recording_id.in_(select(recording.c.id).where(_text_fits(column, pattern)))
    if name == "marker":
        texts = [_text_fits(column, pattern, folded=False) for column in (marker.c.label, marker.c.note)]
        return file.c.id.in_(select(marker.c.file_id).where(or_(*texts)))
    stored = select(field.c.file_id).where(_value_fits(pattern))
    if name is None:
        in_path = _name_regex(pattern) if pattern.is_whole else _words_regex(pattern, _OF_PATH)
        return or_(_path_fits(in_path, pattern), file.c.id.in_(stored))
    names = (name.removeprefix(ANY_STORED),) if name.startswith(ANY_STORED) else STORED[name]
    return file.c.id.in_(stored.where(field.c.name.in_(names)))


# Text


def _value_fits(pattern: Pattern) -> ColumnElement[bool]:
    """A row of `field`; `folded` has only the beginning of a long value."""
    if pattern.is_whole and len(pattern.pieces) == 1:
        text = fold(pattern.pieces[0])
        if len(text) < FOLDED_CHARACTERS // 2 and _storable(text):
            return field.c.folded == text
    fits = _text_fits(field.c.folded, pattern)
    if pattern.is_whole:  # a beginning that fits as a whole is not a value that does
        fits = and_(func.length(field.c.value) <= FOLDED_CHARACTERS, fits)
    is_long = func.length(field.c.value) > FOLDED_CHARACTERS
    return or_(fits, and_(is_long, _text_fits(field.c.value, pattern, folded=False)))


def _text_fits(column: ColumnElement[str], pattern: Pattern, *, folded: bool = True) -> ColumnElement[bool]:
    """Whether a text has the pattern's words; `folded`: it is without case already."""
    if pattern.is_anything:
        return true()
    if not _storable("".join(pattern.pieces)):
        return false()
    regex = _words_regex(pattern, _OF_TEXT)
    return and_(*_liked(column, map(fold, pattern.pieces)), column.regexp_match(regex if folded else f"(?i){regex}"))


def _storable(text: str) -> bool:
    """Bytes that are no UTF-8 are in names of files only."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _liked(column: ColumnElement[str], pieces: Iterable[str]) -> list[ColumnElement[bool]]:
    """A condition that everything meets that fits the pieces, and that costs the database little."""
    runs = [run for piece in pieces for run in _LIKED.findall(piece)]
    return [column.contains(max(runs, key=len), autoescape=True)] if runs else []


# Paths


def _path_fits(regex: str, pattern: Pattern) -> ColumnElement[bool]:
    return and_(*_liked(cast(file.c.path, Text), pattern.pieces), _matches(file.c.path, regex))


def _matches(place: ColumnElement[bytes], regex: str) -> ColumnElement[bool]:
    """Bytes in bytes: what is no UTF-8 cannot be passed to the function as text."""
    return place.op("REGEXP", is_comparison=True)(literal(regex.encode("latin-1"), LargeBinary))


def _folder_fits(pattern: Pattern) -> ColumnElement[bool]:
    """`birds/dawn`: that file or folder, at any depth; an absolute one from the root of the file system."""
    pieces = list(pattern.pieces)
    pieces[0] = pieces[0].removeprefix("./")
    if pieces[0].startswith("~/"):
        pieces[0] = os.path.expanduser(pieces[0])  # noqa: PTH111 - the beginning of a pattern
    is_absolute = pieces[0].startswith("/")
    middle = _glob(pieces, _OF_PATH)
    end = "" if pieces[-1][-1:] in ("", "/") else r"\Z" if pattern.is_whole else r"(?:/|\Z)"
    if is_absolute:
        whole = cast(root.c.path.op("||")(literal_column("'/'")).op("||")(file.c.path), LargeBinary)
        in_root = select(root.c.id).where(root.c.id == file.c.root_id, _matches(whole, rf"(?s)\A/?{middle}{end}"))
        return in_root.correlate(file).exists()
    start = r"\A" if pattern.is_whole else "" if not pieces[0] else r"(?:\A|/)"
    return _path_fits(f"(?s){start}{middle}{end}", Pattern(tuple(pieces)))


def _name_regex(pattern: Pattern) -> str:
    """Of the last part of a path; as a whole it may be meant with or without the extension."""
    if pattern.is_whole:
        return rf"(?s)(?:\A|/){_glob(pattern.pieces, _OF_NAME)}(?:\.[^./]*)?\Z"
    return rf"{_words_regex(pattern, _OF_NAME)}(?=[^/]*\Z)"


# Regular expressions: of text; and of bytes in UTF-8, written one character a byte.


@dataclass(frozen=True, slots=True)
class _Alphabet:
    """What literal text looks like, where a word of letters begins and ends, what separates words, what a star is."""

    literal: Callable[[str], str]
    before: str
    after: str
    separators: str
    anything: str = ".*"


def _literal_text(text: str) -> str:
    return re.escape(fold(text))


def _literal_path(text: str) -> str:
    """Any case, and both ways to write an accent, whatever the file system made of the name."""
    found: list[str] = []
    for char in unicodedata.normalize("NFC", text):
        if char.isascii():
            found.append(f"[{char.lower()}{char.upper()}]" if char.isalpha() else re.escape(char))
            continue
        forms = {
            unicodedata.normalize(form, case) for form, case in product(_FORMS, (char, char.lower(), char.upper()))
        }
        encoded = sorted(os.fsencode(form).decode("latin-1") for form in forms)
        found.append("(?:" + "|".join(map(re.escape, encoded)) + ")")
    # An accent after the last letter, where the name has letter and accent apart, makes another letter of it.
    return "".join(found) + ("(?!\xcc|\xcd[\x80-\xaf])" if text[-1:].isalpha() else "")


_OF_TEXT = _Alphabet(_literal_text, r"(?<![^\W\d_])", r"(?![^\W\d_])", r"[\W_]+")
# Whatever is beyond ASCII counts as a letter, but for dashes and quotation marks, U+2010 to U+201F.
_LETTER, _MARK = r"[A-Za-z\x80-\xff]", "\xe2\x80[\x90-\x9f]"
_OF_PATH = _Alphabet(
    _literal_path,
    f"(?:(?<!{_LETTER})|(?<={_MARK}))",
    f"(?:(?!{_LETTER})|(?={_MARK}))",
    rf"(?:[^A-Za-z0-9\x80-\xff]|{_MARK})+",
)
_OF_NAME = replace(_OF_PATH, anything="[^/]*")


def fold(text: str) -> str:
    """Without case and composed, as the catalogue has values."""
    return unicodedata.normalize("NFC", text.casefold())


def _words_regex(pattern: Pattern, alphabet: _Alphabet) -> str:
    """Finds the pattern's words: no letter goes on where it begins or ends with a letter, no digit with a digit."""
    if pattern.is_whole:
        return rf"(?s)\A{_glob(pattern.pieces, alphabet)}\Z"
    pieces = tuple(piece.strip() for piece in pattern.pieces)
    first, last = pieces[0][:1], pieces[-1][-1:]
    start = alphabet.before if first.isalpha() else r"(?<!\d)" if first.isdigit() else ""
    end = alphabet.after if last.isalpha() else r"(?!\d)" if last.isdigit() else ""
    inner = pieces[not pieces[0] : len(pieces) - (not pieces[-1])]  # a star at an end leaves it open
    return f"(?s){start}{_glob(inner, alphabet, phrases=True)}{end}"


def _glob(pieces: Sequence[str], alphabet: _Alphabet, *, phrases: bool = False) -> str:
    """Pieces with anything between them. All but the last are settled at their first place, as fnmatch does it, so that
    many stars cost no more than one."""
    parts = [_phrase(piece, alphabet) if phrases else alphabet.literal(piece) for piece in pieces]
    settled = (
        f"(?=(?P<s{number}>{alphabet.anything}?{part}))(?P=s{number})" for number, part in enumerate(parts[1:-1])
    )
    last = f"{alphabet.anything}{parts[-1]}" if len(parts) > 1 else ""
    return parts[0] + "".join(settled) + last


def _phrase(piece: str, alphabet: _Alphabet) -> str:
    return alphabet.separators.join(alphabet.literal(word) for word in piece.split())
