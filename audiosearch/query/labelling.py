"""What the user says of hits, by their ids: found, checked, written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audiosearch.errors import UsageError
from audiosearch.query.remembered import prefix_of, recall
from audiosearch.store.records import LabelRecord
from audiosearch.types import Label

if TYPE_CHECKING:
    from audiosearch.store.store import Store


def add(store: Store, hit: str, verdict: bool, tag: str | None = None) -> Label:
    """Say of a hit, by the beginning of its id, that it is or is not `tag`; without one, what its query asked for.

    Raises UsageError for a hit that was not shown lately or is not clear, and what `Store.add_labels` raises.
    """
    if tag is not None and not tag.strip():
        raise UsageError("the tag is empty: leave it out if the label is about what the query asked for")
    if tag is not None and not _is_text(tag):
        raise UsageError("the tag is not text in UTF-8")
    shown = recall(store.directory, hit)
    span = shown.start_seconds, shown.end_seconds
    store.add_labels([LabelRecord(shown.packet_hash, *span, verdict, tag or "", shown.query, shown.hit_id)])
    return store.labels(hit_prefix=shown.hit_id)[-1]


def remove(store: Store, hit: str, tag: str | None = None) -> list[Label]:
    """Take back what was said of a hit, by the beginning of its id: about `tag`, or all of it; returns that.

    Raises UsageError if there is none, or more than one hit is meant.
    """
    prefix = prefix_of(hit)
    found = store.labels(tag=tag, hit_prefix=prefix)
    ids = sorted({each.hit_id for each in found})
    if not ids:
        about = "" if tag is None else f" about {tag!r}"
        raise UsageError(f"no hit {prefix} has a label{about}: `audiosearch label --list` shows those there are")
    if len(ids) > 1:
        raise UsageError(f"more than one hit begins with {prefix}: give more digits of {', '.join(ids)}")
    store.remove_labels(ids[0], tag)
    return found


def _is_text(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)
