"""The training manifest: one JSON object a line, one clip (or a span of one) and what is said of it.

    {"audio": "clips/065b.opus", "text": "an airplane flying overhead", "alternatives": ["a plane passes"]}
    {"audio": "calls/17.wav", "start_seconds": 40, "end_seconds": 55, "question": "Who calls?", "answer": "a crow"}

A caption row has `text`, and `alternatives` for further captions of the same sound; a question row has `question` and
`answer`. A row may have both: then it is two pairs. `audio` is relative to the manifest's folder, or absolute.
Everything else is optional, and a key left out has its default.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from audiosearch.errors import UsageError


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One clip and what is said of it. Times in seconds; the span [start, end) is half open, `None` is the clip's end.

    `weight` is relative: a row of weight 2 is drawn twice as often as its neighbours. `instruction` is what the audio
    side is encoded under; empty: the model's own. Rows of one `family` come from one recording; of spoken words, from
    one speaker. `source` and `fold` (of a data set that comes in folds) name what can be held out.
    """

    audio: str
    text: str = ""
    start_seconds: float = 0.0
    end_seconds: float | None = None
    question: str = ""
    answer: str = ""
    instruction: str = ""
    source: str = ""
    weight: float = 1.0
    label: str = ""
    sound_class: str = ""
    group: str = ""
    family: str = ""
    fold: str = ""
    licence: str = ""
    attribution: str = ""
    alternatives: tuple[str, ...] = ()

    @property
    def parts(self) -> set[str]:
        """What a recipe may call the row's collection, to hold it out: its source, and `fold 4`."""
        return parts_of(self.source, self.fold)

    @property
    def captions(self) -> tuple[str, ...]:
        """Every caption that says something, `text` first."""
        return tuple(text for text in (self.text, *self.alternatives) if text.strip())

    @property
    def has_question(self) -> bool:
        """Whether it is a (question + audio) -> answer pair, beside a caption or without one."""
        return bool(self.question.strip() and self.answer.strip())

    @property
    def is_empty(self) -> bool:
        """Whether nothing is said of the clip that could be learnt."""
        return not self.captions and not self.has_question


def parts_of(source: str, fold: str) -> set[str]:
    """`ManifestRow.parts`, of a row that is not one yet."""
    return {source, f"fold {fold}"} - {"", "fold "}


_DEFAULTS = {item.name: item.default for item in fields(ManifestRow)}


def write_manifest(rows: Iterable[ManifestRow], path: Path) -> int:
    """Write `rows` as JSONL, without keys that have their default; how many were written comes back.

    The file appears whole or not at all: it is written aside and renamed.

    Raises:
        UsageError: a row that `read_manifest` would refuse, or a place that cannot be written.
    """
    count = 0
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("w", encoding="utf-8", newline="\n") as out:
            for row in rows:
                problem = _problem(row)
                if problem:
                    raise UsageError(f"{path}: row {count + 1} ({row.audio!r}) cannot be written: {problem}")
                out.write(_line(row))
                count += 1
            out.flush()
            os.fsync(out.fileno())
        aside.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    return count


def read_manifest(path: Path) -> list[ManifestRow]:
    """All rows of a JSONL manifest, blank lines skipped.

    Raises:
        UsageError: the file is missing or has no rows, or a line is not a row; names the line and the key.
    """
    rows = []
    try:
        # Bytes: `str.splitlines` would also cut at U+2028 and its like, which JSON leaves as they are.
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    rows.append(_row(line, f"{path}:{number}"))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such manifest; see docs/training.md for its format") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    if not rows:
        raise UsageError(f"{path}: the manifest has no rows")
    return rows


def _row(line: bytes, where: str) -> ManifestRow:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{where}: not a manifest row, which is one JSON object ({error})") from error
    if not isinstance(content, dict):
        raise UsageError(f"{where}: not a manifest row, which is one JSON object")
    unknown = sorted(content.keys() - _DEFAULTS.keys())
    if unknown:
        raise UsageError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(_DEFAULTS)}")
    if "audio" not in content:
        raise UsageError(f"{where}: missing key 'audio'")
    row = ManifestRow(**{key: _value(key, value, where) for key, value in content.items()})
    problem = _problem(row)
    if problem:
        raise UsageError(f"{where}: {problem}")
    return row


def _value(key: str, value: Any, where: str) -> Any:
    """A value of a row as its field wants it. Raises UsageError naming the key."""
    if key == "alternatives":
        if isinstance(value, list) and all(isinstance(text, str) for text in value):
            return tuple(value)
        expected = "a list of texts"
    elif key in ("start_seconds", "end_seconds", "weight"):
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if key == "end_seconds" and value is None:
            return None
        expected = "a number"
    else:
        if isinstance(value, str):
            return value
        expected = "a text"
    raise UsageError(f"{where}: {key} is {json.dumps(value)}, expected {expected}")


def _problem(row: ManifestRow) -> str | None:
    """What is wrong with a row's values, or None."""
    if not row.audio:
        return "audio is empty"
    if not (math.isfinite(row.start_seconds) and row.start_seconds >= 0):
        return f"start_seconds is {row.start_seconds:g}, expected 0 or later"
    if row.end_seconds is not None and not (math.isfinite(row.end_seconds) and row.end_seconds > row.start_seconds):
        return f"end_seconds is {row.end_seconds:g}, expected later than start_seconds ({row.start_seconds:g})"
    if not (math.isfinite(row.weight) and row.weight > 0):
        return f"weight is {row.weight:g}, expected above 0"
    for one, other in (("question", "answer"), ("answer", "question")):
        if getattr(row, one).strip() and not getattr(row, other).strip():
            return f"{other} is empty beside its {one}"
    if row.is_empty:
        return "text is empty, and there is no question with its answer"
    return None


def _line(row: ManifestRow) -> str:
    values = {key: getattr(row, key) for key in _DEFAULTS}
    content = {key: value for key, value in values.items() if key == "audio" or value != _DEFAULTS[key]}
    text = json.dumps(content, ensure_ascii=False)
    # A file name that is not UTF-8 holds lone surrogates: only escapes can carry them.
    if any("\ud800" <= character <= "\udfff" for character in text):
        text = json.dumps(content)
    return text + "\n"
