"""A query string to terms: what the user writes, on the command line and in the library alike.

    query    = [sign] term { sign term }
    sign     = "+" | "-"                        a space before it; after it a space, or the beginning of a term
    term     = [number "*"] thing ["*" number]  one weight at most, without spaces
    thing    = '"' words '"'                    \\" and \\\\ stand for themselves in quotes
             | words                            up to the next sign
             | file [span]                      a word with the extension of a media file, or that begins like a path
             | "file:" file [span] | 'file:"' file '"' [span]
             | "hit:" 4 to 12 hexadecimal digits [span]
    span     = "@" time "-" [time]              seconds, mm:ss or h:mm:ss

A sentence without any of this is one text. Whether `-` and `+` are signs is decided by spaces, so hyphens in words are
not, nor is a sign that nothing follows; `-5` is a number in a sentence, and `-rain` leaves rain out. Nothing here looks
at the disk: the same string always means the same. The whole grammar with examples: docs/query.md.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import NoReturn

from audiosearch.errors import QuerySyntaxError
from audiosearch.media_names import MEDIA_EXTENSIONS

MAX_CHARACTERS, MAX_TERMS = 10_000, 32

_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_TIME = r"(?:(?:[0-9]+:)?[0-9]+:)?[0-9]+(?:\.[0-9]*)?"
_SPAN = rf"@(?P<start>{_TIME})-(?P<end>{_TIME})?"

_SPACES = re.compile(r"\s*")
_WORD = re.compile(r"\S+")
_SIGN = re.compile(rf"[+-](?:(?=\s+\S)|(?=[^\W\d]|[\"/~]|\.\.?/|{_NUMBER}\*\S))")
_WEIGHT_BEFORE = re.compile(rf"({_NUMBER})\*(?=\S)")
_WEIGHT_AFTER = re.compile(rf"\*({_NUMBER})(?=\s|$|[+-])")
_WEIGHT_OF_WORDS = re.compile(rf"(?<=\S)\*({_NUMBER})\Z")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ESCAPED = re.compile(r"\\([\"\\])")
_SPAN_HERE = re.compile(_SPAN)
_EXTENSION = re.compile(r"(?<=[^/@*])\.(\w+)(?=[@*]|$)")  # in a word
_PATH = re.compile(rf"(?P<file>(?:/|~/|\.\.?/)\S+?)(?=(?:{_SPAN})?(?:\*{_NUMBER})?(?:\s|$))")
_ANY_FILE = re.compile(rf"(?P<file>\S+?)(?=(?:{_SPAN})?(?:\*{_NUMBER})?(?:\s|$))")
_HIT = re.compile(r"[0-9a-fA-F]{4,12}(?=[@*\s]|$)")
_NOT_TEXT = re.compile(r"[\ud800-\udfff]")  # bytes of an argument that are no UTF-8
_NOTHING = re.compile(r"[-+*\s]*")

A_TERM = 'words, a "quoted text", a sound (FILE or FILE@start-end) or hit:ID'
A_SPAN = "a span such as @12.5-18, @1:05-1:09 or @12.5-"
NO_SPACES = "a space, or a sign or *weight, after this"


@dataclass(frozen=True, slots=True)
class Text:
    """Words. Of each kind of term: a negative weight leaves out what it means, by so much."""

    words: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Sound:
    """A sound file, or a span of it; `path` as written."""

    path: str
    start_seconds: float | None = None
    end_seconds: float | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class HitRef:
    """An earlier hit by the beginning of its id, in lower case; with a span, that region of the hit's recording."""

    hit_id: str
    start_seconds: float | None = None
    end_seconds: float | None = None
    weight: float = 1.0


Term = Text | Sound | HitRef


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed query. `str` of it parses to the same."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        first = self.terms[0]
        if len(self.terms) == 1 and isinstance(first, Text) and _means(first.words, first):
            return first.words
        parts = ["- " * (first.weight < 0) + _written(first)]
        parts += [("- " if term.weight < 0 else "+ ") + _written(term) for term in self.terms[1:]]
        return " ".join(parts)


def parse_query(source: str) -> Expression:
    """The terms of a query string. Raises QuerySyntaxError, which says where the mistake is and what was expected."""
    return _Parser(source).expression()


def parse_span(text: str) -> tuple[str, float | None, float | None]:
    """`FILE[@start-end]` as file, start and end in seconds. Raises QuerySyntaxError for a span without length."""
    match = re.fullmatch(rf"(?P<file>.+){_SPAN}", text, re.DOTALL)
    if match is None:
        return text, None, None
    start, end = _Parser(text).times(match)
    return match["file"], start, end


