"""Answers in the formats of other programs: one table of names, one writer a format.

    render(answer, "csv") -> bytes

Spans are half-open seconds from the start of the file, paths absolute. A path that is no UTF-8 comes out as the bytes
it is, in JSON as lone surrogates (`os.fsencode` of the string gives the bytes back), in playlists as a file URI.
Nothing is opened or read, and only the standard library is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiosearch.errors import UsageError
from audiosearch.export.data import csv_table, json_object, ndjson_lines
from audiosearch.export.labels import audacity_labels, raven_table
from audiosearch.export.playlist import m3u_playlist

if TYPE_CHECKING:
    from audiosearch.types import Answer

__all__ = ["FORMATS", "Format", "render"]


@dataclass(frozen=True, slots=True)
class Format:
    """How a format is written and what its files are called."""

    write: Callable[[Answer], Iterator[str]]
    extensions: tuple[str, ...]
    about: str


FORMATS: dict[str, Format] = {
    "json": Format(json_object, (".json",), "one object, the same as --json"),
    "ndjson": Format(ndjson_lines, (".ndjson", ".jsonl"), "one object a line for each hit"),
    "csv": Format(csv_table, (".csv",), "a table for spreadsheets, one row a hit"),
    "m3u": Format(m3u_playlist, (".m3u", ".m3u8"), "a playlist; VLC plays just the spans"),
    "audacity": Format(audacity_labels, (".txt",), "a label track for Audacity"),
    "raven": Format(raven_table, (".txt", ".tsv"), "a selection table for Raven"),
}


def render(answer: Answer, name: str) -> bytes:
    """The answer in the format `name`. Raises UsageError if there is no such format."""
    if name not in FORMATS:
        raise UsageError(f"no format {name!r}: choose one of {', '.join(FORMATS)}")
    return "".join(FORMATS[name].write(answer)).encode("utf-8", "surrogateescape")
