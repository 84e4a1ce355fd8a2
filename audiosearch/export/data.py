"""For programs and spreadsheets: JSON, NDJSON, CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from audiosearch.export.values import JSON_VERSION, fields_of

if TYPE_CHECKING:
    from audiosearch.types import Answer


def json_object(answer: Answer) -> Iterator[str]:
    """One object. ASCII only: lone surrogates of a name that is no UTF-8 survive as escapes."""
    yield json.dumps({"version": JSON_VERSION, **fields_of(answer)}, indent=2) + "\n"


def ndjson_lines(answer: Answer) -> Iterator[str]:
    """An object for each hit, complete in itself, as lines that may be concatenated with those of other answers."""
    for rank, hit in enumerate(answer.hits, 1):
        yield json.dumps({"version": JSON_VERSION, "query": answer.query, "rank": rank, **fields_of(hit)}) + "\n"


def csv_table(answer: Answer) -> Iterator[str]:
    """RFC 4180 with a header: every plain value of a hit. Numbers are written in full, what is unknown is empty."""
    from audiosearch.types import Hit

    names = [field.name for field in fields(Hit) if field.name not in ("metadata", "curve")]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(["rank", *names, "recorded_at", "query"])
    for rank, hit in enumerate(answer.hits, 1):
        recorded_at = hit.metadata.recorded_at if hit.metadata else None
        writer.writerow([rank, *(getattr(hit, name) for name in names), recorded_at, answer.query])
    yield buffer.getvalue()
