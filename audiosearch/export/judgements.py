"""Labels for other programs and for the trainer (layout `labels`), by the extension of the file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from pathlib import PurePath
from typing import TYPE_CHECKING

from audiosearch.errors import UsageError
from audiosearch.export.values import JSON_VERSION, fields_of

if TYPE_CHECKING:
    from audiosearch.types import Label


def render_labels(labels: Iterable[Label], name: str) -> bytes:
    """The content of a file called `name`. Raises UsageError if its extension is not one of LABEL_FORMATS."""
    extension = PurePath(name).suffix.lower()
    if extension not in LABEL_FORMATS:
        raise UsageError(f"{name}: labels are written as {', '.join(LABEL_FORMATS)}: choose such a name")
    return LABEL_FORMATS[extension](labels).encode("utf-8", "surrogateescape")


def _json(labels: Iterable[Label]) -> str:
    return json.dumps({"version": JSON_VERSION, "labels": [fields_of(each) for each in labels]}, indent=2) + "\n"


def _ndjson(labels: Iterable[Label]) -> str:
    return "".join(json.dumps({"version": JSON_VERSION, **fields_of(each)}) + "\n" for each in labels)


def _csv(labels: Iterable[Label]) -> str:
    """The verdict as yes or no; what is unknown is empty."""
    from dataclasses import fields

    from audiosearch.types import Label

    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, [field.name for field in fields(Label)])
    writer.writeheader()
    writer.writerows({**fields_of(each), "verdict": "yes" if each.verdict else "no"} for each in labels)
    return buffer.getvalue()


LABEL_FORMATS: dict[str, Callable[[Iterable[Label]], str]] = {
    ".json": _json,
    ".ndjson": _ndjson,
    ".jsonl": _ndjson,
    ".csv": _csv,
}
