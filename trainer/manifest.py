"""The training manifest: one JSON object a line.

    {"audio": "audio/06/065b.opus", "text": "an airplane flying overhead", "label": "airplane",
     "sound_class": "airplane & jet", "group": "vehicles", "source": "...", "licence": "CC0", "weight": 1.0,
     "alternatives": ["single engine plane"]}

`audio` is relative to the manifest's folder. `text` is the caption; everything after it is optional.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from audiosearch.errors import UsageError


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One clip and what is said of it."""

    audio: str
    text: str
    label: str = ""
    sound_class: str = ""
    group: str = ""
    source: str = ""
    licence: str = ""
    attribution: str = ""
    weight: float = 1.0
    alternatives: tuple[str, ...] = ()


def write_manifest(rows: Iterable[ManifestRow], path: Path) -> int:
    """Write `rows` as JSONL; how many were written comes back."""
    lines = [json.dumps(asdict(row), ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def read_manifest(path: Path) -> list[ManifestRow]:
    """All rows of a JSONL manifest.

    Raises:
        UsageError: the file is missing, or a line is not a row; names the line.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such manifest; see docs/training.md for its format")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            fields["alternatives"] = tuple(fields.get("alternatives", ()))
            row = ManifestRow(**fields)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{path}:{number}: not a manifest row ({error})") from error
        if not row.text.strip():
            raise UsageError(f"{path}:{number}: the text is empty")
        rows.append(row)
    if not rows:
        raise UsageError(f"{path}: the manifest has no rows")
    return rows
