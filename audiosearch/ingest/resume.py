"""A half-filled space: what the library knows and the space lacks, embedded as the space wants it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from audiosearch.config import Limits
from audiosearch.errors import SpaceMismatch
from audiosearch.ingest import scan
from audiosearch.ingest.pipeline import ingest
from audiosearch.model.fingerprint import space_spec
from audiosearch.store.store import Store
from audiosearch.types import IngestProgress, IngestSummary, ModelDescription, Space

if TYPE_CHECKING:
    from audiosearch.embed.base import AudioTextEmbedder


def resume(
    store: Store,
    space: Space,
    description: ModelDescription,
    load_embedder: Callable[[], AudioTextEmbedder],
    *,
    workers: int | None = None,
    other_embedders: Callable[[], Sequence[Callable[[], AudioTextEmbedder]]] = tuple,
    limits: Limits | None = None,
    progress: Callable[[IngestProgress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> IngestSummary:
    """Bring every recording that a file of the library holds into `space`, with its own window, hop and instruction.

    Folders are not walked: what no space knows is `ingest`'s business. A recording none of whose files is there is a
    warning of the summary.

    Raises:
        SpaceMismatch: `description` is not the model of the space, or sound is read in another way now.
    """
    spec = space.spec
    instruction = spec.document_instruction if spec.is_aspect else None
    again = space_spec(
        description, instruction=instruction, window_seconds=spec.window_seconds, hop_seconds=spec.hop_seconds
    )
    if again.fingerprint != spec.fingerprint:
        raise SpaceMismatch(
            f"space {spec.fingerprint[:12]} cannot be filled up: {description.name}, or the way sound is read, is not "
            "what made its vectors. Name the model as it was with --model, or make a new space with `audiosearch "
            f"ingest` and then run `audiosearch spaces drop {spec.fingerprint[:12]}`"
        )
    listed, absent = _one_file_each(store.missing_files(space.id))
    summary = ingest(
        store,
        description,
        load_embedder,
        listed,
        window_seconds=spec.window_seconds,
        hop_seconds=spec.hop_seconds,
        instruction=instruction,
        workers=workers,
        other_embedders=other_embedders,
        limits=limits,
        progress=progress,
        cancelled=cancelled,
    )
    if not absent:
        return summary
    recordings = f"{absent} recordings are" if absent > 1 else "1 recording is"
    note = (
        f"{recordings} still missing from the space: none of their files is there; `audiosearch status` lists the roots"
    )
    return replace(summary, warnings=(*summary.warnings, note))


def _one_file_each(missing: list[tuple[int, str, bytes]]) -> tuple[list[scan.Listed], int]:
    """A file that is there for each recording, and how many recordings have none."""
    chosen: dict[str, list[bytes]] = defaultdict(list)
    absent = 0
    for _, copies in groupby(missing, key=itemgetter(0)):
        for _, root, path in copies:
            if os.path.exists(scan.absolute_path(root, path)):  # noqa: PTH110 - a Path would normalise the name
                chosen[root].append(path)
                break
        else:
            absent += 1
    return [scan.Listed(root, tuple(paths)) for root, paths in chosen.items()], absent
