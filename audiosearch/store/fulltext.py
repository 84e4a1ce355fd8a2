"""What files are called and say of themselves, as words that can be searched: functions of a connection.

    file_text      FTS5, a row a file, rowid = file.id
      name         DOGBark_Rain01.wav  ->  "DOGBark DOG Bark Rain01 Rain 01"
      folder       the folders above it, up to its root
      said         values of fields, labels and notes of markers, each after a MARK of its own
      fields       their names in the same order; not searched

FTS5 finds words whatever their case, accents and English endings (`unicode61`, `porter`); what it cannot know is
written out before: words that capitals or digits separate, and Chinese and Japanese characters, which stand without
spaces. A row is written in the transaction that writes its file, always as a whole and from what the catalogue has, and
goes with it by a trigger: there is no moment at which they differ. It is a copy: `rebuild` makes all of it again.

On another database than SQLite there is no such table, and nothing is found.
"""

from __future__ import annotations

import os
import re
import sqlite3
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement, Connection, literal_column, select

from audiosearch.store.connection import select_in
from audiosearch.store.tables import field, file, marker, root

TABLE = "file_text"
LIMIT = 200  # files, where nothing else is said
_BLOCK = 2_000
_MOST_CHARACTERS = 20_000  # of what one file says
_MOST_WORDS = 32  # of a query
_MOST_SCORED = 10_000  # files: BM25 costs about 10 us each, and what more have says little of any
_MARK = "\x1f"
_SHOWN = 60  # characters of a match that is shown

# What says nothing of the sound, or a number that only looks like a word of it.
_LEFT_OUT = frozenset(
    [
        "circled",
        "coding_history",
        "copyright",
        "date",
        "encoded_by",
        "encoder",
        "isrc",
        "location_gps",
        "originator_reference",
        "timecode_flag",
        "timecode_rate",
        "track_number",
        "umid",
    ]
)
_OF_NAME = "name"  # source of fields that are the name's own words again

# Words of a question that hardly ever say what is wanted; without them "the sound of rain" is asked for rain.
_SMALL = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "being",
        "by",
        "for",
        "from",
        "in",
        "into",
        "is",
        "it",
        "its",
        "of",
        "on",
        "or",
        "that",
        "the",
        "their",
        "this",
        "to",
        "with",
        "sound",
        "sounds",
        "recording",
        "recordings",
    ]
)

_LOWER, _UPPER = "a-zß-öø-ÿ", "A-ZÀ-ÖØ-Þ"
_BORDERS = re.compile(
    rf"(?<=[{_LOWER}])(?=[{_UPPER}])|(?<=[{_UPPER}])(?=[{_UPPER}][{_LOWER}])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])"
)
_WITHOUT_SPACES = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")
_WORD = re.compile(r"[^\W_]+")
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_APOSTROPHE = re.compile(r"(?<=\w)['\u2019](?=\w)")

_ON, _OFF = "\x02", "\x03"  # around what `highlight` found; not in any text
_MARKED = re.compile(f"{_ON}([^{_OFF}]*){_OFF}")

CREATE = (
    f"CREATE VIRTUAL TABLE {TABLE} USING fts5(name, folder, said, fields UNINDEXED, "
    "tokenize = 'porter unicode61 remove_diacritics 2')"
)
_INSERT = f"INSERT OR REPLACE INTO {TABLE} (rowid, name, folder, said, fields) VALUES (?, ?, ?, ?, ?)"
_text = sqlalchemy.table(TABLE, *map(sqlalchemy.column, ("rowid", "name", "folder", "said", "fields")))
_file_id: ColumnElement[int] = literal_column(f"{TABLE}.rowid")
_bm25: ColumnElement[float] = literal_column(f"bm25({TABLE}, 2.0, 1.0, 1.0)")


@dataclass(frozen=True, slots=True)
class TextMatch:
    """A file whose name or metadata has words of a query. `score`: BM25, higher is better; equal ones are ties.

    `is_complete`: it has all of them, but for small words. `matched` says which were found where, as `name: dog bark`
    or `title: Rain`.
    """

    file_id: int
    place: tuple[str, str]  # root, path below it
    recording_id: int
    score: float
    is_complete: bool
    matched: tuple[str, ...]


