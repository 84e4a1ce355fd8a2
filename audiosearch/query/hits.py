"""Moments to what the user sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from audiosearch.query.fusion import SOUND
from audiosearch.query.moments import Moment
from audiosearch.query.remembered import Shown
from audiosearch.types import Hit, Metadata

if TYPE_CHECKING:
    from audiosearch.query.confidence import Judged
    from audiosearch.store.store import Store


def make_hits(
    store: Store,
    moments: Sequence[Moment],
    reasons: Mapping[str, tuple[str, ...]],
    judged: Judged | None,
    *,
    instructed: bool,
) -> tuple[Hit, ...]:
    """A hit for each moment, with what its score is worth and what its file says of itself. `reasons` for moments by
    id, where it is not the sound alone. `instructed`: some were heard again, others not."""
    said = store.metadata({moment.peak.paths[0] for moment in moments})
    hits = [
        replace(_hit(moment, said.get(moment.peak.paths[0]), instructed), matched=reasons.get(moment.id, (SOUND,)))
        for moment in moments
    ]
    if judged is None:
        return tuple(hits)
    # Of those not heard again, the score is of another kind than what it would be compared with.
    return tuple(
        hit
        if hit.heard_again is False
        else replace(
            hit,
            confidence=float(judged.confidence[i]),
            percentile=float(judged.percentile[i]),
            false_alarm_rate=float(judged.false_alarm_rate[i]),
        )
        for i, hit in enumerate(hits)
    )


def shown(moments: Iterable[Moment], query: str) -> list[Shown]:
    """What is to be remembered of an answer."""
    return [Shown(each.id, each.peak.packet_hash, each.start_seconds, each.end_seconds, query) for each in moments]


def _hit(moment: Moment, metadata: Metadata | None, instructed: bool) -> Hit:
    """The moment, with its file's metadata; of the markers, those that touch its span."""
    root, _ = moment.peak.paths[0]
    if metadata is not None:
        within = (
            each
            for each in metadata.markers
            if each.start_seconds < moment.end_seconds
            and max(each.end_seconds or 0.0, each.start_seconds) >= moment.start_seconds
        )
        metadata = replace(metadata, markers=tuple(within))
    return Hit(
        id=moment.id,
        path=moment.peak.path,
        root=root,
        recording_id=moment.peak.recording_id,
        start_seconds=moment.start_seconds,
        end_seconds=moment.end_seconds,
        score=moment.score,
        metadata=metadata,
        curve=moment.curve,
        heard_again=moment.peak.judged if instructed else None,
    )
