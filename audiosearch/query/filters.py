"""A filter string to a tree: which files may be searched, by their names, tags and metadata.

    filter   = all { "," all }                  comma: or
    all      = item { item }                    space: and; binds tighter than the comma
    item     = "-" item | "(" filter ")" | field ":" "(" filter ")" | [field ":"] value
    value    = ["="] { character | "*" | '"' text '"' }     `*` any characters, or none; quotes: as written

The habits of sound librarians: `rock (hard, heavy) -pop*`. A word is found as a whole, without case, in the path below
the root and in everything that a file says of itself; `field:` says where to look, `=` that the value is all there is.
Numbers and dates: see `ranges.py`. What each field means: docs/query.md.
`conditions.py` makes a question to the catalogue of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from audiosearch.errors import QuerySyntaxError
from audiosearch.query.ranges import Bounds, channels, date, duration, sample_rate

MAX_CHARACTERS, MAX_VALUES, MAX_DEPTH = 10_000, 200, 40

# Words of a file's metadata: our field -> the names under which it is stored.
STORED: dict[str, tuple[str, ...]] = {
    "tag": ("keyword",),
    "title": ("title",),
    "artist": ("artist",),
    "album": ("album",),
    "genre": ("genre",),
    "comment": ("comment",),
    "description": ("description",),
    "category": ("cat_id", "category", "subcategory", "user_category", "vendor_category"),
    "fx_name": ("fx_name",),
    "project": ("project",),
    "scene": ("scene",),
    "take": ("take",),
    "tape": ("tape",),
    "track": ("track_name",),
    "note": ("note",),
    "library": ("library",),
    "originator": ("originator",),
    "location": ("location",),
    "microphone": ("microphone", "microphone_perspective"),
}
RANGES: dict[str, Callable[[str], Bounds | None]] = {
    "duration": duration,
    "sample_rate": sample_rate,
    "channels": channels,
    "date": date,
}
FIELDS = ("path", "name", *STORED, "marker", "label", "container", "codec", *RANGES)
ALIASES = {
    "keyword": "tag",
    "keywords": "tag",
    "file": "name",
    "filename": "name",
    "folder": "path",
    "ucs": "category",
    "length": "duration",
    "rate": "sample_rate",
    "recorded": "date",
}
ANY_STORED = "field."  # `field.bpm:` is whatever tag a file has of that name

_SPACES = re.compile(r"\s*")
_FIELD = re.compile(r"([A-Za-z]\w*(?:\.[\w.-]+)?):", re.ASCII)
_PLAIN = re.compile(r'[^\s,()"*\0\ud800-\udfff]+|[\ud800-\udfff]')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r"\\([\"\\])")

AN_ITEM = "a word, field:value or brackets"


@dataclass(frozen=True, slots=True)
class Pattern:
    """Literal pieces, anything between them: `rain*` is ("rain", ""). `is_whole`: nothing else may be there."""

    pieces: tuple[str, ...]
    is_whole: bool = False

    def __str__(self) -> str:
        return "=" * self.is_whole + "*".join(_quoted_if_needed(piece) for piece in self.pieces)

    @property
    def is_anything(self) -> bool:
        """Whether every value fits."""
        return not any(self.pieces)


@dataclass(frozen=True, slots=True)
class Words:
    """`field` fits `pattern`; any of the path and the metadata where `field` is None."""

    field: str | None
    pattern: Pattern

    def __str__(self) -> str:
        return f"{self.field}:{self.pattern}" if self.field else str(self.pattern)


@dataclass(frozen=True, slots=True)
class Within:
    """`field` is known and within `bounds`, which the user wrote as `written`."""

    field: str
    written: str
    bounds: Bounds

    def __str__(self) -> str:
        return f"{self.field}:{self.written}"


@dataclass(frozen=True, slots=True)
class Not:
    """All but `part`."""

    part: Filter

    def __str__(self) -> str:
        return f"-{_bracketed(self.part, (AllOf, AnyOf, Not))}"


@dataclass(frozen=True, slots=True)
class AllOf:
    """Each of `parts`, of one and the same file."""

    parts: tuple[Filter, ...]

    def __str__(self) -> str:
        return " ".join(_bracketed(part, (AnyOf, AllOf)) for part in self.parts)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of `parts`."""

    parts: tuple[Filter, ...]

    def __str__(self) -> str:
        return ", ".join(_bracketed(part, (AnyOf,)) for part in self.parts)


Filter = Words | Within | Not | AllOf | AnyOf


def parse_filter(source: str) -> Filter:
    """The tree of a filter string; `str` of it parses to the same. Raises QuerySyntaxError, which says where the
    mistake is and what was expected."""
    return _Parser(source).whole()