# Written


def rebuild(connection: Connection) -> None:
    """Make the table anew, whatever state it is in, with the rows of all files."""
    if not _is_sqlite(connection):
        return
    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {TABLE}")
    connection.exec_driver_sql(CREATE)
    refresh(connection, list(connection.execute(select(file.c.id)).scalars()))
    connection.exec_driver_sql(f"INSERT INTO {TABLE} ({TABLE}) VALUES ('optimize')")


def refresh(connection: Connection, file_ids: Collection[int]) -> None:
    """Write the rows of some files as their paths, fields and markers are now."""
    if not _is_sqlite(connection):
        return
    wanted = sorted(file_ids)
    for first in range(0, len(wanted), _BLOCK):
        rows = list(_rows(connection, wanted[first : first + _BLOCK]))
        if rows:
            connection.exec_driver_sql(_INSERT, rows)


def differing(connection: Connection) -> int:
    """How many files have no row, or rows no file; 0 in a library that is whole."""
    if not _is_sqlite(connection):
        return 0
    ids, rows = "SELECT id FROM file", f"SELECT rowid FROM {TABLE}"
    both = f"SELECT (SELECT count(*) FROM ({ids} EXCEPT {rows})) + (SELECT count(*) FROM ({rows} EXCEPT {ids}))"
    return int(connection.exec_driver_sql(both).scalar_one())


def spread(text: str) -> str:
    """A text with every word in it apart: what capitals or digits divide is there as a whole and in its parts."""
    plain = _plain(text)
    if not plain.isascii():
        plain = _WITHOUT_SPACES.sub(r" \1 ", plain)
    return _WORD.sub(_with_parts, plain) if _BORDERS.search(plain) else plain


def _plain(text: str) -> str:
    text = _NOT_TEXT.sub(" ", text)
    return _APOSTROPHE.sub("", text if text.isascii() else unicodedata.normalize("NFKC", text))


def _with_parts(word: re.Match[str]) -> str:
    return _parted(word[0])


@lru_cache(maxsize=1 << 15)
def _parted(word: str) -> str:
    parts = _BORDERS.sub(" ", word)
    return word if parts == word else f"{word} {parts}"


def _rows(connection: Connection, file_ids: Collection[int]) -> Iterator[tuple[Any, ...]]:
    """(id, name, folder, said, fields) of each file that there is."""
    said: dict[int, list[tuple[str, str]]] = defaultdict(list)
    fields = select(field.c.id, field.c.file_id, field.c.name, field.c.value).where(field.c.source != _OF_NAME)
    for _, file_id, name, value in sorted(select_in(connection, fields, field.c.file_id, file_ids)):
        if name not in _LEFT_OUT:
            said[file_id].append((name, value))
    notes = select(marker.c.id, marker.c.file_id, marker.c.label, marker.c.note)
    for _, file_id, label, note in sorted(select_in(connection, notes, marker.c.file_id, file_ids)):
        if label or note:
            said[file_id].append(("marker", f"{label} {note}".strip()))
    for file_id, path in select_in(connection, select(file.c.id, file.c.path), file.c.id, file_ids):
        folder, name = os.path.split(path)
        name = os.path.splitext(name)[0]  # noqa: PTH122 - bytes
        yield file_id, spread(_decoded(name)), _folders(folder), *_of_values(said.get(file_id, ()))


@lru_cache(maxsize=1024)
def _folders(path: bytes) -> str:
    return spread(_decoded(path))


def _of_values(said: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """Values, each with a mark before it, and their names, in the same order."""
    values, names, length = "", [], 0
    for name, value in said:
        text = spread(value)
        length += len(text)
        if length > _MOST_CHARACTERS:
            break
        values += _MARK + text
        names.append(name)
    return values, _MARK.join(names)


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "replace")


# Searched


