"""Public data layouts to manifest rows."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from audiosearch.errors import UsageError
from audiosearch.trainer.manifest import ManifestRow


def labelled_clips(
    table: Path, *, split: str = "train", tiers: Sequence[str] = ("A",), environmental_weight: float = 1.0
) -> list[ManifestRow]:
    """Rows of a labelled clip collection (`manifest.csv` with split, tier, label, class, caption ...).

    `environmental_weight` multiplies the sampling weight of clips with an ESC-50 fold: everyday sounds, which a single
    note or a single spoken word would otherwise outnumber ten to one.

    Raises:
        UsageError: no such table, or a column is missing.
    """
    if not table.is_file():
        raise UsageError(f"{table}: no such file; set AUDIOSEARCH_DATA to the folder that holds manifest.csv")
    with table.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        needed = {"split", "tier", "file", "label", "class", "group", "caption", "caption2", "fold", "licence"}
        missing = needed - set(reader.fieldnames or ())
        if missing:
            raise UsageError(f"{table}: missing columns {', '.join(sorted(missing))}")
        return [
            ManifestRow(
                audio=row["file"],
                text=row["caption"],
                label=row["label"],
                sound_class=row["class"],
                group=row["group"],
                source=row.get("source_repo", ""),
                licence=row["licence"],
                attribution=row.get("attribution", ""),
                weight=environmental_weight if row["fold"] else 1.0,
                alternatives=tuple(text for text in (row["caption2"],) if text),
            )
            for row in reader
            if row["split"] == split and row["tier"] in tiers
        ]
