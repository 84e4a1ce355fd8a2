"""What users said of hits (`audiosearch label --export FILE`): one row a labelled span, its tags as captions.

    audiosearch label --export mine.ndjson
    audiosearch train adapt --set data.sources.0.layout=labels --set data.sources.0.table=mine.ndjson

Only a "yes" is a caption. What was said not to be there is counted and left out: the loss takes its negatives from the
other rows of a batch.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from audiosearch.errors import UsageError
from audiosearch.trainer.manifest import ManifestRow
from audiosearch.trainer.tables import AudioFolder, Converted, found_notes, read_csv, read_json, rows_of

_KEYS = ("verdict", "tag", "query", "path", "start_seconds", "end_seconds")
_EXPECTED = "labels as `audiosearch label --export` writes them (.json, .ndjson, .csv)"
_VERDICTS = {"yes": True, "no": False}
_NO, _WORDLESS = "said not to be it", "without a tag or words"


def labels(table: Path, audio: Path | None = None) -> Converted:
    """Exported labels: text is the tag or, without one, the words that were searched for. Sound is where it was
    when the labels were written, or below `audio`, found by the end of its path."""
    folder = AudioFolder(audio, table) if audio is not None else None
    texts: dict[tuple[str, float, float], list[str]] = {}
    left_out: Counter[str] = Counter()
    missing: list[str] = []
    for number, row in enumerate(_read(table), start=1):
        verdict, start, end = _said(row, f"{table}: label {number}")
        text = str(row["tag"] or row["query"] or "").strip()
        if not verdict or not text:
            left_out[_WORDLESS if verdict else _NO] += 1
            continue
        path = str(row["path"] or "")
        found = folder.find(path) if folder and path else path if Path(path).is_file() else None
        if found is None:
            missing.append(path or f"label {number}, which no file held")
            continue
        known = texts.setdefault((found, start, end), [])
        if text not in known:
            known.append(text)
    rows = [
        ManifestRow(path, first, start, end, source="labels", label=first, alternatives=tuple(others))
        for (path, start, end), (first, *others) in texts.items()
    ]
    root = audio or table.parent
    if not rows:
        why = f"the sound of {len(missing)} is not there (first: {missing[0]})" if missing else "no label says yes"
        raise UsageError(f"{table}: nothing to train on: {why}")
    notes = [f"labels: {count:,} {reason}, left out" for reason, count in sorted(left_out.items())]
    if folder is not None:
        notes += found_notes("labels", "spans", len(rows), missing, folder, table)
    elif missing:
        notes.append(f"labels: the sound of {len(missing):,} is not there, left out (first: {missing[0]})")
    return Converted(rows, root, tuple(notes))


def _read(table: Path) -> list[dict[str, Any]]:
    if table.suffix.lower() == ".csv":
        return list(read_csv(table, _KEYS, _EXPECTED))
    content = read_json(table, _EXPECTED)
    return rows_of(
        content["labels"] if isinstance(content, dict) and "labels" in content else content, table, _KEYS, _EXPECTED
    )


def _said(row: dict[str, Any], where: str) -> tuple[bool, float, float]:
    """(verdict, start, end) of a label. Raises UsageError naming it and the key."""
    verdict = _VERDICTS.get(row["verdict"], row["verdict"]) if isinstance(row["verdict"], str) else row["verdict"]
    if not isinstance(verdict, bool):
        raise UsageError(f"{where}: verdict is {row['verdict']!r}, expected yes or no")
    span = []
    for key in ("start_seconds", "end_seconds"):
        try:
            span.append(float(row[key]))
        except (TypeError, ValueError) as error:
            raise UsageError(f"{where}: {key} is {row[key]!r}, expected seconds") from error
    start, end = span
    if not (0 <= start < end < math.inf):
        raise UsageError(f"{where}: the span {start:g}-{end:g} s is empty or negative")
    return verdict, start, end