def search(
    connection: Connection, words: str, *, condition: ColumnElement[bool] | None = None, limit: int = LIMIT
) -> list[TextMatch]:
    """The files whose names or metadata have any of the words, best first; ties by path.

    Nothing in `words` is a sign: whatever it is, it is looked for as words. `condition` is one on a row of `file`: only
    files that meet it are found.
    """
    asked = query_words(words)
    if not asked or not _is_sqlite(connection):
        return []
    scored = _scored(connection, asked)
    all_words = _matches(" AND ".join(asked))
    complete = select(_file_id).select_from(_text).where(all_words).correlate(None)
    is_complete = (
        file.c.id.in_(complete) if scored and len(asked) > 1 else sqlalchemy.literal(True)  # else they all are
    ).label("is_complete")
    score = (-sqlalchemy.func.round(_bm25, 6) if scored else sqlalchemy.literal(0.0)).label("score")
    query = (
        select(file.c.id, root.c.path, file.c.path, file.c.recording_id, score, is_complete)
        .select_from(_text.join(file, file.c.id == _file_id).join(root, root.c.id == file.c.root_id))
        .where(_matches(" OR ".join(scored)) if scored else all_words)
        .limit(limit)
    )
    if scored:  # else any of so many is as good as another
        query = query.order_by(is_complete.desc(), score.desc(), root.c.path, file.c.path)
    rows = connection.execute(query if condition is None else query.where(condition)).fetchall()
    texts = list(select_in(connection, select(_text), _file_id, [row[0] for row in rows]))
    reasons = _reasons(" OR ".join(asked), texts)
    return [
        TextMatch(id_, (os.fsdecode(folder), os.fsdecode(path)), of, value, bool(whole), reasons[id_])
        for id_, folder, path, of, value, whole in rows
    ]


def _scored(connection: Connection, asked: list[str]) -> list[str]:
    """Those words by which files are found and scored: the rarest, as long as not too many files have them."""
    found = []
    for word in asked:
        some = select(_file_id).select_from(_text).where(_matches(word)).limit(_MOST_SCORED + 1).subquery()
        found.append((connection.execute(select(sqlalchemy.func.count()).select_from(some)).scalar_one(), word))
    total, scored = 0, []
    for files, word in sorted(found):
        total += files
        if total <= _MOST_SCORED:
            scored.append(word)
    return scored


def query_words(words: str) -> list[str]:
    """Each word as an expression of FTS5, without small words if there are others; the first 32."""
    found = dict.fromkeys(_WORD.findall(_plain(words)))
    kept = [word for word in found if word.casefold() not in _SMALL] or list(found)
    return [_expression(word) for word in kept[:_MOST_WORDS]]


def _expression(word: str) -> str:
    """In quotes nothing is a sign; several words in them must follow each other."""
    parts = " ".join(_BORDERS.sub(" ", _WITHOUT_SPACES.sub(r" \1 ", word)).split())
    return f'"{word}"' if parts == word else f'("{parts}" OR "{word}")'


def _matches(expression: str) -> ColumnElement[bool]:
    return literal_column(TABLE).op("MATCH", is_comparison=True)(expression)


def _reasons(expression: str, texts: list[tuple[Any, ...]]) -> dict[int, tuple[str, ...]]:
    """What was found in rows of the table, in words: asked of a table with just them, whatever else has the words."""
    shown = ", ".join(f"highlight({TABLE}, {column}, '{_ON}', '{_OFF}')" for column in range(3))
    with closing(sqlite3.connect(":memory:")) as scratch:
        scratch.execute(CREATE)
        scratch.executemany(_INSERT, texts)
        query = f"SELECT rowid, {shown}, fields FROM {TABLE} WHERE {TABLE} MATCH ?"
        return {id_: _reason(*text) for id_, *text in scratch.execute(query, (expression,))}


def _reason(name: str, folder: str, said: str, fields: str) -> tuple[str, ...]:
    values = zip(fields.split(_MARK), said.split(_MARK)[1:], strict=True) if fields else ()
    texts = [("name", name), ("folder", folder), *values]
    return tuple(dict.fromkeys(f"{of}: {words}" for of, text in texts if (words := _found_in(text))))


def _found_in(text: str) -> str:
    """The words that were found in a text, in its order, each once; at most about a line."""
    words = {word.casefold(): word for word in reversed(_MARKED.findall(text))}
    shown = " ".join(reversed(words.values()))
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN].rsplit(" ", 1)[0] + " ..."


def _is_sqlite(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"