class _Parser:
    """Goes once through `source` from left to right; `at` is how far it is."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0
        self.values = 0

    def whole(self) -> Filter:
        if len(self.source) > MAX_CHARACTERS:
            self._expected(f"at most {MAX_CHARACTERS:,} characters", MAX_CHARACTERS)
        found = self._any(None, 0)
        if self.at < len(self.source):
            self._expected('no ")" without its "("')
        return found

    def _any(self, field: str | None, depth: int) -> Filter:
        parts = [self._all(field, depth)]
        while self._next() == ",":
            self.at += 1
            parts.append(self._all(field, depth))
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _all(self, field: str | None, depth: int) -> Filter:
        parts = [self._item(field, depth)]
        while self._next() not in ("", ",", ")"):
            before = self.source[self.at - 1]
            if not (before.isspace() or before == ")" or self._next() == "("):
                self._expected("a space or a comma")
            parts.append(self._item(field, depth))
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _item(self, field: str | None, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            self._expected(f"at most {MAX_DEPTH} brackets and signs inside one another")
        char = self._next()
        if char == "-":
            self.at += 1
            if self._next() == "-":
                self._expected(AN_ITEM)
            return Not(self._item(field, depth + 1))
        if char == "(":
            return self._brackets(field, depth)
        match = _FIELD.match(self.source, self.at)
        if match is None:
            return self._value(field)
        if field is not None:
            self._expected(f"only values of {field}: in these brackets")
        named = self._field(match[1])
        self.at = match.end()
        return self._brackets(named, depth) if self.source.startswith("(", self.at) else self._value(named)

    def _brackets(self, field: str | None, depth: int) -> Filter:
        opened = self.at
        self.at += 1
        inside = self._any(field, depth + 1)
        if self._next() != ")":
            self._expected('a closing ")" for this one', opened)
        self.at += 1
        return inside

    def _field(self, name: str) -> str:
        lower = name.lower()
        lower = ALIASES.get(lower, lower)
        if lower in FIELDS or lower.startswith(ANY_STORED):
            return lower
        known = ", ".join(sorted({*FIELDS, *ALIASES}))
        self._expected(f"one of the fields {known} or {ANY_STORED}NAME (or quotes around a colon)")

    def _value(self, field: str | None) -> Filter:
        start = self.at
        self.values += 1
        if self.values > MAX_VALUES:
            self._expected(f"at most {MAX_VALUES} values")
        pattern = self._pattern(field)
        if field not in RANGES:
            return Words(field, pattern)
        written = self.source[start : self.at]
        bounds = RANGES[field]("*".join(pattern.pieces))
        if bounds is None:
            self._expected(_RANGE_FORMS[field], start)
        return Within(field, written, bounds)

    def _pattern(self, field: str | None) -> Pattern:
        start = self.at
        is_whole = field not in RANGES and self.source.startswith("=", self.at)
        self.at += is_whole
        pieces = [""]
        while True:
            if self.source.startswith("*", self.at):
                self.at += 1
                if pieces[-1] or len(pieces) == 1:  # "**" is "*"
                    pieces.append("")
            elif self.source.startswith('"', self.at):
                pieces[-1] += self._quoted()
            elif (plain := _PLAIN.match(self.source, self.at)) is not None:
                pieces[-1] += plain[0]
                self.at = plain.end()
            else:
                break
        if self.source.startswith("\0", self.at) or "\0" in "".join(pieces):
            self._expected("a value without null characters")
        if pieces == [""]:
            if field is None and self.at == start:
                self._expected(AN_ITEM)
            self._expected(f"a value right after {field}:" if field else "a value")
        return Pattern(tuple(pieces), is_whole)

    def _quoted(self) -> str:
        match = _QUOTED.match(self.source, self.at)
        if match is None:
            self._expected('a closing " for this one')
        self.at = match.end()
        text = _ESCAPED.sub(r"\1", match[1])
        if not text.strip():
            self._expected("text between the quotes", match.start() + 1)
        return text

    def _next(self) -> str:
        """The next character that is no space, "" at the end; goes up to it."""
        match = _SPACES.match(self.source, self.at)
        assert match is not None
        self.at = match.end()
        return self.source[self.at : self.at + 1]

    def _expected(self, what: str, position: int | None = None) -> NoReturn:
        raise QuerySyntaxError("filter", self.source, self.at if position is None else position, what)


_RANGE_FORMS = {
    "duration": "a duration such as >10, 5-30s, 1:30..2:00, <=2min or 500ms",
    "sample_rate": "a sample rate such as 48k, 44.1k, >=96000 or 44100..48000",
    "channels": "a number of channels such as 2, mono, stereo, 5.1 or >2",
    "date": "a date such as 2024, 2024-05, 2024-05-03T05:30, >=2024-05 or 2024-05..2024-07",
}


def _bracketed(part: Filter, kinds: tuple[type, ...]) -> str:
    return f"({part})" if isinstance(part, kinds) else str(part)


def _quoted_if_needed(piece: str) -> str:
    """As it would be read: in quotes where a character means something outside of them."""
    plain = _PLAIN.fullmatch(piece) and not piece.startswith(("-", "=")) and not _FIELD.match(piece)
    if plain or not piece:
        return piece
    escaped = piece.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
