"""Public data layouts to manifest rows, by name.

table (CSV, JSON) ──┐
                    ├──> rows whose sound was found, and notes on what was not
folder of sound  ───┘
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from audiosearch.errors import UsageError
from audiosearch.trainer.caption_sets import audiocaps, clotho
from audiosearch.trainer.label_sets import labels
from audiosearch.trainer.manifest import ManifestRow, parts_of, read_manifest
from audiosearch.trainer.question_sets import MmauItem, audio_qa, librisqa, mmau, read_mmau
from audiosearch.trainer.tables import Converted, read_csv

__all__ = [
    "LAYOUTS",
    "Converted",
    "MmauItem",
    "audio_qa",
    "audiocaps",
    "clotho",
    "convert",
    "labelled",
    "labelled_clips",
    "labels",
    "librisqa",
    "manifest",
    "mmau",
    "read_mmau",
]


def convert(
    layout: str,
    table: Path,
    audio: Path | None = None,
    *,
    weight: float = 1.0,
    instruction: str = "",
    licence: str = "",
    **options: Any,
) -> Converted:
    """Rows of the data set `table`, whose sound lies below `audio` (default: the table's folder).

    `weight` multiplies every row's; `instruction` and `licence` are for rows without their own, and for all rows
    respectively. `options` are the keyword arguments of the layout's converter.

    Raises:
        UsageError: no such layout or option, a table that is missing or of another layout, or none of its sound.
    """
    converter = LAYOUTS.get(layout)
    if converter is None:
        raise UsageError(f"{layout}: no such data layout; known are {', '.join(LAYOUTS)}")
    known = [name for name in inspect.signature(converter).parameters if name not in ("table", "audio")]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        known += ["weight", "instruction", "licence"]
        raise UsageError(f"the layout {layout} has no option {unknown[0]!r}; it knows {', '.join(known)}")
    if not weight > 0:
        raise UsageError(f"{table}: weight is {weight:g}, expected above 0")
    done = converter(table, audio, **options)
    rows = [
        replace(
            row,
            weight=row.weight * weight,
            instruction=row.instruction or instruction,
            licence=licence or row.licence,
        )
        for row in done.rows
    ]
    return replace(done, rows=rows)


def manifest(table: Path, audio: Path | None = None) -> Converted:
    """Our own manifest."""
    return Converted(read_manifest(table), audio or table.parent)


def labelled_clips(
    table: Path,
    *,
    split: str = "train",
    tiers: Sequence[str] = ("A",),
    environmental_weight: float = 1.0,
    without: Sequence[str] = (),
    only: Sequence[str] = (),
) -> list[ManifestRow]:
    """Rows of a labelled clip collection (`manifest.csv` with split, tier, label, class, caption ...).

    `environmental_weight` multiplies the sampling weight of clips with an ESC-50 fold: everyday sounds, which a single
    note or a single spoken word would otherwise outnumber ten to one. `without` leaves out whole collections
    (`source_repo`) and ESC-50 folds (`fold 4`), to measure on; `only` takes nothing but them.

    Raises:
        UsageError: no such table, a column is missing, or a collection to leave out is not in it.
    """
    if not table.is_file():
        raise UsageError(f"{table}: no such file; set AUDIOSEARCH_DATA to the folder that holds manifest.csv")
    needed = ("split", "tier", "file", "label", "class", "group", "caption", "caption2", "fold", "licence")
    clips = read_csv(table, needed, "a labelled clip collection")
    parts = {part for row in clips for part in _parts(row)}
    if unknown := sorted({*without, *only} - parts):
        raise UsageError(f"{table}: no clips of {', '.join(unknown)}; give a source_repo, or a fold as 'fold 4'")
    return [
        ManifestRow(
            audio=row["file"],
            text=row["caption"],
            label=row["label"],
            sound_class=row["class"],
            group=row["group"],
            family=row.get("family", ""),
            source=row.get("source_repo", ""),
            fold=row["fold"],
            licence=row["licence"],
            attribution=row.get("attribution", ""),
            weight=environmental_weight if row["fold"] else 1.0,
            alternatives=tuple(text for text in (row["caption2"],) if text),
        )
        for row in clips
        if row["split"] == split
        and row["tier"] in tiers
        and not _parts(row) & {*without}
        and (not only or _parts(row) & {*only})
    ]


def _parts(row: dict[str, str]) -> set[str]:
    return parts_of(row.get("source_repo", ""), row["fold"])


def labelled(
    table: Path,
    audio: Path | None = None,
    *,
    split: str = "train",
    tiers: Sequence[str] = ("A",),
    environmental_weight: float = 1.0,
    without: Sequence[str] = (),
    only: Sequence[str] = (),
) -> Converted:
    """`labelled_clips` as a layout."""
    rows = labelled_clips(
        table, split=split, tiers=tiers, environmental_weight=environmental_weight, without=without, only=only
    )
    if not rows:
        raise UsageError(f"{table}: no rows of split {split!r} and tiers {', '.join(tiers)}")
    return Converted(rows, audio or table.parent)


LAYOUTS: dict[str, Callable[..., Converted]] = {
    "manifest": manifest,
    "labelled_clips": labelled,
    "labels": labels,
    "audiocaps": audiocaps,
    "clotho": clotho,
    "audio_qa": audio_qa,
    "librisqa": librisqa,
    "mmau": mmau,
}