def seconds_of(text: str) -> float:
    """`90.5`, `1:30.5` and `0:01:30.5` are all 90.5 seconds."""
    total = 0.0
    for part in text.split(":"):
        total = total * 60 + float(part)
    return total


class _Parser:
    """Goes once through `source` from left to right; `at` is how far it is."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0
        self.is_closed = False  # the term had quotes, so what comes next needs no space

    def expression(self) -> Expression:
        if len(self.source) > MAX_CHARACTERS:
            self._expected(f"at most {MAX_CHARACTERS:,} characters", MAX_CHARACTERS)
        terms: list[Term] = []
        self._skip_spaces()
        first = self.at
        sign = self._sign() or 1
        while True:
            terms.append(self._term(sign))
            self._skip_spaces()
            if self.at == len(self.source):
                break
            if len(terms) == MAX_TERMS:
                self._expected(f"at most {MAX_TERMS} terms")
            signed = self._sign()
            if signed is None:
                hint = ' (inside quotes write \\" for a quotation mark)' if self.source[self.at] == '"' else ""
                self._expected(f"+ or - before another term{hint}")
            sign = signed
        if all(term.weight < 0 for term in terms):
            self._expected("at least one term that is not left out", first)
        return Expression(tuple(terms))

    def _term(self, sign: int) -> Term:
        self._skip_spaces()
        self.is_closed = False
        if self._is_sign():
            self._expected(A_TERM)
        weight = self._weight(_WEIGHT_BEFORE)
        if weight is not None and self.source[self.at] in "+-*":
            self._expected(A_TERM)
        term = (
            self._quoted_text(weight, sign)
            or self._named_file(weight, sign)
            or self._hit(weight, sign)
            or self._file(weight, sign)
        )
        return term or self._words(weight, sign)

    def _quoted_text(self, weight: float | None, sign: int) -> Text | None:
        if not self.source.startswith('"', self.at):
            return None
        start = self.at
        words = self._quoted()
        if not words.strip():
            self._expected("words between the quotes", start + 1)
        self._check_text(start, self.at)
        return Text(words, self._end(weight, sign))

    def _named_file(self, weight: float | None, sign: int) -> Sound | None:
        word = _WORD.match(self.source, self.at)
        if word is None or not word[0].startswith("file:") or word[0] == "file:":
            return None
        self.at += len("file:")
        start = self.at
        if self.source[start] == '"':
            path = self._quoted()
            if not path:
                self._expected("the name of a file between the quotes", start + 1)
        else:
            path = self._matched(_ANY_FILE)
        return self._sound(path, start, weight, sign)

    def _file(self, weight: float | None, sign: int) -> Sound | None:
        start = self.at
        path = self._file_here()
        if not path:
            return None
        self.at += len(path)
        return self._sound(path, start, weight, sign)

    def _sound(self, path: str, start: int, weight: float | None, sign: int) -> Sound:
        if "\0" in path:
            self._expected("the name of a file", self.source.index("\0", start))
        span = self._span()
        return Sound(path, *span, self._end(weight, sign))

    def _hit(self, weight: float | None, sign: int) -> HitRef | None:
        word = _WORD.match(self.source, self.at)
        if word is None or not word[0].startswith("hit:") or word[0] == "hit:":
            return None
        self.at += len("hit:")
        hit_id = self._matched(_HIT).lower() or self._expected("4 to 12 digits of a hit's id, 0-9 and a-f")
        span = self._span()
        return HitRef(hit_id, *span, self._end(weight, sign))

    def _words(self, weight: float | None, sign: int) -> Text:
        """Plain words up to the next sign, or to a word that is a term of its own."""
        start = end = self.at
        while (word := _WORD.match(self.source, self.at)) is not None:
            if end > start and (self._is_sign() or self._begins_term()):
                break
            end = self.at = word.end()
            self._skip_spaces()
        self.at = end
        words = self.source[start:end]
        if _NOTHING.fullmatch(words):
            self._expected(A_TERM, start)
        self._check_text(start, end)
        if (match := _WEIGHT_OF_WORDS.search(words)) is not None:
            if weight is not None:
                self._expected("one weight, before or after the term", start + match.start())
            weight = self._positive(match[1], start + match.start(1))
            words = words[: match.start()]
        return Text(words, sign * (1.0 if weight is None else weight))

    def _begins_term(self) -> bool:
        word = _WORD.match(self.source, self.at)
        assert word is not None
        named = any(word[0].startswith(prefix) and word[0] != prefix for prefix in ("file:", "hit:"))
        return word[0].startswith('"') or named or bool(self._file_here())

    def _file_here(self) -> str:
        """The file that the word here names, "" if it is just a word."""
        word = _WORD.match(self.source, self.at)
        dots = _EXTENSION.finditer(word[0]) if word else ()
        ends = [dot.end() for dot in dots if dot[1].lower() in MEDIA_EXTENSIONS]
        if word and ends:
            return word[0][: ends[-1]]
        path = _PATH.match(self.source, self.at)
        return path["file"] if path else ""

    def _is_sign(self) -> bool:
        return _SIGN.match(self.source, self.at) is not None

    def _sign(self) -> int | None:
        if not self._is_sign():
            return None
        self.at += 1
        return 1 if self.source[self.at - 1] == "+" else -1

    def _quoted(self) -> str:
        match = _QUOTED.match(self.source, self.at)
        if match is None:
            self._expected('a closing " for this one')
        self.at = match.end()
        self.is_closed = True
        return _ESCAPED.sub(r"\1", match[0][1:-1])

    def _span(self) -> tuple[float | None, float | None]:
        if not self.source.startswith("@", self.at):
            return None, None
        match = _SPAN_HERE.match(self.source, self.at)
        if match is None:
            self._expected(A_SPAN)
        self.at = match.end()
        return self.times(match)

    def times(self, match: re.Match[str]) -> tuple[float, float | None]:
        """Start and end of a matched span. Raises QuerySyntaxError if it has no length."""
        start = seconds_of(match["start"])
        end = None if match["end"] is None else seconds_of(match["end"])
        if not math.isfinite(start):
            self._expected(A_SPAN, match.start("start"))
        if end is not None and not start < end < math.inf:
            self._expected("an end after the span's start", match.start("end"))
        return start, end

    def _end(self, weight: float | None, sign: int) -> float:
        """The signed weight of a term that is closed by now: by a space, a sign, or the end."""
        if self.source.startswith("*", self.at):
            if weight is not None:
                self._expected("one weight, before or after the term")
            weight = self._weight(_WEIGHT_AFTER)
            if weight is None:
                self._expected("a weight such as *2 or *0.5")
        follows = self.source[self.at : self.at + 1]
        if follows and not follows.isspace() and not (self.is_closed and follows in "+-"):
            self._expected(NO_SPACES)
        return sign * (1.0 if weight is None else weight)

    def _weight(self, pattern: re.Pattern[str]) -> float | None:
        match = pattern.match(self.source, self.at)
        if match is None:
            return None
        self.at = match.end()
        return self._positive(match[1], match.start(1))

    def _positive(self, number: str, position: int) -> float:
        if not 0 < float(number) < math.inf:
            self._expected("a weight above 0", position)
        return float(number)

    def _check_text(self, start: int, end: int) -> None:
        match = _NOT_TEXT.search(self.source, start, end)
        if match is not None:
            self._expected("text in UTF-8", match.start())

    def _matched(self, pattern: re.Pattern[str]) -> str:
        """What `pattern` finds here, "" if nothing; goes past it."""
        match = pattern.match(self.source, self.at)
        if match is None:
            return ""
        found = match["file"] if "file" in pattern.groupindex else match[0]
        self.at += len(found)
        return found

    def _skip_spaces(self) -> None:
        match = _SPACES.match(self.source, self.at)
        assert match is not None
        self.at = match.end()

    def _expected(self, what: str, position: int | None = None) -> NoReturn:
        raise QuerySyntaxError("query", self.source, self.at if position is None else position, what)


def _written(term: Term) -> str:
    """A term without its sign; quoted where the bare form would mean something else."""
    weight = "" if abs(term.weight) == 1 else f"{_number(abs(term.weight))}*"
    if isinstance(term, Text):
        return f"{weight}{_in_quotes(term.words)}"
    span = ""
    if term.start_seconds is not None or term.end_seconds is not None:
        end = "" if term.end_seconds is None else _number(term.end_seconds)
        span = f"@{_number(term.start_seconds or 0.0)}-{end}"
    if isinstance(term, HitRef):
        return f"{weight}hit:{term.hit_id}{span}"
    bare = Sound(term.path, term.start_seconds, term.end_seconds)
    for form in (term.path, f"file:{term.path}"):
        if _means(form + span, bare):
            return f"{weight}{form}{span}"
    return f"{weight}file:{_in_quotes(term.path)}{span}"


def _means(source: str, term: Term) -> bool:
    try:
        return parse_query(source).terms == (term,)
    except QuerySyntaxError:
        return False


def _in_quotes(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _number(value: float) -> str:
    """The shortest decimal that is this number again, never with an exponent."""
    text = repr(float(value))
    if "e" in text:
        from decimal import Decimal  # hardly ever needed, and not quickly imported

        text = f"{Decimal(text):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
